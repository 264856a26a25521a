"""Sets of images to translate, with what each should become.

A set is made from scenes, where every task has a right answer, or read from a folder::

    pairs.jsonl   one JSON object per line: `input`, the name of a file in inputs/, and
                  `target`, `prompt`, `source_caption`, `target_caption`, `kind`
    inputs/       the input images
    targets/      the right answers, where they are known

Edits need a prompt (the instruction) and both captions, control and text need a prompt,
and the other tasks take none. A set for text is of images with captions: a caption is
the prompt, and its image the target, unless another is named. What the model is given
are black images of that size.

Prepared, a set is one JSON file, ``task`` and ``pairs`` with ``id``, ``prompt``,
``source_caption``, ``target_caption`` and ``kind``, and one safetensors file with
``inputs`` and, where known, ``targets``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import storage, texts
from clockwork_experiments.data import names, pictures, shards
from clockwork_experiments.generate.tasks import PROMPTED, check_task

if TYPE_CHECKING:
    import torch

KEYS = ("input", "target", "prompt", "source_caption", "target_caption", "kind")
"""What a line of ``pairs.jsonl`` may say."""

LIST = "pairs.jsonl"
"""Name of the list in a folder."""

_NEEDED: dict[str, tuple[str, ...]] = {
    "edit": ("input", "prompt", "source_caption", "target_caption"),
    "control": ("input", "prompt"),
    "text": ("input", "prompt"),
}


@dataclass(frozen=True)
class PairSetSpec:
    """Where pairs come from.

    Attributes:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        source: ``scenes`` (made from the mini world) or ``folder``.
        count: Number of pairs; 0 for all of a folder's.
        offset: Scenes, or lines, to skip.
        split: Split of the scenes.
        restorer: Folder of the net that restores blurred scenes, for synthesis.
        path: The folder.
        size: Side of a folder's images in pixels.
        input_size: Side of the input images, if they are smaller; they are enlarged.
        convert: Turn images of another size or mode into RGB, cut to the square in
            their middle. Without it, they are rejected.
        canny: The input images are plain; their edges become the inputs, and they
            themselves the targets, unless the folder names others.
    """

    task: str
    source: str
    count: int = 0
    offset: int = 0
    split: str = "test"
    restorer: str = ""
    path: str = ""
    size: int = 0
    input_size: int = 0
    convert: bool = False
    canny: bool = False

    def __post_init__(self) -> None:
        """Reject unknown tasks and sources, and settings that do not go together."""
        check_task(self.task)
        if self.source not in ("scenes", "folder"):
            raise ValueError(f"source {self.source!r} is not scenes or folder")
        if self.count < 0 or self.offset < 0:
            raise ValueError(f"count {self.count} or offset {self.offset} is below 0")
        if self.source == "folder":
            if not self.path or self.size < 1:
                raise ValueError("source 'folder' needs a path and a size")
            if self.restorer:
                raise ValueError("a restorer is for source 'scenes'")
        else:
            for name in ("path", "size", "input_size", "convert", "canny"):
                if getattr(self, name):
                    raise ValueError(f"{name} is for source 'folder'")
            if self.count < 1:
                raise ValueError(f"count {self.count} is less than 1")
            if bool(self.restorer) != (self.task == "synthesis"):
                raise ValueError("synthesis of scenes and a restorer need each other")
        if self.canny and self.task != "control":
            raise ValueError(f"canny is for task 'control', not {self.task!r}")
        if not 0 <= self.input_size <= self.size:
            raise ValueError(
                f"input_size {self.input_size} is not between 0 and size {self.size}"
            )


@dataclass(frozen=True)
class PairSet:
    """What is known of pairs besides their images; entry *i* belongs to pair *i*.

    Attributes:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        ids: A name for each, unique.
        prompts: What the model is told; empty for tasks without prompts.
        source_captions: What the inputs show, where known.
        target_captions: What the outputs should show, where known.
        kinds: What to group pairs by, such as what an edit changes.
    """

    task: str
    ids: tuple[str, ...]
    prompts: tuple[str, ...]
    source_captions: tuple[str, ...]
    target_captions: tuple[str, ...]
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        """Reject sets whose parts do not belong together."""
        check_task(self.task)
        if not self.ids:
            raise ValueError("the set has no pair")
        for field in dataclasses.fields(self)[2:]:
            if len(getattr(self, field.name)) != len(self.ids):
                raise ValueError(
                    f"{len(self.ids)} pairs and {len(getattr(self, field.name))} "
                    f"{field.name} do not belong together"
                )
        if len(set(self.ids)) < len(self.ids):
            raise ValueError("an id is repeated")

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.ids)


# --- from a folder --------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """A folder's pairs, with the files of their images.

    Attributes:
        pairs: The pairs.
        path: The list.
        inputs: Files of the inputs, by pair.
        targets: Files of the targets, by pair; none where they are not known.
    """

    pairs: PairSet
    path: Path
    inputs: tuple[Path, ...]
    targets: tuple[Path, ...]


def read_list(spec: PairSetSpec) -> Listed:
    """Read a folder's list, and find its images; they are not opened.

    Raises:
        ValueError: In one line, if the list is missing, empty, or too short, a line
            cannot be used, or images are missing, naming all of them.
    """
    folder = Path(spec.path)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    path = folder / LIST
    listed = texts.read_json_lines(path)
    if not listed:
        raise ValueError(f"{path} lists no pair")
    wanted = spec.offset + spec.count if spec.count else len(listed)
    if len(listed) < wanted or wanted <= spec.offset:
        raise ValueError(f"{path} lists {len(listed)} pairs, and {wanted} are needed")
    lines = [
        _line(data, where, spec.task) for where, data in listed[spec.offset : wanted]
    ]
    with_targets = sum("target" in line for line in lines)
    if with_targets not in (0, len(lines)):
        raise ValueError(
            f"{path}: {with_targets} of {len(lines)} lines have a target; "
            "give it to all or to none"
        )
    missing: set[str] = set()
    inputs = _images(folder / "inputs", [line["input"] for line in lines], missing)
    targets = _images(
        folder / "targets", [line["target"] for line in lines[:with_targets]], missing
    )
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} images are missing: {', '.join(sorted(missing))}"
        )
    prompts = tuple(line.get("prompt", "") for line in lines)
    default = prompts if spec.task in PROMPTED else ("",) * len(lines)
    return Listed(
        PairSet(
            spec.task,
            _ids([line["input"] for line in lines]),
            prompts,
            _column(lines, "source_caption", default),
            _column(lines, "target_caption", default),
            _column(lines, "kind", (spec.task,) * len(lines)),
        ),
        path,
        inputs,
        targets,
    )


def _images(folder: Path, listed: Sequence[str], missing: set[str]) -> tuple[Path, ...]:
    """Return the files of a folder that a list names; note those that are not there."""
    found = []
    for name in listed:
        place = names.find(folder, PurePosixPath(name).parts)
        if place is None:
            missing.add(str(folder / name))
        else:
            found.append(place)
    return tuple(found)


def _column(
    lines: Sequence[dict[str, str]], key: str, default: Sequence[str]
) -> tuple[str, ...]:
    return tuple(
        line.get(key, other) for line, other in zip(lines, default, strict=True)
    )


def _line(data: dict[str, Any], where: str, task: str) -> dict[str, str]:
    for key, value in data.items():
        if key not in KEYS:
            raise ValueError(
                f"{where}: unknown key {key!r}; known are {', '.join(KEYS)}"
            )
        if not isinstance(value, str):
            raise ValueError(f"{where}: {key} {value!r} is not a text")
    line = {
        key: texts.caption(value, f"{where}: {key}")
        for key, value in data.items()
        if value.strip()
    }
    for key in _NEEDED.get(task, ("input",)):
        if key not in line:
            raise ValueError(f"{where} lacks {key}, which task {task!r} needs")
    if task not in _NEEDED and "prompt" in line:
        raise ValueError(f"{where} has a prompt, and task {task!r} takes none")
    if task == "edit" and line["source_caption"] == line["target_caption"]:
        raise ValueError(f"{where}: the captions do not differ")
    for key in ("input", "target"):
        parts = PurePosixPath(line.get(key, key)).parts
        if ".." in parts or parts[0] == "/":
            raise ValueError(f"{where}: {key} {line[key]!r} leaves its folder")
    return line


def _ids(files: Sequence[str]) -> tuple[str, ...]:
    """Return unique names made of file names; one image may be in several pairs."""
    given: list[str] = []
    counts: dict[str, int] = {}
    for name in files:
        stem = re.sub(r"[^A-Za-z0-9_]+", "-", str(PurePosixPath(name).with_suffix("")))
        counts[stem] = counts.get(stem, 0) + 1
        given.append(stem if counts[stem] == 1 else f"{stem}.{counts[stem]}")
    return tuple(given)


def picture_parts(listed: Listed, spec: PairSetSpec) -> dict[str, shards.Parts]:
    """Return a folder's images as what is to be written of them, some at a time.

    Returns:
        ``inputs`` and, where known, ``targets``: uint8 ``(N, 3, size, size)``.

    Raises:
        ValueError: If images are of another size or mode, naming all of them; and while
            the parts are taken, if one cannot be read.
    """
    import torch

    from clockwork_experiments.data import canny

    small = spec.input_size or spec.size
    if not spec.convert:
        for files, size in ((listed.inputs, small), (listed.targets, spec.size)):
            pictures.check_sizes(listed.path, _named(files), size)

    def opened(files: Sequence[Path], size: int) -> Iterator[torch.Tensor]:
        for start in range(0, len(files), shards.IMAGES):
            named = _named(files[start : start + shards.IMAGES])
            # Of the right size already, where they must not be converted.
            images = {
                name: pictures.pixels(pictures.squared(pictures.read(file), size))
                for name, file in named.items()
            }
            some = [
                torch.from_numpy(images[str(file)])
                for file in files[start : start + shards.IMAGES]
            ]
            yield _enlarged(torch.stack(some), spec.size)

    plain = opened(listed.inputs, small)
    inputs: Iterator[torch.Tensor] = plain
    targets = opened(listed.targets, spec.size) if listed.targets else None
    if spec.canny or spec.task == "text":
        inputs = map(canny.edge_images if spec.canny else torch.zeros_like, plain)
        targets = targets or opened(listed.inputs, small)
    shape = (len(listed.inputs), 3, spec.size, spec.size)
    parts = (
        {"inputs": inputs}
        if targets is None
        else {"inputs": inputs, "targets": targets}
    )
    return {name: shards.Parts("U8", shape, each) for name, each in parts.items()}


def _named(files: Sequence[Path]) -> dict[str, Path]:
    return {str(file): file for file in files}


def _enlarged(images: torch.Tensor, size: int) -> torch.Tensor:
    """Enlarge images bicubically, as StableSR does with its inputs."""
    import torch

    if images.shape[-1] == size:
        return images
    large = torch.nn.functional.interpolate(
        images.float(), (size, size), mode="bicubic"
    )
    return large.round().clamp(0, 255).byte()


# --- prepared sets --------------------------------------------------------------------


_COLUMNS = {
    "id": "ids",
    "prompt": "prompts",
    "source_caption": "source_captions",
    "target_caption": "target_captions",
    "kind": "kinds",
}


def write_set(path: Path, pairs: PairSet) -> None:
    """Write what is known of pairs besides their images."""
    rows = zip(*(getattr(pairs, field) for field in _COLUMNS.values()), strict=True)
    listed = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    storage.write_json(path, {"task": pairs.task, "pairs": listed})


def read_set(path: Path) -> PairSet:
    """Read what `write_set` wrote.

    Raises:
        ValueError: If the file is missing or holds no pairs, naming it.
    """
    data = storage.read_json(storage.existing(path))
    if not isinstance(data, dict) or set(data) != {"task", "pairs"}:
        raise ValueError(f"{path} is not a mapping of task and pairs")
    if not isinstance(data["pairs"], list):
        raise ValueError(f"{path}: pairs is not a list")
    for number, item in enumerate(data["pairs"]):
        if not _is_row(item):
            raise ValueError(
                f"{path}: pairs[{number}] is not a mapping of texts, "
                + ", ".join(_COLUMNS)
            )
    try:
        return PairSet(
            data["task"],
            **{
                field: tuple(item[key] for item in data["pairs"])
                for key, field in _COLUMNS.items()
            },
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_row(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and set(item) == set(_COLUMNS)
        and all(isinstance(value, str) for value in item.values())
    )


def image_rows(
    path: Path, pairs: PairSet, framework: str = "pt"
) -> tuple[shards.Rows, shards.Rows | None]:
    """Return the rows of a prepared set's images, which are read as they are needed.

    Returns:
        Inputs and targets, uint8 ``(N, 3, H, W)``; targets None where not known.

    Raises:
        ValueError: If the file is missing or damaged, or is not of this set.
    """
    with storage.opened(path, framework) as file:
        held = list(file.keys())
    inputs = shards.Rows([path], "inputs", framework)
    targets = shards.Rows([path], "targets", framework) if "targets" in held else None
    wanted = (len(pairs), 3, *inputs.row_shape[1:])
    for name, found in (("inputs", inputs), ("targets", targets)):
        if found is None:
            continue
        if found.kind != "U8" or len(wanted) != 4 or found.shape != wanted:
            raise ValueError(
                f"{path}: {name} are {found.kind} {found.shape}, "
                f"not U8 ({len(pairs)}, 3, H, W) of one size"
            )
    return inputs, targets


def read_images(path: Path, pairs: PairSet) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Read all of a prepared set's images; see `image_rows`."""
    inputs, targets = image_rows(path, pairs)
    return inputs[:], None if targets is None else targets[:]
