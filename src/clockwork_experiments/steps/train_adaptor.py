"""Train an adaptor on trajectories, and measure it on held-out prompts."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.random import marks
from clockwork_experiments.run import new_parser, run

if TYPE_CHECKING:
    import torch

    from clockwork_experiments.train.trajectories import (
        FreshTrajectories,
        TrajectorySpec,
    )


def main(args: Namespace) -> None:
    """Train, measure, save."""
    import torch
    from diffusers import UNet2DConditionModel

    from clockwork_diffusion import adaptor_error, adaptors
    from clockwork_diffusion.unet import SplitUNet
    from clockwork_experiments.models import loading
    from clockwork_experiments.train import distillation, training, trajectories

    spec = parse(distillation.AdaptorSpec, args.spec)
    crew, device = training.join_crew()
    device = device or loading.default_device()
    if crew.rank:
        # The first process speaks for all.
        logging.getLogger().handlers = [logging.NullHandler()]
    prompts = None if args.prompts is None else datasets.read_prompts(args.prompts)
    teacher = storage.sha256_folder(args.model)
    load = cache(partial(loading.load_pipeline, args.model, device))

    def split() -> SplitUNet:
        return SplitUNet(load().unet, spec.cut)

    work = [args.spec, provenance.code_sha256("steps.train_adaptor")]
    data: trajectories.Recorded | FreshTrajectories
    also = sorted(args.also or [])
    by_folder = itertools.groupby(also, key=lambda path: path.parent)
    others = [
        trajectories.read_trajectories(list(paths), teacher, split)
        for _, paths in by_folder
    ]
    if args.unroll is None:
        data = trajectories.read_trajectories(args.train, teacher, split)
        scheduler, loop = _loop([*args.train, *also, *args.heldout], spec.cut)
        work += [storage.sha256(path) for path in [*args.train, *also]]
    else:
        recorded = parse(trajectories.TrajectorySpec, args.unroll, "unroll")
        data, made_of = _fresh(args, recorded, spec.subset, teacher, load, device)
        scheduler, loop = _loop(args.heldout, spec.cut, recorded)
        work += made_of
    heldout = trajectories.read_trajectories(args.heldout, teacher, split)
    assert heldout.pooled is not None
    # Only its sizes are needed, not its weights.
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(args.model / "unet")
        )
    more: dict[str, Any] = {"rank": spec.rank} if spec.rank else {}
    torch.manual_seed(spec.optimisation.seed)
    adaptor = adaptors.build_adaptor(
        spec.kind,
        unet,
        spec.cut,
        heldout.pooled.shape[-1],
        made_for=spec.made_for(
            teacher, scheduler, data.steps, loop, [each.steps for each in others]
        ),
        inputs=spec.inputs,
        **more,
    )
    trained = distillation.train_adaptor(
        *(adaptor, data, spec, args.state, device, "\n".join(work)),
        prompts,
        crew,
        others,
    )
    if crew.rank:
        return
    # Measure what is saved: the weights in half precision.
    module: Any = trained.module.half().float()
    error = adaptor_error.held_out_error(module, heldout, spec.schedule, device)
    measured: dict[str, Any] = error.to_json()
    for clock in spec.also_clocks:
        error = adaptor_error.held_out_error(module, heldout, clock, device)
        measured.setdefault("also_clocks", {})[str(clock)] = error.to_json()
    marked = marks.mark([args.model])
    storage.write_json(args.error, {**measured, **marked})
    storage.write_text(args.curve, _curve(trained, spec.optimisation))
    with storage.atomic_path(args.output) as folder:
        module.half().save_pretrained(folder)
        storage.write_checksums(folder)
    args.state.unlink(missing_ok=True)


def _curve(trained: Any, optimisation: Any) -> str:
    """Return the loss curve as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("step", "loss", "lr", "seconds"))
    for (step, loss), seconds in zip(trained.history, trained.times, strict=True):
        writer.writerow((step, loss, optimisation.lr_at(step), round(seconds, 3)))
    return text.getvalue()


def _fresh(
    args: Namespace,
    recorded: TrajectorySpec,
    subset: int,
    teacher: str,
    load: Callable[[], Any],
    device: torch.device,
) -> tuple[FreshTrajectories, list[str]]:
    """Return trajectories to be recorded in each epoch, and what they are made of.

    Raises:
        ValueError: If their prompts or images are missing.
    """
    from clockwork_diffusion import encoding
    from clockwork_experiments.models import encoders
    from clockwork_experiments.train import trajectories

    if args.prompts is None or args.clip is None:
        raise ValueError("fresh trajectories need prompts and the CLIP that pools them")
    pipe, clip = load(), encoders.load_clip(args.clip, device)
    prompts = datasets.read_prompts(args.prompts)
    made_of = [args.unroll, clip.sha256, teacher, storage.sha256(args.prompts)]
    clean: Callable[[torch.Tensor], torch.Tensor] | None = None
    if recorded.source in trajectories.OF_IMAGES:
        if args.images is None:
            raise ValueError(
                f"source {recorded.source!r} needs the images of the prompts"
            )
        made_of += [storage.sha256(path) for path in args.images]
        images, vae = args.images, pipe.vae

        def clean(rows: torch.Tensor) -> torch.Tensor:
            return encoding.encode_images(vae, _images(images, rows, len(prompts)))

    fresh = trajectories.FreshTrajectories(
        pipe,
        lambda texts: encoding.encode_prompts(
            pipe, texts, lambda more: encoders.clip_text_features(clip, list(more))
        ),
        prompts,
        recorded,
        subset,
        clean,
    )
    return fresh, made_of


def _images(shards: Sequence[Path], rows: torch.Tensor, count: int) -> torch.Tensor:
    """Read some images of a set's shards, and no others."""
    import torch
    from safetensors import safe_open

    ranges = [
        datasets.shard_rows(count, shard, len(shards)) for shard in range(len(shards))
    ]
    images = []
    for row in rows.tolist():
        (shard,) = (index for index, held in enumerate(ranges) if row in held)
        with safe_open(str(shards[shard]), framework="pt") as file:
            place = row - ranges[shard].start
            images.append(file.get_slice("images")[place : place + 1])
    return torch.cat(images)


def _loop(
    shards: Sequence[Path], cut: str, recorded: TrajectorySpec | None = None
) -> tuple[str, str]:
    """Return the scheduler of trajectories, and the loop whose steps they are.

    Args:
        shards: Their shards.
        cut: Where the adaptor works.
        recorded: The trajectories that have no shards, if there are such.

    Raises:
        ValueError: If a shard does not say, or was recorded at another cut, or with
            another scheduler or in another loop than the first; the message names it.
    """
    from safetensors import safe_open

    from clockwork_experiments.train.trajectories import loop_of

    loops: dict[Path | str, tuple[str, str]] = {}
    if recorded is not None:
        if recorded.cut != cut:
            raise ValueError(
                f"the trajectories are of cut {recorded.cut!r}, not of {cut!r}"
            )
        loops["the epochs' trajectories"] = (
            recorded.sampler.scheduler,
            loop_of(recorded.source),
        )
    for path in shards:
        with safe_open(str(path), framework="pt") as file:
            known = json.loads((file.metadata() or {}).get("spec", "{}"))
        if "sampler" not in known or "cut" not in known:
            raise ValueError(f"{path} does not say how its trajectories were sampled")
        if known["cut"] != cut:
            raise ValueError(
                f"{path} was recorded at cut {known['cut']!r}, not at {cut!r}"
            )
        loops[path] = (
            known["sampler"]["scheduler"],
            loop_of(known.get("source", "unroll")),
        )
        first, (scheduler, loop) = next(iter(loops.items()))
        if loops[path][0] != scheduler:
            raise ValueError(
                f"{path} was sampled with {loops[path][0]!r}, "
                f"and {first} with {scheduler!r}"
            )
        if loops[path][1] != loop:
            raise ValueError(
                f"{path} was recorded in {loops[path][1]}, and {first} in {loop}"
            )
    return next(iter(loops.values()))


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="AdaptorSpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--train", nargs="+", type=Path, help="shards")
    parser.add_argument(
        "--also", nargs="+", type=Path, help="shards of further numbers of steps"
    )
    source.add_argument(
        "--unroll", help="TrajectorySpec as JSON: record trajectories for each epoch"
    )
    parser.add_argument("--clip", type=Path, help="open_clip folder, to unroll")
    parser.add_argument("--images", nargs="+", type=Path, help="shards, if needed")
    parser.add_argument("--heldout", required=True, nargs="+", type=Path, help="shards")
    parser.add_argument(
        "--prompts", type=Path, help="training prompts: for messages, or to unroll"
    )
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--error", required=True, type=Path, help="held-out error")
    parser.add_argument("--curve", required=True, type=Path, help="loss curve, CSV")
    run(parser, main)
