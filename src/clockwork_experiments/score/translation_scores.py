"""Compare translated images with what their set tells: captions, and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from clockwork_experiments.data.pair_sets import PairSet
from clockwork_experiments.generate.tasks import PROMPTED
from clockwork_experiments.models import encoders, perceptual
from clockwork_experiments.score import metrics


@dataclass(frozen=True)
class Described:
    """CLIP's features of what a set tells and shows, where the task has them.

    Attributes:
        text: Of what the outputs should show.
        source: Of the inputs' captions; for edits.
        inputs: Of the input images; for edits.
    """

    text: torch.Tensor | None = None
    source: torch.Tensor | None = None
    inputs: torch.Tensor | None = None


def shown_captions(pairs: PairSet) -> Sequence[str]:
    """Return what the outputs should show, one a pair; nothing if no words tell it.

    An instruction shows nothing: edits are told by their captions.
    """
    if pairs.task == "edit":
        return pairs.target_captions
    return pairs.prompts if pairs.task in PROMPTED else ()


def describe(
    pairs: PairSet, clip: encoders.ClipEncoder, inputs: Iterable[torch.Tensor]
) -> Described:
    """Return them, of inputs that come in consecutive parts."""
    texts = [*shown_captions(pairs)]
    if pairs.task == "edit":
        shown = [encoders.clip_image_features(clip, part) for part in inputs]
        return Described(
            encoders.clip_text_features(clip, texts),
            encoders.clip_text_features(clip, list(pairs.source_captions)),
            torch.cat(shown),
        )
    return Described(encoders.clip_text_features(clip, texts)) if texts else Described()


def of_features(
    features: torch.Tensor, described: Described
) -> dict[str, torch.Tensor]:
    """Return the scores that compare output images with what a set tells.

    Args:
        features: CLIP's, of the output images, ``(N, D)``.
        described: Of the set.
    """
    values = {}
    if described.text is not None:
        values["clip"] = metrics.cosines(features, described.text)
    if described.inputs is not None:
        assert described.source is not None and described.text is not None
        values["clip_image"] = metrics.cosines(described.inputs, features)
        values["clip_direction"] = perceptual.direction_cosines(
            described.inputs, features, described.source, described.text
        )
    return values
