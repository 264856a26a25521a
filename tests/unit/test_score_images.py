"""Scores of runs from their shards: the same for any number, in little memory."""

import json
from argparse import Namespace
from itertools import chain
from pathlib import Path

import pytest
import torch
from peaks import needs_proc, peak_mb

from clockwork_experiments.base import storage
from clockwork_experiments.data import datasets
from clockwork_experiments.score import dead, metrics
from clockwork_experiments.steps import score_images

DIM = 6
COUNTS = dead.Counts(images=5, constant=1)
ENCODERS = {
    "encoders": json.dumps({"clip": {"sha256": "0"}}),
    "captions": json.dumps({"captions": 3, "cut": 1, "unknown": 0}),
}


def write(folder: Path, name: str, shards: int, tensors: dict) -> list[Path]:
    """Write a run's, or a data set's, rows as its shards."""
    paths = []
    for shard in range(shards):
        paths.append(folder / name / f"{shard:03d}.safetensors")
        part = {}
        for key, rows in tensors.items():
            chosen = datasets.shard_rows(len(rows), shard, shards)
            part[key] = rows[chosen.start : chosen.stop]
        counts = dead.count([part["images"]], name) if "images" in part else COUNTS
        storage.write_tensors(
            paths[-1], part, {**ENCODERS, **dead.notes({name: counts})}
        )
    return paths


def described(seed: int, count: int, seeds: int, size: int = 16) -> dict:
    """Return features and images; images of one prompt are alike."""
    generator = torch.Generator().manual_seed(seed)

    def rows(dim):
        shared = torch.randn(count, dim, generator=generator).repeat(seeds, 1)
        return shared + 0.5 * torch.randn(count * seeds, dim, generator=generator)

    shape = (count * seeds, 3, size, size)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return {"clip_image": rows(DIM), "frechet": rows(DIM), "images": images}


def write_all(folder: Path, shards: int, count=50, seeds=1, size=16) -> Namespace:
    """Write two runs, their data set and a reference; return the step's arguments."""
    features, images = [], []
    for seed, name in enumerate(("run", "teacher")):
        tensors = described(seed, count, seeds, size)
        images += write(folder / "images", name, shards, {"images": tensors["images"]})
        del tensors["images"]
        features += write(folder / "features", name, shards, tensors)
    text = torch.randn(count, DIM, generator=torch.Generator().manual_seed(7))
    captions = {"clip_text": text.repeat(seeds, 1)}
    reference = {"frechet": described(8, 90, 1)["frechet"] + 0.3}
    spec = {"run": score_images.ScoredRun(3, seeds, "teacher")}
    return Namespace(
        spec=spec,
        features=features,
        images=images,
        reference=write(folder / "features", "reference", shards, reference),
        captions=write(folder / "features", "captions", shards, captions),
        output=[folder / "run.json"],
    )


def scored(args: Namespace) -> dict:
    score_images.score_images(**vars(args))
    return storage.read_json(args.output[0])["scores"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_scores_of_one_shard_and_of_seven_are_the_same(tmp_path, seeds):
    one = scored(write_all(tmp_path / "one", 1, seeds=seeds))
    seven = scored(write_all(tmp_path / "seven", 7, seeds=seeds))
    assert set(one) == {
        *("frechet", "clip", "psnr_to_teacher", "rmse_to_teacher"),
        *("frechet_minus_teacher", "clip_minus_teacher"),
    }
    assert set(one) == set(seven)
    for name, score in one.items():
        assert score["n"] == seven[name]["n"] == 50 * seeds
        for key in ("value", "low", "high"):
            assert score[key] == pytest.approx(seven[name][key], rel=0, abs=1e-10)
        assert score["low"] < score["value"] < score["high"]


def test_scores_are_those_of_all_rows_at_once(tmp_path):
    found = scored(write_all(tmp_path, 7, seeds=3))
    run, teacher = (described(seed, 50, 3) for seed in (0, 1))
    text = torch.randn(50, DIM, generator=torch.Generator().manual_seed(7))
    cosines = metrics.cosines(run["clip_image"], text.repeat(3, 1))
    reference = metrics.statistics(described(8, 90, 1)["frechet"] + 0.3)
    expected = {
        "frechet": metrics.frechet_score(run["frechet"], reference, 3),
        "clip": metrics.mean_score(cosines, seeds=3),
        "psnr_to_teacher": metrics.mean_score(
            metrics.psnr(run["images"], teacher["images"]), seeds=3
        ),
        "frechet_minus_teacher": metrics.frechet_difference(
            run["frechet"], teacher["frechet"], reference, 3
        ),
    }
    for name, score in expected.items():
        for key in ("value", "low", "high"):
            value = getattr(score, key)
            assert found[name][key] == pytest.approx(value, rel=0, abs=1e-10)
    # Images of one prompt are alike: taken for prompts of their own, the interval
    # of their mean would be much too narrow.
    careless = metrics.mean_score(cosines)
    width = found["clip"]["high"] - found["clip"]["low"]
    assert careless.high - careless.low < 0.8 * width


def test_what_captions_lost_is_in_the_score(tmp_path):
    args = write_all(tmp_path, 7)
    scored(args)
    found = storage.read_json(args.output[0])["captions"]
    assert found == {"captions": 21, "cut": 7, "unknown": 0}


def test_what_images_hold_is_in_the_score(tmp_path):
    args = write_all(tmp_path, 7)
    scored(args)
    found = storage.read_json(args.output[0])["images"]
    assert found == {"images": 35, "constant": 7, "identical": 0, "clipped": 0}


def test_the_order_of_files_does_not_matter(tmp_path):
    args = write_all(tmp_path, 7)
    once = scored(args)
    for kind in ("features", "images", "captions", "reference"):
        getattr(args, kind).reverse()
    assert scored(args) == once


def test_shards_that_do_not_fit_are_refused(tmp_path):
    args = write_all(tmp_path, 7)
    lacking = [path for path in args.images if path != tmp_path / "images/run/003"]
    missing = tmp_path / "images" / "run" / "003.safetensors"
    lacking.remove(missing)
    whole, args.images = args.images, lacking
    with pytest.raises(ValueError, match="43 rows of .*run.* and 50 of .*no pairs"):
        score_images.score_images(**vars(args))
    args.images = whole
    args.spec["run"] = score_images.ScoredRun(3, 3, "teacher")
    with pytest.raises(ValueError, match="'run': 50 images are not 3 seeds"):
        score_images.score_images(**vars(args))
    assert not args.output[0].exists()


@needs_proc
@pytest.mark.parametrize("shards", [1, 8], ids=["one shard", "more shards"])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, shards):
    peaks = []
    for times in (1, 8):
        count = 128 * times
        folder = tmp_path / str(times)
        args = write_all(folder, 1 if shards == 1 else times, count=count, size=128)
        given = {**vars(args), "spec": ['{"run": {"seed": 3, "teacher": "teacher"}}']}
        words = [(f"--{name}", *map(str, values)) for name, values in given.items()]
        peaks.append(peak_mb("score_images", *chain.from_iterable(words)))
    # The images of the two runs are 12 MB at first, then 96 MB.
    assert peaks[1] - peaks[0] < 30, peaks


def test_each_image_s_values_stand_beside_the_scores(tmp_path):
    args = write_all(tmp_path, 2, count=50, seeds=2)
    found = scored(args)
    values, _ = storage.read_tensors(args.output[0].with_suffix(".safetensors"))
    count = len(values["clip"])
    assert values["prompt"].tolist() == list(range(count // 2)) * 2
    assert values["seed"].tolist() == [0] * (count // 2) + [1] * (count // 2)
    for name in ("clip", "psnr_to_teacher", "rmse_to_teacher"):
        assert float(values[name].mean()) == pytest.approx(found[name]["value"])


def test_renderings_of_the_same_captions_give_two_scores_more(tmp_path):
    count, seeds, renderings = 45, 2, 2
    args = write_all(tmp_path, 2, count, seeds)
    assert not {"kernel", "caption_error"} & set(scored(args))
    # The reference has all captions once, then all again.
    drawn = described(8, count, renderings)["frechet"]
    args.reference = write(tmp_path / "features", "drawn", 2, {"frechet": drawn})
    args.spec["run"] = score_images.ScoredRun(3, seeds, "teacher", renderings)
    scores = scored(args)
    features = torch.cat(
        [storage.read_tensors(each)[0]["frechet"] for each in args.features[:2]]
    )
    wanted = metrics.kernel_jackknife(features, drawn, count).value
    assert scores["kernel"]["value"] == pytest.approx(wanted)
    mean = (drawn[:count] + drawn[count:]) / 2
    errors = (features - mean.repeat(seeds, 1)).square().mean(dim=1)
    assert scores["caption_error"]["value"] == pytest.approx(float(errors.mean()))
    for key in ("kernel", "caption_error"):
        gap = scores[f"{key}_minus_teacher"]
        assert gap["low"] < gap["value"] < gap["high"]
