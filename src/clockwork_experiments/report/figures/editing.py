"""Draw edited images beside their sources (Figures 6, S10 and S11)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from clockwork_experiments.base import storage
from clockwork_experiments.report.figures.grid import latencies
from clockwork_experiments.report.figures.page import CELL, EDGE, GAP, GREY, LINE, Page
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXACT = "exact edit"
"""Heading of the images that a perfect edit would give."""


@dataclass(frozen=True)
class ShownEdit:
    """An edited run shown in a figure.

    Attributes:
        run: ``<edit>/<setting>``.
        label: What the reader sees.
    """

    run: str
    label: str

    def __post_init__(self) -> None:
        """Reject runs without a setting."""
        if self.run.count("/") != 1:
            raise ValueError(f"run {self.run!r} is not <edit>/<setting>")


def edited(known: Known, edit_set: str, runs: Sequence[str]) -> Needs:
    """Return a prepared set, and what edits ``<edit>/<setting>`` made of it."""
    folder = f"{known.base}/edited/{edit_set}"
    return {
        "sets": [
            f"{known.base}/edit_sets/{edit_set}.{kind}"
            for kind in ("json", "safetensors")
        ],
        "images": [f"{folder}/{name}.safetensors" for name in runs],
    }


@dataclass(frozen=True)
class EditGridSpec(Kind):
    """Blocks of a source and its edits, a block for each target prompt.

    Attributes:
        edit_set: Id of the sources and target prompts.
        edits: The edits, from left to right.
        pairs: Indices of the pairs of source and target prompt; none: all of them.
        columns: Blocks in a row.
        targets: Whether to show the exact edits, which only made-up scenes have.
    """

    kind: ClassVar[str] = "edit_grid"
    edit_set: str
    edits: tuple[ShownEdit, ...]
    columns: int
    pairs: tuple[int, ...] = ()
    targets: bool = False

    def __post_init__(self) -> None:
        """Reject grids without a cell."""
        if self.columns < 1 or not self.edits:
            raise ValueError("a grid of edits needs a column and an edit at least")

    def needs(self, known: Known) -> Needs:
        """Return the set and its edited images."""
        return edited(known, self.edit_set, [shown.run for shown in self.edits])

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_grid(self, edits_of(self.edit_set, given))


@dataclass(frozen=True)
class TimedEdit:
    """An edit shown with its latencies.

    Attributes:
        edit: Its id.
        label: What the reader sees.
    """

    edit: str
    label: str


@dataclass(frozen=True)
class TimedSetting:
    """A setting shown with its latencies.

    Attributes:
        setting: Its id.
        label: What the reader sees, such as the number of inversion steps.
    """

    setting: str
    label: str


@dataclass(frozen=True)
class EditTimingsSpec(Kind):
    """One pair: settings side by side, edits below each other, each with its latency.

    Attributes:
        edit_set: Id of the sources and target prompts.
        pair: Index of the pair of source and target prompt.
        edits: The edits, from top to bottom; savings refer to the first.
        settings: The settings, from left to right.
    """

    kind: ClassVar[str] = "edit_timings"
    edit_set: str
    pair: int
    edits: tuple[TimedEdit, ...]
    settings: tuple[TimedSetting, ...]

    def __post_init__(self) -> None:
        """Reject grids without a cell."""
        if not self.edits or not self.settings:
            raise ValueError("timed edits need an edit and a setting at least")

    def needs(self, known: Known) -> Needs:
        """Return the set, its edited images and their timings."""
        names = [
            f"{shown.edit}/{column.setting}"
            for shown in self.edits
            for column in self.settings
        ]
        timed = {"latency": [f"{known.base}/latency/editing.json"]}
        return {**edited(known, self.edit_set, names), **timed}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_timings(self, edits_of(self.edit_set, given), latencies(given))


@dataclass(frozen=True)
class Pair:
    """A source and a target prompt.

    Attributes:
        source: Row of the source.
        source_prompt: What the source shows.
        prompt: What the edit should show.
    """

    source: int
    source_prompt: str
    prompt: str


@dataclass(frozen=True)
class Edits:
    """A set of sources and target prompts, and what edits made of it.

    Attributes:
        pairs: The P pairs.
        sources: uint8 ``(N, 3, S, S)``.
        images: uint8 ``(P, 3, S, S)`` by run, ``<edit>/<setting>``.
        targets: The exact edits, uint8 ``(P, 3, S, S)``, where they are known.
    """

    pairs: tuple[Pair, ...]
    sources: np.ndarray
    images: Mapping[str, np.ndarray]
    targets: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Reject images that are not one for each pair, and pairs without a source."""
        given = dict(self.images)
        if self.targets is not None:
            given["targets"] = self.targets
        for run, images in given.items():
            if len(images) != len(self.pairs):
                raise ValueError(
                    f"{run} has {len(images)} images for {len(self.pairs)} pairs"
                )
        for pair in self.pairs:
            if not 0 <= pair.source < len(self.sources):
                raise ValueError(
                    f"source {pair.source} is not one of the {len(self.sources)}"
                )

    def pair(self, index: int) -> Pair:
        """Return a pair.

        Raises:
            ValueError: If there is none of this index.
        """
        if not 0 <= index < len(self.pairs):
            raise ValueError(f"pair {index} is not one of the {len(self.pairs)}")
        return self.pairs[index]

    def image(self, run: str, index: int) -> np.ndarray:
        """Return the image that a run made of a pair, uint8 ``(3, S, S)``.

        Raises:
            ValueError: If the run is not one of those read.
        """
        if run not in self.images:
            known = ", ".join(self.images) or "none"
            raise ValueError(f"edited run {run!r} is not one of those read ({known})")
        chosen: np.ndarray = self.images[run][index]
        return chosen


def read_edits(prepared: Path, edited: Sequence[Path]) -> Edits:
    """Read a prepared set and what edits made of it.

    Args:
        prepared: The set's JSON; its images lie beside it as ``.safetensors``.
        edited: Files ``<edit_set>/<edit>/<setting>.safetensors``.

    Raises:
        ValueError: If a file is missing, damaged or of another set.
    """
    listed = storage.read_json(storage.existing(prepared))
    arrays = storage.read_arrays(prepared.with_suffix(".safetensors"))
    for path in edited:
        if path.parent.parent.name != prepared.stem:
            raise ValueError(f"{path} is not of the set {prepared.stem!r}")
    prompts = {i: source["prompt"] for i, source in enumerate(listed["sources"])}
    if len(prompts) != len(arrays["sources"]):
        raise ValueError(
            f"{prepared} has {len(prompts)} sources, "
            f"its images are {len(arrays['sources'])}"
        )
    return Edits(
        tuple(
            Pair(pair["source"], prompts.get(pair["source"], ""), pair["prompt"])
            for pair in listed["pairs"]
        ),
        arrays["sources"],
        {
            f"{path.parent.name}/{path.stem}": storage.read_arrays(path)["images"]
            for path in edited
        },
        arrays.get("targets"),
    )


def edits_of(edit_set: str, given: Given) -> Edits:
    """Return what a figure of an edit set shows.

    Raises:
        ValueError: If what is given is another set's.
    """
    listed = given.path("sets")
    if listed.stem != edit_set:
        raise ValueError(f"the figure shows the set {edit_set!r}, not {listed}")
    return read_edits(listed, given.paths("images"))


def draw_grid(spec: EditGridSpec, edits: Edits) -> Figure:
    """Draw sources and edits; above each block the source's prompt and the target.

    Raises:
        ValueError: If a pair, a run or the exact edits do not exist.
    """
    if spec.targets and edits.targets is None:
        raise ValueError(f"set {spec.edit_set!r} has no exact edits to show")
    chosen = [(i, edits.pair(i)) for i in spec.pairs or range(len(edits.pairs))]
    headings = ["source", *(shown.label for shown in spec.edits)]
    headings += [EXACT] if spec.targets else []
    columns = min(spec.columns, len(chosen))
    block = len(headings) * (CELL + GAP) - GAP
    between, under = 0.24, 0.18
    letters = int(block / 0.06)  # a line of a prompt
    prompts = [
        (
            textwrap.wrap(pair.source_prompt, letters),
            textwrap.wrap(pair.prompt, letters),
        )
        for _, pair in chosen
    ]
    bands = [
        range(n, min(n + columns, len(chosen))) for n in range(0, len(chosen), columns)
    ]
    texts = [
        max(sum(map(len, prompts[n])) for n in band) * LINE + 0.07 for band in bands
    ]
    head = 0.7
    width = 2 * EDGE + columns * (block + between) - between
    height = head + sum(texts) + len(bands) * (CELL + under) - under + EDGE
    note = "Grey: what the source shows. Black: what the edit should show."
    page = Page(width, height, spec.title, note)
    top = height - head
    for column in range(columns):
        left = EDGE + column * (block + between)
        for place, heading in enumerate(headings):
            x = left + place * (CELL + GAP) + CELL / 2
            page.write(x, top + 0.05, heading, ha="center", weight="bold", size=8)
    for band, text in zip(bands, texts, strict=True):
        for column, number in enumerate(band):
            left = EDGE + column * (block + between)
            index, pair = chosen[number]
            images = [edits.sources[pair.source]]
            images += [edits.image(shown.run, index) for shown in spec.edits]
            if spec.targets and edits.targets is not None:
                images.append(edits.targets[index])
            before, after = prompts[number]
            base = top - text + 0.05
            for line in reversed(after):
                page.write(left, base, line, size=7)
                base += LINE
            for line in reversed(before):
                page.write(left, base, line, size=7, color=GREY)
                base += LINE
            for place, image in enumerate(images):
                page.show(left + place * (CELL + GAP), top - text - CELL, image)
        top -= text + CELL + under
    return page.figure


def draw_timings(
    spec: EditTimingsSpec, edits: Edits, latency_ms: Mapping[str, float]
) -> Figure:
    """Draw one pair's edits with their latencies, and how the first edit's changes.

    Args:
        spec: What to show.
        edits: The images.
        latency_ms: Milliseconds by run, ``<edit>/<setting>``; without one, an image
            stands without a latency.

    Raises:
        ValueError: If the pair or a run does not exist.
    """
    pair = edits.pair(spec.pair)
    rows, columns = len(spec.edits), len(spec.settings)
    below, space, head = 0.24, 0.2, 0.52
    prompts = [
        *((line, GREY) for line in textwrap.wrap(pair.source_prompt, 18)),
        *((line, "black") for line in textwrap.wrap(f"→ {pair.prompt}", 18)),
    ]
    margin = 0.1 + 0.068 * max(
        len(line) for shown in spec.edits for line in _wrapped(shown.label)
    )
    first = EDGE + CELL + space + margin
    width = first + columns * (CELL + GAP) - GAP + EDGE
    written = 0.1 + len(prompts) * LINE
    height = head + max(rows * (CELL + below), CELL + written) + EDGE
    page = Page(width, height, spec.title)
    top = height - head
    page.show(EDGE, top - CELL, edits.sources[pair.source])
    page.write(
        EDGE + CELL / 2, top + 0.05, "source", ha="center", weight="bold", size=8
    )
    for number, (line, colour) in enumerate(prompts):
        base = top - CELL - 0.17 - number * LINE
        page.write(EDGE, base, line, size=7, color=colour)
    for column, setting in enumerate(spec.settings):
        left = first + column * (CELL + GAP)
        middle = left + CELL / 2
        page.write(
            middle, top + 0.05, setting.label, ha="center", weight="bold", size=8
        )
        baseline = latency_ms.get(f"{spec.edits[0].edit}/{setting.setting}")
        for row, shown in enumerate(spec.edits):
            run = f"{shown.edit}/{setting.setting}"
            bottom = top - CELL - row * (CELL + below)
            page.show(left, bottom, edits.image(run, spec.pair))
            if run in latency_ms:
                text = duration(latency_ms[run], max(latency_ms.values()))
                if row and baseline:
                    change = 100 * (latency_ms[run] / baseline - 1)
                    text += f" ({change:+.0f} %)".replace("-", "−")
                page.write(middle, bottom - 0.14, text, ha="center", size=7.5)
    for row, shown in enumerate(spec.edits):
        page.write(
            first - 0.1,
            top - CELL / 2 - row * (CELL + below),
            "\n".join(_wrapped(shown.label)),
            ha="right",
            va="center",
            size=8,
        )
    return page.figure


def duration(milliseconds: float, longest: float = 0.0) -> str:
    """Return a duration in ms, or in s if it or the longest reaches one."""
    if round(max(milliseconds, longest)) < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s"


def _wrapped(label: str) -> list[str]:
    return textwrap.wrap(label, 15)
