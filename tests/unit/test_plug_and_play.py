from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clockwork_diffusion import adaptors, encoding
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.plug_and_play import loops
from clockwork_diffusion.plug_and_play.injection import Injection
from clockwork_diffusion.plug_and_play.loops import (
    GenerationSpec,
    InversionSpec,
)
from clockwork_diffusion.plug_and_play.pipeline import edit_image
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.models import loading
from clockwork_experiments.world import scenes

MODEL = Path(__file__).parents[2] / "resources" / "mini" / "stable-diffusion"
TARGETS = ["a blue ring at the top on the sea", "a red ring at the top on sand"]
INVERSION = InversionSpec(5, clock=2)
GENERATION = GenerationSpec(5, 2.0, 0.8, 0.5, clock=2)


@pytest.fixture(scope="module")
def pipe():
    return loading.load_pipeline(MODEL)


@pytest.fixture(scope="module")
def image():
    thing = scenes.Thing("ring", "red", "plain", "large", 32, 20, 16)
    pixels = scenes.render(scenes.Scene((thing,), "sea", "day", "left", 20))
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


def test_one_call_does_what_its_parts_do(pipe, image):
    source = "a red ring at the top on the sea"
    edited = edit_image(pipe, image, source, TARGETS, INVERSION, GENERATION)
    identity = adaptors.build_adaptor("identity", pipe.unet, "stage1", 1)
    passes = Passes(SplitUNet(pipe.unet), identity)
    config = pipe.scheduler.config
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    clean = encoding.encode_images(pipe.vae, pixels)
    prompts = encoding.encode_prompts(pipe, [source])
    inverted = loops.invert(passes, config, clean, prompts, INVERSION)
    encoded = loops.encode_edits(pipe, TARGETS, "")
    with Injection(pipe.unet) as hooks:
        both = inverted.of([0, 0])
        found = loops.generate(passes, config, both, encoded, GENERATION, hooks)
    for one, other in zip(edited, encoding.decode_latents(pipe, found), strict=True):
        assert np.array_equal(np.array(one), other.permute(1, 2, 0).numpy())
    assert not np.array_equal(np.array(edited[0]), np.array(edited[1]))


def test_one_prompt_as_text_is_one_prompt(pipe, image):
    few = InversionSpec(2), GenerationSpec(2, 2.0, 0.8, 0.5)
    (one,) = edit_image(pipe, image, "a red ring", TARGETS[0], *few)
    (same,) = edit_image(pipe, image, "a red ring", TARGETS[:1], *few)
    assert np.array_equal(np.array(one), np.array(same))


def test_kept_activations_give_the_same_images_and_no_hook_stays(pipe, image, tmp_path):
    plain, kept, spilled = (
        edit_image(
            pipe,
            image,
            "a red ring",
            TARGETS,
            INVERSION,
            GenerationSpec(5, 2.0, 0.8, 0.5, features=features),
            spill=folder,
        )
        for features, folder in (
            ("latents", None),
            ("activations", None),
            ("activations", tmp_path),
        )
    )
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    for one, other in zip(plain * 2, kept + spilled, strict=True):
        gap = np.abs(np.array(one, dtype=int) - np.array(other, dtype=int))
        assert gap.max() <= 1
    assert not any(module._forward_hooks for module in pipe.unet.modules())


def test_a_learned_adaptor_of_another_cut(pipe, image):
    torch.manual_seed(0)
    learned = adaptors.build_adaptor("resnet", pipe.unet, "stage2", 8).eval()

    def pool(texts):
        return torch.ones(len(texts), 8)

    arguments = (pipe, image, "a red ring", TARGETS[:1], INVERSION, GENERATION)
    with_it, without = (
        edit_image(*arguments, adaptor=adaptor, pool=pool)[0]
        for adaptor in (learned, None)
    )
    assert not np.array_equal(np.array(with_it), np.array(without))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": "grey"}, "the image is L, 64×64, not RGB, 64×64"),
        ({"image": "wide"}, "the image is RGB, 80×64, not RGB, 64×64"),
        ({"target_prompts": []}, "there is no target prompt"),
        ({"inversion": InversionSpec(4)}, "inversion keeps no latent"),
    ],
)
def test_wrong_input(pipe, image, changed, message):
    given = {"grey": image.convert("L"), "wide": image.resize((80, 64))}
    arguments = {
        "image": image,
        "target_prompts": TARGETS,
        "inversion": INVERSION,
        **changed,
    }
    if isinstance(arguments["image"], str):
        arguments["image"] = given[arguments["image"]]
    with pytest.raises(ValueError, match=message):
        edit_image(pipe, source_prompt="", generation=GENERATION, **arguments)
