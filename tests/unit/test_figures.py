"""Schematics and curves: what they say, and that it can be read."""

import itertools
from dataclasses import replace

import pytest
from matplotlib.axis import Tick, XTick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from clockwork_diffusion.unet import CUTS
from clockwork_experiments.cost.architectures import SD_V15_TEXT, build_unet
from clockwork_experiments.cost.flops import count_blocks, count_full
from clockwork_experiments.report.figures import caching, curves, schematic, style

METHOD = schematic.MethodSpec("The method", "")
BLOCKS = schematic.BlockMapSpec("The blocks", "", "sd")
M = schematic.Module
CACHING = caching.PnpCachingSpec("What is kept", "")
ADAPTOR = schematic.AdaptorMapSpec(
    "The UNet adaptor",
    "",
    in_channels=320,
    out_channels=640,
    size=32,
    modules=(
        M("down 1", "down", 640, 16, text=True),
        M("down 2", "down", 640, 8),
        M("ResBlock", "block", 640, 8, repeat=4, time=True),
        M("up 1", "up", 640, 16),
        M("up 2", "up", 640, 32, time=True, text=True),
    ),
    skips=((0, 3), (1, 2)),
)


@pytest.fixture(scope="module")
def counts() -> dict:
    unet = build_unet("sd")
    blocks = count_blocks(unet, SD_V15_TEXT[0])
    return {
        "full": count_full(unet, SD_V15_TEXT[0]).to_json(),
        "blocks": {name: count.to_json() for name, count in blocks.items()},
    }


def without_middle(counts: dict) -> dict:
    blocks = {name: c for name, c in counts["blocks"].items() if name != "MID"}
    return {**counts, "blocks": blocks}


GROUPS = {
    "sd": (1.356, "SD UNet"),
    "efficient": (1.187, "Efficient UNet"),
    "distilled": (0.593, "Distilled Efficient UNet"),
}


def crowd() -> tuple[curves.CurvesSpec, dict, dict]:
    """Return six curves that come close to each other and cross."""
    series, cost, scores = [], {}, {}
    for number, (group, (call, label)) in enumerate(GROUPS.items()):
        for kind, steps, factor in (
            ("baseline", (8, 6, 4, 3), 1.0),
            ("clockwork", (8, 6, 4), 0.66),
        ):
            points = []
            for n in steps:
                run = f"{group}_{kind}_{n}"
                cost[run] = n * call * factor
                a = 20 + 60 / n + 0.3 * number - 0.4 * (factor < 1)
                b = 0.3 - 0.1 / n**2 - 0.001 * number
                scores[run] = {
                    "frechet": {"value": a, "low": a - 0.5, "high": a + 0.6},
                    "clip": {"value": b, "low": None, "high": None},
                }
                points.append(curves.CurvePoint(run, str(n)))
            name = label if kind == "baseline" else "+ Clockwork"
            series.append(curves.Series(name, group, kind, tuple(points)))
    panels = (curves.Panel("frechet", "A"), curves.Panel("clip"))
    spec = curves.CurvesSpec(
        "Invented", "", "TFLOPs per image", panels, tuple(series), "Invented numbers."
    )
    return spec, cost, scores


def in_rows() -> tuple[curves.CurvesSpec, dict, dict]:
    """Return four editing curves in four panels, with the costs of Section 6.2.1.

    Only one of the curves has its steps written at its points.
    """
    steps = (10, 20, 25, 50, 100, 200, 500, 1000)
    base = (27.1, 54.2, 67.8, 135.6, 169.4, 237.2, 440.6, 779.5)
    series, cost, scores = [], {}, {}
    for number, factor in enumerate((1.0, 0.669, 0.5, 0.685)):
        points = []
        for n, flops in zip(steps, base, strict=True):
            run = f"edit{number}/steps{n}"
            cost[run] = factor * flops
            clip = 0.27 + 0.006 * n / (n + 100) - 0.0005 * number
            structure = 0.045 + 1 / (n + 30) + 0.001 * number
            scores[run] = {}
            for name, shift in (("real", 0.0), ("fake", 0.01)):
                scores[run][f"{name}/clip"] = {"value": clip + shift}
                scores[run][f"{name}/structure"] = {"value": structure + shift}
            points.append(curves.CurvePoint(run, "" if number else str(n)))
        name = f"+ Clockwork {number}" if number else "Plug-and-Play"
        style = "clockwork" if number else "baseline"
        series.append(curves.Series(name, f"edit{number}", style, tuple(points)))
    panels = tuple(
        curves.Panel(f"{name}/{key}", heading=f"{name} sources")
        for name in ("real", "fake")
        for key in ("clip", "structure")
    )
    spec = curves.CurvesSpec(
        "Invented edits", "", "TFLOPs", panels, tuple(series), columns=2, log_x=True
    )
    return spec, cost, scores


def drawings(counts: dict) -> dict[str, Figure]:
    spec, cost, scores = crowd()
    plain = replace(ADAPTOR, skips=(), residual=False)
    return {
        "method": schematic.draw_method(METHOD),
        "method, clock 4": schematic.draw_method(replace(METHOD, steps=20, clock=4)),
        "blocks": schematic.draw_block_map(BLOCKS, counts),
        "blocks, no middle": schematic.draw_block_map(BLOCKS, without_middle(counts)),
        "adaptor": schematic.draw_adaptor_map(ADAPTOR),
        "adaptor, plain": schematic.draw_adaptor_map(plain),
        "curves": curves.draw_curves(spec, cost, scores),
        "curve": curves.draw_curves(
            replace(spec, panels=spec.panels[:1], note=""), cost, scores
        ),
        "curves in rows": curves.draw_curves(*in_rows()),
        "caching": caching.draw_pnp_caching(CACHING),
        "caching, few steps": caching.draw_pnp_caching(
            replace(CACHING, steps=4, tau_f=0.25, tau_a=1.0)
        ),
        "caching, many steps": caching.draw_pnp_caching(replace(CACHING, steps=12)),
    }


@pytest.fixture(scope="module")
def drawn(counts) -> dict[str, Figure]:
    return drawings(counts)


def texts(figure: Figure) -> list[Text]:
    """Return the text that is drawn."""
    FigureCanvasAgg(figure).draw()
    beyond = set()
    for tick in figure.findobj(Tick):
        axis = tick.axes.xaxis if isinstance(tick, XTick) else tick.axes.yaxis
        low, high = axis.get_view_interval()
        if not low <= tick.get_loc() <= high:
            beyond |= {tick.label1, tick.label2}
    found = figure.findobj(lambda a: isinstance(a, Text) and a.get_text().strip())
    return [text for text in found if text.get_visible() and text not in beyond]


def test_no_text_covers_another_or_leaves_the_canvas(drawn):
    for name, figure in drawn.items():
        found = texts(figure)
        renderer = figure.canvas.get_renderer()
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in found]
        canvas = figure.bbox
        for text, box in boxes:
            assert canvas.x0 + 2 <= box.x0 and box.x1 <= canvas.x1 - 2, (name, text)
            assert canvas.y0 + 2 <= box.y0 and box.y1 <= canvas.y1 - 2, (name, text)
        for (one, first), (two, second) in itertools.combinations(boxes, 2):
            assert not first.overlaps(second), (name, one, two)


def test_text_is_large_enough_and_fits_its_box(drawn):
    for name, figure in drawn.items():
        found = texts(figure)
        assert min(text.get_fontsize() for text in found) >= 6.5, name
        renderer = figure.canvas.get_renderer()
        for axes in figure.axes:
            frames = [p.get_window_extent(renderer) for p in axes.patches]
            for text in axes.texts:
                box = text.get_window_extent(renderer)
                for frame in frames:
                    # Centred in a frame means written in it.
                    dx = abs(frame.x0 + frame.x1 - box.x0 - box.x1) / 2
                    dy = abs(frame.y0 + frame.y1 - box.y0 - box.y1) / 2
                    if max(dx, dy) < 2 and min(frame.width, frame.height) > 10:
                        assert box.width < frame.width, (name, text.get_text())
                        assert box.height < frame.height, (name, text.get_text())


def test_figures_fit_a_page(drawn):
    for name, figure in drawn.items():
        assert figure.get_figwidth() <= 7.3, name


def test_every_figure_has_the_same_bytes_twice(drawn, counts, tmp_path):
    again = drawings(counts)
    for name in ("method", "blocks", "adaptor", "curve", "caching"):
        for turn, figures in (("one", drawn), ("two", again)):
            style.save(figures[name], tmp_path / turn / name)
        for kind in ("pdf", "png"):
            one, two = (tmp_path / t / f"{name}.{kind}" for t in ("one", "two"))
            assert one.read_bytes() == two.read_bytes(), one.name


# --- blocks -----------------------------------------------------------------------


def column(figure: Figure, name: str) -> list[str]:
    """Return what is written below a block's name."""
    found = texts(figure)
    (header,) = (text for text in found if text.get_text() == name)
    x, y = header.get_position()
    below = [t for t in found if t.get_position()[0] == x and t.get_position()[1] < y]
    below.sort(key=lambda text: -text.get_position()[1])
    return [text.get_text() for text in below]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("DOWN-0", ["64 × 64", "10.52", "32.90"]),
        ("DOWN-2", ["16 × 16", "139.99", "31.45"]),
        ("DOWN-3", ["8 × 8", "62.28", "3.78"]),
        ("MID", ["8 × 8", "97.04", "6.03"]),
        ("UP-0", ["8 × 8", "162.24", "12.90"]),
        ("UP-3", ["64 × 64", "18.81", "65.97"]),
        ("UNet", ["859.52", "338.61"]),
    ],
)
def test_block_map_writes_each_blocks_numbers_below_it(counts, name, cells):
    assert column(schematic.draw_block_map(BLOCKS, counts), name) == cells


def test_block_map_follows_its_data(counts):
    """Another UNet gives other numbers, heights and shades."""
    figure = schematic.draw_block_map(BLOCKS, counts)
    changed = {**counts["blocks"]["MID"], "macs": 100_000_000_000}
    other = {**counts, "blocks": counts["blocks"] | {"MID": changed}}
    redrawn = schematic.draw_block_map(BLOCKS, other)
    assert column(redrawn, "MID")[-1] == "100.00"
    assert shade(redrawn, "MID") == to_hex(schematic.shares()(1.0))
    assert shade(figure, "MID") != shade(redrawn, "MID")
    assert column(figure, "UP-0") == column(redrawn, "UP-0")


def shade(figure: Figure, name: str) -> str:
    (header,) = (text for text in texts(figure) if text.get_text() == name)
    x = header.get_position()[0]
    (box,) = (
        patch
        for patch in figure.axes[0].patches
        if type(patch).__name__ == "Rectangle"
        and patch.get_x() < x < patch.get_x() + patch.get_width()
    )
    return to_hex(box.get_facecolor())


def test_more_macs_are_darker_in_grey():
    shades = [schematic._luminance(schematic.shares()(i / 20)) for i in range(21)]
    assert shades == sorted(shades, reverse=True)
    assert shades[0] - shades[-1] > 0.7


def test_block_map_marks_the_cuts_of_the_split(counts):
    assert [cut.level for cut in BLOCKS.cuts] == list(CUTS.values())
    figure = schematic.draw_block_map(BLOCKS, counts)
    written = " ".join(text.get_text() for text in texts(figure))
    assert "stage-1 cut, 32 × 32" in written
    assert "stage-2 cut, 16 × 16" in written


def test_block_map_refuses_what_is_no_unet(counts):
    odd = {name: c for name, c in counts["blocks"].items() if name != "UP-0"}
    with pytest.raises(ValueError, match="are not those of a UNet") as caught:
        schematic.draw_block_map(BLOCKS, {**counts, "blocks": odd})
    assert "\n" not in str(caught.value)
    deep = replace(BLOCKS, cuts=(schematic.Cut("stage-4 cut", 4),))
    with pytest.raises(
        ValueError, match="'stage-4 cut' at level 4 is not within 1 … 3"
    ):
        schematic.draw_block_map(deep, counts)


# --- the method, adaptors ---------------------------------------------------------


def test_method_shows_the_clock():
    figure = schematic.draw_method(replace(METHOD, steps=9, clock=3))
    numbers = {t.get_text(): to_hex(t.get_color()) for t in texts(figure)}
    full = [n for n in map(str, range(1, 10)) if numbers[n] == "#ffffff"]
    assert full == ["1", "4", "7"]


@pytest.mark.parametrize(("steps", "clock"), [(8, 1), (2, 3), (50, 2)])
def test_method_refuses_clocks_that_it_cannot_show(steps, clock):
    with pytest.raises(ValueError, match=f"clock {clock} of {steps} steps"):
        schematic.MethodSpec("", "", steps=steps, clock=clock)


def test_adaptor_map_writes_channels_and_resolution_below_each_module():
    figure = schematic.draw_adaptor_map(ADAPTOR)
    assert column(figure, "joined") == ["960 ch.", "32 × 32"]
    assert column(figure, "down 2") == ["640 ch.", "8 × 8"]
    assert column(figure, "ResBlock × 4") == ["640 ch.", "8 × 8"]
    written = [text.get_text() for text in texts(figure)]
    assert written.count("↓ 2") == written.count("↑ 2") == 2
    # Modules that take both embeddings, the text alone, the time alone.
    for label in ("$t_", "$\\mathrm{text}"):
        assert sum(label in text for text in written) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modules": ()}, "needs a module at least"),
        ({"skips": ((3, 1),)}, "skip 3 to 1 does not lead forward within 5"),
        ({"size": 16}, "'down 1' of kind down cannot turn size 16 into 16"),
        ({"modules": ADAPTOR.modules[:-1]}, "modules end at size 16, not 32"),
    ],
)
def test_adaptor_map_refuses_what_does_not_add_up(change, message):
    with pytest.raises(ValueError, match=message):
        replace(ADAPTOR, **{"skips": ()} | change)


def test_modules_refuse_unknown_kinds_and_empty_sizes():
    with pytest.raises(ValueError, match="kind 'side' is not one of down, block, up"):
        M("x", "side", 1, 1)
    with pytest.raises(ValueError, match="'x' needs channels, .* not 4, 0, 1"):
        M("x", "up", 4, 0)


# --- what Plug-and-Play keeps -----------------------------------------------------


def features(figure: Figure, colour: str, *, above: float) -> int:
    """Return how many arrows of a colour start above a height."""
    arrows = [
        p for p in figure.axes[0].patches if type(p).__name__ == "FancyArrowPatch"
    ]
    chosen = [a for a in arrows if to_hex(a.get_edgecolor()) == colour.lower()]
    return sum(arrow.get_path().vertices[0, 1] > above for arrow in chosen)


def test_caching_injects_for_the_share_of_the_steps_that_tau_says():
    for steps, tau_f, tau_a, conv, attention in (
        (10, 0.8, 0.5, 8, 5),
        (6, 0.5, 0.99, 3, 5),
    ):
        spec = replace(CACHING, steps=steps, tau_f=tau_f, tau_a=tau_a)
        figure = caching.draw_pnp_caching(spec)
        # Into two rows at each step; and twice more in the panels below.
        for colour, count in ((caching.CONV, conv), (caching.ATTENTION, attention)):
            assert features(figure, colour, above=1.96) == 2 * count
            assert features(figure, colour, above=0.0) == 6 * count
        written = [text.get_text() for text in texts(figure)]
        injected = max(conv, attention)
        assert written.count("2") == steps + (steps - injected)
        assert written.count("3") == injected
        assert any(
            f"{2 * steps} rows" in t and f"{injected} pass" in t for t in written
        )
        assert any(f"{2 * steps + injected} rows" in t for t in written)


def test_caching_injects_first_into_the_noisiest_latents():
    spec = replace(CACHING, steps=10, tau_f=0.3, tau_a=0.1)
    axes = caching.draw_pnp_caching(spec).axes[0]
    labels = {t.get_text(): t.get_position()[0] for t in axes.texts}
    arrows = [p for p in axes.patches if type(p).__name__ == "FancyArrowPatch"]
    starts = {
        round(float(a.get_path().vertices[0, 0]), 3)
        for a in arrows
        if to_hex(a.get_edgecolor()) == caching.CONV.lower()
        and a.get_path().vertices[0, 1] > 1.96
    }
    assert len(starts) == 3
    assert min(starts) > labels["$x_{7}$"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 3}, "steps 3 is not 4 to 12"),
        ({"tau_f": 1.2}, "tau_f 1.2 of 10 steps is not 1 to 10"),
        ({"tau_a": 0.05}, "tau_a 0.05 of 10 steps is not 1 to 10"),
    ],
)
def test_caching_refuses_what_it_cannot_show(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CACHING, **change)


# --- curves -----------------------------------------------------------------------


def lines(figure: Figure, panel: int = 0) -> list:
    return [c.lines[0] for c in figure.axes[panel].containers]


def test_curves_draw_the_data():
    spec, cost, scores = crowd()
    figure = curves.draw_curves(spec, cost, scores)
    for panel, key in enumerate(("frechet", "clip")):
        for line, series in zip(lines(figure, panel), spec.series, strict=True):
            runs = [point.run for point in series.points]
            assert list(line.get_xdata()) == [cost[run] for run in runs]
            assert list(line.get_ydata()) == [scores[r][key]["value"] for r in runs]
    bars = figure.axes[0].containers[0].lines[2][0].get_segments()
    value = scores["sd_baseline_8"]["frechet"]
    assert bars[0][:, 1] == pytest.approx([value["low"], value["high"]])
    assert not figure.axes[1].containers[0].lines[2]
    assert figure.axes[0].get_ylabel() == "A (lower is better)"
    assert figure.axes[1].get_ylabel() == "CLIP (higher is better)"


def test_a_group_shares_its_colour_and_its_series_differ_without_colour():
    spec, cost, scores = crowd()
    drawn = lines(curves.draw_curves(spec, cost, scores))
    for plain, clocked in zip(drawn[::2], drawn[1::2], strict=True):
        assert plain.get_color() == clocked.get_color()
        assert plain.get_linestyle() != clocked.get_linestyle()
        assert plain.get_markerfacecolor() != clocked.get_markerfacecolor()
    assert len({line.get_color() for line in drawn}) == 3
    grey = {
        (line.get_marker(), line.get_markerfacecolor() == "white") for line in drawn
    }
    assert len(grey) == len(drawn)


def test_labels_of_points_cover_no_marker_and_no_error_bar():
    spec, cost, scores = crowd()
    figure = curves.draw_curves(spec, cost, scores)
    texts(figure)
    renderer = figure.canvas.get_renderer()
    for panel, axes in enumerate(figure.axes):
        labels = [t.get_window_extent(renderer) for t in axes.texts]
        assert len(labels) == len(cost)
        for line in lines(figure, panel):
            for x, y in axes.transData.transform(line.get_xydata()):
                assert not any(b.contains(x, y) for b in labels)
        for container in axes.containers:
            for bar in container.lines[2]:
                for segment in bar.get_segments():
                    low, high = axes.transData.transform(segment)
                    for box in labels:
                        across = box.x0 <= low[0] <= box.x1
                        assert not (across and low[1] < box.y1 and box.y0 < high[1])


def test_labels_stay_near_their_points():
    spec, cost, scores = crowd()
    figure = curves.draw_curves(spec, cost, scores)
    for axes in figure.axes:
        for label in axes.texts:
            x, y = label.get_position()
            assert (x**2 + y**2) ** 0.5 < 20


@pytest.mark.parametrize("lost", ["cost", "score", "value"])
def test_curves_refuse_runs_without_their_numbers(lost):
    spec, cost, scores = crowd()
    run = "efficient_clockwork_6"
    if lost == "cost":
        del cost[run]
    elif lost == "score":
        del scores[run]["clip"]
    else:
        scores[run]["clip"] = {"value": None}
    with pytest.raises(ValueError, match=f"^run '{run}' has no (cost|score 'clip')$"):
        curves.draw_curves(spec, cost, scores)


def test_curves_refuse_a_value_outside_its_interval():
    spec, cost, scores = crowd()
    scores["sd_baseline_3"]["frechet"] = {"value": 1.0, "low": 2.0, "high": 3.0}
    with pytest.raises(ValueError, match=r"value 1.0 is outside .* \[2.0, 3.0\]$"):
        curves.draw_curves(spec, cost, scores)


def test_curves_refuse_specs_that_cannot_be_read():
    spec, _, _ = crowd()
    with pytest.raises(ValueError, match="score 'ssim' is not one of frechet, "):
        curves.Panel("real/ssim", "SSIM")
    with pytest.raises(ValueError, match="style 'bold' is not one of baseline"):
        replace(spec.series[0], style="bold")
    with pytest.raises(ValueError, match="series 'SD UNet' has no points"):
        replace(spec.series[0], points=())
    with pytest.raises(ValueError, match="'sd' has more than one series of style"):
        replace(spec, series=spec.series[:1] * 2)
    many = tuple(replace(spec.series[0], group=str(i)) for i in range(7))
    with pytest.raises(ValueError, match="7 groups are more than the 6 colours"):
        replace(spec, series=many)
    with pytest.raises(ValueError, match="a panel and a series at least"):
        replace(spec, panels=())


def test_paired_intervals_are_those_of_the_difference():
    scores = {
        "clip": {"value": 0.9, "low": 0.8, "high": 1.0},
        "clip_minus_teacher": {"value": -0.02, "low": -0.03, "high": -0.005},
        "frechet": {"value": 4.0, "low": 1.0, "high": 7.0},
        "psnr_to_teacher": {"value": 40.0, "low": 39.0, "high": 42.0},
    }
    paired = curves.paired_intervals(scores)
    assert paired["clip"]["value"] == 0.9
    assert paired["clip"]["low"] == pytest.approx(0.89)
    assert paired["clip"]["high"] == pytest.approx(0.915)
    assert paired["psnr_to_teacher"] == scores["psnr_to_teacher"]
    # No difference is known: the value alone, not the interval of something else.
    assert (paired["frechet"]["low"], paired["frechet"]["high"]) == (4.0, 4.0)


def test_panels_run_along_the_rows_and_have_their_headings():
    spec, cost, scores = in_rows()
    figure = curves.draw_curves(spec, cost, scores)
    places = [axes.get_position() for axes in figure.axes]
    assert places[0].y0 == places[1].y0 > places[2].y1
    assert places[0].x0 == places[2].x0 < places[1].x0 == places[3].x0
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "TFLOPs", "TFLOPs"]
    for panel, place in zip(spec.panels, places, strict=True):
        ys = lines(figure, spec.panels.index(panel))[0].get_ydata()
        assert list(ys) == [
            scores[point.run][panel.score]["value"] for point in spec.series[0].points
        ]
        headings = [
            text.get_position()
            for text in figure.texts
            if text.get_text() == panel.heading
        ]
        above = [y - place.y1 for x, y in headings if x == pytest.approx(place.x0)]
        assert any(0 < gap < 0.02 for gap in above)
    # One row, unless asked; an odd panel alone in the last one has its label.
    row = curves.draw_curves(replace(spec, columns=0), cost, scores)
    assert len({axes.get_position().y0 for axes in row.axes}) == 1
    odd = curves.draw_curves(replace(spec, panels=spec.panels[:3]), cost, scores)
    assert [axes.get_xlabel() for axes in odd.axes] == ["", "TFLOPs", "TFLOPs"]


def test_a_logarithmic_axis_spaces_factors_equally():
    spec, cost, scores = in_rows()
    (axes, *_) = curves.draw_curves(spec, cost, scores).axes
    x = [axes.transData.transform((c, 0.27))[0] for c in (20, 40, 80)]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])
    written = [label.get_text() for label in axes.get_xticklabels()]
    assert {"20", "50", "100", "200", "500"} <= set(written)


def test_labels_of_crowded_points_stay_apart():
    spec, cost, scores = in_rows()
    labelled = [
        replace(s, points=tuple(replace(p, label="10000") for p in s.points))
        for s in spec.series
    ]
    one = replace(spec, panels=spec.panels[:1], series=tuple(labelled), columns=1)
    figure = curves.draw_curves(one, cost, scores)
    texts(figure)
    renderer = figure.canvas.get_renderer()
    (axes,) = figure.axes
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == 32
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)


def test_curves_refuse_columns_that_no_panel_fills():
    spec, _, _ = in_rows()
    with pytest.raises(ValueError, match=r"columns 5 is not 0 .* 4 panels"):
        replace(spec, columns=5)


def test_a_legend_of_many_groups_is_broad_and_short():
    spec, cost, scores = in_rows()
    many = tuple(replace(spec.series[0], group=str(i), label=str(i)) for i in range(6))
    assert curves._legend(replace(spec, series=many))[0] == 3
