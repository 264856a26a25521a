"""Judge pictures of the open world: what they show, and whether it hangs together.

One small network, trained on renderings alone and used for nothing but judging, finds
the objects of a picture and names each from its surroundings, and names ground, hour
and light of the whole. Half of what it learns from are scenes that the world does not
hold: each object lit from a side of its own. So it reads an object's shadow where it
falls, and cannot tell it from the ground's light.

Two questions are then put to a picture: is what its caption says true of it (*as
captioned*), and do its parts agree where no caption has to say so (*agreement*)?
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clockwork_experiments.base import storage
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit_in_stages,
    generator_for,
)
from clockwork_experiments.world import captions, scenes
from clockwork_experiments.world.augment import disturb_mildly
from clockwork_experiments.world.data import Pixels, eight_bit, images_of, to_unit

CELLS = 16
"""Side of the grid on which objects are found."""

_CELL = scenes.SIZE / CELLS
_OBJECT: dict[str, tuple[str, ...]] = {
    **scenes.THING_VALUES,
    "light": tuple(scenes.LIGHTS),
    "hidden": ("no", "yes"),
}
_PICTURE = scenes.SCENE_VALUES
_HIDDEN = 0.97
"""An object of which less can be seen is partly hidden."""
_EDGE = (0.93, 0.995)
"""Of which neither is clear; captions say "behind" only below."""


@dataclass(frozen=True)
class SeenThing:
    """An object that a judge found: attributes by their names, centre in pixels."""

    kind: str
    colour: str
    texture: str
    size: str
    light: str
    hidden: str
    x: float
    y: float


@dataclass(frozen=True)
class Seen:
    """What a judge saw in a picture."""

    things: tuple[SeenThing, ...]
    ground: str
    hour: str
    light: str


class Judge(nn.Module):
    """Find and name objects on a grid, and name ground, hour and light."""

    def __init__(self, width: int) -> None:
        """Build; ``width`` channels at the first level, three times as many inside."""
        super().__init__()
        self.settings = {"width": width}
        inner = 3 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.Conv2d(width, inner, 3, stride=2, padding=1),
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(4, inner),
                nn.ReLU(),
                nn.Conv2d(inner, inner, 3, padding=step, dilation=step),
            )
            for step in (1, 2, 1, 2, 1)
        )
        found = 3 + sum(len(values) for values in _OBJECT.values())
        self.objects = nn.Conv2d(inner, found, 1)
        self.picture = nn.Linear(
            16 * inner, sum(len(values) for values in _PICTURE.values())
        )

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Look at float32 pixels in ``[-1, 1]``, ``(N, 3, 64, 64)``.

        Returns:
            By cell, ``(N, C, 16, 16)``: the logit of a centre, its offset from the
            cell's middle in cells (x, y), and logits of an object's attributes; and
            logits of the picture's, ``(N, D)``.
        """
        x = self.stem(pixels)
        for block in self.blocks:
            x = x + block(x)
        x = functional.relu(x)
        whole = functional.adaptive_avg_pool2d(x, 4).flatten(1)
        return self.objects(x), self.picture(whole)


@dataclass(frozen=True)
class JudgeSpec:
    """Data, size and recipe of the judge.

    Attributes:
        images: Number of training pictures of each stage, half of them lit from many
            sides; every stage sees new ones.
        offset: First training scene, counted within its split.
        width: Channels of the first level.
        stages: The recipes, one after the other; each starts from the average of the
            one before.
    """

    images: int
    offset: int
    width: int
    stages: tuple[Optimisation, ...]


def _scene(seed: int) -> scenes.Scene:
    return scenes.sample_scene(seed, own_lights=seed % 2 == 1)


def _render(seed: int) -> Pixels:
    return eight_bit(scenes.render(_scene(seed)))


def _labels(drawn: Sequence[scenes.Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return objects, ``(N, 3, 8)``, and pictures, ``(N, 3)``.

    An object's row: x and y in cells (-1 where there is none), then class numbers.
    """
    objects = torch.full((len(drawn), 3, 2 + len(_OBJECT)), -1.0)
    pictures = torch.zeros(len(drawn), len(_PICTURE), dtype=torch.long)
    for row, scene in enumerate(drawn):
        shares = scenes.visible_shares(scene)
        for index, (thing, share) in enumerate(zip(scene.things, shares, strict=True)):
            named = {
                **vars(thing),
                "light": thing.light or scene.light,
                "hidden": "yes" if share < _HIDDEN else "no",
            }
            numbers = [values.index(named[name]) for name, values in _OBJECT.items()]
            place = [thing.x / _CELL, thing.y / _CELL]
            objects[row, index] = torch.tensor([*place, *numbers])
        for column, (name, values) in enumerate(_PICTURE.items()):
            pictures[row, column] = values.index(getattr(scene, name))
    return objects, pictures


def judge_loss(
    judge: Judge, pixels: torch.Tensor, objects: torch.Tensor, pictures: torch.Tensor
) -> torch.Tensor:
    """Return the loss of a batch; see `_labels` for objects and pictures."""
    found, whole = judge(pixels)
    losses = []
    start = 0
    for column, values in enumerate(_PICTURE.values()):
        logits = whole[:, start : start + len(values)]
        losses.append(functional.cross_entropy(logits, pictures[:, column]))
        start += len(values)
    row, slot = (objects[:, :, 0] >= 0).nonzero(as_tuple=True)
    there = objects[row, slot]
    cell = there[:, :2].long().clamp(0, CELLS - 1)
    target = torch.zeros_like(found[:, 0])
    weight = torch.ones_like(target)
    for dx, dy in itertools.product((-1, 0, 1), repeat=2):
        across, down = cell[:, 0] + dx, cell[:, 1] + dy
        inside = (across >= 0) & (across < CELLS) & (down >= 0) & (down < CELLS)
        # Next to a centre it does not matter what is said.
        weight[row[inside], down[inside], across[inside]] = 0
    target[row, cell[:, 1], cell[:, 0]] = 1
    weight[row, cell[:, 1], cell[:, 0]] = 8
    centre = functional.binary_cross_entropy_with_logits(
        found[:, 0], target, weight, reduction="sum"
    )
    losses.append(centre / len(there))
    here = found[row, :, cell[:, 1], cell[:, 0]]
    offset = there[:, :2] - cell - 0.5
    losses.append(functional.l1_loss(here[:, 1:3], offset))
    start = 3
    for column, values in enumerate(_OBJECT.values()):
        logits = here[:, start : start + len(values)]
        losses.append(functional.cross_entropy(logits, there[:, 2 + column].long()))
        start += len(values)
    return torch.stack(losses).sum()


def train(spec: JudgeSpec, state: Path, device: torch.device) -> Trained:
    """Train on renderings, mildly disturbed so that it is not brittle."""
    torch.manual_seed(spec.stages[0].seed)

    @cache
    def data(stage: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        offset = spec.offset + stage * spec.images
        seeds = scenes.split_seeds("train", spec.images, offset)
        return images_of(_render, seeds), *_labels([_scene(seed) for seed in seeds])

    def loss_of_step(model: Any, stage: int, step: int) -> torch.Tensor:
        recipe = spec.stages[stage]
        generator = generator_for(recipe.seed, step)
        chosen = torch.randint(spec.images, (recipe.batch_size,), generator=generator)
        images, objects, pictures = (each[chosen] for each in data(stage))
        pixels = disturb_mildly(to_unit(images), generator).to(device)
        return judge_loss(model, pixels, objects.to(device), pictures.to(device))

    return fit_in_stages(
        Judge(spec.width).to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        spec.stages,
        lambda model, index: partial(loss_of_step, model, index),
        state,
        name="judge",
    )


def save(judge: Judge, folder: Path) -> None:
    """Write a judge's weights as fp16 into a folder."""
    storage.write_tensors(
        folder / "model.safetensors",
        {name: value.half().cpu() for name, value in judge.state_dict().items()},
        {name: str(value) for name, value in judge.settings.items()},
    )


def load(folder: Path) -> Judge:
    """Read a judge, float32, in evaluation mode, without gradients.

    Raises:
        ValueError: If the weights are missing, corrupt, or of another network.
    """
    path = folder / "model.safetensors"
    tensors, metadata = storage.read_tensors(path)
    try:
        judge = Judge(int(metadata["width"]))
        judge.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold a judge: {error}") from error
    return judge.eval().requires_grad_(False)


@torch.inference_mode()
def look(judge: Judge, images: torch.Tensor) -> list[Seen]:
    """Say what a judge sees in uint8 images, ``(N, 3, 64, 64)``."""
    device = next(judge.parameters()).device
    seen: list[Seen] = []
    for batch in images.split(256):
        found, whole = (part.float().cpu() for part in judge(to_unit(batch).to(device)))
        peak = functional.max_pool2d(found[:, :1], 3, stride=1, padding=1)[:, 0]
        centres = (found[:, 0] > 0) & (found[:, 0] == peak)
        for row in range(len(batch)):
            things = [
                _thing(found[row, :, line, column], int(column), int(line))
                for line, column in centres[row].nonzero().tolist()
            ]
            named = _names(whole[row], _PICTURE)
            seen.append(Seen(tuple(things), **named))
    return seen


def _names(logits: torch.Tensor, legal: dict[str, tuple[str, ...]]) -> dict[str, str]:
    parts = logits.split([len(values) for values in legal.values()])
    return {
        name: values[int(part.argmax())]
        for part, (name, values) in zip(parts, legal.items(), strict=True)
    }


def _thing(cell: torch.Tensor, column: int, line: int) -> SeenThing:
    x, y = (
        _CELL * (place + 0.5 + float(shift))
        for place, shift in zip((column, line), cell[1:3], strict=True)
    )
    return SeenThing(**_names(cell[3:], _OBJECT), x=x, y=y)


# Is it as captioned?

_PARTS = ("kind", "colour", "texture", "size", "place")
ASKED = (*_PARTS, "relation", "ground", "hour", "light")
"""What a caption may say, in the order of the tables."""

_SLACK = 3.0


def as_captioned(caption: captions.Caption, seen: Seen) -> dict[str, bool]:
    """Tell what of a caption is true of a picture.

    Objects that the caption speaks of are matched to those of the picture such that as
    much as possible is true.

    Returns:
        For each member of `ASKED` that the caption says, whether all of it is true; a
        mentioned object that is not there makes all that is said of it false.
    """
    wanted = [m for m in caption.mentions for _ in range(m.count)]
    slots = list(range(len(seen.things))) + [-1] * len(wanted)
    best: dict[str, bool] = {}
    most = -1.0
    for chosen in set(itertools.permutations(slots, len(wanted))):
        things = [seen.things[i] if i >= 0 else None for i in chosen]
        answers = [
            (name, thing is not None and _true_of(thing, name, value))
            for mention, thing in zip(wanted, things, strict=True)
            for name, value in _said(mention)
        ]
        right = float(sum(true for _, true in answers))
        verdict = {
            part: all(true for name, true in answers if name == part)
            for part in _PARTS
            if any(name == part for name, _ in answers)
        }
        if caption.relation is not None:
            second = caption.mentions[0].count
            verdict["relation"] = _related(caption.relation, things[0], things[second])
            right += 0.5 * verdict["relation"]
        if right > most:
            best, most = verdict, right
    for name in ("ground", "hour", "light"):
        said = getattr(caption, name)
        if said is not None:
            best[name] = said == getattr(seen, name)
    return best


def _said(mention: captions.Mention) -> list[tuple[str, str]]:
    named = [(name, getattr(mention, name)) for name in _PARTS]
    return [(name, value) for name, value in named if value is not None]


def _true_of(thing: SeenThing, name: str, value: str) -> bool:
    if name != "place":
        return bool(getattr(thing, name) == value)
    if value == "middle":
        return abs(thing.x - 32) < 8 and abs(thing.y - 32) < 8
    x, y = thing.x, thing.y
    near = {
        "left": x < 24 + _SLACK,
        "right": x > 40 - _SLACK,
        "top": y < 24 + _SLACK,
        "bottom": y > 40 - _SLACK,
    }
    return all(near[word] for word in value.split())


def _related(relation: str, one: SeenThing | None, other: SeenThing | None) -> bool:
    if one is None or other is None:
        return False
    dx, dy = one.x - other.x, one.y - other.y
    touching = np.hypot(dx, dy) < 32
    return bool(
        {
            "left of": dx < -_SLACK,
            "right of": dx > _SLACK,
            "above": dy < -_SLACK,
            "below": dy > _SLACK,
            "behind": touching and one.hidden == "yes" and other.hidden == "no",
            "in front of": touching and one.hidden == "no" and other.hidden == "yes",
            "same colour": one.colour == other.colour,
        }[relation]
    )


# Does it hang together?


@dataclass(frozen=True)
class Agreement:
    """What only the whole picture decides, counted over pictures.

    Attributes:
        shadows: Of each object, whether its shadow falls away from the ground's light.
        twins: Of each two objects of one kind, whether colour, texture and size match.
        pictures: How many pictures the shadows are in, and the twins.
    """

    shadows: tuple[bool, ...]
    twins: tuple[bool, ...]
    pictures: tuple[int, int]


def agreement(seen: Sequence[Seen]) -> Agreement:
    """Count where the parts of pictures agree."""
    shadows = [
        [thing.light == picture.light for thing in picture.things] for picture in seen
    ]
    twins = [
        [
            _look(one) == _look(other)
            for one, other in itertools.combinations(picture.things, 2)
            if one.kind == other.kind
        ]
        for picture in seen
    ]
    return Agreement(
        tuple(itertools.chain(*shadows)),
        tuple(itertools.chain(*twins)),
        (sum(map(bool, shadows)), sum(map(bool, twins))),
    )


def chance(seen: Sequence[Seen]) -> tuple[float, float]:
    """Return how often shadows and twins would agree if pictures decided nothing.

    Each object is compared with another picture's light, and with other pictures'
    objects of its kind.
    """
    lights = [picture.light for picture in seen]
    things = [thing for picture in seen for thing in picture.things]
    owners = [i for i, picture in enumerate(seen) for _ in picture.things]
    shadows = [
        thing.light == light
        for thing, owner in zip(things, owners, strict=True)
        for i, light in enumerate(lights)
        if i != owner
    ]
    twins = [
        _look(one) == _look(other)
        for (one, i), (other, j) in itertools.combinations(
            zip(things, owners, strict=True), 2
        )
        if i != j and one.kind == other.kind
    ]
    return (
        float(np.mean(shadows)) if shadows else 0.0,
        float(np.mean(twins)) if twins else 0.0,
    )


def _look(thing: SeenThing) -> tuple[str, str, str]:
    return thing.colour, thing.texture, thing.size


def truth(scene: scenes.Scene) -> Seen:
    """Return what a faultless judge would see in a scene's rendering."""
    shares = scenes.visible_shares(scene)
    things = tuple(
        SeenThing(
            thing.kind,
            thing.colour,
            thing.texture,
            thing.size,
            thing.light or scene.light,
            "yes" if share < _HIDDEN else "no",
            thing.x,
            thing.y,
        )
        for thing, share in zip(scene.things, shares, strict=True)
    )
    return Seen(things, scene.ground, scene.hour, scene.light)


def measure(judge: Judge, count: int) -> dict[str, float]:
    """Return how often a judge is right about validation renderings.

    Half of them are lit from many sides. An attribute is right in a picture if it is of
    every object, each matched to the nearest that was found; ``objects`` tells whether
    as many were found as there are. Objects of which just an edge is hidden are not
    asked whether they are.
    """
    seeds = scenes.split_seeds("validation", count)
    pictures = look(judge, images_of(_render, seeds))
    right: dict[str, list[bool]] = {}
    for seed, seen in zip(seeds, pictures, strict=True):
        true = truth(_scene(seed))
        same = len(seen.things) == len(true.things)
        right.setdefault("objects", []).append(same)
        for name in _PICTURE:
            here = getattr(seen, name) == getattr(true, name)
            right.setdefault(f"the picture's {name}", []).append(here)
        pairs = [
            (one, min(seen.things, key=partial(_apart, one), default=None))
            for one in true.things
        ]
        clear = [
            not _EDGE[0] < share < _EDGE[1]
            for share in scenes.visible_shares(_scene(seed))
        ]
        for name in _OBJECT:
            right.setdefault(name, []).append(
                all(
                    found is not None and getattr(found, name) == getattr(one, name)
                    for (one, found), asked in zip(pairs, clear, strict=True)
                    if asked or name != "hidden"
                )
            )
    return {name: sum(values) / len(values) for name, values in right.items()}


def _apart(one: SeenThing, other: SeenThing) -> float:
    return float(np.hypot(one.x - other.x, one.y - other.y))
