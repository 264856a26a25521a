"""Pool prompts for adaptors that look at text, anew in every call of the UNet.

What an adaptor is told of the prompt is a function of the text features that the UNet
gets *in the same call*: guidance on or off, several prompts, another prompt in the same
block or ready-made embeddings, it is never another text than the UNet's. How, stands in
the adaptor's configuration as ``pooling``:

- ``last``: the features of the last token, which in CLIP's causal text encoders has
  seen the whole prompt;
- ``mean``: the mean over all tokens;
- ``{"encoder": "owner/name"}``: another CLIP's projected embedding of the same prompt,
  of unit length, as the paper takes OpenCLIP's (`PromptPooler`).
"""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from clockwork_diffusion.contract import inputs_of

Pool = Callable[[torch.Tensor], torch.Tensor]
"""Maps the UNet's text features, ``(N, L, D)``, to pooled embeddings, ``(N, P)``."""


def pool_last(text: torch.Tensor) -> torch.Tensor:
    """Return the features of the last token, ``(N, D)``."""
    return text[:, -1]


def pool_mean(text: torch.Tensor) -> torch.Tensor:
    """Return the mean over all tokens, ``(N, D)``."""
    return text.mean(dim=1)


POOLINGS: dict[str, Pool] = {"last": pool_last, "mean": pool_mean}
"""What needs nothing but the UNet's own text features."""


class PooledTable:
    """Pooled embeddings, looked up by the text features that they belong to.

    Features are compared by content, so that repeated rows, slices and copies are all
    found, and other ones are refused.
    """

    def __init__(self, rows: int = 4096) -> None:
        """Begin empty.

        Args:
            rows: How many prompts to remember; the oldest is forgotten first.
        """
        self._rows = rows
        self._table: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self._latest: tuple[Any, torch.Tensor] | None = None

    def add(self, text: torch.Tensor, pooled: torch.Tensor) -> None:
        """Remember embeddings.

        Args:
            text: Text features, ``(N, L, D)``, in the UNet's precision.
            pooled: Their embeddings, ``(N, P)``.

        Raises:
            ValueError: If there are not as many of both.
        """
        if len(text) != len(pooled):
            raise ValueError(
                f"{len(pooled)} pooled embeddings are not {len(text)} prompts"
            )
        for row, embedding in zip(text, pooled, strict=True):
            self._table[_digest(row)] = embedding.detach().clone()
        while len(self._table) > self._rows:
            self._table.popitem(last=False)

    def __call__(self, text: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of text features.

        Raises:
            ValueError: If some were never added.
        """
        # All calls of a run are given the same tensor.
        if self._latest is not None and self._latest[0]() is text:
            return self._latest[1]
        digests = [_digest(row) for row in text]
        missing = [row for row, each in enumerate(digests) if each not in self._table]
        if missing:
            raise ValueError(
                f"row {missing[0]} of the UNet's text features is of a prompt that was "
                "not pooled for the adaptor: let the pipeline encode its prompts while "
                "the adaptor is applied, without clip_skip, or give pool="
            )
        pooled = torch.stack([self._table[each] for each in digests])
        self._latest = weakref.ref(text), pooled
        return pooled


class PromptPooler:
    """Pools the prompts that a pipeline encodes with another text encoder.

    It listens to the pipeline's own text encoder, so that it sees what every call of
    the pipeline encodes, the negative prompt included. `close` ends that.
    """

    def __init__(
        self, pipe: Any, embed: Callable[[Sequence[str]], torch.Tensor]
    ) -> None:
        """Begin to listen.

        Args:
            pipe: A diffusers pipeline with a ``tokenizer`` and a ``text_encoder``.
            embed: Maps texts to pooled embeddings, ``(N, P)``.

        Raises:
            ValueError: If the pipeline has not one text encoder, whose features the
                UNet is given.
        """
        encoder = getattr(pipe, "text_encoder", None)
        if encoder is None or getattr(pipe, "text_encoder_2", None) is not None:
            raise ValueError(
                f"{type(pipe).__name__} has not one text encoder whose prompts an "
                "adaptor's encoder could pool: give pool="
            )
        self._tokenizer, self._embed = pipe.tokenizer, embed
        self._table = PooledTable()
        self._handle = encoder.register_forward_hook(self._note, with_kwargs=True)

    def _note(
        self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        self._table.add(output[0], self._embed(texts).to(output[0]))

    def __call__(self, text: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of text features; see `PooledTable`."""
        return self._table(text)

    def close(self) -> None:
        """Stop listening, and forget all."""
        self._handle.remove()
        self._table = PooledTable()


def clip_embedder(encoder: str) -> Callable[[Sequence[str]], torch.Tensor]:
    """Load a CLIP text encoder with a projection, from a folder or from the hub.

    Returns:
        A function from texts to embeddings of unit length, ``(N, P)``, float32.
    """
    # By its class: the automatic one would ask to run a folder's own code.
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(encoder)
    model = CLIPTextModelWithProjection.from_pretrained(encoder).eval()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> torch.Tensor:
        tokens = tokenizer(
            list(texts), padding="max_length", truncation=True, return_tensors="pt"
        )
        return F.normalize(model(**tokens).text_embeds.float(), dim=-1)

    return embed


def pool_for(adaptor: Any, pipe: Any, pool: Pool | None = None) -> Pool | None:
    """Return what pools the text for an adaptor, or None if it looks at no text.

    Args:
        adaptor: φ.
        pipe: The pipeline that it is put on.
        pool: Pools in another way than the adaptor's configuration says.

    Raises:
        ValueError: If the adaptor looks at text and nothing says how to pool it, or
            looks at none and is to be given some.
    """
    kind = type(adaptor).__name__
    if "text" not in inputs_of(adaptor):
        if pool is not None:
            raise ValueError(f"pool is given, and this {kind} looks at no text")
        return None
    if pool is not None:
        return pool
    recipe = getattr(getattr(adaptor, "config", None), "pooling", None)
    if isinstance(recipe, str) and recipe in POOLINGS:
        return POOLINGS[recipe]
    if isinstance(recipe, Mapping) and set(recipe) == {"encoder"}:
        return PromptPooler(pipe, clip_embedder(recipe["encoder"]))
    raise ValueError(
        f"this {kind} looks at text, and its pooling {recipe!r} is none of "
        f"{', '.join(POOLINGS)} or {{'encoder': …}}: give pool=, which maps the UNet's "
        "text features to pooled embeddings"
    )


def _digest(row: torch.Tensor) -> bytes:
    flat = row.detach().contiguous().cpu().view(torch.uint8)
    return hashlib.blake2b(flat.numpy().tobytes(), digest_size=16).digest()
