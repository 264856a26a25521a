"""What every pipeline with a UNet is tested for, as diffusers' tests are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from clockwork_cache import ClockworkCacheConfig


class ClockworkCacheTesterMixin:
    """Tests of `ClockworkCacheConfig`; a subclass says of which pipeline.

    It has ``get_pipeline()``, whose UNet has `enable_cache`, and ``get_inputs()`` for a
    run of at least four steps, the same at every call.
    """

    def get_pipeline(self) -> Any:
        """Return a new pipeline."""
        raise NotImplementedError

    def get_inputs(self) -> dict[str, Any]:
        """Return what it is called with."""
        raise NotImplementedError

    def run(self, pipe: Any) -> np.ndarray:
        """Return the images of a run."""
        with torch.no_grad():
            return np.asarray(pipe(**self.get_inputs(), output_type="np").images)

    def test_a_clock_of_one_changes_nothing(self) -> None:
        pipe = self.get_pipeline()
        plain = self.run(pipe)
        pipe.unet.enable_cache(ClockworkCacheConfig(clock=1))
        assert np.array_equal(self.run(pipe), plain)

    def test_skipped_steps_change_images_a_little(self) -> None:
        pipe = self.get_pipeline()
        plain = self.run(pipe)
        pipe.unet.enable_cache(ClockworkCacheConfig(clock=2))
        cached = self.run(pipe)
        assert not np.array_equal(cached, plain)
        other = np.abs(plain - plain.mean()).mean()
        assert np.abs(cached - plain).mean() < other

    def test_inner_blocks_run_at_every_other_step(self) -> None:
        pipe = self.get_pipeline()
        calls = {"inner": 0, "outer": 0}
        pipe.unet.mid_block.resnets[0].register_forward_hook(
            lambda *_: calls.__setitem__("inner", calls["inner"] + 1)
        )
        pipe.unet.down_blocks[0].register_forward_hook(
            lambda *_: calls.__setitem__("outer", calls["outer"] + 1)
        )
        pipe.unet.enable_cache(ClockworkCacheConfig(clock=2))
        self.run(pipe)
        steps = len(pipe.scheduler.timesteps)
        assert calls == {"inner": -(-steps // 2), "outer": steps}

    def test_a_second_run_starts_anew(self) -> None:
        pipe = self.get_pipeline()
        pipe.unet.enable_cache(ClockworkCacheConfig(clock=3))
        assert np.array_equal(self.run(pipe), self.run(pipe))

    def test_disabled_is_as_before(self) -> None:
        pipe = self.get_pipeline()
        plain = self.run(pipe)
        pipe.unet.enable_cache(ClockworkCacheConfig(clock=2))
        assert pipe.unet.is_cache_enabled
        self.run(pipe)
        pipe.unet.disable_cache()
        assert not pipe.unet.is_cache_enabled
        assert np.array_equal(self.run(pipe), plain)

    def test_features_are_freed_at_the_end_of_a_run(self) -> None:
        pipe = self.get_pipeline()
        pipe.unet.enable_cache(ClockworkCacheConfig(clock=2))
        (hook,) = pipe.unet._diffusers_hook.hooks.values()
        kept = []

        def look(pipe: Any, step: int, time: Any, given: dict[str, Any]) -> Any:
            kept.append(hook.state.features is not None)
            return given

        with torch.no_grad():
            pipe(**self.get_inputs(), output_type="latent", callback_on_step_end=look)
        assert kept and all(kept)
        # Pipelines of diffusers reset their models' caches when they are done.
        assert hook.state.features is None

    def test_two_caches_are_refused(self) -> None:
        pipe = self.get_pipeline()
        pipe.unet.enable_cache(ClockworkCacheConfig())
        with pytest.raises(ValueError, match="already been enabled"):
            pipe.unet.enable_cache(ClockworkCacheConfig())

    def test_settings_beyond_the_unet_are_refused(self) -> None:
        pipe = self.get_pipeline()
        blocks = len(pipe.unet.up_blocks)
        with pytest.raises(ValueError, match=f"less than the {blocks} blocks"):
            pipe.unet.enable_cache(ClockworkCacheConfig(outer_blocks=blocks))
        with pytest.raises(ValueError, match="at least 1"):
            ClockworkCacheConfig(clock=0)
