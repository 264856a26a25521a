"""Turn features and images into scores, each with its uncertainty.

Three stages, so that each can be a file of its own and shards combine exactly:
features (`encoders`) → statistics or one value per image → `Score`.

**Intervals.** Means over images get the percentile bootstrap. All bootstraps of equal
n and seed draw the same prompts, so runs over the same prompts are resampled in pairs.
Several sampling seeds per prompt are resampled together: rows come seed by seed, row
*i* of N is prompt *i* mod N / seeds. The Fréchet distance must not be bootstrapped: a
resample repeats images, which shrinks its covariance and biases every replicate upwards
(in a simulation with 64 features of 500 images, 0 of 15 such intervals held the true
value). It gets a delete-group jackknife, whose replicates hold no image twice; they are
the whole's statistics minus a group's. The reference set counts as fixed. What remains
is the bias that the distance itself has at small n, which the interval does not show:
compare Fréchet distances of equal n only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.image.fid import FrechetInceptionDistance

from clockwork_experiments.score.student import FEW, student_quantile

log = logging.getLogger(__name__)

ROUNDING_PSNR = 10 * math.log10(12 * 255**2)
"""PSNR in dB of rounding to 8 bits (58.9): the most that `psnr` reports."""

EXACT_PSNR = 100.0
"""The most that `psnr` reports of pixels that are not rounded: equal but for fp32."""

GROUPS = 20
"""Groups of the jackknife."""

_Z_QUANTILE = 1.96

_IMAGES = 8
"""Images that are compared at once: as float64, 50 MB of 512×512 pixels."""


@dataclass(frozen=True)
class Score:
    """A number with its 95 % interval.

    Attributes:
        value: The score.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of images, or pairs, behind it.
        interval: How the interval was made.
        note: What a reader of the number must know; mostly empty.
    """

    value: float
    low: float
    high: float
    n: int
    interval: str
    note: str = ""


# --- statistics: what the Fréchet distance needs of a set of features ----------------


@dataclass(frozen=True)
class Statistics:
    """Mergeable sums over features, float64 on the CPU.

    Attributes:
        n: Number of images.
        total: Sum of the features, ``(D,)``.
        outer: Sum of the features' outer products, ``(D, D)``.
    """

    n: int
    total: torch.Tensor
    outer: torch.Tensor

    def __add__(self, other: Statistics) -> Statistics:
        """Return the statistics of two disjoint sets of images together."""
        self._check(other)
        return Statistics(
            self.n + other.n, self.total + other.total, self.outer + other.outer
        )

    def __sub__(self, other: Statistics) -> Statistics:
        """Return the statistics without those of a subset."""
        self._check(other)
        return Statistics(
            self.n - other.n, self.total - other.total, self.outer - other.outer
        )

    def _check(self, other: Statistics) -> None:
        if self.total.shape != other.total.shape:
            raise ValueError(
                f"statistics of {len(self.total)} and of {len(other.total)} features "
                "do not belong together"
            )


def statistics(features: torch.Tensor) -> Statistics:
    """Sum up features ``(N, D)``.

    Raises:
        ValueError: If the shape is another, or a feature is not finite.
    """
    _check_features(features)
    wide = features.detach().cpu().double()
    return Statistics(len(wide), wide.sum(dim=0), wide.T @ wide)


def merge(parts: Iterable[Statistics]) -> Statistics:
    """Return the statistics of all shards together.

    Raises:
        ValueError: If there is no shard, or the shards' features differ in number.
    """
    # One after the other: each holds D² numbers.
    whole: Statistics | None = None
    for part in parts:
        whole = part if whole is None else whole + part
    if whole is None:
        raise ValueError("there are no statistics to merge")
    return whole


def statistics_to_tensors(stats: Statistics) -> dict[str, torch.Tensor]:
    """Return the tensors that `storage.write_tensors` keeps of statistics."""
    return {"n": torch.tensor(stats.n), "total": stats.total, "outer": stats.outer}


def statistics_from_tensors(tensors: dict[str, torch.Tensor]) -> Statistics:
    """Undo `statistics_to_tensors`.

    Raises:
        ValueError: If a tensor is missing.
    """
    for name in ("n", "total", "outer"):
        if name not in tensors:
            raise ValueError(f"statistics lack the tensor {name!r}")
    return Statistics(int(tensors["n"]), tensors["total"], tensors["outer"])


# --- Fréchet distance ----------------------------------------------------------------


class _Given(nn.Module):
    """Stand for a feature network where the features exist already."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(generated: Statistics, reference: Statistics) -> float:
    """Return the Fréchet distance of two sets, computed by torchmetrics in float64.

    ``‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)`` with unbiased covariances.

    Raises:
        ValueError: If a set has fewer than 2 images, or the features differ in number.
    """
    generated._check(reference)
    for name, stats in (("generated", generated), ("reference", reference)):
        if stats.n < 2:
            raise ValueError(
                f"a Fréchet distance needs 2 images or more, not {stats.n} {name}"
            )
    dim = len(reference.total)
    metric = FrechetInceptionDistance(feature=_Given(dim))
    # The metric's states are our sums under other names. The empty update only tells
    # it that the features, and so the result, are float64.
    nothing = torch.empty(0, dim, dtype=torch.float64)
    metric.update(nothing, real=True)
    metric.update(nothing, real=False)
    for side, stats in (("real", reference), ("fake", generated)):
        setattr(metric, f"{side}_features_sum", stats.total)
        setattr(metric, f"{side}_features_cov_sum", stats.outer)
        setattr(metric, f"{side}_features_num_samples", torch.tensor(stats.n))
    return float(metric.compute())


@dataclass(frozen=True)
class Jackknifed:
    """A number, and the same without each group of images in turn.

    Attributes:
        value: The number, from all images.
        without: The number without each group.
        n: Number of images.
        note: What a reader of the number must know; mostly empty.
    """

    value: float
    without: tuple[float, ...]
    n: int
    note: str = ""

    def __sub__(self, other: Jackknifed) -> Jackknifed:
        """Return by how much it exceeds another of the same prompts, in pairs."""
        if (self.n, len(self.without)) != (other.n, len(other.without)):
            raise ValueError(f"{self.n} and {other.n} images make no pairs")
        return Jackknifed(
            self.value - other.value,
            tuple(a - b for a, b in zip(self.without, other.without, strict=True)),
            self.n,
            self.note,
        )

    def score(self) -> Score:
        """Return the number with its interval."""
        leave_out = torch.tensor(self.without, dtype=torch.float64)
        count = len(leave_out)
        variance = (count - 1) / count * (leave_out - leave_out.mean()).square().sum()
        half = student_quantile(count - 1, 0.975) * math.sqrt(float(variance))
        kind = f"95 % jackknife, {count} groups, fixed reference"
        low, high = self.value - half, self.value + half
        return Score(self.value, low, high, self.n, kind, self.note)


def frechet_jackknife(
    blocks: Iterable[torch.Tensor], reference: Statistics, prompts: int
) -> Jackknifed:
    """Return the Fréchet distance of generated images, and its replicates.

    Memory does not grow with the number of images: groups are summed as rows come, and
    a distance is worked out at a time.

    Args:
        blocks: Features ``(N, D)`` in consecutive parts; row i of all is of prompt i
            mod ``prompts``.
        reference: Of the reference set.
        prompts: Number of prompts, without repetitions for sampling seeds.

    Raises:
        ValueError: If there are fewer than 3 generated, or 2 reference, images, or the
            prompts have different numbers of them.
    """
    groups = _grouped(blocks, prompts)
    whole = merge(groups)
    if whole.n % prompts:
        raise ValueError(
            f"{whole.n} images are no whole number of those of {prompts} prompts"
        )
    if whole.n < 3:
        raise ValueError(
            f"the interval of a Fréchet distance needs 3 images or more, not {whole.n}"
        )
    return Jackknifed(
        frechet_distance(whole, reference),
        tuple(frechet_distance(whole - group, reference) for group in groups),
        whole.n,
        _rank_note(whole, reference),
    )


def _grouped(blocks: Iterable[torch.Tensor], prompts: int) -> list[Statistics]:
    """Return the statistics of each group."""
    row = 0
    groups: list[Statistics] = []
    for block in blocks:
        _check_features(block)
        wide = block.detach().cpu().double()
        owners = _groups_of(torch.arange(row, row + len(wide)), prompts)
        dim = wide.shape[1]
        if not groups:
            count = min(GROUPS, prompts)
            groups = [Statistics(0, *_nothing(dim)) for _ in range(count)]
        groups[0]._check(Statistics(0, wide[0], groups[0].outer))
        for index, group in enumerate(groups):
            own = wide[owners == index]
            # In place: a sum is 33 MB for 2048 features.
            group.total.add_(own.sum(dim=0))
            group.outer.addmm_(own.T, own)
            groups[index] = Statistics(group.n + len(own), group.total, group.outer)
        row += len(wide)
    return groups


def _groups_of(rows: torch.Tensor, prompts: int) -> torch.Tensor:
    """Return the group of each image: prompt i is in group i mod G.

    Neighbouring images share a shard, and maybe a class, so groups are interleaved.
    """
    if prompts < 1:
        raise ValueError(f"{prompts} prompts are fewer than 1")
    return rows % prompts % min(GROUPS, prompts)


def _nothing(dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums over no features."""
    wide = torch.float64
    return torch.zeros(dim, dtype=wide), torch.zeros(dim, dim, dtype=wide)


def frechet_score(
    features: torch.Tensor, reference: Statistics, seeds: int = 1
) -> Score:
    """Return the Fréchet distance of generated images to a reference set.

    Args:
        features: Of the generated images, ``(N, D)``.
        reference: Of the reference set.
        seeds: Sampling seeds per prompt.

    Raises:
        ValueError: If there are fewer than 3 generated, or 2 reference, images.
    """
    return _jackknife(features, reference, seeds).score()


def frechet_replicates(
    features: torch.Tensor, reference: Statistics, seeds: int = 1
) -> list[float]:
    """Return the Fréchet distance without each group of images in turn.

    Args:
        features: Of the generated images, ``(N, D)``.
        reference: Of the reference set.
        seeds: Sampling seeds per prompt.

    Raises:
        ValueError: If there are fewer than 3 generated, or 2 reference, images.
    """
    return list(_jackknife(features, reference, seeds).without)


def frechet_difference(
    features: torch.Tensor, other: torch.Tensor, reference: Statistics, seeds: int = 1
) -> Score:
    """Return by how much a run's Fréchet distance exceeds another's, in pairs.

    Args:
        features: Of the run's images, ``(N, D)``.
        other: Of the other run's images for the same prompts and seeds, ``(N, D)``.
        reference: Of the reference set.
        seeds: Sampling seeds per prompt.

    Raises:
        ValueError: If the runs have different numbers of images, or too few.
    """
    _check_pairs(features, other)
    one = _jackknife(features, reference, seeds)
    return (one - _jackknife(other, reference, seeds)).score()


def _jackknife(features: torch.Tensor, reference: Statistics, seeds: int) -> Jackknifed:
    _check_features(features)
    prompts = _by_seed(features, seeds).shape[1]
    return frechet_jackknife([features], reference, prompts)


def _rank_note(generated: Statistics, reference: Statistics) -> str:
    dim, n = len(generated.total), min(generated.n, reference.n)
    if n > dim:
        return ""
    note = (
        f"{n} images for {dim} features: the covariance lacks full rank, and the "
        "distance is biased upwards; compare at equal n only"
    )
    log.warning("Fréchet distance: %s", note)
    return note


# --- kernel distance ------------------------------------------------------------------


def kernel_jackknife(
    features: torch.Tensor, reference: torch.Tensor, prompts: int
) -> Jackknifed:
    """Return the squared kernel distance of two sets of the same prompts, unbiased.

    With the cubic polynomial kernel of the kernel inception distance (Bińkowski et al.
    2018, Eq. 4), over any features, and the mean over all pairs of images of
    *different* prompts, in both sets and between them: two images of one prompt are
    more alike than two of any, and there are more such pairs between the sets than
    within them, so that with them the distance of equal sets would be below 0.
    torchmetrics takes random subsets of equal size; here every image counts once. A
    replicate leaves the prompts of a group out of both sets.

    Args:
        features: Of the generated images, ``(N, D)``; row i is of prompt i mod
            ``prompts``.
        reference: Of the reference images, ``(M, D)``, in the same order.
        prompts: Number of prompts, without repetitions for sampling seeds.

    Raises:
        ValueError: If the sets are no whole number of images of each of 3 prompts or
            more, or the features differ in number.
    """
    for each in (features, reference):
        _check_features(each)
        if prompts < 3 or len(each) % prompts:
            raise ValueError(
                "a kernel distance needs as many images of each of 3 prompts or more, "
                f"not {len(each)} of {prompts}"
            )
    if features.shape[1] != reference.shape[1]:
        raise ValueError(
            f"{features.shape[1]} and {reference.shape[1]} features do not belong "
            "together"
        )
    one, other = (each.detach().cpu().double() for each in (features, reference))
    across = _by_prompts(one, other, prompts)
    apart = _by_prompts(one, one, prompts) + _by_prompts(other, other, prompts)
    apart = (apart - across - across.T).fill_diagonal_(0)
    groups = _groups_of(torch.arange(prompts), prompts)

    def distance(kept: torch.Tensor) -> float:
        count = int(kept.sum())
        return float(apart[kept][:, kept].sum() / (count * (count - 1)))

    return Jackknifed(
        distance(groups >= 0),
        tuple(distance(groups != each) for each in groups.unique()),
        len(features),
    )


def _by_prompts(one: torch.Tensor, other: torch.Tensor, prompts: int) -> torch.Tensor:
    """Return the mean kernel of images of each two prompts, ``(P, P)``."""
    kernel = _cubic(one, other)
    return (
        kernel.unflatten(1, (-1, prompts)).mean(1).unflatten(0, (-1, prompts)).mean(0)
    )


def _cubic(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one @ other.T / one.shape[1] + 1) ** 3


# --- one value per image -------------------------------------------------------------


def cosines(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the cosine of each pair of features, ``(N, D)`` → ``(N,)`` float64.

    Between image and text features this is the CLIP score as the papers print it
    (0.300, not 30.0).

    Raises:
        ValueError: If the shapes differ, or a feature is not finite.
    """
    _check_pairs(one, other)
    return functional.cosine_similarity(
        one.detach().cpu().double(), other.detach().cpu().double(), dim=-1
    )


def caption_errors(features: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return how far images are from what their captions' references show on average.

    The mean squared difference to the mean of a caption's references, in units of the
    features' variance. As each image has its own caption's, it tells a loss with far
    fewer images than a distance of distributions does. References themselves have an
    error too, of what their caption leaves open: the floor.

    Args:
        features: ``(N, D)``; row i is of caption i mod P.
        reference: Of each caption's references, ``(P, R, D)``.

    Returns:
        ``(N,)`` float64.

    Raises:
        ValueError: If the shapes do not belong together, or a feature is not finite.
    """
    _check_features(features)
    _check_features(reference.flatten(0, -2))
    captions = len(reference)
    if len(features) % captions or features.shape[1] != reference.shape[-1]:
        raise ValueError(
            f"features {tuple(features.shape)} and references {tuple(reference.shape)} "
            "do not belong together"
        )
    mean = reference.detach().cpu().double().mean(dim=1)
    rows = torch.arange(len(features)) % captions
    return (features.detach().cpu().double() - mean[rows]).square().mean(dim=1)


def pixel_rmse(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return each pair's root-mean-square error in 8-bit levels, ``(N,)`` float64.

    Args:
        images: uint8, ``(N, 3, H, W)``.
        targets: The same shape; such as the teacher's own images.

    Raises:
        ValueError: If type or shape differ.
    """
    _check_images(images, targets)
    parts = [
        (a.double() - b.double()).square().mean(dim=(1, 2, 3)).sqrt()
        for a, b in zip(images.split(_IMAGES), targets.split(_IMAGES), strict=True)
    ]
    return torch.cat(parts).cpu()


def psnr(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return each pair's PSNR in dB, ``(N,)`` float64.

    Equal images count as `ROUNDING_PSNR`, or where pixels are floats as `EXACT_PSNR`,
    so that means stay finite.

    Args:
        images: ``(N, 3, H, W)``, uint8 or floats from 0 to 1.
        targets: The same shape and type.

    Raises:
        ValueError: If type or shape differ, or floats are not from 0 to 1.
    """
    exact = images.is_floating_point() and images.dtype == targets.dtype
    if not exact:
        _check_images(images, targets)
    elif images.shape != targets.shape:
        raise ValueError(
            f"images {tuple(images.shape)} and {tuple(targets.shape)} make no pairs"
        )
    elif not all(each.min() >= 0 and each.max() <= 1 for each in (images, targets)):
        raise ValueError("pixels are not all from 0 to 1")
    parts = [
        peak_signal_noise_ratio(
            a.double(),
            b.double(),
            data_range=1.0 if exact else 255.0,
            reduction="none",
            dim=(1, 2, 3),
        )
        for a, b in zip(images.split(_IMAGES), targets.split(_IMAGES), strict=True)
    ]
    return torch.cat(parts).cpu().clamp(max=EXACT_PSNR if exact else ROUNDING_PSNR)


def ssim(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return each pair's structural similarity, ``(N,)`` float64 up to 1.

    Args:
        images: uint8, ``(N, 3, H, W)``.
        targets: The same shape.

    Raises:
        ValueError: If type or shape differ.
    """
    _check_images(images, targets)
    parts = []
    for a, b in zip(images.split(_IMAGES), targets.split(_IMAGES), strict=True):
        value = structural_similarity_index_measure(
            a.float() / 255, b.float() / 255, data_range=1.0, reduction="none"
        )
        assert isinstance(value, torch.Tensor)
        parts.append(value.reshape(len(a)))
    return torch.cat(parts).cpu().double()


def group_means(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Return the mean of each group's values, ``(G,)`` float64.

    Args:
        values: ``(N,)``.
        groups: Index of each value's group, ``(N,)``; every index below G occurs.

    Raises:
        ValueError: If the shapes differ, a value is not finite, or a group has none.
    """
    if values.ndim != 1 or values.shape != groups.shape or not len(values):
        raise ValueError(
            f"values {tuple(values.shape)} and groups {tuple(groups.shape)} "
            "do not belong together"
        )
    wide = values.detach().cpu().double()
    if not bool(wide.isfinite().all()):
        raise ValueError("a value is not finite")
    counts = torch.bincount(groups.cpu())
    if not bool(counts.all()):
        raise ValueError(f"group {int((counts == 0).nonzero()[0])} has no value")
    return torch.bincount(groups.cpu(), weights=wide) / counts


# --- scores of values ----------------------------------------------------------------


def mean_score(
    values: torch.Tensor, seed: int = 0, resamples: int = 2000, seeds: int = 1
) -> Score:
    """Return the mean of one value per image, with its 95 % interval.

    By Student's t below `FEW` prompts, else a percentile bootstrap of them.

    Args:
        values: ``(N,)``.
        seeds: Sampling seeds per prompt; prompts are resampled, with all their images.
        seed: Chooses the resampled indices; they depend on it and on N alone.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: If there are fewer than 2 values, or one is not finite.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"a score needs 2 values or more, not {tuple(values.shape)}")
    wide = values.detach().cpu().double()
    if not bool(wide.isfinite().all()):
        raise ValueError("a value is not finite")
    n = len(wide)
    wide = _by_seed(wide, seeds).mean(dim=0)
    mean, images = float(wide.mean()), ""
    if seeds > 1:
        images = f", of prompts with {seeds} images each"
    if 1 < len(wide) < FEW:
        error = float(wide.std()) / math.sqrt(len(wide))
        half = student_quantile(len(wide) - 1, 0.975) * error
        return Score(mean, mean - half, mean + half, n, f"95 % Student's t{images}")
    generator = torch.Generator().manual_seed(seed)
    # In slices, because all indices of 30,000 images would fill half a gigabyte.
    means = [
        wide[torch.randint(len(wide), (size, len(wide)), generator=generator)].mean(1)
        for size in _slices(resamples, 50)
    ]
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.cat(means).quantile(ends).tolist()
    kind = f"95 % percentile bootstrap, {resamples} resamples, seed {seed}{images}"
    return Score(mean, low, high, n, kind)


def difference_score(
    values: torch.Tensor,
    others: torch.Tensor,
    seed: int = 0,
    resamples: int = 2000,
    seeds: int = 1,
) -> Score:
    """Return the mean of ``values - others`` over pairs, resampled in pairs.

    Raises:
        ValueError: If the numbers of values differ; or as `mean_score`.
    """
    if values.shape != others.shape:
        raise ValueError(
            f"values {tuple(values.shape)} and {tuple(others.shape)} make no pairs"
        )
    return mean_score(
        values.detach().cpu().double() - others.detach().cpu().double(),
        seed,
        resamples,
        seeds,
    )


def share_score(hits: torch.Tensor, units: int | None = None) -> Score:
    """Return the share of true values in ``(N,)`` bool, with Wilson's interval.

    Args:
        hits: The values.
        units: How many pictures they are of, where several of one picture may be alike:
            the interval counts these. As many as values if left out.

    Raises:
        ValueError: If there is no value, or more units than values.
    """
    n = len(hits) if units is None else units
    if hits.ndim != 1 or not 1 <= n <= len(hits):
        raise ValueError(f"a share needs 1 value or more, not {tuple(hits.shape)}")
    share, z = float(hits.double().mean()), _Z_QUANTILE
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    # Rounding must not push an end past 0 or 1.
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return Score(share, low, high, n, "95 % Wilson")


def _by_seed(rows: torch.Tensor, seeds: int) -> torch.Tensor:
    """Return rows ``(N, …)`` as ``(seeds, N / seeds, …)``."""
    if seeds < 1 or len(rows) % seeds:
        raise ValueError(
            f"{len(rows)} images are not {seeds} seeds of the same prompts"
        )
    return rows.unflatten(0, (seeds, -1))


def _slices(count: int, size: int) -> list[int]:
    sizes = [size] * (count // size)
    return sizes + [count % size] if count % size else sizes


# --- checks --------------------------------------------------------------------------


def _check_features(features: torch.Tensor) -> None:
    if features.ndim != 2 or not len(features):
        raise ValueError(f"features have the shape {tuple(features.shape)}, not (N, D)")
    if not bool(features.isfinite().all()):
        raise ValueError("a feature is not finite")


def _check_pairs(one: torch.Tensor, other: torch.Tensor) -> None:
    _check_features(one)
    _check_features(other)
    if one.shape != other.shape:
        raise ValueError(
            f"features {tuple(one.shape)} and {tuple(other.shape)} make no pairs"
        )


def _check_images(images: torch.Tensor, targets: torch.Tensor) -> None:
    for tensor in (images, targets):
        if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[1] != 3:
            raise ValueError(
                f"images are {tensor.dtype} {tuple(tensor.shape)}, "
                "not uint8 (N, 3, H, W)"
            )
    if images.shape != targets.shape:
        raise ValueError(
            f"images {tuple(images.shape)} and {tuple(targets.shape)} make no pairs"
        )
