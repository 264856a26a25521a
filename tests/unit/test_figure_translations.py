"""Grids of translations and curves of levels: what stands where."""

import dataclasses
import json
from argparse import Namespace

import numpy as np
import pytest
import set_step
import torch
from matplotlib.image import imread

from clockwork_experiments.base import storage
from clockwork_experiments.data import pair_sets
from clockwork_experiments.report.figures.depth import (
    DepthCurvesSpec,
    DepthPanel,
    draw_depth_curves,
)
from clockwork_experiments.report.figures.translations import (
    PairGroup,
    ShownTranslation,
    Translated,
    TranslationGridSpec,
    detailed_part,
    draw_grid,
)

KINDS = ("colour", "move", "colour", "size", "colour", "move")
PAIRS = pair_sets.PairSet(
    "edit",
    tuple("abcdef"),
    tuple(f"do {letter} for $5 or $6" for letter in "abcdef"),
    ("before",) * 6,
    ("after",) * 6,
    KINDS,
)
GRID = TranslationGridSpec(
    "Edits",
    "",
    "edits",
    (ShownTranslation("whole", "D13"), ShownTranslation("cut", "D9")),
    (PairGroup(2, "kept", ("colour",)), PairGroup(2, "changed", ("move", "size"))),
    columns=2,
    targets="exact",
)


def grey(start: int) -> np.ndarray:
    """Return six images, each of its own grey level."""
    levels = np.arange(start, start + 6, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (6, 3, 8, 8)).copy()


def shown() -> Translated:
    images = {"whole": grey(20), "cut": grey(30)}
    return Translated(PAIRS, grey(10), grey(40), images)


def levels(figure) -> list[list[int]]:
    """Return the images' grey levels, row by row from the top, each from the left."""
    rows: dict[float, list[tuple[float, int]]] = {}
    for axes in figure.axes:
        place = axes.get_position()
        level = int(axes.images[0].get_array()[0, 0, 0])
        rows.setdefault(round(-place.y0, 4), []).append((place.x0, level))
    return [[level for _, level in sorted(rows[key])] for key in sorted(rows)]


def test_groups_show_the_first_pairs_of_their_kinds():
    figure = draw_grid(GRID, shown())
    assert levels(figure) == [
        [10, 20, 30, 40, 12, 22, 32, 42],
        [11, 21, 31, 41, 13, 23, 33, 43],
    ]
    written = [text.get_text() for text in figure.texts]
    for text in ("kept", "changed", "do a for $5 or $6", "do d for $5 or $6"):
        assert text in written
    assert "do e for $5 or $6" not in written
    assert written.count("D13") == 2 and written.count("exact") == 2


def test_later_pairs_and_no_targets():
    group = PairGroup(1, kinds=("colour",), skip=2)
    spec = dataclasses.replace(GRID, groups=(group,), targets="")
    assert levels(draw_grid(spec, shown())) == [[14, 24, 34]]


def test_zoom_shows_the_same_part_of_all_images():
    targets = grey(40)
    targets[0, :, 5:7, 1:3] = 200
    spec = dataclasses.replace(GRID, groups=(PairGroup(1),), zoom=0.5)
    figure = draw_grid(spec, dataclasses.replace(shown(), targets=targets))
    assert len(figure.axes) == 8
    parts = [axes.images[0].get_array() for axes in figure.axes[1::2]]
    assert {part.shape for part in parts} == {(4, 4, 3)}
    assert int(parts[-1].max()) == 200 and int(parts[0].max()) == 10
    frames = {axes.patches[0].get_xy() for axes in figure.axes[::2]}
    top, left, side = detailed_part(targets[0], 0.5)
    assert frames == {(left - 0.5, top - 0.5)}
    assert top <= 5 and left <= 1 and top + side >= 7 and left + side >= 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            dataclasses.replace(GRID, groups=(PairGroup(4, kinds=("colour",)),)),
            "4 pairs of colour are asked for, and there are 3",
        ),
        (
            dataclasses.replace(GRID, translations=(ShownTranslation("d8", "D8"),)),
            r"'d8' is not one of those read \(whole, cut\)",
        ),
    ],
)
def test_what_is_not_there_is_named(spec, message):
    with pytest.raises(ValueError, match=message):
        draw_grid(spec, shown())


def test_grids_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="no right answers"):
        draw_grid(GRID, dataclasses.replace(shown(), targets=None))
    with pytest.raises(ValueError, match="tell where to enlarge"):
        dataclasses.replace(GRID, targets="", zoom=0.5)
    with pytest.raises(ValueError, match="zoom 1"):
        dataclasses.replace(GRID, zoom=1.0)
    with pytest.raises(ValueError, match="count 0"):
        PairGroup(0)
    with pytest.raises(ValueError, match="cut: 5 images for 6 pairs"):
        dataclasses.replace(shown(), images={"cut": grey(0)[:5]})


# --- levels ---------------------------------------------------------------------------


def search() -> dict:
    scan = []
    for level in (13, 12, 11):
        value = 0.1 * (level - 10)
        interval = {"value": value, "low": value - 0.02, "high": value + 0.02}
        scan.append(
            {
                "level": level,
                "parameters": 5.0 * level,
                "metrics": {"clip_image": value, "psnr_to_teacher": 30.0 + level},
                "scores": {"clip_image": interval},
            }
        )
    return {"scan": scan, "limits": {"clip_image": 0.15}, "chosen": 12}


CURVES = DepthCurvesSpec(
    "Depth",
    "",
    (
        DepthPanel("ip2p", "clip_image", "CLIP_I", "edits", 11),
        DepthPanel("ip2p", "psnr_to_teacher", "PSNR", "like the whole"),
    ),
    columns=2,
)


def test_curves_show_values_threshold_and_choice():
    figure = draw_depth_curves(CURVES, {"ip2p": search()})
    axes, other = figure.axes
    curve, limit, printed = axes.lines
    assert curve.get_xdata().tolist() == [0, 1, 2]
    np.testing.assert_allclose(curve.get_ydata(), [0.3, 0.2, 0.1])
    assert limit.get_ydata() == [0.15, 0.15]
    assert list(printed.get_xdata()) == [2]  # the paper's D11
    (chosen,) = axes.patches
    assert chosen.get_x() == pytest.approx(0.6)  # D12 at 1
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["13\n65", "12\n60", "11\n55"]
    # The whole UNet's image is its own, and off the scale.
    (curve,) = other.lines
    assert list(curve.get_xdata()) == [1, 2]
    assert list(curve.get_ydata()) == [42.0, 41.0]


def test_unknown_searches_and_metrics_are_named():
    with pytest.raises(ValueError, match="'ip2p' is not one of those: other"):
        draw_depth_curves(CURVES, {"other": search()})
    panel = dataclasses.replace(CURVES.panels[0], metric="lpips")
    spec = dataclasses.replace(CURVES, panels=(panel,), columns=1)
    with pytest.raises(ValueError, match="'lpips' is not one of clip_image, psnr"):
        draw_depth_curves(spec, {"ip2p": search()})
    with pytest.raises(ValueError, match="columns 3 is not one of 1 to 2"):
        dataclasses.replace(CURVES, columns=3)


# --- the step -------------------------------------------------------------------------


def arguments(kind: str, spec, **given) -> Namespace:
    return Namespace(kind=kind, spec=json.dumps(dataclasses.asdict(spec)), **given)


def test_step_draws_both_kinds(tmp_path):
    pair_sets.write_set(tmp_path / "edits.json", PAIRS)
    known = shown()
    arrays = {"inputs": known.inputs, "targets": known.targets}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    storage.write_tensors(tmp_path / "edits.safetensors", tensors)
    paths = [
        tmp_path / name / f"00{shard}.safetensors"
        for name in ("whole", "cut")
        for shard in range(2)
    ]
    for path in paths:
        images = torch.from_numpy(known.images[path.parent.name])
        half = images.tensor_split(2)[int(path.stem)]
        storage.write_tensors(path, {"images": half})
    sets = [tmp_path / "edits.json", tmp_path / "edits.safetensors"]
    given = {"sets": sets, "images": paths, "output": tmp_path / "grid.png"}
    set_step.figure(arguments("translation_grid", GRID, **given))
    assert imread(tmp_path / "grid.png").shape[1] > 1000
    other = dataclasses.replace(GRID, set="other")
    with pytest.raises(ValueError, match="the figure shows the set 'other'"):
        set_step.figure(arguments("translation_grid", other, **given))
    storage.write_json(tmp_path / "ip2p.json", search())
    given = {"searches": [tmp_path / "ip2p.json"], "output": tmp_path / "curves.png"}
    set_step.figure(arguments("depth_curves", CURVES, **given))
    assert (tmp_path / "curves.pdf").is_file()
