"""Two dead runs never look perfect."""

import pytest
import torch
from test_score_images import write_all
from test_tables import spec

from clockwork_experiments.base import storage
from clockwork_experiments.report.kinds import Given
from clockwork_experiments.report.tables.table import results_of
from clockwork_experiments.score import dead
from clockwork_experiments.search.evaluator import Kept
from clockwork_experiments.steps import score_images


def drawn(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)


def black(count: int) -> torch.Tensor:
    return torch.zeros(count, 3, 8, 8, dtype=torch.uint8)


def grey(count: int) -> torch.Tensor:
    """Return images of one colour, each of another."""
    levels = torch.arange(100, 100 + count, dtype=torch.uint8)
    return levels[:, None, None, None].expand(count, 3, 8, 8)


@pytest.mark.parametrize(
    ("images", "counts", "is_dead"),
    [
        (drawn(4), (4, 0, 0, 0), False),
        (black(4), (4, 4, 3, 4), True),
        (grey(4), (4, 4, 0, 0), True),
        (drawn(1).expand(4, -1, -1, -1), (4, 0, 3, 0), True),
        (torch.cat([drawn(1), black(3)]), (4, 3, 2, 3), False),
        (drawn(4) // 128 * 255, (4, 0, 0, 4), False),
        (drawn(1), (1, 0, 0, 0), False),
    ],
    ids=["drawn", "black", "grey", "the same", "but one", "clipped", "one"],
)
def test_images_that_hold_nothing_are_counted(images, counts, is_dead):
    whole = dead.count([images], "a run")
    assert whole == dead.Counts(*counts)
    assert whole == dead.count(images.numpy().reshape(-1, 1, 3, 8, 8), "a run")
    assert whole.dead == is_dead


def test_a_table_shows_words_for_two_dead_runs(tmp_path):
    names = ("sd", "clocked")
    for name, count in zip(names, (3, 2), strict=True):
        score = {"value": 58.9, "low": 58.8, "high": 59.0, "n": 3}
        scores = {"clip": score, "psnr_to_teacher": score}
        counts = {"images": 3, "constant": count, "identical": 0, "clipped": 3}
        scored = {"run": name, "scores": scores, "images": counts}
        storage.write_json(tmp_path / f"{name}.json", scored)
    results = results_of(
        Given({"scores": [tmp_path / f"{name}.json" for name in names]})
    )
    shown = spec(["psnr_to_teacher", "n"]).table(results).markdown()
    (sd,) = [line for line in shown.splitlines() if line.startswith("| SD")]
    (clocked,) = [line for line in shown.splitlines() if "Clockwork" in line]
    assert dead.SHOWN in sd and "58.9" not in sd and " 3 " in sd
    assert "58.9" in clocked


def test_the_same_of_edits(tmp_path):
    score = {"clip": {"value": 1.0, "low": 0.9, "high": 1.1, "n": 3}}
    counts = {
        "pnp": {"images": 3, "constant": 3},
        "other": {"images": 3, "constant": 1},
    }
    path = tmp_path / "real" / "steps10.json"
    storage.write_json(
        path, {"edits": {"pnp": score, "other": score}, "images": counts}
    )
    found = results_of(Given({"scores": [path]})).scores
    assert dead.are_dead(found["real/pnp/steps10"])
    assert not dead.are_dead(found["real/other/steps10"])


def test_dead_runs_are_scored_and_say_so(tmp_path):
    args = write_all(tmp_path, 2)
    for path in args.images:
        tensors, notes = storage.read_tensors(path)
        storage.write_tensors(path, {"images": tensors["images"] * 0}, notes)
    for path in args.features:
        tensors, notes = storage.read_tensors(path)
        noted = dead.notes({path.parent.name: dead.Counts(25, 25, 24, 25)})
        storage.write_tensors(path, tensors, {**notes, **noted})
    score_images.score_images(**vars(args))
    scored = storage.read_json(args.output[0])
    assert scored["scores"]["psnr_to_teacher"]["value"] > 58
    assert scored["images"]["constant"] == 50 and dead.are_dead(scored)


def test_a_search_has_no_dead_reference(tmp_path):
    reference = Kept(tmp_path / "reference.safetensors", "marks")
    with pytest.raises(ValueError, match="reference: of 3 images, 3 are of one colour"):
        reference.images(
            (3, 3, 8, 8), 2, lambda rows: black(rows.stop - rows.start).float()
        )
