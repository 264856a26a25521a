"""Score translations against the targets, the prompts, and their teachers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.data import shards
from clockwork_experiments.random import marks
from clockwork_experiments.score import dead

if TYPE_CHECKING:
    import torch

    from clockwork_diffusion.tokens import Lost
    from clockwork_experiments.models import encoders, perceptual
    from clockwork_experiments.score.metrics import Score, Statistics
    from clockwork_experiments.score.translation_scores import Described
    from clockwork_experiments.world.judge import Judge


def outputs_of(
    translated: Sequence[Path],
    output: Sequence[Path],
    teachers: Mapping[str, str],
    files: Mapping[str, Sequence[Path]],
) -> dict[str, Path]:
    """Return where each translation's scores go, or those of the inputs as they are.

    Raises:
        ValueError: If they are not one for each, or a teacher's images are missing.
    """
    outputs = {path.stem: path for path in output}
    if not translated:
        return outputs
    wanted = {*by_translation(translated)}
    if {*outputs} != wanted or len(output) != len(wanted):
        raise ValueError(
            f"outputs {', '.join(sorted(outputs))} do not match the translations "
            f"{', '.join(sorted(wanted))}"
        )
    for name in wanted & {*teachers}:
        if teachers[name] not in files:
            raise ValueError(f"no images of {teachers[name]!r}, teacher of {name!r}")
    return outputs


@dataclass(frozen=True)
class Judges:
    """The networks that score.

    Attributes:
        clip: CLIP.
        frechet: The Fréchet distance's.
        lpips: LPIPS's.
        aesthetic: File of the aesthetic predictor, or None.
        scenes: Folder of the judge of scenes, or None.
    """

    clip: encoders.ClipEncoder
    frechet: encoders.FrechetEncoder
    lpips: perceptual.PerceptualEncoder
    aesthetic: Path | None
    scenes: Path | None = None

    @cached_property
    def judge(self) -> Judge | None:
        """The judge of scenes, loaded once for all translations."""
        from clockwork_experiments.world import judge

        return None if self.scenes is None else judge.load(self.scenes)

    def described(self) -> dict[str, dict[str, str]]:
        """Return what scored, with checksums."""
        networks: dict[str, Any] = {
            "clip": self.clip,
            "frechet": self.frechet,
            "lpips": self.lpips,
        }
        named = {
            name: {"sha256": each.sha256, "preprocessing": each.preprocessing}
            for name, each in networks.items()
        }
        if self.aesthetic is not None:
            named["aesthetic"] = {
                "sha256": storage.sha256(self.aesthetic),
                "preprocessing": "linear on CLIP's unit image features",
            }
        if self.scenes is not None:
            named["judge"] = {"sha256": storage.sha256_folder(self.scenes)}
        return named


def score_translation(
    judges: Judges,
    images: shards.Rows,
    against: dict[str, shards.Rows],
    described: Described,
    reference: Statistics | None,
    shows: Sequence[str],
    counter: dead.Counter,
) -> tuple[dict[str, Score], dict[str, torch.Tensor]]:
    """Return the scores of a translation, and the value of each pair.

    Its images are read once, and counted on the way.
    """
    import torch

    from clockwork_experiments.models import encoders, perceptual
    from clockwork_experiments.score import metrics, translation_scores
    from clockwork_experiments.world import verdicts

    parts: dict[str, list[torch.Tensor]] = {}
    measured = _measure(judges.clip, judges.lpips, images, against, parts)
    found = map(counter.add, measured)
    distance = None
    if reference is not None:
        blocks = (encoders.frechet_features(judges.frechet, each) for each in found)
        distance = metrics.frechet_jackknife(blocks, reference, len(images))
    else:
        for _ in found:
            pass
    features = torch.cat(parts.pop("clip_features"))
    values = translation_scores.of_features(features, described)
    if judges.aesthetic is not None:
        predict = perceptual.load_aesthetic(judges.aesthetic, features.shape[1])
        values["aesthetic"] = predict(features)
    if judges.judge is not None:
        whole = torch.cat(list(images.blocks(shards.IMAGES)))
        values |= verdicts.judged(judges.judge, shows, whole)
    values |= {key: torch.cat(each) for key, each in parts.items()}
    scores = {key: metrics.mean_score(each) for key, each in values.items()}
    for key in scores.keys() & {"lpips", "lpips_to_teacher"}:
        scores[key] = replace(scores[key], note=judges.lpips.preprocessing)
    if distance is not None:
        scores["frechet"] = distance.score()
        # Not of a pair: the distance, and that without each group of pairs.
        of_all = {"frechet": (distance.value,), "frechet_without": distance.without}
        for key, numbers in of_all.items():
            values[key] = torch.tensor(numbers, dtype=torch.float64)
    return scores, values


def write_scores(
    path: Path,
    scores: Mapping[str, Score],
    values: dict[str, torch.Tensor],
    named: Mapping[str, Mapping[str, str]],
    made_with: list[Path],
    lost: Lost,
    counts: dead.Counts,
) -> None:
    """Write the scores as JSON, and the value of each pair beside it."""
    notes = {
        "encoders": json.dumps(named),
        **marks.notes(made_with),
        **dead.notes({path.stem: counts}),
    }
    storage.write_tensors(path.with_suffix(".safetensors"), values, notes)
    versions = provenance.versions("torch", "torchmetrics", "open_clip_torch")
    storage.write_json(
        path,
        {
            "translation": path.stem,
            **marks.mark(made_with),
            "scores": {key: asdict(each) for key, each in scores.items()},
            "encoders": named,
            dead.KEY: asdict(counts),
            "captions": asdict(lost),
            "versions": versions,
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


def by_translation(paths: Sequence[Path]) -> dict[str, list[Path]]:
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


def read_translated(paths: Sequence[Path], inputs: shards.Rows) -> shards.Rows:
    """Return translated images, which must be as many and as large as the inputs."""
    images = shards.Rows(paths, "images")
    if images.kind != inputs.kind or images.shape != inputs.shape:
        raise ValueError(
            f"{paths[0]}: images are {images.kind} {images.shape}, "
            f"not {inputs.kind} {inputs.shape}, as the set's inputs"
        )
    return images
