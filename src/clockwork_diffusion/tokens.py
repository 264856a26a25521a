"""Count what captions lose on their way to a text encoder.

A caption that is longer than the context is cut; characters that a tokenizer does not
know become one token that says nothing. Both happen without a word in every library.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lost:
    """What captions lost.

    Attributes:
        captions: How many captions there are.
        cut: How many are longer than the context.
        unknown: How many hold characters that the tokenizer does not know.
    """

    captions: int = 0
    cut: int = 0
    unknown: int = 0


def total(parts: Iterable[Lost]) -> Lost:
    """Return what captions lost together."""
    found = list(parts)
    return Lost(
        sum(part.captions for part in found),
        sum(part.cut for part in found),
        sum(part.unknown for part in found),
    )


def count_lost(tokenizer: Any, captions: Sequence[str]) -> Lost:
    """Count what captions lose, and say it in the log.

    Args:
        tokenizer: Of transformers or open_clip.
        captions: The captions; the empty one loses nothing.

    Raises:
        ValueError: If nothing is left of one, so that it reads as the empty caption.
    """
    cut = unknown = 0
    context = _context(tokenizer)
    for caption in captions:
        ids, strange = _inner(tokenizer, caption)
        if caption.strip() and all(each in strange for each in ids):
            raise ValueError(
                f"the tokenizer knows no character of the caption {caption[:80]!r}, "
                "which reads as an empty one"
            )
        # The start and the end take two.
        cut += len(ids) > context - 2
        unknown += any(each in strange for each in ids)
    lost = Lost(len(captions), cut, unknown)
    if cut:
        log.warning(
            "%d of %d captions are cut to %d tokens", cut, len(captions), context
        )
    if unknown:
        log.warning(
            "%d of %d captions hold characters that the tokenizer does not know",
            unknown,
            len(captions),
        )
    return lost


def _context(tokenizer: Any) -> int:
    """Return how many tokens are read, the start and the end among them."""
    length = getattr(tokenizer, "context_length", None)
    return int(tokenizer.model_max_length if length is None else length)


def _inner(tokenizer: Any, caption: str) -> tuple[list[int], set[int]]:
    """Return a caption's tokens between start and end, and those that say nothing."""
    if hasattr(tokenizer, "clean_fn") and hasattr(tokenizer, "tokenizer"):
        # open_clip's, around one of transformers'.
        caption, tokenizer = tokenizer.clean_fn(caption), tokenizer.tokenizer
    if not callable(getattr(tokenizer, "convert_tokens_to_ids", None)):
        # open_clip's own, which knows every byte.
        return list(tokenizer.encode(caption)), set()
    ids = tokenizer(caption, add_special_tokens=False, verbose=False).input_ids
    return list(ids), {tokenizer.unk_token_id}
