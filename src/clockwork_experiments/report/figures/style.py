"""The look that all figures share, and their files. Nothing here needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "savefig.dpi": 200,
}
"""What differs from Matplotlib's own look."""

DATELESS = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
"""Metadata that would make equal figures differ."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette, for line after line; told apart by colour-blind readers."""

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Markers for the same lines, which tell them apart in grey."""


def set_look() -> None:
    """Make Matplotlib draw whatever comes in the look of all figures."""
    import matplotlib

    matplotlib.rcParams.update(LOOK)


def new_figure(**size: Any) -> Figure:
    """Return an empty figure in that look."""
    from matplotlib.figure import Figure

    set_look()
    return Figure(**size)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as ``<path>.pdf`` and ``<path>.png``, the same bytes each time."""
    for kind, metadata in DATELESS.items():
        with storage.atomic_path(path.with_suffix(f".{kind}")) as partial:
            figure.savefig(partial, format=kind, metadata=metadata)
