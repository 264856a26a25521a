"""Score translations of one set: against the targets, the prompts, and teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clockwork_experiments.data import pair_sets, shards
from clockwork_experiments.run import run
from clockwork_experiments.score import dead, judging


def score_translations(
    set: Path,
    images: Path,
    clip: Path,
    frechet: Path,
    frechet_kind: str,
    lpips: Path,
    lpips_kind: str,
    output: list[Path],
    translated: Sequence[Path] = (),
    aesthetic: Path | None = None,
    compared: Sequence[Path] = (),
    teachers: dict[str, str] | None = None,
    judge: Path | None = None,
) -> None:
    """Score every translation pair by pair, then average over the pairs.

    Args:
        set: Prepared set, JSON.
        images: Its images, safetensors.
        clip: Folder of an open_clip model.
        frechet: Folder or file of the Fréchet distance's network.
        frechet_kind: Kind of that network.
        lpips: Folder or file of LPIPS's network.
        lpips_kind: Kind of that network.
        output: ``<translation>.json`` each; the value of each pair beside it.
        translated: Translated images, ``<translation>/<shard>.safetensors``. None: the
            inputs are scored as they are.
        aesthetic: Linear aesthetic predictor, safetensors.
        compared: The images of further teachers.
        teachers: The translation that each is compared with.
        judge: Folder of the judge of scenes.
    """
    beside, files = teachers or {}, judging.by_translation([*translated, *compared])
    outputs = judging.outputs_of(translated, output, beside, files)
    pairs = pair_sets.read_set(set)
    inputs, targets = pair_sets.image_rows(images, pairs)

    from clockwork_diffusion import tokens
    from clockwork_experiments.models import encoders, loading, perceptual
    from clockwork_experiments.score import metrics, translation_scores

    device = loading.default_device()
    judges = judging.Judges(
        encoders.load_clip(clip, device),
        encoders.load_frechet(frechet_kind, frechet, device),
        perceptual.load_perceptual(lpips_kind, lpips, device),
        aesthetic,
        judge,
    )
    said = {*pairs.prompts, *pairs.source_captions, *pairs.target_captions} - {""}
    lost = tokens.count_lost(judges.clip.tokenizer, sorted(said))
    described = translation_scores.describe(
        pairs, judges.clip, inputs.blocks(shards.IMAGES)
    )
    reference = None
    if targets is not None:
        reference = metrics.merge(
            metrics.statistics(encoders.frechet_features(judges.frechet, part))
            for part in targets.blocks(shards.IMAGES)
        )
    shown = {
        name: judging.read_translated(paths, inputs) for name, paths in files.items()
    }
    if not translated:
        shown = dict.fromkeys(outputs, inputs)
    shows = translation_scores.shown_captions(pairs)
    for name, path in outputs.items():
        others = {"": targets, "_to_teacher": shown.get(beside.get(name, ""))}
        against = {suffix: rows for suffix, rows in others.items() if rows is not None}
        counter = dead.Counter()
        scores, values = judging.score_translation(
            judges, shown[name], against, described, reference, shows, counter
        )
        made_with = [*files.get(name, [images]), clip, frechet, lpips]
        counts = counter.told(name)
        judging.write_scores(
            path, scores, values, judges.described(), made_with, lost, counts
        )


if __name__ == "__main__":
    run(score_translations)
