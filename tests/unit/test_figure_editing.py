"""Figures of edits: which image stands where, and what is written beside it."""

import itertools
import json
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import set_step
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from clockwork_experiments.base import storage
from clockwork_experiments.report.figures import curves as curve_figures
from clockwork_experiments.report.figures import style
from clockwork_experiments.report.figures.editing import (
    EditGridSpec,
    Edits,
    EditTimingsSpec,
    Pair,
    ShownEdit,
    TimedEdit,
    TimedSetting,
    draw_grid,
    draw_timings,
    duration,
    read_edits,
)

SOURCES = ["a pink ring on a beach", "a glass cube on a wooden floor"]
PROMPTS = ["a painting of a ring", "a ring for $5 or $6", "a metal cube", "a red cube"]
RUNS = [f"{edit}/{steps}" for edit in ("pnp", "clocked") for steps in ("s25", "s50")]
GRID = EditGridSpec(
    "Edits",
    "",
    "real",
    (ShownEdit("pnp/s50", "Plug-and-Play"), ShownEdit("clocked/s50", "+ Clockwork")),
    columns=2,
)
TIMINGS = EditTimingsSpec(
    "Timings",
    "",
    "real",
    1,
    (TimedEdit("pnp", "Plug-and-Play"), TimedEdit("clocked", "+ Clockwork, clock 2")),
    (TimedSetting("s25", "25 steps"), TimedSetting("s50", "50 steps")),
)


def grey(*levels: int) -> np.ndarray:
    """Return an image of each grey level."""
    shape = (len(levels), 3, 4, 4)
    return np.broadcast_to(
        np.array(levels, dtype=np.uint8)[:, None, None, None], shape
    ).copy()


def edits() -> Edits:
    """Return two sources of two target prompts each; each image has its own level."""
    return Edits(
        tuple(Pair(i // 2, SOURCES[i // 2], PROMPTS[i]) for i in range(4)),
        grey(1, 2),
        {run: grey(*range(10 * n, 10 * n + 4)) for n, run in enumerate(RUNS, start=1)},
        grey(90, 91, 92, 93),
    )


def levels(figure: Figure) -> list[list[int]]:
    """Return the images' grey levels, row by row from the top, each from the left."""
    rows: dict[float, list[tuple[float, int]]] = {}
    for axes in figure.axes:
        place = axes.get_position()
        level = int(axes.images[0].get_array()[0, 0, 0])
        rows.setdefault(round(-place.y0, 4), []).append((place.x0, level))
    return [[level for _, level in sorted(rows[key])] for key in sorted(rows)]


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def check_layout(figure: Figure) -> None:
    """Check that texts and images lie on the page and cover nothing."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    boxes = [axes.get_window_extent(renderer) for axes in figure.axes]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
    for one, two in itertools.combinations(boxes, 2):
        assert not one.overlaps(two)


# --- grids ------------------------------------------------------------------------


def test_a_page_shows_each_pair_beside_its_source():
    figure = draw_grid(GRID, edits())
    assert levels(figure) == [[1, 20, 40, 1, 21, 41], [2, 22, 42, 2, 23, 43]]
    texts = written(figure)
    assert texts.count("source") == texts.count("Plug-and-Play") == 2
    assert texts.count(SOURCES[0]) == texts.count(SOURCES[1]) == 2
    assert all(texts.count(prompt) == 1 for prompt in PROMPTS)


def test_a_grid_shows_the_chosen_pairs_in_their_order():
    spec = replace(GRID, pairs=(3, 0, 2), columns=1, targets=True)
    figure = draw_grid(spec, edits())
    assert levels(figure) == [[2, 23, 43, 93], [1, 20, 40, 90], [2, 22, 42, 92]]
    assert written(figure).count("exact edit") == 1
    # More columns than pairs leave no empty ones.
    one = draw_grid(replace(spec, pairs=(2,), columns=4), edits())
    assert one.get_figwidth() == figure.get_figwidth()


def test_prompts_stand_above_their_block_the_source_grey():
    figure = draw_grid(replace(GRID, pairs=(3,)), edits())
    (image, *_) = sorted(figure.axes, key=lambda axes: axes.get_position().x0)
    place = image.get_position()
    (before,) = (t for t in figure.texts if t.get_text() == SOURCES[1])
    (after,) = (t for t in figure.texts if t.get_text() == PROMPTS[3])
    for text in (before, after):
        assert text.get_position()[0] == pytest.approx(place.x0)
    assert before.get_position()[1] > after.get_position()[1] > place.y1
    assert (before.get_color(), after.get_color()) == ("#666666", "black")


def test_nothing_in_a_grid_covers_anything():
    long = "a pastel drawing of a large translucent cube in the middle of " * 3
    given = edits()
    pairs = [replace(given.pairs[0], prompt=long), *given.pairs[1:]]
    given = replace(given, pairs=tuple(pairs))
    check_layout(draw_grid(GRID, given))
    check_layout(draw_grid(replace(GRID, targets=True, columns=3), given))
    small = replace(GRID, title="A long title " * 4, edits=GRID.edits[:1], columns=1)
    check_layout(draw_grid(small, given))


def test_grids_refuse_what_there_is_not():
    with pytest.raises(ValueError, match="pair 4 is not one of the 4"):
        draw_grid(replace(GRID, pairs=(0, 4)), edits())
    other = replace(GRID, edits=(ShownEdit("pnp/s9", ""),))
    with pytest.raises(ValueError, match=r"run 'pnp/s9' is not .* \(pnp/s25, "):
        draw_grid(other, edits())
    with pytest.raises(ValueError, match="set 'real' has no exact edits"):
        draw_grid(replace(GRID, targets=True), replace(edits(), targets=None))
    with pytest.raises(ValueError, match="run 'pnp' is not <edit>/<setting>"):
        ShownEdit("pnp", "")
    with pytest.raises(ValueError, match="a column and an edit at least"):
        replace(GRID, columns=0)


def test_edits_refuse_images_that_are_not_one_for_each_pair():
    with pytest.raises(ValueError, match="pnp/s50 has 3 images for 4 pairs"):
        replace(edits(), images={"pnp/s50": grey(1, 2, 3)})
    with pytest.raises(ValueError, match="targets has 1 images for 4 pairs"):
        replace(edits(), targets=grey(1))
    with pytest.raises(ValueError, match="source 1 is not one of the 1"):
        replace(edits(), sources=grey(1))


# --- timings ----------------------------------------------------------------------


def test_timings_stand_below_their_images_with_what_they_save():
    latency = {"pnp/s25": 900.0, "pnp/s50": 17000.0, "clocked/s50": 12700.0}
    figure = draw_timings(TIMINGS, edits(), latency)
    assert levels(figure) == [[1, 11, 21], [31, 41]]
    below = {}
    for axes in figure.axes:
        place = axes.get_position()
        level = int(axes.images[0].get_array()[0, 0, 0])
        for text in figure.texts:
            x, y = text.get_position()
            centred = x == pytest.approx((place.x0 + place.x1) / 2)
            if centred and 0 < place.y0 - y < 0.07:
                below[level] = text.get_text()
    assert below == {11: "0.9 s", 21: "17.0 s", 41: "12.7 s (−25 %)"}
    assert {"source", "25 steps", "50 steps"} <= set(written(figure))
    check_layout(figure)


def test_timings_without_the_first_edits_show_no_saving():
    figure = draw_timings(TIMINGS, edits(), {"clocked/s50": 999.4})
    assert "999 ms" in written(figure)
    assert not any("%" in text for text in written(figure))


def test_timings_of_a_single_edit_leave_room_for_long_prompts():
    long = " ".join(["a large translucent cube"] * 5)
    given = edits()
    pairs = [replace(pair, prompt=long) for pair in given.pairs]
    given = replace(given, pairs=tuple(pairs))
    check_layout(draw_timings(replace(TIMINGS, edits=TIMINGS.edits[:1]), given, {}))


def test_timings_refuse_what_there_is_not():
    with pytest.raises(ValueError, match="pair -1 is not one of the 4"):
        draw_timings(replace(TIMINGS, pair=-1), edits(), {})
    other = replace(TIMINGS, settings=(TimedSetting("s9", ""),))
    with pytest.raises(ValueError, match="run 'pnp/s9' is not one of those read"):
        draw_timings(other, edits(), {})
    with pytest.raises(ValueError, match="an edit and a setting at least"):
        replace(TIMINGS, settings=())


def test_durations_change_their_unit_where_a_second_begins():
    assert duration(960, 1400) == "1.0 s"
    shown = [duration(ms) for ms in (3.4, 999.4, 999.6, 1049, 113400)]
    assert shown == ["3 ms", "999 ms", "1.0 s", "1.0 s", "113.4 s"]


# --- files ------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Write a set, its edited images, scores and timings as the workflow lays them."""
    given = edits()
    storage.write_json(
        tmp_path / "edit_sets" / "real.json",
        {
            "sources": [{"id": f"s{i}", "prompt": p} for i, p in enumerate(SOURCES)],
            "pairs": [{"source": p.source, "prompt": p.prompt} for p in given.pairs],
        },
    )
    storage.write_tensors(
        tmp_path / "edit_sets" / "real.safetensors",
        {
            "sources": torch.tensor(given.sources),
            "targets": torch.tensor(given.targets),
        },
    )
    for run, images in given.images.items():
        path = tmp_path / "edited" / "real" / f"{run}.safetensors"
        storage.write_tensors(path, {"images": torch.tensor(images)})
    for number, name in enumerate(("real", "fake")):
        for steps in ("s25", "s50"):
            scores = {
                edit: {
                    "clip": {"value": 0.3 + number + shift, "low": None, "high": None},
                    "structure": {"value": 0.05, "low": 0.04, "high": 0.06},
                }
                for edit, shift in (("pnp", 0.0), ("clocked", 0.01))
            }
            path = tmp_path / "scores" / "edits" / name / f"{steps}.json"
            storage.write_json(path, {"edits": scores})
    storage.write_json(
        tmp_path / "latency.json", {"runs": {"pnp/s25": {"mean_ms": 1234.0}}}
    )
    return tmp_path


def arguments(files, kind: str, spec: dict, **given) -> Namespace:
    default = {
        "sets": [
            files / "edit_sets" / f"real.{end}" for end in ("json", "safetensors")
        ],
        "images": [files / "edited" / "real" / f"{run}.safetensors" for run in RUNS],
        "latency": None,
    }
    output = files / "figure.png"
    chosen = {**default, "kind": kind, "spec": json.dumps(spec), "output": output}
    return Namespace(**{**chosen, **given})


@pytest.fixture
def saved(monkeypatch) -> list[Figure]:
    """Return what the step saves."""
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    return figures


def test_reading_gives_pairs_their_sources_prompt(files):
    given = arguments(files, "", {})
    read = read_edits(given.sets[0], given.images)
    assert read.pairs == edits().pairs
    assert set(read.images) == set(RUNS)
    assert (read.images["clocked/s25"] == edits().images["clocked/s25"]).all()
    assert read.targets is not None and read.targets[3, 0, 0, 0] == 93
    elsewhere = files / "edited" / "fake" / "pnp" / "s50.safetensors"
    with pytest.raises(ValueError, match="s50.safetensors is not of the set 'real'"):
        read_edits(given.sets[0], [elsewhere])
    with pytest.raises(ValueError, match="none.json does not exist"):
        read_edits(files / "none.json", [])
    listed = storage.read_json(given.sets[0])
    listed["pairs"][1]["source"] = 2
    storage.write_json(given.sets[0], listed)
    with pytest.raises(ValueError, match="source 2 is not one of the 2"):
        read_edits(given.sets[0], [])
    del listed["sources"][1]
    storage.write_json(given.sets[0], listed)
    with pytest.raises(ValueError, match="has 1 sources, its images are 2"):
        read_edits(given.sets[0], [])


def test_the_step_draws_a_grid_of_edits(files):
    spec = {
        "title": "Edits",
        "caption": "",
        "edit_set": "real",
        "edits": [{"run": "pnp/s50", "label": "Plug-and-Play"}],
        "columns": 2,
        "targets": True,
    }
    set_step.figure(arguments(files, "edit_grid", spec))
    pixels = imread(files / "figure.png")
    assert pixels.shape[1] > pixels.shape[0] > 400
    assert (files / "figure.pdf").is_file()
    with pytest.raises(ValueError, match="shows the set 'fake', not .*real.json"):
        set_step.figure(arguments(files, "edit_grid", {**spec, "edit_set": "fake"}))


def test_the_step_draws_timings_of_edits(files, saved):
    spec = {
        "title": "Timings",
        "caption": "",
        "edit_set": "real",
        "pair": 0,
        "edits": [{"edit": "pnp", "label": "Plug-and-Play"}],
        "settings": [{"setting": "s25", "label": "25 steps"}],
    }
    given = arguments(files, "edit_timings", spec, latency=files / "latency.json")
    set_step.figure(given)
    assert "1.2 s" in written(saved[0])


def test_the_step_draws_curves_of_edits(files, saved, monkeypatch):
    def flops(settings, counts, key):
        steps = settings["inversion"]["steps"] + 3 * settings["generation"]["steps"]
        return steps * counts["full"][key]

    monkeypatch.setattr(curve_figures, "run_flops", flops)
    storage.write_json(files / "sd.json", {"full": {"flops": 1e12}})
    spec = {
        "title": "Curves",
        "caption": "",
        "x_label": "TFLOPs",
        "log_x": True,
        "panels": [
            {"score": "fake/clip"},
            {"score": "real/structure", "label": "structure"},
        ],
        "series": [
            {
                "label": edit,
                "group": edit,
                "style": "baseline",
                "points": [
                    {"run": f"{edit}/{s}", "label": s[1:]} for s in ("s25", "s50")
                ],
            }
            for edit in ("pnp", "clocked")
        ],
    }
    runs = {
        run: {
            "model": "sd",
            "inversion": {"steps": int(run[-2:])},
            "generation": {"steps": int(run[-2:])},
        }
        for run in RUNS
    }
    folder = files / "scores" / "edits"
    scores = [
        folder / s / f"{n}.json" for s in ("real", "fake") for n in ("s25", "s50")
    ]
    given = {"runs": runs, "scores": scores, "flops": [files / "sd.json"]}
    set_step.figure(arguments(files, "edit_curves", spec, **given))
    clip, structure = saved[0].axes
    for line, value in zip(clip.containers, (1.3, 1.31), strict=True):
        assert list(line.lines[0].get_xdata()) == [100.0, 200.0]
        assert list(line.lines[0].get_ydata()) == [value, value]
    segment = structure.containers[0].lines[2][0].get_segments()[0]
    assert list(segment[:, 1]) == pytest.approx([0.04, 0.06])
    # What was not scored is named.
    given["scores"] = scores[:2]
    with pytest.raises(ValueError, match="run 'pnp/s25' has no score 'fake/clip'"):
        set_step.figure(arguments(files, "edit_curves", spec, **given))
