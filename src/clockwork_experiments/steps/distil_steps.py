"""Distil the mini StableSR into one of few steps, and save what differs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import chunks, provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Distil, save, measure."""
    from clockwork_diffusion.stablesr import overlay, pipeline
    from clockwork_experiments.mini import card, few_steps, pairs
    from clockwork_experiments.models import loading

    spec = parse(few_steps.FewStepsSpec, args.spec)
    pipe = loading.load_pipeline(
        args.teacher, loading.default_device(), kind=pipeline.StableSRPipeline
    )

    def make_pairs() -> pairs.Pairs:
        return pairs.scene_pairs("restoration", "train", spec.pairs, spec.offset)

    marks = [args.spec, storage.sha256_folder(args.teacher)]
    marks += [provenance.code_sha256("steps.distil_steps")]
    trained = few_steps.train(spec, pipe, make_pairs, args.state, "\n".join(marks))
    student = trained.module
    assert isinstance(student, few_steps.Student)
    last = [value for _, value in trained.history[-10:]]
    parts = overlay.learned_parts(student.unet, student.structure_encoder)
    count = sum(part.numel() for part in parts.values())
    with storage.atomic_path(args.output) as folder:
        overlay.save_overlay(
            folder, student.unet, student.structure_encoder, args.teacher
        )
        storage.write_checksums(folder)
        held_out = pairs.scene_pairs("restoration", "validation", spec.judged)
        quality = few_steps.measure(folder, args.teacher, spec, held_out)
        card.write_card(
            folder,
            f"Mini StableSR, {len(spec.timesteps)} steps",
            "Restores scenes from a quarter of their resolution in few deterministic "
            "steps. SPADE layers and structure encoder alone: all else is the mini "
            "StableSR's, over which they lie.",
            f"What {spec.reference} deterministic steps of the mini StableSR make of "
            f"{spec.pairs:,} scenes of the training split from number "
            f"{spec.offset:,} on",
            spec,
            trained,
            {
                "parameters in this folder": f"{count:,}",
                "mean of the last training losses": sum(last) / len(last),
                **quality,
            },
        )
    args.state.unlink(missing_ok=True)
    chunks.discard(few_steps.answers_folder(args.state))


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="FewStepsSpec as JSON")
    parser.add_argument("--teacher", required=True, type=Path, help="StableSR folder")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
