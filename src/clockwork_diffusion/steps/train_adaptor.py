"""Train an adaptor on trajectories, and measure it on held-out prompts."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from clockwork_diffusion import provenance, storage
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run


def main(args: Namespace) -> None:
    """Train, measure, save."""
    import torch
    from diffusers import UNet2DConditionModel

    from clockwork_diffusion import adaptors, distillation, loading, trajectories

    spec = parse(distillation.AdaptorSpec, args.spec)
    teacher = storage.sha256_folder(args.model)
    data = trajectories.read_trajectories(args.train, teacher)
    heldout = trajectories.read_trajectories(args.heldout, teacher)
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
        made_for={"teacher": teacher, "steps": data.steps, "clock": spec.clock},
    )
    work = [args.spec, provenance.code_sha256("steps.train_adaptor")]
    work += [storage.sha256(path) for path in args.train]
    trained = distillation.train_adaptor(
        adaptor, data, spec, args.state, device, "\n".join(work)
    )
    # Measure what is saved: the weights in half precision.
    module: Any = trained.module.half().float()
    error = distillation.held_out_error(module, heldout, spec.clock, device)
    storage.write_json(args.error, error.to_json())
    curve = io.StringIO()
    csv.writer(curve).writerows([("step", "loss"), *trained.history])
    storage.write_text(args.curve, curve.getvalue())
    with storage.atomic_path(args.output) as partial:
        module.half().save_pretrained(partial)
        storage.write_checksums(partial)
    args.state.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="AdaptorSpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--train", required=True, nargs="+", type=Path, help="shards")
    parser.add_argument("--heldout", required=True, nargs="+", type=Path, help="shards")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument("--error", required=True, type=Path, help="held-out error")
    parser.add_argument("--curve", required=True, type=Path, help="loss curve, CSV")
    run(parser, main)
