import numpy as np
import pytest
import torch

from clockwork_experiments.base import storage
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.report.figures import style
from clockwork_experiments.report.figures.perturbation import (
    PerturbationCurvesSpec,
    PerturbationGridSpec,
    Results,
    ShownLayer,
    draw_curves,
    draw_grid,
    read_results,
)
from clockwork_experiments.score.perturbation import (
    MEASURES,
    PerturbationSpec,
    summarise,
)

SPEC = PerturbationSpec(
    sampler=SamplerSpec("dpmpp", 6, 3.0),
    layers=("bottleneck", "up_blocks.2"),
    alphas=(0.3, 0.7),
    starts=(4, 0, 1),
    seed=0,
    batch_size=8,
    kept=2,
)
LAYERS = (ShownLayer("up_blocks.2", "up 3"), ShownLayer("bottleneck", "middle"))


def results_of(count: int) -> Results:
    """Every image has a grey level of its own, and every score is told apart."""
    shape = (2, 2, 2, 3)
    levels = np.arange(24, dtype=np.uint8).reshape(shape) * 10
    images = np.broadcast_to(levels[..., None, None, None], (*shape, 3, 4, 4))
    unperturbed = np.full((2, 3, 4, 4), 255, dtype=np.uint8)
    cells = torch.arange(12).double().view(1, 2, 2, 3)
    spread = torch.arange(count).double().view(-1, 1, 1, 1) - (count - 1) / 2
    tensors = {name: 10 + cells + spread for name in MEASURES}
    summary = {**summarise(tensors, SPEC), "prompts": ["a red ring", "the sea"]}
    return Results(summary, images, unperturbed)


def grid(**change) -> PerturbationGridSpec:
    good = {"title": "T", "caption": "C", "layers": LAYERS, "alpha": 0.7}
    good["perturbation"] = "p"
    return PerturbationGridSpec(**{**good, "starts": (0, 4), "prompt": 1, **change})


def curves(**change) -> PerturbationCurvesSpec:
    good = {"title": "T", "caption": "C", "layers": LAYERS, "alpha": 0.7}
    good["perturbation"] = "p"
    return PerturbationCurvesSpec(**{**good, **change})


def test_every_image_is_in_its_place():
    figure = draw_grid(grid(), results_of(5))
    # From the top row down, and within a row from the left.
    axes = sorted(
        figure.axes, key=lambda a: (-round(a.get_position().y0, 3), a.get_position().x0)
    )
    levels = [int(a.images[0].get_array()[0, 0, 0]) for a in axes]
    # Prompt 1, α 0.7; layer 1 above layer 0; start 0 is the second, start 4 the first.
    expected = [12 + 6 + 3 + 1, 12 + 6 + 3 + 0, None, 12 + 3 + 1, 12 + 3 + 0, None]
    assert levels == [255 if n is None else 10 * n for n in expected]
    texts = [text.get_text() for text in figure.texts]
    assert {"T", "0", "4", "unperturbed", "up 3", "middle"} <= set(texts)
    assert any("0.7" in text and "the sea" in text for text in texts)


def test_nothing_in_the_grid_overlaps_or_leaves_the_page():
    figure = draw_grid(grid(starts=(0, 1, 4)), results_of(5))
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= b.x0 < b.x1 <= 1 and 0 <= b.y0 < b.y1 <= 1 for b in boxes)
    for index, box in enumerate(boxes):
        for other in boxes[index + 1 :]:
            apart_x = box.x1 <= other.x0 or other.x1 <= box.x0
            apart_y = box.y1 <= other.y0 or other.y1 <= box.y0
            assert apart_x or apart_y
    figure.draw_without_rendering()
    page = figure.bbox
    for text in figure.texts:
        extent = text.get_window_extent()
        assert page.x0 <= extent.x0 and extent.x1 <= page.x1, text.get_text()


def test_curves_show_means_in_the_order_of_the_starts():
    figure = draw_curves(curves(), results_of(5))
    (axes,) = figure.axes
    upper, middle = axes.lines
    assert upper.get_xdata().tolist() == [0, 1, 4]
    # Layer 1, α 0.7: cells 9, 10, 11 at the starts 4, 0, 1.
    assert upper.get_ydata().tolist() == [20.0, 21.0, 19.0]
    assert middle.get_ydata().tolist() == [14.0, 15.0, 13.0]
    assert [line.get_color() for line in axes.lines] == list(style.COLOURS[:2])
    assert [line.get_marker() for line in axes.lines] == list(style.MARKERS[:2])
    # The bands hold the means, and reach no further than the values.
    band = axes.collections[0].get_paths()[0].vertices
    at_start = band[band[:, 0] == 0, 1]
    assert 18 <= at_start.min() < 20 < at_start.max() <= 22
    assert any("n = 5; bands: 95 %" in text.get_text() for text in axes.texts)


def test_one_image_has_no_band():
    figure = draw_curves(curves(log=True), results_of(1))
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert axes.lines[0].get_ydata().tolist() == [20.0, 21.0, 19.0]
    assert not any("bands" in text.get_text() for text in axes.texts)


def test_both_files_make_results(tmp_path):
    made = results_of(5)
    images, distances = tmp_path / "images.safetensors", tmp_path / "distances.json"
    tensors = {"images": torch.from_numpy(made.images.copy())}
    tensors["unperturbed"] = torch.from_numpy(made.unperturbed)
    storage.write_tensors(images, tensors)
    storage.write_json(distances, made.summary)
    read = read_results(images, distances)
    assert read.image("bottleneck", 0.7, 1, 0)[0, 0, 0] == 10 * 5
    assert read.scores("bottleneck", 0.3, "latent_distance")[2]["value"] == 12.0
    storage.write_json(distances, {**made.summary, "starts": [0]})
    with pytest.raises(ValueError, match="are not of the same grid"):
        read_results(images, distances)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": 2}, "prompt 2 is not one of the 2 kept"),
        ({"starts": (2,)}, "start 2 is not one of the sampled 4, 0, 1"),
        ({"alpha": 0.5}, r"alpha 0\.5 is not one of the sampled 0\.3, 0\.7"),
        ({"layers": (ShownLayer("conv_in", ""),)}, "layer 'conv_in' is not one of"),
        ({"starts": ()}, "needs a layer and a start"),
    ],
)
def test_what_was_not_sampled_cannot_be_shown(change, message):
    with pytest.raises(ValueError, match=message):
        draw_grid(grid(**change), results_of(5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measure": "fid"}, "measure 'fid' is not one of image_distance"),
        ({"layers": ()}, "0 layers are not 1 to 6"),
        ({"layers": LAYERS * 4}, "8 layers are not 1 to 6"),
        ({"alpha": 0.5}, r"alpha 0\.5 is not one of"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        draw_curves(curves(**change), results_of(5))


def test_equal_figures_are_equal_files(tmp_path):
    for name in ("one", "two"):
        style.save(draw_curves(curves(), results_of(5)), tmp_path / name)
    for kind in ("pdf", "png"):
        one, two = (tmp_path / f"{name}.{kind}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
