"""Train an adaptor on trajectories, and measure it on held-out prompts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.random import marks
from clockwork_experiments.run import run

if TYPE_CHECKING:
    from clockwork_diffusion.trajectories import Recorded


def train_adaptor(
    spec: str,
    model: Path,
    heldout: list[Path],
    state: Path,
    output: Path,
    error: Path,
    curve: Path,
    train: Sequence[Path] = (),
    also: Sequence[Path] = (),
    unroll: str | None = None,
    prompts: Path | None = None,
    clip: Path | None = None,
    images: Sequence[Path] = (),
) -> None:
    """Train, measure, save.

    Args:
        spec: An `AdaptorSpec` as JSON.
        model: Pipeline folder.
        heldout: Shards of trajectories to measure on.
        state: Resumable state.
        output: Folder to write.
        error: Held-out error to write, JSON.
        curve: Loss curve to write, CSV.
        train: Shards of trajectories.
        also: Shards of further numbers of steps.
        unroll: Instead of shards a `TrajectorySpec` as JSON: record trajectories for
            each epoch.
        prompts: Training prompts: for messages, or to unroll.
        clip: Folder of open_clip, to unroll.
        images: Shards of the prompts' images, if needed.
    """
    if bool(train) == (unroll is not None):
        raise ValueError("give either trajectories to train on, or how to record them")

    import torch
    from diffusers import UNet2DConditionModel

    from clockwork_experiments.models import loading
    from clockwork_experiments.train import distillation, lessons, training

    chosen = parse(distillation.AdaptorSpec, spec)
    crew, device = training.join_crew()
    device = device or loading.default_device()
    if crew.rank:
        # The first process speaks for all.
        logging.getLogger().handlers = [logging.NullHandler()]
    listed = None if prompts is None else datasets.read_prompts(prompts)
    teacher = lessons.Teacher(model, chosen.cut, device)
    others = teacher.read_each(also)
    data: Recorded | lessons.FreshTrajectories
    if unroll is None:
        data, read = teacher.read(train), [*train, *sorted(also)]
        sampled = lessons.sampled_by([*read, *heldout], chosen.cut)
        made_of = [storage.sha256(path) for path in read]
    else:
        recorded = parse(lessons.TrajectorySpec, unroll, "unroll")
        data, made_of = teacher.fresh(recorded, prompts, clip, images, chosen.subset)
        sampled = lessons.sampled_by(heldout, chosen.cut, recorded)
        made_of.append(unroll)
    measured_on = teacher.read(heldout)
    assert measured_on.pooled is not None
    width = measured_on.pooled.shape[-1]
    # Only its sizes are needed, not its weights.
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(model / "unet")
        )
    steps = [each.steps for each in others]
    facts = (teacher.sha256, sampled.scheduler, data.steps, sampled.loop, steps)
    made_for = chosen.made_for(*facts)
    adaptor = distillation.new_adaptor(chosen, unet, width, made_for)
    code = provenance.code_sha256("steps.train_adaptor")
    work = "\n".join([spec, code, *made_of])
    trained = distillation.train_adaptor(
        adaptor, data, chosen, state, device, work, listed, crew, others
    )
    if crew.rank:
        return
    # Measure what is saved: the weights in half precision.
    module: Any = trained.module.half().float()
    errors = distillation.held_out_errors(module, measured_on, chosen, device)
    storage.write_json(error, {**errors, **marks.mark([model])})
    storage.write_text(curve, trained.curve(chosen.optimisation))
    with storage.atomic_path(output) as folder:
        module.half().save_pretrained(folder)
        storage.write_checksums(folder)
    state.unlink(missing_ok=True)


if __name__ == "__main__":
    run(train_adaptor)
