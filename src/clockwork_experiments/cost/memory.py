"""Count the memory that a forward pass takes, without computing anything.

On torch's meta device each operator makes tensors of the right shape and no content;
what of them lives at once is counted as it happens. What an allocator wastes, and what
kernels borrow inside one operator, is left out: expect up to a third more on a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Adds up the storages that operators make, and takes off those that are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = operator(*args, **(kwargs or {}))
        given = {self._id(leaf) for leaf in tree_leaves((args, kwargs))}
        for leaf in tree_leaves(found):
            key = self._id(leaf)
            if key and key not in self._known and key not in given:
                storage = leaf.untyped_storage()
                self._known.add(key)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._freed, key, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return found

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    @staticmethod
    def _id(leaf: Any) -> int:
        if not isinstance(leaf, torch.Tensor):
            return 0
        return int(leaf.untyped_storage()._cdata)


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Let attention take no memory but its result, as fused kernels do."""

    def attended(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> torch.Tensor:
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    with mock.patch.object(functional, "scaled_dot_product_attention", attended):
        yield


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return the most bytes that a call's own tensors take at once.

    Args:
        call: What to do, on meta tensors alone; its inputs and weights do not count.
    """
    with torch.no_grad(), _fused_attention(), _Live() as counted:
        call()
    return counted.peak
