"""An adaptor from outside the project: one file of twenty lines, trained and run."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from clockwork_diffusion import contract
from clockwork_diffusion.adaptor_training import train_adaptor
from clockwork_diffusion.adaptors import build_adaptor, class_of, load_adaptor
from clockwork_diffusion.pipeline import clockwork
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.generate import runs
from clockwork_experiments.train.distillation import AdaptorSpec

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipelines import NOISE, PROMPT, sd  # noqa: E402

OWN = """
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class Mix(ModelMixin, ConfigMixin):
    history = 1
    inputs = ("r_in", "r_out")

    @register_to_config
    def __init__(self, in_channels, out_channels, time_channels, text_channels, groups,
                 cut, width, made_for=None, inputs=None, pooling=None):
        super().__init__()
        self.mix = torch.nn.Conv2d(in_channels + out_channels, out_channels, 1)

    def forward(self, r_in, r_out, t_emb, text_emb=None):
        return r_out + self.mix(torch.cat([r_in, r_out], dim=1))
"""
KIND = "my_adaptors:Mix"
SHORT = {"steps": 4, "guidance_scale": 3.0, "held_out": 2, "captions_per_epoch": 2}
SHORT |= {"updates": 6, "batch_size": 2, "captions_at_once": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("mine")
    (place / "my_adaptors.py").write_text(OWN, encoding="utf-8")
    sys.path.insert(0, str(place))
    pipe = sd(scheduler=DDIMScheduler(**NOISE))
    captions = [f"{word} {PROMPT}" for word in ("a", "red", "ring", "on", "the", "sea")]
    pipe.save_pretrained(place / "pipe")
    storage.write_checksums(place / "pipe")
    train_adaptor(pipe, captions, place / "adaptor", kind=KIND, **SHORT)
    storage.write_checksums(place / "adaptor")
    yield pipe, place
    sys.path.remove(str(place))


def test_it_is_trained_saved_and_run_by_its_name(trained):
    pipe, place = trained
    adaptor = load_adaptor(place / "adaptor", trust=True)
    assert type(adaptor).__name__ == "Mix" and adaptor.mix.weight.any()
    assert adaptor.config.made_for["steps"] == 4
    with clockwork(pipe, 2, adaptor=adaptor):
        own = pipe(PROMPT, num_inference_steps=4, output_type="latent").images
    assert torch.isfinite(own).all()


def test_a_folder_does_not_say_what_is_imported_unless_it_is_trusted(trained):
    _, place = trained
    with pytest.raises(ValueError, match="'my_adaptors:Mix', which would be imported"):
        load_adaptor(place / "adaptor")


def test_the_experiments_train_it_and_sample_with_it(trained):
    pipe, place = trained
    recipe = {"steps": 4, "batch_size": 2, "lr": 1e-3}
    told = {"kind": KIND, "cut": "stage1", "clock": 2, "optimisation": recipe}
    spec = parse(AdaptorSpec, {**told, "inputs": ["r_in", "r_out"]})
    model = storage.sha256_folder(place / "pipe")
    made_for = spec.made_for(model, "ddim", 4, contract.LOOPS[0])
    built = build_adaptor(
        spec.kind, pipe.unet, spec.cut, 8, made_for, inputs=spec.inputs
    )
    built.save_pretrained(place / "theirs")
    storage.write_checksums(place / "theirs")
    loaded = runs.split_passes(
        pipe.unet,
        "",
        place / "theirs",
        8,
        model=place / "pipe",
        scheduler="ddim",
        steps=4,
    ).adaptor
    assert type(loaded).__name__ == "Mix"
    assert torch.equal(loaded.mix.weight, built.mix.weight)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("mix", "adaptor kind 'mix' is not one of identity, .*my_package.my_module"),
        ("nowhere:Mix", "adaptor kind 'nowhere:Mix': No module named 'nowhere'"),
        ("json:JSONDecoder", "'json:JSONDecoder' is no ModelMixin with `inputs`"),
    ],
)
def test_what_is_no_adaptor_is_refused(trained, kind, message):
    pipe, _ = trained
    with pytest.raises(ValueError, match=message):
        class_of(kind)
    with pytest.raises(ValueError, match=message):
        build_adaptor(kind, pipe.unet, "stage1", 8)
