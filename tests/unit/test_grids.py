"""Time steps by the rules of others, on a small random pipeline."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from clockwork_diffusion.encoding import encode_prompts
from clockwork_diffusion.schedulers import at_timesteps
from clockwork_diffusion.timesteps import check_timesteps
from clockwork_experiments.rivals.grids import GRIDS, ays, ending, gits
from clockwork_experiments.rivals.teacher import Teacher, record, sigma

sys.path.insert(0, str(Path(__file__).parents[1]))
from checkout import ROOT  # noqa: E402
from pipelines import NOISE, PROMPT, sd  # noqa: E402

DENSE = 12


@pytest.fixture(scope="module")
def pipe():
    return sd()


@pytest.fixture(scope="module")
def teacher(pipe):
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    prompts = encode_prompts(pipe, [PROMPT, "a blue square"])
    return record(pipe, prompts, noise, DENSE, 3.0)


@pytest.mark.parametrize(("name", "steps"), itertools.product(GRIDS, (3, 5, 8)))
def test_every_grid_goes_through_the_door(pipe, teacher, name, steps):
    grid = GRIDS[name](steps, teacher)
    assert len(grid) == steps
    check_timesteps(grid)
    if steps == 3:
        with at_timesteps(pipe, grid):
            pipe(PROMPT, num_inference_steps=steps, output_type="latent")


def test_the_trajectory_is_that_of_ddim(pipe, teacher):
    """Each point follows from the one before by Euler's method, the last is clean."""
    noise = sigma(teacher.scheduler, torch.tensor(teacher.timesteps))
    assert teacher.timesteps[0] == 999 and teacher.timesteps[-1] == 0
    assert teacher.latents.shape == (DENSE + 1, 2, 4, 16, 16)
    before, own = pipe.scheduler, DDIMScheduler(**NOISE, clip_sample=False)
    try:
        pipe.scheduler = own
        with at_timesteps(pipe, teacher.timesteps):
            again = pipe(
                [PROMPT, "a blue square"],
                num_inference_steps=DENSE,
                guidance_scale=3.0,
                latents=teacher.latents[0],
                output_type="latent",
            ).images
    finally:
        pipe.scheduler = before
    torch.testing.assert_close(again, teacher.latents[-1], rtol=1e-4, atol=1e-4)
    assert (noise.diff() < 0).all()


def test_ten_steps_of_ays_are_the_published_ones():
    """On the noise schedule of SD 1.5, the table of the authors' page."""
    scheduler = DDIMScheduler(**NOISE)
    grid = ays.timesteps(10, Teacher(scheduler, (), torch.empty(0)))
    assert grid == (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)


def test_other_numbers_of_steps_lie_on_the_line_in_log_snr():
    scheduler = DDIMScheduler(**NOISE)
    teacher = Teacher(scheduler, (), torch.empty(0))
    # Every second of the published ones; between two, the geometric mean of σ.
    assert ays.timesteps(5, teacher) == (999, 736, 545, 343, 124)
    ten, twenty = ays.timesteps(10, teacher), ays.timesteps(20, teacher)
    assert twenty[::2] == ten
    log = torch.log(sigma(scheduler, torch.tensor(twenty)))
    middles = (log[:-2:2] + log[2::2]) / 2
    torch.testing.assert_close(log[1:-1:2], middles, atol=0.01, rtol=0)


def test_ays_follows_the_noise_of_the_model():
    other = DDIMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    grid = ays.timesteps(6, Teacher(other, (), torch.empty(0)))
    same = ays.timesteps(6, Teacher(DDIMScheduler(**NOISE), (), torch.empty(0)))
    assert grid != same
    theirs = sigma(DDIMScheduler(**NOISE), torch.tensor(same))
    torch.testing.assert_close(
        sigma(other, torch.tensor(grid)), theirs, rtol=0.05, atol=0
    )


@pytest.mark.parametrize("steps", range(3, 11))
def test_ays_is_scaled_to_a_model_of_less_noise(steps):
    """The published noise is beyond the mini models' most at the first two steps."""
    folder = ROOT / "resources" / "mini" / "stable-diffusion" / "scheduler"
    mini = DDIMScheduler.from_pretrained(folder)
    grid = ays.timesteps(steps, Teacher(mini, (), torch.empty(0)))
    assert len(grid) == steps and grid[0] == 999
    check_timesteps(grid)


def test_the_path_of_gits_is_the_cheapest_of_all(teacher):
    costs = gits.step_costs(teacher)
    for steps in (2, 4):
        paths = [
            (0, *rest) for rest in itertools.combinations(range(1, DENSE), steps - 1)
        ]

        def spent(path):
            spans = zip(path, [*path[1:], DENSE], strict=True)
            weights = [gits.GROWTH**place for place in range(len(path))]
            return sum(
                weight * costs.get(span, 0.0)
                for weight, span in zip(weights, spans, strict=True)
            )

        best = min(paths, key=spent)
        expected = tuple(teacher.timesteps[index] for index in best)
        assert gits.timesteps(steps, teacher) == expected


def test_a_straight_line_costs_nothing_and_a_bend_costs_what_it_turns():
    scheduler = DDIMScheduler(**NOISE)
    timesteps = (900, 600, 300)
    noise = torch.cat([sigma(scheduler, torch.tensor(timesteps)), torch.zeros(1)])
    points = noise.double()[:, None, None, None, None].clone()
    scale = torch.sqrt(1 + noise.square())[:, None, None, None, None]
    straight = gits.step_costs(Teacher(scheduler, timesteps, points / scale))
    assert max(straight.values()) < 1e-6
    points[3] += 0.5
    bent = gits.step_costs(Teacher(scheduler, timesteps, points / scale))
    assert bent[0, 2] < 1e-6
    assert bent[0, 3] == pytest.approx(0.5, abs=1e-6)
    assert bent[1, 3] == pytest.approx(0.5, abs=1e-6)


def test_ending_takes_the_cheapest_of_its_family(teacher):
    assert ending.timesteps(4, teacher)[0] == 999
    with pytest.raises(ValueError, match="too short for 20 steps"):
        ending.timesteps(20, teacher)
