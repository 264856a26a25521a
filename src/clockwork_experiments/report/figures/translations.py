"""Draw translated images beside their inputs (Figures S1, S4, S5 and S7)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from clockwork_experiments.data import pair_sets, shards
from clockwork_experiments.report.figures.page import CELL, EDGE, GAP, GREY, LINE, Page
from clockwork_experiments.report.figures.style import COLOURS
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ZOOMED = COLOURS[1]
"""Colour of the frame around what is enlarged."""


@dataclass(frozen=True)
class ShownTranslation:
    """A translation shown in a figure.

    Attributes:
        translation: Its id.
        label: What the reader sees.
    """

    translation: str
    label: str


@dataclass(frozen=True)
class PairGroup:
    """Pairs of a set that belong together.

    Attributes:
        label: What stands above them; nothing if empty.
        kinds: Kinds of the pairs; all if empty.
        count: The first so many of them.
        skip: So many before these are left out.
    """

    count: int
    label: str = ""
    kinds: tuple[str, ...] = ()
    skip: int = 0

    def __post_init__(self) -> None:
        """Reject groups of nothing."""
        if self.count < 1 or self.skip < 0:
            raise ValueError(f"count {self.count} or skip {self.skip} is too small")


@dataclass(frozen=True)
class TranslationGridSpec(Kind):
    """Blocks of an input and what translations made of it, a block for each pair.

    Attributes:
        set: Id of the pairs.
        translations: The translations, from left to right.
        groups: Which pairs, from top to bottom.
        columns: Blocks in a row.
        inputs: Heading of the inputs.
        targets: Heading of the right answers; empty to leave them out.
        zoom: Side, as a share of the image's, of the part that is shown enlarged below
            each image, where the right answer has most detail; 0 for none.
    """

    kind: ClassVar[str] = "translation_grid"
    set: str
    translations: tuple[ShownTranslation, ...]
    groups: tuple[PairGroup, ...]
    columns: int
    inputs: str = "input"
    targets: str = ""
    zoom: float = 0.0

    def __post_init__(self) -> None:
        """Reject grids without a cell, and parts that are no parts."""
        if self.columns < 1 or not self.translations or not self.groups:
            raise ValueError(
                "a grid of translations needs a column, a translation and a group"
            )
        if not 0 <= self.zoom < 1:
            raise ValueError(f"zoom {self.zoom} is not between 0 and 1")
        if self.zoom and not self.targets:
            raise ValueError("the right answers tell where to enlarge; show them")

    def needs(self, known: Known) -> Needs:
        """Return the pairs and what translations made of them."""
        pairs = f"{known.base}/pairs/{self.set}"
        return {
            "sets": [f"{pairs}.json", f"{pairs}.safetensors"],
            "images": known.translated(each.translation for each in self.translations),
        }

    def make(self, given: Given) -> Figure:
        """Draw it.

        Raises:
            ValueError: If the pairs are of another set.
        """
        listed = given.path("sets")
        if listed.stem != self.set:
            raise ValueError(f"the figure shows the set {self.set!r}, not {listed}")
        return draw_grid(self, read_translated(listed, given.paths("images")))


@dataclass(frozen=True)
class Translated:
    """A set of pairs, and what translations made of it.

    Attributes:
        pairs: The set.
        inputs: uint8 ``(N, 3, S, S)``.
        targets: The right answers alike, where they are known.
        images: uint8 ``(N, 3, S, S)`` by translation.
    """

    pairs: pair_sets.PairSet
    inputs: np.ndarray | shards.Rows
    targets: np.ndarray | shards.Rows | None
    images: Mapping[str, np.ndarray | shards.Rows]

    def __post_init__(self) -> None:
        """Reject images that are not one for each pair."""
        for name, images in (("inputs", self.inputs), *self.images.items()):
            if len(images) != len(self.pairs):
                raise ValueError(
                    f"{name}: {len(images)} images for {len(self.pairs)} pairs"
                )

    def choose(self, group: PairGroup) -> list[int]:
        """Return the indices of a group's pairs.

        Raises:
            ValueError: If the set has fewer.
        """
        known = [
            index
            for index, kind in enumerate(self.pairs.kinds)
            if kind in group.kinds or not group.kinds
        ]
        chosen = known[group.skip : group.skip + group.count]
        if len(chosen) < group.count:
            what = f" of {', '.join(group.kinds)}" if group.kinds else ""
            raise ValueError(
                f"{group.skip + group.count} pairs{what} are asked for, and there are "
                f"{len(known)}"
            )
        return chosen


def read_translated(prepared: Path, translated: Sequence[Path]) -> Translated:
    """Read a prepared set and what translations made of it.

    Args:
        prepared: The set's JSON; its images lie beside it as ``.safetensors``.
        translated: Files ``<translation>/<shard>.safetensors``.
    """
    pairs = pair_sets.read_set(prepared)
    inputs, targets = pair_sets.image_rows(
        prepared.with_suffix(".safetensors"), pairs, "np"
    )
    return Translated(pairs, inputs, targets, shards.images_by_run(translated))


def detailed_part(image: np.ndarray, share: float) -> tuple[int, int, int]:
    """Return where an image has most detail: top, left and side of a square.

    Args:
        image: uint8 ``(3, H, W)``.
        share: Side of the square as a share of the image's height.
    """
    grey = image.astype(float).mean(axis=0)
    side = max(2, round(share * len(grey)))
    edges = np.zeros_like(grey)
    edges[1:] += np.abs(np.diff(grey, axis=0))
    edges[:, 1:] += np.abs(np.diff(grey, axis=1))
    # Sums over squares, from cumulative sums.
    sums = np.zeros((edges.shape[0] + 1, edges.shape[1] + 1))
    sums[1:, 1:] = edges.cumsum(axis=0).cumsum(axis=1)
    within = (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side]) + sums[
        :-side, :-side
    ]
    top, left = np.unravel_index(within.argmax(), within.shape)
    return int(top), int(left), side


def draw_grid(spec: TranslationGridSpec, shown: Translated) -> Figure:
    """Draw inputs, translations and right answers; above each block the instruction.

    Raises:
        ValueError: If pairs, a translation or the right answers do not exist.
    """
    if spec.targets and shown.targets is None:
        raise ValueError(f"set {spec.set!r} has no right answers to show")
    for each in spec.translations:
        if each.translation not in shown.images:
            known = ", ".join(shown.images) or "none"
            raise ValueError(
                f"translation {each.translation!r} is not one of those read ({known})"
            )
    headings = [spec.inputs, *(each.label for each in spec.translations)]
    headings += [spec.targets] if spec.targets else []
    block = len(headings) * (CELL + GAP) - GAP
    between, under, band = 0.28, 0.12, 0.24
    letters = int(block / 0.062)
    told = any(shown.pairs.prompts)
    rows: list[tuple[str, list[int]]] = []
    for group in spec.groups:
        chosen = shown.choose(group)
        for start in range(0, len(chosen), spec.columns):
            label = "" if start else group.label
            rows.append((label, chosen[start : start + spec.columns]))
    columns = max(len(chosen) for _, chosen in rows)
    tall = CELL * (2 if spec.zoom else 1) + (GAP if spec.zoom else 0)
    above = LINE + 0.06 if told else 0.0
    head = 0.52
    width = 2 * EDGE + columns * (block + between) - between
    labels = sum(band for label, _ in rows if label)
    height = head + labels + len(rows) * (above + tall + under) - under + EDGE
    page = Page(width, height, spec.title)
    for column in range(columns):
        left = EDGE + column * (block + between)
        for place, heading in enumerate(headings):
            x = left + place * (CELL + GAP) + CELL / 2
            y = height - head + 0.05
            page.write(x, y, heading, ha="center", weight="bold", size=8)
    top = height - head
    for label, chosen in rows:
        if label:
            page.write(EDGE, top - band + 0.08, label, size=8.5, weight="bold")
            top -= band
        for column, index in enumerate(chosen):
            left = EDGE + column * (block + between)
            if told:
                text = textwrap.shorten(shown.pairs.prompts[index], letters)
                page.write(left, top - LINE, text, size=7.5, color=GREY)
            _draw_block(page, spec, shown, index, left, top - above)
        top -= above + tall + under
    return page.figure


def _draw_block(
    page: Page,
    spec: TranslationGridSpec,
    shown: Translated,
    index: int,
    left: float,
    top: float,
) -> None:
    """Draw the images of one pair, and what is enlarged of them."""
    from matplotlib.patches import Rectangle

    images = [shown.inputs[index]]
    images += [shown.images[each.translation][index] for each in spec.translations]
    if spec.targets and shown.targets is not None:
        images.append(shown.targets[index])
    for place, image in enumerate(images):
        x = left + place * (CELL + GAP)
        axes = page.show(x, top - CELL, image)
        if not spec.zoom:
            continue
        row, column, side = detailed_part(images[-1], spec.zoom)
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), side, side, fc="none", ec=ZOOMED, lw=1.0
            )
        )
        part = image[:, row : row + side, column : column + side]
        page.show(x, top - 2 * CELL - GAP, part, sharp=True)
