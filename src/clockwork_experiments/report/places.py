"""Put results into Markdown files, between the comments that name them.

So no number in the README, on a page of the documentation or on a model card is typed.
There are five kinds of places, each with its end:

- ``<!-- table: docs/reference/mini/quality/teacher.md -->``: a generated file;
- ``<!-- value: clockwork_saves -->``: a number of ``docs/values.yaml``, within a line;
- ``<!-- rows: headline -->``: a table of few rows, from the same file;
- ``<!-- verdicts: docs/reference/mini/claims/clockwork.md -->``: claims by verdict;
- ``<!-- listing: mini/clockwork -->``: a paper's tables and figures at a scale.
"""

from __future__ import annotations

import re
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.report import listing, values

PLACE = re.compile(
    r"(?P<start><!-- (?P<kind>table|rows|verdicts|listing): (?P<name>\S+) -->\n)"
    r".*?(?P<end><!-- end of (?P=kind) -->)",
    re.DOTALL,
)
VALUE = re.compile(
    r"(?P<start><!-- value: (?P<name>\w+) -->).*?(?P<end><!-- end -->)", re.DOTALL
)


def embed(text: str, root: Path, folder: Path | None = None) -> str:
    """Return a text with every place filled from its file below ``root``.

    Args:
        text: Markdown.
        root: The checkout.
        folder: Where the text lies, for links; the checkout if not given.

    Raises:
        ValueError: If a file does not exist, or lacks a value.
    """

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if match["kind"] == "rows":
            made = values.table(name, root)
        elif match["kind"] == "verdicts":
            made = values.verdicts(root / name)
        elif match["kind"] == "listing":
            made = listing.listing(name, root, Path(folder or root))
        else:
            made = storage.existing(root / name).read_text(encoding="utf-8")
        return f"{match['start']}\n{made.rstrip()}\n\n{match['end']}"

    def fill_value(match: re.Match[str]) -> str:
        return f"{match['start']}{values.value(match['name'], root)}{match['end']}"

    return VALUE.sub(fill_value, PLACE.sub(fill, text))
