"""What runs have yielded, and what claims measure of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from clockwork_experiments.claims import timesteps
from clockwork_experiments.claims.levels import (
    count_of,
    multi_gains,
    multi_row,
    times_saved,
)
from clockwork_experiments.claims.registry import (
    EDIT_SCORES,
    GROUPED,
    METRICS,
    MULTI_SCORES,
    TRANSLATION_SCORES,
    Margin,
    Part,
    edit_set_of,
)
from clockwork_experiments.claims.statistics import (
    Measured,
    frechet,
    per_caption,
    per_source,
    retrained,
)
from clockwork_experiments.claims.timesteps import StepAnswer
from clockwork_experiments.cost.formulas import run_flops
from clockwork_experiments.score import image_scores, metrics


@dataclass(frozen=True)
class Evidence:
    """What runs have yielded.

    Attributes:
        runs: Settings by id: ``model``, ``adaptor``, ``sampler``, ``dataset``,
            ``reference`` and ``captions``; where their adaptor was trained from other
            seeds too, its name ``trained`` and the runs with those, ``replicates``; of
            edited runs ``model``, ``inversion`` and
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
        """Return a run's score, of all its training seeds together."""
        key = (metric, name, to, kinds)
        if key not in self._scores:
            run = self.evidence.runs.get(name, {})
            scores = []
            for each in (name, *run.get("replicates", ())):
                try:
                    scores.append(self._score(metric, each, to, kinds))
                except ValueError as error:
                    raise ValueError(f"{metric} of run {each!r}: {error}") from error
            several = len(scores) > 1
            self._scores[key] = (
                retrained(scores, run["trained"]) if several else scores[0]
            )
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
        if metric in image_scores.JUDGED:
            judged = self.evidence.features[name].get(metric)
            if judged is None:
                raise ValueError("its images were not judged: the scale has no judge")
            return per_caption(judged, captions)
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
