"""Score edited images of one set: likeness to the target prompt, and to the source."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.data import edit_sets
from clockwork_experiments.random import marks
from clockwork_experiments.run import new_parser, run
from clockwork_experiments.score import dead

if TYPE_CHECKING:
    import torch

UNEDITED = "unedited"
"""The edit that leaves every source as it is; always scored, for scale."""


def main(args: Namespace) -> None:
    """Score every pair of every edit, then average within sources and over them."""
    named = _named(args.edited)
    edits = edit_sets.read_set(args.set)
    sources, targets = edit_sets.read_images(args.sources, edits)

    import torch

    from clockwork_diffusion import tokens
    from clockwork_experiments.models import encoders, loading
    from clockwork_experiments.score import metrics, structure

    owners = torch.tensor(edits.pair_sources)
    originals = sources[owners]
    device = loading.default_device()
    clip = encoders.load_clip(args.clip, device)
    vit = structure.load_structure(args.structure, device)
    text = encoders.clip_text_features(clip, list(edits.target_prompts))
    lost = tokens.count_lost(clip.tokenizer, edits.target_prompts)

    per_pair = {"source": owners}
    scores, counts = {}, {}
    for name, path in {UNEDITED: None, **named}.items():
        images = originals if path is None else _edited(path, originals)
        counts[name] = dead.count([images], name)
        values = {
            "clip": metrics.cosines(encoders.clip_image_features(clip, images), text),
            "structure": structure.structure_distances(vit, images, originals),
            "psnr_to_source": metrics.psnr(images, originals),
        }
        if targets is not None:
            values["psnr_to_true"] = metrics.psnr(images, targets)
        scores[name] = {kind: _score(each, owners) for kind, each in values.items()}
        per_pair |= {f"{name}/{kind}": each for kind, each in values.items()}
    for name, teacher in json.loads(args.teachers).items():
        for kind in list(scores[teacher]):
            gap = per_pair[f"{name}/{kind}"] - per_pair[f"{teacher}/{kind}"]
            scores[name][f"{kind}_minus_teacher"] = _score(gap, owners)
        # Read again: memory holds the images of two edits, however many there are.
        images, whole = (_edited(named[each], originals) for each in (name, teacher))
        scores[name]["psnr_to_teacher"] = _score(metrics.psnr(images, whole), owners)
    made_with = [*args.edited, args.clip, args.structure]
    marked = {**marks.notes(made_with), **dead.notes(counts)}
    storage.write_tensors(args.output.with_suffix(".safetensors"), per_pair, marked)
    storage.write_json(
        args.output,
        {
            **marks.mark(made_with),
            "edits": scores,
            dead.KEY: {key: dataclasses.asdict(each) for key, each in counts.items()},
            "captions": dataclasses.asdict(lost),
            "encoders": {
                name: {"sha256": each.sha256, "preprocessing": each.preprocessing}
                for name, each in (("clip", clip), ("structure", vit))
            },
            "versions": provenance.versions(
                "torch", "torchmetrics", "open_clip_torch", "transformers"
            ),
        },
    )


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Return files by edit, ``…/<edit>/<setting>.safetensors``, of one setting."""
    named: dict[str, Path] = {}
    for path in paths:
        name = path.parent.name
        if name == UNEDITED:
            raise ValueError(f"{path}: {name!r} needs no file, and names no other edit")
        if name in named:
            raise ValueError(f"the edit {name!r} is given twice: {named[name]}, {path}")
        named[name] = path
    settings = sorted({path.stem for path in paths})
    if len(settings) > 1:
        raise ValueError(f"the edits are of several settings: {', '.join(settings)}")
    return named


def _edited(path: Path, sources: torch.Tensor) -> torch.Tensor:
    """Read edited images, which must be as many and as large as their sources."""
    tensors, _ = storage.read_tensors(path)
    if "images" not in tensors:
        raise ValueError(f"{path} lacks the tensor 'images'")
    images = tensors["images"]
    if images.dtype != sources.dtype or images.shape != sources.shape:
        raise ValueError(
            f"{path}: images are {images.dtype} {tuple(images.shape)}, "
            f"not {sources.dtype} {tuple(sources.shape)}, as the set's pairs"
        )
    return images


def _score(values: torch.Tensor, owners: torch.Tensor) -> dict[str, object]:
    """Average the pairs of each source, then the sources, with an interval.

    Pairs of one source are alike, and do not count as more sources.
    """
    from clockwork_experiments.claims import statistics

    count = len(owners.unique())
    if count < 2:
        raise ValueError(f"an interval needs 2 sources or more, not {count}")
    measured = statistics.per_source(values, owners)
    low, high = measured.interval()
    return {
        "value": measured.value,
        "low": low,
        "high": high,
        "n": measured.n,
        "interval": f"95 % {measured.method}",
    }


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--set", required=True, type=Path, help="prepared set, JSON")
    parser.add_argument(
        "--sources", required=True, type=Path, help="its images, safetensors"
    )
    parser.add_argument(
        "--edited",
        default=[],
        nargs="*",
        type=Path,
        help="edited images, <edit>/<setting>.safetensors, of one setting",
    )
    parser.add_argument(
        "--teachers",
        default="{}",
        help="the edit that each is compared with, source by source, as JSON",
    )
    parser.add_argument("--clip", required=True, type=Path, help="open_clip folder")
    parser.add_argument("--structure", required=True, type=Path, help="ViT folder")
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="JSON to write; the value of each pair beside it, .safetensors",
    )
    run(parser, main)
