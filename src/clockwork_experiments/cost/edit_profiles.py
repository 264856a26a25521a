"""Profile whole edits with DeepSpeed, and compare with what tables count; no weights.

Tables add up the FLOPs of edited runs from those of single calls. Here the loops
themselves are run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from clockwork_experiments.config.parse import parse
from clockwork_experiments.cost import formulas
from clockwork_experiments.cost.unet_counts import FlopsSpec

if TYPE_CHECKING:
    from torch import nn

    from clockwork_experiments.cost.edit_loops import (
        EditLoops,
        GenerationLoop,
        InversionLoop,
    )
    from clockwork_experiments.cost.flops import Count

TOLERANCE = 0.01
"""How far a count may be from the profile, as a share."""

KEYS = {"": "flops", "_with_attention": "flops_with_attention"}
"""The two conventions: endings of our keys, and the keys of counts."""

SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
"""SD v1.5's; a pass costs the same at any timestep."""


@dataclass(frozen=True)
class ProfiledEdit:
    """Settings of an edited run, as tables get them.

    Attributes:
        model: Id of the model.
        inversion: A `cost.edit_loops.InversionLoop`, as plain data; its
            adaptor is an id.
        generation: A `clockwork_experiments.cost.edit_loops.GenerationLoop`, likewise.
    """

    model: str
    inversion: dict[str, object]
    generation: dict[str, object]


@dataclass(frozen=True)
class ProfileSpec(FlopsSpec):
    """A model as `count_flops` describes it, and what to profile of it.

    Attributes:
        runs: Runs by id.
        device: ``meta`` computes nothing, and takes a tenth of a second for a pass of
            any UNet; ``cpu`` computes with random weights, faster for a small one.
    """

    runs: dict[str, ProfiledEdit]
    device: str = "meta"

    def __post_init__(self) -> None:
        """Reject devices that need not be there."""
        if self.device not in ("meta", "cpu"):
            raise ValueError(f"device {self.device!r} is not meta or cpu")


class Parts(NamedTuple):
    """Counts of an edit's parts.

    Attributes:
        inversion: Of the inversion loop.
        extraction: Of the passes that compute kept features; 0 if none are kept.
        generation: Of the generation loop.
    """

    inversion: Count
    extraction: Count
    generation: Count

    def total(self, key: str, prompts: int = 1) -> float:
        """Return the FLOPs of an edit, of several that share kept features.

        Args:
            key: ``flops`` or ``flops_with_attention``.
            prompts: How many share them.
        """
        inversion, extraction, generation = (getattr(part, key) for part in self)
        return float(inversion + extraction / prompts + generation)


class BeforeUpsampler:
    """An adaptor that does not say that it is the identity.

    It then estimates r_out, and the upsampler follows, as in the paper's count; one
    that says so has the upsampler's kept output handed on.
    """

    def __init__(self, adaptor: Any) -> None:
        """Stand for an adaptor without weights."""
        self._adaptor = adaptor
        self.config = adaptor.config
        self.history, self.inputs = adaptor.history, adaptor.inputs
        self.ages_in = getattr(adaptor, "ages_in", None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the adaptor."""
        return self._adaptor(*args, **kwargs)


def profile(loops: EditLoops, *modules: nn.Module) -> Parts:
    """Run both loops, and count what some modules do in each."""
    from clockwork_experiments.cost.flops import count_calls

    kept: list[Any] = []
    inversion = count_calls(lambda: kept.append(loops.invert()), *modules)
    extraction = count_calls(lambda: kept.append(loops.extract(kept[0])), *modules)
    return Parts(
        inversion, extraction, count_calls(lambda: loops.generate(*kept), *modules)
    )


def compare(
    settings: Mapping[str, Any],
    counts: Mapping[str, Any],
    parts: Parts,
    after_upsampler: Parts | None = None,
) -> dict[str, float]:
    """Compare a profiled edit with what is counted of it, and with the paper's count.

    Args:
        settings: ``inversion`` and ``generation``, as `formulas.edit_flops` takes them.
        counts: Counts of the model's single calls.
        parts: What was profiled, the upsampler run at each step.
        after_upsampler: The same with the upsampler's output kept.
    """
    prompts = settings["generation"].get("prompts", 1)
    compared: dict[str, float] = {}
    for ending, key in KEYS.items():
        compared[f"profiled{ending}"] = profiled = parts.total(key, prompts)
        if after_upsampler is not None:
            compared[f"profiled_after_upsampler{ending}"] = after_upsampler.total(
                key, prompts
            )
        for name, printed in (("counted", False), ("printed", True)):
            total = formulas.edit_flops(settings, counts, key, printed=printed)
            compared[f"{name}{ending}"] = total
            compared[f"ratio_{name}{ending}"] = profiled / total
    return compared


def check(compared: Mapping[str, Mapping[str, float]]) -> None:
    """Make sure that what is counted is what was profiled.

    Args:
        compared: What `compare` returned, by run.

    Raises:
        ValueError: If a count differs; the message names every such run.
    """
    wrong = [
        f"{name} takes {values[f'profiled{ending}']:.5g} {key}, "
        f"counted are {values[f'counted{ending}']:.5g}"
        for name, values in compared.items()
        for ending, key in KEYS.items()
        if abs(values[f"ratio_counted{ending}"] - 1) > TOLERANCE
    ]
    if wrong:
        raise ValueError(
            f"profiled and counted FLOPs differ by more than {TOLERANCE:.0%}: "
            f"{'; '.join(wrong)}"
        )


def profile_edit(
    spec: ProfileSpec, name: str, unet: Any, counts: Mapping[str, Any]
) -> dict[str, float]:
    """Profile a run, with the identity both before and after the upsampler."""
    from clockwork_experiments.cost import edit_loops

    edit, where = spec.runs[name], f"spec.runs.{name}"
    inversion = parse(edit_loops.InversionLoop, edit.inversion, f"{where}.inversion")
    generation = parse(
        edit_loops.GenerationLoop, edit.generation, f"{where}.generation"
    )
    adaptors = (
        _adaptor(spec, unet, inversion, where),
        _adaptor(spec, unet, generation, where),
    )

    def profiled(inverting: Any, generating: Any) -> Parts:
        try:
            loops = edit_loops.EditLoops(
                _passes(unet, inversion, inverting),
                _passes(unet, generation, generating),
                SCHEDULER,
                inversion,
                generation,
                spec.tokens,
                spec.text_channels,
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return profile(loops, unet, *(part for part in adaptors if part is not None))

    def is_identity(adaptor: Any) -> bool:
        return bool(getattr(adaptor, "is_identity", False))

    hidden = [BeforeUpsampler(part) if is_identity(part) else part for part in adaptors]
    before = profiled(*hidden)
    after = profiled(*adaptors) if any(map(is_identity, adaptors)) else None
    settings = {
        "inversion": dataclasses.asdict(inversion),
        "generation": dataclasses.asdict(generation),
    }
    return compare(settings, counts, before, after)


def _adaptor(
    spec: ProfileSpec, unet: Any, loop: InversionLoop | GenerationLoop, where: str
) -> Any:
    """Build a loop's adaptor without weights, or None if it has none."""
    import torch

    from clockwork_diffusion import adaptors, contract

    if not loop.adaptor:
        return None
    if loop.adaptor not in spec.adaptors:
        known = ", ".join(spec.adaptors) or "none"
        raise ValueError(f"{where}: adaptor {loop.adaptor!r} is not one of {known}")
    chosen = spec.adaptors[loop.adaptor]
    with torch.device(spec.device):
        return adaptors.build_adaptor(
            chosen.kind,
            unet,
            chosen.cut,
            spec.text_channels,
            inputs=chosen.inputs or contract.INPUTS,
        )


def _passes(unet: Any, loop: InversionLoop | GenerationLoop, adaptor: Any) -> Any:
    from clockwork_diffusion.passes import Passes
    from clockwork_diffusion.unet import SplitUNet

    cut = loop.cut or ("stage1" if adaptor is None else adaptor.config.cut)
    return Passes(SplitUNet(unet, cut), adaptor)
