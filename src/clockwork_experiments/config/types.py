"""What the type of a setting says beyond Python's types, by `typing.Annotated`.

`schema` makes JSON Schema of it, and `validate` reads that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Ref:
    """The id of an entry.

    Attributes:
        sections: Where the entry is, in one of them; see `experiments.ENTRIES`.
    """

    sections: tuple[str, ...]

    def __init__(self, *sections: str) -> None:
        """Take the sections one by one."""
        object.__setattr__(self, "sections", sections)


@dataclass(frozen=True)
class Bounds:
    """The range of a number; all numbers are finite, whether or not they have one.

    Attributes:
        least: The smallest.
        most: The largest.
        above: What it is larger than.
        below: What it is smaller than.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class Text:
    """What a text is like.

    Attributes:
        pattern: A regular expression that the whole of it matches.
    """

    pattern: str = "."


@dataclass(frozen=True)
class OneOf:
    """The only values that there are.

    Attributes:
        values: The values.
        elsewhere: Classes of one's own are, too, as ``my_package.my_module:MyClass``.
    """

    values: tuple[object, ...]
    elsewhere: bool = False


@dataclass(frozen=True)
class Items:
    """What a list is like, beyond its items.

    Attributes:
        least: The smallest number of them.
        unique: No two are equal.
    """

    least: int = 1
    unique: bool = False


Positive = Annotated[int, Bounds(1, 10**9)]
Natural = Annotated[int, Bounds(0, 10**9)]
Seed = Annotated[int, Bounds(0, 2**63 - 1)]
Level = Annotated[int, Bounds(1, 13)]
Steps = Annotated[int, Bounds(1, 1000)]
Share = Annotated[float, Bounds(0, 1)]
Guidance = Annotated[float, Bounds(1, 1000)]
Path = Annotated[str, Text()]
"""A folder or a file, relative to the one in which Snakemake runs."""
