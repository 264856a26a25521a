"""What a translator gains that is trained further after depth-skip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.data import pair_sets

if TYPE_CHECKING:
    from clockwork_experiments.generate.translate import TranslationSpec
    from clockwork_experiments.generate.translators import Translator
    from clockwork_experiments.mini.finetuning import FineTuneSpec
    from clockwork_experiments.mini.translators import TranslatorSpec
    from clockwork_experiments.search.evaluator import Evaluator
    from clockwork_experiments.train.training import Trained
    from clockwork_experiments.world.pairs import Pairs


@dataclass(frozen=True)
class FineTuneStepSpec:
    """What is trained further, and how the gain is measured.

    Attributes:
        training: A `clockwork_experiments.mini.finetuning.FineTuneSpec`, as plain data.
        translation: A `generate.translate.TranslationSpec`, as plain data.
        seed: Pair *i* starts from the same noise in every run.
        batch_size: Pairs per batch of translation.
    """

    training: dict[str, object]
    translation: dict[str, object]
    seed: int
    batch_size: int


def training_pairs(
    recipe: TranslatorSpec, restorer: Path | None
) -> Callable[[], Pairs]:
    """Return what makes the pairs to train on."""
    from clockwork_experiments.mini import restorer as nets
    from clockwork_experiments.models import mini
    from clockwork_experiments.world.pairs import scene_pairs

    restore = None
    if restorer is not None:
        restore = partial(nets.restore, mini.load(mini.Restorer, restorer))
    return lambda: scene_pairs(
        recipe.task, "train", recipe.pairs, recipe.offset, restore
    )


def open_evaluator(
    spec: FineTuneStepSpec,
    loaded: Translator,
    chosen: TranslationSpec,
    prepared: Path,
    clip: Path,
    state: Path,
) -> Evaluator:
    """Return what measures translations of a prepared set."""
    from clockwork_experiments.models import encoders, loading
    from clockwork_experiments.search import evaluator

    pairs = pair_sets.read_set(prepared)
    inputs, targets = pair_sets.image_rows(prepared.with_suffix(".safetensors"), pairs)
    judge = encoders.load_clip(clip, loading.default_device())
    return evaluator.Evaluator(
        evaluator.Model(loaded, chosen, judge),
        pairs,
        inputs,
        targets,
        evaluator.SamplingSchedule(chosen.visited, scheduler=chosen.scheduler),
        state,
        seed=spec.seed,
        batch_size=spec.batch_size,
    )


def measure(
    judging: Evaluator, loaded: Translator, unets: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the scores with each UNet, and by how much the last is better."""
    from clockwork_experiments.score import metrics
    from clockwork_experiments.search import evaluator

    made = {}
    for name, unet in unets.items():
        loaded.pipe.unet = unet
        made[name] = judging.translate(judging.reference, slice(0, len(judging)))
    values = {
        name: evaluator.by_pair(judging.judge(images, made["whole"]))
        for name, images in made.items()
    }

    def beside(other: str) -> dict[str, Any]:
        return {
            key: asdict(metrics.difference_score(each, values[other][key]))
            for key, each in values["tuned"].items()
        }

    return {
        "scores": {
            name: {key: asdict(metrics.mean_score(v)) for key, v in each.items()}
            for name, each in values.items()
        },
        "gain": beside("cut"),
        "missing": beside("whole"),
    }


def write_card(
    folder: Path,
    name: str,
    training: FineTuneSpec,
    trained: Trained,
    scores: Mapping[str, Any],
) -> None:
    """Write the card of a translator that was trained further."""
    from clockwork_experiments.mini import card

    recipe = training.recipe
    about = card.Card(
        f"{name}, kept to level {training.level} and trained on",
        "A UNet in the format of `DepthSkipUNet`; all else is the translator's.",
        f"{recipe.pairs:,} pairs of scenes of the training split from number "
        f"{recipe.offset:,} on",
        trained,
        {
            f"{key}, {which}": each["value"]
            for which, of in scores.items()
            for key, each in of.items()
        },
    )
    card.write_card(folder, training, about)
