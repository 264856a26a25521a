"""Whole edits, profiled, against what is counted of them and against the paper."""

from pathlib import Path

import pytest
import torch

from clockwork_diffusion import adaptors
from clockwork_diffusion.adaptors import IdentityAdaptor
from clockwork_diffusion.passes import Passes
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.cost import edit_profiles
from clockwork_experiments.cost.architectures import SD_V15_TEXT, VIT_G14_WIDTH
from clockwork_experiments.cost.edit_loops import (
    EditLoops,
    GenerationLoop,
    InversionLoop,
)
from clockwork_experiments.cost.unet_counts import FlopsSpec
from clockwork_experiments.steps import count_flops, profile_editing

UNET = "resources/mini/stable-diffusion/unet/config.json"
TABLE_S4 = {"guidance": 15.0, "tau_f": 0.8, "tau_a": 0.5}
MINI = {
    "backbone": "sd",
    "tokens": 8,
    "text_channels": 12,
    "adaptors": {
        "identity": {"kind": "identity"},
        "coarse": {"kind": "identity", "cut": "stage2"},
        "small": {"kind": "resnet", "inputs": ["r_out"]},
    },
}
CONVENTIONS = ("", "_with_attention")


def edit(steps=10, clock=1, adaptor="identity", inversion=(), **generation) -> dict:
    """Return settings with one clock and one adaptor for both loops."""
    shared = {"clock": clock, "adaptor": adaptor if clock > 1 else ""}
    return {
        "model": "sd",
        "inversion": {"steps": steps, **shared, **dict(inversion)},
        "generation": {"steps": steps, **shared, **TABLE_S4, **generation},
    }


EDITS = {
    "base": edit(),
    "clock2": edit(clock=2),
    "clock4": edit(clock=4),
    "drop": edit(drop_source=True),
    "kept": edit(features="activations"),
    "kept_for_5": edit(5, features="activations", prompts=5),
    "kept_clock4": edit(5, clock=4, features="activations"),
    "drop_clock2": edit(5, clock=2, drop_source=True),
    "unguided": edit(5, guidance=1.0, drop_source=True),
    "coarse": edit(4, clock=2, adaptor="coarse"),
    "small": edit(5, clock=2, adaptor="small"),
    "mixed": edit(5, clock=2, inversion={"steps": 10, "adaptor": "small"}),
}


def count(folder: Path, spec: dict, unet: Path | None) -> Path:
    path = folder / "sd.json"
    chosen = parse(FlopsSpec, spec)
    count_flops.count_flops(chosen, path, unet)
    return path


def profile(flops: Path, spec: dict, runs: dict, unet=None, device="cpu") -> dict:
    spec = {**spec, "runs": runs, "device": device}
    output = flops.with_name("editing.json")
    chosen = parse(edit_profiles.ProfileSpec, spec)
    profile_editing.profile_editing(chosen, flops, output, unet)
    return storage.read_json(output)["runs"]


@pytest.fixture(scope="module")
def unet_file(root) -> Path:
    return root / UNET


@pytest.fixture(scope="module")
def counts(tmp_path_factory, unet_file) -> Path:
    return count(tmp_path_factory.mktemp("flops"), MINI, unet_file)


@pytest.fixture(scope="module")
def profiled(counts, unet_file) -> dict:
    return profile(counts, MINI, EDITS, unet_file)


# --- the mini model -------------------------------------------------------------------


@pytest.mark.parametrize("name", EDITS)
def test_what_tables_count_is_what_runs(profiled, name):
    for ending in CONVENTIONS:
        counted = profiled[name][f"counted{ending}"]
        # To the last operation, well within the step's tolerance.
        assert profiled[name][f"profiled{ending}"] == pytest.approx(counted, rel=1e-12)
        assert profiled[name][f"ratio_counted{ending}"] == pytest.approx(1, rel=1e-12)
    attention = profiled[name]["profiled_with_attention"]
    assert attention > profiled[name]["profiled"]


def test_passes_by_hand(profiled, counts):
    """Not by `formulas`, which is what the step compares with."""
    single = storage.read_json(counts)
    full = single["full"]["flops"]
    light = single["adaptors"]["identity"]["step"]["flops"]
    passes = {
        "base": (40, 0),
        "clock2": (20, 20),
        "clock4": (12, 28),
        "drop": (38, 0),
        "kept": (38, 0),
        # Full steps 1, 3 and 5; the source's row runs for 4 of them.
        "drop_clock2": (3 + 2 * 3 + 2, 2 + 2 * 2 + 2),
        # Full steps 1 and 5; 4 of them inject.
        "kept_clock4": (2 + 1 + 2 * 2, 3 + 3 + 2 * 3),
        "unguided": (5 + 4 + 5, 0),
    }
    for name, (whole, part) in passes.items():
        assert profiled[name]["profiled"] == whole * full + part * light, name
    assert profiled["kept_for_5"]["profiled"] == pytest.approx((15 + 4 / 5) * full)


def test_the_papers_count_differs_where_it_rounds_and_where_we_save(profiled, counts):
    single = storage.read_json(counts)
    full = single["full"]["flops"]
    light = single["adaptors"]["identity"]["step"]["flops"]
    ratios = {name: run["ratio_printed"] for name, run in profiled.items()}
    assert ratios["base"] == ratios["clock2"] == ratios["coarse"] == 1
    # 10 div 4 are 2 full steps, and the clock makes 3.
    expected = (3 * full + 7 * light) / (2 * full + 8 * light)
    assert ratios["clock4"] == pytest.approx(expected)
    assert ratios["drop"] == ratios["kept"] == pytest.approx(38 / 40)


def test_the_upsampler_is_what_our_identity_saves(profiled, counts):
    single = storage.read_json(counts)["adaptors"]
    for ending in CONVENTIONS:
        key = f"flops{ending}"
        for name, adaptor, light in (
            ("clock2", "identity", 20),
            ("clock4", "identity", 28),
            ("drop_clock2", "identity", 8),
            ("coarse", "coarse", 8),
            # The inversion's adaptor is another.
            ("mixed", "identity", 6),
        ):
            step = single[adaptor]
            saved = step["step"][key] - step["step_after_upsampler"][key]
            run = profiled[name]
            after = run[f"profiled_after_upsampler{ending}"]
            assert run[f"profiled{ending}"] - after == light * saved > 0, name
    for name in ("base", "small", "drop"):
        assert "profiled_after_upsampler" not in profiled[name]


def loops_of(unet, config, adaptor=None, **generation) -> EditLoops:
    clock = 1 if adaptor is None else 2
    passes = Passes(SplitUNet(unet), adaptor)
    options = {**TABLE_S4, "clock": clock, **generation}
    return EditLoops(
        passes,
        passes,
        config,
        InversionLoop(10, clock),
        GenerationLoop(10, **options),
        5,
        12,
    )


@pytest.mark.parametrize(
    ("tau_f", "tau_a", "with_source"),
    [(0.8, 0.5, 8), (0.3, 0.6, 6), (0.0, 0.0, 0), (1.0, 0.5, 10)],
)
def test_a_dropped_source_is_one_row_of_three(
    unet, scheduler_config, tau_f, tau_a, with_source
):
    """F_G of Eq. 3 is three rows; the last 1 - max(τ) of the steps have two."""
    taus = {"tau_f": tau_f, "tau_a": tau_a}
    plain, dropped = (
        edit_profiles.profile(
            loops_of(unet, scheduler_config, **taus, drop_source=drop), unet
        )
        for drop in (False, True)
    )
    assert dropped.inversion == plain.inversion
    assert dropped.extraction.flops == plain.extraction.flops == 0
    share = (3 * with_source + 2 * (10 - with_source)) / 30
    assert plain.generation.flops == 3 * plain.inversion.flops
    assert dropped.generation.flops == share * plain.generation.flops
    attention = dropped.generation.flops_with_attention
    assert attention == share * plain.generation.flops_with_attention


def test_hidden_identity_makes_the_same_edit(unet, scheduler_config):
    edits = []
    for adaptor in (
        IdentityAdaptor(),
        edit_profiles.BeforeUpsampler(IdentityAdaptor()),
    ):
        loops = loops_of(unet, scheduler_config, adaptor)
        edits.append(loops.generate(loops.invert(), None))
    torch.testing.assert_close(*edits, rtol=1e-4, atol=1e-4)


def test_nothing_has_to_be_computed(counts, unet_file):
    runs = {
        "clock2": edit(2, clock=2, drop_source=True, tau_f=0.5),
        "kept": edit(2, clock=2, adaptor="small", features="activations"),
    }
    meta, cpu = (
        profile(counts, MINI, runs, unet_file, device) for device in ("meta", "cpu")
    )
    assert meta == cpu


# --- SD v1.5 --------------------------------------------------------------------------


def test_the_published_costs_of_editing(tmp_path):
    """Two steps each way cost a fifth of ten, whose TFLOPs the paper leads to."""
    spec = {
        "backbone": "sd",
        "tokens": SD_V15_TEXT[0],
        "text_channels": VIT_G14_WIDTH,
        "adaptors": {"identity": {"kind": "identity"}},
    }
    runs = {"base": edit(2), "clock2": edit(2, clock=2)}
    found = profile(count(tmp_path, spec, None), spec, runs, device="meta")
    base, clock2 = (found[name]["profiled"] for name in runs)
    assert 5 * base == pytest.approx(27.1e12, rel=0.002)
    assert 5 * clock2 == pytest.approx(18.1e12, rel=0.002)
    # F_ε and F_εH: eight passes, and four of each.
    assert base / 8 == pytest.approx(677.8e9, rel=0.001)
    assert clock2 / 4 - base / 8 == pytest.approx(228.4e9, rel=0.002)
    after = found["clock2"]["profiled_after_upsampler"]
    assert after / 4 - base / 8 == pytest.approx(197.9e9, rel=0.002)
    assert found["clock2"]["ratio_counted"] == found["clock2"]["ratio_printed"] == 1


# --- the check ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["flops", "flops_with_attention"])
def test_a_wrong_count_is_refused_and_nothing_written(counts, unet_file, tmp_path, key):
    wrong = storage.read_json(counts)
    wrong["full"][key] = int(1.02 * wrong["full"][key])
    storage.write_json(tmp_path / "sd.json", wrong)
    runs = {"base": edit(2), "clock2": edit(2, clock=2)}
    with pytest.raises(
        ValueError,
        match=rf"differ by more than 1%: base takes .* {key}, counted .*; clock2 takes",
    ) as error:
        profile(tmp_path / "sd.json", MINI, runs, unet_file)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "editing.json").exists()


def test_a_count_within_the_tolerance_passes(counts, unet_file, tmp_path):
    near = storage.read_json(counts)
    near["full"]["flops"] = int(0.995 * near["full"]["flops"])
    storage.write_json(tmp_path / "sd.json", near)
    runs = profile(tmp_path / "sd.json", MINI, {"base": edit(2)}, unet_file)
    assert runs["base"]["ratio_counted"] == pytest.approx(1 / 0.995, rel=1e-4)


def test_a_loop_that_saves_nothing_is_found_out(
    counts, unet_file, tmp_path, monkeypatch
):
    def light(self, x, t, c, past, pooled=None):
        return self.full(x, t, c)

    monkeypatch.setattr(Passes, "light", light)
    with pytest.raises(ValueError, match="differ by more than 1%: clock2 takes"):
        runs = {"base": edit(2), "clock2": edit(2, clock=2)}
        profile(counts, MINI, runs, unet_file)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({**edit(2), "model": "efficient"}, "no counts of model 'efficient'"),
        (
            edit(2, clock=2, adaptor="odd"),
            "'odd' is not one of identity, coarse, small",
        ),
        (
            edit(2, clock=2, adaptor="coarse", inversion={"cut": "stage1"}),
            r"spec\.runs\.run: the adaptor is for cut 'stage2'",
        ),
        (edit(4, inversion={"steps": 2}), r"runs\.run: inversion keeps no latent for"),
        (edit(2, tau_f=1.5), r"spec\.runs\.run\.generation: tau_f 1\.5 is not within"),
    ],
)
def test_what_cannot_be_profiled_is_named(counts, unet_file, run, message):
    with pytest.raises(ValueError, match=message):
        profile(counts, MINI, {"run": run}, unet_file)


def test_an_unknown_device_is_named(counts, unet_file):
    with pytest.raises(ValueError, match="device 'cuda' is not meta or cpu"):
        profile(counts, MINI, {}, unet_file, "cuda")


def test_extra_adaptors_are_profiled_too(unet, scheduler_config):
    """Their own FLOPs are among what is counted, each loop's by itself."""
    adaptor = adaptors.build_adaptor("resnet", unet, "stage1", 12)
    loops = loops_of(unet, scheduler_config, adaptor)
    both = edit_profiles.profile(loops, unet, adaptor)
    alone = edit_profiles.profile(loops, adaptor)
    without = edit_profiles.profile(loops, unet)
    assert both.inversion.flops - without.inversion.flops == alone.inversion.flops > 0
    assert alone.generation.flops == 3 * alone.inversion.flops
