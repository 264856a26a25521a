"""Translate one shard of a set of pairs, with the whole UNet or some levels of it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets, pair_sets
from clockwork_experiments.random.marks import notes
from clockwork_experiments.run import new_parser, run
from clockwork_experiments.search.answers import answer_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TranslateSpec:
    """How a set is translated.

    Attributes:
        translation: A `generate.translate.TranslationSpec`, as plain data.
        seed: Seed of the run; pair *i* starts from the same noise in every run of it.
        batch_size: Pairs per batch; has no influence on the images.
        level: The deepest level of the UNet to keep (depth-skip); all if left out.
        cut: Where the UNet is split, with a clock.
        kind: Kind of an adaptor without weights, which has no file.
    """

    translation: dict[str, object]
    seed: int
    batch_size: int
    level: int | None = None
    cut: str = "stage1"
    kind: str = ""

    def __post_init__(self) -> None:
        """Reject batches of nothing."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} is less than 1")


def main(args: Namespace) -> None:
    """Translate batch by batch; batches of a killed run are kept."""
    spec = parse(TranslateSpec, args.spec)
    pairs = pair_sets.read_set(args.set)
    rows = datasets.shard_rows(len(pairs), args.shard, args.shards)
    stored, _ = pair_sets.image_rows(args.images, pairs)
    inputs = stored[rows.start : rows.stop]

    from clockwork_diffusion import depth_skip, tokens
    from clockwork_diffusion.clock import Clock
    from clockwork_experiments.base import chunks
    from clockwork_experiments.generate import runs, text, translators
    from clockwork_experiments.generate.translate import TranslationSpec
    from clockwork_experiments.models import loading

    chosen = parse(TranslationSpec, spec.translation, "spec.translation")
    if chosen.task != pairs.task:
        raise ValueError(f"{args.set} is for {pairs.task}, not for {chosen.task}")
    if args.searched is not None:
        name = args.searched.stem
        found = {name: storage.read_json(storage.existing(args.searched))}
        answer = answer_of(found, name, chosen.steps, args.method)
        chosen = replace(chosen, timesteps=tuple(answer["timesteps"]))
    device = loading.default_device()
    translator = translators.load_translator(
        chosen.task, args.translator, args.model, device
    )
    marks = [
        args.spec,
        str(chosen.visited),
        str(rows),
        storage.sha256(args.set),
        storage.sha256(args.images),
    ]
    marks += [storage.sha256_folder(args.translator)]
    marks += [storage.sha256_folder(args.model)] if args.model is not None else []
    marks += [provenance.code_sha256("steps.translate_images")]
    if spec.level is not None:
        # Not as something to undo: what is left out leaves the memory.
        pipe = translator.pipe
        pipe.unet = depth_skip.depth_skip(pipe.unet, spec.level)
    adaptor = None
    if spec.kind:
        adaptor = runs.load_passes(
            translator.pipe,
            args.translator,
            spec.cut,
            scheduler=chosen.scheduler,
            steps=chosen.steps,
            kind=spec.kind,
        ).passes.adaptor
    prompts = pairs.prompts[rows.start : rows.stop]
    tokens.count_lost(translator.pipe.tokenizer, prompts)

    def translate(part: slice) -> dict[str, torch.Tensor]:
        seeds = [
            text.image_seed(spec.seed, rows.start + index)
            for index in range(part.start, part.stop)
        ]
        latents = translator.translate(inputs[part], prompts[part], seeds, chosen)
        return {"images": translator.decode(latents, inputs[part])}

    with runs.applied(translator.pipe, Clock(chosen.clock), adaptor):
        tensors = chunks.in_chunks(
            len(rows),
            spec.batch_size,
            translate,
            args.state,
            "\n".join(marks),
            "translations",
            lambda row: text.described(prompts[row], spec.seed, rows.start + row),
        )
    marked = notes([args.translator, args.model])
    storage.write_tensors(args.output, tensors, {"spec": args.spec, **marked})
    chunks.discard(args.state)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="TranslateSpec as JSON")
    parser.add_argument(
        "--translator", required=True, type=Path, help="the model's folder"
    )
    parser.add_argument(
        "--model",
        type=Path,
        help="pipeline folder that a ControlNet controls, or a restorer lies over",
    )
    parser.add_argument("--set", required=True, type=Path, help="prepared set, JSON")
    parser.add_argument(
        "--images", required=True, type=Path, help="its images, safetensors"
    )
    parser.add_argument(
        "--searched", type=Path, help="a search's result, for its time steps"
    )
    parser.add_argument("--method", help="method that found them")
    parser.add_argument("--shard", default=0, type=int, help="index from 0")
    parser.add_argument("--shards", default=1, type=int, help="number of shards")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="images to write")
    run(parser, main)
