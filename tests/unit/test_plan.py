"""A plan for a budget, on small random pipelines of both topologies."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from diffusers import (
    PNDMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UniPCMultistepScheduler,
)

from clockwork_diffusion.adaptors import IdentityAdaptor
from clockwork_diffusion.depth_skip import depth_skipped
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.plan import AXES, Plan, _Choice, _Search, plan
from clockwork_experiments.cli import app

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipelines import NOISE, PROMPT, sd, sdxl  # noqa: E402

PROMPTS = [PROMPT, "a blue square"]
# Of levels each pass is counted, which takes seconds: they have a test of their own.
CHOSEN = [axis for axis in AXES if axis != "level"]
SHORT = {
    **{"steps": 4, "budget": 0.8, "reference": 8, "guidance_scale": 2.0},
    "choose": CHOSEN,
}


@pytest.fixture(scope="module")
def pipe():
    return sd()


@pytest.fixture(scope="module")
def made(pipe):
    return plan(pipe, PROMPTS, **SHORT)


def draw(pipe, steps: int, prompts=PROMPTS) -> torch.Tensor:
    return pipe(
        prompts,
        num_inference_steps=steps,
        guidance_scale=2.0,
        generator=[torch.Generator().manual_seed(i) for i in range(len(prompts))],
        output_type="latent",
    ).images


def test_the_error_is_what_the_applied_plan_draws(pipe, made):
    target = draw(pipe, 8)
    with made.applied(pipe) as summary:
        latents = draw(pipe, made.steps)
    error = (latents - target).norm() / target.norm()
    assert made.error == pytest.approx(error.item(), rel=1e-5)
    plain = (draw(pipe, 4) - target).norm() / target.norm()
    assert made.plain == pytest.approx(plain.item(), rel=1e-5)
    assert (1 - summary.flops_saved) * made.steps / 4 == pytest.approx(made.share)
    assert made.share <= 0.8 and made.most == 4
    assert "forward" not in vars(pipe.unet)


def test_the_best_number_of_steps_is_found_with_full_steps_alone(pipe):
    """Where light steps cost as much as full ones, fewer steps are all that is left."""

    class Dear(_Search):
        def cost(self, predictor, level=None):
            return {True: 1.0, False: 1.0}

    search = Dear(pipe, [PROMPT], 6, {"identity": IdentityAdaptor()}, 1, 0, {})
    found = search.run(0.5, 12)
    assert set(found.mask) == {"1"} and found.steps <= 3
    assert found.share == pytest.approx(found.steps / 6)
    target = search.draw(12)
    alone = [search.distance(search.draw(n), target) for n in (2, 3)]
    # Better than plain steps as they come, since time steps are moved.
    assert found.error < min(alone)
    assert "all of them full" in str(found) and "of 6 full steps" in str(found)


def test_a_plan_with_a_level_is_depth_skip_and_costs_what_it_says(pipe, made):
    search = _Search(pipe, [PROMPT], 4, {"identity": IdentityAdaptor()}, 1, 0, {})
    whole = search.cost("identity")
    levels = search.levels = search.cheaper()
    assert whole[True] == 1 and list(levels) == sorted(levels, reverse=True)
    costs = [1, *levels.values(), whole[False]]
    assert costs == sorted(costs, reverse=True) and len(costs) > 2
    level, cost = min(levels.items())
    choice = {"mask": "1011", "predictor": "identity", "timesteps": (), "level": level}
    other = Plan(**{**vars(made), **choice})
    with other.applied(pipe) as summary:
        found = draw(pipe, 4)
    with depth_skipped(pipe, level), clockwork(pipe, mask="1011"):
        assert torch.equal(draw(pipe, 4), found)
    search.shares = {"identity": whole[False]}
    run = summary.flops[True] * 3 + summary.flops[False]
    with clockwork(pipe) as plain:
        draw(pipe, 4)
    assert search.share("1011", "identity", level) == pytest.approx(
        run / (4 * plain.flops[True])
    )
    assert f"level: kept down to {level}" in str(other)


def test_time_steps_are_moved_one_by_one_where_that_helps(pipe):
    search = _Search(pipe, [PROMPT], 4, {"identity": IdentityAdaptor()}, 1, 0, {})
    search.target, search.budget = search.draw(12), 1.0
    search.shares = {"identity": 0.5}
    start = _Choice("1111", "identity")
    found = search.over_moves(start, 1.0)
    steps = search.grid(found) or search.own(4)
    assert steps[0] == search.own(4)[0]
    assert list(steps) == sorted(set(steps), reverse=True)
    assert search.error(found) <= search.error(start)
    assert len(search.known) > 4


def test_no_sweep_makes_it_worse_and_the_first_is_an_even_clock(made):
    errors = [sweep.error for sweep in made.sweeps]
    assert errors == sorted(errors, reverse=True)
    assert made.sweeps[0].timesteps == ()
    assert made.sweeps[0].predictor == "identity"
    assert errors[-1] == made.error < errors[0]
    tried = [sweep.tried for sweep in made.sweeps]
    assert tried[0] >= 2 and tried == sorted(tried)


def test_with_the_rest_fixed_no_mask_of_the_budget_is_better(pipe, made):
    """Unless the predictor was changed after the masks were tried for the last time."""
    target = draw(pipe, 8)
    steps, full = made.steps, made.mask.count("1")
    for light in itertools.combinations(range(1, steps), steps - full):
        mask = "".join("01"[index not in light] for index in range(steps))
        other = Plan(**{**vars(made), "mask": mask})
        with other.applied(pipe):
            error = (draw(pipe, steps) - target).norm() / target.norm()
        assert error.item() >= made.error * (1 - 1e-5)


def test_a_plan_is_saved_read_and_printed(made, tmp_path):
    made.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made
    shown = str(made)
    assert made.mask in shown
    assert f"sweep {len(made.sweeps) - 1}: {made.error:.4f}" in shown
    (tmp_path / "other.json").write_text('{"mask": "1010"}')
    with pytest.raises(ValueError, match=r"other.json is not a plan"):
        Plan.load(tmp_path / "other.json")


def test_sdxl_has_a_plan_too():
    pipe = sdxl()
    made = plan(pipe, [PROMPT], steps=3, budget=0.9, reference=5, choose=CHOSEN)
    with made.applied(pipe) as summary:
        pipe(PROMPT, num_inference_steps=made.steps, output_type="latent")
    assert (1 - summary.flops_saved) * made.steps / 3 == pytest.approx(made.share)


def test_calls_are_what_is_paid_for(pipe):
    """PNDM calls the UNet twice in its first step, which is full."""
    before = pipe.scheduler
    pipe.scheduler = PNDMScheduler(**NOISE, skip_prk_steps=True)
    try:
        chosen = ["mask", "predictor"]
        made = plan(pipe, [PROMPT], steps=3, budget=0.9, reference=4, choose=chosen)
        with made.applied(pipe) as summary:
            pipe(PROMPT, num_inference_steps=3, output_type="latent")
    finally:
        pipe.scheduler = before
    assert 1 - summary.flops_saved == pytest.approx(made.share)


def test_a_scheduler_with_time_steps_of_its_own_keeps_them(pipe):
    before = pipe.scheduler
    pipe.scheduler = UniPCMultistepScheduler(**NOISE)
    try:
        made = plan(pipe, [PROMPT], **{**SHORT, "steps": 3, "reference": 4})
    finally:
        pipe.scheduler = before
    assert made.timesteps == ()


def test_one_s_own_predictor_has_to_be_handed_over(pipe, made):
    own = Plan(**{**vars(made), "predictor": "mine"})
    with pytest.raises(ValueError, match="'mine' is not one of identity, extrapolat"):
        own.applied(pipe).__enter__()
    with own.applied(pipe, IdentityAdaptor()):
        first = draw(pipe, made.steps)
    same = Plan(**{**vars(made), "predictor": "identity"})
    with same.applied(pipe):
        assert torch.equal(draw(pipe, made.steps), first)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget": 0.01}, "a budget of 1.0% of 4 full steps does not pay for one"),
        ({"prompts": []}, "no prompts to plan for"),
    ],
)
def test_what_cannot_be_planned_is_refused(pipe, given, message):
    prompts = given.pop("prompts", [PROMPT])
    with pytest.raises(ValueError, match=message):
        plan(pipe, prompts, **{**SHORT, "reference": 2, **given})
    with clockwork(pipe), pytest.raises(ValueError, match="Clockwork is applied"):
        plan(pipe, [PROMPT], **SHORT)


def test_of_many_steps_the_spans_tell_the_mask(pipe, monkeypatch):
    """Where all masks are too many to measure, one is, and it is in the budget."""
    monkeypatch.setattr("clockwork_diffusion.plan.MEASURED", 1)
    search = _Search(pipe, [PROMPT], 4, {"identity": IdentityAdaptor()}, 1, 0, {})
    search.target, search.budget = search.draw(6), 0.75
    search.shares = {"identity": 0.5}
    best = _Choice("1100", "identity")
    found = search.over_masks(best)
    assert found.mask.count("1") == 2
    # The start, and the one that the spans have chosen, at most.
    assert len(search.known) <= 2


def test_the_command_writes_what_it_prints(pipe, tmp_path, monkeypatch, capsys):
    pipe.save_pretrained(tmp_path / "pipe")
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n\na blue square\n")
    words = [str(tmp_path / "pipe"), str(tmp_path / "prompts.txt"), "--steps", "2"]
    words += ["--budget", "0.9", "--reference", "3", "-o", str(tmp_path / "plan.json")]
    monkeypatch.setattr(sys, "argv", ["clockwork", "plan", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    made = Plan.load(tmp_path / "plan.json")
    assert (made.steps, made.prompts) == (2, 2)
    assert str(made) in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["clockwork", "plan", *words, "--precision", "x"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == app.BAD_INPUT
    assert "precision 'x' is not one of" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["clockwork", "plan", "nowhere", *words[1:]])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == app.BAD_INPUT
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("nowhere/model_index.json does not exist")
    )


def test_what_is_not_to_be_chosen_stays(pipe):
    short = {name: each for name, each in SHORT.items() if name != "choose"}
    made = plan(pipe, PROMPTS, **short, choose=["mask"])
    assert (made.predictor, made.timesteps) == ("identity", ())
    assert len({sweep.mask for sweep in made.sweeps}) <= 2
    moved = plan(pipe, PROMPTS, **short, choose=["time steps"])
    # Of weights that are random the scheduler's own time steps may be the best.
    assert moved.sweeps[1].tried > 1 and moved.predictor == "identity"
    assert moved.mask == moved.sweeps[0].mask
    fewer = plan(pipe, PROMPTS, **short, choose=["steps", "time steps"])
    assert "0" not in fewer.mask and fewer.steps < SHORT["steps"]
    for wrong in (["masks"], []):
        with pytest.raises(ValueError, match="is not some of steps, level, time"):
            plan(pipe, PROMPTS, **short, choose=wrong)


def test_a_plan_of_an_image_to_image_pipeline_sees_each_prompts_own_image():
    pipe = sd(StableDiffusionInstructPix2PixPipeline, unet={"in_channels": 8})
    images = list(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    asked = {"steps": 3, "budget": 0.9, "reference": 5, "images": images}
    asked |= {"choose": ["mask", "predictor"]}
    one = plan(pipe, PROMPTS, batch_size=1, **asked)
    both = plan(pipe, PROMPTS, batch_size=2, **asked)
    assert one.error == pytest.approx(both.error, rel=1e-3)
    swapped = plan(pipe, PROMPTS, **{**asked, "images": images[::-1]})
    assert swapped.plain != pytest.approx(both.plain, rel=1e-4)
    with pytest.raises(ValueError, match="1 images and 2 prompts are not one of each"):
        plan(pipe, PROMPTS, **{**asked, "images": images[:1]})
