import json
from argparse import Namespace

import pytest
import set_step
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from clockwork_experiments.base import storage
from clockwork_experiments.report.figures.training import (
    COLOURS,
    Curve,
    TrainedAdaptor,
    TrainingCurvesSpec,
    draw_curves,
    read_curve,
    smooth,
    spread,
)

SPEC = TrainingCurvesSpec(
    "How adaptors learn",
    "Caption.",
    (TrainedAdaptor("one", "unrolled"), TrainedAdaptor("two", "noised")),
)
CURVES = {
    "one": Curve(tuple(range(0, 100, 5)), tuple(20 - 0.5 * i for i in range(20))),
    "two": Curve(tuple(range(0, 100, 5)), tuple(20 - 0.4 * i for i in range(20))),
}
ERRORS = {
    "one": {"l2": 12.0, "identity_l2": 20.0},
    "two": {"l2": 12.2, "identity_l2": 20.0},
}


def test_losses_are_relative_to_identity_and_ends_are_held_out():
    (axes,) = draw_curves(SPEC, CURVES, ERRORS).axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 20]
    assert len(lines) == 4
    assert list(lines[0].get_ydata()[:3]) == pytest.approx([1.0, 0.975, 0.95])
    # A straight line is its own mean, while there are neighbours on both sides.
    assert list(lines[1].get_ydata()[:12]) == pytest.approx(lines[0].get_ydata()[:12])
    ends = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [line.get_ydata()[0] for line in ends] == pytest.approx([0.6, 0.61])
    assert {line.get_xdata()[0] for line in ends} == {95}
    low, high = axes.get_ylim()
    assert 0.5 < low < 0.6 and high > 1


def test_labels_are_direct_and_do_not_overlap():
    figure = draw_curves(SPEC, CURVES, ERRORS)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    boxes = {
        text.get_text(): text.get_window_extent(canvas.get_renderer())
        for text in axes.texts
    }
    assert set(boxes) == {"unrolled  0.60", "noised  0.61", "identity  1"}
    ordered = sorted(boxes.values(), key=lambda box: box.y0)
    for below, above in zip(ordered, ordered[1:], strict=False):
        assert below.y1 <= above.y0 + 0.5
    assert max(box.x1 for box in ordered) < figure.bbox.width


def test_smoothing_keeps_the_first_and_steadies_the_last():
    losses = [5.0] + [1.0, 3.0] * 20
    means = smooth(losses)
    assert means[0] == 5
    assert means[20] == pytest.approx(2, abs=0.1)
    assert means[-1] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([0.0, 5.0], [0.0, 5.0]),
        ([5.0, 5.0], [4.5, 5.5]),
        ([5.0, 4.9, 9.0], [5.45, 4.45, 9.0]),
        ([1.0, 1.0, 1.9], [0.3, 1.3, 2.3]),
    ],
)
def test_labels_are_spread(values, places):
    assert spread(values, 1.0) == pytest.approx(places)


def test_the_log_is_read_and_a_bad_one_named(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("step,loss,lr,seconds\n0,2.5,0.1,0.0\n10,2.0,0.1,1.0\n")
    assert read_curve(path) == Curve((0, 10), (2.5, 2.0))
    path.write_text("step,loss\n0,many\n")
    with pytest.raises(ValueError, match=r"one\.csv is not the log of a training"):
        read_curve(path)
    path.write_text("step,loss\n")
    with pytest.raises(ValueError, match=r"one\.csv holds no update"):
        read_curve(path)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="adaptor 'two' has no log or no error"):
        draw_curves(SPEC, CURVES, {"one": ERRORS["one"]})
    many = tuple(TrainedAdaptor(str(i), str(i)) for i in range(len(COLOURS) + 1))
    with pytest.raises(ValueError, match="7 adaptors are not between 1 and 6"):
        TrainingCurvesSpec("", "", many)


def test_the_step_draws_it(tmp_path, root):
    for name in ("one", "two"):
        rows = zip(CURVES[name].steps, CURVES[name].losses, strict=True)
        text = "".join(f"{step},{loss}\n" for step, loss in rows)
        (tmp_path / f"{name}.csv").write_text(f"step,loss\n{text}")
        storage.write_json(tmp_path / f"{name}.json", ERRORS[name])
    figure = {
        "title": "How adaptors learn",
        "caption": "Caption.",
        "note": "A note.",
        "adaptors": [
            {"adaptor": "one", "label": "unrolled"},
            {"adaptor": "two", "label": "noised"},
        ],
    }
    arguments = Namespace(
        kind="training_curves",
        spec=json.dumps(figure),
        curves=[tmp_path / "one.csv", tmp_path / "two.csv"],
        errors=[tmp_path / "one.json", tmp_path / "two.json"],
        output=tmp_path / "figure.png",
    )
    set_step.figure(arguments)
    pixels = imread(tmp_path / "figure.png")
    assert pixels.shape[1] > pixels.shape[0] > 400
    assert pixels[..., :3].min() < 0.5
    assert (tmp_path / "figure.pdf").is_file()
