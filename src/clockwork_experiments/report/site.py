"""Fit the pages to the site; MkDocs calls what is here by its name.

The pages are read in the repository as well, where they link to files outside ``docs``:
examples, model cards. The site has no such pages, so there they are named instead.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)\)")


def on_page_markdown(markdown: str, /, *, page: Any, **others: Any) -> str:
    """Replace links that lead out of ``docs`` by the file's name."""
    folder = posixpath.dirname(page.file.src_uri)

    def name(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if not target.startswith("../"):
            return match[0]
        return f"{match[1]} (`{target.removeprefix('../')}`)"

    return LINK.sub(name, markdown)
