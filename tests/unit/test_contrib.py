"""The hook that is ready for diffusers: its own tests, and the library's images."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "contrib" / "diffusers"
MINI = ROOT / "resources" / "mini"


def _load(name: str) -> Any:
    """Import a file of contrib under its own name, which the other one imports."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


cache = _load("clockwork_cache")
tester = _load("testing_clockwork_cache")


def _pipeline(kind: str = "StableDiffusionPipeline", **parts: Any) -> Any:
    import diffusers

    class CachedUNet(diffusers.UNet2DConditionModel, cache.ClockworkCacheMixin):
        pass

    folder = str(MINI / "stable-diffusion")
    unet = CachedUNet.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float)
    chosen = getattr(diffusers, kind)
    pipe = chosen.from_pretrained(folder, unet=unet, torch_dtype=torch.float, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _inputs() -> dict[str, Any]:
    return {
        "prompt": "a large red ring in the centre on a plain green background",
        "num_inference_steps": 6,
        "guidance_scale": 2.0,
        "generator": torch.Generator().manual_seed(3),
        "height": 64,
        "width": 64,
    }


class TestStableDiffusion(tester.ClockworkCacheTesterMixin):
    def get_pipeline(self) -> Any:
        return _pipeline()

    def get_inputs(self) -> dict[str, Any]:
        return _inputs()


@pytest.mark.parametrize(
    "scheduler", ["DPMSolverMultistepScheduler", "PNDMScheduler", "DDIMScheduler"]
)
@pytest.mark.parametrize(("outer", "cut"), [(1, "stage1"), (2, "stage2")])
@pytest.mark.parametrize("clock", [2, 3])
def test_images_are_the_librarys(scheduler, outer, cut, clock):
    import diffusers

    from clockwork_diffusion import clockwork
    from clockwork_diffusion.adaptors import IdentityAdaptor

    pipe = _pipeline()
    # As Stable Diffusion's own configuration has it.
    plms = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {}
    made = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **plms)
    pipe.scheduler = made
    with clockwork(pipe, clock=clock, adaptor=IdentityAdaptor(cut=cut)):
        ours = pipe(**_inputs(), output_type="latent").images
    told = {}
    if scheduler == "PNDMScheduler":
        # It corrects its first step by a second call.
        told["current_step_callback"] = lambda: max(pipe.scheduler.counter - 1, 0)
    pipe.unet.enable_cache(
        cache.ClockworkCacheConfig(clock=clock, outer_blocks=outer, **told)
    )
    theirs = pipe(**_inputs(), output_type="latent").images
    assert torch.equal(ours, theirs)
    pipe.unet.disable_cache()
    plain = pipe(**_inputs(), output_type="latent").images
    assert not torch.equal(plain, theirs)


def test_a_controlnet_steers_skipped_steps_too():
    import diffusers

    from clockwork_diffusion import clockwork
    from clockwork_diffusion.adaptors import IdentityAdaptor

    net = diffusers.ControlNetModel.from_pretrained(
        str(MINI / "controlnet"), torch_dtype=torch.float
    )
    pipe = _pipeline("StableDiffusionControlNetPipeline", controlnet=net)
    edges = np.zeros((1, 64, 64, 3), np.float32)
    edges[:, 16:48, 16] = 1

    def latents() -> torch.Tensor:
        return pipe(**_inputs(), image=edges, output_type="latent").images

    with clockwork(pipe, clock=2, adaptor=IdentityAdaptor()):
        ours = latents()
    pipe.unet.enable_cache(cache.ClockworkCacheConfig(clock=2))
    assert torch.equal(ours, latents())
