"""Memory that is counted by shapes, and what workflow/costs.yaml says of it."""

from pathlib import Path

import open_clip
import pytest
import torch
import yaml
from diffusers import AutoencoderKL
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from clockwork_experiments.cost.architectures import build_unet
from clockwork_experiments.cost.memory import peak_bytes

COSTS = yaml.safe_load(
    (Path(__file__).parents[2] / "workflow" / "costs.yaml").read_text("utf-8")
)
GB = 1e9


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    widths = (128, 256, 512, 512)
    with torch.device("meta"):
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=widths,
            layers_per_block=2,
        )


def test_what_lives_at_once_is_counted_and_what_was_freed_is_not():
    one = torch.empty(1000, device="meta")

    def chain() -> torch.Tensor:
        hidden = one + 1
        for _ in range(5):
            hidden = hidden * 2  # two of 4,000 bytes at a time
        return hidden

    assert peak_bytes(chain) == 8000

    def kept() -> list[torch.Tensor]:
        return [one + n for n in range(5)]

    assert peak_bytes(kept) == 20000
    # A view takes nothing, and neither does an operation in place.
    assert peak_bytes(lambda: (one + 1).view(10, 100).add_(1)) == 4000


def test_attention_takes_its_result_alone():
    rows = torch.empty(1, 8, 4096, 40, device="meta")

    def attend():
        return nn.functional.scaled_dot_product_attention(rows, rows, rows)

    assert peak_bytes(attend) == rows.numel() * 4


def test_rows_and_images_are_as_the_costs_say(vae):
    unet = build_unet("sd")
    rows = torch.empty(4, 4, 64, 64, device="meta")
    text = torch.empty(4, 77, 768, device="meta")
    time = torch.zeros((), device="meta")
    row = peak_bytes(lambda: unet(rows, time, text)) / 4 / GB
    assert COSTS["memory"]["row"] == pytest.approx(row, rel=5e-3)
    latents = torch.empty(1, 4, 64, 64, device="meta")
    image = peak_bytes(lambda: vae.decode(latents)) / GB
    assert COSTS["memory"]["decode"] == pytest.approx(image, rel=5e-3)


def test_weights_are_as_the_costs_say(vae):
    with torch.device("meta"):
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
            )
        )
        clip = open_clip.CLIP(**open_clip.get_model_config("ViT-g-14"))
    pipeline = parameters(build_unet("sd"), vae, text)
    assert COSTS["memory"]["pipeline"] == pytest.approx(4 * pipeline / GB, rel=5e-3)
    assert COSTS["disk"]["sources"]["stable_diffusion"] == pytest.approx(
        2 * pipeline / GB, rel=5e-3
    )
    assert COSTS["disk"]["sources"]["clip"] == pytest.approx(
        4 * parameters(clip) / GB, rel=5e-3
    )
    images = torch.empty(64, 3, 224, 224, device="meta")
    with torch.device("meta"):
        seen = peak_bytes(lambda: clip.encode_image(images))
    # Inception has 24 M parameters.
    scoring = (4 * (parameters(clip) + 24e6) + seen) / GB
    assert COSTS["memory"]["scoring"] == pytest.approx(scoring, rel=5e-3)


def test_archives_are_as_large_as_their_sources_say():
    sources = yaml.safe_load(
        (Path(__file__).parents[2] / "workflow" / "sources.yaml").read_text("utf-8")
    )["sources"]
    for name in ("coco2017_archives", "coco2014_archives"):
        size = sum(each["size"] for each in sources[name]["files"].values()) / GB
        assert COSTS["disk"]["sources"][name] == pytest.approx(size, rel=5e-3), name
    assert set(COSTS["disk"]["sources"]) <= {*sources, "coco2017", "coco2014"}
