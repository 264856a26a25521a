"""Draw grids of paired images (Figures 1, 5, S12–S15)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from clockwork_experiments.data import datasets, shards
from clockwork_experiments.report.figures.style import new_figure
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class GridRun:
    """A run shown in a grid.

    Attributes:
        run: Its id.
        label: What the reader sees.
    """

    run: str
    label: str


@dataclass(frozen=True)
class FigureSpec(Kind):
    """A grid of images: runs below each other, prompts side by side.

    Attributes:
        runs: The runs, from top to bottom within each band.
        prompts: Indices of the prompts within their set.
        columns: Prompts per band.
        latency: Whether to print each run's latency beside its label.
    """

    kind: ClassVar[str] = "grid"
    runs: tuple[GridRun, ...]
    prompts: tuple[int, ...]
    columns: int
    latency: bool = False

    def __post_init__(self) -> None:
        """Reject grids without a cell."""
        if self.columns < 1 or not self.prompts or not self.runs:
            raise ValueError("a grid needs a column, a prompt and a run at least")

    def needs(self, known: Known) -> Needs:
        """Return images and prompts, and timings where they are shown."""
        names = [shown.run for shown in self.runs]
        dataset = known.entry("runs", names[0])["dataset"]
        files = {
            "images": known.shards("images", dataset, names),
            "prompts": [f"{known.base}/prompts/{dataset}.json"],
        }
        if self.latency:
            files["latency"] = [f"{known.base}/latency/sampling.json"]
        return files

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_grid(
            self,
            shards.images_by_run(list(given.paths("images"))),
            datasets.read_prompts(given.path("prompts")),
            latencies(given),
        )


def latencies(given: Given) -> dict[str, float]:
    """Return the milliseconds of each timed run; nothing where none was timed."""
    timed = given.one("latency").get("runs", {}) if given.paths("latency") else {}
    return {name: timing["mean_ms"] for name, timing in timed.items()}


def draw_grid(
    spec: FigureSpec,
    images: Mapping[str, np.ndarray | shards.Rows],
    prompts: list[str],
    latency_ms: Mapping[str, float],
) -> Figure:
    """Draw a grid of paired images.

    Args:
        spec: What to show.
        images: uint8 ``(N, 3, H, W)`` by run.
        prompts: The N prompts.
        latency_ms: Milliseconds by run; used if the figure shows latencies.

    Raises:
        ValueError: If a prompt's index is beyond the images.
    """
    check_prompts(spec.prompts, prompts)
    bands = [
        spec.prompts[start : start + spec.columns]
        for start in range(0, len(spec.prompts), spec.columns)
    ]
    cell, text, gap = 1.0, 0.52, 0.14
    margin = 1.05 if any(shown.label for shown in spec.runs) else 0.06
    band_height = text + cell * len(spec.runs) + 0.05 * (len(spec.runs) - 1)
    width = margin + spec.columns * (cell + 0.05) + 0.05
    height = 0.34 + len(bands) * (band_height + gap)
    figure = new_figure(figsize=(width, height))
    figure.text(
        0.06 / width, 1 - 0.12 / height, spec.title, va="top", weight="bold", size=9
    )
    for band, chosen in enumerate(bands):
        top = height - 0.34 - band * (band_height + gap)
        for row, shown in enumerate(spec.runs):
            bottom = top - text - (row + 1) * cell - row * 0.05
            label = shown.label
            if spec.latency and shown.run in latency_ms:
                label += f"\n{latency_ms[shown.run]:.0f} ms"
            write_label(figure, margin - 0.1, bottom + cell / 2, label)
            for column, index in enumerate(chosen):
                left = margin + column * (cell + 0.05)
                pixels = images[shown.run][index].transpose(1, 2, 0)
                show_image(figure, left, bottom, cell, pixels)
                if row == 0:
                    above = left + cell / 2, top - text + 0.05
                    write_prompt(figure, *above, prompts[index])
    return figure


def check_prompts(chosen: Sequence[int], prompts: Sequence[str]) -> None:
    """Refuse indices that no prompt has.

    Raises:
        ValueError: In one line.
    """
    for index in chosen:
        if not 0 <= index < len(prompts):
            raise ValueError(f"prompt {index} is not one of the {len(prompts)}")


def write_label(figure: Figure, right: float, middle: float, label: str) -> None:
    """Write a row's label, up to a place in inches."""
    width, height = figure.get_size_inches()
    figure.text(right / width, middle / height, label, ha="right", va="center")


def write_prompt(figure: Figure, middle: float, bottom: float, prompt: str) -> None:
    """Write a prompt above a column of images, at a place in inches."""
    width, height = figure.get_size_inches()
    figure.text(
        middle / width,
        bottom / height,
        textwrap.fill(prompt, 21),
        ha="center",
        va="bottom",
        size=5.6,
        linespacing=1.05,
    )


def show_image(
    figure: Figure, left: float, bottom: float, side: float, pixels: np.ndarray
) -> None:
    """Show an image, ``(H, W, 3)``, in a square of inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    axes.imshow(pixels, interpolation="lanczos")
    axes.set_axis_off()
