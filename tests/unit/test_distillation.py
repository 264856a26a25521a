import dataclasses
import json
from argparse import Namespace

import pytest
import torch
from bare import bare_pipeline

from clockwork_diffusion.adaptor_error import adaptor_steps, held_out_error
from clockwork_diffusion.adaptors import (
    ExtrapolationAdaptor,
    IdentityAdaptor,
    build_adaptor,
    load_adaptor,
)
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.made_for import check_made_for
from clockwork_diffusion.passes import Memory, Passes
from clockwork_diffusion.trajectories import Trajectories
from clockwork_diffusion.unet import SplitUNet, Step
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.steps import sample_trajectories
from clockwork_experiments.steps import train_adaptor as step
from clockwork_experiments.train import distillation
from clockwork_experiments.train.distillation import (
    AdaptorSpec,
    train_adaptor,
)
from clockwork_experiments.train.training import Crew, Optimisation, generator_for
from clockwork_experiments.train.trajectories import (
    FreshTrajectories,
    TrajectorySpec,
    constants,
    join,
    read_trajectories,
    time_embeddings,
    unroll,
)

SPEC = TrajectorySpec(SamplerSpec("dpmpp", 4, 3.0), "stage1", 0, 4, "float32")
CPU = torch.device("cpu")


@pytest.fixture
def shard(unet, scheduler_config) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    prompts = Prompts(
        torch.randn(6, 5, 24, generator=generator),
        torch.randn(1, 5, 24, generator=generator),
        torch.randn(6, 8, generator=generator),
        torch.randn(1, 8, generator=generator),
    )
    pipe = bare_pipeline(unet, scheduler_config)
    tensors = unroll(pipe, prompts, SPEC, first=0)
    timesteps = torch.tensor([999, 749, 500, 250])
    tensors["log_snr"] = torch.arange(4.0)
    tensors["t_emb"] = time_embeddings(unet, timesteps, prompts.text)
    return tensors


def data_of(shard: dict[str, torch.Tensor]) -> Trajectories:
    return join([shard])


def test_shapes(shard):
    assert shard["r_in"].shape == (6, 2, 4, 16, 8, 8)
    assert shard["r_out"].shape == (6, 2, 4, 32, 8, 8)
    assert shard["pooled"].shape == (6, 2, 8)
    assert shard["t_emb"].shape == (4, 64)
    # The empty prompt's branch comes first, and its embedding is everybody's.
    assert torch.equal(shard["pooled"][0, 0], shard["pooled"][5, 0])
    assert not torch.equal(shard["pooled"][0, 1], shard["pooled"][5, 1])


def test_a_batch_in_two_parts_is_the_same(unet, scheduler_config, shard):
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(6, 5, 24, generator=generator)
    empty = torch.randn(1, 5, 24, generator=generator)
    pooled = torch.randn(6, 8, generator=generator)
    prompts = Prompts(text, empty, pooled, torch.randn(1, 8, generator=generator))
    part = unroll(bare_pipeline(unet, scheduler_config), prompts[4:], SPEC, first=4)
    torch.testing.assert_close(part["r_out"], shard["r_out"][4:], rtol=0, atol=1e-4)


def test_the_clock_decides_which_steps_are_learned():
    assert adaptor_steps(Clock(2), 8).tolist() == [1, 3, 5, 7]
    assert adaptor_steps(Clock(4), 8).tolist() == [1, 2, 3, 5, 6, 7]
    with pytest.raises(ValueError, match="has no adaptor step"):
        adaptor_steps(Clock(2), 1)


def test_training_beats_identity_and_identity_is_measured_right(unet, shard, tmp_path):
    data = data_of(shard)
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    before = held_out_error(adaptor, data, 2, CPU)
    # Untrained, it is the identity exactly.
    assert before.l2 == pytest.approx(before.identity_l2)
    rows = data.r_out[:, [1, 3]] - data.r_out[:, [0, 2]]
    assert before.identity_l2 == pytest.approx(
        float(rows.flatten(2).norm(dim=2).mean()), rel=1e-5
    )
    assert before.n == 6 * 2 * 2
    recipe = Optimisation(steps=60, batch_size=8, lr=2e-3)
    spec = AdaptorSpec("resnet", "stage1", 2, recipe)
    trained = train_adaptor(adaptor, data, spec, tmp_path / "state.pt", CPU)
    after = held_out_error(trained.module, data, 2, CPU)
    assert after.l2 < 0.7 * before.l2


def test_identity_scores_as_identity(shard):
    error = held_out_error(IdentityAdaptor(), data_of(shard), 2, CPU)
    assert error.l2 == pytest.approx(error.identity_l2)
    assert error.to_json()["mse_over_identity"] == pytest.approx(1.0)


def test_shards_of_another_teacher_or_damaged_are_refused(shard, tmp_path):
    path = tmp_path / "000.safetensors"
    storage.write_tensors(path, shard, {"teacher": "one"})
    assert read_trajectories([path], "one").r_in.shape == (12, 4, 16, 8, 8)
    with pytest.raises(ValueError, match=r"000\.safetensors is of another teacher"):
        read_trajectories([path], "two")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"000\.safetensors is corrupt or truncated"):
        read_trajectories([path], "one")


def test_a_clocked_teacher_is_refused():
    with pytest.raises(ValueError, match="clock 2: the teacher runs in full"):
        TrajectorySpec(SamplerSpec("dpmpp", 4, 3.0, clock=2), "stage1", 0, 4)


def test_adaptors_are_saved_and_loaded(unet, tmp_path):
    adaptor = build_adaptor("resnet", unet, "stage2", 8, made_for={"steps": 8})
    torch.nn.init.normal_(adaptor.up.weight)
    adaptor.save_pretrained(tmp_path)
    loaded = load_adaptor(tmp_path)
    assert loaded.config.cut == "stage2"
    assert loaded.config.made_for == {"steps": 8}
    assert torch.equal(loaded.up.weight, adaptor.up.weight)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is corrupt or truncated"):
        load_adaptor(tmp_path)


def test_odd_sizes_are_kept(unet):
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    r_in, r_out = torch.randn(1, 16, 9, 7), torch.randn(1, 32, 9, 7)
    estimate = adaptor(r_in, r_out, torch.randn(1, 64), torch.randn(1, 8))
    assert torch.equal(estimate, r_out)


def test_unknown_kinds_are_refused(unet):
    with pytest.raises(ValueError, match="kind 'magic' is not one of identity, resnet"):
        build_adaptor("magic", unet, "stage1", 8)


# --- which steps are learned ---------------------------------------------------------

RECIPE = Optimisation(steps=3, batch_size=4, lr=1e-3)


class Seen(torch.nn.Module):
    """An adaptor that remembers what it was called with."""

    history = 1

    def __init__(self, inputs: tuple[str, ...] = ("r_in", "r_out", "text")) -> None:
        super().__init__()
        self.inputs = inputs
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.calls: list[tuple] = []

    def forward(self, r_in, r_out, t_emb, text_emb):
        self.calls.append((r_in, r_out, t_emb, text_emb))
        like = r_in.repeat_interleave(2, dim=1) if r_out is None else r_out
        return self.scale * like


def numbered(prompts: int = 3, branches: int = 2, steps: int = 4) -> Trajectories:
    """Return trajectories in which every number says its row and step."""
    rows = prompts * branches
    value = torch.arange(rows)[:, None] * 100.0 + torch.arange(steps)
    value = value[:, :, None, None, None]
    return Trajectories(
        r_in=value.expand(-1, -1, 16, 2, 2) + 0.25,
        r_out=value.expand(-1, -1, 32, 2, 2).clone(),
        pooled=torch.arange(rows)[:, None].expand(-1, 8) * 100.0,
        t_emb=torch.arange(steps)[:, None].expand(rows, -1, 64) * 1.0,
        log_snr=torch.arange(steps).float(),
    )


def steps_seen(adaptor: Seen) -> set[int]:
    return {int(t) for _, _, t_emb, _ in adaptor.calls for t in t_emb[:, 0]}


def check_calls(adaptor: Seen) -> None:
    """Each sample is one row at one step, and r_out that of the step before."""
    for r_in, r_out, t_emb, pooled in adaptor.calls:
        now = pooled[:, 0] + t_emb[:, 0]
        assert torch.equal(r_in[:, 0, 0, 0], now + 0.25)
        if r_out is not None:
            assert torch.equal(r_out[:, 0, 0, 0], now - 1)


@pytest.mark.parametrize(
    ("chosen", "learned"),
    [
        ({"clock": 2}, {1, 3}),
        ({"clock": 4}, {1, 2, 3}),
        ({"clock": 1, "adaptor_steps": (3, 4)}, {2, 3}),
        ({"clock": 1, "adaptor_steps": (2,)}, {1}),
        ({"clock": 1, "every_step": True, "inputs": ("r_in", "text")}, {0, 1, 2, 3}),
    ],
)
def test_training_and_measuring_see_the_chosen_steps_alone(tmp_path, chosen, learned):
    recipe = dataclasses.replace(RECIPE, steps=20)
    spec = AdaptorSpec("resnet", "stage1", optimisation=recipe, **chosen)
    adaptor = Seen(spec.inputs)
    train_adaptor(adaptor, numbered(), spec, tmp_path / "state.pt", CPU)
    assert steps_seen(adaptor) == learned
    check_calls(adaptor)
    adaptor.calls.clear()
    error = held_out_error(adaptor, numbered(), spec.schedule, CPU)
    assert steps_seen(adaptor) == learned
    check_calls(adaptor)
    assert error.n == len(learned) * 6
    # Every number grows by 1 a step, in 32 channels of 2 by 2.
    assert error.identity_mse == pytest.approx(1)
    assert error.identity_l2 == pytest.approx(128**0.5)
    assert all((call[1] is None) == spec.every_step for call in adaptor.calls)


def test_the_first_step_is_never_given_the_last(tmp_path):
    spec = AdaptorSpec("resnet", "stage1", 1, RECIPE, ("r_in",), every_step=True)
    with pytest.raises(ValueError, match="the adaptor's inputs are r_in, r_out, text"):
        train_adaptor(Seen(), numbered(), spec, tmp_path / "state.pt", CPU)
    with pytest.raises(ValueError, match="first step has no previous r_out"):
        held_out_error(Seen(), numbered(), None, CPU)


def test_model_distillation_learns_the_first_step(unet, shard, tmp_path):
    data = data_of(shard)
    torch.manual_seed(0)
    inputs = ("r_in", "text")
    adaptor = build_adaptor("resnet", unet, "stage1", 8, inputs=inputs)
    before = held_out_error(adaptor, data, None, CPU)
    recipe = Optimisation(steps=60, batch_size=8, lr=2e-3)
    spec = AdaptorSpec("resnet", "stage1", 1, recipe, inputs, every_step=True)
    trained = train_adaptor(adaptor, data, spec, tmp_path / "state.pt", CPU)
    after = held_out_error(trained.module, data, None, CPU)
    assert after.n == 6 * 2 * 4
    assert after.l2 < 0.8 * before.l2
    drift = (data.r_out[:, 1:] - data.r_out[:, :-1]).flatten(2).norm(dim=2).mean()
    assert after.identity_l2 == pytest.approx(float(drift), rel=1e-5)


def test_the_default_spec_trains_as_it_always_did(unet, shard, tmp_path):
    """The published adaptors depend on these batches and this order of random draws."""
    data = data_of(shard)
    torch.manual_seed(1)
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    torch.manual_seed(1)
    expected = build_adaptor("resnet", unet, "stage1", 8)
    spec = AdaptorSpec("resnet", "stage1", 2, RECIPE)
    train_adaptor(adaptor, data, spec, tmp_path / "state.pt", CPU)
    optimizer = torch.optim.Adam(expected.parameters(), lr=RECIPE.lr)
    for number in range(RECIPE.steps):
        generator = generator_for(RECIPE.seed, number)
        rows = torch.randint(12, (4,), generator=generator)
        now = torch.tensor([1, 3])[torch.randint(2, (4,), generator=generator)]
        estimate = expected(
            data.r_in[rows, now],
            data.r_out[rows, now - 1],
            data.t_emb[0, now],
            data.pooled[rows],
        )
        loss = (data.r_out[rows, now] - estimate).flatten(1).norm(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in expected.state_dict().items():
        assert torch.equal(adaptor.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("clock", "mse"),
    [
        # Features that change linearly are continued exactly from two full passes; with
        # one, the estimate is as far off as that pass is old.
        (2, [1, 0, 0, 0]),
        (4, [1, 4, 9, 0, 0, 0]),
        (Clock(adaptor_steps=(4, 5, 8)), [0, 0, 0]),
        (Clock(adaptor_steps=(2, 3, 8)), [1, 4, 0]),
    ],
)
def test_extrapolation_is_measured_on_the_last_two_full_passes(clock, mse):
    error = held_out_error(ExtrapolationAdaptor(), numbered(steps=8), clock, CPU)
    assert error.mse == pytest.approx(sum(mse) / len(mse), abs=1e-6)


@pytest.mark.parametrize("kind", ["identity", "extrapolation"])
def test_what_has_no_weights_is_not_trained(unet, tmp_path, kind):
    adaptor = build_adaptor(kind, unet, "stage1", 8)
    spec = AdaptorSpec(kind, "stage1", 2, RECIPE)
    with pytest.raises(ValueError, match=f"kind '{kind}' has nothing to train"):
        train_adaptor(adaptor, numbered(), spec, tmp_path / "state.pt", CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clock": 1}, "give one of a clock above 1, adaptor steps and every_step"),
        ({"adaptor_steps": [2]}, r"not clock 2, adaptor steps \[2\] and every_step f"),
        ({"every_step": True, "inputs": ["r_in"]}, "not clock 2, .* every_step true"),
        ({"clock": 1, "every_step": True}, "every_step needs inputs without r_out"),
        ({"clock": 0}, "clock 0 is less than 1"),
        ({"clock": 1, "adaptor_steps": [1, 3]}, "adaptor step 1 is less than 2"),
        ({"inputs": []}, "hold neither r_in nor r_out"),
        ({"inputs": ["r_in", "time"]}, "input 'time' is not one of r_in, r_out, text"),
    ],
)
def test_bad_specs_are_refused(change, message):
    good = {
        "kind": "resnet",
        "cut": "stage1",
        "clock": 2,
        "optimisation": {"steps": 3, "batch_size": 4, "lr": 0.001},
    }
    assert parse(AdaptorSpec, good).inputs == ("r_in", "r_out", "text")
    with pytest.raises(ValueError, match=message):
        parse(AdaptorSpec, {**good, **change})


def test_an_adaptor_step_beyond_the_last_is_refused(tmp_path):
    spec = AdaptorSpec("resnet", "stage1", 1, RECIPE, adaptor_steps=(2, 9))
    with pytest.raises(ValueError, match="adaptor step 9 is beyond the 4 steps"):
        train_adaptor(Seen(), numbered(), spec, tmp_path / "state.pt", CPU)


# --- a loss that is not finite -------------------------------------------------------


def poisoned(prompt: int) -> Trajectories:
    data = numbered()
    data.r_out[2 * prompt + 1, 1] = torch.nan
    return data


def first_step_with(row: int, spec: AdaptorSpec) -> tuple[int, list[int]]:
    """Return the first optimiser step whose batch holds a row at step index 1."""
    for number in range(spec.optimisation.steps):
        generator = generator_for(spec.optimisation.seed, number)
        rows = torch.randint(6, (2,), generator=generator)
        picked = torch.randint(2, (2,), generator=generator)
        if ((rows == row) & (picked == 0)).any():
            return number, rows.tolist()
    raise AssertionError


@pytest.mark.parametrize("look", ["in the step", "in fit"])
@pytest.mark.parametrize("named", [False, True])
def test_nan_names_its_step_and_batch(tmp_path, monkeypatch, look, named):
    recipe = Optimisation(steps=1000, batch_size=2, lr=1e-4)
    spec = AdaptorSpec("resnet", "stage1", 2, recipe)
    number, rows = first_step_with(3, spec)
    assert number > 2
    prompts = ["a red ring", 'a "blue" star', "a moon"] if named else None
    state = tmp_path / "state.pt"
    if look == "in fit":
        # As on a GPU, whose loss is looked at now and then.
        monkeypatch.setattr(
            "clockwork_experiments.train.distillation._every", lambda _: 10**9
        )
    with pytest.raises(ValueError) as caught:
        train_adaptor(Seen(), poisoned(1), spec, state, CPU, prompts=prompts)
    message = str(caught.value)
    assert message.startswith(f"adaptor: the loss is not finite at step {number}, of ")
    if named:
        texts = [json.dumps(prompts[row // 2]) for row in sorted(set(rows))]
        expected = f"prompts {', '.join(dict.fromkeys(texts))}"
    else:
        expected = f"trajectories {', '.join(map(str, sorted(set(rows))))}"
    assert message.endswith(expected)
    assert not state.exists()


def test_prompts_of_other_trajectories_are_refused(tmp_path):
    spec = AdaptorSpec("resnet", "stage1", 2, RECIPE)
    arguments = (Seen(), numbered(), spec, tmp_path / "state.pt", CPU)
    with pytest.raises(ValueError, match="4 prompts do not fit 6 trajectories"):
        train_adaptor(*arguments, prompts=["a", "b", "c", "d"])
    train_adaptor(*arguments, prompts=["a", "b", "c"])


# --- the step ------------------------------------------------------------------------

TRAJECTORY = {
    "sampler": {"scheduler": "ddim", "steps": 4, "guidance": 3.0},
    "cut": "stage1",
    "seed": 1,
    "batch_size": 2,
}


@pytest.fixture
def arguments(root, tmp_path):
    model = root / "resources" / "mini" / "stable-diffusion"
    generator = torch.Generator().manual_seed(2)
    tensors = {
        "r_in": torch.randn(2, 2, 4, 32, 8, 8, generator=generator),
        "r_out": torch.randn(2, 2, 4, 64, 8, 8, generator=generator),
        "pooled": torch.zeros(2, 2, 64),
        "t_emb": torch.zeros(4, 128),
        "log_snr": torch.arange(4.0),
    }
    notes = {"teacher": storage.sha256_folder(model), "spec": json.dumps(TRAJECTORY)}
    shard = tmp_path / "shard.safetensors"
    storage.write_tensors(shard, tensors, notes)
    storage.write_json(tmp_path / "prompts.json", ["a red ring", "a blue star"])
    spec = {
        "kind": "unet_light",
        "cut": "stage1",
        "clock": 2,
        "optimisation": {"steps": 2, "batch_size": 2, "lr": 0.001},
    }
    return {
        "spec": spec,
        "model": model,
        "train": [shard],
        "heldout": [shard],
        "prompts": tmp_path / "prompts.json",
        "state": tmp_path / "state.pt",
        "output": tmp_path / "adaptor",
        "error": tmp_path / "error.json",
        "curve": tmp_path / "curve.csv",
    }


def train(arguments, **changes) -> None:
    spec = json.dumps({**arguments["spec"], **changes.pop("spec", {})})
    step.train_adaptor(**{**arguments, **changes, "spec": spec})


@pytest.mark.parametrize(
    ("change", "inputs", "steps"),
    [
        ({}, ("r_in", "r_out", "text"), {"clock": 2}),
        ({"inputs": ["r_out"]}, ("r_out",), {"clock": 2}),
        (
            {"clock": 1, "adaptor_steps": [3, 4]},
            ("r_in", "r_out", "text"),
            {"adaptor_steps": [3, 4]},
        ),
        (
            {"clock": 1, "every_step": True, "inputs": ["r_in", "text"]},
            ("r_in", "text"),
            {"every_step": True},
        ),
    ],
)
def test_the_file_says_what_it_is_for(arguments, change, inputs, steps):
    train(arguments, spec=change)
    adaptor = load_adaptor(arguments["output"])
    assert adaptor.inputs == inputs
    facts = {
        "model": storage.sha256_folder(arguments["model"]),
        "scheduler": "ddim",
        "steps": 4,
        "cut": "stage1",
    }
    assert dict(adaptor.config.made_for) == {**facts, **steps}
    check_made_for(adaptor, arguments["output"], **facts)
    with pytest.raises(ValueError, match="trained for scheduler 'ddim', and asked"):
        check_made_for(adaptor, arguments["output"], **{**facts, "scheduler": "dpmpp"})


def test_the_step_names_prompts_of_a_bad_batch(arguments):
    (shard,) = arguments["train"]
    tensors, notes = storage.read_tensors(shard)
    tensors["r_out"][:] = torch.inf
    storage.write_tensors(shard, tensors, notes)
    with pytest.raises(ValueError, match='at step 0, of prompts "a (red|blue)'):
        train(arguments)
    with pytest.raises(ValueError, match=r"at step 0, of trajectories \d"):
        train(arguments, prompts=None)
    assert not arguments["output"].exists()


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({}, "does not say how its trajectories were sampled"),
        ({**TRAJECTORY, "cut": "stage2"}, "was recorded at cut 'stage2', not at 'st"),
        (
            {**TRAJECTORY, "sampler": {**TRAJECTORY["sampler"], "scheduler": "dpmpp"}},
            "was sampled with 'dpmpp', and .* with 'ddim'",
        ),
    ],
)
def test_shards_that_do_not_belong_are_refused(arguments, tmp_path, notes, message):
    (shard,) = arguments["train"]
    tensors, metadata = storage.read_tensors(shard)
    other = tmp_path / "other.safetensors"
    storage.write_tensors(other, tensors, {**metadata, "spec": json.dumps(notes)})
    with pytest.raises(ValueError, match=message) as caught:
        train(arguments, heldout=[other])
    assert str(other) in str(caught.value)


# --- the last two full passes --------------------------------------------------------


class Pair(Seen):
    """An adaptor with a history of two that remembers what it was called with."""

    history = 2

    def forward(self, r_in, r_out, t_emb, text_emb, ages):
        self.calls.append((r_in, r_out, t_emb, text_emb, ages))
        return self.scale * r_out[0]


class Counting:
    """A split UNet whose features say at which step they were made."""

    cut = "stage1"

    def full(self, x, t, c, through=False):
        return Step(x, x, x, x)

    def adapt(self, x, t, c, r_out, adaptor, pooled):
        adaptor(x, r_out, t, pooled)
        # No estimate may enter what comes later.
        return Step(x, x, torch.full_like(x, -99), x)

    def reuse(self, x, t, c, up):
        return Step(x, x, x, x)


@pytest.mark.parametrize(
    "clock", [Clock(2), Clock(3), Clock(4), Clock(adaptor_steps=(2, 3, 6, 8))]
)
def test_training_and_sampling_feed_the_same_full_passes_and_ages(tmp_path, clock):
    sampled = {}
    adaptor = Pair()
    adaptor.config = Namespace(cut="stage1")
    passes, memory = Passes(Counting(), adaptor), Memory()
    # Steps are uneven, for both.
    data = dataclasses.replace(numbered(steps=8), log_snr=torch.arange(8.0) ** 1.5)
    for index in range(8):
        x = torch.full((1, 1, 1, 1), float(index))
        given = (index, x, torch.tensor(index), x)
        memory.run(passes, clock, *given, log_snr=data.log_snr)
        if not clock.is_full(index):
            _, r_out, t_emb, _, ages = adaptor.calls[-1]
            assert int(t_emb) == index
            sampled[index] = (r_out.flatten().tolist(), ages.tolist())
    adaptor.calls.clear()
    chosen = {"clock": clock.every, "adaptor_steps": clock.adaptor_steps}
    recipe = dataclasses.replace(RECIPE, steps=20)
    spec = AdaptorSpec("resnet_extrapolation", "stage1", optimisation=recipe, **chosen)
    train_adaptor(adaptor, data, spec, tmp_path / "state.pt", CPU)
    held_out_error(adaptor, data, clock, CPU)
    seen = set()
    for _, r_out, t_emb, pooled, ages in adaptor.calls:
        for row, now in enumerate(t_emb[:, 0].int().tolist()):
            steps_of = r_out[:, row, 0, 0, 0] - pooled[row, 0]
            assert (steps_of.tolist(), ages[:, row].tolist()) == sampled[now]
            seen.add(now)
    assert seen == set(sampled)


def test_it_learns_from_where_the_extrapolation_is(unet, shard, tmp_path):
    data = data_of(shard)
    torch.manual_seed(0)
    adaptor = build_adaptor("resnet_extrapolation", unet, "stage1", 8)
    before = held_out_error(adaptor, data, 2, CPU)
    assert before == held_out_error(ExtrapolationAdaptor(), data, 2, CPU)
    recipe = Optimisation(steps=60, batch_size=8, lr=2e-3)
    spec = AdaptorSpec("resnet_extrapolation", "stage1", 2, recipe)
    trained = train_adaptor(adaptor, data, spec, tmp_path / "state.pt", CPU)
    after = held_out_error(trained.module, data, 2, CPU)
    assert after.l2 < 0.7 * before.l2


# --- stored latents, and fresh trajectories ------------------------------------------


def encoded(count: int) -> Prompts:
    generator = torch.Generator().manual_seed(5)
    return Prompts(
        torch.randn(count, 5, 24, generator=generator),
        torch.randn(1, 5, 24, generator=generator),
        torch.randn(count, 8, generator=generator),
        torch.randn(1, 8, generator=generator),
    )


@pytest.mark.parametrize("kind", ["resnet", "resnet_extrapolation"])
def test_latents_train_as_features_do(unet, scheduler_config, tmp_path, kind):
    pipe, prompts = bare_pipeline(unet, scheduler_config), encoded(4)
    weights, errors = [], []
    for stored in ("features", "latents"):
        chosen = dataclasses.replace(SPEC, dtype="float16", stored=stored)
        tensors = unroll(pipe, prompts, chosen, first=0)
        tensors |= constants(pipe, prompts, chosen)
        data = join([tensors], lambda: SplitUNet(unet))
        torch.manual_seed(0)
        adaptor = build_adaptor(kind, unet, "stage1", 8)
        recipe = Optimisation(steps=8, batch_size=8, lr=1e-3)
        spec = AdaptorSpec(kind, "stage1", 2, recipe)
        train_adaptor(adaptor, data, spec, tmp_path / f"{stored}.pt", CPU)
        weights.append(adaptor.state_dict())
        errors.append(held_out_error(adaptor, data, 2, CPU))
    one, two = errors
    assert one.l2 == pytest.approx(two.l2, rel=2e-3)
    assert one.identity_l2 == pytest.approx(two.identity_l2, rel=2e-3)
    moved = build_adaptor(kind, unet, "stage1", 8).up.weight.abs().max()
    assert moved == 0 and weights[0]["up.weight"].abs().max() > 1e-3
    difference = (weights[0]["up.weight"] - weights[1]["up.weight"]).norm()
    assert difference < 0.05 * weights[0]["up.weight"].norm()


TEXTS = [f"prompt {index}" for index in range(5)]


def fresh_of(unet, scheduler_config) -> FreshTrajectories:
    prompts = encoded(len(TEXTS))

    def encode(texts) -> Prompts:
        rows = [TEXTS.index(each) for each in texts]
        return dataclasses.replace(
            prompts, text=prompts.text[rows], pooled=prompts.pooled[rows]
        )

    pipe = bare_pipeline(unet, scheduler_config)
    return FreshTrajectories(pipe, encode, TEXTS, SPEC, 3)


EPOCHS = AdaptorSpec(
    "resnet",
    "stage1",
    2,
    Optimisation(steps=10, batch_size=4, lr=1e-3),
    epochs=2,
    subset=3,
)


class Killed(Exception):
    pass


def test_a_run_killed_within_an_epoch_ends_as_one_left_alone(
    unet, scheduler_config, tmp_path, monkeypatch
):
    fresh = fresh_of(unet, scheduler_config)

    def run(state: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        adaptor = build_adaptor("resnet", unet, "stage1", 8)
        train_adaptor(adaptor, fresh, EPOCHS, tmp_path / state, CPU)
        return adaptor.state_dict()

    whole = run("whole.pt")
    measure, calls = distillation.error_of, []

    def killed_at_eighth(*arguments):
        calls.append(None)
        if len(calls) == 8:
            raise Killed
        return measure(*arguments)

    monkeypatch.setattr(distillation, "error_of", killed_at_eighth)
    with pytest.raises(Killed):
        run("killed.pt")
    assert torch.load(tmp_path / "killed.pt")["step"] == 7
    resumed = run("killed.pt")
    # The second epoch's updates alone, and of these the last three.
    assert len(calls) == 8 + 3
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_an_epoch_is_recorded_once_and_its_batches_go_through_all(
    unet, scheduler_config, tmp_path, monkeypatch
):
    fresh = fresh_of(unet, scheduler_config)
    recorded, seen = [], []
    record = FreshTrajectories.of_epoch
    measure = distillation.error_of

    def noted(self, epoch, part=None):
        recorded.append(epoch)
        return record(self, epoch, part)

    def watched(adaptor, data, rows, steps, *rest):
        seen.append(list(zip(rows.tolist(), steps.tolist(), strict=True)))
        return measure(adaptor, data, rows, steps, *rest)

    monkeypatch.setattr(FreshTrajectories, "of_epoch", noted)
    monkeypatch.setattr(distillation, "error_of", watched)
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    train_adaptor(adaptor, fresh, EPOCHS, tmp_path / "state.pt", CPU)
    assert recorded == [0, 1]
    # 3 prompts × 2 branches × 2 adaptor steps in batches of 4: three updates see each
    # sample once, and two more see eight of them again.
    every = {(row, step) for row in range(6) for step in (1, 3)}
    for epoch in (seen[:5], seen[5:]):
        first = [sample for batch in epoch[:3] for sample in batch]
        assert len(first) == len(every) and set(first) == every
        assert len({sample for batch in epoch[3:] for sample in batch}) == 8
    assert seen[:5] != seen[5:]


def test_processes_share_an_epoch_and_its_batches(unet, scheduler_config):
    fresh = fresh_of(unet, scheduler_config)
    alone = distillation._Batches(fresh, EPOCHS, Crew(), None)
    crew = [
        distillation._Batches(fresh, EPOCHS, Crew(rank, 2), None) for rank in (0, 1)
    ]
    for update in (0, 4, 7):
        data, rows, steps, _ = alone.share_of_step(update)
        whole = data.pick(rows, steps, [steps - 1], CPU)
        parts = []
        for batches in crew:
            own, own_rows, own_steps, _ = batches.share_of_step(update)
            assert len(own) < len(data)
            if len(own_rows):
                parts.append(own.pick(own_rows, own_steps, [own_steps - 1], CPU))
        joined = torch.cat([part.r_out for part in parts])
        assert len(joined) == 4
        # The same samples, in another order.
        key = whole.r_out.flatten(1).sum(1).argsort()
        other = joined.flatten(1).sum(1).argsort()
        torch.testing.assert_close(joined[other], whole.r_out[key], rtol=0, atol=1e-4)


def test_a_bad_batch_of_an_epoch_is_named_by_its_prompts(
    unet, scheduler_config, tmp_path, monkeypatch
):
    fresh = fresh_of(unet, scheduler_config)
    record = FreshTrajectories.of_epoch

    def poisoned_epoch(self, epoch, part=None):
        data = record(self, epoch, part)
        if epoch == 1:
            data.r_out[:] = torch.nan
        return data

    monkeypatch.setattr(FreshTrajectories, "of_epoch", poisoned_epoch)
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    with pytest.raises(ValueError, match='not finite at step 5, of prompts "') as error:
        train_adaptor(adaptor, fresh, EPOCHS, tmp_path / "state.pt", CPU)
    named = [text for text in TEXTS if f'"{text}"' in str(error.value)]
    chosen = {TEXTS[place] for place in fresh.prompts_of(1).tolist()}
    assert named and set(named) <= chosen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "10 steps do not make 3 equal epochs"),
        ({"epochs": 0}, "subset 3 needs epochs above 0"),
    ],
)
def test_epochs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EPOCHS, **change)


def test_epochs_need_fresh_trajectories_and_only_they_do(
    unet, scheduler_config, tmp_path
):
    state = tmp_path / "state.pt"
    with pytest.raises(ValueError, match="epochs 2 need trajectories that are recorde"):
        train_adaptor(Seen(), numbered(), EPOCHS, state, CPU)
    stored = dataclasses.replace(EPOCHS, epochs=0, subset=0)
    fresh = fresh_of(unet, scheduler_config)
    with pytest.raises(ValueError, match="epochs 0 need .* recorded before"):
        train_adaptor(Seen(), fresh, stored, state, CPU)


def test_the_step_unrolls_in_each_epoch_what_shards_would_hold(arguments, root):
    clip = root / "resources" / "mini" / "clip"
    change = {"epochs": 2, "subset": 1, "kind": "resnet_extrapolation"}
    trajectory = json.dumps(TRAJECTORY)
    train(arguments, spec=change, train=(), unroll=trajectory, clip=clip)
    adaptor = load_adaptor(arguments["output"])
    assert adaptor.config.made_for["scheduler"] == "ddim"
    assert adaptor.up.weight.any()
    lines = arguments["curve"].read_text().splitlines()
    assert lines[0] == "step,loss,lr,seconds"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1"]
    assert all(line.split(",")[2] == "0.001" for line in lines[1:])
    first, second = (float(line.split(",")[3]) for line in lines[1:])
    assert 0 < first <= second
    other = json.dumps({**TRAJECTORY, "cut": "stage2"})
    with pytest.raises(ValueError, match="are of cut 'stage2', not of 'stage1'"):
        train(arguments, spec=change, train=(), unroll=other, clip=clip)
    with pytest.raises(ValueError, match="need prompts and the CLIP that pools them"):
        train(arguments, spec=change, train=(), unroll=trajectory)
    noised = json.dumps({**TRAJECTORY, "source": "noised"})
    with pytest.raises(ValueError, match="'noised' needs the images of the prompts"):
        train(arguments, spec=change, train=(), unroll=noised, clip=clip)


@pytest.mark.parametrize("given", [{"train": ()}, {"unroll": "{}"}])
def test_the_step_reads_trajectories_or_records_them(arguments, given):
    with pytest.raises(ValueError, match="give either trajectories to train on, or"):
        train(arguments, **given)


def test_the_step_noises_the_images_of_the_prompts(arguments, root, tmp_path):
    clip = root / "resources" / "mini" / "clip"
    generator = torch.Generator().manual_seed(8)
    pixels = torch.randint(256, (2, 3, 64, 64), generator=generator).byte()
    whole = [tmp_path / "whole.safetensors"]
    shards = [tmp_path / f"{index}.safetensors" for index in range(2)]
    storage.write_tensors(whole[0], {"images": pixels})
    for path, image in zip(shards, pixels, strict=True):
        storage.write_tensors(path, {"images": image[None]})
    noised = json.dumps({**TRAJECTORY, "source": "noised"})
    outputs = []
    for images in (whole, shards):
        options = {"train": (), "unroll": noised, "clip": clip, "images": images}
        train(arguments, spec={"epochs": 1}, **options)
        outputs.append(load_adaptor(arguments["output"]).state_dict())
    for name, value in outputs[0].items():
        assert torch.equal(value, outputs[1][name]), name


@pytest.mark.parametrize("stored", ["features", "latents"])
def test_recorded_images_train_an_adaptor(arguments, root, tmp_path, stored):
    generator = torch.Generator().manual_seed(8)
    pixels = torch.randint(256, (2, 3, 64, 64), generator=generator).byte()
    images = tmp_path / "images.safetensors"
    storage.write_tensors(images, {"images": pixels})
    trajectory = {**TRAJECTORY, "source": "noised", "stored": stored}
    options = {
        "spec": json.dumps(trajectory),
        "model": arguments["model"],
        "clip": root / "resources" / "mini" / "clip",
        "prompts": arguments["prompts"],
        "images": images,
        "shard": 0,
        "shards": 1,
        "state": tmp_path / "chunks",
        "output": tmp_path / "recorded.safetensors",
    }
    sample_trajectories.sample_trajectories(**options)
    tensors, notes = storage.read_tensors(options["output"])
    assert ("latents" in tensors) == (stored == "latents")
    assert json.loads(notes["spec"])["source"] == "noised"
    shard = [options["output"]]
    train(arguments, train=shard, heldout=shard)
    error = storage.read_json(arguments["error"])
    assert error["n"] == 8 and error["l2_over_identity"] < 1.5
    with pytest.raises(ValueError, match="needs the images of the prompts"):
        sample_trajectories.sample_trajectories(**{**options, "images": None})
    storage.write_tensors(images, {"images": pixels[:1]})
    with pytest.raises(ValueError, match="holds 1 images, not one for each of 2 prom"):
        sample_trajectories.sample_trajectories(**options)
