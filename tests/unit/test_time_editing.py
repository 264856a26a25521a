import statistics
from pathlib import Path

import pytest
import torch

from clockwork_diffusion import adaptors
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.cost import edit_timing, latency
from clockwork_experiments.cost.edit_loops import (
    EditLoops,
    GenerationLoop,
    InversionLoop,
    kept_bytes,
)
from clockwork_experiments.models import loading
from clockwork_experiments.steps import time_editing

MODEL = "resources/mini/stable-diffusion"
TABLE_S4 = {"guidance": 15.0, "tau_f": 0.8, "tau_a": 0.5}
IDENTITY = {"clock": 2, "adaptor": "identity"}
# Bytes of the mini model's features by hand, in float32: a convolution of 96 channels
# at 4x4; queries and keys of 2 layers there, of 3 with 64 channels at 8x8 and of 3 with
# 32 channels at 16x16.
LATENT = 4 * 4 * 16 * 16
CONV = 4 * 96 * 4 * 4
LOW = 4 * 2 * (2 * 96 * 4 * 4 + 3 * 64 * 8 * 8)
HIGH = 4 * 2 * 3 * 32 * 16 * 16


# --- the loops ------------------------------------------------------------------------


def loops_of(unet, config, inverted=4, steps=4, clock=1, **generation) -> EditLoops:
    adaptor = adaptors.IdentityAdaptor() if clock > 1 else None
    passes = Passes(SplitUNet(unet), adaptor)
    return EditLoops(
        passes,
        passes,
        config,
        InversionLoop(inverted, clock),
        GenerationLoop(steps, clock=clock, **{**TABLE_S4, **generation}),
        5,
        12,
    )


@pytest.fixture
def rows(unet):
    """Return the batches that the UNet sees from now on."""
    seen: list[int] = []
    hook = unet.conv_in.register_forward_hook(
        lambda _module, inputs, _output: seen.append(len(inputs[0]))
    )
    yield seen
    hook.remove()


@pytest.mark.parametrize(
    ("options", "extracted", "generated"),
    [
        ({}, [], [3] * 10),
        ({"guidance": 1.0}, [], [2] * 10),
        ({"drop_source": True}, [], [3] * 8 + [2] * 2),
        ({"features": "activations"}, [1] * 8, [2] * 10),
    ],
)
def test_what_is_done_for_an_image_and_what_for_a_prompt(
    unet, scheduler_config, rows, options, extracted, generated
):
    loops = loops_of(unet, scheduler_config, 10, 10, **options)
    invert, generate, _ = edit_timing.parts_of(loops)
    rows.clear()
    invert()
    assert rows == [1] * 10 + extracted
    rows.clear()
    generate()
    assert rows == generated


def test_what_is_timed_makes_the_same_edit_whatever_is_kept(unet, scheduler_config):
    ways = [{}, {"drop_source": True}, {"features": "activations"}]
    edits = []
    for options in [*ways, {"tau_f": 0.0, "tau_a": 0.0}]:
        loops = loops_of(unet, scheduler_config, clock=2, **options)
        inverted = loops.invert()
        edits.append(loops.generate(inverted, loops.extract(inverted)))
    plain, dropped, kept, without = edits
    torch.testing.assert_close(dropped, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(without, plain, rtol=1e-2, atol=1e-2)


def test_no_hook_is_left_for_the_runs_that_take_turns(unet, scheduler_config):
    loops = loops_of(unet, scheduler_config, features="activations")
    inverted = loops.invert()
    loops.generate(inverted, loops.extract(inverted))
    assert not any(module._forward_hooks for module in unet.modules())


def test_loops_that_cannot_run_are_refused_before_they_do(unet, scheduler_config, rows):
    with pytest.raises(ValueError, match="inversion keeps no latent for"):
        loops_of(unet, scheduler_config, inverted=3, steps=4)
    with pytest.raises(ValueError, match=r"conv layer 'up' is not one of up_blocks\.0"):
        loops_of(unet, scheduler_config, conv_layer="up")
    passes = Passes(SplitUNet(unet))
    with pytest.raises(ValueError, match="clock 2 needs an adaptor"):
        EditLoops(
            passes,
            passes,
            scheduler_config,
            InversionLoop(4, clock=2),
            GenerationLoop(4, **TABLE_S4),
            5,
            12,
        )
    with pytest.raises(ValueError, match="prompts 0 is less than 1"):
        GenerationLoop(4, **TABLE_S4, prompts=0)
    assert not rows


# --- the step -------------------------------------------------------------------------


@pytest.fixture
def model(root) -> str:
    return str(root / MODEL)


def timed(model: str, inversion=(), **generation) -> dict:
    return {
        "model": model,
        "tokens": 4,
        "inversion": {"steps": 5, **dict(inversion)},
        "generation": {**TABLE_S4, "steps": 5, **generation},
    }


def time_runs(tmp_path: Path, runs: dict, **changes) -> dict:
    spec = {"runs": runs, "repeats": 2, "text_channels": 8, **changes}
    output = tmp_path / "editing.json"
    time_editing.time_editing(parse(edit_timing.TimingSpec, spec), output)
    return storage.read_json(output)


@pytest.fixture
def untimed(monkeypatch):
    def no_time(loops, runs, warm_up):
        return dict.fromkeys(loops, latency.Timing(0.0, 0.0, (0.0,) * runs))

    monkeypatch.setattr(latency, "time_in_turns", no_time)


def test_memory_is_what_inversion_keeps_of_an_image(model, tmp_path, untimed):
    kept = {"features": "activations"}
    runs = {
        "pnp/five": timed(model),
        "pnp/ten": timed(model, {"steps": 10}),
        "dropped/five": timed(model, drop_source=True),
        "kept/five": timed(model, **kept),
        "kept/ten": timed(model, {"steps": 10}, **kept),
        "kept_clock2/five": timed(model, IDENTITY, **kept, **IDENTITY),
        "unguided/five": timed(model, **kept, guidance=1.0),
    }
    memory = time_runs(tmp_path, runs, repeats=1)["memory"]
    # Of 5 steps, 4 have injected convolutions, and 2 queries and keys.
    features = 4 * CONV + 2 * (LOW + HIGH)
    assert memory == {
        "pnp/five": 5 * LATENT,
        "pnp/ten": 10 * LATENT,
        "dropped/five": 5 * LATENT,
        "kept/five": LATENT + features,
        "kept/ten": LATENT + features,
        # The light steps, every other one, run no layer of the lower half.
        "kept_clock2/five": LATENT + features - 2 * CONV - LOW,
        "unguided/five": LATENT + features,
    }


def test_bytes_follow_the_precision(unet, scheduler_config):
    loops = loops_of(unet, scheduler_config)
    inverted = loops.invert()
    half = inverted._replace(latents=inverted.latents.half())
    assert kept_bytes(inverted, None) == 2 * kept_bytes(half, None) == 4 * LATENT


def test_all_loops_take_turns_and_each_model_is_loaded_once(
    root, tmp_path, monkeypatch
):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.symlink_to(root / MODEL)
    loaded, turns = [], []
    load, time_in_turns = loading.load_pipeline, latency.time_in_turns

    def note_load(folder, *args):
        loaded.append(folder)
        return load(folder, *args)

    def note_turns(loops, runs, warm_up):
        def noted(name, loop):
            return lambda: (turns.append(name), loop())[1]

        noted_loops = {name: noted(name, loop) for name, loop in loops.items()}
        return time_in_turns(noted_loops, runs, warm_up)

    monkeypatch.setattr(loading, "load_pipeline", note_load)
    monkeypatch.setattr(latency, "time_in_turns", note_turns)
    (one, two), short = map(str, folders), {"steps": 2}
    runs = {
        "pnp/a": timed(one, short, **short),
        "pnp/b": timed(two, short, **short),
        "pnp_clock2/b": timed(two, {**short, **IDENTITY}, **short, **IDENTITY),
    }
    result = time_runs(tmp_path, runs)
    assert loaded == folders
    parts = [f"{name} {loop}" for name in runs for loop in ("inversion", "generation")]
    # Once to warm up, then as often as asked.
    changes = [a for a, b in zip(turns, [*turns[1:], None], strict=True) if a != b]
    assert changes == parts * 3
    assert list(result["runs"]) == list(runs)
    assert set(result["versions"]) == {"torch", "diffusers"}
    assert result["dtype"] == "float32"


def test_a_time_is_that_of_both_loops(model, tmp_path, monkeypatch):
    given = {
        "pnp/a inversion": latency.Timing(3.0, 9.0, (1.0, 2.0, 6.0)),
        "pnp/a generation": latency.Timing(20.0, 9.0, (10.0, 30.0, 20.0)),
    }
    monkeypatch.setattr(latency, "time_in_turns", lambda loops, runs, warm_up: given)
    result = time_runs(tmp_path, {"pnp/a": timed(model)}, repeats=3)
    run = result["runs"]["pnp/a"]
    assert run["runs"] == [11.0, 32.0, 26.0]
    assert run["mean_ms"] == 23.0
    # Not the sum of two deviations, which would take the loops for independent.
    assert run["std_ms"] == pytest.approx(statistics.stdev([11, 32, 26]))
    assert (run["inversion_ms"], run["generation_ms"]) == (3.0, 20.0)
    assert run["per_prompt_ms"] == 20.0


@pytest.mark.parametrize("cut", ["", "stage2"])
def test_both_loops_have_an_adaptor_and_a_cut_of_their_own(
    model, tmp_path, monkeypatch, cut
):
    made = []

    class Noted(Passes):
        def __init__(self, split, adaptor=None):
            super().__init__(split, adaptor)
            made.append((type(adaptor).__name__, split.cut))

    monkeypatch.setattr("clockwork_experiments.generate.runs.Passes", Noted)
    light = {"clock": 2, "adaptor": "resnet", "cut": cut}
    result = time_runs(tmp_path, {"pnp/a": timed(model, IDENTITY, **light)}, repeats=1)
    assert made == [
        ("IdentityAdaptor", "stage1"),
        ("ResNetAdaptor", cut or "stage1"),
    ]
    assert result["runs"]["pnp/a"]["std_ms"] == 0.0


def save_adaptor(folder: Path, root: Path, model: str, cut: str) -> dict:
    """Save a learned adaptor, and return the settings of a loop that uses it."""
    from diffusers import UNet2DConditionModel

    sizes = UNet2DConditionModel.load_config(root / MODEL / "unet")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(sizes)
    made_for = {"model": model, "scheduler": "ddim", "steps": 8, "cut": cut}
    made = adaptors.build_adaptor("resnet", unet, cut, 8, made_for=made_for)
    made.save_pretrained(folder)
    storage.write_checksums(folder)
    return {"clock": 2, "adaptor": str(folder)}


def test_a_learned_adaptor_says_where_it_belongs(root, model, tmp_path):
    sha256 = storage.sha256_folder(root / MODEL)
    light = save_adaptor(tmp_path / "adaptor", root, sha256, "stage2")
    runs = {"pnp/a": timed(model, light, **light)}
    assert time_runs(tmp_path, runs, repeats=1)["runs"]["pnp/a"]["mean_ms"] > 0
    runs = {"pnp/a": timed(model, {**light, "cut": "stage1"})}
    with pytest.raises(ValueError, match="trained for cut 'stage2', and asked for cut"):
        time_runs(tmp_path, runs)


def test_an_adaptor_of_another_model_is_not_timed(root, model, tmp_path):
    light = save_adaptor(tmp_path / "adaptor", root, "0" * 64, "stage1")
    with pytest.raises(ValueError, match="trained for model '0000"):
        time_runs(tmp_path, {"pnp/a": timed(model, light)})
    assert not (tmp_path / "editing.json").exists()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            {"inversion": {"steps": 4}},
            r"spec\.runs\.pnp/a: inversion keeps no latent for",
        ),
        ({"inversion": {"steps": 5, "clock": 2}}, r"pnp/a: clock 2 needs an adaptor"),
        (
            {"generation": {"steps": 5, **TABLE_S4, "beauty": 1}},
            r"unknown key 'beauty' in spec\.runs\.pnp/a\.generation",
        ),
        (
            {"generation": {"steps": 5, **TABLE_S4, "features": "keys"}},
            r"spec\.runs\.pnp/a\.generation: features 'keys' is not latents or",
        ),
        ({"inversion": {"steps": 5, "adaptor": "odd"}}, "odd"),
    ],
)
def test_what_cannot_run_is_named(model, tmp_path, run, message):
    with pytest.raises((ValueError, OSError), match=message):
        time_runs(tmp_path, {"pnp/a": {**timed(model), **run}})
    assert not (tmp_path / "editing.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "half"}, "dtype 'half' is not float16 or float32"),
        ({"repeats": 0}, "repeats 0 is less than 1"),
        ({"runs": {"pnp": timed("model")}}, "run 'pnp' is not <edit>/<setting>"),
    ],
)
def test_what_cannot_be_timed_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        time_runs(tmp_path, **{"runs": {}, **changes})
