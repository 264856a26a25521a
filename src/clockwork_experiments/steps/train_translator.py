"""Train a mini translator from the mini teacher, and save it as diffusers does."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.run import new_parser, run

TITLES = {
    "edit": (
        "Mini InstructPix2Pix",
        "Edits scenes by instructions; a diffusers InstructPix2Pix pipeline.",
    ),
    "inpainting": (
        "Mini inpainting",
        "Fills in what is masked; InstructPix2Pix's pipeline, with the empty prompt.",
    ),
    "synthesis": (
        "Mini high-frequency synthesis",
        "Adds the detail that the mini restoration net leaves out; InstructPix2Pix's "
        "pipeline, with the empty prompt.",
    ),
    "control": (
        "Mini ControlNet",
        "Draws scenes along Canny edges (100, 200), beside the mini Stable Diffusion.",
    ),
    "restoration": (
        "Mini StableSR",
        "Restores scenes from a quarter of their resolution.",
    ),
}


def main(args: Namespace) -> None:
    """Train, save."""
    from clockwork_experiments.mini import card, cfw, pairs, restorer, translators
    from clockwork_experiments.models import loading, mini

    spec = parse(translators.TranslatorSpec, args.spec)
    restore = None
    if args.restorer is not None:
        network = mini.load(mini.Restorer, args.restorer)
        restore = partial(restorer.restore, network)
    pipe = loading.load_pipeline(args.teacher, loading.default_device())

    def make_pairs() -> pairs.Pairs:
        return pairs.scene_pairs(spec.task, "train", spec.pairs, spec.offset, restore)

    marks = [args.spec, storage.sha256_folder(args.teacher)]
    marks += [provenance.code_sha256("steps.train_translator")]
    if args.restorer is not None:
        marks.append(storage.sha256_folder(args.restorer))
    work = "\n".join(marks)
    trained = translators.train(spec, pipe, make_pairs, args.state, work=work)
    made = translators.assemble(trained.module, pipe)
    if spec.parts is not None:
        fuse_state = args.state.with_suffix(".fuse.pt")
        fused = cfw.train(spec.parts.fuse, made, make_pairs(), fuse_state, work)
        made.register_modules(vae=fused.module)
    held_out = pairs.scene_pairs(spec.task, "validation", spec.judged, 0, restore)
    last = [value for _, value in trained.history[-10:]]
    title, what = TITLES[spec.task]
    with storage.atomic_path(args.output) as folder:
        translators.save(made, folder)
        storage.write_checksums(folder)
        quality = translators.measure(folder, args.teacher, spec, held_out)
        card.write_card(
            folder,
            title,
            what,
            f"{spec.pairs:,} pairs of scenes of the training split from number "
            f"{spec.offset:,} on",
            spec,
            trained,
            {"mean of the last training losses": sum(last) / len(last), **quality},
        )
    for suffix in (".pt", ".text.pt", ".fuse.pt"):
        args.state.with_suffix(suffix).unlink(missing_ok=True)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="TranslatorSpec as JSON")
    parser.add_argument("--teacher", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--restorer", type=Path, help="its folder; for synthesis")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
