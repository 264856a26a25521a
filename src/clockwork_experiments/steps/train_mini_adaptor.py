"""Train an adaptor of a mini model as a user does, to be shipped beside it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


@dataclass(frozen=True)
class MiniAdaptorSpec:
    """What to train, with DPM-Solver++ and captions of the training split.

    Attributes:
        captions: How many.
        steps: Sampling steps.
        clock: The clock.
        guidance_scale: Guidance of the teacher.
        updates: Updates of the weights.
        batch_size: Samples per update.
    """

    captions: int
    steps: int
    clock: int
    guidance_scale: float
    updates: int
    batch_size: int


def main(args: Namespace) -> None:
    """Train with the library's own call; an unfinished training goes on."""
    from clockwork_diffusion.adaptor_training import train_adaptor
    from clockwork_diffusion.schedulers import new_scheduler
    from clockwork_experiments.mini import scenes
    from clockwork_experiments.models import loading

    spec = parse(MiniAdaptorSpec, args.spec)
    pipe = loading.load_pipeline(args.model.parent, loading.default_device())
    pipe.scheduler = new_scheduler("dpmpp", pipe.scheduler.config, spec.steps)
    train_adaptor(
        pipe,
        scenes.captions("train", spec.captions),
        args.output,
        steps=spec.steps,
        clock=spec.clock,
        guidance_scale=spec.guidance_scale,
        updates=spec.updates,
        batch_size=spec.batch_size,
        captions_at_once=8,
    )
    storage.write_checksums(args.output)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="MiniAdaptorSpec as JSON")
    parser.add_argument(
        "--model", required=True, type=Path, help="checksums in the pipeline's folder"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
