"""The ladder of predictors: Taylor, affine, low rank, told the gap, on its own way."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
from bare import bare_pipeline
from diffusers import DDIMScheduler

from clockwork_diffusion import adaptor_training
from clockwork_diffusion.adaptor_error import error_of, held_out_error, last_full_steps
from clockwork_diffusion.adaptors import (
    KINDS,
    build_adaptor,
    extrapolate,
    is_fitted,
    load_adaptor,
)
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.contract import ages_of, check_adaptor
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.made_for import differences
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.predictors.taylor import TaylorAdaptor, taylor_weights
from clockwork_diffusion.trajectories import Trajectories
from clockwork_experiments.cost import estimates
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.train import distillation
from clockwork_experiments.train.distillation import AdaptorSpec, train_adaptor
from clockwork_experiments.train.training import Crew, Optimisation
from clockwork_experiments.train.trajectories import FreshTrajectories, TrajectorySpec

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipelines import NOISE, PROMPT, sd  # noqa: E402

CPU = torch.device("cpu")
CLOCK = Clock(2)
STEPS = 8


@pytest.fixture(scope="module")
def data() -> Trajectories:
    """Return trajectories of which r_in tells r_out in part."""
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    r_in = drawn(6, STEPS, 16, 4, 4)
    r_out = torch.einsum("nschw,cd->nsdhw", r_in, 0.3 * drawn(16, 32))
    r_out = r_out + 2 * drawn(6, 1, 32, 4, 4) + 0.1 * drawn(6, STEPS, 32, 4, 4) + 0.5
    times = drawn(STEPS, 64).expand(6, -1, -1)
    log_snr = torch.linspace(-4, 3, STEPS) ** 3
    return Trajectories(r_in, r_out, times, drawn(6, 8), log_snr)


def fitted(unet, data, rank=0, ridge=0.0, clocks=(CLOCK,), **more):
    kind = "low_rank" if rank else "affine"
    more |= {"rank": rank} if rank else {}
    adaptor = build_adaptor(kind, unet, "stage1", 8, **more)
    return adaptor.fit(data, clocks, ridge=ridge)


def squares(adaptor, data, clock=CLOCK) -> float:
    return held_out_error(adaptor, data, clock, CPU).mse


# Taylor


def test_order_1_is_the_extrapolation_where_steps_are_even():
    r_out = torch.randn(2, 3, 4, 5, 5)
    for ages in ([1.0, 3.0], [2.0, 3.0], [1.0, 5.0]):
        told = torch.tensor(ages)
        taylor = TaylorAdaptor(order=1)(None, r_out, None, None, told)
        # Log-SNR is then a multiple of steps.
        line = extrapolate(r_out, 0.37 * told)
        assert torch.allclose(taylor, line, atol=1e-6, rtol=0)


def test_order_1_differs_where_log_snr_is_uneven():
    r_out = torch.randn(2, 1, 4, 5, 5)
    taylor = TaylorAdaptor(order=1)(None, r_out, None, None, torch.tensor([1.0, 3.0]))
    line = extrapolate(r_out, torch.tensor([0.5, 3.0]))
    assert not torch.allclose(taylor, line, atol=1e-2)


def test_order_2_is_taylorseers_formula():
    newest, middle, oldest = torch.randn(3, 2, 4, 5, 5).double()
    ages = torch.tensor([2.0, 5.0, 6.0])
    slope = (newest - middle) / 3
    bend = (slope - (middle - oldest) / 1) / 3
    expected = newest + 2 * slope + 2**2 / 2 * bend
    stacked = torch.stack([newest, middle, oldest])
    found = TaylorAdaptor()(None, stacked, None, None, ages)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_missing_passes_lower_the_order(order):
    one = [2.0] * (order + 1)
    assert taylor_weights(torch.tensor(one)).tolist() == [1.0] + [0.0] * order
    two = torch.tensor([1.0, 3.0] + [3.0] * (order - 1))
    line = taylor_weights(torch.tensor([1.0, 3.0]))
    assert taylor_weights(two)[:2].tolist() == pytest.approx(line.tolist())
    assert float(taylor_weights(two).sum()) == pytest.approx(1)


def test_rows_may_have_ages_of_their_own():
    ages = torch.tensor([[1.0, 2.0], [3.0, 3.0], [5.0, 3.0]])
    found = taylor_weights(ages)
    for row in range(2):
        assert torch.equal(found[:, row], taylor_weights(ages[:, row]))


def test_an_order_below_1_and_other_histories_are_refused():
    with pytest.raises(ValueError, match="order 0 is less than 1"):
        TaylorAdaptor(order=0)
    with pytest.raises(ValueError, match="r_out of 3 full passes"):
        TaylorAdaptor()(None, torch.zeros(2, 1, 1, 1, 1), None, None, torch.ones(2))


@pytest.mark.parametrize("history", [1, 2, 3, 4])
def test_the_first_full_step_stands_for_the_missing(history):
    found = last_full_steps(Clock(2), torch.tensor([1, 3, 5, 7]), history)
    expected = [[0, 0, 0, 0], [2, 0, 0, 0], [4, 2, 0, 0], [6, 4, 2, 0]]
    assert torch.stack(found).T.tolist() == [row[:history] for row in expected]


@pytest.mark.parametrize("clock", [2, 3])
@pytest.mark.parametrize("kind", ["taylor", "affine", "resnet_gap"])
def test_sampling_tells_it_the_ages_that_training_does(kind, clock):
    pipe = sd(scheduler=DDIMScheduler(**NOISE))
    adaptor = build_adaptor(kind, pipe.unet, "stage1", 8, inputs=_inputs(kind)).eval()
    seen, told, call = [], [], adaptor.forward

    def noted(r_in, r_out, t_emb, text_emb=None, ages=None):
        assert len(r_out) == len(ages) == adaptor.history
        told.append(ages)
        return call(r_in, r_out, t_emb, text_emb, ages)

    adaptor.forward = noted
    from clockwork_diffusion.trajectories import Recorder

    recorder = Recorder(pipe, "stage1")
    call_pipe = {"num_inference_steps": 6, "output_type": "latent"}
    with recorder.recording():
        pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call_pipe)
    recorder.end_batch()
    data = recorder.take()
    with clockwork(pipe, clock=clock, adaptor=adaptor):
        pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call_pipe)
    seen, told = told, []
    for step in range(6):
        if step % clock:
            error_of(
                adaptor,
                data,
                torch.tensor([0]),
                torch.tensor([step]),
                Clock(clock),
                CPU,
            )
    assert len(seen) == len(told) == sum(step % clock > 0 for step in range(6))
    for mine, theirs in zip(seen, told, strict=True):
        assert mine.tolist() == pytest.approx(theirs[:, 0].tolist(), rel=1e-5)


def _inputs(kind: str) -> tuple[str, ...]:
    choice = kind == "resnet_gap"
    return ("r_in", "r_out") if choice else ("r_in", "r_out", "text")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can_be_called_as_it_says(unet, kind):
    adaptor = build_adaptor(kind, unet, "stage1", 8)
    check_adaptor(adaptor)
    told = {"extrapolation": "log_snr", "resnet_extrapolation": "log_snr"}
    told |= {"resnet_gap": "log_snr", "taylor": "steps"}
    told |= {"affine": "steps", "low_rank": "steps"}
    assert ages_of(adaptor) == told.get(kind)


def test_ages_in_something_else_are_refused():
    adaptor = TaylorAdaptor()
    adaptor.ages_in = "seconds"
    with pytest.raises(ValueError, match="'seconds' are not in one of log_snr, steps"):
        ages_of(adaptor)


# Affine and low rank


@pytest.mark.parametrize("rank", [0, 3])
def test_without_data_or_with_an_infinite_ridge_it_is_the_identity(unet, data, rank):
    none = dataclasses.replace(
        data, **{name: getattr(data, name)[:0] for name in ("r_in", "r_out", "t_emb")}
    )
    r_out = torch.randn(2, 6, 32, 4, 4)
    given = (data.r_in[:, 3], r_out, data.t_emb[:, 3], None, torch.tensor([1.0, 3.0]))
    for adaptor in (
        build_adaptor("low_rank", unet, "stage1", 8, rank=rank),
        fitted(unet, none, rank),
        fitted(unet, data, rank, math.inf),
    ):
        assert torch.equal(adaptor(*given), r_out[0])
    assert not torch.equal(fitted(unet, data, rank)(*given), r_out[0])


def test_what_it_was_not_fitted_for_is_left(unet, data):
    adaptor = fitted(unet, data)
    r_out, ages = torch.randn(2, 6, 32, 4, 4), torch.tensor([2.0, 4.0])
    for step, gap in ((3, 2.0), (2, 1.0), (3, 60.0)):
        ages = torch.tensor([gap, gap + 2])
        found = adaptor(None, r_out, data.t_emb[:, step], None, ages)
        assert torch.equal(found, r_out[0])


def test_the_affine_fit_is_least_squares(unet, data):
    adaptor = fitted(unet, data)
    # Step 3 is the second that a clock of 2 predicts, from steps 2 and 0.
    now, newest, oldest = (data.r_out[:, step] for step in (3, 2, 0))
    for channel in (0, 7, 31):
        x = torch.stack(
            [newest, (newest - oldest) / 2, torch.ones_like(newest)], dim=-1
        )[:, channel].reshape(-1, 3)
        y = (now - newest)[:, channel].reshape(-1, 1)
        expected = torch.linalg.lstsq(x.double(), y.double()).solution[:, 0]
        assert adaptor.affine[2, :, channel].tolist() == pytest.approx(
            expected.tolist(), abs=1e-5
        )


def test_ridge_is_that_many_samples_of_the_identity(unet, data):
    ridge = 50.0
    adaptor = fitted(unet, data, ridge=ridge)
    now, newest, oldest = (data.r_out[:, step, 4].flatten() for step in (3, 2, 0))
    x = torch.stack([newest, (newest - oldest) / 2, torch.ones_like(newest)]).double()
    size = x.square().mean(dim=1).sqrt()
    x = torch.cat([(x.T / size), math.sqrt(ridge) * torch.eye(3).double()])
    y = torch.cat([(now - newest).double(), torch.zeros(3).double()])
    expected = torch.linalg.lstsq(x, y[:, None]).solution[:, 0] / size
    found = adaptor.affine[2, :, 4].tolist()
    assert found == pytest.approx(expected.tolist(), abs=1e-5)


def test_full_rank_is_least_squares_of_all_channels(unet, data):
    adaptor = fitted(unet, data, rank=32)
    now, newest, oldest = (data.r_out[:, step] for step in (3, 2, 0))
    seen = torch.cat([newest, (newest - oldest) / 2, data.r_in[:, 3]], dim=1)
    x = seen.movedim(1, -1).flatten(0, -2).double()
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    y = (now - newest).movedim(1, -1).flatten(0, -2).double()
    best = x @ torch.linalg.lstsq(x, y).solution
    rows, steps = torch.arange(6), torch.full((6,), 3)
    error = error_of(adaptor, data, rows, steps, Clock(2), CPU)
    left = (y - best).square().sum()
    assert float(error.square().sum()) == pytest.approx(float(left), rel=1e-4)


@pytest.mark.parametrize("ridge", [0.0, 20.0])
def test_each_kind_fits_as_well_as_the_simpler_one(unet, data, ridge):
    identity = squares(build_adaptor("affine", unet, "stage1", 8), data)
    errors = [squares(fitted(unet, data, rank, ridge), data) for rank in (0, 1, 4, 32)]
    assert errors == sorted(errors, reverse=True) and errors[0] < identity
    assert errors[-1] < 0.5 * errors[0]
    # The line through the last two full passes is among the affine maps.
    line = squares(build_adaptor("extrapolation", unet, "stage1", 8), data)
    assert errors[0] < line or ridge


def test_a_low_rank_map_is_of_its_rank_and_the_best(unet, data):
    whole, part = (fitted(unet, data, rank, 5.0) for rank in (32, 3))
    maps = [(each.down @ each.up)[2].double() for each in (whole, part)]
    assert int(torch.linalg.matrix_rank(maps[1], rtol=1e-5)) == 3
    # No other projection of the whole map onto 3 directions leaves less.
    errors = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(32, 3, generator=generator)).Q
        other = fitted(unet, data, 3, 5.0)
        with torch.no_grad():
            other.down.copy_(whole.down @ whole.up @ basis)
            other.up.copy_(basis.T.expand_as(other.up))
        errors.append(squares(other, data))
    assert squares(part, data) < min(errors)


def test_several_clocks_share_what_they_have_in_common(unet, data):
    adaptor = fitted(unet, data, clocks=(Clock(2), Clock(3)))
    expected = [[1, 1], [2, 2], [3, 1], [4, 1], [5, 1], [5, 2], [7, 1]]
    assert adaptor.config.fitted == expected
    identity = build_adaptor("affine", unet, "stage1", 8)
    assert squares(adaptor, data, Clock(3)) < squares(identity, data, Clock(3))


@pytest.mark.parametrize("rank", [0, 3])
def test_a_fit_is_saved_and_loaded_whole(unet, data, tmp_path, rank):
    adaptor = fitted(unet, data, rank)
    adaptor.half().save_pretrained(tmp_path)
    loaded = load_adaptor(tmp_path)
    assert squares(loaded, data) == squares(adaptor.float(), data)
    assert loaded.config.fitted == [[1, 1], [3, 1], [5, 1], [7, 1]]
    assert loaded.inputs == (("r_in", "r_out") if rank else ("r_out",))


def test_bad_maps_are_refused(unet, data):
    with pytest.raises(ValueError, match="rank 33 is not from 0 to 32"):
        build_adaptor("low_rank", unet, "stage1", 8, rank=33)
    with pytest.raises(ValueError, match="kind 'affine' has rank 0"):
        build_adaptor("affine", unet, "stage1", 8, rank=2)
    with pytest.raises(ValueError, match="needs r_out"):
        build_adaptor("low_rank", unet, "stage1", 8, inputs=("r_in",), rank=2)
    with pytest.raises(ValueError, match="ridge -1"):
        fitted(unet, data, ridge=-1)


def test_what_is_fitted_is_told_apart():
    assert {kind for kind in KINDS if is_fitted(kind)} == set(estimates.FITTED)


def spec_of(kind: str, **more) -> AdaptorSpec:
    recipe = Optimisation(steps=10, batch_size=4, lr=1e-3)
    clock = more.pop("clock", 2)
    return AdaptorSpec(kind, "stage1", clock, recipe, **more)


def test_the_training_fits_what_is_fitted(unet, data, tmp_path):
    adaptor = build_adaptor("low_rank", unet, "stage1", 8, rank=4)
    spec = spec_of("low_rank", rank=4, ridge=1.0)
    trained = train_adaptor(adaptor, data, spec, tmp_path / "state", CPU)
    expected = held_out_error(fitted(unet, data, 4, 1.0), data, 2, CPU).l2
    assert [loss for _, loss in trained.history] == pytest.approx([expected])
    assert not (tmp_path / "state").exists()
    every = spec_of("affine", clock=1, every_step=True, inputs=("r_in",))
    with pytest.raises(ValueError, match="is fitted: it needs a clock"):
        train_adaptor(fitted(unet, data), data, every, tmp_path / "state", CPU)


def test_a_user_fits_one_in_a_call(tmp_path):
    pipe = sd(scheduler=DDIMScheduler(**NOISE))
    captions = [f"{word} {PROMPT}" for word in ("a", "red", "ring", "on")]
    short = {"steps": 4, "guidance_scale": 3.0, "held_out": 1, "captions_at_once": 1}
    adaptor = adaptor_training.train_adaptor(
        pipe, captions, tmp_path / "mine", kind="low_rank", rank=2, **short
    )
    assert adaptor.config.rank == 2 and adaptor.config.fitted == [[1, 1], [3, 1]]
    assert "| rank | 2 |" in (tmp_path / "mine/README.md").read_text("utf-8")
    call = {"num_inference_steps": 4, "output_type": "latent", "guidance_scale": 3.0}
    images = []
    for chosen in (adaptor, None):
        with clockwork(pipe, clock=2, adaptor=chosen) as summary:
            generator = torch.Generator().manual_seed(0)
            images.append(pipe(PROMPT, generator=generator, **call).images)
        assert summary.light_steps == (2, 4)
    assert torch.isfinite(images[0]).all() and not torch.equal(*images)


# Told the gap


def test_it_is_told_the_gap(unet, data):
    torch.manual_seed(0)
    adaptor = build_adaptor("resnet_gap", unet, "stage1", 8)
    torch.nn.init.normal_(adaptor.up.weight)
    given = data.r_in[:, 3], data.r_out[None, :, 2], data.t_emb[:, 3], data.pooled
    near, far = (adaptor(*given, torch.tensor([age])) for age in (0.5, 1.0))
    assert not torch.allclose(near, far)
    each = adaptor(*given, torch.tensor([[0.5, 1.0, 0.5, 1.0, 0.5, 1.0]]))
    assert torch.allclose(each[0], near[0], atol=1e-5)
    assert torch.allclose(each[1], far[1], atol=1e-5)
    with pytest.raises(ValueError, match="needs r_out of the last full pass"):
        adaptor(*given)


def test_pairs_have_any_gap_and_several_numbers_of_steps(data):
    short = dataclasses.replace(
        data,
        **{name: getattr(data, name)[:, :4] for name in ("r_in", "r_out", "t_emb")},
        log_snr=data.log_snr[:4],
    )
    spec = spec_of("resnet_gap", also_clocks=(3, 4))
    pairs = distillation._Pairs([data, short], spec, Crew())
    seen = set()
    for step in range(200):
        batch = pairs.share_of_step(step)
        (fulls,) = batch.fulls
        assert fulls.min() >= 0 and batch.steps.max() < batch.data.steps
        gaps = (batch.steps - fulls).tolist()
        seen |= {
            (batch.data.steps, *pair) for pair in zip(fulls.tolist(), gaps, strict=True)
        }
    assert seen == {
        (steps, full, gap)
        for steps in (8, 4)
        for gap in (1, 2, 3)
        for full in range(steps - gap)
    }
    halves = [distillation._Pairs([data, short], spec, Crew(n, 2)) for n in (0, 1)]
    parts = [each.share_of_step(3) for each in halves]
    whole = pairs.share_of_step(3)
    assert torch.equal(torch.cat([part.steps for part in parts]), whole.steps)
    assert torch.equal(torch.cat([part.fulls[0] for part in parts]), whole.fulls[0])


def test_one_adaptor_learns_all_clocks_and_resumes(unet, data, tmp_path, monkeypatch):
    recipe = Optimisation(steps=60, batch_size=8, lr=3e-3)
    spec = AdaptorSpec("resnet_gap", "stage1", 2, recipe, also_clocks=(3, 4))
    every = slice(None, None, 2)
    half = dataclasses.replace(
        data,
        **{name: getattr(data, name)[:, every] for name in ("r_in", "r_out", "t_emb")},
        log_snr=data.log_snr[every],
    )

    def run(state: str):
        torch.manual_seed(3)
        adaptor = build_adaptor("resnet_gap", unet, "stage1", 8)
        train_adaptor(adaptor, data, spec, tmp_path / state, CPU, also=[half])
        return adaptor

    whole = run("whole")
    identity = build_adaptor("resnet_gap", unet, "stage1", 8)
    for clock in (2, 3, 4):
        assert squares(whole, data, Clock(clock)) < squares(
            identity, data, Clock(clock)
        )
        assert squares(whole, half, Clock(2)) < squares(identity, half, Clock(2))
    measure, calls = distillation.error_of, []

    def killed(*arguments):
        calls.append(None)
        if len(calls) == 32:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(distillation, "error_of", killed)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    resumed = run("killed").state_dict()
    assert 32 < len(calls) < 92
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed[name]), name


def test_other_kinds_are_for_one_clock_and_number_of_steps(unet, data, tmp_path):
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    state = tmp_path / "state"
    with pytest.raises(ValueError, match="is for one number of steps"):
        train_adaptor(adaptor, data, spec_of("resnet"), state, CPU, also=[data])
    spec = spec_of("resnet", also_clocks=(3,))
    with pytest.raises(ValueError, match="is for one clock"):
        train_adaptor(adaptor, data, spec, state, CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"on_policy": True}, "on_policy needs epochs"),
        ({"also_clocks": (1,)}, "not all above 1"),
        (
            {"also_clocks": (3,), "clock": 1, "adaptor_steps": (2,)},
            "need a clock above",
        ),
    ],
)
def test_bad_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        spec_of("resnet", **change)


def test_what_is_for_several_is_for_each_of_them(unet):
    made_for = spec_of("resnet_gap", also_clocks=(3, 4)).made_for(
        "m", "ddim", 8, also_steps=(4,)
    )
    adaptor = build_adaptor("resnet_gap", unet, "stage1", 8, made_for=made_for)
    assert made_for["clock"] == [2, 3, 4] and made_for["steps"] == [4, 8]
    assert not differences(adaptor, {"clock": 3, "steps": 4})
    assert "clock [2, 3, 4]" in differences(adaptor, {"clock": 5})
    assert "steps [4, 8]" in differences(adaptor, {"steps": 6})


# On its own trajectories

TEXTS = ["a red ring", "a blue star", "a green square", "a white moon"]


def fresh_of(unet, scheduler_config) -> FreshTrajectories:
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(4, 5, 24, generator=generator)
    pooled = torch.randn(4, 8, generator=generator)
    empty = torch.randn(1, 5, 24, generator=generator), torch.zeros(1, 8)

    def encode(texts):
        rows = [TEXTS.index(each) for each in texts]
        return Prompts(text[rows], empty[0], pooled[rows], empty[1])

    spec = TrajectorySpec(SamplerSpec("dpmpp", 6, 3.0), "stage1", 0, 4, "float32")
    pipe = bare_pipeline(unet, scheduler_config)
    return FreshTrajectories(pipe, encode, TEXTS, spec, 3)


@pytest.mark.parametrize("clock", [2, 3])
def test_its_own_trajectories_are_those_of_the_clock(unet, scheduler_config, clock):
    fresh = fresh_of(unet, scheduler_config)
    torch.manual_seed(0)
    adaptor = build_adaptor("resnet", unet, "stage1", 8).requires_grad_(False)
    teachers = fresh.of_epoch(0)
    untrained = fresh.of_epoch(0, None, (adaptor, Clock(clock)))
    torch.nn.init.normal_(adaptor.up.weight, std=0.05)
    own = fresh.of_epoch(0, None, (adaptor, Clock(clock)))
    light = [step for step in range(6) if step % clock]
    full = [step for step in range(6) if not step % clock]
    # Up to the first light step it sees what the teacher sees; then it goes astray.
    assert torch.equal(own.r_out[:, :2], teachers.r_out[:, :2])
    assert not torch.equal(own.r_out[:, 2:], teachers.r_out[:, 2:])
    assert not torch.equal(own.r_out[:, 2:], untrained.r_out[:, 2:])
    # What the next step finds is r_out of full steps, and estimates of light ones.
    assert torch.equal(own.left[:, full], own.r_out[:, full])
    for step in light:
        found = adaptor(
            own.r_in[:, step], own.left[:, step - 1], own.t_emb[:, step], own.pooled
        )
        assert torch.allclose(found, own.left[:, step], atol=1e-4), step
    rows, at = torch.arange(6), torch.full((6,), 2)
    picked = own.pick(rows, at, [at - 1], CPU)
    assert torch.equal(picked.r_out, own.r_out[:, 2])
    assert torch.equal(picked.earlier[0], own.left[:, 1])


def test_a_policy_is_recorded_as_features_from_noise(unet, scheduler_config):
    fresh = fresh_of(unet, scheduler_config)
    latents = dataclasses.replace(fresh.spec, stored="latents")
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    with pytest.raises(ValueError, match="a policy needs source 'unroll'"):
        dataclasses.replace(fresh, spec=latents).of_epoch(0, None, (adaptor, Clock(2)))


def test_on_policy_each_epoch_is_its_own_and_it_resumes(
    unet, scheduler_config, tmp_path, monkeypatch
):
    fresh = fresh_of(unet, scheduler_config)
    spec = spec_of("resnet", epochs=2, on_policy=True)
    record, acting = FreshTrajectories.of_epoch, []

    def noted(self, epoch, part=None, policy=None):
        acting.append((epoch, policy[0].up.weight.clone(), policy[1]))
        return record(self, epoch, part, policy)

    monkeypatch.setattr(FreshTrajectories, "of_epoch", noted)

    def run(state: str):
        torch.manual_seed(3)
        adaptor = build_adaptor("resnet", unet, "stage1", 8)
        trained = train_adaptor(adaptor, fresh, spec, tmp_path / state, CPU)
        assert trained.module is adaptor
        return adaptor.state_dict()

    whole = run("whole")
    (_, first, clock), (_, second, _) = acting
    assert clock == Clock(2) and not first.any() and second.any()
    assert not torch.equal(second, whole["up.weight"])
    measure, calls = distillation.error_of, []

    def killed(*arguments):
        calls.append(None)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(distillation, "error_of", killed)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    resumed = run("killed")
    # It went on within the second epoch, which it recorded with what it was then.
    assert len(calls) == 8 + 3
    epoch, again, _ = acting[-1]
    assert epoch == 1 and torch.equal(again, second)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
