import math

import numpy as np
import pytest
import torch

from clockwork_experiments.score import metrics


def gaussian(n: int, dim: int, seed: int, shift: float = 0.0, scale: float = 1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return x * scale + shift


def with_moments(mean: list[float], deviation: list[float], n: int = 400):
    """Return points whose sample mean and unbiased covariance are exact."""
    x = gaussian(n, len(mean), 0)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return x * torch.tensor(deviation) + torch.tensor(mean)


def test_frechet_distance_of_gaussians_has_the_closed_form():
    one = with_moments([0.0, 1.0, -2.0], [1.0, 2.0, 0.5])
    other = with_moments([0.5, 0.0, -2.0], [3.0, 2.0, 1.5])
    # diagonal covariances: |μ₁ − μ₂|² + Σ (σ₁ − σ₂)²
    expected = (0.25 + 1.0) + (4.0 + 0.0 + 1.0)
    found = metrics.frechet_distance(metrics.statistics(one), metrics.statistics(other))
    assert found == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    stats = metrics.statistics(gaussian(50, 8, 1, shift=5))
    assert metrics.frechet_distance(stats, stats) == pytest.approx(0, abs=1e-6)


def test_shards_merge_to_the_whole():
    features = gaussian(101, 7, 2, shift=3)
    parts = [metrics.statistics(part) for part in features.split(13)]
    merged, whole = metrics.merge(parts), metrics.statistics(features)
    assert merged.n == whole.n
    torch.testing.assert_close(merged.total, whole.total, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(merged.outer, whole.outer, rtol=1e-10, atol=1e-10)
    reference = metrics.statistics(gaussian(101, 7, 3))
    assert metrics.frechet_distance(merged, reference) == pytest.approx(
        metrics.frechet_distance(whole, reference), abs=1e-9
    )


def test_statistics_survive_their_tensors():
    stats = metrics.statistics(gaussian(9, 3, 0))
    again = metrics.statistics_from_tensors(metrics.statistics_to_tensors(stats))
    assert again.n == 9 and torch.equal(again.outer, stats.outer)
    with pytest.raises(ValueError, match="lack the tensor 'outer'"):
        metrics.statistics_from_tensors({"n": torch.tensor(1), "total": stats.total})


def test_frechet_interval_covers_the_mean_of_new_samples():
    reference = metrics.statistics(gaussian(2000, 6, 99))
    draws = [gaussian(200, 6, seed, shift=0.3) for seed in range(40)]
    scores = [metrics.frechet_score(draw, reference) for draw in draws]
    truth = sum(score.value for score in scores) / len(scores)
    covered = sum(score.low <= truth <= score.high for score in scores)
    assert covered >= 34  # of 40; at 95 %, fewer happen once in a thousand


def test_paired_frechet_difference_is_tighter_than_the_scores():
    reference = metrics.statistics(gaussian(500, 6, 99))
    one = gaussian(300, 6, 1, shift=0.3)
    other = one + 0.01 * gaussian(300, 6, 2)
    score = metrics.frechet_score(one, reference)
    difference = metrics.frechet_difference(one, other, reference)
    assert difference.high - difference.low < 0.5 * (score.high - score.low)
    assert difference.low < difference.value < difference.high


def test_too_few_images_are_an_error_and_few_a_note(caplog):
    reference = metrics.statistics(gaussian(50, 8, 0))
    with pytest.raises(ValueError, match="needs 2 images or more, not 1 generated"):
        metrics.frechet_distance(metrics.statistics(gaussian(1, 8, 1)), reference)
    with pytest.raises(ValueError, match="needs 3 images or more, not 2"):
        metrics.frechet_score(gaussian(2, 8, 1), reference)
    assert "lacks full rank" in metrics.frechet_score(gaussian(8, 8, 1), reference).note
    assert "lacks full rank" in caplog.text
    assert metrics.frechet_score(gaussian(9, 8, 1), reference).note == ""


def test_features_that_make_no_statistics_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        metrics.statistics(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(ValueError, match=r"not \(N, D\)"):
        metrics.statistics(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="of 3 and of 4 features"):
        metrics.merge(
            [metrics.statistics(gaussian(5, dim, 0)) for dim in (3, 4)],
        )
    with pytest.raises(ValueError, match="no statistics to merge"):
        metrics.merge([])


def test_bootstrap_covers_the_mean_and_is_reproducible():
    samples = [gaussian(100, 1, seed, shift=2)[:, 0] for seed in range(60)]
    scores = [metrics.mean_score(sample, resamples=400) for sample in samples]
    covered = sum(score.low <= 2 <= score.high for score in scores)
    assert 51 <= covered < 60
    assert metrics.mean_score(samples[0], resamples=400) == scores[0]
    assert metrics.mean_score(samples[0], seed=1, resamples=400) != scores[0]


@pytest.mark.parametrize("count", [2, 4, 12])
def test_intervals_of_few_values_cover_the_mean(count):
    """A percentile bootstrap covers it half the time with 2, four in five with 4."""
    samples = gaussian(count * 600, 1, 0, shift=2)[:, 0].unflatten(0, (600, count))
    scores = [metrics.mean_score(sample) for sample in samples]
    covered = sum(score.low <= 2 <= score.high for score in scores)
    assert 0.925 < covered / 600 < 0.975
    assert scores[0].interval == "95 % Student's t"


def test_difference_is_resampled_in_pairs():
    values = gaussian(200, 1, 0)[:, 0]
    score = metrics.difference_score(values + 0.5, values)
    assert score.low == pytest.approx(0.5) and score.high == pytest.approx(0.5)
    with pytest.raises(ValueError, match="make no pairs"):
        metrics.difference_score(values, values[1:])


def test_seeds_of_a_prompt_are_resampled_together():
    values = torch.randn(60, generator=torch.Generator().manual_seed(1)).double()
    once = metrics.mean_score(values)
    # The same images again tell nothing new, whatever their number.
    again = metrics.mean_score(values.repeat(4), seeds=4)
    assert again.n == 240
    assert (again.low, again.high) == pytest.approx((once.low, once.high))
    careless = metrics.mean_score(values.repeat(4))
    assert careless.high - careless.low < 0.7 * (again.high - again.low)
    with pytest.raises(ValueError, match="60 images are not 7 seeds"):
        metrics.mean_score(values, seeds=7)


def test_frechet_groups_hold_all_seeds_of_a_prompt():
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(90, 3, generator=generator).double()
    reference = metrics.statistics(torch.randn(500, 3, generator=generator).double())
    twice = metrics.frechet_score(features.repeat(2, 1), reference, seeds=2)
    once = metrics.frechet_score(features, reference)
    careless = metrics.frechet_score(features.repeat(2, 1), reference)
    width = once.high - once.low
    assert twice.high - twice.low == pytest.approx(width, rel=0.15)
    assert careless.high - careless.low < 0.85 * width


def test_means_need_finite_values():
    with pytest.raises(ValueError, match="2 values or more"):
        metrics.mean_score(torch.tensor([1.0]))
    with pytest.raises(ValueError, match="not finite"):
        metrics.mean_score(torch.tensor([1.0, math.inf]))


def test_cosines():
    one = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    other = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
    assert metrics.cosines(one, other).tolist() == pytest.approx([1.0, 0.0])


def test_pixel_distances_of_known_images():
    black = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    grey = black.clone()
    grey[1] = 51  # a fifth of the range
    assert metrics.pixel_rmse(black, grey).tolist() == pytest.approx([0, 51])
    found = metrics.psnr(black, grey).tolist()
    assert found == pytest.approx([metrics.ROUNDING_PSNR, 20 * math.log10(5)], abs=1e-4)
    assert abs(metrics.ROUNDING_PSNR - 58.92) < 0.01
    # Floats are not rounded: half a level is told from none.
    level = torch.full((2, 3, 4, 4), 0.5)
    level[1] += 0.5 / 255
    found = metrics.psnr(level, torch.full_like(level, 0.5)).tolist()
    assert found == pytest.approx([metrics.EXACT_PSNR, 20 * math.log10(510)], abs=1e-3)
    with pytest.raises(ValueError, match="make no pairs"):
        metrics.psnr(level, level[:1])
    similar = metrics.ssim(black, grey).tolist()
    assert similar[0] == pytest.approx(1) and similar[1] < 0.1
    with pytest.raises(ValueError, match="not uint8"):
        metrics.psnr(black.float(), grey)
    with pytest.raises(ValueError, match="not all from 0 to 1"):
        metrics.psnr(black.float(), grey.float())
    with pytest.raises(ValueError, match="make no pairs"):
        metrics.pixel_rmse(black, grey[:1])


def test_wilson_interval():
    # Newcombe (1998), Table I: 81 of 263 → 0.2553 to 0.3662
    score = metrics.share_score(torch.arange(263) < 81)
    assert score.low == pytest.approx(0.2553, abs=1e-4)
    assert score.high == pytest.approx(0.3662, abs=1e-4)
    assert metrics.share_score(torch.ones(10, dtype=torch.bool)).high == 1.0
    assert metrics.share_score(torch.zeros(10, dtype=torch.bool)).low == 0.0
    # What is alike within a picture makes no more pictures.
    alike = (torch.arange(263) < 81).repeat_interleave(3)
    assert metrics.share_score(alike, 263) == score
    with pytest.raises(ValueError, match="1 value or more"):
        metrics.share_score(torch.ones(0, dtype=torch.bool))


def test_group_means_weigh_the_values_of_each_group_alike():
    values = torch.tensor([1.0, 2.0, 6.0, 4.0])
    found = metrics.group_means(values, torch.tensor([1, 0, 0, 1]))
    assert found.dtype == torch.float64 and found.tolist() == [4.0, 2.5]


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([1.0], [0, 1], "do not belong together"),
        ([], [], "do not belong together"),
        ([1.0, float("nan")], [0, 1], "a value is not finite"),
        ([1.0, 2.0], [0, 2], "group 1 has no value"),
    ],
)
def test_values_without_their_groups_have_no_means(values, groups, message):
    with pytest.raises(ValueError, match=message):
        metrics.group_means(
            torch.tensor(values), torch.tensor(groups, dtype=torch.int64)
        )


def kernel_by_hand(
    features: torch.Tensor, reference: torch.Tensor, prompts: int
) -> float:
    """Return the mean over pairs of images of different prompts, one by one."""

    def mean(one: torch.Tensor, other: torch.Tensor) -> float:
        return np.mean(
            [
                (float(one[i].double() @ other[j].double()) / one.shape[1] + 1) ** 3
                for i in range(len(one))
                for j in range(len(other))
                if i % prompts != j % prompts
            ]
        )

    both = mean(features, features) + mean(reference, reference)
    return both - 2 * mean(features, reference)


def test_a_kernel_distance_of_equal_sets_of_prompts_is_unbiased():
    """Images of one prompt are alike; pairs of them are between the sets alone."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randn(12, 8, generator=generator)

    def drawn(each: int, shift: float = 0.0) -> torch.Tensor:
        noise = 0.3 * torch.randn(12 * each, 8, generator=generator)
        return prompts.repeat(each, 1) + noise + shift

    same = [metrics.kernel_jackknife(drawn(1), drawn(4), 12).value for _ in range(60)]
    mean, error = np.mean(same), np.std(same) / 60**0.5
    assert min(same) < 0 < max(same)
    assert abs(mean) < 3 * error
    assert metrics.kernel_jackknife(drawn(1, 0.5), drawn(4), 12).value > max(same)


def test_a_kernel_distance_is_measured_again_without_each_group_of_prompts():
    generator = torch.Generator().manual_seed(1)
    prompts, seeds = 23, 2
    features = torch.randn(prompts * seeds, 8, generator=generator)
    reference = torch.randn(prompts * 3, 8, generator=generator)
    found = metrics.kernel_jackknife(features, reference, prompts)
    assert found.value == pytest.approx(kernel_by_hand(features, reference, prompts))
    # Twenty groups: prompts 0 and 20 are of the same, in both sets and all seeds.
    assert len(found.without) == 20
    without = [
        each[[i for i in range(len(each)) if i % prompts not in (0, 20)]]
        for each in (features, reference)
    ]
    wanted = kernel_by_hand(*without, prompts - 2)
    assert found.without[0] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("features", "reference", "prompts", "message"),
    [
        ((4, 8), (4, 8), 2, "3 prompts or more, not 4 of 2"),
        ((6, 8), (7, 8), 3, "3 prompts or more, not 7 of 3"),
        ((6, 8), (6, 5), 3, "8 and 5 features do not belong together"),
    ],
)
def test_sets_without_a_kernel_distance(features, reference, prompts, message):
    with pytest.raises(ValueError, match=message):
        metrics.kernel_jackknife(torch.ones(features), torch.ones(reference), prompts)


def test_an_interval_of_few_groups_is_as_wide_as_they_ask_for():
    """Student's t has as many degrees of freedom as there are groups, less one."""
    few, many = (metrics.Jackknifed(0.0, (-1.0, 1.0) * half, 9) for half in (2, 10))
    for found, quantile in ((few, 3.1824), (many, 2.0930)):
        groups = len(found.without)
        error = ((groups - 1) / groups * groups) ** 0.5
        assert found.score().high == pytest.approx(quantile * error, rel=1e-4)


def test_a_captions_error_is_to_the_mean_of_its_own_references():
    reference = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[5.0, 5.0], [5.0, 7.0]]])
    features = torch.tensor([[1.0, 0.0], [5.0, 6.0], [1.0, 2.0], [5.0, 5.0]])
    found = metrics.caption_errors(features, reference)
    assert found.tolist() == [0.0, 0.0, 2.0, 0.5]
    with pytest.raises(ValueError, match="do not belong together"):
        metrics.caption_errors(features[:3], reference)
