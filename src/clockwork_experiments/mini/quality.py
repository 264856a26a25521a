"""Tell whether generated scenes show what their captions ask for: the teacher's bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from clockwork_experiments.mini import scenes
from clockwork_experiments.models.mini import Classifier
from clockwork_experiments.score.metrics import Score, share_score

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(scenes.SHAPES),
    "colour": tuple(scenes.COLOURS),
    "texture": scenes.TEXTURES,
    "size": tuple(scenes.SIZES),
    "position": tuple(scenes.POSITIONS),
    "background": tuple(scenes.BACKGROUNDS),
}
"""What the classifier names, in the order of its heads, and the legal values."""


@dataclass(frozen=True)
class SceneSet:
    """Scenes of a split.

    Attributes:
        split: A key of `scenes.SPLITS`.
        count: Number of scenes.
        offset: First scene, counted within the split.
    """

    split: str
    count: int
    offset: int = 0


def scene_labels(split: str, count: int, offset: int = 0) -> torch.Tensor:
    """Return the attributes of a split's scenes as class numbers.

    Returns:
        int64, ``(count, 6)``, columns as in `ATTRIBUTES`.
    """
    rows = []
    for seed in scenes.split_seeds(split, count, offset):
        scene = scenes.sample_scene(seed)
        (item,) = scene.objects
        named = {**vars(item), "background": scene.background}
        rows.append([values.index(named[name]) for name, values in ATTRIBUTES.items()])
    return torch.tensor(rows)


@torch.inference_mode()
def recognise(classifier: Classifier, images: torch.Tensor) -> torch.Tensor:
    """Return the class numbers that the classifier sees, ``(N, 6)``.

    Args:
        classifier: The mini classifier.
        images: uint8, ``(N, 3, 64, 64)``.

    Raises:
        ValueError: If the images have another type or shape.
    """
    if images.dtype != torch.uint8 or images.shape[1:] != (3, scenes.SIZE, scenes.SIZE):
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}, "
            f"not uint8 (N, 3, {scenes.SIZE}, {scenes.SIZE})"
        )
    device = next(classifier.parameters()).device
    parts = []
    for batch in images.split(256):
        logits = classifier((batch.float() / 127.5 - 1).to(device))
        parts.append(torch.stack([scores.argmax(1) for scores in logits], 1).cpu())
    return torch.cat(parts)


def shares_recognised(
    classifier: Classifier, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, Score]:
    """Return the share of images that show the right value, by attribute.

    The key ``all`` counts the images in which every attribute is right.

    Args:
        classifier: The mini classifier.
        images: uint8, ``(N, 3, 64, 64)``.
        labels: What they should show, from `scene_labels`.

    Raises:
        ValueError: If there is not one row of labels per image.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images do not match {len(labels)} scenes")
    right = recognise(classifier, images) == labels
    shares = {name: share_score(right[:, i]) for i, name in enumerate(ATTRIBUTES)}
    return {**shares, "all": share_score(right.all(dim=1))}


def to_markdown(
    title: str, images: Mapping[str, Score], renderings: Mapping[str, Score]
) -> str:
    """Return shares recognised as a table, in percent.

    Args:
        title: Its heading.
        images: Shares of generated images by attribute.
        renderings: Shares of renderings of the same scenes.
    """

    def percent(score: Score) -> str:
        low, high = 100 * score.low, 100 * score.high
        return f"{100 * score.value:.1f} [{low:.1f}, {high:.1f}]"

    count = next(iter(images.values())).n
    lines = [
        f"| {n} | {percent(images[n])} | {percent(renderings[n])} |" for n in images
    ]
    head = "| recognised as captioned, % | generated | renderings |\n|:--|--:|--:|"
    note = (
        f"A classifier of renderings names what it sees in {count} images; intervals: "
        "95 %. What it gets right of renderings bounds what it can credit."
    )
    return "\n".join([f"**{title}**", "", head, *lines, "", note, ""])
