"""Make ``import torchvision`` work beside a CPU build of torch.

The package index has a CUDA-linked torchvision only. Its compiled operators do not
load into a CPU build of torch, and the import then ends in "operator torchvision::nms
does not exist", which takes torchmetrics, open_clip and most of transformers and
diffusers with it. Nothing here calls those operators, so declaring their schemas is
enough.

The remedy has to come first in every process, yet most steps need neither torch nor
torchvision, and importing them costs seconds. So this package's ``__init__`` only
installs a finder, which acts when somebody imports torchvision. Where torchvision
works, the finder changes nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_schemas: list[object] = []  # torch drops a Library's operators with the object


class _Imported(Loader):
    """Hand over a module that has been imported already."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Finder(MetaPathFinder):
    """Answer the first ``import torchvision`` with a torchvision that works."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        if PathFinder.find_spec(fullname) is None:
            return None
        return ModuleSpec(fullname, _Imported(_import_repaired()), is_package=True)


def _import_repaired() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for operator in ("nms", "qnms"):
            library.define(operator + signature)
        _schemas.append(library)
        return importlib.import_module("torchvision")


def install() -> None:
    """Repair torchvision when it is first imported in this process."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _Finder())
