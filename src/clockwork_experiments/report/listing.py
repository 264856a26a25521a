"""List a paper's tables and figures, as far as they are kept for readers."""

from __future__ import annotations

import os
import re
from pathlib import Path

from clockwork_experiments.base import texts

TITLE = re.compile(r"\*\*(.+?)\*\*")


def listing(name: str, root: Path, folder: Path) -> str:
    """Return Markdown with links to tables, and with figures and their captions.

    Args:
        name: Scale and paper, ``mini/clockwork``.
        root: The checkout, with ``docs/reference`` and ``workflow/papers``.
        folder: Where the page lies.
    """
    scale, _, paper = name.partition("/")
    reference = root / "docs" / "reference" / scale
    figures = texts.read_yaml(root / "workflow" / "papers" / f"{paper}.yaml")["figures"]
    lines = ["**Tables**", ""]
    for path in sorted((reference / "tables" / paper).glob("*.md"), key=_order):
        found = TITLE.match(path.read_text(encoding="utf-8"))
        title = found[1] if found else path.stem
        others = [path.with_suffix(f".{kind}") for kind in ("csv", "tex")]
        also = [
            f"[{other.suffix[1:].upper()}]({_link(other, folder)})"
            for other in others
            if other.is_file()
        ]
        more = f" ({', '.join(also)})" if also else ""
        lines.append(f"- [{title}]({_link(path, folder)}){more}")
    for path in sorted((reference / "figures" / paper).glob("*.png"), key=_order):
        spec = figures.get(path.stem, {}).get(scale, {})
        title = spec.get("title", path.stem.replace("_", " "))
        caption = spec.get("caption", "").strip()
        lines += ["", f"**{title}**", "", f"![{title}]({_link(path, folder)})"]
        if caption:
            lines += ["", caption]
    return "\n".join(lines) + "\n"


def _link(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _order(path: Path) -> tuple[bool, bool, int, str]:
    """Sort as the papers do: 1, 2, …, S1, S2, …, then what has no number."""
    place = numbered(path.stem)
    return (True, True, 0, path.stem) if place is None else (False, *place)


def numbered(name: str) -> tuple[bool, int, str] | None:
    """Return where a table or figure stands in its paper; None if that has none.

    Returns:
        Whether it is in the supplement, its number, and what the id adds to that.
    """
    found = re.fullmatch(r"(?:table|figure)_(s?)(\d+)(\w*)", name)
    return None if found is None else (bool(found[1]), int(found[2]), found[3])
