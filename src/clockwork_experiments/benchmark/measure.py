"""Measure a method: its images against the teacher's, its FLOPs, its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from clockwork_experiments.base import chunks, storage
from clockwork_experiments.benchmark.method import Given, Method
from clockwork_experiments.benchmark.subject import Subject
from clockwork_experiments.cost import latency
from clockwork_experiments.score import dead

if TYPE_CHECKING:
    from clockwork_experiments.models import encoders

# What only some steps need is imported where it is used: DeepSpeed and open_clip take
# seconds, and there is a job for each method.

Judge = Callable[[torch.Tensor, slice], torch.Tensor]
"""Tells of images, and of which rows they are, how much of each caption is true."""


@dataclass(frozen=True)
class Reference:
    """The teacher's images of many steps, and their features.

    Attributes:
        images: uint8, ``(N, 3, H, W)``.
        features: Of the Fréchet distance's network, ``(N, D)``.
    """

    images: torch.Tensor
    features: torch.Tensor


def sample_reference(
    subject: Subject,
    steps: int,
    batch_size: int,
    frechet: encoders.FrechetEncoder,
    state: Path,
    marks: str,
) -> dict[str, torch.Tensor]:
    """Return the images of many steps of the whole UNet, and their features.

    Raises:
        ValueError: If the images are dead: no method would differ from them.
    """
    from clockwork_experiments.models import encoders

    def draw(rows: slice) -> dict[str, torch.Tensor]:
        images = subject.images(subject.latents(rows, steps), rows)
        features = encoders.frechet_features(frechet, images)
        return {"images": images, "features": features}

    found = chunks.in_chunks(
        len(subject), batch_size, draw, state, marks, "reference images"
    )
    _refuse_dead(found["images"], "reference")
    return found


def _refuse_dead(images: torch.Tensor, name: str) -> None:
    counts = dead.count([images], name)
    dead.refuse({name: counts}, "nothing is compared with them")


def read_reference(path: Path) -> Reference:
    """Read what `sample_reference` made.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    tensors, _ = storage.read_tensors(storage.existing(path))
    return Reference(tensors["images"], tensors["features"])


def measure_images(
    subject: Subject,
    method: Method,
    given: Given,
    reference: Reference,
    frechet: encoders.FrechetEncoder,
    judge: Judge | None,
    batch_size: int,
    seeds: int,
    state: Path,
    marks: str,
) -> dict[str, Any]:
    """Return what a method's images are worth, image by image.

    Returns:
        ``values``: of each image by metric, ``psnr_to_reference`` and, with a judge,
        ``as_captioned`` (a share), all captions once, then again for the next seed;
        ``frechet``: the distance between the method's images and the teacher's of the
        same captions, as a score.

    Raises:
        ValueError: If the method's images are dead, or are not those of the reference.
    """
    from clockwork_experiments.models import encoders
    from clockwork_experiments.score import metrics

    steps, timesteps = method.sampled(given)

    def draw(rows: slice) -> dict[str, torch.Tensor]:
        images = subject.images(subject.latents(rows, steps, timesteps), rows)
        found = {
            "images": images,
            "psnr_to_reference": metrics.psnr(images, reference.images[rows]),
            "features": encoders.frechet_features(frechet, images),
        }
        if judge is not None:
            found["as_captioned"] = judge(images, rows).double()
        return found

    if len(subject) != len(reference.images):
        raise ValueError(
            f"{len(subject)} images and {len(reference.images)} of the reference make "
            "no pairs"
        )
    with method.applied(given):
        found = chunks.in_chunks(
            len(subject), batch_size, draw, state, marks, "a method's images"
        )
    # Kept until here, as chunks of an earlier process count too.
    _refuse_dead(found.pop("images"), "a method's images")
    features = found.pop("features")
    distance = metrics.frechet_score(
        features, metrics.statistics(reference.features), seeds
    )
    return {
        "values": {name: each.tolist() for name, each in found.items()},
        "frechet": asdict(distance),
    }


def count_flops(subject: Subject, method: Method, given: Given) -> dict[str, int]:
    """Return the FLOPs of one image's UNet calls, as they are run.

    ``flops`` leaves out the two products of attention, as Clockwork's own rows do;
    ``flops_with_attention`` has them. Of the identity its light steps are counted as
    the library runs them, with the upsampler's output kept.
    """
    from clockwork_experiments.cost import flops

    steps, timesteps = method.sampled(given)
    modules = [given.pipe.unet]
    if isinstance(given.adaptor, nn.Module):
        modules.append(given.adaptor)
    with method.applied(given):
        counted = flops.count_calls(
            lambda: subject.latents(slice(0, 1), steps, timesteps), *modules
        )
    return {
        "flops": counted.flops,
        "flops_with_attention": counted.flops_with_attention,
    }


def time_method(
    subject: Subject, method: Method, given: Given, steps: int, pairs: int
) -> latency.Overhead:
    """Time one image of a method against one of plain steps, in pairs.

    Without decoder, with the scheduler. Text-to-image has its prompts encoded before;
    translations encode text and input image anew, which both of a pair pay. Of the
    ratio 1 is taken, as `latency.Overhead` says: −0.3 is 30 % less time.
    """
    own, timesteps = method.sampled(given)
    row = slice(0, 1)

    def ours() -> torch.Tensor:
        with method.applied(given):
            return subject.latents(row, own, timesteps)

    return latency.compare(ours, lambda: subject.latents(row, steps), pairs)


def as_captioned(folder: Path, prompts: Sequence[str]) -> Judge:
    """Return a judge of scenes: what share of its caption is true of an image.

    Args:
        folder: The judge's.
        prompts: Captions of the world, all of them, once for each seed or once alone.
    """
    from clockwork_experiments.world import judge as judging
    from clockwork_experiments.world import verdicts

    network = judging.load(folder)

    def judge(images: torch.Tensor, rows: slice) -> torch.Tensor:
        said = [prompts[row % len(prompts)] for row in range(rows.start, rows.stop)]
        return verdicts.judged(network, said, images)["as_captioned"] / 100

    return judge
