"""Dead images: two runs that drew nothing agree, and must not look perfect for it.

Whoever measures images counts those that hold nothing, and writes the counts beside
the scores, or into the metadata of features. Where all of a run are dead, a table shows
words instead of its scores, and no claim is judged by them. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

KEY = "images"
"""Where the counts stand: in scores, and in a tensor file's metadata by run."""

SHOWN = "dead images"
"""What stands in a table instead of a number."""

_CLIPPED = 0.99


@dataclass(frozen=True)
class Counts:
    """How many images of a run hold little or nothing.

    Attributes:
        images: All of them.
        constant: Of one colour.
        identical: The same as one before it.
        clipped: Out of range: all but a hundredth of their values are 0 or 255.
    """

    images: int = 0
    constant: int = 0
    identical: int = 0
    clipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of two shards."""
        mine, others = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + others[name] for name in mine})

    @property
    def dead(self) -> bool:
        """Tell whether all are of one colour, or all the same."""
        same = self.images > 1 and self.identical == self.images - 1
        return bool(self.images) and (same or self.constant == self.images)


class Counter:
    """Counts images block by block."""

    def __init__(self) -> None:
        """Begin with none."""
        self.counts = Counts()
        self._seen: set[bytes] = set()

    def add(self, images: Any) -> Any:
        """Count images, uint8 ``(N, 3, H, W)`` of torch or numpy, and return them."""
        for image in np.asarray(images):
            colours = image.reshape(len(image), -1)
            ends = np.count_nonzero((image == 0) | (image == 255))
            digest = hashlib.blake2b(image.tobytes(), digest_size=16)
            self.counts += Counts(
                images=1,
                constant=int((colours == colours[:, :1]).all()),
                identical=int(digest.digest() in self._seen),
                clipped=int(ends >= _CLIPPED * image.size),
            )
            self._seen.add(digest.digest())
        return images

    def told(self, name: str) -> Counts:
        """Return the counts of a run; the log says so if some images hold nothing."""
        if self.counts.constant or self.counts.identical or self.counts.clipped:
            log.warning("%s: of %s", name, said(self.counts))
        return self.counts


def count(blocks: Iterable[Any], name: str) -> Counts:
    """Count a run's images; the log says so if some hold nothing.

    Args:
        blocks: Its images, some at a time.
        name: The run's.
    """
    counter = Counter()
    for block in blocks:
        counter.add(block)
    return counter.told(name)


def said(counts: Counts) -> str:
    """Return the counts in words."""
    return (
        f"{counts.images} images, {counts.constant} are of one colour, "
        f"{counts.identical} the same as another, {counts.clipped} out of range"
    )


def notes(counts: Mapping[str, Counts]) -> dict[str, str]:
    """Return metadata with the counts of runs."""
    return {KEY: json.dumps({name: asdict(each) for name, each in counts.items()})}


def noted(metadata: Mapping[str, str]) -> dict[str, Counts]:
    """Undo `notes`; empty for a file that does not say."""
    known = json.loads(metadata.get(KEY, "{}"))
    return {name: Counts(**each) for name, each in known.items()}


def refuse(counts: Mapping[str, Counts], what: str) -> None:
    """Refuse dead runs.

    Args:
        counts: By run.
        what: What is not done with them.

    Raises:
        ValueError: If one is, naming it.
    """
    for name, each in counts.items():
        if each.dead:
            raise ValueError(f"{name}: of {said(each)}; {what}")


def are_dead(scored: Mapping[str, Any]) -> bool:
    """Tell whether scores are of a dead run."""
    return Counts(**scored.get(KEY, {})).dead
