"""Draw the README's picture: what a method changes in images, and what it saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clockwork_experiments.cost.formulas import run_flops
from clockwork_experiments.data import datasets, shards
from clockwork_experiments.report.figures.grid import (
    GridRun,
    check_prompts,
    latencies,
    show_image,
    write_label,
    write_prompt,
)
from clockwork_experiments.report.figures.style import new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL, GAP, MARGIN, TEXT = 1.0, 0.05, 1.75, 0.5
"""Inches: an image, between images, for the labels, for the captions."""


@dataclass(frozen=True)
class HeadlineSpec(Kind):
    """Two runs of the same seeds below each other, and their difference.

    Attributes:
        before: The run to compare with.
        after: The run with the method.
        prompts: Indices of the prompts within their set, from left to right.
        magnified: What the difference is multiplied by, to be seen at all.
    """

    kind: ClassVar[str] = "headline"
    before: GridRun
    after: GridRun
    prompts: tuple[int, ...]
    magnified: int = 8

    def __post_init__(self) -> None:
        """Reject a picture without an image."""
        if not self.prompts or self.magnified < 1:
            raise ValueError("a headline needs a prompt, and a factor of 1 or more")

    @property
    def runs(self) -> tuple[str, str]:
        """The ids of both runs."""
        return self.before.run, self.after.run

    def needs(self, known: Known) -> Needs:
        """Return images, prompts, counts and timings."""
        dataset = known.entry("runs", self.before.run)["dataset"]
        models = dict.fromkeys(known.run(name)["model"] for name in self.runs)
        return {
            "images": known.shards("images", dataset, self.runs),
            "prompts": [f"{known.base}/prompts/{dataset}.json"],
            "flops": [f"{known.base}/flops/{model}.json" for model in models],
            "latency": [f"{known.base}/latency/sampling.json"],
        }

    def run_settings(self, known: Known) -> dict[str, dict[str, Any]]:
        """Return what decides the runs' FLOPs."""
        return {name: known.run(name) for name in self.runs}

    def make(self, given: Given) -> Figure:
        """Draw it."""
        counts = given.each("flops")
        images = shards.images_by_run(list(given.paths("images")))
        return draw_headline(
            self,
            [images[name] for name in self.runs],
            datasets.read_prompts(given.path("prompts")),
            [
                run_flops(given.runs[name], counts[given.runs[name]["model"]], "flops")
                for name in self.runs
            ],
            [latencies(given)[name] for name in self.runs],
        )


def cost_lines(label: str, flops: float, ms: float, saved: str = "") -> str:
    """Return a row's label, with what an image of it costs."""
    unit, factor = ("TFLOPs", 1e-12) if flops >= 1e12 else ("GFLOPs", 1e-9)
    return f"{label}\n{flops * factor:.2f} {unit}, {ms:.0f} ms{saved}"


def draw_headline(
    spec: HeadlineSpec,
    images: list[np.ndarray | shards.Rows],
    prompts: list[str],
    flops: list[float],
    ms: list[float],
) -> Figure:
    """Draw both runs and their difference.

    Args:
        spec: What to show.
        images: uint8 ``(N, 3, H, W)`` of the run before, and of the run after.
        prompts: The N prompts.
        flops: Of an image of each run.
        ms: Milliseconds of an image's UNet passes, of each run.

    Raises:
        ValueError: If a prompt's index is beyond the images.
    """
    check_prompts(spec.prompts, prompts)
    saved = [f"{100 * (new / old - 1):+.0f} %" for old, new in (flops, ms)]
    saving = f"\n{saved[0]} FLOPs, {saved[1]} time".replace("-", "−")
    labels = (
        cost_lines(spec.before.label, flops[0], ms[0]),
        cost_lines(spec.after.label, flops[1], ms[1], saving),
        f"difference,\nmagnified {spec.magnified} times",
    )
    width = MARGIN + len(spec.prompts) * (CELL + GAP)
    height = TEXT + len(labels) * (CELL + GAP)
    figure = new_figure(figsize=(width, height))
    for row, label in enumerate(labels):
        bottom = height - TEXT - (row + 1) * (CELL + GAP) + GAP
        write_label(figure, MARGIN - 0.1, bottom + CELL / 2, label)
        for column, index in enumerate(spec.prompts):
            left = MARGIN + column * (CELL + GAP)
            pixels = _pixels(images, index, row, spec.magnified)
            show_image(figure, left, bottom, CELL, pixels)
            if row == 0:
                above = left + CELL / 2, bottom + CELL + 0.05
                write_prompt(figure, *above, prompts[index])
    return figure


def _pixels(
    images: list[np.ndarray | shards.Rows], index: int, row: int, magnified: int
) -> np.ndarray:
    """Return one cell's uint8 ``(H, W, 3)``: before, after, or the difference."""
    if row < 2:
        pixels = images[row][index]
    else:
        before, after = (rows[index].astype(np.int64) for rows in images)
        pixels = np.minimum(magnified * np.abs(after - before), 255).astype(np.uint8)
    return np.asarray(pixels).transpose(1, 2, 0)
