"""The γ schedule: published sequences, and what is refused."""

import pytest

from clockwork_diffusion.timesteps import ending_timesteps, gamma_of, gamma_timesteps

# Supplement of Kim et al. 2024, and its official code.
PUBLISHED = {
    ("InstructPix2Pix", 1 / 3.11): "999 916 814 674 403",
    ("InstructPix2Pix", 1 / 1.80): "999 937 872 802 728 646 556 452 324 124",
    ("InstructPix2Pix", 1 / 1.41): (
        "999 948 896 843 789 733 676 616 554 488 419 345 264 170 43"
    ),
    ("InstructPix2Pix", 1 / 1.30): (
        "999 958 917 876 834 791 748 704 659 613 566 518 468 417 364 309 250 187 116 26"
    ),
    ("StableSR", 1.90): "949 549 254 68 0",
    ("StableSR", 1.60): "970 804 649 507 379 265 167 87 28 0",
    ("StableSR", 1.61): "970 861 756 658 564 476 394 317 247 184 129 81 42 13 0",
    ("StableSR", 1.42): (
        "981 908 837 768 701 636 572 511 451 394 339 287 237 190 147 107 71 40 14 0"
    ),
    ("ControlNet", 1 / 2.21): "999 881 741 558 219",
    ("ControlNet", 1 / 1.62): "999 930 858 782 701 614 518 410 279 84",
    ("ControlNet", 1 / 1.41): (
        "999 948 896 843 789 733 676 616 554 488 419 345 264 170 43"
    ),
}


@pytest.mark.parametrize(("task", "gamma"), PUBLISHED)
def test_the_eleven_published_sequences(task, gamma):
    expected = tuple(map(int, PUBLISHED[task, gamma].split()))
    assert gamma_timesteps(len(expected), gamma) == expected


def test_gamma_1_is_evenly_spaced():
    for steps in range(2, 1001):
        # In whole numbers, where nothing is rounded but by the floor.
        even = [999 * index // (steps - 1) for index in range(steps)]
        assert gamma_timesteps(steps, 1.0) == tuple(reversed(even))


def test_an_end_apart_from_gamma():
    assert ending_timesteps(5, 1.0, 0) == gamma_timesteps(5, 1.0)
    assert ending_timesteps(5, 1.0, 64) == (999, 765, 531, 297, 64)
    early, late = ending_timesteps(5, 0.5, 64), ending_timesteps(5, 2.0, 64)
    assert early == (999, 873, 725, 531, 64) and late == (999, 589, 297, 122, 64)
    for end in (-1, 999):
        with pytest.raises(ValueError, match=f"end {end} is not between 0 and 998"):
            ending_timesteps(5, 1.0, end)
    with pytest.raises(ValueError, match="gamma 1 and end 996.*the same: 996"):
        ending_timesteps(5, 1.0, 996)


def test_which_end_each_gamma_moves_and_where_its_steps_crowd():
    noisy, detailed = gamma_timesteps(8, 1 / 1.5), gamma_timesteps(8, 1.5)
    assert noisy[0] == 999 and noisy[-1] > 0
    assert detailed[0] < 999 and detailed[-1] == 0
    for ends in (noisy, tuple(-each for each in reversed(detailed))):
        strides = [a - b for a, b in zip(ends, ends[1:], strict=False)]
        assert strides == sorted(strides)
    # Another T and κ.
    assert gamma_timesteps(3, 2.0, last=99, kappa=0.0) == (99, 24, 0)


@pytest.mark.parametrize(
    ("steps", "gamma", "message"),
    [
        (1, 1.0, "1 steps are not between 2 and 1000"),
        (0, 1.0, "0 steps are not between 2 and 1000"),
        (1001, 1.0, "1001 steps are not between 2 and 1000"),
        (5, 0.0, "gamma 0 is not a number above 0"),
        (5, -1.5, "gamma -1.5 is not a number above 0"),
        (5, float("inf"), "gamma inf is not a number above 0"),
        (5, float("nan"), "gamma nan is not a number above 0"),
        (5, 100.0, "5 steps with gamma 100: rounding makes steps the same: 0$"),
        (20, 8.0, "20 steps with gamma 8: rounding makes steps the same: 0$"),
        (1000, 1.2, "the same: 0, 1, 2, 3, 4, 5, 6, 8 and 59 more$"),
    ],
)
def test_what_makes_no_schedule_is_said_in_one_line(steps, gamma, message):
    with pytest.raises(ValueError, match=message) as caught:
        gamma_timesteps(steps, gamma)
    assert "\n" not in str(caught.value)


def test_gamma_of_p():
    assert gamma_of(2.0, 1) == 2.0 and gamma_of(2.0, -1) == 0.5
    with pytest.raises(ValueError, match="p 0.9 is less than 1"):
        gamma_of(0.9, 1)
    with pytest.raises(ValueError, match="direction 0 is not -1 or 1"):
        gamma_of(1.0, 0)
