"""A page of images and text, laid out in inches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clockwork_experiments.report.figures.style import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL, GAP, EDGE = 1.0, 0.05, 0.1
"""Inches: an image, the gap between two, and the margin of the page."""

GREY = "#666666"
LINE = 0.125
"""Inches between two lines of a prompt."""


class Page:
    """A figure that is laid out in inches from its lower left corner."""

    def __init__(self, width: float, height: float, title: str, note: str = "") -> None:
        """Start a page of a size in inches, with a heading and a grey note."""
        # Wide enough for what stands above the images.
        text = max(0.091 * len(title), 0.052 * len(note))
        self.width, self.height = max(width, text + 2 * EDGE), height
        self.figure = new_figure(figsize=(self.width, height))
        self.write(EDGE, height - 0.1, title, va="top", weight="bold", size=9)
        self.write(EDGE, height - 0.29, note, va="top", size=7, color=GREY)

    def write(self, x: float, y: float, text: str, **look: Any) -> None:
        """Write text at a point."""
        # A prompt may hold a dollar sign, which is no formula.
        self.figure.text(
            x / self.width, y / self.height, text, parse_math=False, **look
        )

    def show(
        self, left: float, bottom: float, image: np.ndarray, *, sharp: bool = False
    ) -> Axes:
        """Show an image, uint8 ``(3, H, W)``; its pixels as squares if ``sharp``."""
        axes = self.figure.add_axes(
            (
                left / self.width,
                bottom / self.height,
                CELL / self.width,
                CELL / self.height,
            )
        )
        axes.imshow(
            image.transpose(1, 2, 0), interpolation="nearest" if sharp else "lanczos"
        )
        axes.set_axis_off()
        return axes
