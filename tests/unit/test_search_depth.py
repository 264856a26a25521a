"""Searching for levels from the command line, with small random models."""

import json
import shutil
from pathlib import Path

import pytest

from clockwork_diffusion.depth_skip import depth_skipped
from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import pair_sets, shards
from clockwork_experiments.generate import translate, translators
from clockwork_experiments.generate.text import image_seed
from clockwork_experiments.models import encoders, perceptual
from clockwork_experiments.score import metrics
from clockwork_experiments.search import evaluator
from clockwork_experiments.search.depth import DepthSearchSpec
from clockwork_experiments.steps import prepare_pairs, search_depth

MINI = Path(__file__).parents[2] / "resources" / "mini"
COUNT, STEPS = 3, 4
LEVELS = [13, 11, 9, 8, 2]
SPEC = {
    "translation": {"task": "edit", "steps": STEPS, "guidance": 3.0},
    "seed": 4,
    "batch_size": 2,
    "levels": LEVELS,
    "thresholds": [{"metric": "psnr_to_teacher", "at_least": 0.0}],
}
MULTI = {"groups": 2, "levels": [13, 9, 8], "rows": [9], "verified": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_translators) -> Path:
    """Return a folder with sets, models with new weights at random, and counts."""
    folder = tmp_path_factory.mktemp("search")
    shutil.copytree(random_translators, folder, dirs_exist_ok=True)
    for name, task, offset in (
        ("edit", "edit", 0),
        ("others", "edit", 10),
        ("control", "control", 0),
    ):
        chosen = {"task": task, "source": "scenes", "count": COUNT, "offset": offset}
        spec = json.dumps(chosen)
        prepare_pairs.prepare_pairs(spec=spec, output=folder / f"{name}.json")
    levels = [
        {"level": n, "parameters": 10 * n, "count": {"macs_with_norms": 100 + n}}
        for n in range(1, 14)
    ]
    counted = {"levels": levels, "shared": {"output": 1}, "branch": None}
    storage.write_json(folder / "levels.json", counted)
    return folder


def search(folder: Path, output: Path, *, state: Path | None = None, **changed):
    options = {
        "translator": folder / "joined",
        "model": None,
        "set": folder / "edit.json",
        "heldout": folder / "others.json",
        "clip": MINI / "clip",
        "frechet": None,
        "frechet_kind": None,
        "levels": folder / "levels.json",
        "timing": None,
        "state": state or output.parent / "state",
        "output": output,
    }
    options |= {key: changed.pop(key) for key in options.keys() & changed.keys()}
    spec = {**SPEC, **changed.pop("spec", {})}
    assert not changed
    search_depth.search_depth(parse(DepthSearchSpec, spec), **options)
    return storage.read_json(output)


@pytest.fixture(scope="module")
def report(folder):
    return search(folder, folder / "report.json", spec={"multi": MULTI})


def test_the_scan_measures_depth_skip_from_the_same_noise(folder, report):
    translator = translators.load_translator("edit", folder / "joined")
    pairs = pair_sets.read_set(folder / "edit.json")
    inputs, targets = pair_sets.read_images(folder / "edit.safetensors", pairs)
    clip = encoders.load_clip(MINI / "clip")
    seeds = [image_seed(4, index) for index in range(COUNT)]
    spec = translate.TranslationSpec(**SPEC["translation"])
    images, pixels = {}, {}
    for level in (13, 9):
        with depth_skipped(translator.pipe, level):
            latents = translator.translate(inputs, pairs.prompts, seeds, spec)
        pixels[level] = translator.decode_pixels(latents, inputs)
        images[level] = translator.decode(latents, inputs)
    before, after = (
        encoders.clip_image_features(clip, each) for each in (inputs, images[9])
    )
    captions = [
        encoders.clip_text_features(clip, list(each))
        for each in (pairs.source_captions, pairs.target_captions)
    ]
    wanted = {
        # Of what was not rounded to 8 bits.
        "psnr_to_teacher": metrics.psnr(pixels[9], pixels[13]),
        "psnr": metrics.psnr(pixels[9], targets.float() / 255),
        "clip_image": metrics.cosines(before, after),
        "clip_direction": perceptual.direction_cosines(before, after, *captions),
        "clip": metrics.cosines(after, captions[1]),
    }
    row = next(row for row in report["scan"] if row["level"] == 9)
    assert row["metrics"].keys() == wanted.keys()
    for name, values in wanted.items():
        assert row["metrics"][name] == pytest.approx(float(values.mean()), abs=0.005)
        assert row["scores"][name]["value"] == row["metrics"][name]
        assert row["scores"][name]["n"] == COUNT


def test_the_report_says_what_each_level_costs(report):
    assert [row["level"] for row in report["scan"]] == LEVELS
    assert report["chosen"] == 2 and report["limits"] == {"psnr_to_teacher": 0.0}
    assert report["pairs"] == {"search": COUNT, "heldout": COUNT}
    first, *_, last = report["scan"]
    assert first["time"] == first["parameters"] == 100
    assert last["time"] == pytest.approx(100 * 102 / 113)
    assert last["parameters"] == pytest.approx(100 * 31 / 910)
    assert first["metrics"]["psnr_to_teacher"] == pytest.approx(metrics.EXACT_PSNR)
    assert last["metrics"]["psnr_to_teacher"] < 40
    gap = report["heldout"]["minus_full"]["psnr_to_teacher"]
    assert gap["value"] < 0 and gap["n"] == COUNT


def test_the_rows_of_table_s6(folder, report):
    multi = report["multi"]
    assert multi["groups"] == [2, 2]
    assert [row["problem"] for row in multi["rows"]] == ["a", "b", "c", "d"]
    for row in multi["rows"]:
        levels = row["schedule"]
        assert len(levels) == STEPS and row["row"] == 9
        assert row["improved"] == (levels != [9] * STEPS)
        best, beyond = row["best_single"], row["beyond_best_single"]
        assert best in LEVELS
        # Each against the row, the difference is that between the two.
        apart = beyond["savings"]["time"] - row["savings"]["time"]
        assert apart == pytest.approx(100 * (9 - best) / 113)
        assert len(beyond["heldout_pairs"]["clip_image"]) == COUNT
        if len(set(levels)) == 1:
            assert beyond["savings"]["time"] == 0
        mean = sum(100 + level for level in levels) / STEPS
        assert row["savings"]["time"] == pytest.approx(100 * (mean - 109) / 113)
        for where in ("search", "heldout"):
            found = row[where]["clip_image"]
            assert found["low"] <= found["value"] <= found["high"]
            if not row["improved"]:
                assert found["value"] == 0
        if row["problem"] == "b":
            assert row["search"]["clip_image"]["value"] >= 0
        if row["problem"] == "c":
            assert row["search"]["clip_direction"]["value"] >= 0
    counts = report["evaluations"]
    assert counts["scan"] == 5 and counts["sensitivities"] == 4
    assert counts["constant"] == 0
    # The full model, the chosen level, the row, and what differs from it.
    answers = {tuple(row["schedule"]) for row in multi["rows"]}
    answers |= {(row["best_single"],) * STEPS for row in multi["rows"]}
    constant = {(level,) * STEPS for level in (13, 9, 2)}
    assert counts["heldout"] == len(answers | constant)


def test_a_killed_search_goes_on_where_it_was(folder, report, tmp_path, monkeypatch):
    done = []
    real = translate.Translator.translate

    def counted(*args, **kwargs):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(args)
        return real(*args, **kwargs)

    spec = {"levels": [13, 9, 8]}
    monkeypatch.setattr(translate.Translator, "translate", counted)
    with pytest.raises(KeyboardInterrupt):
        search(folder, tmp_path / "report.json", spec=spec)
    done.clear()
    monkeypatch.setattr(translate.Translator, "translate", real)
    calls = []

    def watched(*args, **kwargs):
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(translate.Translator, "translate", watched)
    found = search(folder, tmp_path / "report.json", spec=spec)
    # Two of three levels were done, and the third half; two more on other pairs.
    assert len(calls) == 2 * (1 + 2)
    rows = {row["level"]: row["metrics"] for row in report["scan"]}
    for row in found["scan"]:
        assert row["metrics"] == rows[row["level"]]
    calls.clear()
    thresholds = [{"metric": "psnr_to_teacher", "at_least": 58.0}]
    strict = {**spec, "thresholds": thresholds}
    assert search(folder, tmp_path / "report.json", spec=strict)["chosen"] == 13
    # The level chosen before was measured on the other pairs, and so was the full one.
    assert not calls
    search(folder, tmp_path / "report.json", spec={**spec, "seed": 5})
    assert len(calls) == 2 * (3 + 2)


def test_images_are_made_and_judged_some_at_a_time(
    folder, report, tmp_path, monkeypatch
):
    made = []
    real = encoders.clip_image_features

    def watched(encoder, images):
        made.append(len(images))
        return real(encoder, images)

    monkeypatch.setattr(encoders, "clip_image_features", watched)
    monkeypatch.setattr(shards, "IMAGES", 2)
    found = search(folder, tmp_path / "report.json", spec={"levels": [13, 9]})
    assert set(made) == {2, 1}
    rows = {row["level"]: row["metrics"] for row in report["scan"]}
    for row in found["scan"]:
        for name, value in row["metrics"].items():
            assert value == pytest.approx(rows[row["level"]][name], abs=1e-4)


def test_a_killed_evaluation_goes_on_in_its_middle(
    folder, report, tmp_path, monkeypatch
):
    done, real = [], translate.Translator.translate

    def counted(*args, **kwargs):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(shards, "IMAGES", 2)
    monkeypatch.setattr(translate.Translator, "translate", counted)
    with pytest.raises(KeyboardInterrupt):
        search(folder, tmp_path / "report.json", spec={"levels": [13, 9]})
    # The whole model's two batches, and the first of level 9's.
    assert len(done) == 3
    done.clear()
    monkeypatch.setattr(
        translate.Translator,
        "translate",
        lambda *args, **kwargs: done.append(args) or real(*args, **kwargs),
    )
    found = search(folder, tmp_path / "report.json", spec={"levels": [13, 9]})
    # The other one, and two more schedules on other pairs.
    assert len(done) == 1 + 2 * 2
    wanted = {row["level"]: row["metrics"] for row in report["scan"]}
    for row in found["scan"]:
        assert row["metrics"] == pytest.approx(wanted[row["level"]], abs=1e-4)
    assert not list((tmp_path / "state").rglob("*.chunks"))


def test_schedules_of_many_steps_have_short_names_of_their_own():
    steps = tuple(range(999, 799, -1))
    one, other = (
        evaluator.SamplingSchedule(steps, levels) for levels in ((), (9,) * 200)
    )
    assert len(one.name) == len(other.name) == evaluator.NAME
    assert one.name != other.name and one.name.startswith("ddim_999-998-")
    assert evaluator.SamplingSchedule((999, 499)).name == "ddim_999-499"


def test_control_is_judged_by_its_set(folder, tmp_path):
    translating = {"task": "control", "steps": 2, "guidance": 2.0}
    found = search(
        folder,
        tmp_path / "report.json",
        translator=folder / "controlnet",
        model=MINI / "stable-diffusion",
        set=folder / "control.json",
        heldout=folder / "control.json",
        frechet=MINI / "features",
        frechet_kind="mini",
        spec={
            "translation": translating,
            "levels": [13, 1],
            "thresholds": [{"metric": "frechet", "at_most": 1.0, "of_full": True}],
        },
    )
    full, other = (row["metrics"]["frechet"] for row in found["scan"])
    assert found["limits"]["frechet"] == full > 0
    assert found["chosen"] == (13 if other > full else 1)
    assert found["encoders"].keys() == {"clip", "frechet"}
    gap = found["heldout"]["minus_full"]["frechet"]
    assert gap["value"] == pytest.approx(0 if other > full else other - full)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"set": "control.json"}, "the set is for control, not for edit"),
        ({"spec": {"levels": [12, 9]}}, "do not start at the full model's, 13"),
        ({"spec": {"batch_size": 0}}, "batch_size 0 is less than 1"),
        ({"spec": {"multi": {**MULTI, "groups": 0}}}, "groups 0 and verified 2 must"),
        (
            {"spec": {"translation": {**SPEC["translation"], "clock": 2}}},
            "clock 2: levels are searched without",
        ),
        (
            {"spec": {"thresholds": [{"metric": "frechet", "at_most": 22.0}]}},
            "needs its network",
        ),
        (
            {"spec": {"thresholds": [{"metric": "clip_imag", "at_least": 0.7}]}},
            "'clip_imag' is not one of",
        ),
    ],
)
def test_wrong_searches_are_refused(folder, tmp_path, changed, message):
    if "set" in changed:
        changed = {"set": folder / changed["set"]}
    elif "translation" not in changed["spec"]:
        quick = {**SPEC["translation"], "steps": 1}
        changed = {"spec": {"levels": [13], "translation": quick, **changed["spec"]}}
    with pytest.raises(ValueError, match=message) as caught:
        search(folder, tmp_path / "report.json", **changed)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.json").exists()
