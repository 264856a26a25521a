"""Draw the method, the UNet's blocks and an adaptor (Figures 3, S1 and S2).

Drawings are laid out in inches on one canvas, at the width of a page. Maps are drawn
from data: blocks from their counts, adaptors from a list of their modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from clockwork_diffusion.clock import Clock
from clockwork_experiments.config.parse import parse
from clockwork_experiments.report.figures.pieces import FAINT, INK, PANEL
from clockwork_experiments.report.figures.pieces import arrow as _arrow
from clockwork_experiments.report.figures.pieces import box as _box
from clockwork_experiments.report.figures.pieces import canvas as _canvas
from clockwork_experiments.report.figures.pieces import text as _text
from clockwork_experiments.report.figures.style import COLOURS
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGH, LOW, LIGHT = COLOURS[0], COLOURS[2], COLOURS[1]
"""Colours of ε_H, of ε_L, and of the adaptor."""

SKIP = 0.11
"""Inches between a skip's line and what it passes."""

BLOCK = "#F6CBAE"
"""A tint of the adaptor's colour, for its inner blocks."""

SHARES = ("#F1F6FA", "#8FBAD9", "#1F6AA5", "#0A2F51")
"""Shades that also darken in grey."""

NOW = r"$t$"
R_IN = r"$r^{\mathrm{in}}_{t}$"
R_IN_BEFORE = r"$r^{\mathrm{in}}_{t+1}$"
R_OUT = r"$r^{\mathrm{out}}_{t}$"
R_OUT_BEFORE = r"$r^{\mathrm{out}}_{t+1}$"
R_OUT_GUESS = r"$\hat{r}^{\mathrm{out}}_{t}$"
EPS_H, EPS_L, PHI = r"$\epsilon_H$", r"$\epsilon_L$", r"$\phi$"
T_EMB, TEXT_EMB = r"$t_{\mathrm{emb}}$", r"$\mathrm{text}_{\mathrm{emb}}$"


@dataclass(frozen=True)
class MethodSpec(Kind):
    """The schematic of the method.

    Attributes:
        steps: Sampling steps of the example.
        clock: A full pass every so many steps.
    """

    kind: ClassVar[str] = "method"
    steps: int = 8
    clock: int = 2

    def __post_init__(self) -> None:
        """Reject examples without an adaptor step."""
        if not 2 <= self.clock <= self.steps <= 20:
            raise ValueError(
                f"clock {self.clock} of {self.steps} steps cannot be drawn; "
                "a clock of 2 or more and at most 20 steps can"
            )

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_method(self)


@dataclass(frozen=True)
class Cut:
    """A cut of a block map.

    Attributes:
        label: What the reader sees.
        level: Down (and up) blocks outside ε_L.
    """

    label: str
    level: int


@dataclass(frozen=True)
class BlockMapSpec(Kind):
    """A map of a UNet's blocks.

    Attributes:
        model: Id of the model.
        size: Height and width of the latents.
        cuts: The cuts to mark.
    """

    kind: ClassVar[str] = "block_map"
    model: str
    size: int = 64
    cuts: tuple[Cut, ...] = (Cut("stage-1 cut", 1), Cut("stage-2 cut", 2))

    def needs(self, known: Known) -> Needs:
        """Return the counts of the model."""
        known.entry("models", self.model)
        return {"flops": [f"{known.base}/flops/{self.model}.json"]}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_block_map(self, given.one("flops"))


MODULES = {"down": -1, "block": 0, "up": 1}
"""Kinds of an adaptor's modules, and what they do to the resolution."""


@dataclass(frozen=True)
class Module:
    """A module of an adaptor.

    Attributes:
        label: What the reader sees.
        kind: A key of `MODULES`.
        channels: Channels that leave it.
        size: Height and width that leave it.
        repeat: How many of it follow each other.
        time: Whether it takes the time embedding.
        text: Whether it takes the text embedding.
    """

    label: str
    kind: str
    channels: int
    size: int
    repeat: int = 1
    time: bool = False
    text: bool = False

    def __post_init__(self) -> None:
        """Reject modules that cannot be drawn."""
        if self.kind not in MODULES:
            raise ValueError(f"kind {self.kind!r} is not one of {', '.join(MODULES)}")
        if min(self.channels, self.size, self.repeat) < 1:
            raise ValueError(
                f"module {self.label!r} needs channels, a size and repeats of at "
                f"least 1, not {self.channels}, {self.size}, {self.repeat}"
            )


@dataclass(frozen=True)
class AdaptorMapSpec:
    """A map of an adaptor.

    Attributes:
        title: Heading.
        caption: What the reader must know; for the report.
        in_channels: Channels of r_in.
        out_channels: Channels of r_out.
        size: Height and width of both.
        modules: The modules, in the order that data pass them.
        skips: Pairs of modules, by position, whose features are joined.
        residual: Whether r_out of the previous step is added at the end.
    """

    title: str
    caption: str
    in_channels: int
    out_channels: int
    size: int
    modules: tuple[Module, ...]
    skips: tuple[tuple[int, int], ...] = ()
    residual: bool = True

    def __post_init__(self) -> None:
        """Reject maps that are empty, do not add up, or have skips to nowhere."""
        if not self.modules:
            raise ValueError("an adaptor needs a module at least")
        size = self.size
        for module in self.modules:
            grows = (module.size > size) - (module.size < size)
            if grows != MODULES[module.kind]:
                raise ValueError(
                    f"module {module.label!r} of kind {module.kind} cannot turn size "
                    f"{size} into {module.size}"
                )
            size = module.size
        if size != self.size:
            raise ValueError(f"the modules end at size {size}, not {self.size}")
        for start, end in self.skips:
            if not 0 <= start < end < len(self.modules):
                raise ValueError(
                    f"skip {start} to {end} does not lead forward within "
                    f"{len(self.modules)} modules"
                )


@dataclass(frozen=True)
class AdaptorFigure(Kind):
    """A map of an adaptor whose layout comes with the counts of its model.

    Attributes:
        model: Id of its model.
        adaptor: Id of the adaptor.
    """

    kind: ClassVar[str] = "adaptor_map"
    model: str
    adaptor: str

    def with_layout(self, counts: Mapping[str, Any]) -> AdaptorMapSpec:
        """Return the map of the adaptor as it was built and counted.

        Args:
            counts: What `count_flops` wrote of the adaptor's model.

        Raises:
            ValueError: If the adaptor was not counted, or has no layout.
        """
        counted = counts["adaptors"]
        known = [name for name in counted if "layout" in counted[name]]
        if self.adaptor not in known:
            raise ValueError(
                f"adaptor {self.adaptor!r} is not one of those with a layout "
                f"({', '.join(known) or 'none'})"
            )
        layout = counted[self.adaptor]["layout"]
        return parse(
            AdaptorMapSpec, {"title": self.title, "caption": self.caption, **layout}
        )

    def needs(self, known: Known) -> Needs:
        """Return the counts of the model."""
        known.entry("models", self.model)
        return {"flops": [f"{known.base}/flops/{self.model}.json"]}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_adaptor_map(self.with_layout(given.one("flops")))


# --- the method -------------------------------------------------------------------


def draw_method(spec: MethodSpec) -> Figure:
    """Draw a full and an adaptor step side by side, and how the adaptor is trained."""
    figure, axes = _canvas(7.0, 3.62, spec.title)
    _step(axes, 0.1, "Full step", "$t+1$", full=True)
    _step(axes, 2.5, "Adaptor step", NOW, full=False)
    # r_out of the previous step crosses over to the adaptor.
    _arrow(axes, (1.98, 1.66), (3.17, 1.66), colour=LOW, width=1.4)
    _text(axes, 2.71, 1.8, R_OUT_BEFORE, colour=LOW, size=8)
    _clock(axes, spec)
    _training(axes, 4.9, 2.0)
    return figure


def _step(axes: Axes, x: float, label: str, step: str, *, full: bool) -> None:
    """Draw one sampling step, 2.2 inches wide."""
    _box(axes, x, 1.02, 2.2, 2.24, "", face="white", edge="#BBBBBB")
    _text(axes, x + 0.1, 3.1, f"{label} {step}", weight="bold", ha="left")
    choice = rf"$C({step.strip('$')}) = {0 if full else 1}$"
    _text(axes, x + 2.1, 3.1, choice, ha="right", colour=FAINT)
    top = 2.18
    for left, inner in ((x + 0.12, "DOWN-0"), (x + 1.36, "UP-3")):
        _box(axes, left, top, 0.72, 0.46, f"{EPS_H}\n{inner}", face=HIGH, ink="white")
    before, after = x + 0.48, x + 1.72
    _text(axes, before - 0.18, 2.8, f"$x_{{{step.strip('$')}}}$", size=8)
    _arrow(axes, (before, 2.9), (before, top + 0.46))
    _arrow(axes, (after, top + 0.46), (after, 2.9))
    _text(axes, after + 0.2, 2.8, r"$\hat{\epsilon}$", size=8)
    _arrow(axes, (x + 0.84, top + 0.23), (x + 1.36, top + 0.23), colour=FAINT)
    _text(axes, x + 1.1, top + 0.34, "skips", colour=FAINT, size=6.5)
    _arrow(axes, (x + 0.78, top), (x + 0.78, 1.88), colour=HIGH)
    _arrow(axes, (x + 1.42, 1.88), (x + 1.42, top), colour=LOW if full else LIGHT)
    _text(axes, x + 0.55, 2.03, R_IN_BEFORE if full else R_IN, colour=HIGH, size=8)
    leaves = R_OUT_BEFORE if full else R_OUT_GUESS
    _text(axes, x + 1.68, 2.03, leaves, colour=LOW if full else LIGHT, size=8)
    if full:
        low = f"{EPS_L}\nDOWN-1 … MID … UP-2"
        _box(axes, x + 0.32, 1.44, 1.56, 0.44, low, face=LOW, ink="white")
        kept = f"{R_OUT_BEFORE} is kept for the next step"
        _text(axes, x + 1.1, 1.16, kept, size=7, colour=FAINT)
        return
    _box(axes, x + 0.67, 1.44, 0.86, 0.44, f"adaptor {PHI}", face=LIGHT, ink="white")
    for centre, embedding in ((x + 0.85, T_EMB), (x + 1.33, TEXT_EMB)):
        _arrow(axes, (centre, 1.26), (centre, 1.44))
        _text(axes, centre, 1.16, embedding, size=7.5)


def _clock(axes: Axes, spec: MethodSpec) -> None:
    """Draw the steps of the example, full and light ones."""
    full = Clock(spec.clock)
    _text(axes, 0.1, 0.62, f"Clock {spec.clock}", ha="left", weight="bold")
    _text(axes, 0.1, 0.44, "sampling steps", ha="left", size=6.5, colour=FAINT)
    left, right = 0.95, 4.7
    pitch = (right - left) / spec.steps
    width = min(0.36, 0.8 * pitch)
    for index in range(spec.steps):
        x = left + (index + 0.5) * pitch
        if full.is_full(index):
            _box(axes, x - width / 2, 0.42, width, 0.3, "", face=LOW)
        else:
            _box(axes, x - width / 2, 0.42, width, 0.3, "", face="white", edge=LIGHT)
        ink = "white" if full.is_full(index) else LIGHT
        _text(axes, x, 0.57, str(index + 1), weight="bold", colour=ink, size=7)
        if index:
            _arrow(axes, (x - pitch + width / 2, 0.57), (x - width / 2, 0.57))
    first = left + (pitch - width) / 2
    _box(axes, first, 0.13, 0.13, 0.13, "", face=LOW)
    _text(axes, first + 0.2, 0.195, f"full: {EPS_H} and {EPS_L}", ha="left", size=7)
    _box(axes, 2.87, 0.13, 0.13, 0.13, "", face="white", edge=LIGHT)
    label = f"adaptor: {EPS_H} and {PHI}"
    _text(axes, 3.07, 0.195, label, ha="left", size=7)


def _training(axes: Axes, x: float, width: float) -> None:
    """Draw the panel that sets generation unroll against regular distillation."""
    _box(axes, x, 0.1, width, 3.16, "", face=PANEL, edge=PANEL)
    middle = x + width / 2
    _text(axes, x + 0.1, 3.1, "Regular distillation", ha="left", weight="bold")
    xs = (x + 0.29, x + 1.0, x + 1.71)
    _state(axes, xs[0], 2.76, "$x_0$", filled=True)
    _state(axes, xs[2], 2.76, "$x_t$")
    _arrow(axes, (xs[0] + 0.17, 2.76), (xs[2] - 0.17, 2.76))
    _text(axes, middle, 2.87, "add noise", size=7)
    _text(axes, middle, 2.44, "needs training images", size=7, colour=FAINT)
    axes.plot((x + 0.1, x + width - 0.1), (2.27, 2.27), color="white", lw=1.5)

    _text(axes, x + 0.1, 2.1, "Generation unroll", ha="left", weight="bold")
    for centre, label in zip(xs, ("$x_T$", "$x_{t+1}$", "$x_t$"), strict=True):
        _state(axes, centre, 1.66, label)
    _arrow(axes, (xs[0] + 0.17, 1.66), (xs[1] - 0.17, 1.66), style=(0, (2, 1.5)))
    _arrow(axes, (xs[1] + 0.17, 1.66), (xs[2] - 0.17, 1.66))
    _text(axes, middle, 1.92, "teacher, full at every step", size=7)
    _arrow(axes, (xs[1], 1.49), (xs[1], 1.28), colour=LOW)
    _arrow(axes, (xs[2], 1.49), (xs[2], 1.28), colour=LOW)
    _text(axes, xs[1], 1.18, R_OUT_BEFORE, colour=LOW, size=8)
    _text(axes, xs[2], 1.18, f"{R_IN}, {R_OUT}", colour=LOW, size=8)
    _text(axes, xs[0], 1.18, "stored:", size=7, colour=FAINT)
    loss = (
        r"$\Vert\,r^{\mathrm{out}}_{t} - \phi(r^{\mathrm{in}}_{t}, "
        r"r^{\mathrm{out}}_{t+1}, t_{\mathrm{emb}}, \mathrm{text}_{\mathrm{emb}})"
        r"\,\Vert_2$"
    )
    _box(axes, x + 0.06, 0.58, width - 0.12, 0.36, loss, face="white", size=6.8)
    _text(axes, middle, 0.42, "trained on the teacher's samples,", size=7, colour=FAINT)
    _text(axes, middle, 0.27, "needs prompts only", size=7, colour=FAINT)


def _state(axes: Axes, x: float, y: float, label: str, *, filled: bool = False) -> None:
    face = "#CFCFCF" if filled else "white"
    _box(axes, x - 0.17, y - 0.17, 0.34, 0.34, label, face=face, size=8)


# --- blocks -----------------------------------------------------------------------


def draw_block_map(spec: BlockMapSpec, counts: Mapping[str, Any]) -> Figure:
    """Draw a UNet's blocks with their parameters and MACs.

    Args:
        spec: What to show.
        counts: ``full`` and ``blocks`` as `count_flops` writes them: each with
            ``parameters`` and ``macs``.

    Raises:
        ValueError: If the blocks are not a UNet's, or a cut lies below the last level.
    """
    shades = shares()
    blocks: Mapping[str, Mapping[str, int]] = counts["blocks"]
    levels = _levels(blocks)
    for cut in spec.cuts:
        if not 1 <= cut.level < levels:
            raise ValueError(
                f"cut {cut.label!r} at level {cut.level} is not within 1 … {levels - 1}"
            )
    width, gap, tall, left = 0.53, 0.09, 1.6, 0.98
    depth = {
        name: levels - 1
        if name == "MID"
        else int(name[5:])
        if name.startswith("DOWN")
        else levels - 1 - int(name[3:])
        for name in blocks
    }
    x = {name: left + i * (width + gap) for i, name in enumerate(blocks)}
    total = left + len(blocks) * (width + gap)
    rows = 4
    foot = 0.17 + 0.18 * rows
    bottom = foot + 0.24 * len(spec.cuts) + 0.08
    centre = bottom + tall / 2
    top = bottom + tall
    figure, axes = _canvas(total + 0.62, top + 0.66, spec.title)
    note = (
        "Shade and %: share of the UNet's MACs. Height: resolution. "
        "Strips: down- and upsamplers. Grey lines: skips."
    )
    _text(axes, 0.1, top + 0.33, note, ha="left", size=7, colour=FAINT)

    def half(name: str) -> float:
        return tall / 2 ** depth[name] / 2

    largest = max(block["macs"] for block in blocks.values())
    names = list(blocks)
    for first, second in zip(names, names[1:], strict=False):
        _arrow(axes, (x[first] + width, centre), (x[second], centre), head=4)
    for name, block in blocks.items():
        share = shades(block["macs"] / largest)
        sampler = 0.08 if name != "MID" and depth[name] < levels - 1 else 0.0
        if name.startswith("UP"):
            sampler = 0.08 if depth[name] > 0 else 0.0
        y, height = centre - half(name), 2 * half(name)
        main = width - sampler - (0.02 if sampler else 0.0)
        label = f"{100 * block['macs'] / counts['full']['macs']:.0f} %"
        ink = "white" if _luminance(share) < 0.45 else INK
        _box(axes, x[name], y, main, height, label, face=share, ink=ink, square=True)
        if sampler:
            edge = x[name] + width - sampler
            _box(axes, edge, y, sampler, height, "", face=share, square=True)
    for level in range(levels):
        down, up = f"DOWN-{level}", f"UP-{levels - 1 - level}"
        start, end = x[down] + 0.4 * width, x[up] + 0.22 * width
        y = centre + half(down)
        _arrow(
            axes,
            (start, y),
            (start, y + SKIP),
            (end, y + SKIP),
            (end, y),
            colour=FAINT,
            width=0.7,
            head=4,
        )
    _mark_cuts(axes, spec, x, levels, width, gap, centre, tall, foot)
    lines = {
        "": {name: name for name in blocks} | {"UNet": "UNet"},
        "resolution": {
            name: f"{spec.size >> depth[name]} × {spec.size >> depth[name]}"
            for name in blocks
        },
        "parameters, M": _column(blocks, counts, "parameters", 1e6),
        "GMACs": _column(blocks, counts, "macs", 1e9),
    }
    _rows(axes, lines, x | {"UNet": total}, width, foot - 0.17)
    return figure


def _levels(blocks: Mapping[str, Any]) -> int:
    levels = sum(name.startswith("DOWN-") for name in blocks)
    downs = [f"DOWN-{i}" for i in range(levels)]
    ups = [f"UP-{i}" for i in range(levels)]
    middle = ["MID"] if "MID" in blocks else []
    if levels < 1 or list(blocks) != downs + middle + ups:
        raise ValueError(
            f"blocks {', '.join(blocks) or 'none'} are not those of a UNet: "
            "DOWN-0 …, MID or none, UP-0 …, as many up as down"
        )
    return levels


def _column(
    blocks: Mapping[str, Mapping[str, int]],
    counts: Mapping[str, Any],
    key: str,
    unit: float,
) -> dict[str, str]:
    values = {name: block[key] for name, block in blocks.items()}
    values["UNet"] = counts["full"][key]
    return {name: f"{value / unit:.2f}" for name, value in values.items()}


def _mark_cuts(
    axes: Axes,
    spec: BlockMapSpec,
    x: Mapping[str, float],
    levels: int,
    width: float,
    gap: float,
    centre: float,
    tall: float,
    foot: float,
) -> None:
    """Mark where r_in enters and r_out leaves ε_L, and what lies between."""
    deepest_first = sorted(spec.cuts, key=lambda cut: -cut.level)
    for row, cut in enumerate(deepest_first):
        colour = (LIGHT, LOW, *COLOURS[3:])[cut.level - 1]
        dashes = (0, (4, 1.6)) if cut.level == 1 else (0, (1.2, 1.2))
        enters = x[f"DOWN-{cut.level}"] - gap / 2
        # Before the upsampler, which belongs to ε_H.
        leaves = x[f"UP-{levels - 1 - cut.level}"] + width - 0.09
        top = centre + tall / 2**cut.level
        base = foot + 0.24 * (len(spec.cuts) - 1 - row) + 0.12
        for place in (enters, leaves):
            axes.plot(
                (place, place), (base, top), color=colour, lw=1.3, ls=dashes, zorder=3
            )
        axes.plot((enters, leaves), (base, base), color=colour, lw=1.3)
        pixels = spec.size >> cut.level
        label = f"{EPS_L} of the {cut.label}, {pixels} × {pixels}"
        middle = (enters + leaves) / 2
        _text(axes, middle, base, label, colour=colour, back="white", size=7.5)
        for place, side, name in ((enters, "left", "in"), (leaves, "right", "out")):
            shift = 0.04 if side == "left" else -0.04
            label = rf"$r^{{\mathrm{{{name}}}}}$"
            _text(axes, place + shift, top - 0.07, label, colour=colour, ha=side)


# --- adaptors ---------------------------------------------------------------------


def draw_adaptor_map(spec: AdaptorMapSpec) -> Figure:
    """Draw an adaptor's modules in the order that data pass them."""
    largest = max(module.size for module in spec.modules)
    halves = [0.65 * module.size / max(largest, spec.size) for module in spec.modules]
    gap, radius, table = 0.2, 0.11, 0.53
    joint = 1.2  # where r_in and the previous r_out meet
    slots, place = [], joint + radius + gap
    for module in spec.modules:
        slots.append((place, _module_width(module)))
        place += slots[-1][1] + gap
    end = place + radius if spec.residual else place - gap
    out = end + (radius if spec.residual else 0) + gap
    # How far the drawing reaches below and above its axis.
    below = [
        half + (0.41 if module.time or module.text else 0)
        for module, half in zip(spec.modules, halves, strict=True)
    ]
    above = [
        max(halves[start : stop + 1]) + SKIP * (1 + _within(spec, start, stop))
        for start, stop in spec.skips
    ]
    foot = table + (0.34 if spec.residual else 0.2)
    centre = foot + max(0.53, *below)
    top = centre + max(0.53, *halves, *above)
    figure, axes = _canvas(out + 0.72, top + 0.56, spec.title)
    note = "Height: resolution. C: concatenation."
    _text(axes, 0.1, top + 0.23, note, ha="left", size=7, colour=FAINT)

    def arrow(start: float, stop: float) -> None:
        _arrow(axes, (start, centre), (stop, centre))

    for side, label, colour in ((1, R_IN, HIGH), (-1, R_OUT_BEFORE, LOW)):
        y = centre + side * 0.36
        _box(axes, 0.1, y - 0.17, 0.62, 0.34, label, face=colour, ink="white", size=9)
        _arrow(axes, (0.72, y), (joint, y), (joint, centre + side * radius))
    _circle(axes, joint, centre, radius, "C")
    size, previous = spec.size, joint + radius
    for module, (left, width), half in zip(spec.modules, slots, halves, strict=True):
        drawn = _drawn_width(module)
        left += (width - drawn) / 2
        arrow(previous, left)
        _module(axes, module, size, left, drawn, centre, half)
        size, previous = module.size, left + drawn
    if spec.residual:
        arrow(previous, end - radius)
        _circle(axes, end, centre, radius, "+")
        low = table + 0.22
        path = ((0.41, centre - 0.53), (0.41, low), (end, low), (end, centre - radius))
        _arrow(axes, *path, colour=LOW)
        previous = end + radius
    arrow(previous, out)
    y = centre - 0.17
    _box(axes, out, y, 0.62, 0.34, R_OUT_GUESS, face=LIGHT, ink="white", size=9)
    for (start, stop), high in zip(spec.skips, above, strict=True):
        first, last = (slots[i][0] + slots[i][1] / 2 for i in (start, stop))
        _arrow(
            axes,
            (first, centre + halves[start]),
            (first, centre + high),
            (last, centre + high),
            (last, centre + halves[stop]),
            colour=FAINT,
            width=0.7,
            head=4,
        )
    both = f"{spec.in_channels}, {spec.out_channels}"
    parts = [
        (0.41, "inputs", both, spec.size),
        (joint, "joined", str(spec.in_channels + spec.out_channels), spec.size),
        *(
            (left + width / 2, _module_name(module), str(module.channels), module.size)
            for module, (left, width) in zip(spec.modules, slots, strict=True)
        ),
        (out + 0.31, "output", str(spec.out_channels), spec.size),
    ]
    for x, name, channels, size in parts:
        _text(axes, x, table, name, size=7, weight="bold")
        _text(axes, x, table - 0.18, f"{channels} ch.", size=7)
        _text(axes, x, table - 0.36, f"{size} × {size}", size=7)
    return figure


def _within(spec: AdaptorMapSpec, start: int, stop: int) -> int:
    """Return how many skips lie within one, so that their lines stay apart."""
    return sum(
        start <= a and b <= stop and (a, b) != (start, stop) for a, b in spec.skips
    )


def _drawn_width(module: Module) -> float:
    return max(0.6, 0.26 * module.repeat - 0.06)


def _module_width(module: Module) -> float:
    """Return the width of a module's slot: of its drawing or of its name."""
    return max(_drawn_width(module), 0.072 * len(_module_name(module)))


def _module_name(module: Module) -> str:
    times = f" × {module.repeat}" if module.repeat > 1 else ""
    return module.label + times


def _module(
    axes: Axes,
    module: Module,
    before: int,
    left: float,
    width: float,
    centre: float,
    half: float,
) -> None:
    """Draw a module, once per repeat, and the embeddings that it takes."""
    label = {
        "down": f"↓ {before / module.size:g}",
        "block": "",
        "up": f"↑ {module.size / before:g}",
    }[module.kind]
    face, ink = (BLOCK, INK) if module.kind == "block" else (LIGHT, "white")
    embeddings = ((T_EMB, module.time), (TEXT_EMB, module.text))
    takes = ", ".join(name for name, used in embeddings if used)
    gap, bottom = 0.06, centre - half
    each = (width - gap * (module.repeat - 1)) / module.repeat
    for index in range(module.repeat):
        x = left + index * (each + gap)
        _box(axes, x, bottom, each, 2 * half, label, face=face, ink=ink, square=True)
        if index:
            axes.plot((x - gap, x), (centre, centre), color=INK, lw=1.0)
        if takes:
            middle = x + each / 2
            _arrow(axes, (middle, bottom - 0.19), (middle, bottom), head=4)
    if takes:
        ends = (left + each / 2, left + width - each / 2)
        axes.plot(ends, (bottom - 0.19, bottom - 0.19), color=INK, lw=1.0)
        _text(axes, left + width / 2, bottom - 0.3, takes)


def _circle(axes: Axes, x: float, y: float, radius: float, label: str) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(Circle((x, y), radius, facecolor="white", edgecolor=INK, lw=1.0))
    _text(axes, x, y, label, size=7, weight="bold")


# --- pieces -----------------------------------------------------------------------


def _rows(
    axes: Axes,
    lines: Mapping[str, Mapping[str, str]],
    x: Mapping[str, float],
    width: float,
    top: float,
) -> None:
    """Write a row of cells per line, each centred below its box."""
    for row, (header, cells) in enumerate(lines.items()):
        y = top - 0.18 * row
        _text(axes, 0.1, y, header, ha="left", size=7, colour=FAINT)
        for name, cell in cells.items():
            weight = "bold" if row == 0 else "normal"
            _text(axes, x[name] + width / 2, y, cell, size=7, weight=weight)


def shares() -> Any:
    """Return the colour map of `SHARES`, from 0 to 1."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", SHARES)


def _luminance(colour: Any) -> float:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
