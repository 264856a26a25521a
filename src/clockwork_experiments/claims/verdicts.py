"""Judge a paper's claims: each part gets an effect, an interval and a verdict.

A claim is a list of parts, and a part compares measurements of runs on the same prompts
and seeds, or of edited runs ``<edit set>/<edit>/<setting>`` on the same pairs of source
image and target prompt, or of translations of the same pairs. The *gain* of a run
over another is oriented: positive where the first is better, that is lower by Fréchet
distance, higher by CLIP. Of translations some kinds of pairs alone can be meant, and a
score can be held against a number without another run. Time steps are compared on pairs
that their search did not see, and the γ behind them as `step_claims` says.

**Tests.** ``greater``: the effect is above the margin. ``no_worse``: it is above minus
the margin. ``equivalent``: it is within ± the margin; two one-sided tests. ``counted``:
a number without chance lies between two bounds. Each is one or two contrasts that must
be positive. A margin that is a share of a measured loss is measured with it, so that
its own uncertainty is within the contrast's interval. Where that loss is not clear of
zero there is no scale to judge by, and the part is undecided.

**Intervals.** The unit of resampling is the caption; several sampling seeds of one
caption are averaged first, and do not count as more captions. In editing it is the
source image, in the same way, with all its target prompts. Means get a percentile
bootstrap, or Student's t where the units are few (turns of a clock, prompts of the
perturbation analysis, source images). Fréchet distances get a delete-group jackknife by
caption; `metrics` says why not a bootstrap.

**Several parts.** A part holds by its 95 % interval. A claim holds if all its parts
hold, which is an intersection-union test and needs no correction. It does not hold if
any part fails, and so to fail a part takes more: Bonferroni's interval, at
1 − 0.05 / k for k tested parts of a claim. Between claims nothing is corrected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch

from clockwork_experiments.claims import timesteps
from clockwork_experiments.claims.levels import (
    LevelCount,
    MultiRow,
    count_of,
    multi_gains,
    multi_row,
    times_saved,
)
from clockwork_experiments.claims.timesteps import StepAnswer
from clockwork_experiments.cost.formulas import run_flops
from clockwork_experiments.report.tables.table import UNKNOWN
from clockwork_experiments.score import metrics
from clockwork_experiments.score.names import SCORES

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"

RESAMPLES = 10_000
"""Resamples of the bootstrap: enough for the tails that Bonferroni asks for."""

FEW = 50
"""Below so many units a mean gets Student's t instead of the bootstrap."""

LEVEL = 0.95


@dataclass(frozen=True)
class Metric:
    """Something that a claim is about.

    Attributes:
        label: What the reader sees.
        source: Field of `Evidence` that it is measured from.
        digits: Decimals shown.
        sign: 1 where more is better, −1 where less is; 0 where it is no score.
        unit: Shown behind the number.
        factor: Applied before showing.
    """

    label: str
    source: str
    digits: int
    sign: int = 0
    unit: str = ""
    factor: float = 1.0


def _score(name: str, source: str, digits: int = 0) -> Metric:
    score = SCORES[name]
    unit = f" {score.unit}" if score.unit else ""
    label = score.prose or score.label
    return Metric(label, source, digits or score.digits, score.sign, unit)


METRICS: dict[str, Metric] = {
    # A difference of distances wants a digit more than a distance.
    "frechet": _score("frechet", "features", 3),
    "clip": _score("clip", "features"),
    "clip_above_chance": _score("clip_above_chance", "features"),
    "psnr": _score("psnr_to_teacher", "images"),
    "edit_clip": _score("clip", "edits"),
    "structure": _score("structure", "edits"),
    "clip_image": _score("clip_image", "translations"),
    "clip_direction": _score("clip_direction", "translations"),
    "psnr_to_target": _score("psnr", "translations"),
    "psnr_to_whole": _score("psnr_to_whole", "translations"),
    "lpips": _score("lpips", "translations"),
    "translated_clip": _score("clip", "translations"),
    "translated_frechet": _score("frechet", "translations", 3),
    "flops": Metric("FLOPs saved", "flops", 1, unit=" %", factor=100),
    "deep_share": Metric("parameters", "levels", 2, unit=" %", factor=100),
    "footprint": Metric("parameters saved", "levels", 2, unit=" %", factor=100),
    "macs": Metric("MACs above the print", "levels", 3, unit=" %", factor=100),
    "macs_saved": Metric("MACs saved", "levels", 1, unit=" %", factor=100),
    "level_time": Metric("time saved", "level_latency", 1, unit=" %", factor=100),
    "multi_time": Metric("time saved", "schedules", 2, unit=" % of the whole UNet's"),
    "multi_clip_image": Metric(
        SCORES["clip_image"].label,
        "searches",
        2,
        unit=" % of the whole UNet's",
        factor=100,
    ),
    "multi_clip_direction": Metric(
        SCORES["clip_direction"].label,
        "searches",
        2,
        unit=" % of the whole UNet's",
        factor=100,
    ),
    "steps_psnr": _score("psnr_to_reference", "steps"),
    "steps_target": _score("psnr", "steps"),
    "steps_clip_image": _score("clip_image", "steps"),
    "steps_clip_direction": _score("clip_direction", "steps"),
    "steps_clip": _score("clip", "steps"),
    "gamma_below": Metric("−ln γ", "gammas", 3),
    "gamma_above": Metric("ln γ", "gammas", 3),
    "gamma_ratio": Metric("ln of the ratio of γ", "gammas", 3),
    "search_cost": Metric("less search, paper's images", "search_costs", 0, unit=" ×"),
    "search_calls": Metric("less search, as run", "search_costs", 0, unit=" ×"),
    "latency": Metric("time saved", "latency", 1, unit=" %", factor=100),
    "image_distance": Metric("image distance", "perturbations", 3),
    "latent_distance": Metric("latent distance", "perturbations", 3),
    "image_high_frequency": Metric("high frequencies", "perturbations", 3),
    "latent_high_frequency": Metric("high frequencies, latents", "perturbations", 3),
}

EDIT_SCORES = {"edit_clip": "clip", "structure": "structure"}
"""By metric of edited runs, the name of its values per pair."""

TRANSLATION_SCORES = {
    "clip_image": "clip_image",
    "clip_direction": "clip_direction",
    "psnr_to_target": "psnr",
    "psnr_to_whole": "psnr_to_teacher",
    "lpips": "lpips",
    "translated_clip": "clip",
    "translated_frechet": "frechet",
}
"""By metric of translations, the name of its values per pair."""

MULTI_SCORES = {
    "multi_clip_image": "clip_image",
    "multi_clip_direction": "clip_direction",
}
"""By metric of schedules of levels, the name of its gains per held-out pair."""

GROUPED = ("translated_frechet",)
"""Metrics of translations that are no mean over pairs."""

COUNTED = ("flops", "levels", "schedules", "search_costs")
"""Sources of numbers without chance."""

KINDS = ("greater", "no_worse", "equivalent", "counted")


# --- the registry --------------------------------------------------------------------


def edit_set_of(run: str) -> str:
    """Return the edit set of an edited run; nothing if the run is text to image.

    Raises:
        ValueError: If the name has slashes, but is not that of an edited run.
    """
    parts = run.split("/")
    if len(parts) == 1:
        return ""
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"run {run!r} is not <edit set>/<edit>/<setting>")
    return parts[0]


@dataclass(frozen=True)
class Margin:
    """What an effect is held against.

    Attributes:
        why: Why this margin; fixed before the data was seen.
        value: The margin itself, or for ``counted`` the lower bound.
        at_most: For ``counted``, the upper bound.
        share: Share of a measured loss that is the margin instead.
        better: Run that the loss is measured from.
        worse: Run that has it; without one, all of ``better``'s score is the loss.
    """

    why: str
    value: float = 0.0
    at_most: float | None = None
    share: float = 0.0
    better: str = ""
    worse: str = ""

    def __post_init__(self) -> None:
        """Reject margins that are both a number and a share, or half a share."""
        if bool(self.share) != bool(self.better) or (self.worse and not self.better):
            raise ValueError("a share needs the run it is measured from, and no other")
        if self.share < 0 or (self.share and (self.value or self.at_most is not None)):
            raise ValueError(
                f"share {self.share} is negative, or stands beside a value"
            )
        if edit_set_of(self.better) != edit_set_of(self.worse or self.better):
            raise ValueError(f"{self.better!r} and {self.worse!r} make no pairs")


@dataclass(frozen=True)
class Cell:
    """A cell of a perturbation's grid, with its weight in a sum.

    Attributes:
        layer: The perturbed layer.
        start: Step at which the perturbation starts.
        weight: Factor of the measure in this cell.
    """

    layer: str
    start: int
    weight: float


@dataclass(frozen=True)
class Part:
    """One comparison; with several metrics it is as many parts.

    Attributes:
        label: What is compared, for the reader.
        test: One of `KINDS`.
        metrics: Keys of `METRICS`.
        margin: Name of a margin.
        of: The run whose gain, or saving, is meant.
        over: The run that it is compared with. Several: the score interpolated at
            ``of``'s FLOPs, linearly between the two that enclose them. None: a
            translation's score itself is the effect.
        to: For PSNR, the run whose images are the target.
        kinds: For translations, the kinds of pairs that are meant; all if empty.
        level: For counts and timings of levels, which one.
        multi: For schedules of levels, which answer of which search; the effect is
            what the best single depth under the row's constraint is better by, as a
            share of the whole UNet's value.
        steps: For time steps, which answer of which search.
        perturbation: Perturbation whose cells are summed.
        alpha: Its α.
        log: Whether logarithms are summed, and so ratios compared.
        cells: The cells.
        printed: Scores of ``of`` and ``over`` as the paper prints them, by metric.
        ours: Whether it is an addition of ours: shown, without part in the verdict.
    """

    label: str
    test: str
    metrics: tuple[str, ...]
    margin: str
    of: str = ""
    over: tuple[str, ...] = ()
    to: str = ""
    kinds: tuple[str, ...] = ()
    level: LevelCount | None = None
    multi: MultiRow | None = None
    steps: StepAnswer | None = None
    perturbation: str = ""
    alpha: float = 0.0
    log: bool = False
    cells: tuple[Cell, ...] = ()
    printed: dict[str, tuple[float, float]] = field(default_factory=dict)
    ours: bool = False

    def __post_init__(self) -> None:
        """Reject comparisons that cannot be made."""
        edit_sets = {edit_set_of(name) for name in (self.of, *self.over)}
        if len(edit_sets) > 1:
            raise ValueError(
                f"{self.of!r} and {', '.join(map(repr, self.over))} make no pairs"
            )
        edited = bool("".join(edit_sets))
        if self.test not in KINDS:
            raise ValueError(f"test {self.test!r} is not one of {', '.join(KINDS)}")
        for name in self.metrics:
            if name not in METRICS:
                raise ValueError(f"metric {name!r} is not one of {', '.join(METRICS)}")
            source = METRICS[name].source
            perturbed = source == "perturbations"
            if perturbed != bool(self.perturbation and self.cells):
                raise ValueError(
                    f"{name!r} and cells of a perturbation need each other"
                )
            self._check_level(name, source)
            alone = (self.level, self.multi, self.steps) != (None, None, None)
            if not perturbed and not alone and not (self.of and self._compared(source)):
                raise ValueError(f"{name!r} needs both `of` and `over`")
            if source != "flops" and edited != (source == "edits"):
                what = "edited runs" if edited else "runs from text to image"
                raise ValueError(f"{name!r} is not known of {what}")
            single = ("flops", "latency", "translations")
            if source in single and len(self.over) > 1:
                raise ValueError(f"{name!r} compares with one run, not {self.over}")
            if (name == "psnr") != bool(self.to):
                raise ValueError("PSNR and a target `to` need each other")
            if (self.test == "counted") != (source in COUNTED):
                raise ValueError(f"{name!r} does not go with the test {self.test!r}")
            if self.kinds and (
                source != "translations" or name == "translated_frechet"
            ):
                raise ValueError(f"{name!r} is not known of kinds of pairs")

    def _compared(self, source: str) -> bool:
        """Tell whether there is something to compare with, or need not be."""
        itself = source == "translations" and self.test == "greater"
        return bool(self.over) or itself

    def _check_level(self, name: str, source: str) -> None:
        """Reject counts without a level, searches without an answer, and the reverse.

        Raises:
            ValueError: In one line.
        """
        for key, sources in (
            ("level", ("levels", "level_latency")),
            ("multi", ("schedules", "searches")),
            ("steps", ("steps", "gammas", "search_costs")),
        ):
            given = getattr(self, key)
            if (source in sources) != (given is not None):
                raise ValueError(f"{name!r} and `{key}` do not go together")
        if self.level is not None and (name == "macs") != bool(self.level.expected):
            raise ValueError("`macs` and what is printed, `expected`, need each other")
        if self.steps is not None:
            self.steps.check(name)
            if name in timesteps.DIRECTIONS and self.test != "greater":
                raise ValueError(f"{name!r} goes with the test 'greater' alone")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        statement: What the paper says.
        parts: What follows for what can be measured; all must hold.
    """

    statement: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ClaimsSpec:
    """The claims of a paper at one scale.

    Attributes:
        title: Heading.
        caption: What the reader must know.
        margins: Margins by name.
        claims: Claims by id.
    """

    title: str
    caption: str
    margins: dict[str, Margin]
    claims: dict[str, Claim]

    def __post_init__(self) -> None:
        """Reject unknown margins, and shares of no loss or of another edit set's."""
        for name, claim in self.claims.items():
            if not any(not part.ours for part in claim.parts):
                raise ValueError(f"claim {name!r} has no part that decides it")
            for part in claim.parts:
                if part.margin not in self.margins:
                    raise ValueError(
                        f"claim {name!r}: margin {part.margin!r} is not one of "
                        f"{', '.join(self.margins)}"
                    )
                margin = self.margins[part.margin]
                if not margin.share:
                    continue
                if part.steps is not None:
                    raise ValueError(
                        f"claim {name!r}: margin {part.margin!r} is a share of a loss, "
                        "which searches of time steps do not have"
                    )
                if edit_set_of(margin.better) != edit_set_of(part.of):
                    raise ValueError(
                        f"claim {name!r}: margin {part.margin!r} is a loss of "
                        f"{margin.better!r}, which makes no pairs with {part.of!r}"
                    )
                signs = [METRICS[metric].sign for metric in part.metrics]
                if not all(signs):
                    raise ValueError(
                        f"claim {name!r}: margin {part.margin!r} is a share of a loss, "
                        f"which {', '.join(part.metrics)} does not have"
                    )


# --- measurements --------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A number that adds up with others of the same captions, or source images.

    Attributes:
        value: The number.
        samples: One value per unit; or with ``grouped``, the number without each group
            of captions in turn.
        by_seed: The number for each sampling seed alone.
        n: Number of units.
        unit: What they are.
        grouped: Whether the samples are those of a jackknife.
    """

    value: float
    samples: torch.Tensor
    by_seed: torch.Tensor
    n: int
    unit: str = "captions"
    grouped: bool = False

    def __add__(self, other: Measured | float) -> Measured:
        """Return the sum with another measurement of the same units, or a constant."""
        if isinstance(other, float):
            shift = torch.tensor(other, dtype=torch.float64)
            value, samples, by_seed = other, shift, shift
        else:
            if (self.n, self.unit, self.grouped) != (
                other.n,
                other.unit,
                other.grouped,
            ):
                raise ValueError(
                    f"{self.n} {self.unit} and {other.n} {other.unit} make no pairs"
                )
            if self.by_seed.shape != other.by_seed.shape:
                raise ValueError(
                    f"runs of {len(self.by_seed)} and of {len(other.by_seed)} sampling "
                    "seeds make no pairs"
                )
            value, samples, by_seed = other.value, other.samples, other.by_seed
        return Measured(
            self.value + value,
            self.samples + samples,
            self.by_seed + by_seed,
            self.n,
            self.unit,
            self.grouped,
        )

    def __mul__(self, weight: float) -> Measured:
        """Return the measurement times a number."""
        return Measured(
            self.value * weight,
            self.samples * weight,
            self.by_seed * weight,
            self.n,
            self.unit,
            self.grouped,
        )

    def __neg__(self) -> Measured:
        """Return minus the measurement."""
        return self * -1.0

    def __sub__(self, other: Measured) -> Measured:
        """Return the difference, in pairs."""
        return self + -other

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval that covers the number at a level."""
        if self._boots is not None:
            ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
            low, high = self._boots.quantile(ends).tolist()
            return low, high
        count = len(self.samples)
        spread = float((self.samples - self.samples.mean()).square().sum())
        if self.grouped:
            error = math.sqrt((count - 1) / count * spread)
        else:
            error = math.sqrt(spread / (count - 1) / count)
        half = student_quantile(count - 1, (1 + level) / 2) * error
        return self.value - half, self.value + half

    @property
    def method(self) -> str:
        """Say how the interval is made."""
        if self.grouped:
            what = "pairs" if self.unit == "groups" else self.unit
            return f"jackknife, {len(self.samples)} groups of {what}, fixed reference"
        if self._boots is None:
            return f"Student's t over {self.n} {self.unit}"
        return f"percentile bootstrap over {self.n} {self.unit}, {RESAMPLES} resamples"

    @property
    def spread(self) -> float:
        """Return the standard deviation over units."""
        return float(self.samples.std())

    @cached_property
    def _boots(self) -> torch.Tensor | None:
        """Return bootstrapped means; equal indices for all of equal n."""
        if self.grouped or self.n < FEW:
            return None
        generator = torch.Generator().manual_seed(0)
        # In slices, for the memory of 30,000 captions.
        return torch.cat(
            [
                self.samples[
                    torch.randint(self.n, (100, self.n), generator=generator)
                ].mean(dim=1)
                for _ in range(RESAMPLES // 100)
            ]
        )


@cache
def student_quantile(freedom: int, share: float) -> float:
    """Return the quantile of Student's t for a share above one half.

    By bisection of the closed form for whole degrees of freedom (Abramowitz and Stegun,
    26.7.3 and 26.7.4).
    """

    def within(t: float) -> float:
        angle = math.atan(t / math.sqrt(freedom))
        odd = freedom % 2
        if freedom == 1:
            return 2 * angle / math.pi
        term = math.cos(angle) if odd else 1.0
        total = term
        for index in range(3 if odd else 2, freedom - 1, 2):
            term *= (index - 1) / index * math.cos(angle) ** 2
            total += term
        if odd:
            return 2 / math.pi * (angle + math.sin(angle) * total)
        return math.sin(angle) * total

    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        if within(middle) < 2 * share - 1:
            low = middle
        else:
            high = middle
    return high


def per_caption(
    values: torch.Tensor, captions: int, unit: str = "captions"
) -> Measured:
    """Average one value per row over the seeds of each caption; NaN is left out.

    Args:
        values: ``(N,)``; row i is of caption i mod ``captions``.
        captions: Number of captions.
        unit: What to call them.

    Raises:
        ValueError: If the captions have different numbers of seeds, or fewer than 2
            captions have a value.
    """
    grid = _by_seed(values, captions)
    samples = grid.nanmean(dim=0)
    samples = samples[~samples.isnan()]
    if len(samples) < 2:
        raise ValueError(f"{len(samples)} {unit} with a value are fewer than 2")
    by_seed = grid.nanmean(dim=1)
    return Measured(float(samples.mean()), samples, by_seed, len(samples), unit)


def per_source(values: torch.Tensor, sources: torch.Tensor) -> Measured:
    """Average one value per pair over the target prompts of each source image.

    Args:
        values: ``(P,)``, of each pair of source image and target prompt.
        sources: ``(P,)``, the index of each pair's source.

    Raises:
        ValueError: If there is no source or no value for each pair, or fewer than 2
            sources.
    """
    if values.shape != sources.shape or values.dim() != 1:
        raise ValueError(
            f"{values.numel()} values and {sources.numel()} sources make no pairs"
        )
    if not values.isfinite().all():
        raise ValueError(f"{int((~values.isfinite()).sum())} pairs have no value")
    known, index = sources.cpu().unique(return_inverse=True)
    if len(known) < 2:
        raise ValueError(f"{len(known)} sources with a value are fewer than 2")
    samples = metrics.group_means(values, index)
    value = samples.mean()
    return Measured(float(value), samples, value[None], len(known), "sources")


def frechet(
    features: torch.Tensor, reference: metrics.Statistics, captions: int
) -> Measured:
    """Return the Fréchet distance, with the jackknife's replicates by caption.

    Args:
        features: ``(N, D)``; row i is of caption i mod ``captions``.
        reference: Of the reference set, which counts as fixed.
        captions: Number of captions.

    Raises:
        ValueError: If the captions have different numbers of seeds, or are fewer
            than 3.
    """
    grid = _by_seed(features, captions)
    if captions < 3:
        raise ValueError(f"{captions} captions are fewer than 3")
    count = min(metrics.GROUPS, captions)
    groups = [
        metrics.statistics(grid[:, start::count].flatten(0, 1))
        for start in range(count)
    ]
    whole = metrics.merge(groups)
    without = [metrics.frechet_distance(whole - group, reference) for group in groups]
    seeds = [metrics.frechet_distance(metrics.statistics(s), reference) for s in grid]
    return Measured(
        metrics.frechet_distance(whole, reference),
        torch.tensor(without, dtype=torch.float64),
        torch.tensor(seeds, dtype=torch.float64),
        captions,
        grouped=True,
    )


def _by_seed(rows: torch.Tensor, captions: int) -> torch.Tensor:
    """Return rows as ``(seeds, captions, …)`` in float64."""
    if captions < 1 or not len(rows) or len(rows) % captions:
        raise ValueError(f"{len(rows)} rows are no whole number of {captions} captions")
    return rows.detach().cpu().double().unflatten(0, (-1, captions))


@dataclass(frozen=True)
class Evidence:
    """What runs have yielded.

    Attributes:
        runs: Settings by id: ``model``, ``adaptor``, ``sampler``, ``dataset``,
            ``reference`` and ``captions``; of edited runs ``model``, ``inversion`` and
            ``generation``, where FLOPs are asked for.
        features: Tensors of runs and data sets by id, as `extract_features` names them.
        images: Returns a run's images in consecutive parts, uint8 ``(n, 3, H, W)``, cut
            alike for runs of as many images.
        flops: Counts by model, as `count_flops` writes them.
        latency: Timings, as `time_sampling` writes them.
        perturbations: Measures by id, as `perturb_features` writes them.
        captions: Number of captions of each perturbation.
        edits: By edited run ``clip`` and ``structure`` of each pair, and the index
            ``source`` of each pair's source image.
        translations: Values of each pair by translation, as `score_translations`
            writes them.
        kinds: The kind of each pair, by translation.
        levels: Counts by model for a task, as `count_levels` writes them.
        level_latency: Timings likewise, as `time_levels` writes them.
        searches: Searches of levels by id, as `search_depth` writes them.
        step_searches: Searches of time steps by id, as `search_steps` writes them.
    """

    runs: Mapping[str, Mapping[str, Any]]
    features: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    images: Callable[[str], Iterable[torch.Tensor]] | None = None
    flops: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    latency: Mapping[str, Any] = field(default_factory=dict)
    perturbations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    captions: Mapping[str, int] = field(default_factory=dict)
    edits: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    translations: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    level_latency: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    searches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    step_searches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Measurements:
    """Measure runs from the evidence; each run once."""

    def __init__(self, evidence: Evidence) -> None:
        """Keep the evidence."""
        self.evidence = evidence
        self._scores: dict[tuple[str, str, str, tuple[str, ...]], Measured] = {}
        self._references: dict[str, metrics.Statistics] = {}
        self._sources: dict[str, torch.Tensor] = {}

    def score(
        self, metric: str, name: str, to: str = "", kinds: tuple[str, ...] = ()
    ) -> Measured:
        """Return a run's score."""
        key = (metric, name, to, kinds)
        if key not in self._scores:
            try:
                self._scores[key] = self._score(*key)
            except ValueError as error:
                raise ValueError(f"{metric} of run {name!r}: {error}") from error
        return self._scores[key]

    def _score(
        self, metric: str, name: str, to: str, kinds: tuple[str, ...]
    ) -> Measured:
        if metric in EDIT_SCORES:
            return self._edited(metric, name)
        if metric in TRANSLATION_SCORES:
            return self._translated(metric, name, kinds)
        run = self.evidence.runs[name]
        captions = run["captions"]
        if metric == "frechet":
            features = self.evidence.features[name]["frechet"]
            return frechet(features, self._reference(run["reference"]), captions)
        if metric == "psnr":
            assert self.evidence.images is not None
            parts = zip(
                self.evidence.images(name), self.evidence.images(to), strict=True
            )
            values = torch.cat([metrics.psnr(*both) for both in parts])
            return per_caption(values, captions)
        image = self.evidence.features[name]["clip_image"]
        text = self.evidence.features[run["dataset"]]["clip_text"]
        rows = torch.arange(len(image)) % captions
        cosines = metrics.cosines(image, text[rows])
        if metric == "clip_above_chance":
            # Chance: how well an image fits the next caption.
            cosines = cosines - metrics.cosines(image, text[(rows + 1) % captions])
        return per_caption(cosines, captions)

    def _edited(self, metric: str, name: str) -> Measured:
        if name not in self.evidence.edits:
            listed = ", ".join(self.evidence.edits) or "none"
            raise ValueError(f"it is not one of the scored edits ({listed})")
        scored, edit_set = self.evidence.edits[name], edit_set_of(name)
        sources = self._sources.setdefault(edit_set, scored["source"])
        if not torch.equal(sources, scored["source"]):
            raise ValueError(f"its pairs are not those of other runs of {edit_set!r}")
        return per_source(scored[EDIT_SCORES[metric]], sources)

    def _translated(self, metric: str, name: str, kinds: tuple[str, ...]) -> Measured:
        if name not in self.evidence.translations:
            listed = ", ".join(self.evidence.translations) or "none"
            raise ValueError(f"it is not one of the scored translations ({listed})")
        scored, key = self.evidence.translations[name], TRANSLATION_SCORES[metric]
        if key not in scored:
            raise ValueError(f"it is scored by {', '.join(scored)} alone")
        if key == "frechet":
            without = scored["frechet_without"].double()
            value = float(scored[key])
            own = torch.tensor([value], dtype=torch.float64)
            return Measured(value, without, own, len(without), "groups", grouped=True)
        values = scored[key]
        if kinds:
            of = self.evidence.kinds[name]
            chosen = torch.tensor([kind in kinds for kind in of], dtype=torch.bool)
            if chosen.sum() < 2:
                raise ValueError(
                    f"{int(chosen.sum())} pairs of the kinds {', '.join(kinds)} are "
                    "fewer than 2"
                )
            values = values[chosen]
        return per_caption(values, len(values), "pairs")

    def _reference(self, name: str) -> metrics.Statistics:
        if name not in self._references:
            features = self.evidence.features[name]["frechet"]
            self._references[name] = metrics.statistics(features)
        return self._references[name]

    def flops(self, name: str) -> float:
        """Return the FLOPs of one image, as the paper counts."""
        run = self.evidence.runs[name]
        return run_flops(run, self.evidence.flops[run["model"]], "flops")

    def weights(self, of: str, over: Sequence[str]) -> dict[str, float]:
        """Return the weights that interpolate runs at another's FLOPs.

        Raises:
            ValueError: If no two of the runs enclose them.
        """
        if len(over) < 2:
            return dict.fromkeys(over, 1.0)
        cost = self.flops(of)
        costs = sorted((self.flops(name), name) for name in over)
        for (low, cheaper), (high, dearer) in zip(costs, costs[1:], strict=False):
            if low <= cost <= high and low < high:
                share = (cost - low) / (high - low)
                return {dearer: share, cheaper: 1 - share}
        raise ValueError(
            f"run {of!r} takes {cost:.4g} FLOPs, which no two of {', '.join(over)} "
            f"enclose ({', '.join(f'{value:.4g}' for value, _ in costs)})"
        )

    def gain(
        self,
        metric: str,
        of: str,
        weights: Mapping[str, float],
        to: str = "",
        kinds: tuple[str, ...] = (),
    ) -> Measured:
        """Return by how much a run is better than a mean of others, in pairs."""
        total = self.score(metric, of, to, kinds)
        for name, weight in weights.items():
            total = total - self.score(metric, name, to, kinds) * weight
        return total * float(METRICS[metric].sign)

    def effect(self, part: Part, metric: str) -> Measured:
        """Return the effect that a tested part is about."""
        if METRICS[metric].source == "perturbations":
            return self._perturbed(part, metric)
        if METRICS[metric].source == "latency":
            timed = self.evidence.latency["runs"]
            one, other = (
                torch.tensor(timed[name]["runs"], dtype=torch.float64)
                for name in (part.of, part.over[0])
            )
            if one.shape != other.shape:
                raise ValueError(
                    f"{len(one)} turns of {part.of!r} and {len(other)} of "
                    f"{part.over[0]!r} make no pairs"
                )
            saved = per_caption(1 - one / other, len(one), "turns")
            return Measured(
                saved.value, saved.samples, torch.empty(0), len(one), "turns"
            )
        if part.level is not None:
            shares = times_saved(part.level, self.evidence.level_latency)
            saved = per_caption(torch.tensor(shares), len(shares), "turns")
            return replace(saved, by_seed=torch.empty(0))
        if part.multi is not None:
            gained = multi_gains(
                part.multi, self.evidence.searches, MULTI_SCORES[metric]
            )
            lost = -torch.tensor(gained, dtype=torch.float64)
            return per_caption(lost, len(lost), "held-out pairs")
        if part.steps is not None:
            return self.steps_gain(part.steps, timesteps.SCORES[metric])
        weights = self.weights(part.of, part.over)
        return self.gain(metric, part.of, weights, part.to, part.kinds)

    def steps_gain(self, of: StepAnswer, score: str, over: str = "") -> Measured:
        """Return what time steps gain over others on held-out pairs."""
        gained = timesteps.paired(of, self.evidence.step_searches, score, over)
        values = torch.tensor(gained, dtype=torch.float64)
        return per_caption(values, len(values), "held-out pairs")

    def counted(self, part: Part, metric: str) -> float:
        """Return the number that a counted part is about."""
        if part.level is not None:
            return count_of(metric, part.level, self.evidence.levels)
        if part.multi is not None:
            row = multi_row(part.multi, self.evidence.searches)
            return 0.0 - float(row["savings"]["time"])
        if part.steps is not None:
            return timesteps.search_ratio(
                metric, part.steps, self.evidence.step_searches
            )
        return 1 - self.flops(part.of) / self.flops(part.over[0])

    def _perturbed(self, part: Part, metric: str) -> Measured:
        summary = self.evidence.perturbations[part.perturbation]
        cells = {
            (cell["layer"], cell["start"]): cell["values"][metric]
            for cell in summary["cells"]
            if cell["alpha"] == part.alpha
        }
        total = torch.zeros(summary["n"], dtype=torch.float64)
        for cell in part.cells:
            if (cell.layer, cell.start) not in cells:
                raise ValueError(
                    f"perturbation {part.perturbation!r} has no cell of layer "
                    f"{cell.layer!r}, α {part.alpha:g} and start {cell.start}"
                )
            values = [
                math.nan if v is None else v for v in cells[cell.layer, cell.start]
            ]
            column = torch.tensor(values, dtype=torch.float64)
            total += cell.weight * (column.log() if part.log else column)
        # The logarithm of no distance at all says nothing.
        total[~total.isfinite()] = math.nan
        return per_caption(total, self.evidence.captions[part.perturbation])

    def loss(
        self,
        metric: str,
        margin: Margin,
        to: str = "",
        kinds: tuple[str, ...] = (),
    ) -> Measured:
        """Return the measured loss that a margin is a share of."""
        if not margin.worse:
            return self.score(metric, margin.better, to, kinds)
        return self.gain(metric, margin.better, {margin.worse: 1.0}, to, kinds)

    def spread(self, part: Part, metric: str) -> float | None:
        """Return the runs' spread over captions or sources, for scores with one."""
        spread = ("clip", "clip_above_chance", "psnr", *EDIT_SCORES)
        if metric not in (*spread, *TRANSLATION_SCORES) or metric in GROUPED:
            return None
        names = (part.of, *self.weights(part.of, part.over))
        squares = [
            self.score(metric, name, part.to, part.kinds).spread ** 2
            for name in names
            if name != part.to
        ]
        return math.sqrt(sum(squares) / len(squares)) if squares else None


# --- verdicts ------------------------------------------------------------------------


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
    """

    value: float
    low: float
    high: float


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


@dataclass(frozen=True)
class JudgedClaim:
    """A claim, judged.

    Attributes:
        statement: What the paper says.
        verdict: `HOLDS`, `FAILS` or `UNDECIDED`.
        summary: The verdict in one sentence, with its numbers.
        tested: Number of parts that a failure is corrected for.
        parts: The parts.
    """

    statement: str
    verdict: str
    summary: str
    tested: int
    parts: tuple[Judged, ...]


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
        Contrast(each.value, each.interval()[0], each.interval(level)[1])
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
        summary = _summary(verdict, parts)
        judged[name] = JudgedClaim(claim.statement, verdict, summary, tested, parts)
    return judged


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
    margin: Measured | float = chosen.value
    shown = Number(chosen.value)
    note, measurable = "", True
    if chosen.share:
        loss = measurements.loss(metric, chosen, part.to, part.kinds)
        margin = loss * chosen.share
        shown = Number(margin.value, *margin.interval())
        measurable = loss.interval()[0] > 0
    needed = contrasts(part.test, effect, margin, tested)
    verdict = verdict_of(needed)
    if not measurable:
        verdict = UNDECIDED
        note = (
            f"the loss of {chosen.worse or 'no score'} that the margin is a share of "
            "is not clear of zero: nothing to judge by"
        )
    spread = measurements.spread(part, metric)
    compared = {}
    if part.of:
        weights = measurements.weights(part.of, part.over)
        compared = {part.of: 1.0, **{name: -w for name, w in weights.items()}}
    if part.steps is not None:
        compared = {part.steps.name: 1.0, part.steps.other: -1.0}
    return Judged(
        **known,
        verdict=verdict,
        effect=Number(effect.value, *effect.interval()),
        margin=shown,
        contrasts=needed,
        failing_level=failing_level(tested),
        standardised=effect.value / spread if spread else None,
        by_seed=tuple(effect.by_seed.tolist()),
        n=effect.n,
        unit=effect.unit,
        interval=f"95 % {effect.method}",
        compared=compared,
        note=note,
    )


def _judge_gamma(
    measurements: Measurements,
    part: Part,
    metric: str,
    margin: Margin,
    tested: int,
    known: Mapping[str, Any],
) -> Judged:
    """Judge a γ, or two of them.

    One γ: its side of 1 counts as far as its steps are better than even ones on
    held-out pairs; within the margin of 1 it has none. Two: what holds of the two best
    γ holds; it fails only if it does for none within their ranges.
    """
    assert part.steps is not None
    found, other = timesteps.gammas(part.steps, measurements.evidence.step_searches)
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


# --- for machines and for people -----------------------------------------------------


def to_json(spec: ClaimsSpec, judged: Mapping[str, JudgedClaim]) -> dict[str, Any]:
    """Return everything as plain data."""
    return {
        "title": spec.title,
        "margins": {name: asdict(margin) for name, margin in spec.margins.items()},
        "claims": {name: asdict(claim) for name, claim in judged.items()},
        "correction": "claims hold by 95 % intervals of all parts; a part fails by "
        "the interval at 1 − 0.05 / tested; none between claims",
    }


def to_markdown(spec: ClaimsSpec, judged: Mapping[str, JudgedClaim]) -> str:
    """Return a summary, a table per claim, and the margins with their reasons."""
    verdicts = [claim.verdict for claim in judged.values()]
    tested = sum(claim.tested for claim in judged.values())
    lines = [
        f"**{spec.title}**",
        "",
        f"Of {len(verdicts)} claims {_tally(verdicts)}.",
        "",
        "| claim | the paper says | parts that hold | fail | open | verdict |",
        "|:--|:--|--:|--:|--:|:--|",
    ]
    for name, claim in judged.items():
        deciding = [part.verdict for part in claim.parts if not part.ours]
        counts = [deciding.count(kind) for kind in (HOLDS, FAILS, UNDECIDED)]
        lines.append(
            f"| {name} | {claim.statement} | {' | '.join(map(str, counts))} "
            f"| **{claim.verdict}** |"
        )
    lines += ["", spec.caption, "", *_reading(tested, len(verdicts))]
    for name, claim in judged.items():
        lines += [
            "",
            f"### {name}: {claim.verdict}",
            "",
            f"The paper: {claim.statement}",
            "",
            claim.summary,
            "",
            "| part | measure | effect | needed | in spreads | by seed | n "
            "| paper: of, over | verdict |",
            "|:--|:--|--:|:--|--:|--:|--:|--:|:--|",
            *(_row(part) for part in claim.parts),
        ]
    lines += ["", "### Margins", ""]
    lines += [_margin(name, margin) for name, margin in spec.margins.items()]
    return "\n".join(lines) + "\n"


def _reading(tested: int, claims: int) -> list[str]:
    return [
        "Effects are gains: positive where the first run is better. Brackets: 95 % "
        "interval; captions are resampled, with all their sampling seeds, and in "
        "editing sources, with all their target prompts, and in translation pairs. In "
        "spreads: effect over the standard deviation between captions, sources or "
        "pairs. By seed: the effect of each "
        "sampling seed alone; a Fréchet distance of fewer images is larger, so compare "
        "these with each other only. A margin with an interval is measured, and its "
        "uncertainty counts in the verdict.",
        "",
        "A part holds by its 95 % interval; a claim holds if all its parts do, which "
        "needs no correction. A part fails by the wider interval at 1 − 0.05 / k for "
        "the k tested parts of its claim, since one failed part fails the claim. "
        f"Between the {claims} claims ({tested} tested parts) nothing is corrected. "
        "Parts marked *ours* go beyond the paper and have no part in the verdict.",
    ]


def _tally(verdicts: Sequence[str]) -> str:
    number = {kind: list(verdicts).count(kind) for kind in (HOLDS, FAILS, UNDECIDED)}
    fails = "does not" if number[FAILS] == 1 else "do not"
    holds = "holds" if number[HOLDS] == 1 else "hold"
    open_ = "is" if number[UNDECIDED] == 1 else "are"
    return (
        f"{number[HOLDS]} {holds}, {number[FAILS]} {fails} hold and "
        f"{number[UNDECIDED]} {open_} undecided"
    )


def _summary(verdict: str, parts: Sequence[Judged]) -> str:
    """Return a claim's verdict as a sentence with the numbers that decide it."""
    deciding = [part for part in parts if not part.ours]
    count = len(deciding)
    if verdict == HOLDS:
        closest = min(deciding, key=_room)
        return f"Holds in all of {count} parts; the closest is {_sentence(closest)}."
    shown = [part for part in deciding if part.verdict == verdict]
    listed = "; ".join(map(_sentence, shown))
    if verdict == FAILS:
        return f"Does not hold in {len(shown)} of {count} parts: {listed}."
    return f"Undecided: no part fails, but {len(shown)} of {count} are open: {listed}."


def _room(part: Judged) -> float:
    """Return how far a part is from being open, in half-widths of its interval."""
    return min(
        (each.value / max(each.value - each.low, 1e-12) for each in part.contrasts),
        default=math.inf,
    )


def _sentence(part: Judged) -> str:
    metric = METRICS[part.metric]
    return (
        f"“{part.label}”, {metric.label} {_number(metric, part.effect)}, where "
        f"{_needed(part)} is needed"
    )


def _row(part: Judged) -> str:
    metric = METRICS[part.metric]
    spreads = UNKNOWN if part.standardised is None else f"{part.standardised:+.3f}"
    seeds, n = UNKNOWN, str(part.n) if part.n else UNKNOWN
    if len(part.by_seed) > 1:
        seeds = ", ".join(_digits(metric, value, True) for value in part.by_seed)
        n = f"{part.n} × {len(part.by_seed)}"
    printed = UNKNOWN
    if part.printed is not None:
        printed = ", ".join(f"{value:g}" for value in part.printed)
    verdict = part.verdict + (f" ({part.note})" if part.note else "")
    cells = [
        part.label + (" (ours)" if part.ours else ""),
        metric.label,
        _number(metric, part.effect),
        _needed(part),
        spreads.replace("-", "−"),
        seeds,
        n,
        printed,
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def _needed(part: Judged) -> str:
    metric = METRICS[part.metric]
    if part.test == "counted":
        if part.at_most is None:
            return f"at least {_plain(metric, part.margin.value, signed=False)}"
        low = _plain(metric, part.margin.value, signed=False)
        return f"{low} to {_plain(metric, part.at_most, signed=False)}"
    if part.test == "equivalent":
        return f"within ±{_number(metric, part.margin, signed=False)}"
    margin = _minus(part.margin) if part.test == "no_worse" else part.margin
    return f"above {_number(metric, margin, signed=False)}"


def _minus(number: Number) -> Number:
    if number.low is None or number.high is None:
        return Number(-number.value)
    return Number(-number.value, -number.high, -number.low)


def _number(metric: Metric, number: Number, *, signed: bool = True) -> str:
    value, low, high = (
        None if each is None else _digits(metric, each, signed)
        for each in (number.value, number.low, number.high)
    )
    interval = "" if low is None else f" [{low}, {high}]"
    return f"{value}{interval}{metric.unit}"


def _plain(metric: Metric, value: float, *, signed: bool = True) -> str:
    return _digits(metric, value, signed) + metric.unit


def _digits(metric: Metric, value: float, signed: bool) -> str:
    text = f"{value * metric.factor:{'+' if signed else ''}.{metric.digits}f}"
    return text.replace("-", "−")


def _margin(name: str, margin: Margin) -> str:
    what = ""
    if margin.worse:
        what = f" ({margin.share:g} of the loss of `{margin.worse}` against "
        what += f"`{margin.better}`)"
    elif margin.share:
        what = f" ({margin.share:g} of the score of `{margin.better}`)"
    return f"- **{name}**{what}: {margin.why}"
