"""The UNets of the tasks as architectures, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from clockwork_diffusion.stablesr.spade import STABLESR_UNET, SpadeUNet
from clockwork_experiments.cost.architectures import SD_TOPOLOGY, SD_V15
from clockwork_experiments.generate.tasks import TASKS, Task, check_task


def task_of(name: str) -> Task:
    """Return a task.

    Raises:
        ValueError: If it is unknown.
    """
    check_task(name)
    return TASKS[name]


def task_config(name: str) -> dict[str, Any]:
    """Return the configuration of a task's UNet at paper size."""
    task = task_of(name)
    if task.structure:
        return {**SD_TOPOLOGY, **STABLESR_UNET}
    config = {**SD_TOPOLOGY, **SD_V15}
    if task.conditioned:
        config["in_channels"] *= 2
    return config


def build_task_unet(
    name: str,
    config: Mapping[str, Any] | None = None,
    device: str | torch.device = "meta",
) -> UNet2DConditionModel:
    """Build a task's UNet with random weights; by default with none at all.

    Args:
        name: A key of `clockwork_experiments.generate.tasks.TASKS`.
        config: Configuration of the UNet; that of the published model if left out.
        device: Where to build it.

    Raises:
        ValueError: If the task is unknown.
    """
    kind = SpadeUNet if task_of(name).structure else UNet2DConditionModel
    chosen = task_config(name) if config is None else dict(config)
    with torch.device(device):
        unet: UNet2DConditionModel = kind.from_config(chosen).eval()
    return unet.requires_grad_(False)


def build_branch(
    unet: UNet2DConditionModel, config: Mapping[str, Any] | None = None
) -> ControlNetModel:
    """Build ControlNet's branch of a UNet, on the UNet's device, with random weights.

    Args:
        unet: The UNet that it steers.
        config: Configuration of the branch; that of the published model if left out.
    """
    with torch.device(unet.device):
        branch = (
            ControlNetModel.from_unet(unet, load_weights_from_unet=False)
            if config is None
            else ControlNetModel.from_config(dict(config))
        )
    return branch.to(unet.dtype).eval().requires_grad_(False)


def call_inputs(
    unet: UNet2DConditionModel, tokens: int, batch: int = 1
) -> dict[str, Any]:
    """Return the arguments of a call of a UNet, zeros throughout.

    Args:
        unet: The UNet; if it has SPADE, structure is among them.
        tokens: Length of a prompt.
        batch: Samples of the call.
    """
    config, size = unet.config, int(unet.config.sample_size)
    like = {"device": unet.device, "dtype": unet.dtype}
    given: dict[str, Any] = {
        "sample": torch.zeros(batch, config.in_channels, size, size, **like),
        "timestep": torch.zeros(batch, device=unet.device),
        "encoder_hidden_states": torch.zeros(
            batch, tokens, config.cross_attention_dim, **like
        ),
    }
    channels = config.get("structure_channels")
    if channels is not None:
        widths = [size >> level for level in range(len(config.block_out_channels))]
        given["structure"] = {
            width: torch.zeros(batch, channels, width, width, **like)
            for width in widths
        }
    return given


def hint_for(branch: ControlNetModel, unet: UNet2DConditionModel) -> torch.Tensor:
    """Return a hint for ControlNet's branch at batch 1, of zeros."""
    halvings = len(branch.config.conditioning_embedding_out_channels) - 1
    size = int(unet.config.sample_size) << halvings
    channels = branch.config.conditioning_channels
    return torch.zeros(1, channels, size, size, device=unet.device, dtype=unet.dtype)
