"""Score runs on one data set by their features, in pairs where they have teachers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.random import marks
from clockwork_experiments.run import run
from clockwork_experiments.score import dead


@dataclass(frozen=True)
class ScoredRun:
    """A run to score.

    Attributes:
        seed: Seed of the run, for the record.
        seeds: Sampling seeds per prompt.
        teacher: Id of the run whose images it is compared with; none if empty.
        renderings: Number of renderings of each of its captions in the reference; 0 if
            that shows something else.
    """

    seed: int
    seeds: int = 1
    teacher: str = ""
    renderings: int = 0


def score_images(
    spec: dict[str, ScoredRun],
    features: list[Path],
    images: list[Path],
    reference: list[Path],
    captions: list[Path],
    output: list[Path],
) -> None:
    """Compute every score of every run; write them, and the value of each image.

    Args:
        spec: The runs.
        features: Shards of features of the runs and their teachers.
        images: Shards of images of the same.
        reference: Shards of features of the Fréchet distance's reference set.
        captions: Shards of features of the runs' data set.
        output: A file per run, <run>.json; its images' values beside it.
    """
    unknown = [path for path in output if path.stem not in spec]
    if unknown or len(output) != len(spec):
        raise ValueError(f"outputs do not match the runs {', '.join(spec)}")

    from clockwork_experiments.score import image_scores

    scorer = image_scores.Scorer(features, images, reference, captions)
    for path in output:
        name, chosen = path.stem, spec[path.stem]
        of_run = image_scores.shards_of(features, name)
        encoders = json.loads(image_scores.notes_of(of_run[0], "encoders"))
        counted = (image_scores.counts_of(each, name) for each in of_run)
        counts = sum(counted, dead.Counts())
        scores, values = scorer.scores(
            name, chosen.seeds, chosen.teacher, chosen.renderings
        )
        made_with = [*of_run, *reference, *captions]
        storage.write_tensors(
            path.with_suffix(".safetensors"),
            {**image_scores.rows_of(values["clip"], chosen.seeds), **values},
            marks.notes(made_with),
        )
        storage.write_json(
            path,
            {
                "run": name,
                "seed": chosen.seed,
                "scores": {k: dataclasses.asdict(v) for k, v in scores.items()},
                dead.KEY: dataclasses.asdict(counts),
                "encoders": encoders,
                "captions": dataclasses.asdict(scorer.lost),
                "versions": provenance.versions(
                    "torch", "torchmetrics", "open_clip_torch"
                ),
                **marks.mark(made_with),
            },
        )


if __name__ == "__main__":
    run(score_images)
