"""Clockwork as a cache of diffusers, for UNets: a file for ``diffusers/hooks``.

It needs nothing but diffusers. There the imports below are relative, `CacheMixin` is a
base of `UNet2DConditionModel`, and its methods know `ClockworkCacheConfig`; here
`ClockworkCacheMixin` stands for these two changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks.hooks import BaseState, HookRegistry, ModelHook
from diffusers.models.cache_utils import CacheMixin
from diffusers.utils import get_logger

logger = get_logger(__name__)

_CLOCKWORK_DENOISER_HOOK = "clockwork_cache_denoiser"
_CLOCKWORK_BLOCK_HOOK = "clockwork_cache_block"


@dataclass
class ClockworkCacheConfig:
    r"""Configuration for [Clockwork Diffusion](https://huggingface.co/papers/2312.08128).

    Of every `clock` sampling steps, the first runs the whole UNet. The others run its
    outer blocks alone, with the features of the inner blocks that the last whole step
    left behind.

    Args:
        clock (`int`, defaults to `2`):
            One sampling step in so many is whole; 1 caches nothing. The higher, the
            faster, and the farther from the whole UNet's images.
        outer_blocks (`int`, defaults to `1`):
            How many blocks on either path always run, from the highest resolution down.
            The more, the nearer to the whole UNet's images, and the slower.
        current_step_callback (`Callable[[], int]`, *optional*):
            Returns the sampling step that the call belongs to, from 0. Without it, a
            call at another time than the one before begins a step, which is right for
            all schedulers but those that correct a step at the next one's time, such
            as PNDM in its first step, Heun and KDPM2.
    """

    clock: int = 2
    outer_blocks: int = 1
    current_step_callback: Callable[[], int] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no clock."""
        if self.clock < 1 or self.outer_blocks < 1:
            raise ValueError(
                "`clock` and `outer_blocks` must be at least 1, not "
                f"{self.clock} and {self.outer_blocks}."
            )


class ClockworkCacheState(BaseState):
    """What the hooks of one UNet share."""

    def __init__(self) -> None:
        """Begin without a run."""
        self.reset()

    def reset(self, *args: Any, **kwargs: Any) -> None:
        """Forget the run: the next step is its first, and whole."""
        self.step = -1
        self.timestep: float | None = None
        self.shape: torch.Size | None = None
        self.skipping = False
        self.features: torch.Tensor | None = None


class ClockworkDenoiserHook(ModelHook):
    """Decides at each call of the UNet whether the inner blocks run."""

    _is_stateful = True

    def __init__(
        self, state: ClockworkCacheState, config: ClockworkCacheConfig
    ) -> None:
        """Take what all hooks share, and how often the inner blocks run."""
        super().__init__()
        self.state = state
        self.config = config

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Count the step, then run the UNet, whose blocks know what to do."""
        given = dict(zip(("sample", "timestep"), args, strict=False)) | kwargs
        self._count(given["sample"].shape, given["timestep"])
        return self.fn_ref.original_forward(*args, **kwargs)

    @torch.compiler.disable
    def _count(self, shape: torch.Size, timestep: torch.Tensor | float) -> None:
        state = self.state
        now = float(timestep.flatten()[0] if torch.is_tensor(timestep) else timestep)
        # Time goes down within a run. A scheduler may call twice at one time.
        if state.timestep is None or now > state.timestep or shape != state.shape:
            state.reset()
        if self.config.current_step_callback is not None:
            state.step = self.config.current_step_callback()
        elif now != state.timestep:
            state.step += 1
        state.timestep, state.shape = now, shape
        light = state.step % self.config.clock != 0
        state.skipping = light and state.features is not None

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        """Forget the run, and free the features."""
        self.state.reset()
        return module


class ClockworkBlockHook(ModelHook):
    """Skips an inner block; the last one on the way up hands out what was kept."""

    def __init__(
        self, state: ClockworkCacheState, skips: int = 0, keeps: bool = False
    ) -> None:
        """Say which block it is.

        Args:
            state: What all hooks share.
            skips: How many features a block on the way down leaves for that up.
            keeps: Whether the outer blocks go on with what this block returns.
        """
        super().__init__()
        self.state = state
        self.skips = skips
        self.keeps = keeps

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run the block, or return what stands for its output."""
        if not self.state.skipping:
            output = self.fn_ref.original_forward(*args, **kwargs)
            if self.keeps:
                self.state.features = output
            return output
        if self.keeps:
            return self.state.features
        # Nobody reads it; one number, so that a ControlNet's features can be added.
        hidden = args[0] if args else kwargs["hidden_states"]
        nothing = hidden.new_zeros(1)
        return (nothing, (nothing,) * self.skips) if self.skips else nothing


def apply_clockwork_cache(
    module: torch.nn.Module, config: ClockworkCacheConfig
) -> None:
    r"""Applies [Clockwork](https://huggingface.co/papers/2312.08128) to a UNet.

    Args:
        module (`torch.nn.Module`):
            A `UNet2DConditionModel`.
        config (`ClockworkCacheConfig`):
            How often the inner blocks run, and which they are.

    Example:
    ```python
    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> from diffusers.hooks import ClockworkCacheConfig, apply_clockwork_cache

    >>> pipe = StableDiffusionPipeline.from_pretrained(
    ...     "stable-diffusion-v1-5/stable-diffusion-v1-5", torch_dtype=torch.float16
    ... ).to("cuda")
    >>> apply_clockwork_cache(pipe.unet, ClockworkCacheConfig(clock=2))
    >>> image = pipe("a photo of an astronaut riding a horse on mars").images[0]
    ```
    """
    down, up = list(module.down_blocks), list(module.up_blocks)
    if config.outer_blocks >= len(up):
        raise ValueError(
            f"`outer_blocks` must be less than the {len(up)} blocks of the UNet, not "
            f"{config.outer_blocks}."
        )
    state = ClockworkCacheState()
    inner = [
        *((block, _left_behind(block), False) for block in down[config.outer_blocks :]),
        *([(module.mid_block, 0, False)] if module.mid_block is not None else []),
        *((block, 0, False) for block in up[: -config.outer_blocks - 1]),
        (up[-config.outer_blocks - 1], 0, True),
    ]
    for block, skips, keeps in inner:
        registry = HookRegistry.check_if_exists_or_initialize(block)
        registry.register_hook(
            ClockworkBlockHook(state, skips, keeps), _CLOCKWORK_BLOCK_HOOK
        )
    registry = HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(
        ClockworkDenoiserHook(state, config), _CLOCKWORK_DENOISER_HOOK
    )
    logger.debug(f"Applied Clockwork to {len(inner)} blocks of {type(module).__name__}")


def _left_behind(block: torch.nn.Module) -> int:
    """Return how many features a block on the way down leaves for that up."""
    return len(block.resnets) + len(block.downsamplers or ())


class ClockworkCacheMixin(CacheMixin):
    """What `CacheMixin` does, for Clockwork as well."""

    def enable_cache(self, config: Any) -> None:
        """Enable a cache on the model."""
        if not isinstance(config, ClockworkCacheConfig):
            super().enable_cache(config)
            return
        if self.is_cache_enabled:
            raise ValueError(
                f"Caching has already been enabled with {type(self._cache_config)}. "
                "Disable it first."
            )
        apply_clockwork_cache(self, config)
        self._cache_config = config

    def disable_cache(self) -> None:
        """Disable the cache on the model."""
        if not isinstance(self._cache_config, ClockworkCacheConfig):
            super().disable_cache()
            return
        registry = HookRegistry.check_if_exists_or_initialize(self)
        for name in (_CLOCKWORK_DENOISER_HOOK, _CLOCKWORK_BLOCK_HOOK):
            registry.remove_hook(name, recurse=True)
        self._cache_config = None
