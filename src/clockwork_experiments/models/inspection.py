"""Look at a folder of models before anything in it is loaded.

Nothing that a folder brings is run, no tensor is filled in or left over, and what is
loaded is finite. Whatever is not so ends in one line that names the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import storage, texts

if TYPE_CHECKING:
    import torch
    from torch import nn

LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")
"""What a pipeline's index may name; the last is diffusers' name for its own parts."""

OURS = "clockwork_diffusion."
"""How the names of our own modules begin, which an index may name too."""

FOREIGN = ("auto_map", "trust_remote_code", "custom_pipeline", "hf_model_name")
"""Settings that have a library run code from elsewhere, or fetch a model."""

WORDS = ("vocab.json", "tokenizer.json", "added_tokens.json")
"""Files whose keys are words, and no settings."""

LARGEST = 1_000_000
"""What a whole number of a config.json may be at most; vocabularies have 50,000."""

DEEPEST = 1_000
"""How many layers it may speak of."""

SIDE = 4_096
"""Latents that an image may have along a side."""

_STEMS = ("diffusion_pytorch_model", "model")
_VARIANTS = ("fp32", "fp16", "bf16")
_WEIGHTS = re.compile(
    rf"(?:{'|'.join(_STEMS)})(?:\.(?P<variant>\w+))?(?:-\d{{5}}-of-\d{{5}})?"
    r"(?:\.(?P<late>\w+))?\.safetensors"
)
_POINTER = b"version https://git-lfs"
_FLOATS = ("F16", "BF16", "F32", "F64")
_WHOLE = ("position_ids", "num_batches_tracked")


def place_of(folder: Path) -> Path:
    """Return where a model lies: in the hub's cache, the folder of its one revision.

    Raises:
        ValueError: If a cached model has several revisions and no ``main``, or none.
    """
    revisions = folder / "snapshots"
    if not revisions.is_dir() or (folder / "config.json").is_file():
        return folder
    main = folder / "refs" / "main"
    if main.is_file():
        return revisions / texts.read_text(main).strip()
    found = sorted(path.name for path in revisions.iterdir())
    if len(found) != 1:
        raise ValueError(
            f"{revisions} holds {len(found)} revisions, and no refs/main: give the "
            "path of one"
        )
    return revisions / found[0]


def inspect(folder: Path) -> None:
    """Refuse a folder that brings programs, asks for some, or holds no real weights.

    Raises:
        ValueError: In one line.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    refuse_programs(folder)
    for path in sorted(folder.rglob("*.json")):
        if path.name not in WORDS and not path.name.endswith(".index.json"):
            _refuse_foreign(texts.read_json(path), path)
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.exists():
            raise ValueError(f"{path} is a link to what is not there")
        if path.suffix in (".safetensors", ".bin", ".pth", ".pt") and path.is_file():
            _refuse_pointer(path)


def refuse_programs(folder: Path) -> None:
    """Refuse a model's folder with Python in it, which diffusers would run.

    Raises:
        ValueError: If it has such a file, or an index that names other libraries.
    """
    for path in sorted(folder.rglob("*.py")):
        raise ValueError(
            f"{path} is a program, and none is run from a folder of weights; remove it"
        )
    path = folder / "model_index.json"
    if not path.is_file():
        return
    for part, (library, _) in parts_of(folder).items():
        if library not in LIBRARIES and not library.startswith(OURS):
            known = ", ".join(filter(None, LIBRARIES))
            raise ValueError(
                f"{path}: {part} is of library {library!r}, not one of {known}"
            )


def parts_of(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Return the library and class of each part of a pipeline, by its name.

    Raises:
        ValueError: If there is no index, or it is none.
    """
    path = folder / "model_index.json"
    index = texts.read_json(path)
    if not isinstance(index, dict):
        raise ValueError(f"{path} is not a mapping")
    parts = {}
    for name, value in index.items():
        if isinstance(value, list):
            library, kind = (*value, None, None)[:2]
            if not (isinstance(library, str | None) and isinstance(kind, str | None)):
                raise ValueError(
                    f"{path}: {name} is {texts.short(value)}, no library and class"
                )
            parts[name] = (library, kind)
    return parts


def _refuse_foreign(data: Any, path: Path) -> None:
    for key, value in _settings(data):
        if key in FOREIGN and value:
            raise ValueError(
                f"{path} sets {key} to {texts.short(value)}: nothing from elsewhere is "
                "run or fetched; remove it"
            )


def _settings(data: Any) -> Iterator[tuple[str, Any]]:
    """Return each key and value, at any depth."""
    if isinstance(data, dict):
        yield from data.items()
        for value in data.values():
            yield from _settings(value)
    elif isinstance(data, list):
        for value in data:
            yield from _settings(value)


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        raise ValueError(
            f"{path} is a pointer of Git LFS, and not the weights; `git lfs pull` "
            "fetches them"
        )
    if not start:
        raise ValueError(f"{path} is empty")


# --- one network ----------------------------------------------------------------------


def check_config(folder: Path) -> dict[str, Any]:
    """Return a network's ``config.json``, if its sizes can be those of a network.

    Raises:
        ValueError: If it is missing, no mapping, or has a size that cannot be.
    """
    path = folder / "config.json"
    config = texts.read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a mapping")
    for key, value in _settings(config):
        most = DEEPEST if "layers" in key else LARGEST
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int and number > most and not key.endswith("_id"):
                raise ValueError(
                    f"{path}: {key} is {number}, and at most {most} can be"
                )
        if isinstance(value, list) and len(value) > DEEPEST:
            raise ValueError(
                f"{path}: {key} has {len(value)} items, and at most {DEEPEST} can be"
            )
    return config


def side_of(config: Mapping[str, Any], path: Path) -> int:
    """Return the side of a UNet's latents; a pair of equal ones is one.

    Raises:
        ValueError: If it is not one whole number from 1 to `SIDE`.
    """
    size = config.get("sample_size")
    found = set(size) if isinstance(size, list | tuple) else {size}
    side = found.pop() if found else None
    if found:
        raise ValueError(
            f"{path}: sample_size {list(size or ())} is of no square, and images are "
            "squares here"
        )
    if type(side) is not int or not 1 <= side <= SIDE:
        raise ValueError(
            f"{path}: sample_size {size!r} is not a whole number from 1 to {SIDE}"
        )
    return side


def variant_of(folder: Path) -> str | None:
    """Return the precision that a network's file names say; None where they are plain.

    Raises:
        ValueError: If there are no weights, or only of a kind that is not loaded.
    """
    found: set[str | None] = set()
    for path in folder.iterdir():
        match = _WEIGHTS.fullmatch(path.name)
        if match:
            found.add(match["variant"] or match["late"])
    if None in found:
        return None
    for variant in _VARIANTS:
        if variant in found:
            return variant
    if found:
        raise ValueError(
            f"{folder} holds only the variants {', '.join(sorted(map(str, found)))} of "
            f"its weights, and none of {', '.join(_VARIANTS)} or without a name"
        )
    others = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth", ".pt")
    )
    if others:
        raise ValueError(
            f"{folder} holds {others[0]} and no safetensors; save it again by "
            "`save_pretrained`"
        )
    raise ValueError(f"{folder} holds no weights (*.safetensors)")


def weights_in(folder: Path) -> Path:
    """Return a network's file of weights; its folder, if there are none or several."""
    endings = (".safetensors", ".bin")
    found = [path for path in folder.iterdir() if path.suffix in endings]
    return found[0] if len(found) == 1 else folder


def check_kinds(folder: Path) -> None:
    """Refuse weights that are no floats.

    Raises:
        ValueError: If a file is damaged, or a tensor is of whole numbers.
    """
    for path in sorted(folder.glob("*.safetensors")):
        with storage.opened(path, "np") as file:
            for name in file.keys():  # noqa: SIM118
                kind = file.get_slice(name).get_dtype()
                if kind not in _FLOATS and not name.endswith(_WHOLE):
                    raise ValueError(
                        f"{path}: {name} is {kind}, and weights are one of "
                        f"{', '.join(_FLOATS)}"
                    )


def check_report(
    report: Mapping[str, Any], weights: Path, surplus: Collection[str] = ()
) -> None:
    """Refuse a network whose weights are not exactly those that its config says.

    Args:
        report: What diffusers and transformers say of it, ``missing_keys`` and others.
        weights: The network's file.
        surplus: How tensors may begin, or end, that are left over.

    Raises:
        ValueError: In one line that names the tensors.
    """
    allowed = (*surplus, *_WHOLE)
    left_over = [
        name
        for name in report.get("unexpected_keys", ())
        if not name.startswith(tuple(surplus)) and not name.endswith(allowed)
    ]
    missing = report.get("missing_keys", ())
    said = [
        f"{what} {len(names)} ({', '.join([*sorted(names)[:3], '…'][: len(names)])})"
        for what, names in (("lacks", missing), ("has too many,", left_over))
        if names
    ]
    if said:
        raise ValueError(
            f"{weights}: of the tensors that config.json says, the file "
            f"{' and '.join(said)}; it is incomplete, or of another network"
        )


def check_finite(tensors: Mapping[str, torch.Tensor] | nn.Module, where: Path) -> None:
    """Refuse weights that are not finite, as a broken merge or an overflow leaves them.

    Raises:
        ValueError: In one line that names the tensors.
    """
    import torch

    # Of a network what is stored; a mask that it makes is infinite by right.
    named = tensors if isinstance(tensors, Mapping) else tensors.state_dict()
    bad = [
        name
        for name, value in named.items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]
    if bad:
        more = f" and {len(bad) - 1} more" * (len(bad) > 1)
        raise ValueError(f"{where}: {bad[0]}{more} holds numbers that are not finite")


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer without words, which transformers would load empty.

    Raises:
        ValueError: If its folder does not have the files.
    """
    fast, slow = folder / "tokenizer.json", folder / "vocab.json"
    if not fast.is_file() and not (
        slow.is_file() and (folder / "merges.txt").is_file()
    ):
        raise ValueError(
            f"{folder} holds no tokenizer: {fast.name}, or {slow.name} and merges.txt"
        )


def one_line(error: Exception) -> str:
    """Return the start of a message as one line; state dicts list every tensor."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return text if len(text) <= 200 else text[:200] + "…"
