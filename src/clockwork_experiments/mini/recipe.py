"""Train one of the mini models: what all of them have in common.

A recipe is a module with one function, ``train(spec, job, …) -> Card``: it trains on
whatever its annotated ``spec`` says, saves into ``job.folder``, and says what it made.
Further parameters are folders of models that it reads. An entry of
workflow/mini_models.yaml names the module; nothing else knows of it.
"""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.mini.card import Card, write_card
from clockwork_experiments.models import loading


@dataclass(frozen=True)
class Job:
    """Where a recipe works.

    Attributes:
        folder: What the model is written into.
        state: Where resumable state lies; what lies beside it is called as it is, with
            another suffix. All of it is removed when the model is in its place.
        work: Says what decides the outcome: settings, code, models that are read.
    """

    folder: Path
    state: Path
    work: str

    @property
    def device(self) -> torch.device:
        """Return the device to train on."""
        return loading.default_device()


def train(
    module: str, settings: str, reads: Mapping[str, Path], state: Path, output: Path
) -> None:
    """Train a model by its recipe; put folder and model card in place.

    Args:
        module: The recipe's module, as it is imported.
        settings: Its spec, as JSON.
        reads: Folders of the models that it reads, by the names of its parameters.
        state: Where the resumable state lies.
        output: Folder to write.

    Raises:
        ValueError: If the settings do not fit the recipe, it reads other models than
            are given, or the state is that of other work.
    """
    recipe: Callable[..., Card] = importlib.import_module(module).train
    spec = parse(typing.get_type_hints(recipe)["spec"], settings)
    wanted = list(inspect.signature(recipe).parameters)[2:]
    if {*reads} != {*wanted}:
        raise ValueError(
            f"{module} reads {', '.join(wanted) or 'no model'}, "
            f"not {', '.join(reads) or 'none'}"
        )
    work = json.dumps(
        {
            "spec": json.loads(settings),
            "code": provenance.code_sha256(
                module.removeprefix(f"{provenance.PACKAGE}.")
            ),
            **{name: storage.sha256_folder(path) for name, path in reads.items()},
        }
    )
    _own(state.with_suffix(".work"), work)
    with storage.atomic_path(output) as folder:
        card = recipe(spec, Job(folder, state, work), **reads)
        storage.write_checksums(folder)
        write_card(folder, spec, card)
    for path in state.parent.glob(f"{state.stem}.*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".lease":
            path.unlink()


def _own(mark: Path, work: str) -> None:
    """Refuse to go on with state that other settings, code or models have left."""
    if mark.is_file() and mark.read_text(encoding="utf-8") != work:
        raise ValueError(
            f"{mark.with_suffix('')}.* is the state of training by other settings, "
            "code or models; delete it to train from the start"
        )
    storage.write_text(mark, work)
