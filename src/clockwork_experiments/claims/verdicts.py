"""Judge a paper's claims: each part gets an effect, an interval and a verdict.

A claim is a list of parts, and a part compares measurements of runs on the same prompts
and seeds, or of edited runs ``<edit set>/<edit>/<setting>`` on the same pairs of source
image and target prompt, or of translations of the same pairs. The *gain* of a run
over another is oriented: positive where the first is better, that is lower by Fréchet
distance, higher by CLIP. Of translations some kinds of pairs alone can be meant, and a
score can be held against a number without another run. Time steps are compared on pairs
that their search did not see, and the γ behind them as `timesteps` says.

**Tests.** ``greater``: the effect is above the margin. ``no_worse``: it is above minus
the margin. ``equivalent``: it is within ± the margin; two one-sided tests. ``counted``:
a number without chance lies between two bounds. Each is one or two contrasts that must
be positive. A margin that is a share of a measured loss is measured with it, so that
its own uncertainty is within the contrast's interval (`statistics`). Where that loss is
not clear of zero there is no scale to judge by, and the part is undecided.

**Three layers.** From the coarsest to the strictest:

1. *Signs.* Of all effects that a paper prints, how many of ours have the printed sign.
2. *The primary part*: the first of a claim's parts, by its first metric. Each paper
   makes a dozen claims at once, so that these verdicts are corrected by Holm's method,
   for what holds and for what fails.
3. *All parts.* A part holds by its 95 % interval. A claim holds if all its parts hold,
   which is an intersection-union test and needs no correction. It does not hold if any
   part fails, and so to fail a part takes more: Bonferroni's interval, at 1 − 0.05 / k
   for k tested parts of a claim. Between claims nothing is corrected. Of k parts that
   are all true, each seen with a chance of 80 %, all hold with a chance of no less than
   1 − 0.2 k and, were they independent, of 0.8 to the power of k: a claim of many parts
   is rarely seen to hold as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clockwork_experiments.claims import timesteps
from clockwork_experiments.claims.evidence import Evidence, Measurements
from clockwork_experiments.claims.printed import printed_effect
from clockwork_experiments.claims.registry import METRICS, ClaimsSpec, Margin, Part
from clockwork_experiments.claims.statistics import LEVEL, Measured, resampled

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


@dataclass(frozen=True)
class Number:
    """A number, with its 95 % interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Contrast:
    """What had to be positive.

    Attributes:
        value: The contrast.
        low: Lower end of its 95 % interval: above zero, it holds.
        high: Upper end of its interval at the level for failures: below zero, it fails.
        p_holds: One-sided p-value of its being no more than zero, if it has one.
        p_fails: The same of its being no less.
    """

    value: float
    low: float
    high: float
    p_holds: float | None = None
    p_fails: float | None = None


@dataclass(frozen=True)
class Judged:
    """A part, judged.

    Attributes:
        label: What is compared.
        metric: The metric.
        test: The test.
        verdict: `HOLDS`, `FAILS` or `UNDECIDED`.
        effect: The effect.
        margin: The margin; of ``counted`` the lower bound.
        at_most: Of ``counted``, the upper bound.
        margin_name: Which margin of the registry it is.
        contrasts: What the verdict is made of.
        failing_level: Level of the interval that a failure goes by.
        standardised: Effect in units of the runs' spread over captions or sources.
        by_seed: The effect of each sampling seed alone.
        n: Number of units.
        unit: What they are.
        interval: How the interval was made.
        compared: Weights of the runs that are compared.
        printed: What the paper prints, if it does.
        ours: Whether it has no part in the verdict.
        note: What else a reader must know.
        judgeable: Whether there is a scale to judge by.
    """

    label: str
    metric: str
    test: str
    verdict: str
    effect: Number
    margin: Number
    at_most: float | None
    margin_name: str
    contrasts: tuple[Contrast, ...] = ()
    failing_level: float | None = None
    standardised: float | None = None
    by_seed: tuple[float, ...] = ()
    n: int = 0
    unit: str = ""
    interval: str = ""
    compared: dict[str, float] = field(default_factory=dict)
    printed: tuple[float, float] | None = None
    ours: bool = False
    note: str = ""
    judgeable: bool = True


@dataclass(frozen=True)
class JudgedClaim:
    """A claim, judged.

    Attributes:
        statement: What the paper says.
        verdict: `HOLDS`, `FAILS` or `UNDECIDED`, by all parts.
        tested: Number of parts that a failure is corrected for.
        parts: The parts; the first is the primary one.
        primary: The verdict by the primary part, corrected among the paper's claims.
    """

    statement: str
    verdict: str
    tested: int
    parts: tuple[Judged, ...]
    primary: str = UNDECIDED

    @property
    def signs(self) -> tuple[int, int]:
        """How many printed effects have our sign, and how many there are."""
        return sign_agreement(self.parts)


def contrasts(
    test: str, effect: Measured, margin: Measured | float, tested: int = 1
) -> tuple[Contrast, ...]:
    """Return what must be positive for a test to hold.

    Args:
        test: One of `KINDS` but ``counted``.
        effect: The effect.
        margin: The margin, measured or given.
        tested: Number of tested parts of the claim, for the level of a failure.
    """
    needed = {
        "greater": [effect + -margin],
        "no_worse": [effect + margin],
        "equivalent": [effect + margin, -effect + margin],
    }[test]
    level = failing_level(tested)
    return tuple(
        Contrast(
            each.value,
            each.interval()[0],
            each.interval(level)[1],
            each.tail(),
            (-each).tail(),
        )
        for each in needed
    )


def verdict_of(needed: Sequence[Contrast]) -> str:
    """Return the verdict on a part from what had to be positive."""
    if all(contrast.low > 0 for contrast in needed):
        return HOLDS
    return FAILS if any(contrast.high < 0 for contrast in needed) else UNDECIDED


def failing_level(tested: int) -> float:
    """Return Bonferroni's level for one of so many tested parts."""
    return 1 - (1 - LEVEL) / max(tested, 1)


def primary_verdicts(parts: Mapping[str, Judged]) -> dict[str, str]:
    """Return the verdicts by primary parts, by claim, with Holm's correction.

    What is counted without chance takes no share of the error, nor does what has no
    p-value: it keeps its own verdict. A part without a scale to judge by is undecided.
    """
    chance = {
        name: part
        for name, part in parts.items()
        if part.contrasts and all(c.p_holds is not None for c in part.contrasts)
    }
    found = {name: part.verdict for name, part in parts.items() if name not in chance}
    found |= dict.fromkeys(chance, UNDECIDED)
    for verdict, worst, key in ((HOLDS, max, "p_holds"), (FAILS, min, "p_fails")):
        # All contrasts must be positive to hold; one that is not is enough to fail.
        ps = {
            name: worst(getattr(each, key) for each in part.contrasts)
            for name, part in chance.items()
        }
        for rank, name in enumerate(sorted(ps, key=lambda name: ps[name])):
            if ps[name] > (1 - LEVEL) / 2 / (len(ps) - rank):
                break
            if chance[name].judgeable:
                found[name] = verdict
    return found


def sign_agreement(parts: Iterable[Judged]) -> tuple[int, int]:
    """Return how many printed effects have our sign, and how many there are.

    Effects that the paper prints as none have no sign; what is counted is compared as
    the rest.
    """
    agree, known = 0, 0
    for part in parts:
        if part.printed is None:
            continue
        printed = printed_effect(part.metric, *part.printed)
        if printed:
            known += 1
            agree += printed * part.effect.value > 0
    return agree, known


def verdict_of_all(verdicts: Sequence[str]) -> str:
    """Return a claim's verdict: all hold, or any fails, or neither."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if all(verdict == HOLDS for verdict in verdicts) else UNDECIDED


def judge(spec: ClaimsSpec, evidence: Evidence) -> dict[str, JudgedClaim]:
    """Judge every claim.

    Raises:
        ValueError: If the evidence does not fit a claim, naming it.
    """
    measurements = Measurements(evidence)
    judged = {}
    for name, claim in spec.claims.items():
        tested = sum(
            len(part.metrics)
            for part in claim.parts
            if part.test != "counted" and not part.ours
        )
        try:
            parts = tuple(
                _judge_part(measurements, part, metric, spec.margins, tested)
                for part in claim.parts
                for metric in part.metrics
            )
        except ValueError as error:
            raise ValueError(f"claim {name}: {error}") from error
        verdict = verdict_of_all([part.verdict for part in parts if not part.ours])
        judged[name] = JudgedClaim(claim.statement, verdict, tested, parts)
    primary = primary_verdicts({name: each.parts[0] for name, each in judged.items()})
    return {n: replace(each, primary=primary[n]) for n, each in judged.items()}


def _judge_part(
    measurements: Measurements,
    part: Part,
    metric: str,
    margins: Mapping[str, Margin],
    tested: int,
) -> Judged:
    chosen = margins[part.margin]
    known: dict[str, Any] = {
        "label": part.label,
        "metric": metric,
        "test": part.test,
        "margin_name": part.margin,
        "at_most": chosen.at_most,
        "printed": part.printed.get(metric),
        "ours": part.ours,
    }
    if part.test == "counted":
        counted = measurements.counted(part, metric)
        return Judged(
            **known,
            verdict=counted_verdict(counted, chosen),
            effect=Number(counted),
            margin=Number(chosen.value),
            compared={part.of: 1.0, part.over[0]: -1.0} if part.of else {},
        )
    if METRICS[metric].source == "gammas":
        return _judge_gamma(measurements, part, metric, chosen, tested, known)
    effect = measurements.effect(part, metric)
    margin, shown, judgeable = _margin_of(measurements, part, metric, chosen)
    needed = contrasts(part.test, effect, margin, tested)
    spread = measurements.spread(part, metric)
    return Judged(
        **known,
        **_told(effect, tested),
        verdict=verdict_of(needed) if judgeable else UNDECIDED,
        margin=shown,
        contrasts=needed,
        standardised=effect.value / spread if spread else None,
        by_seed=tuple(effect.by_seed.tolist()),
        compared=_compared(measurements, part),
        note="" if judgeable else UNCLEAR.format(chosen.worse or "no score"),
        judgeable=judgeable,
    )


UNCLEAR = (
    "the loss of {} that the margin is a share of is not clear of zero: nothing to "
    "judge by"
)


def _margin_of(
    measurements: Measurements, part: Part, metric: str, chosen: Margin
) -> tuple[Measured | float, Number, bool]:
    """Return a part's margin, what is shown of it, and whether it can be judged by."""
    if not chosen.better:
        return chosen.value, Number(chosen.value), True
    loss = measurements.loss(metric, chosen, part.to, part.kinds)
    margin = loss * chosen.share_of(metric)
    shown = Number(margin.value, *margin.interval())
    return margin, shown, loss.interval()[0] > 0


def _compared(measurements: Measurements, part: Part) -> dict[str, float]:
    """Return the runs that an effect is of, with their weights in it."""
    if part.steps is not None:
        return {part.steps.name: 1.0, part.steps.other: -1.0}
    if not part.of:
        return {}
    weights = measurements.weights(part.of, part.over)
    return {part.of: 1.0, **{name: -w for name, w in weights.items()}}


def _judge_gamma(
    measurements: Measurements,
    part: Part,
    metric: str,
    margin: Margin,
    tested: int,
    known: Mapping[str, Any],
) -> Judged:
    """Judge a γ, or two of them.

    By what resampled searches found, where there are such. Elsewhere, one γ: its side
    of 1 counts as far as its steps are better than even ones on held-out pairs; within
    the margin of 1 it has none. Two: what holds of the two best γ holds; it fails only
    if it does for none within their ranges.
    """
    assert part.steps is not None
    found, other = timesteps.gammas(part.steps, measurements.evidence.step_searches)
    if found.resampled:
        return _judge_resampled(part, metric, found, other, margin, tested, known)
    if other is not None:
        ratio = found - other
        return Judged(
            **known,
            verdict=verdict_of(needed := _ratio_contrasts(part.test, ratio, margin)),
            effect=Number(ratio.value),
            margin=Number(margin.value),
            contrasts=needed,
            compared={part.steps.name: 1.0, part.steps.other: -1.0},
            note=f"γ {found} against {other}",
        )
    gain = measurements.steps_gain(part.steps, "psnr_to_teacher", "uniform")
    towards = found.value * timesteps.DIRECTIONS[metric]
    side = 0.0 if abs(towards) <= margin.value else math.copysign(1.0, towards)
    needed = contrasts("greater", gain * side, 0.0, tested)
    low, high = gain.interval()
    return Judged(
        **known,
        verdict=verdict_of(needed),
        effect=Number(towards),
        margin=Number(margin.value),
        contrasts=needed,
        failing_level=failing_level(tested),
        n=gain.n,
        unit=gain.unit,
        interval=f"of the gain over uniform steps: 95 % {gain.method}",
        compared={part.steps.name: 1.0},
        note=(
            f"γ {found}; its steps gain {gain.value:+.2f} [{low:+.2f}, {high:+.2f}] dB "
            "over uniform ones"
        ).replace("-", "−"),
    )


def _judge_resampled(
    part: Part,
    metric: str,
    found: timesteps.GammaRange,
    other: timesteps.GammaRange | None,
    margin: Margin,
    tested: int,
    known: Mapping[str, Any],
) -> Judged:
    """Judge ln γ, or the difference of two, by its spread over resampled searches."""
    assert part.steps is not None
    effect = resampled(found.value, found.resampled, "resampled searches")
    compared = {part.steps.name: 1.0}
    note = f"γ {math.exp(found.value):.3f}"
    if other is None:
        effect = effect * float(timesteps.DIRECTIONS[metric])
    else:
        effect = effect - resampled(other.value, other.resampled, effect.unit)
        compared[part.steps.other] = -1.0
        note += f" against {math.exp(other.value):.3f}"
    needed = contrasts(part.test, effect, margin.value, tested)
    return Judged(
        **known,
        **_told(effect, tested),
        verdict=verdict_of(needed),
        margin=Number(margin.value),
        contrasts=needed,
        compared=compared,
        note=note,
    )


def _told(effect: Measured, tested: int) -> dict[str, Any]:
    """Return what is told of an effect that has an interval of its own."""
    return {
        "effect": Number(effect.value, *effect.interval()),
        "failing_level": failing_level(tested),
        "n": effect.n,
        "unit": effect.unit,
        "interval": f"95 % {effect.method}",
    }


def _ratio_contrasts(
    test: str, ratio: timesteps.GammaRange, margin: Margin
) -> tuple[Contrast, ...]:
    """Return what must be positive of the logarithm of a ratio."""
    up, down = (ratio.value, ratio.high), (-ratio.value, -ratio.low)
    needed = {
        "greater": [(up, -margin.value)],
        "no_worse": [(up, margin.value)],
        "equivalent": [(up, margin.value), (down, margin.value)],
    }[test]
    return tuple(
        Contrast(value + shift, value + shift, high + shift)
        for (value, high), shift in needed
    )


def counted_verdict(value: float, margin: Margin) -> str:
    """Return the verdict on a number without chance: bounds are allowed."""
    high = math.inf if margin.at_most is None else margin.at_most
    return HOLDS if margin.value <= value <= high else FAILS
