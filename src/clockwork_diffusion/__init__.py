"""Clockwork Diffusion and its kin, for pipelines of diffusers.

Each method is applied and removed, or holds for a block::

    with clockwork(pipe, clock=2) as summary:
        image = pipe("a red ring on the sea").images[0]
    print(summary)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clockwork_diffusion.adaptor_training import train_adaptor
    from clockwork_diffusion.adaptors import load_adaptor
    from clockwork_diffusion.branches import (
        apply_deepcache,
        deepcache,
        remove_deepcache,
    )
    from clockwork_diffusion.depth_skip import (
        apply_depth_skip,
        depth_skipped,
        remove_depth_skip,
    )
    from clockwork_diffusion.pipeline import (
        apply_clockwork,
        clockwork,
        remove_clockwork,
    )
    from clockwork_diffusion.plug_and_play.pipeline import edit_image
    from clockwork_diffusion.schedulers import (
        apply_timesteps,
        at_timesteps,
        remove_timesteps,
    )

__version__ = "0.1.0"

__all__ = [
    "apply_clockwork",
    "apply_deepcache",
    "apply_depth_skip",
    "apply_timesteps",
    "at_timesteps",
    "clockwork",
    "deepcache",
    "depth_skipped",
    "edit_image",
    "load_adaptor",
    "remove_clockwork",
    "remove_deepcache",
    "remove_depth_skip",
    "remove_timesteps",
    "train_adaptor",
]

_HOMES = {
    "pipeline": ("apply_clockwork", "clockwork", "remove_clockwork"),
    "branches": ("apply_deepcache", "deepcache", "remove_deepcache"),
    "depth_skip": ("apply_depth_skip", "depth_skipped", "remove_depth_skip"),
    "schedulers": ("apply_timesteps", "at_timesteps", "remove_timesteps"),
    "adaptors": ("load_adaptor",),
    "adaptor_training": ("train_adaptor",),
    "plug_and_play.pipeline": ("edit_image",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: torch and diffusers take seconds."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names alone."""
    return list(__all__)
