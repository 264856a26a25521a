"""What claims are made of: metrics, margins and parts, as the registries say them."""

from __future__ import annotations

from dataclasses import dataclass, field

from clockwork_experiments.claims import timesteps
from clockwork_experiments.claims.levels import LevelCount, MultiRow
from clockwork_experiments.claims.timesteps import StepAnswer
from clockwork_experiments.score.names import SCORES


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
    "as_captioned": _score("as_captioned", "features"),
    "agreement": _score("agreement", "features"),
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
        shares: The same of ``better``'s own score, by metric.
        better: Run that the loss is measured from.
        worse: Run that has it; without one, all of ``better``'s score is the loss.
    """

    why: str
    value: float = 0.0
    at_most: float | None = None
    share: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    better: str = ""
    worse: str = ""

    def __post_init__(self) -> None:
        """Reject margins that are both a number and a share, or half a share."""
        relative = bool(self.share or self.shares)
        if relative != bool(self.better) or (self.worse and not self.better):
            raise ValueError("a share needs the run it is measured from, and no other")
        if min(self.share, *self.shares.values(), 0.0) < 0 or (
            relative and (self.value or self.at_most is not None)
        ):
            raise ValueError(
                f"share {self.share} is negative, or stands beside a value"
            )
        if self.shares and (self.share or self.worse):
            raise ValueError("shares by metric are of one run's own score")
        if edit_set_of(self.better) != edit_set_of(self.worse or self.better):
            raise ValueError(f"{self.better!r} and {self.worse!r} make no pairs")

    def share_of(self, metric: str) -> float:
        """Return the share for a metric; 0 if the margin is a number."""
        return self.shares.get(metric, self.share)


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
        parts: What follows for what can be measured; all must hold. The first one, by
            its first metric, is the primary part.
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
            if not claim.parts or claim.parts[0].ours:
                raise ValueError(
                    f"claim {name!r}: its first part is the primary one, and not ours"
                )
            for part in claim.parts:
                if part.margin not in self.margins:
                    raise ValueError(
                        f"claim {name!r}: margin {part.margin!r} is not one of "
                        f"{', '.join(self.margins)}"
                    )
                margin = self.margins[part.margin]
                if not margin.better:
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
                if missing := [n for n in part.metrics if not margin.share_of(n)]:
                    raise ValueError(
                        f"claim {name!r}: margin {part.margin!r} has no share for "
                        f"{', '.join(missing)}"
                    )
