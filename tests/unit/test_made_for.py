"""What adaptors were made for, and what they are not silently used for."""

import warnings

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel

from clockwork_diffusion.adaptors import IdentityAdaptor, build_adaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.depth_skip import depth_skip
from clockwork_diffusion.made_for import (
    differences,
    facts_of_use,
    warn_of_another_use,
    weights_of,
)
from clockwork_diffusion.schedulers import SCHEDULERS, name_of, new_scheduler


@pytest.fixture
def scheduler(scheduler_config):
    return new_scheduler("dpmpp", scheduler_config, 8)


@pytest.fixture
def facts(unet, scheduler):
    return facts_of_use(unet, scheduler, Clock(2), "stage1")


def test_the_same_use_says_nothing(unet, facts):
    adaptor = build_adaptor("resnet", unet, "stage1", 8, made_for=facts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_another_use(adaptor, facts)
        warn_of_another_use(adaptor, {"steps": 8})
        warn_of_another_use(IdentityAdaptor(), facts)
        warn_of_another_use(torch.nn.Identity(), facts)


def test_each_difference_is_named_in_one_warning(unet, facts, scheduler_config):
    adaptor = build_adaptor("resnet", unet, "stage1", 8, made_for=facts)
    ddim = new_scheduler("ddim", scheduler_config, 4)
    with pytest.warns(UserWarning) as caught:
        warn_of_another_use(
            adaptor, facts_of_use(unet, ddim, Clock(adaptor_steps=(3,)), "stage1")
        )
    (warning,) = caught
    assert str(warning.message) == (
        "the ResNetAdaptor was trained for scheduler 'dpmpp', steps 8, clock 2, and "
        "asked for scheduler 'ddim', steps 4, adaptor steps [3]"
    )


def test_another_checkpoint_is_told_and_another_precision_is_not(unet, facts):
    for dtype in (torch.float16, torch.bfloat16):
        half = UNet2DConditionModel.from_config(unet.config)
        half.load_state_dict(unet.state_dict())
        assert not differences_of(facts, half.to(dtype))
    # What is left of the model is the model.
    assert not differences_of(facts, depth_skip(unet, 7))
    other = UNet2DConditionModel.from_config(unet.config)
    assert "weights that begin" in differences_of(facts, other)
    with torch.device("meta"):
        away = UNet2DConditionModel.from_config(unet.config)
    assert weights_of(away) == {} and not differences_of(facts, away)


def differences_of(facts, unet) -> str:
    adaptor = IdentityAdaptor()
    adaptor.register_to_config(made_for=facts)
    return differences(adaptor, {**facts, "weights": weights_of(unet)})


def test_schedulers_have_the_names_of_the_configuration(scheduler_config):
    for key in SCHEDULERS:
        assert name_of(new_scheduler(key, scheduler_config, 8)) == key
    assert name_of(EulerDiscreteScheduler()) == "EulerDiscreteScheduler"
    assert name_of(DDIMScheduler()) == "ddim"
