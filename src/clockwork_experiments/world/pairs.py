"""Make pairs of scenes: what an image-to-image model is given, and the right answer.

Scenes are drawn exactly, so that every task has a right answer to learn and to score:
an exact edit, the scene behind its edges, before it was degraded, masked, or blurred,
or that its caption describes.
Everything follows from a scene's seed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch

from clockwork_experiments.data import canny
from clockwork_experiments.generate.tasks import check_task
from clockwork_experiments.world import captions, edits, scenes
from clockwork_experiments.world.data import Pixels, eight_bit, made_of, stacked

Restorer = Callable[[torch.Tensor], torch.Tensor]
"""Makes restored images of blurred ones; both uint8, ``(N, 3, 64, 64)``."""

FACTOR = 4
"""By how much restoration enlarges."""

GREY = 128
"""Level of what inpainting hides."""

BLUR = 2.0
"""Standard deviation in pixels of the blur that synthesis starts from."""

_BLUR_NOISE = 0.01
_SIDES = (16, 40)
_AT_ONCE = 512


@dataclass(frozen=True)
class Pairs:
    """Pairs of one task; entry *i* of every attribute belongs to pair *i*.

    Attributes:
        inputs: What the model is given, uint8, ``(N, 3, 64, 64)``; black for text.
        targets: The right answers, alike.
        prompts: An instruction for edits, a caption for control and text, else empty.
        source_captions: Captions of the scenes before.
        target_captions: Captions of the targets; other than the sources' for edits.
        kinds: What each edit changes, as `edits.Edit` says; else the task.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    prompts: tuple[str, ...]
    source_captions: tuple[str, ...]
    target_captions: tuple[str, ...]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.prompts)

    def __add__(self, other: Pairs) -> Pairs:
        """Return these pairs and others behind them."""
        return Pairs(
            torch.cat([self.inputs, other.inputs]),
            torch.cat([self.targets, other.targets]),
            self.prompts + other.prompts,
            self.source_captions + other.source_captions,
            self.target_captions + other.target_captions,
            self.kinds + other.kinds,
        )


class _Pair(NamedTuple):
    given: Pixels
    target: Pixels
    prompt: str
    source_caption: str
    target_caption: str
    kind: str


def scene_pairs(
    task: str,
    split: str,
    count: int,
    offset: int = 0,
    restorer: Restorer | None = None,
) -> Pairs:
    """Make the pairs of a task from scenes of a split.

    Args:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        split: A key of `scenes.SPLITS`.
        count: Number of pairs.
        offset: First scene, counted within its split.
        restorer: For synthesis, what restores blurred scenes; it leaves out the high
            frequencies that the model is to add.

    Raises:
        ValueError: If the task or the split is unknown, the split holds too few
            scenes, there is no pair, or synthesis lacks a restorer.
    """
    check_task(task)
    if count < 1:
        raise ValueError(f"count {count} is less than 1")
    if (restorer is None) == (task == "synthesis"):
        raise ValueError(
            f"task {task!r}: synthesis needs a restorer, and no other task has one"
        )
    made = _each(functools.partial(_pair, task), split, count, offset)
    given = stacked([pair.given for pair in made])
    if restorer is not None:
        given = torch.cat([restorer(part) for part in given.split(_AT_ONCE)])
    return Pairs(
        given,
        stacked([pair.target for pair in made]),
        tuple(pair.prompt for pair in made),
        tuple(pair.source_caption for pair in made),
        tuple(pair.target_caption for pair in made),
        tuple(pair.kind for pair in made),
    )


def blurred_scenes(
    split: str, count: int, offset: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return blurred scenes and the scenes, to train a restorer with; both uint8."""
    made = _each(functools.partial(_pair, "synthesis"), split, count, offset)
    return stacked([each.given for each in made]), stacked([p.target for p in made])


def _each(
    make: Callable[[int], _Pair], split: str, count: int, offset: int
) -> list[_Pair]:
    return made_of(make, scenes.split_seeds(split, count, offset))


def _pair(task: str, seed: int) -> _Pair:
    scene = scenes.sample_scene(seed)
    return _PAIRS[task](scene, scenes.render(scene), seed)


def _edit(scene: scenes.Scene, image: scenes.Image, seed: int) -> _Pair:
    edit = edits.sample_edit(scene, seed)
    before, (after,) = edits.prompts(scene, [edit], seed)
    target = eight_bit(scenes.render(edit.scene))
    return _Pair(eight_bit(image), target, edit.instruction, before, after, edit.kind)


def _control(scene: scenes.Scene, image: scenes.Image, seed: int) -> _Pair:
    target = eight_bit(image)
    words = captions.caption_of(scene, seed).text
    return _Pair(canny.edges(target), target, words, words, words, "control")


def _restoration(scene: scenes.Scene, image: scenes.Image, seed: int) -> _Pair:
    given = scenes.degrade(image, seed, FACTOR)
    return _unprompted(scene, image, seed, given, "restoration")


def _inpainting(scene: scenes.Scene, image: scenes.Image, seed: int) -> _Pair:
    rng = np.random.default_rng((seed, 3))
    height, width = (int(side) for side in rng.integers(*_SIDES, size=2, endpoint=True))
    top = int(rng.integers(scenes.SIZE - height, endpoint=True))
    left = int(rng.integers(scenes.SIZE - width, endpoint=True))
    given = image.copy()
    given[top : top + height, left : left + width] = GREY / 255
    return _unprompted(scene, image, seed, given, "inpainting")


def _synthesis(scene: scenes.Scene, image: scenes.Image, seed: int) -> _Pair:
    soft = cv2.GaussianBlur(image, (0, 0), BLUR)
    noise = np.random.default_rng((seed, 4)).normal(0, _BLUR_NOISE, image.shape)
    return _unprompted(scene, image, seed, soft + noise, "synthesis")


def _text(scene: scenes.Scene, image: scenes.Image, seed: int) -> _Pair:
    target = eight_bit(image)
    words = captions.caption_of(scene, seed).text
    return _Pair(np.zeros_like(target), target, words, words, words, "text")


def _unprompted(
    scene: scenes.Scene,
    image: scenes.Image,
    seed: int,
    given: scenes.Image,
    task: str,
) -> _Pair:
    words = captions.caption_of(scene, seed).text
    return _Pair(eight_bit(given), eight_bit(image), "", words, words, task)


_PAIRS: dict[str, Callable[[scenes.Scene, scenes.Image, int], _Pair]] = {
    "edit": _edit,
    "control": _control,
    "restoration": _restoration,
    "inpainting": _inpainting,
    "synthesis": _synthesis,
    "text": _text,
}
"""Pair by task: ``(scene, its rendering, seed) → pair``."""
