"""Train an adaptor on trajectories, and measure it on held-out prompts."""

from __future__ import annotations

import csv
import io
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clockwork_diffusion import datasets, provenance, storage
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    import torch
    from diffusers import UNet2DConditionModel

    from clockwork_diffusion import adaptors, distillation, loading, trajectories

    spec = parse(distillation.AdaptorSpec, args.spec)
    prompts = None if args.prompts is None else datasets.read_prompts(args.prompts)
    teacher = storage.sha256_folder(args.model)
    data = trajectories.read_trajectories(args.train, teacher)
    heldout = trajectories.read_trajectories(args.heldout, teacher)
    scheduler = _scheduler([*args.train, *args.heldout], spec.cut)
    device = loading.default_device()
    # Only its sizes are needed, not its weights.
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            UNet2DConditionModel.load_config(args.model / "unet")
        )
    torch.manual_seed(spec.optimisation.seed)
    adaptor = adaptors.build_adaptor(
        spec.kind,
        unet,
        spec.cut,
        data.pooled.shape[-1],
        made_for=spec.made_for(teacher, scheduler, data.steps),
        inputs=spec.inputs,
    )
    work = [args.spec, provenance.code_sha256("steps.train_adaptor")]
    work += [storage.sha256(path) for path in args.train]
    trained = distillation.train_adaptor(
        adaptor, data, spec, args.state, device, "\n".join(work), prompts
    )
    # Measure what is saved: the weights in half precision.
    module: Any = trained.module.half().float()
    error = distillation.held_out_error(module, heldout, spec.schedule, device)
    storage.write_json(args.error, error.to_json())
    curve = io.StringIO()
    csv.writer(curve).writerows([("step", "loss"), *trained.history])
    storage.write_text(args.curve, curve.getvalue())
    with storage.atomic_path(args.output) as partial:
        module.half().save_pretrained(partial)
        storage.write_checksums(partial)
    args.state.unlink(missing_ok=True)


def _scheduler(shards: Sequence[Path], cut: str) -> str:
    """Return the scheduler that shards of trajectories were sampled with.

    Raises:
        ValueError: If a shard does not say, or was recorded at another cut or with
            another scheduler than the first; the message names it.
    """
    from safetensors import safe_open

    schedulers = {}
    for path in shards:
        with safe_open(str(path), framework="pt") as file:
            recorded = json.loads((file.metadata() or {}).get("spec", "{}"))
        if "sampler" not in recorded or "cut" not in recorded:
            raise ValueError(f"{path} does not say how its trajectories were sampled")
        if recorded["cut"] != cut:
            raise ValueError(
                f"{path} was recorded at cut {recorded['cut']!r}, not at {cut!r}"
            )
        schedulers[path] = recorded["sampler"]["scheduler"]
        if schedulers[path] != schedulers[shards[0]]:
            raise ValueError(
                f"{path} was sampled with {schedulers[path]!r}, "
                f"and {shards[0]} with {schedulers[shards[0]]!r}"
            )
    return str(schedulers[shards[0]])


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="AdaptorSpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--train", required=True, nargs="+", type=Path, help="shards")
    parser.add_argument("--heldout", required=True, nargs="+", type=Path, help="shards")
    parser.add_argument(
        "--prompts", type=Path, help="prompts of the training shards, for messages"
    )
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--error", required=True, type=Path, help="held-out error")
    parser.add_argument("--curve", required=True, type=Path, help="loss curve, CSV")
    run(parser, main)
