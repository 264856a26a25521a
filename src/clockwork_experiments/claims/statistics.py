"""Numbers with their uncertainty, which add up in pairs.

The unit of resampling is the caption; several sampling seeds of one caption are
averaged first, and do not count as more captions. In editing it is the source image, in
the same way, with all its target prompts. Means get a percentile bootstrap, or
Student's t where the units are few (turns of a clock, prompts of the perturbation
analysis, source images). Fréchet distances get a delete-group jackknife by caption;
`metrics` says why not a bootstrap. Where adaptors were trained from several seeds, the
variance of a mean over these is added, and the sum gets Student's t with the degrees of
freedom of Welch and Satterthwaite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from clockwork_experiments.score import metrics
from clockwork_experiments.score.student import FEW, student_quantile

RESAMPLES = 10_000
"""Resamples of the bootstrap: enough for the tails that Bonferroni asks for."""

LEVEL = 0.95


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
        trainings: By adaptor, how far the number is from its mean with each training
            seed; nothing where there is one alone.
    """

    value: float
    samples: torch.Tensor
    by_seed: torch.Tensor
    n: int
    unit: str = "captions"
    grouped: bool = False
    trainings: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __add__(self, other: Measured | float) -> Measured:
        """Return the sum with another measurement of the same units, or a constant."""
        if isinstance(other, float):
            shift = torch.tensor(other, dtype=torch.float64)
            value, samples, by_seed = other, shift, shift
            trainings = dict(self.trainings)
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
            trainings = {**self.trainings}
            for name, each in other.trainings.items():
                # The same adaptor on both sides: seed by seed, in pairs.
                trainings[name] = trainings[name] + each if name in trainings else each
        return replace(
            self,
            value=self.value + value,
            samples=self.samples + samples,
            by_seed=self.by_seed + by_seed,
            trainings=trainings,
        )

    def __mul__(self, weight: float) -> Measured:
        """Return the measurement times a number."""
        return replace(
            self,
            value=self.value * weight,
            samples=self.samples * weight,
            by_seed=self.by_seed * weight,
            trainings={n: each * weight for n, each in self.trainings.items()},
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
        variances = self._variances
        total = sum(variance for variance, _ in variances)
        # Welch–Satterthwaite; rounded down, for the wider interval.
        freedom = total**2 / sum(v**2 / of for v, of in variances) if total else 1
        half = student_quantile(int(freedom), (1 + level) / 2) * math.sqrt(total)
        return self.value - half, self.value + half

    def tail(self) -> float:
        """Return the one-sided p-value of the number being no more than zero.

        It is what the intervals say: half of what the widest one that lies above zero
        leaves out.
        """
        if self._boots is not None:
            below = int((self._boots <= 0).sum())
            return (below + 1) / (len(self._boots) + 1)
        wide, narrow = 1.0, -1.0  # As shares of the two sides: 1 − 2p.
        for _ in range(50):
            middle = (wide + narrow) / 2
            low, high = self.interval(abs(middle))
            if (low if middle >= 0 else high) > 0:
                narrow = middle
            else:
                wide = middle
        return (1 - narrow) / 2

    @property
    def method(self) -> str:
        """Say how the interval is made."""
        if self._boots is not None:
            over = f"{self.n} {self.unit}"
            return f"percentile bootstrap over {over}, {RESAMPLES} resamples"
        said = f"Student's t over {self.n} {self.unit}"
        if self.grouped:
            what = "pairs" if self.unit == "groups" else self.unit
            said = f"jackknife, {len(self.samples)} groups of {what}, fixed reference"
        if self.trainings:
            said += f", and {max(map(len, self.trainings.values()))} training seeds"
        return said

    @property
    def spread(self) -> float:
        """Return the standard deviation over units."""
        return float(self.samples.std())

    @property
    def _variances(self) -> list[tuple[float, int]]:
        """Return the number's variance by each of its causes, with its freedom."""
        count = len(self.samples)
        spread = float((self.samples - self.samples.mean()).square().sum())
        share = (count - 1) / count if self.grouped else 1 / (count - 1) / count
        causes = [(share * spread, count - 1)]
        for each in self.trainings.values():
            causes.append((float(each.var() / len(each)), len(each) - 1))
        return causes

    @cached_property
    def _boots(self) -> torch.Tensor | None:
        """Return bootstrapped means; equal indices for all of equal n."""
        if self.grouped or self.n < FEW or self.trainings:
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


def retrained(each: Sequence[Measured], adaptor: str) -> Measured:
    """Average what was measured with an adaptor that was trained from several seeds.

    Args:
        each: The number with each training seed; of the same units.
        adaptor: What was trained. Numbers of one adaptor are of the same seeds, in
            the same order, and so make pairs.
    """
    total = each[0]
    for other in each[1:]:
        total = total + other
    values = torch.tensor([one.value for one in each], dtype=torch.float64)
    trainings = {adaptor: values - values.mean()}
    return replace(total * (1 / len(each)), trainings=trainings)


def resampled(value: float, again: Sequence[float], unit: str) -> Measured:
    """Return a number whose standard error is its spread over resampled sets.

    Args:
        value: The number.
        again: The same on sets that were drawn with replacement, 2 or more.
        unit: What to call them.
    """
    found = torch.tensor(again, dtype=torch.float64)
    # The mean of R such samples has the variance of one of the sets.
    samples = value + (found - found.mean()) * math.sqrt(len(found))
    return Measured(value, samples, torch.empty(0), len(found), unit)


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


def score_by_source(values: torch.Tensor, owners: torch.Tensor) -> dict[str, object]:
    """Average the pairs of each source, then the sources, with an interval.

    Pairs of one source are alike, and do not count as more sources.

    Raises:
        ValueError: If there is one source alone.
    """
    count = len(owners.unique())
    if count < 2:
        raise ValueError(f"an interval needs 2 sources or more, not {count}")
    measured = per_source(values, owners)
    low, high = measured.interval()
    return {
        "value": measured.value,
        "low": low,
        "high": high,
        "n": measured.n,
        "interval": f"95 % {measured.method}",
    }
