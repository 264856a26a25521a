"""What a run did: which steps were full, what that saved, what was kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from clockwork_diffusion.contract import ages_of
from clockwork_diffusion.passes import Past, UNetPasses


class Summary:
    """What the latest run did, as a table where it is printed.

    Attributes:
        method: The method's name.
        timed: Whether passes are timed, for which a GPU has to finish each of them.
        steps: Of each sampling step in turn whether its passes were full.
        kept_bytes: The most that was kept between two passes.
        left_bytes: What is kept after the latest pass: 0 once a run is over.
    """

    def __init__(self, method: str = "", *, timed: bool = False) -> None:
        """Have seen no run."""
        self.method, self.timed = method, timed
        self.steps: dict[int, bool] = {}
        self.kept_bytes = self.left_bytes = 0
        self._seconds: dict[bool, list[float]] = {True: [], False: []}
        self._calls: dict[bool, int] = {True: 0, False: 0}
        self._count: Callable[[], dict[bool, int]] | None = None
        self._flops: dict[bool, int] | None = None

    def begin(
        self,
        passes: UNetPasses,
        inputs: tuple[torch.Tensor, Any, torch.Tensor],
        further: dict[str, Any],
        pooled: torch.Tensor | None,
    ) -> None:
        """Begin a run; the shapes of its inputs are what FLOPs are counted by."""
        self.__init__(self.method, timed=self.timed)  # type: ignore[misc]
        shapes = tree_map_only(torch.Tensor, _Like, (inputs, further, pooled))
        self._count = lambda: _count(passes, *shapes)

    def start(self, sample: torch.Tensor) -> float:
        """Return the time before a pass, if passes are timed."""
        if not self.timed:
            return 0.0
        _finish(sample)
        return time.perf_counter()

    def seconds(self, sample: torch.Tensor, started: float) -> float | None:
        """Return what a pass took, if passes are timed."""
        if not self.timed:
            return None
        _finish(sample)
        return time.perf_counter() - started

    def note(
        self,
        index: int,
        full: bool,
        seconds: float | None,
        kept: Sequence[torch.Tensor],
    ) -> None:
        """Take note of a pass."""
        self.steps[index] = full
        self._calls[full] += 1
        if seconds is not None:
            self._seconds[full].append(seconds)
        self.left_bytes = sum(each.numel() * each.element_size() for each in kept)
        self.kept_bytes = max(self.kept_bytes, self.left_bytes)

    @property
    def full_steps(self) -> tuple[int, ...]:
        """The steps whose passes were full, counted from 1."""
        return tuple(index + 1 for index, full in self.steps.items() if full)

    @property
    def light_steps(self) -> tuple[int, ...]:
        """The steps whose passes were light, counted from 1."""
        return tuple(index + 1 for index, full in self.steps.items() if not full)

    @property
    def flops(self) -> dict[bool, int]:
        """FLOPs of one full (True) and one light pass (False), counted by shapes.

        Convolutions and products of matrices, those of attention included; two for
        each product. Nothing is computed for it.
        """
        if self._flops is None and self._count is not None:
            self._flops = self._count()
        return self._flops or {}

    @property
    def flops_saved(self) -> float | None:
        """Share of the FLOPs that the light passes have saved, 0 to 1."""
        found = self.flops
        if True not in found:
            return None
        light = self._calls[False] * (found[True] - found.get(False, found[True]))
        return light / (sum(self._calls.values()) * found[True])

    @property
    def seconds_saved(self) -> float | None:
        """What the light passes have saved, by the medians; None if not timed."""
        full, light = self._seconds[True], self._seconds[False]
        if not full or not light:
            return None
        return len(light) * (statistics.median(full) - statistics.median(light))

    def __str__(self) -> str:
        """Return a table, a line per kind of pass."""
        if not self.steps:
            return f"{self.method}: nothing has been sampled yet"
        lines = [f"{self.method}, {len(self.steps)} steps"]
        lines.append(f"{'pass':<8}{'steps':>6}{'calls':>7}{'GFLOPs':>10}{'ms':>9}")
        for full, name in ((True, "full"), (False, "light")):
            steps = len(self.full_steps if full else self.light_steps)
            flops = self.flops.get(full)
            counted = "—" if flops is None else f"{flops / 1e9:.4g}"
            times = self._seconds[full]
            timed = f"{1e3 * statistics.median(times):.4g}" if times else "—"
            calls = self._calls[full]
            lines.append(f"{name:<8}{steps:>6}{calls:>7}{counted:>10}{timed:>9}")
        saved = self.flops_saved
        if saved is not None:
            lines.append(f"FLOPs saved: {100 * saved:.1f} %")
        if self.seconds_saved is not None:
            lines.append(f"time saved: {self.seconds_saved:.3g} s")
        mib = 2**20
        lines.append(
            f"features kept: {self.kept_bytes / mib:.3g} MiB at most, "
            f"{self.left_bytes / mib:.3g} MiB now"
        )
        return "\n".join(lines)


class _Like:
    """Shape, type and device of a tensor, without its values."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.args = (tensor.shape, tensor.dtype, tensor.device)

    def empty(self) -> torch.Tensor:
        shape, dtype, device = self.args
        return torch.empty(shape, dtype=dtype, device=device)


def _count(
    passes: UNetPasses,
    inputs: tuple[Any, ...],
    further: dict[str, Any],
    pooled: Any,
) -> dict[bool, int]:
    """Count the FLOPs of each kind of pass, in tensors without values."""
    passes = getattr(passes, "eager", passes)
    aten = torch.ops.aten
    attention = {aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    found: dict[bool, int] = {}
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        x, t, c = tree_map_only(_Like, _Like.empty, inputs)
        further, pooled = tree_map_only(_Like, _Like.empty, (further, pooled))
        with FlopCounterMode(display=False, custom_mapping=attention) as counter:
            step = passes.full(x, t, c, **further)
        found[True] = counter.get_total_flops()
        if ages_of(passes) is not None:
            past = Past(None, (step.r_out,), (1,))
        else:
            past = Past(passes.keep(step))
        if past.previous is not None or past.fulls:
            with FlopCounterMode(display=False, custom_mapping=attention) as counter:
                passes.light(x, t, c, past, pooled, **further)
            found[False] = counter.get_total_flops()
    return found


def _attention(
    query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **_: Any
) -> int:
    return int(sdpa_flop(query, key, value))


def _finish(sample: torch.Tensor) -> None:
    if sample.device.type == "cuda":
        torch.cuda.synchronize(sample.device)
