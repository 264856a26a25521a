"""Translating and scoring a set from the command line, with small random models."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from clockwork_experiments.base import chunks, storage
from clockwork_experiments.data import pair_sets
from clockwork_experiments.generate import translate as translation
from clockwork_experiments.generate import translators
from clockwork_experiments.generate.text import image_seed
from clockwork_experiments.models import encoders, perceptual
from clockwork_experiments.score import metrics
from clockwork_experiments.score.student import student_quantile
from clockwork_experiments.steps import (
    prepare_pairs,
    score_translations,
    translate_images,
)

MINI = Path(__file__).parents[2] / "resources" / "mini"
EDIT = {"task": "edit", "steps": 3, "guidance": 3.0, "image_guidance": 1.5}
COUNT = 5
FRECHET = {"frechet", "frechet_without"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_translators) -> Path:
    """Return a folder with sets and two models, the new weights at random."""
    folder = tmp_path_factory.mktemp("translations")
    shutil.copytree(random_translators, folder, dirs_exist_ok=True)
    for task in ("edit", "control", "inpainting"):
        chosen = {"task": task, "source": "scenes", "count": COUNT}
        spec = json.dumps(chosen)
        prepare_pairs.prepare_pairs(spec=spec, output=folder / f"{task}.json")
    return folder


def translate(
    folder: Path,
    output: Path,
    *,
    settings: dict | None = None,
    set_name: str = "",
    translator: str = "joined",
    model: Path | None = None,
    searched: Path | None = None,
    method: str | None = None,
    shard: int = 0,
    shards: int = 1,
    **changed,
) -> torch.Tensor:
    settings = EDIT if settings is None else settings
    spec = {"translation": settings, "seed": 4, "batch_size": 2, **changed}
    name = set_name or settings["task"]
    translate_images.translate_images(
        spec=json.dumps(spec),
        translator=folder / translator,
        model=model,
        set=folder / f"{name}.json",
        images=folder / f"{name}.safetensors",
        searched=searched,
        method=method,
        shard=shard,
        shards=shards,
        state=output.parent / "state" / output.stem,
        output=output,
    )
    return storage.read_tensors(output)[0]["images"]


def test_a_set_is_translated_whatever_the_batch(folder, tmp_path):
    images = translate(folder, tmp_path / "a.safetensors")
    assert images.dtype == torch.uint8 and images.shape == (COUNT, 3, 64, 64)
    others = translate(folder, tmp_path / "b.safetensors", batch_size=COUNT)
    assert (images.int() - others.int()).abs().max() <= 1
    seeded = translate(folder, tmp_path / "c.safetensors", seed=5)
    assert not torch.equal(images, seeded)

    translator = translators.load_translator("edit", folder / "joined")
    pairs = pair_sets.read_set(folder / "edit.json")
    inputs, _ = pair_sets.read_images(folder / "edit.safetensors", pairs)
    spec = translation.TranslationSpec(**EDIT)
    prompts, seeds = pairs.prompts[3:4], [image_seed(4, 3)]
    latents = translator.translate(inputs[3:4], prompts, seeds, spec)
    alone = translator.decode(latents, inputs[3:4])
    assert (images[3:4].int() - alone.int()).abs().max() <= 1


def test_timesteps_are_those_that_a_search_found(folder, tmp_path):
    answers = [
        {"steps": 3, "method": "bracketed", "timesteps": [999, 700, 80]},
        {"steps": 4, "method": "bracketed", "timesteps": [999, 700, 400, 80]},
    ]
    found = tmp_path / "steps.json"
    storage.write_json(found, {"searches": answers})
    chosen = {"searched": found, "method": "bracketed"}
    images = translate(folder, tmp_path / "a.safetensors", **chosen)
    told = {**EDIT, "timesteps": [999, 700, 80]}
    same = translate(folder, tmp_path / "b.safetensors", settings=told)
    assert torch.equal(images, same)
    even = translate(folder, tmp_path / "c.safetensors")
    assert not torch.equal(images, even)
    with pytest.raises(ValueError, match="no answer by 'greedy' at 3 steps, but by"):
        translate(folder, tmp_path / "d.safetensors", searched=found, method="greedy")
    assert not (tmp_path / "d.safetensors").exists()


@pytest.mark.parametrize("scheduler", ["ddim", "ddim_stochastic"])
def test_a_set_is_translated_whatever_the_shards(folder, tmp_path, scheduler):
    settings = {**EDIT, "scheduler": scheduler}
    whole = translate(folder, tmp_path / "a.safetensors", settings=settings)
    parts = [
        translate(
            folder,
            tmp_path / f"{shard}.safetensors",
            settings=settings,
            shard=shard,
            shards=3,
        )
        for shard in range(3)
    ]
    assert [len(part) for part in parts] == [1, 2, 2]
    assert (whole.int() - torch.cat(parts).int()).abs().max() <= 1
    with pytest.raises(ValueError, match="shard 3 of 3 of 5 rows does not exist"):
        translate(folder, tmp_path / "d.safetensors", shard=3, shards=3)


def test_drawn_noise_is_the_same_whatever_the_batch(folder, tmp_path):
    settings = {**EDIT, "scheduler": "ddim_stochastic"}
    images = translate(folder, tmp_path / "a.safetensors", settings=settings)
    whole = {"settings": settings, "batch_size": COUNT}
    others = translate(folder, tmp_path / "b.safetensors", **whole)
    assert (images.int() - others.int()).abs().max() <= 1
    plain = translate(folder, tmp_path / "c.safetensors")
    assert (images.int() - plain.int()).abs().max() > 20
    seeded = translate(folder, tmp_path / "d.safetensors", **whole, seed=5)
    assert (images.int() - seeded.int()).abs().max() > 20


def test_a_killed_run_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    whole = translate(folder, tmp_path / "whole.safetensors")
    done = []
    real = translation.Translator.translate

    def killed(*args, **kwargs):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(args[1]))
        return real(*args, **kwargs)

    monkeypatch.setattr(translation.Translator, "translate", killed)
    with pytest.raises(KeyboardInterrupt):
        translate(folder, tmp_path / "part.safetensors")
    assert done == [2, 2] and not (tmp_path / "part.safetensors").exists()

    def counted(*args, **kwargs):
        done.append(len(args[1]))
        return real(*args, **kwargs)

    monkeypatch.setattr(translation.Translator, "translate", counted)
    assert torch.equal(translate(folder, tmp_path / "part.safetensors"), whole)
    assert done == [2, 2, 1]
    assert not (tmp_path / "state" / "part").exists()


def test_level_and_clock_change_the_images(folder, tmp_path):
    whole = translate(folder, tmp_path / "whole.safetensors")
    same = translate(folder, tmp_path / "same.safetensors", level=13)
    assert torch.equal(whole, same)
    level = translate(folder, tmp_path / "level.safetensors", level=6)
    assert not torch.equal(whole, level)
    clocked = {**EDIT, "clock": 2}
    both = translate(
        folder,
        tmp_path / "both.safetensors",
        settings=clocked,
        level=6,
        kind="identity",
    )
    assert not torch.equal(level, both)


def test_a_controlnet_translates_beside_its_pipeline(folder, tmp_path):
    settings = {"task": "control", "steps": 2, "guidance": 9.0}
    chosen = {"settings": settings, "translator": "controlnet"}
    sd = MINI / "stable-diffusion"
    images = translate(folder, tmp_path / "a.safetensors", **chosen, model=sd)
    assert images.shape == (COUNT, 3, 64, 64)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"set_name": "control"}, "control.json is for control, not for edit"),
        ({"level": 14}, "14"),
        ({"level": 0}, "0"),
        ({"batch_size": 0}, "batch_size 0 is less than 1"),
        ({"settings": {**EDIT, "clock": 2}}, "clock 2 needs an adaptor"),
        ({"settings": {**EDIT, "etas": 1}}, "unknown key 'etas' in spec.translation"),
        ({"kind": "resnet", "settings": {**EDIT, "clock": 2}}, "resnet"),
        ({"model": MINI / "stable-diffusion"}, "no other task has one"),
    ],
)
def test_wrong_runs_are_refused(folder, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message) as caught:
        translate(folder, tmp_path / "a.safetensors", **changed)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.safetensors").exists()


def test_images_below_the_minimum_are_refused(folder, tmp_path):
    for name in ("json", "safetensors"):
        shutil.copy(folder / f"edit.{name}", tmp_path)
    shutil.copytree(folder / "joined", tmp_path / "joined")
    small = torch.zeros(COUNT, 3, 16, 16, dtype=torch.uint8)
    storage.write_tensors(tmp_path / "edit.safetensors", {"inputs": small})
    with pytest.raises(ValueError, match="images are 16×16 .* needs 32×32 or more"):
        translate(tmp_path, tmp_path / "a.safetensors")


# --- scores ---------------------------------------------------------------------------


def score(
    folder: Path,
    task: str,
    made: dict[str, torch.Tensor],
    output: Path,
    *,
    teachers: dict[str, str] | None = None,
    compared: tuple[str, ...] = (),
    aesthetic: Path | None = None,
    shard_size: int = COUNT,
) -> dict[str, tuple[dict, dict]]:
    paths: dict[str, list[Path]] = {}
    for name, images in made.items():
        for index, part in enumerate(images.split(shard_size)):
            path = output / "translated" / name / f"{index:03d}.safetensors"
            storage.write_tensors(path, {"images": part})
            paths.setdefault(name, []).append(path)
    scored = [name for name in made if name not in compared]
    score_translations.score_translations(
        set=folder / f"{task}.json",
        images=folder / f"{task}.safetensors",
        clip=MINI / "clip",
        frechet=MINI / "features",
        frechet_kind="mini",
        lpips=MINI / "features",
        lpips_kind="mini",
        aesthetic=aesthetic,
        translated=[path for name in scored for path in paths[name]],
        compared=[path for name in compared for path in paths[name]],
        teachers=teachers,
        output=[output / f"{name}.json" for name in scored],
    )
    return {
        name: (
            json.loads((output / f"{name}.json").read_text()),
            storage.read_tensors(output / f"{name}.safetensors")[0],
        )
        for name in scored
    }


def test_edits_are_scored_pair_by_pair(folder, tmp_path):
    pairs = pair_sets.read_set(folder / "edit.json")
    inputs, targets = pair_sets.read_images(folder / "edit.safetensors", pairs)
    made = {"exact": targets, "idle": inputs}
    found = score(folder, "edit", made, tmp_path, teachers={"idle": "exact"})
    data, rows = found["idle"]
    names = {"psnr", "lpips", "clip", "clip_image", "clip_direction"}
    to_teacher = {"psnr_to_teacher", "lpips_to_teacher"}
    # Not of a pair: the Fréchet distance, and that without each group of pairs.
    distance, without = rows.pop("frechet"), rows.pop("frechet_without")
    kept = data["scores"]["frechet"]
    assert distance.tolist() == [kept["value"]] and without.shape == (COUNT,)
    variance = (COUNT - 1) ** 2 / COUNT * float(without.var())
    half = (kept["high"] - kept["low"]) / 2
    quantile = student_quantile(COUNT - 1, 0.975)
    assert half == pytest.approx(quantile * math.sqrt(variance), rel=1e-6)
    assert set(rows) == names | to_teacher
    assert set(data["scores"]) == names | to_teacher | {"frechet"}
    assert set(found["exact"][0]["scores"]) == names | {"frechet"}
    assert data["translation"] == "idle"
    assert set(data["encoders"]) == {"clip", "frechet", "lpips"}
    for name, values in rows.items():
        assert values.dtype == torch.float64 and values.shape == (COUNT,)
        kept = data["scores"][name]
        assert kept["value"] == pytest.approx(float(values.mean()))
        assert kept["low"] <= kept["value"] <= kept["high"] and kept["n"] == COUNT
    assert "mini feature network" in data["scores"]["lpips"]["note"]
    assert "mini feature network" in data["scores"]["lpips_to_teacher"]["note"]
    assert not data["scores"]["psnr"]["note"]

    assert torch.equal(rows["psnr"], metrics.psnr(inputs, targets))
    assert torch.equal(rows["psnr"], rows["psnr_to_teacher"])
    assert torch.equal(rows["lpips"], rows["lpips_to_teacher"])
    # An image that stays as it is has no direction, and is like itself.
    assert torch.allclose(rows["clip_image"], torch.ones(COUNT).double())
    assert torch.equal(rows["clip_direction"], torch.zeros(COUNT).double())
    exact = found["exact"][1]
    assert exact["psnr"].min() == metrics.ROUNDING_PSNR
    assert exact["lpips"].abs().max() < 1e-6
    assert found["exact"][0]["scores"]["frechet"]["value"] < 1e-3
    assert data["scores"]["frechet"]["value"] > 0.1

    clip = encoders.load_clip(MINI / "clip")
    before, after = (
        encoders.clip_image_features(clip, images) for images in (inputs, targets)
    )
    told = encoders.clip_text_features(clip, list(pairs.target_captions))
    source = encoders.clip_text_features(clip, list(pairs.source_captions))
    assert torch.equal(exact["clip"], metrics.cosines(after, told))
    assert torch.equal(exact["clip_image"], metrics.cosines(before, after))
    direction = perceptual.direction_cosines(before, after, source, told)
    assert torch.equal(exact["clip_direction"], direction)
    # The exact edit goes where the captions say, far more than chance would have it.
    assert direction.mean() > 0.3


def test_scores_are_the_same_however_translations_are_cut(folder, tmp_path):
    pairs = pair_sets.read_set(folder / "edit.json")
    inputs, targets = pair_sets.read_images(folder / "edit.safetensors", pairs)
    made = {"exact": targets, "idle": inputs}
    settings = {"teachers": {"idle": "exact"}}
    whole = score(folder, "edit", made, tmp_path / "1", **settings)
    cut = score(folder, "edit", made, tmp_path / "5", **settings, shard_size=1)
    for name, (data, rows) in whole.items():
        assert cut[name][0]["scores"] == data["scores"]
        assert all(torch.equal(cut[name][1][key], rows[key]) for key in rows)


def test_each_task_has_its_own_scores(folder, tmp_path):
    images = {}
    for task in ("control", "inpainting"):
        pairs = pair_sets.read_set(folder / f"{task}.json")
        _, images[task] = pair_sets.read_images(folder / f"{task}.safetensors", pairs)
    plain = {"psnr", "lpips"}
    made = {"a": images["control"]}
    _, rows = score(folder, "control", made, tmp_path / "control")["a"]
    assert set(rows) - FRECHET == plain | {"clip"}
    head = tmp_path / "head.safetensors"
    weight, bias = torch.zeros(1, 64), torch.tensor([5.5])
    storage.write_tensors(head, {"weight": weight, "bias": bias})
    made = {"a": images["inpainting"]}
    data, rows = score(folder, "inpainting", made, tmp_path / "in", aesthetic=head)["a"]
    assert set(rows) - FRECHET == plain | {"aesthetic"}
    assert rows["aesthetic"].tolist() == [5.5] * COUNT
    assert data["encoders"]["aesthetic"]["sha256"] == storage.sha256(head)


def test_without_targets_there_is_no_distance_to_them(folder, tmp_path):
    shutil.copy(folder / "edit.json", tmp_path / "edit.json")
    tensors, _ = storage.read_tensors(folder / "edit.safetensors")
    storage.write_tensors(tmp_path / "edit.safetensors", {"inputs": tensors["inputs"]})
    made = {"a": tensors["targets"], "b": tensors["inputs"]}
    found = score(
        tmp_path, "edit", made, tmp_path / "s", teachers={"a": "b"}, compared=("b",)
    )
    scores = {"clip", "clip_image", "clip_direction"}
    assert set(found) == {"a"}
    to_teacher = {"psnr_to_teacher", "lpips_to_teacher"}
    assert set(found["a"][0]["scores"]) == scores | to_teacher


def test_wrong_scores_are_refused(folder, tmp_path):
    pairs = pair_sets.read_set(folder / "edit.json")
    inputs, _ = pair_sets.read_images(folder / "edit.safetensors", pairs)
    with pytest.raises(ValueError, match="no images of 'b', teacher of 'a'"):
        score(folder, "edit", {"a": inputs}, tmp_path, teachers={"a": "b"})
    with pytest.raises(ValueError, match=r"images are .*as the set's inputs"):
        score(folder, "edit", {"a": inputs[:2]}, tmp_path)


def test_state_of_other_weights_is_not_continued(folder, tmp_path):
    marks = []
    real = chunks.in_chunks

    def seen(total, size, work, state, fingerprint, *named):
        marks.append(fingerprint)
        return real(total, size, work, state, fingerprint, *named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "in_chunks", seen)
        translate(folder, tmp_path / "a.safetensors")
        translate(folder, tmp_path / "b.safetensors", level=6)
        translate(folder, tmp_path / "c.safetensors")
    assert marks[0] == marks[2] != marks[1]
    assert storage.sha256_folder(folder / "joined") in marks[0]
