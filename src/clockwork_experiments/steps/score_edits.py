"""Score edited images of one set: likeness to the target prompt, and to the source."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.data import edit_sets
from clockwork_experiments.random import marks
from clockwork_experiments.run import run
from clockwork_experiments.score import dead


def score_edits(
    set: Path,
    sources: Path,
    clip: Path,
    structure: Path,
    output: Path,
    edited: Sequence[Path] = (),
    teachers: dict[str, str] | None = None,
    judge: Path | None = None,
) -> None:
    """Score every pair of every edit, then average within sources and over them.

    Args:
        set: Prepared set, JSON.
        sources: Its images, safetensors.
        clip: Folder of an open_clip model.
        structure: Folder of a ViT.
        output: JSON to write; the value of each pair beside it, .safetensors.
        edited: Edited images, <edit>/<setting>.safetensors, of one setting.
        teachers: The edit that each is compared with, source by source.
        judge: Folder of the judge of scenes.
    """
    import torch

    from clockwork_diffusion import tokens
    from clockwork_experiments.claims import statistics
    from clockwork_experiments.models import encoders, loading
    from clockwork_experiments.score import edit_scores, metrics
    from clockwork_experiments.score import structure as structures
    from clockwork_experiments.world import judge as judging
    from clockwork_experiments.world import verdicts

    named = edit_scores.by_edit(edited)
    edits = edit_sets.read_set(set)
    images, targets = edit_sets.read_images(sources, edits)
    owners = torch.tensor(edits.pair_sources)
    originals = images[owners]
    device = loading.default_device()
    encoder = encoders.load_clip(clip, device)
    vit = structures.load_structure(structure, device)
    text = encoders.clip_text_features(encoder, list(edits.target_prompts))
    lost = tokens.count_lost(encoder.tokenizer, edits.target_prompts)
    network = None if judge is None else judging.load(judge)
    scorer = edit_scores.Judge(encoder, vit, text, originals, targets)

    def edited_by(name: str) -> torch.Tensor:
        # Read each time: memory holds the images of two edits, however many there are.
        return edit_scores.read_edited(named[name], originals)

    per_pair = {"source": owners}
    scores, counts = {}, {}
    for name in (edit_scores.UNEDITED, *named):
        images = edited_by(name) if name in named else originals
        counts[name] = dead.count([images], name)
        values = scorer.values(images)
        if network is not None:
            values |= verdicts.judged(network, edits.target_prompts, images)
        per_pair |= {f"{name}/{kind}": each for kind, each in values.items()}
        scores[name] = {
            kind: statistics.score_by_source(each, owners)
            for kind, each in values.items()
        }
    for name, teacher in (teachers or {}).items():
        for kind in list(scores[teacher]):
            gap = per_pair[f"{name}/{kind}"] - per_pair[f"{teacher}/{kind}"]
            beside = statistics.score_by_source(gap, owners)
            scores[name][f"{kind}_minus_teacher"] = beside
        apart = metrics.psnr(edited_by(name), edited_by(teacher))
        near = statistics.score_by_source(apart, owners)
        scores[name]["psnr_to_teacher"] = near
    made_with = [*edited, clip, structure]
    marked = {**marks.notes(made_with), **dead.notes(counts)}
    storage.write_tensors(output.with_suffix(".safetensors"), per_pair, marked)
    storage.write_json(
        output,
        {
            **marks.mark(made_with),
            "edits": scores,
            dead.KEY: {key: dataclasses.asdict(each) for key, each in counts.items()},
            "captions": dataclasses.asdict(lost),
            "encoders": {
                name: {"sha256": each.sha256, "preprocessing": each.preprocessing}
                for name, each in (("clip", encoder), ("structure", vit))
            },
            "versions": provenance.versions(
                "torch", "torchmetrics", "open_clip_torch", "transformers"
            ),
        },
    )


if __name__ == "__main__":
    run(score_edits)
