"""Sets of images to edit, with what each should become.

A set is read from a folder in the layout of ImageNet-R-TI2I: one YAML file, a list of
sources. A *real* source is an image, ``init_img``; a *fake* one is sampled again from
``source_prompt``, ``seed``, ``scale`` (of guidance) and ``ddim_steps``. Each has its
``target_prompts``, and may have ``target_imgs``, the exact edits, where they are known.

Prepared, a set is one JSON file, ``sources`` with ``id`` and ``prompt`` and ``pairs``
with ``source`` (an index) and ``prompt``, and one safetensors file with ``sources``
and, where known, ``targets``. Pairs come prompt by prompt: every source's first target
prompt, then every source's second, and so on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import storage, texts
from clockwork_experiments.data import names, pictures

if TYPE_CHECKING:
    import torch

KEYS = (
    "init_img",
    "source_prompt",
    "target_prompts",
    "target_imgs",
    "seed",
    "scale",
    "ddim_steps",
)
"""What an entry of the YAML may say."""

_SAMPLED = ("seed", "scale", "ddim_steps")


@dataclass(frozen=True)
class EditSetSpec:
    """Where an editing set comes from.

    Attributes:
        source: ``scenes`` (made from the mini world) or ``folder``.
        size: Side of the images in pixels.
        path: The folder.
        prompts: Name of its YAML file; without one, the only ``*.yaml``.
        convert: Turn images of another size or mode into RGB: cut to the square in
            their middle, then resized. Without it, they are rejected.
    """

    source: str
    size: int
    path: str = ""
    prompts: str = ""
    convert: bool = False

    def __post_init__(self) -> None:
        """Reject unknown sources, folders without a path, and paths as file names."""
        if self.source not in ("scenes", "folder"):
            raise ValueError(f"source {self.source!r} is not scenes or folder")
        if self.size < 1:
            raise ValueError(f"size {self.size} is less than 1")
        if (self.source == "folder") != bool(self.path):
            raise ValueError("source 'folder' and a path need each other")
        if Path(self.prompts).name != self.prompts:
            raise ValueError(f"prompts {self.prompts!r} is not the name of a file")


@dataclass(frozen=True)
class EditSet:
    """Sources and pairs of a source and a target prompt.

    Attributes:
        ids: A name for each source, unique and safe as a file name.
        source_prompts: What each source shows.
        pair_sources: For each pair, the index of its source.
        target_prompts: For each pair, what the source should become.
    """

    ids: tuple[str, ...]
    source_prompts: tuple[str, ...]
    pair_sources: tuple[int, ...]
    target_prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        """Reject sets whose parts do not belong together."""
        count = len(self.ids)
        if not count:
            raise ValueError("the set has no source")
        if len(self.source_prompts) != count:
            raise ValueError(
                f"{count} sources and {len(self.source_prompts)} source prompts do not "
                "belong together"
            )
        if len(self.pair_sources) != len(self.target_prompts):
            raise ValueError(
                f"{len(self.pair_sources)} pairs and {len(self.target_prompts)} target "
                "prompts do not belong together"
            )
        for name in self.ids:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
                raise ValueError(
                    f"id {name!r} is not letters, digits, _ and -, 100 at most"
                )
        # Some file systems do not tell case apart.
        repeated = Counter(name.lower() for name in self.ids).most_common(1)[0]
        if repeated[1] > 1:
            raise ValueError(f"id {repeated[0]!r} is of {repeated[1]} sources")
        if not all(prompt.strip() for prompt in self.source_prompts):
            raise ValueError("a source prompt is empty")
        if not all(prompt.strip() for prompt in self.target_prompts):
            raise ValueError("a target prompt is empty")
        for index in self.pair_sources:
            if not 0 <= index < count:
                raise ValueError(f"a pair's source {index} is not one of {count}")
        idle = sorted(set(range(count)) - set(self.pair_sources))
        if idle:
            names = ", ".join(self.ids[index] for index in idle)
            raise ValueError(f"without a target prompt: {names}")


@dataclass(frozen=True)
class Sampling:
    """How a fake source is sampled again, by DDIM.

    Attributes:
        seed: Seed of the starting noise.
        guidance: Scale of classifier-free guidance.
        steps: Number of sampling steps.
    """

    seed: int
    guidance: float
    steps: int


@dataclass(frozen=True)
class Layout:
    """What a folder says of an editing set.

    Attributes:
        edits: Sources and pairs.
        sources: Each source's image, uint8 ``(3, S, S)``, or how to sample it.
        targets: The exact edit of each pair, uint8 ``(P, 3, S, S)``, if known.
    """

    edits: EditSet
    sources: tuple[torch.Tensor | Sampling, ...]
    targets: torch.Tensor | None


# --- the prepared form ---------------------------------------------------------------


def write_set(path: Path, edits: EditSet) -> None:
    """Write a set as JSON; `read_set` undoes it."""
    storage.write_json(
        path,
        {
            "sources": [
                {"id": name, "prompt": prompt}
                for name, prompt in zip(edits.ids, edits.source_prompts, strict=True)
            ],
            "pairs": [
                {"source": source, "prompt": prompt}
                for source, prompt in zip(
                    edits.pair_sources, edits.target_prompts, strict=True
                )
            ],
        },
    )


def read_set(path: Path) -> EditSet:
    """Read what `write_set` wrote.

    Raises:
        ValueError: If the file is missing or holds no editing set, naming it.
    """
    data = storage.read_json(storage.existing(path))
    if not isinstance(data, dict) or set(data) != {"sources", "pairs"}:
        raise ValueError(f"{path} is not a mapping of sources and pairs")
    for section, fields in (
        ("sources", {"id": str, "prompt": str}),
        ("pairs", {"source": int, "prompt": str}),
    ):
        if not isinstance(data[section], list):
            raise ValueError(f"{path}: {section} is not a list")
        for number, item in enumerate(data[section]):
            if (
                not isinstance(item, dict)
                or set(item) != set(fields)
                or any(type(item[name]) is not kind for name, kind in fields.items())
            ):
                raise ValueError(
                    f"{path}: {section}[{number}] is not a mapping of "
                    + " and ".join(f"{n} ({k.__name__})" for n, k in fields.items())
                )
    try:
        return EditSet(
            tuple(item["id"] for item in data["sources"]),
            tuple(item["prompt"] for item in data["sources"]),
            tuple(item["source"] for item in data["pairs"]),
            tuple(item["prompt"] for item in data["pairs"]),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_images(path: Path, edits: EditSet) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Read a prepared set's images: its sources, and its targets where known.

    Returns:
        Both uint8; ``(N, 3, S, S)`` and ``(P, 3, S, S)`` or None.

    Raises:
        ValueError: If the file is missing or damaged, or is not of this set.
    """
    import torch

    tensors, _ = storage.read_tensors(path)
    if "sources" not in tensors:
        raise ValueError(f"{path} lacks the tensor 'sources'")
    sources, targets = tensors["sources"], tensors.get("targets")
    for name, found, count in (
        ("sources", sources, len(edits.ids)),
        ("targets", targets, len(edits.pair_sources)),
    ):
        if found is None:
            continue
        wanted = (count, 3, sources.shape[-1], sources.shape[-1])
        if found.dtype != torch.uint8 or tuple(found.shape) != wanted:
            raise ValueError(
                f"{path}: {name} are {found.dtype} {tuple(found.shape)}, "
                f"not uint8 ({count}, 3, S, S)"
            )
    return sources, targets


# --- the layout of ImageNet-R-TI2I ---------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """One entry of the YAML, checked, with ``where`` it stands for messages."""

    where: str
    image: str
    prompt: str
    targets: tuple[str, ...]
    target_images: tuple[str, ...]
    sampling: Sampling | None


def read_layout(
    folder: Path, size: int, prompts: str = "", convert: bool = False
) -> Layout:
    """Read an editing set from a folder.

    A missing source prompt is read off the path by Table S4's template, "a <style> of
    an <instance>": ``panda/cartoon_30.jpg`` shows a cartoon of a panda.

    Args:
        folder: Holds the YAML file and the images that it names.
        size: Side of the images in pixels.
        prompts: Name of the YAML file; without one, the only ``*.yaml``.
        convert: Turn images of another size or mode into RGB, `size` pixels square.

    Raises:
        ValueError: In one line, if the YAML is missing, no list, or has an entry that
            cannot be used; if images are missing, naming all of them; if one cannot
            be read; or if some are of another size or mode, naming all of them.
    """
    path = _yaml_in(folder, prompts)
    entries = [
        _entry(item, f"{path}, entry {number}")
        for number, item in enumerate(_list_in(path), 1)
    ]
    with_targets = sum(bool(entry.target_images) for entry in entries)
    if with_targets not in (0, len(entries)):
        raise ValueError(
            f"{path}: {with_targets} of {len(entries)} entries have target_imgs; "
            "give them to all or to none"
        )
    found = _find_images(folder, path, entries)
    names = _unique(_name(entry, found, folder) for entry in entries)
    described = tuple(
        entry.prompt or _prompt_of(entry, found, folder) for entry in entries
    )
    pairs = [
        (index, rank)
        for rank in range(max(len(entry.targets) for entry in entries))
        for index, entry in enumerate(entries)
        if rank < len(entry.targets)
    ]
    images = _read_files(path, found, size, convert)
    targets = None
    if with_targets:
        import torch

        targets = torch.stack(
            [images[entries[index].target_images[rank]] for index, rank in pairs]
        )
    return Layout(
        EditSet(
            names,
            described,
            tuple(index for index, _ in pairs),
            tuple(entries[index].targets[rank] for index, rank in pairs),
        ),
        tuple(entry.sampling or images[entry.image] for entry in entries),
        targets,
    )


def _yaml_in(folder: Path, prompts: str) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if prompts:
        return storage.existing(folder / prompts)
    found = sorted(folder.glob("*.yaml"))
    if not found:
        raise ValueError(f"{folder} holds no *.yaml")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds several *.yaml, {names}; choose by `prompts`")
    return found[0]


def _list_in(path: Path) -> list[Any]:
    data = texts.read_yaml(path)
    if not isinstance(data, list):
        raise ValueError(f"{path} is not a list of sources")
    if not data:
        raise ValueError(f"{path} names no source")
    return data


def _entry(data: Any, where: str) -> _Entry:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is not a mapping: {texts.short(data)}")
    for key in data:
        if key not in KEYS:
            raise ValueError(f"{where}: unknown key {key!r}; known are {_joined(KEYS)}")
    given = {key: value for key, value in data.items() if value is not None}
    image, sampling = "", None
    if "init_img" in given:
        image = texts.caption(given["init_img"], f"{where}: init_img")
        both = [key for key in _SAMPLED if key in given]
        if both:
            raise ValueError(
                f"{where} has init_img and {_joined(both)}: "
                "is the source an image, or sampled?"
            )
    elif "seed" in given:
        lacking = [k for k in ("source_prompt", *_SAMPLED) if k not in given]
        if lacking:
            raise ValueError(f"{where} has a seed and lacks {_joined(lacking)}")
        sampling = _sampling(given, where)
    else:
        raise ValueError(f"{where} has neither init_img nor seed")
    prompt = ""
    if "source_prompt" in given:
        prompt = texts.caption(given["source_prompt"], f"{where}: source_prompt")
    targets = _texts(given.get("target_prompts"), f"{where}: target_prompts")
    target_images: tuple[str, ...] = ()
    if "target_imgs" in given:
        target_images = _texts(given["target_imgs"], f"{where}: target_imgs")
        if len(target_images) != len(targets):
            raise ValueError(
                f"{where} has {len(target_images)} target_imgs for "
                f"{len(targets)} target_prompts"
            )
    for name in filter(None, (image, *target_images)):
        if not _parts(name) or ".." in _parts(name):
            raise ValueError(f"{where}: {name!r} leaves the folder")
    return _Entry(where, image, prompt, targets, target_images, sampling)


def _sampling(given: dict[str, Any], where: str) -> Sampling:
    for key, least in (("seed", 0), ("ddim_steps", 1)):
        if type(given[key]) is not int or given[key] < least:
            raise ValueError(
                f"{where}: {key} {given[key]!r} is not a whole number from {least} on"
            )
    if type(given["scale"]) not in (int, float) or not given["scale"] >= 1:
        raise ValueError(f"{where}: scale {given['scale']!r} is not a number from 1 on")
    return Sampling(given["seed"], float(given["scale"]), given["ddim_steps"])


def _texts(value: Any, what: str) -> tuple[str, ...]:
    if value is None or value == []:
        raise ValueError(f"{what} is empty")
    if not isinstance(value, list):
        raise ValueError(f"{what} {texts.short(value)} is not a list")
    return tuple(
        texts.caption(item, f"{what}, item {n}") for n, item in enumerate(value, 1)
    )


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)


# --- names and prompts ---------------------------------------------------------------


def _name(entry: _Entry, found: dict[str, Path], folder: Path) -> str:
    """Return a name for a source, safe as a file name."""
    if entry.image:
        text = "-".join(found[entry.image].relative_to(folder).with_suffix("").parts)
    else:
        assert entry.sampling is not None
        text = f"{entry.prompt[:60]} {entry.sampling.seed}"
    # Room is left for `_unique`.
    return re.sub(r"[^A-Za-z0-9_]+", "-", text)[-90:].strip("-_") or "source"


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Number names that were there before, whatever their case."""
    given: list[str] = []
    taken: set[str] = set()
    for name in names:
        candidate, count = name, 1
        while candidate.lower() in taken:
            count += 1
            candidate = f"{name}-{count}"
        taken.add(candidate.lower())
        given.append(candidate)
    return tuple(given)


def _prompt_of(entry: _Entry, found: dict[str, Path], folder: Path) -> str:
    """Read "a <style> of an <instance>" off ``<instance>/<style>_<number>.<kind>``."""
    inside = found[entry.image].relative_to(folder)
    style = re.sub(r"[_-]?\d+$", "", inside.stem).replace("_", " ").strip()
    instance = inside.parent.name.replace("_", " ").strip()
    if not (re.search(r"[^\W\d]", style) and re.search(r"[^\W\d]", instance)):
        raise ValueError(
            f"{entry.where} lacks source_prompt, and {entry.image!r} is not "
            "<instance>/<style>_<number>, which says it"
        )
    return f"{_with_article(style)} of {_with_article(instance)}"


def _with_article(words: str) -> str:
    """Put "a" or "an" before words, by sound where spelling would mislead."""
    vowel = re.match(r"(?!uni|use|eu|one)[aeiou]|hour|honest|heir", words.lower())
    return f"{'an' if vowel else 'a'} {words}"


# --- images --------------------------------------------------------------------------


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.lstrip("/")).parts


def _find_images(
    folder: Path, path: Path, entries: Sequence[_Entry]
) -> dict[str, Path]:
    """Return where each image lies, by its name in the YAML."""
    names = list(
        dict.fromkeys(
            name
            for entry in entries
            for name in (entry.image, *entry.target_images)
            if name
        )
    )
    found = {name: _find(folder, _parts(name)) for name in names}
    missing = [name for name, place in found.items() if place is None]
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of {len(names)} images are missing: "
            f"{_joined(missing)}"
        )
    return {name: place for name, place in found.items() if place is not None}


def _find(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """Find a file below a folder; the first part may name the folder."""
    return names.find(folder, parts) or names.find(folder, parts[1:])


def _read_files(
    path: Path, found: dict[str, Path], size: int, convert: bool
) -> dict[str, torch.Tensor]:
    """Read image files.

    Args:
        path: The list that names them, for messages.
        found: Where each lies, by its name in the list.
        size: Side in pixels.
        convert: Turn images of another size or mode into RGB, `size` pixels square.

    Returns:
        Images by name, uint8 ``(3, size, size)``.

    Raises:
        ValueError: In one line, if one cannot be read; or if some are of another size
            or mode, naming all of them.
    """
    import torch

    if not convert:
        pictures.check_sizes(path, found, size)
    return {
        name: torch.from_numpy(
            pictures.pixels(pictures.squared(pictures.read(place), size))
        )
        for name, place in found.items()
    }
