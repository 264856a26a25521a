"""Score translations of one set: against the targets, the prompts, and teachers."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.data import pair_sets, shards
from clockwork_experiments.random import marks
from clockwork_experiments.run import new_parser, run

if TYPE_CHECKING:
    import torch

    from clockwork_experiments.models import encoders, perceptual


def main(args: Namespace) -> None:
    """Score every translation pair by pair, then average over the pairs."""
    teachers = json.loads(args.teachers)
    files = _named([*args.translated, *args.compared])
    wanted = set(_named(args.translated))
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
    inputs, targets = pair_sets.image_rows(args.images, pairs)

    import torch

    from clockwork_diffusion import tokens
    from clockwork_experiments.models import encoders, loading, perceptual
    from clockwork_experiments.score import metrics, translation_scores

    device = loading.default_device()
    clip = encoders.load_clip(args.clip, device)
    frechet = encoders.load_frechet(args.frechet_kind, args.frechet, device)
    lpips = perceptual.load_perceptual(args.lpips_kind, args.lpips, device)
    said = {*pairs.prompts, *pairs.source_captions, *pairs.target_captions} - {""}
    lost = tokens.count_lost(clip.tokenizer, sorted(said))
    described = translation_scores.describe(pairs, clip, inputs.blocks(shards.IMAGES))
    reference = None
    if targets is not None:
        reference = metrics.merge(
            metrics.statistics(encoders.frechet_features(frechet, part))
            for part in targets.blocks(shards.IMAGES)
        )
    shown = {name: _images(paths, inputs) for name, paths in files.items()}
    for name, output in outputs.items():
        others = {"": targets, "_to_teacher": shown.get(teachers.get(name, ""))}
        compared = {suffix: rows for suffix, rows in others.items() if rows is not None}
        parts: dict[str, list[torch.Tensor]] = {}
        found = _measure(clip, lpips, shown[name], compared, parts)
        distance = None
        if reference is not None:
            blocks = (encoders.frechet_features(frechet, images) for images in found)
            distance = metrics.frechet_jackknife(blocks, reference, len(pairs))
        else:
            for _ in found:
                pass
        features = torch.cat(parts.pop("clip_features"))
        values = translation_scores.of_features(features, described)
        if args.aesthetic is not None:
            predict = perceptual.load_aesthetic(args.aesthetic, features.shape[1])
            values["aesthetic"] = predict(features)
        values |= {key: torch.cat(each) for key, each in parts.items()}
        scores = {key: metrics.mean_score(each) for key, each in values.items()}
        for key in scores.keys() & {"lpips", "lpips_to_teacher"}:
            scores[key] = dataclasses.replace(scores[key], note=lpips.preprocessing)
        if distance is not None:
            scores["frechet"] = distance.score()
            # Not of a pair: the distance, and that without each group of pairs.
            for key, numbers in (
                ("frechet", (distance.value,)),
                ("frechet_without", distance.without),
            ):
                values[key] = torch.tensor(numbers, dtype=torch.float64)
        named = _encoders(clip, frechet, lpips, args.aesthetic)
        made_with = [*files[name], args.clip, args.frechet, args.lpips]
        notes = {"encoders": json.dumps(named), **marks.notes(made_with)}
        storage.write_tensors(output.with_suffix(".safetensors"), values, notes)
        storage.write_json(
            output,
            {
                "translation": name,
                **marks.mark(made_with),
                "scores": {k: dataclasses.asdict(v) for k, v in scores.items()},
                "encoders": named,
                "captions": dataclasses.asdict(lost),
                "versions": provenance.versions(
                    "torch", "torchmetrics", "open_clip_torch"
                ),
            },
        )


def _measure(
    clip: encoders.ClipEncoder,
    lpips: perceptual.PerceptualEncoder,
    images: shards.Rows,
    compared: dict[str, shards.Rows],
    values: dict[str, list[torch.Tensor]],
) -> Iterator[torch.Tensor]:
    """Measure a few images after the other, and yield them for what else there is.

    Args:
        clip: CLIP.
        lpips: LPIPS's network.
        images: Of one translation.
        compared: What they are held against, by suffix of the scores' names.
        values: Gets the parts of each score, and of ``clip_features``.
    """
    from clockwork_experiments.models import encoders, perceptual
    from clockwork_experiments.score import metrics

    for part, *beside in shards.paired(images, *compared.values(), size=shards.IMAGES):
        features = encoders.clip_image_features(clip, part)
        values.setdefault("clip_features", []).append(features)
        for suffix, other in zip(compared, beside, strict=True):
            apart = perceptual.perceptual_distances(lpips, part, other)
            values.setdefault(f"psnr{suffix}", []).append(metrics.psnr(part, other))
            values.setdefault(f"lpips{suffix}", []).append(apart)
        yield part


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


def _named(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Return shards by translation, ``…/<translation>/<shard>.safetensors``."""
    named: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: path.stem):
        known = named.setdefault(path.parent.name, [])
        if known and (known[-1].stem == path.stem or known[-1].parent != path.parent):
            raise ValueError(
                f"the translation {path.parent.name!r} is given twice: "
                f"{known[-1]}, {path}"
            )
        known.append(path)
    return named


def _images(paths: Sequence[Path], inputs: shards.Rows) -> shards.Rows:
    """Return translated images, which must be as many and as large as the inputs."""
    images = shards.Rows(paths, "images")
    if images.kind != inputs.kind or images.shape != inputs.shape:
        raise ValueError(
            f"{paths[0]}: images are {images.kind} {images.shape}, "
            f"not {inputs.kind} {inputs.shape}, as the set's inputs"
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
        help="translated images, <translation>/<shard>.safetensors",
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
