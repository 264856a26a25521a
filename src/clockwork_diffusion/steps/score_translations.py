"""Score translations of one set: against the targets, the prompts, and teachers."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_diffusion import pair_sets, provenance, random_weights, storage
from clockwork_diffusion.steps._run import new_parser, run

if TYPE_CHECKING:
    import torch


def main(args: Namespace) -> None:
    """Score every translation pair by pair, then average over the pairs."""
    teachers = json.loads(args.teachers)
    files = _named([*args.translated, *args.compared])
    wanted = {path.stem for path in args.translated}
    outputs = {path.stem: path for path in args.output}
    if set(outputs) != wanted or len(args.output) != len(wanted):
        raise ValueError(
            f"outputs {', '.join(sorted(outputs))} do not match the translations "
            f"{', '.join(sorted(wanted))}"
        )
    for name in wanted & set(teachers):
        if teachers[name] not in files:
            raise ValueError(f"no images of {teachers[name]!r}, teacher of {name!r}")
    pairs = pair_sets.read_set(args.set)
    inputs, targets = pair_sets.read_images(args.images, pairs)

    import torch

    from clockwork_diffusion import (
        encoders,
        loading,
        metrics,
        perceptual,
        translation_scores,
    )

    device = loading.default_device()
    clip = encoders.load_clip(args.clip, device)
    frechet = encoders.load_frechet(args.frechet_kind, args.frechet, device)
    lpips = perceptual.load_perceptual(args.lpips_kind, args.lpips, device)
    described = translation_scores.describe(pairs, clip, inputs)
    reference = None
    if targets is not None:
        reference = metrics.statistics(encoders.frechet_features(frechet, targets))
    shown = {name: _images(path, inputs) for name, path in files.items()}
    for name, output in outputs.items():
        images = shown[name]
        features = encoders.clip_image_features(clip, images)
        values = translation_scores.of_features(features, described)
        if args.aesthetic is not None:
            predict = perceptual.load_aesthetic(args.aesthetic, features.shape[1])
            values["aesthetic"] = predict(features)
        others = {"": targets, "_to_teacher": shown.get(teachers.get(name, ""))}
        for suffix, other in others.items():
            if other is not None:
                values[f"psnr{suffix}"] = metrics.psnr(images, other)
                apart = perceptual.perceptual_distances(lpips, images, other)
                values[f"lpips{suffix}"] = apart
        scores = {key: metrics.mean_score(each) for key, each in values.items()}
        for key in scores.keys() & {"lpips", "lpips_to_teacher"}:
            scores[key] = dataclasses.replace(scores[key], note=lpips.preprocessing)
        if reference is not None:
            described_by = encoders.frechet_features(frechet, images)
            scores["frechet"] = metrics.frechet_score(described_by, reference)
            # Not of a pair: the distance, and that without each group of pairs.
            without = metrics.frechet_replicates(described_by, reference)
            for key, numbers in (
                ("frechet", [scores["frechet"].value]),
                ("frechet_without", without),
            ):
                values[key] = torch.tensor(numbers, dtype=torch.float64)
        named = _encoders(clip, frechet, lpips, args.aesthetic)
        made_with = [files[name], args.clip, args.frechet, args.lpips]
        notes = {"encoders": json.dumps(named), **random_weights.notes(made_with)}
        storage.write_tensors(output.with_suffix(".safetensors"), values, notes)
        storage.write_json(
            output,
            {
                "translation": name,
                **random_weights.mark(made_with),
                "scores": {k: dataclasses.asdict(v) for k, v in scores.items()},
                "encoders": named,
                "versions": provenance.versions(
                    "torch", "torchmetrics", "open_clip_torch"
                ),
            },
        )


def _encoders(
    clip: Any, frechet: Any, lpips: Any, aesthetic: Path | None
) -> dict[str, dict[str, str]]:
    """Return what scored, with checksums."""
    named = {
        name: {"sha256": each.sha256, "preprocessing": each.preprocessing}
        for name, each in (("clip", clip), ("frechet", frechet), ("lpips", lpips))
    }
    if aesthetic is not None:
        named["aesthetic"] = {
            "sha256": storage.sha256(aesthetic),
            "preprocessing": "linear on CLIP's unit image features",
        }
    return named


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Return files by translation, ``…/<translation>.safetensors``."""
    named: dict[str, Path] = {}
    for path in paths:
        if named.setdefault(path.stem, path) != path:
            raise ValueError(
                f"the translation {path.stem!r} is given twice: "
                f"{named[path.stem]}, {path}"
            )
    return named


def _images(path: Path, inputs: torch.Tensor) -> torch.Tensor:
    """Read translated images, which must be as many and as large as the inputs."""
    tensors, _ = storage.read_tensors(path)
    if "images" not in tensors:
        raise ValueError(f"{path} lacks the tensor 'images'")
    images = tensors["images"]
    if images.dtype != inputs.dtype or images.shape != inputs.shape:
        raise ValueError(
            f"{path}: images are {images.dtype} {tuple(images.shape)}, "
            f"not {inputs.dtype} {tuple(inputs.shape)}, as the set's inputs"
        )
    return images


if __name__ == "__main__":
    parser = new_parser(__doc__)
    for name, what in (
        ("--set", "prepared set, JSON"),
        ("--images", "its images, safetensors"),
        ("--clip", "open_clip folder"),
        ("--frechet", "folder or file of the Fréchet distance's network"),
        ("--lpips", "folder or file of LPIPS's network"),
    ):
        parser.add_argument(name, required=True, type=Path, help=what)
    parser.add_argument("--frechet-kind", required=True, help="kind of its network")
    parser.add_argument("--lpips-kind", required=True, help="kind of its network")
    parser.add_argument(
        "--aesthetic", type=Path, help="linear aesthetic predictor, safetensors"
    )
    parser.add_argument(
        "--translated",
        required=True,
        nargs="+",
        type=Path,
        help="translated images, <translation>.safetensors",
    )
    parser.add_argument(
        "--compared", default=[], nargs="*", type=Path, help="those of further teachers"
    )
    parser.add_argument(
        "--teachers",
        default="{}",
        help="the translation that each is compared with, as JSON",
    )
    parser.add_argument(
        "--output",
        required=True,
        nargs="+",
        type=Path,
        help="<translation>.json each; the value of each pair beside, .safetensors",
    )
    run(parser, main)
