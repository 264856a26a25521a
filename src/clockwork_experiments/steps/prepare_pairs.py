"""Prepare a set of pairs to translate, from scenes or from a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import pair_sets, shards
from clockwork_experiments.data.pair_sets import PairSet, PairSetSpec
from clockwork_experiments.run import run


def prepare_pairs(spec: str, output: Path) -> None:
    """Check the whole list before an image is opened; write the images first.

    Args:
        spec: A `PairSetSpec` as JSON.
        output: JSON to write; the images beside it, .safetensors.
    """
    chosen = parse(PairSetSpec, spec)
    images, notes = output.with_suffix(".safetensors"), {"spec": spec}
    if chosen.source == "folder":
        listed = pair_sets.read_list(chosen)
        pairs = listed.pairs
        shards.write_rows(images, pair_sets.picture_parts(listed, chosen), notes)
    else:
        from clockwork_experiments.mini import restorer
        from clockwork_experiments.models import mini
        from clockwork_experiments.world import scenes
        from clockwork_experiments.world.pairs import scene_pairs

        restore = None
        if chosen.restorer:
            network = mini.load(mini.Restorer, Path(chosen.restorer))
            restore = partial(restorer.restore, network)
            notes["restorer_sha256"] = storage.sha256_folder(Path(chosen.restorer))
        made = scene_pairs(
            chosen.task, chosen.split, chosen.count, chosen.offset, restore
        )
        seeds = scenes.split_seeds(chosen.split, chosen.count, chosen.offset)
        pairs = PairSet(
            chosen.task,
            tuple(f"scene_{seed}" for seed in seeds),
            made.prompts,
            made.source_captions,
            made.target_captions,
            made.kinds,
        )
        tensors = {"inputs": made.inputs, "targets": made.targets}
        storage.write_tensors(images, tensors, notes)
    pair_sets.write_set(output, pairs)


if __name__ == "__main__":
    run(prepare_pairs)
