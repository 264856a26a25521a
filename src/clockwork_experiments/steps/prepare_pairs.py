"""Prepare a set of pairs to translate, from scenes or from a folder."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import pair_sets, shards
from clockwork_experiments.data.pair_sets import PairSet, PairSetSpec
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Check the whole list before an image is opened; write the images first."""
    spec = parse(PairSetSpec, args.spec)
    images, notes = args.output.with_suffix(".safetensors"), {"spec": args.spec}
    if spec.source == "folder":
        listed = pair_sets.read_list(spec)
        pairs = listed.pairs
        shards.write_rows(images, pair_sets.picture_parts(listed, spec), notes)
    else:
        from clockwork_experiments.mini import restorer, scenes
        from clockwork_experiments.mini.pairs import scene_pairs
        from clockwork_experiments.models import mini

        restore = None
        if spec.restorer:
            network = mini.load(mini.Restorer, Path(spec.restorer))
            restore = partial(restorer.restore, network)
            notes["restorer_sha256"] = storage.sha256_folder(Path(spec.restorer))
        made = scene_pairs(spec.task, spec.split, spec.count, spec.offset, restore)
        seeds = scenes.split_seeds(spec.split, spec.count, spec.offset)
        pairs = PairSet(
            spec.task,
            tuple(f"scene_{seed}" for seed in seeds),
            made.prompts,
            made.source_captions,
            made.target_captions,
            made.kinds,
        )
        tensors = {"inputs": made.inputs, "targets": made.targets}
        storage.write_tensors(images, tensors, notes)
    pair_sets.write_set(args.output, pairs)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="PairSetSpec as JSON")
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="JSON to write; the images beside it, .safetensors",
    )
    run(parser, main)
