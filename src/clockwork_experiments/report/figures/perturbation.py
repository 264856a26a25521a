"""Draw what perturbed features do to images (Figures 2, S3–S7; Eq. 1)."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clockwork_experiments.base import storage
from clockwork_experiments.report.figures import style
from clockwork_experiments.report.kinds import Given, Kind, Known, Needs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES: dict[str, str] = {
    "image_distance": "L2 distance to the unperturbed image",
    "latent_distance": "L2 distance to the unperturbed latents",
    "image_high_frequency": "high-frequency share of the image's error",
    "latent_high_frequency": "high-frequency share of the latents' error",
}
"""What can be drawn against the start step, and the label of its axis."""


@dataclass(frozen=True)
class ShownLayer:
    """A layer shown in a figure.

    Attributes:
        layer: Its name in the perturbation's spec.
        label: What the reader sees.
    """

    layer: str
    label: str


def perturbed(known: Known, name: str) -> Needs:
    """Return the images and the measures of a perturbation analysis."""
    known.entry("perturbations", name)
    folder = f"{known.base}/perturbations/{name}"
    return {"images": [f"{folder}.safetensors"], "distances": [f"{folder}.json"]}


@dataclass(frozen=True)
class PerturbationGridSpec(Kind):
    """A grid of images: layers below each other, start steps side by side.

    Attributes:
        perturbation: Id of the analysis.
        layers: The layers, from top to bottom.
        alpha: α of Eq. 1.
        starts: Start steps from 0, from left to right.
        prompt: Index of the prompt.
    """

    kind: ClassVar[str] = "perturbation_grid"
    perturbation: str
    layers: tuple[ShownLayer, ...]
    alpha: float
    starts: tuple[int, ...]
    prompt: int = 0

    def __post_init__(self) -> None:
        """Reject grids without a cell."""
        if not self.layers or not self.starts:
            raise ValueError("a grid needs a layer and a start step at least")

    def needs(self, known: Known) -> Needs:
        """Return the perturbed images and their measures."""
        return perturbed(known, self.perturbation)

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_grid(
            self, read_results(given.path("images"), given.path("distances"))
        )


@dataclass(frozen=True)
class PerturbationCurvesSpec(Kind):
    """A measure against the start step, one line per layer.

    Attributes:
        perturbation: Id of the analysis.
        layers: The layers.
        alpha: α of Eq. 1.
        measure: A key of `AXES`.
        log: Whether the measure's axis is logarithmic.
    """

    kind: ClassVar[str] = "perturbation_curves"
    perturbation: str
    layers: tuple[ShownLayer, ...]
    alpha: float
    measure: str = "image_distance"
    log: bool = False

    def __post_init__(self) -> None:
        """Reject unknown measures, and more lines than can be told apart."""
        if self.measure not in AXES:
            raise ValueError(
                f"measure {self.measure!r} is not one of {', '.join(AXES)}"
            )
        if not 1 <= len(self.layers) <= len(style.COLOURS):
            raise ValueError(
                f"{len(self.layers)} layers are not 1 to {len(style.COLOURS)}"
            )

    def needs(self, known: Known) -> Needs:
        """Return the perturbed images and their measures."""
        return perturbed(known, self.perturbation)

    def make(self, given: Given) -> Figure:
        """Draw it."""
        return draw_curves(
            self, read_results(given.path("images"), given.path("distances"))
        )


@dataclass(frozen=True)
class Results:
    """What `perturb_features` wrote.

    Attributes:
        summary: The measures, as `score.perturbation.summarise` says.
        images: uint8 ``(K, layers, alphas, starts, 3, H, W)``.
        unperturbed: uint8 ``(K, 3, H, W)``.
    """

    summary: dict[str, Any]
    images: np.ndarray
    unperturbed: np.ndarray

    def image(self, layer: str, alpha: float, start: int, prompt: int) -> np.ndarray:
        """Return one image, uint8 ``(3, H, W)``.

        Raises:
            ValueError: If it was not sampled, or not kept.
        """
        _check_prompt(prompt, self.images)
        place = [
            _index(self.summary, "layers", layer),
            _index(self.summary, "alphas", alpha),
            _index(self.summary, "starts", start),
        ]
        chosen: np.ndarray = self.images[(prompt, *place)]
        return chosen

    def scores(self, layer: str, alpha: float, measure: str) -> list[dict[str, Any]]:
        """Return a measure's scores, one for each start step.

        Raises:
            ValueError: If the layer was not sampled with this α.
        """
        _index(self.summary, "layers", layer)
        _index(self.summary, "alphas", alpha)
        return [
            cell["scores"][measure]
            for cell in self.summary["cells"]
            if cell["layer"] == layer and cell["alpha"] == alpha
        ]


def read_results(images: Path, distances: Path) -> Results:
    """Read both files of `perturb_features`.

    Raises:
        ValueError: If one is missing or damaged, or they are not of the same grid.
    """
    arrays = storage.read_arrays(images)
    summary = storage.read_json(storage.existing(distances))
    grid = tuple(len(summary[name]) for name in ("layers", "alphas", "starts"))
    if arrays["images"].shape[1:4] != grid:
        raise ValueError(f"{images} and {distances} are not of the same grid")
    return Results(summary, arrays["images"], arrays["unperturbed"])


def draw_grid(spec: PerturbationGridSpec, results: Results) -> Figure:
    """Draw a prompt's images: the later the start, the further to the right.

    The last column is the unperturbed image, which a start after the last step gives.

    Raises:
        ValueError: If an image was not sampled, or not kept.
    """
    _check_prompt(spec.prompt, results.unperturbed)
    cell, gap, space, margin, edge = 1.0, 0.04, 0.16, 1.12, 0.06
    head = 0.6
    rows, columns = len(spec.layers), len(spec.starts)
    width = margin + columns * (cell + gap) + space + cell + edge
    height = head + rows * cell + (rows - 1) * gap + edge
    figure = style.new_figure(figsize=(width, height))

    def place(left: float, bottom: float, image: np.ndarray) -> None:
        axes = figure.add_axes(
            (left / width, bottom / height, cell / width, cell / height)
        )
        axes.imshow(image.transpose(1, 2, 0), interpolation="lanczos")
        axes.set_axis_off()

    def write(x: float, y: float, text: str, **look: Any) -> None:
        figure.text(x / width, y / height, text, **look)

    write(edge, height - 0.1, spec.title, va="top", weight="bold", size=10)
    prompt = textwrap.shorten(results.summary["prompts"][spec.prompt], 90)
    about = f"α = {spec.alpha:g}   “{prompt}”"
    write(width - edge, height - 0.12, about, va="top", ha="right", color="0.35")
    top = height - head
    write(margin - 0.1, top + 0.07, "starts at step", ha="right", color="0.35")
    last = margin + columns * (cell + gap) + space
    for column, start in enumerate(spec.starts):
        left = margin + column * (cell + gap)
        write(left + cell / 2, top + 0.07, str(start), ha="center", size=9)
        for row, shown in enumerate(spec.layers):
            image = results.image(shown.layer, spec.alpha, start, spec.prompt)
            place(left, top - cell - row * (cell + gap), image)
    write(last + cell / 2, top + 0.07, "unperturbed", ha="center", size=9)
    for row, shown in enumerate(spec.layers):
        bottom = top - cell - row * (cell + gap)
        write(
            margin - 0.1,
            bottom + cell / 2,
            shown.label,
            ha="right",
            va="center",
            size=9,
        )
        place(last, bottom, results.unperturbed[spec.prompt])
    return figure


def draw_curves(spec: PerturbationCurvesSpec, results: Results) -> Figure:
    """Draw a measure's mean over prompts against the start step.

    Bands are the scores' own 95 % intervals over prompts.

    Raises:
        ValueError: If a layer was not sampled with this α.
    """
    figure = style.new_figure(figsize=(5.6, 3.0), layout="constrained")
    axes = figure.subplots()
    starts = results.summary["starts"]
    order = np.argsort(starts)
    x = np.array(starts)[order]
    banded = False
    for shown, colour, marker in zip(
        spec.layers, style.COLOURS, style.MARKERS, strict=False
    ):
        scores = results.scores(shown.layer, spec.alpha, spec.measure)
        value, low, high = (
            np.array([scores[i][key] for i in order], dtype=float)
            for key in ("value", "low", "high")
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(
            x, value, color=colour, marker=marker, markersize=4.5, label=shown.label
        )
        banded |= bool(np.isfinite(low).any())
    if spec.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xticks(starts)
    axes.set_xlabel("step at which the perturbation starts")
    axes.set_ylabel(AXES[spec.measure])
    axes.set_title(spec.title, loc="left", weight="bold", size=10, pad=17)
    about = f"α = {spec.alpha:g}, n = {results.summary['n']}"
    if banded:
        about += "; bands: 95 % over prompts"
    axes.annotate(
        about, (0, 1), (0, 5), "axes fraction", "offset points", color="0.35", size=7
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right center", frameon=False, labelspacing=1.0)
    return figure


def _index(summary: dict[str, Any], name: str, value: object) -> int:
    sampled: list[Any] = summary[name]
    if value not in sampled:
        known = ", ".join(map(str, sampled))
        raise ValueError(f"{name[:-1]} {value!r} is not one of the sampled {known}")
    return sampled.index(value)


def _check_prompt(prompt: int, images: np.ndarray) -> None:
    if not 0 <= prompt < len(images):
        raise ValueError(f"prompt {prompt} is not one of the {len(images)} kept")
