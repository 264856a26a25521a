import json
import math
from pathlib import Path

import pytest
import torch

from clockwork_experiments.base import storage
from clockwork_experiments.claims import statistics
from clockwork_experiments.data import edit_sets
from clockwork_experiments.data.edit_sets import EditSet
from clockwork_experiments.models import encoders
from clockwork_experiments.score import edit_scores, metrics, structure
from clockwork_experiments.steps import score_edits
from clockwork_experiments.world import edit_sets as edits
from clockwork_experiments.world.data import scene_images

MINI = Path(__file__).parents[2] / "resources" / "mini"


def score(
    folder: Path,
    *edited: Path,
    set_name: str = "real",
    teachers: dict[str, str] | None = None,
) -> None:
    score_edits.score_edits(
        set=folder / f"{set_name}.json",
        sources=folder / f"{set_name}.safetensors",
        edited=edited,
        teachers=teachers,
        clip=MINI / "clip",
        structure=MINI / "structure",
        output=folder / "scores" / "steps50.json",
    )


def write_edited(folder: Path, name: str, images: torch.Tensor) -> Path:
    path = folder / "edited" / name / "steps50.safetensors"
    storage.write_tensors(path, {"images": images})
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Return a folder with a set of 4 scenes whose second has no third edit."""
    folder = tmp_path_factory.mktemp("scores")
    edits.write_layout(edits.SceneEditsSpec(count=4), folder / "layout")
    layout = edit_sets.read_layout(folder / "layout", 64)
    kept = [row for row in range(12) if row != 9]
    edit_sets.write_set(
        folder / "real.json",
        EditSet(
            layout.edits.ids,
            layout.edits.source_prompts,
            tuple(layout.edits.pair_sources[row] for row in kept),
            tuple(layout.edits.target_prompts[row] for row in kept),
        ),
    )
    storage.write_tensors(
        folder / "real.safetensors",
        {"sources": torch.stack(layout.sources), "targets": layout.targets[kept]},
    )
    return folder


def test_every_edit_is_scored_by_pair_and_by_source(prepared):
    found = edit_sets.read_set(prepared / "real.json")
    sources, targets = edit_sets.read_images(prepared / "real.safetensors", found)
    owners = torch.tensor(found.pair_sources)
    exact = write_edited(prepared, "exact", targets)
    wrong = write_edited(prepared, "wrong", scene_images("validation", 11))
    score(prepared, exact, wrong)
    result = json.loads((prepared / "scores/steps50.json").read_text())
    rows, _ = storage.read_tensors(prepared / "scores/steps50.safetensors")
    kinds = {"clip", "structure", "psnr_to_true", "psnr_to_source"}
    names = {"unedited", "exact", "wrong"}
    assert set(result) == {"edits", "images", "captions", "encoders", "versions"}
    assert set(result["edits"]) == names
    assert set(rows) == {"source"} | {f"{n}/{k}" for n in names for k in kinds}
    assert rows["source"].dtype == torch.int64 and torch.equal(rows["source"], owners)

    # Row by row: each pair with its own target prompt, source and exact edit.
    clip = encoders.load_clip(MINI / "clip")
    vit = structure.load_structure(MINI / "structure")
    for row in (0, 5, 10):
        text = encoders.clip_text_features(clip, [found.target_prompts[row]])
        for name, images in (("unedited", sources[owners]), ("exact", targets)):
            image = images[row : row + 1]
            cosine = (encoders.clip_image_features(clip, image) * text).sum()
            assert float(rows[f"{name}/clip"][row]) == pytest.approx(float(cosine))
    distance = structure.structure_distances(vit, targets, sources[owners])
    torch.testing.assert_close(rows["exact/structure"], distance)
    assert rows["unedited/structure"].tolist() == [0.0] * 11
    assert rows["exact/psnr_to_true"].tolist() == [metrics.ROUNDING_PSNR] * 11
    unedited = metrics.psnr(sources[owners], targets)
    torch.testing.assert_close(rows["unedited/psnr_to_true"], unedited)

    # Sources count once each, however many pairs they have; Student's t for the few.
    for name in names:
        for kind in kinds:
            assert set(result["edits"][name]) == kinds
            values = rows[f"{name}/{kind}"]
            assert values.dtype == torch.float64 and values.shape == (11,)
            means = torch.stack(
                [values[owners == source].mean() for source in range(4)]
            )
            half = 3.1824463 * float(means.std()) / math.sqrt(4)
            shown = result["edits"][name][kind]
            assert set(shown) == {"value", "low", "high", "n", "interval"}
            assert shown["value"] == pytest.approx(float(means.mean()))
            assert shown["low"] == pytest.approx(shown["value"] - half, abs=1e-6)
            assert shown["high"] == pytest.approx(shown["value"] + half, abs=1e-6)
            assert shown["n"] == 4
            assert shown["interval"] == "95 % Student's t over 4 sources"

    scores = result["edits"]
    value = {n: {k: scores[n][k]["value"] for k in kinds} for n in names}
    assert value["exact"]["clip"] > value["unedited"]["clip"] + 0.1
    assert value["exact"]["clip"] > value["wrong"]["clip"] + 0.1
    assert value["wrong"]["structure"] > 2 * value["exact"]["structure"]
    assert value["wrong"]["psnr_to_true"] < value["exact"]["psnr_to_true"] - 20
    assert result["encoders"] == {
        "clip": {"sha256": clip.sha256, "preprocessing": clip.preprocessing},
        "structure": {"sha256": vit.sha256, "preprocessing": vit.preprocessing},
    }


def test_edits_are_compared_with_their_teacher_source_by_source(prepared):
    found = edit_sets.read_set(prepared / "real.json")
    _, targets = edit_sets.read_images(prepared / "real.safetensors", found)
    exact = write_edited(prepared, "exact", targets)
    near = write_edited(prepared, "near", (targets.int() // 2 * 2).byte())
    score(prepared, exact, near, teachers={"near": "exact"})
    scores = json.loads((prepared / "scores/steps50.json").read_text())["edits"]
    rows, _ = storage.read_tensors(prepared / "scores/steps50.safetensors")
    owners = torch.tensor(found.pair_sources)
    gap = metrics.group_means(rows["near/clip"] - rows["exact/clip"], owners)
    shown = scores["near"]["clip_minus_teacher"]
    assert shown["value"] == pytest.approx(float(gap.mean()))
    half = 3.1824463 * float(gap.std()) / math.sqrt(4)
    assert shown["high"] - shown["value"] == pytest.approx(half, abs=1e-9)
    assert 45 < scores["near"]["psnr_to_teacher"]["value"] < 55
    assert not any("teacher" in kind for kind in scores["exact"])


def test_without_exact_edits_there_is_no_psnr_and_no_file_needed(prepared):
    tensors, _ = storage.read_tensors(prepared / "real.safetensors")
    found = edit_sets.read_set(prepared / "real.json")
    edit_sets.write_set(prepared / "fake.json", found)
    storage.write_tensors(
        prepared / "fake.safetensors", {"sources": tensors["sources"]}
    )
    score(prepared, set_name="fake")
    result = json.loads((prepared / "scores/steps50.json").read_text())
    assert {name: set(of) for name, of in result["edits"].items()} == {
        "unedited": {"clip", "structure", "psnr_to_source"}
    }


def test_many_sources_get_a_bootstrap():
    values = torch.arange(120, dtype=torch.float64)
    shown = statistics.score_by_source(values, torch.arange(60).repeat(2))
    assert shown["value"] == pytest.approx(59.5) and shown["n"] == 60
    assert shown["interval"] == (
        "95 % percentile bootstrap over 60 sources, 10000 resamples"
    )
    assert shown["low"] == pytest.approx(59.5 - 1.96 * 17.3 / 60**0.5, abs=0.3)


def test_one_source_has_no_interval():
    with pytest.raises(ValueError, match="an interval needs 2 sources or more, not 1"):
        statistics.score_by_source(torch.ones(3), torch.zeros(3, dtype=torch.int64))


def test_files_are_of_different_edits_and_one_setting():
    def named(*names: str) -> dict[str, Path]:
        return edit_scores.by_edit([Path("edited", name) for name in names])

    assert named("pnp/steps50.safetensors", "pnp_clock2/steps50.safetensors") == {
        "pnp": Path("edited/pnp/steps50.safetensors"),
        "pnp_clock2": Path("edited/pnp_clock2/steps50.safetensors"),
    }
    with pytest.raises(ValueError, match="several settings: steps100, steps50"):
        named("a/steps50.safetensors", "b/steps100.safetensors")
    with pytest.raises(ValueError, match="the edit 'a' is given twice"):
        named("a/steps50.safetensors", "a/steps100.safetensors")
    with pytest.raises(ValueError, match="'unedited' needs no file"):
        named("unedited/steps50.safetensors")


def test_edited_images_that_are_not_the_sets_are_named(prepared, tmp_path):
    images = torch.zeros(10, 3, 64, 64, dtype=torch.uint8)
    path = write_edited(tmp_path, "pnp", images)
    with pytest.raises(ValueError) as failure:
        score(prepared, path)
    assert str(failure.value) == (
        f"{path}: images are torch.uint8 (10, 3, 64, 64), "
        "not torch.uint8 (11, 3, 64, 64), as the set's pairs"
    )
    path = tmp_path / "edited" / "none" / "steps50.safetensors"
    storage.write_tensors(path, {"latents": images})
    with pytest.raises(ValueError, match=r"none/steps50.safetensors lacks the tensor"):
        edit_scores.read_edited(path, images)
