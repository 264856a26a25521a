import dataclasses
import json
import os
import signal

import pytest
import torch
from bare import bare_pipeline
from diffusers import DDIMScheduler

from clockwork_diffusion.adaptor_error import held_out_error
from clockwork_diffusion.adaptors import (
    IdentityAdaptor,
    build_adaptor,
    load_adaptor,
)
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.made_for import check_made_for
from clockwork_diffusion.trajectories import Trajectories
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.base import interruption, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.cost.architectures import build_unet
from clockwork_experiments.generate.text import SamplerSpec, image_seed, initial_noise
from clockwork_experiments.steps import compare_storage, sample_trajectories
from clockwork_experiments.steps import train_adaptor as train_adaptor_step
from clockwork_experiments.train import trajectories
from clockwork_experiments.train.distillation import (
    AdaptorSpec,
    train_adaptor,
)
from clockwork_experiments.train.storing import StorageSpec
from clockwork_experiments.train.training import Optimisation
from clockwork_experiments.train.trajectories import (
    FreshTrajectories,
    LatentTrajectories,
    TrajectorySpec,
    bytes_per_trajectory,
    constants,
    join,
    read_trajectories,
    recorded_timesteps,
    timesteps_of,
    unroll,
)

SPEC = TrajectorySpec(SamplerSpec("dpmpp", 4, 3.0), "stage1", 2, 4, "float32")
CPU = torch.device("cpu")


def spec(**changes) -> TrajectorySpec:
    return dataclasses.replace(SPEC, **changes)


@pytest.fixture
def prompts() -> Prompts:
    generator = torch.Generator().manual_seed(5)
    return Prompts(
        torch.randn(3, 5, 24, generator=generator),
        torch.randn(1, 5, 24, generator=generator),
        torch.randn(3, 8, generator=generator),
        torch.randn(1, 8, generator=generator),
    )


@pytest.fixture
def clean() -> torch.Tensor:
    return torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(6))


@pytest.fixture
def recorded(unet, scheduler_config, prompts, clean):
    """Return a function that records what a spec asks for."""

    def run(chosen: TrajectorySpec, config=scheduler_config) -> dict[str, torch.Tensor]:
        images = None if chosen.source == "unroll" else clean
        pipe = bare_pipeline(unet, config)
        tensors = unroll(pipe, prompts, chosen, 7, images)
        return {**tensors, **constants(pipe, prompts, chosen)}

    return run


# --- noised images -------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["dpmpp", "ddim", "pndm", "heun"])
def test_noised_latents_are_the_image_and_one_noise_at_all_steps(
    recorded, scheduler_config, clean, scheduler
):
    chosen = spec(
        sampler=SamplerSpec(scheduler, 4, 3.0), source="noised", stored="latents"
    )
    latents = recorded(chosen)["latents"]
    noise = initial_noise([image_seed(2, 7 + index) for index in range(3)], (4, 16, 16))
    reference = DDIMScheduler.from_config(scheduler_config)
    timesteps = recorded_timesteps(chosen.sampler, scheduler_config)
    assert latents.shape == (3, len(timesteps), 4, 16, 16)
    for index, timestep in enumerate(timesteps.round().long()):
        expected = reference.add_noise(clean, noise, timestep.expand(3))
        torch.testing.assert_close(latents[:, index], expected)
    # From noise to the image; a second call of a step may share its timestep.
    distance = (latents - clean[:, None]).flatten(2).norm(dim=2).mean(dim=0)
    assert (distance.diff() <= 0).all() and distance[0] > 2 * distance[-1]


@torch.inference_mode()
def test_noised_features_are_the_teachers_at_those_latents(
    recorded, unet, scheduler_config, prompts
):
    features = recorded(spec(source="noised"))
    latents = recorded(spec(source="noised", stored="latents"))["latents"]
    timesteps = recorded_timesteps(SPEC.sampler, scheduler_config)
    split = SplitUNet(unet)
    for branch, text in enumerate((prompts.empty.expand(3, -1, -1), prompts.text)):
        for index, timestep in enumerate(timesteps):
            step = split.full(latents[:, index], timestep, text)
            for name, value in (("r_in", step.r_in), ("r_out", step.r_out)):
                found = features[name][:, branch, index]
                torch.testing.assert_close(found, value, rtol=0, atol=1e-4)


def test_only_the_noise_schedule_counts_not_what_is_predicted(
    recorded, scheduler_config
):
    chosen = spec(source="noised")
    other = {**scheduler_config, "prediction_type": "v_prediction"}
    one, two = recorded(chosen), recorded(chosen, other)
    assert torch.equal(one["r_out"], two["r_out"])
    # Whereas sampling depends on it.
    one, two = recorded(SPEC), recorded(SPEC, other)
    assert not torch.equal(one["r_out"], two["r_out"])


def test_both_sources_make_files_of_one_format(recorded):
    one, two = recorded(SPEC), recorded(spec(source="noised"))
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in two.items()}
    assert torch.equal(one["pooled"], two["pooled"])
    assert torch.equal(one["t_emb"], two["t_emb"])
    assert not torch.equal(one["r_out"], two["r_out"])


@pytest.mark.parametrize(
    ("clean", "message"),
    [
        (None, r"needs latents of shape \(3, 4, 16, 16\), not none"),
        (torch.zeros(3, 4, 8, 8), r"not latents of shape \(3, 4, 8, 8\)"),
    ],
)
def test_noised_trajectories_need_images(
    unet, scheduler_config, prompts, clean, message
):
    pipe = bare_pipeline(unet, scheduler_config)
    with pytest.raises(ValueError, match=message):
        unroll(pipe, prompts, spec(source="noised"), 0, clean)


# --- inverted images -----------------------------------------------------------------


INVERTED = dataclasses.replace(
    SPEC, sampler=SamplerSpec("ddim", 5, 1.0), source="inverted"
)


@torch.inference_mode()
def test_inverted_latents_are_those_that_inversion_asks_about(
    recorded, unet, scheduler_config, prompts, clean
):
    shard = recorded(dataclasses.replace(INVERTED, stored="latents"))
    assert shard["timesteps"].tolist() == [0, 200, 400, 600, 800]
    latents = shard["latents"]
    assert latents.shape == (3, 5, 4, 16, 16)
    assert torch.equal(latents[:, 0], clean)
    # Each latent after the first is what the step before has made of its own.
    alphas = DDIMScheduler.from_config(scheduler_config).alphas_cumprod
    before = [alphas[0], *alphas[shard["timesteps"]]]
    for index, timestep in enumerate(shard["timesteps"][:-1]):
        x = latents[:, index]
        noise = unet(x, timestep, prompts.text).sample
        image = (x - (1 - before[index]).sqrt() * noise) / before[index].sqrt()
        alpha = alphas[timestep]
        expected = alpha.sqrt() * image + (1 - alpha).sqrt() * noise
        torch.testing.assert_close(latents[:, index + 1], expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_inverted_features_are_the_teachers_at_those_latents(
    recorded, unet, scheduler_config, prompts
):
    features = recorded(INVERTED)
    shard = recorded(dataclasses.replace(INVERTED, stored="latents"))
    split = SplitUNet(unet)
    assert features["r_out"].shape == (3, 1, 5, 32, 8, 8)
    for index, timestep in enumerate(shard["timesteps"]):
        step = split.full(shard["latents"][:, index], timestep, prompts.text)
        for name, value in (("r_in", step.r_in), ("r_out", step.r_out)):
            found = features[name][:, 0, index]
            torch.testing.assert_close(found, value, rtol=0, atol=1e-4)
        # Embedded in the order of inversion, from little noise to much.
        t_emb = split.condition(shard["latents"][:1, 0], timestep, prompts.text).t_emb
        torch.testing.assert_close(features["t_emb"][index], t_emb[0])
    assert torch.equal(features["t_emb"], shard["t_emb"])
    assert torch.equal(features["pooled"][:, 0], prompts.pooled)
    assert torch.equal(timesteps_of(INVERTED, scheduler_config), shard["timesteps"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_inverted_latents_give_the_features_again(recorded, unet, dtype):
    chosen = dataclasses.replace(INVERTED, dtype=dtype)
    features = join([recorded(chosen)])
    shard = recorded(dataclasses.replace(chosen, stored="latents"))
    latents = join([shard], lambda: SplitUNet(unet))
    assert isinstance(latents, LatentTrajectories)
    assert (len(latents), latents.steps) == (len(features), features.steps) == (3, 5)
    rows, steps = torch.tensor([0, 2, 1, 2]), torch.tensor([1, 4, 2, 3])
    expected = features.pick(rows, steps, [steps - 1], CPU)
    found = latents.pick(rows, steps, [steps - 1], CPU)
    tolerance = 1e-4 if dtype == "float32" else 0.03
    for one, other in zip(
        (*found[:2], *found.earlier), (*expected[:2], *expected.earlier), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def test_an_inversion_depends_on_no_noise_and_no_other_image(
    unet, scheduler_config, prompts, clean
):
    pipe = bare_pipeline(unet, scheduler_config)
    whole = unroll(pipe, prompts, INVERTED, 0, clean)
    other = dataclasses.replace(INVERTED, seed=9)
    part = slice(1, 2)
    alone = unroll(pipe, prompts[part], other, 7, clean[part])
    for name, value in alone.items():
        torch.testing.assert_close(value, whole[name][part], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (SamplerSpec("dpmpp", 4, 1.0), "'inverted' needs scheduler 'ddim', not 'dpmpp"),
        (SamplerSpec("ddim", 4, 7.5), "'inverted' needs guidance 1, not 7.5: inversio"),
    ],
)
def test_inversions_that_there_are_not_are_refused(sampler, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(INVERTED, sampler=sampler)


@pytest.mark.parametrize(
    ("clean", "message"),
    [
        (None, r"'inverted' needs latents of shape \(3, 4, 16, 16\), not none"),
        (torch.zeros(3, 4, 8, 8), r"not latents of shape \(3, 4, 8, 8\)"),
    ],
)
def test_inverted_trajectories_need_images(
    unet, scheduler_config, prompts, clean, message
):
    pipe = bare_pipeline(unet, scheduler_config)
    with pytest.raises(ValueError, match=message):
        unroll(pipe, prompts, INVERTED, 0, clean)


def test_an_inversion_beyond_the_schedule_is_refused(scheduler_config):
    config = {**scheduler_config, "steps_offset": 1}
    chosen = dataclasses.replace(INVERTED, sampler=SamplerSpec("ddim", 1000, 1.0))
    with pytest.raises(ValueError, match="take 999 steps"):
        timesteps_of(chosen, config)


@pytest.mark.parametrize("stored", ["features", "latents"])
def test_an_adaptor_learns_the_steps_of_an_inversion(recorded, unet, tmp_path, stored):
    shard = recorded(dataclasses.replace(INVERTED, stored=stored))
    data = join([shard], lambda: SplitUNet(unet))
    torch.manual_seed(3)
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    recipe = Optimisation(steps=30, batch_size=6, lr=3e-3)
    chosen = AdaptorSpec("resnet", "stage1", 2, recipe)
    before = held_out_error(adaptor, data, 2, CPU)
    # Two adaptor steps of three images; untrained it is the identity.
    assert before.n == 6 and before.l2 == pytest.approx(before.identity_l2)
    trained = train_adaptor(adaptor, data, chosen, tmp_path / "state.pt", CPU)
    after = held_out_error(trained.module, data, 2, CPU)
    assert after.l2 < 0.8 * before.l2


def test_the_steps_make_an_adaptor_that_says_it_is_for_inversion(root, tmp_path):
    mini = root / "resources" / "mini"
    model, clip = mini / "stable-diffusion", mini / "clip"
    generator = torch.Generator().manual_seed(8)
    pixels = torch.randint(256, (2, 3, 64, 64), generator=generator).byte()
    images, shard = tmp_path / "images.safetensors", tmp_path / "shard.safetensors"
    storage.write_tensors(images, {"images": pixels})
    storage.write_json(tmp_path / "prompts.json", ["a red ring", "a blue star"])
    trajectory = {
        "sampler": {"scheduler": "ddim", "steps": 3, "guidance": 1.0},
        "cut": "stage1",
        "seed": 1,
        "batch_size": 2,
        "source": "inverted",
    }
    shared = {"model": model, "clip": clip, "prompts": tmp_path / "prompts.json"}
    recording = {
        **shared,
        "spec": json.dumps(trajectory),
        "images": images,
        "shard": 0,
        "shards": 1,
        "state": tmp_path / "chunks",
        "output": shard,
    }
    sample_trajectories.sample_trajectories(**recording)
    with pytest.raises(ValueError, match="'inverted' needs the images of the prompts"):
        sample_trajectories.sample_trajectories(**{**recording, "images": None})
    recipe = {"steps": 2, "batch_size": 2, "lr": 0.001}
    spec = {"kind": "unet_light", "cut": "stage1", "clock": 2, "optimisation": recipe}
    training = {
        **shared,
        "spec": json.dumps(spec),
        "train": [shard],
        "heldout": [shard],
        "state": tmp_path / "state.pt",
        "output": tmp_path / "adaptor",
        "error": tmp_path / "error.json",
        "curve": tmp_path / "curve.csv",
    }
    fresh = {
        "spec": json.dumps({**spec, "epochs": 1}),
        "train": (),
        "unroll": json.dumps(trajectory),
        "images": [images],
    }
    facts = {"model": storage.sha256_folder(model), "scheduler": "ddim"}
    for options in (training, {**training, **fresh}):
        train_adaptor_step.train_adaptor(**options)
        adaptor = load_adaptor(training["output"])
        assert dict(adaptor.config.made_for) == {
            **facts,
            "steps": 3,
            "cut": "stage1",
            "loop": "inversion",
            "clock": 2,
        }
    with pytest.raises(ValueError, match="'inverted' needs the images of the prompts"):
        options = {**training, **fresh, "images": ()}
        train_adaptor_step.train_adaptor(**options)
    # What is kept of one loop does not measure the other.
    trajectory["source"] = "noised"
    noised = {"spec": json.dumps(trajectory), "output": tmp_path / "noised.safetensors"}
    sample_trajectories.sample_trajectories(**{**recording, **noised})
    with pytest.raises(ValueError, match="noised.safetensors was recorded in sampling"):
        options = {**training, "heldout": [noised["output"]]}
        train_adaptor_step.train_adaptor(**options)


def test_adaptors_of_inversion_and_of_sampling_are_kept_apart(unet, tmp_path):
    facts = {"model": "0" * 64, "scheduler": "ddim", "cut": "stage1"}
    notes = {"sampling": {}, "inversion": {"loop": "inversion"}}
    for loop, other in (("sampling", "inversion"), ("inversion", "sampling")):
        made_for = {**facts, "steps": 50, **notes[loop]}
        adaptor = build_adaptor("resnet", unet, "stage1", 8, made_for=made_for)
        check_made_for(adaptor, tmp_path, **facts, steps=50, loop=loop)
        check_made_for(adaptor, tmp_path, **facts, steps=50, loop=None)
        # Any number of steps, or just one.
        check_made_for(adaptor, tmp_path, **facts, steps=None, loop=loop)
        with pytest.raises(ValueError, match="for steps 50, and asked for steps 20"):
            check_made_for(adaptor, tmp_path, **facts, steps=20, loop=loop)
        message = f"trained for loop '{loop}', and asked for loop '{other}'"
        with pytest.raises(ValueError, match=message):
            check_made_for(adaptor, tmp_path, **facts, steps=50, loop=other)
        with pytest.raises(ValueError, match="for scheduler 'ddim', and asked for sch"):
            wrong = {**facts, "scheduler": "dpmpp"}
            check_made_for(adaptor, tmp_path, **wrong, steps=None, loop=None)
    # A run that says nothing samples, as all runs did before.
    with pytest.raises(ValueError, match="asked for loop 'sampling'"):
        check_made_for(adaptor, tmp_path, **facts, steps=50)
    for loop in ("sampling", "inversion"):
        identity = IdentityAdaptor()
        check_made_for(identity, tmp_path, **facts, steps=None, loop=loop)


# --- stored latents ------------------------------------------------------------------


ROWS = torch.tensor([0, 1, 5, 2, 3])
STEPS = torch.tensor([1, 3, 2, 3, 1])


@pytest.mark.parametrize("source", ["unroll", "noised"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_latents_give_the_features_again(recorded, unet, source, guidance, dtype):
    chosen = spec(source=source, sampler=SamplerSpec("dpmpp", 4, guidance), dtype=dtype)
    features = join([recorded(chosen)])
    shard = recorded(dataclasses.replace(chosen, stored="latents"))
    latents = join([shard], lambda: SplitUNet(unet))
    assert isinstance(latents, LatentTrajectories)
    assert (len(latents), latents.steps) == (len(features), features.steps)
    rows = ROWS % len(features)
    before = [STEPS - 1, torch.zeros_like(STEPS)]
    expected = features.pick(rows, STEPS, before, CPU)
    found = latents.pick(rows, STEPS, before, CPU)
    tolerance = 1e-4 if dtype == "float32" else 0.03
    pairs = zip(
        (*found[:2], *found.earlier), (*expected[:2], *expected.earlier), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
    assert torch.equal(latents.pooled, features.pooled)


def test_many_samples_are_made_in_several_calls(recorded, unet):
    shard = recorded(spec(stored="latents"))
    latents = join([shard], lambda: SplitUNet(unet))
    rows, steps = torch.arange(40) % 6, torch.arange(40) % 3 + 1
    whole = latents.pick(rows, steps, [steps - 1], CPU)
    assert whole.r_out.shape == whole.earlier[0].shape == (40, 32, 8, 8)
    alone = latents.pick(rows[37:38], steps[37:38], [steps[37:38] - 1], CPU)
    for one, other in zip(
        (*alone[:2], *alone.earlier), (*whole[:2], *whole.earlier), strict=True
    ):
        torch.testing.assert_close(one[0], other[37], rtol=0, atol=1e-4)


def test_latents_start_from_the_noise_and_are_fewer(recorded):
    latents, features = recorded(spec(stored="latents")), recorded(SPEC)
    noise = initial_noise([image_seed(2, 7 + index) for index in range(3)], (4, 16, 16))
    assert torch.equal(latents["latents"][:, 0], noise)
    assert "r_out" not in latents
    kept = features["r_in"].numel() + features["r_out"].numel()
    assert 6 * latents["latents"].numel() == kept


def test_shards_of_latents_are_read_with_their_teacher(recorded, unet, tmp_path):
    paths = [tmp_path / "000.safetensors", tmp_path / "001.safetensors"]
    for path in paths:
        storage.write_tensors(path, recorded(spec(stored="latents")), {"teacher": "t"})
    data = read_trajectories(paths, "t", lambda: SplitUNet(unet))
    assert isinstance(data, LatentTrajectories)
    assert len(data) == 12 and data.latents.shape == (6, 4, 4, 16, 16)
    with pytest.raises(ValueError, match="stored latents need the teacher"):
        read_trajectories(paths, "t")
    storage.write_tensors(paths[1], recorded(SPEC), {"teacher": "t"})
    with pytest.raises(ValueError, match=r"001\.safetensors has other steps or feat"):
        read_trajectories(paths, "t", lambda: SplitUNet(unet))
    tensors, notes = storage.read_tensors(paths[0])
    del tensors["text"]
    storage.write_tensors(paths[0], tensors, notes)
    with pytest.raises(ValueError, match=r"000\.safetensors lacks text"):
        read_trajectories(paths, "t", lambda: SplitUNet(unet))


def test_stored_features_need_no_teacher(recorded):
    def never() -> SplitUNet:
        raise AssertionError

    assert isinstance(join([recorded(SPEC)], never), Trajectories)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "images"}, "source 'images' is not one of unroll, noised, inv"),
        ({"stored": "both"}, "stored 'both' is not features or latents"),
        ({"dtype": "bfloat16"}, "dtype 'bfloat16' is not float16 or float32"),
    ],
)
def test_bad_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        spec(**change)


# --- fresh ones for each epoch -------------------------------------------------------

TEXTS = [f"prompt {index}" for index in range(7)]


@pytest.fixture
def fresh(unet, scheduler_config):
    """Return a function that makes fresh trajectories of seven prompts."""
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(7, 5, 24, generator=generator)
    pooled = torch.randn(7, 8, generator=generator)
    empty = torch.randn(1, 5, 24, generator=generator)

    def encode(texts) -> Prompts:
        rows = [TEXTS.index(each) for each in texts]
        return Prompts(text[rows], empty, pooled[rows], pooled[:1] * 0)

    def make(subset: int = 3, **changes) -> FreshTrajectories:
        chosen = spec(batch_size=2, **changes)
        pipe = bare_pipeline(unet, scheduler_config)
        clean = None
        if chosen.source != "unroll":
            images = torch.randn(7, 4, 16, 16, generator=generator)

            def clean(rows: torch.Tensor) -> torch.Tensor:
                return images[rows]

        return FreshTrajectories(pipe, encode, TEXTS, chosen, subset, clean)

    return make


@pytest.mark.parametrize("source", ["unroll", "noised", "inverted"])
def test_an_epoch_can_be_recorded_again_and_in_parts(fresh, source):
    more = {"sampler": INVERTED.sampler} if source == "inverted" else {}
    trajectories = fresh(source=source, **more)
    whole = trajectories.of_epoch(4)
    branches = 1 if source == "inverted" else 2
    assert len(whole) == 3 * branches
    assert torch.equal(whole.r_out, trajectories.of_epoch(4).r_out)
    part = trajectories.of_epoch(4, range(1, 3))
    rest = whole.r_out[branches:]
    torch.testing.assert_close(part.r_out, rest, rtol=0, atol=1e-4)
    assert torch.equal(part.pooled, whole.pooled[branches:])


def test_recording_stops_at_sigterm(fresh, monkeypatch):
    real, batches = trajectories.record, []

    def terminated(*arguments):
        batches.append(arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(trajectories, "record", terminated)
    with (
        interruption.noticing_sigterm() as noticed,
        pytest.raises(InterruptedError, match="epoch 4: stopped by SIGTERM after 2 of"),
    ):
        fresh(source="unroll").of_epoch(4)
    assert noticed() and len(batches) == 1


def test_each_epoch_has_its_own_prompts_and_noise(fresh):
    trajectories = fresh(0)
    assert trajectories.prompts_of(0).tolist() == list(range(7))
    one, two = (trajectories.of_epoch(epoch) for epoch in (0, 1))
    assert torch.equal(one.pooled, two.pooled)
    # The same prompts from other noise, each prompt from its own.
    assert not torch.isclose(one.r_in[:, 0], two.r_in[:, 0]).all(dim=1).any()
    assert not torch.isclose(one.r_in[0, 0], one.r_in[2, 0]).all(dim=0).any()
    drawn = [tuple(fresh(3).prompts_of(epoch).tolist()) for epoch in range(30)]
    assert all(len(set(each)) == 3 for each in drawn)
    assert len(set(drawn)) > 20
    assert {place for each in drawn for place in each} == set(range(7))
    # Two subsets fit into seven prompts: none comes twice in them.
    for one, two in zip(drawn[::2], drawn[1::2], strict=True):
        assert not set(one) & set(two)


def test_fresh_latents_are_made_into_features_too(fresh):
    features = fresh().of_epoch(2)
    latents = fresh(stored="latents").of_epoch(2)
    assert isinstance(latents, LatentTrajectories)
    steps = torch.full((6,), 2)
    one = features.pick(torch.arange(6), steps, [steps - 1], CPU)
    two = latents.pick(torch.arange(6), steps, [steps - 1], CPU)
    torch.testing.assert_close(one.r_out, two.r_out, rtol=0, atol=1e-4)


def test_a_subset_larger_than_the_whole_is_refused(fresh):
    with pytest.raises(ValueError, match="subset 8 is more than the 7 prompts"):
        fresh(8)


# --- what it takes -------------------------------------------------------------------


def test_bytes_of_sd_by_hand():
    chosen = TrajectorySpec(SamplerSpec("dpmpp", 8, 7.5), "stage1", 0, 8)
    found = bytes_per_trajectory(build_unet("sd"), chosen, 77, 1024)
    pooled = 2 * 1024 * 4
    # 320 + 640 channels of 32 by 32, two branches, eight steps, two bytes each.
    assert found["features"] == 8 * 2 * 960 * 32 * 32 * 2 + pooled == 31_465_472
    # 4 channels of 64 by 64, shared by the branches, and the text.
    assert found["latents"] == (8 * 4 * 64 * 64 + 77 * 768) * 2 + pooled == 388_608
    deeper = dataclasses.replace(chosen, cut="stage2")
    found = bytes_per_trajectory(build_unet("sd"), deeper, 77, 1024)
    assert found["features"] == 8 * 2 * 1920 * 16 * 16 * 2 + pooled


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("stored", ["features", "latents"])
def test_bytes_are_those_of_the_tensors_written(recorded, unet, guidance, stored):
    sampler = SamplerSpec("dpmpp", 4, guidance)
    chosen = spec(sampler=sampler, stored=stored, dtype="float16")
    tensors = recorded(chosen)
    each = {"r_in", "r_out", "latents", "pooled", "text"} & set(tensors)
    written = sum(tensors[name].nbytes for name in each) / 3
    assert bytes_per_trajectory(unet, chosen, 5, 8)[stored] == written


def test_the_step_compares_both(root, tmp_path):
    model = root / "resources" / "mini" / "stable-diffusion"
    asked = {
        "backbone": "sd",
        "tokens": 32,
        "text_channels": 64,
        "trajectory": {
            "sampler": {"scheduler": "dpmpp", "steps": 4, "guidance": 2.0},
            "cut": "stage1",
            "seed": 1,
            "batch_size": 4,
        },
        "batch_size": 4,
        "batches": 3,
        "prompts": 2,
    }
    arguments = {
        "spec": parse(StorageSpec, asked),
        "unet": model / "unet" / "config.json",
        "model": model,
        "output": tmp_path / "storage.json",
    }
    compare_storage.compare_storage(**arguments)
    found = storage.read_json(arguments["output"])
    features, latents = found["features"], found["latents"]
    assert features["bytes_per_trajectory"] > 5 * latents["bytes_per_trajectory"]
    assert features["samples_per_s"] > 2 * latents["samples_per_s"] > 0
    compare_storage.compare_storage(arguments["spec"], arguments["output"])
    found = storage.read_json(arguments["output"])
    assert set(found["features"]) == {"bytes_per_trajectory"}
