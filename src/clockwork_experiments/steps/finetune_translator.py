"""Train a mini translator further after depth-skip, and measure what that gains."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import pair_sets
from clockwork_experiments.run import new_parser, run


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


def main(args: Namespace) -> None:
    """Train, save, then translate with the whole UNet, the cut one and the trained."""
    spec = parse(FineTuneStepSpec, args.spec)
    pairs = pair_sets.read_set(args.set)
    inputs, targets = pair_sets.image_rows(args.set.with_suffix(".safetensors"), pairs)

    from clockwork_diffusion import depth_skip
    from clockwork_experiments.generate import translate, translators
    from clockwork_experiments.mini import card, finetuning, restorer
    from clockwork_experiments.mini.pairs import scene_pairs
    from clockwork_experiments.models import encoders, loading, mini
    from clockwork_experiments.score import metrics
    from clockwork_experiments.search import evaluator

    training = parse(finetuning.FineTuneSpec, spec.training, "spec.training")
    chosen = parse(translate.TranslationSpec, spec.translation, "spec.translation")
    recipe, device = training.recipe, loading.default_device()
    restore = None
    if args.restorer is not None:
        network = mini.load(mini.Restorer, args.restorer)
        restore = partial(restorer.restore, network)
    translator = translators.load_translator(
        recipe.task, args.translator, device=device
    )
    model = evaluator.Model(translator, chosen, encoders.load_clip(args.clip, device))
    plan = evaluator.Plan(chosen.visited, scheduler=chosen.scheduler)
    bench = evaluator.Bench(
        model,
        pairs,
        inputs,
        targets,
        plan,
        args.state,
        seed=spec.seed,
        batch_size=spec.batch_size,
    )
    trained = finetuning.finetune(
        training,
        translator,
        lambda: scene_pairs(recipe.task, "train", recipe.pairs, recipe.offset, restore),
        args.state.with_suffix(".pt"),
        "\n".join(
            [
                str(training),
                storage.sha256_folder(args.translator),
                provenance.code_sha256("steps.finetune_translator"),
            ]
        ),
    )
    with storage.atomic_path(args.output) as folder:
        left = trained.module
        assert isinstance(left, depth_skip.DepthSkipUNet)
        left.half().save_pretrained(folder)
        storage.write_checksums(folder)
        tuned = loading.load_network(depth_skip.DepthSkipUNet, folder).to(device)
        pipe, made = translator.pipe, []
        for unet in (
            pipe.unet,
            depth_skip.depth_skip(pipe.unet, training.level),
            tuned,
        ):
            pipe.unet = unet
            made.append(bench.translate(plan, slice(0, len(bench))))
        whole, cut, further = made
        values = {
            name: evaluator.by_pair(bench.judge(images, whole))
            for name, images in (("whole", whole), ("cut", cut), ("tuned", further))
        }
        report: dict[str, Any] = {
            "level": training.level,
            "updates": recipe.optimisation.steps,
            "seconds": trained.seconds,
            "scores": {
                name: {key: asdict(metrics.mean_score(v)) for key, v in each.items()}
                for name, each in values.items()
            },
            "gain": {
                key: asdict(metrics.difference_score(each, values["cut"][key]))
                for key, each in values["tuned"].items()
            },
            "missing": {
                key: asdict(metrics.difference_score(each, values["whole"][key]))
                for key, each in values["tuned"].items()
            },
            "versions": provenance.versions("torch", "diffusers"),
        }
        storage.write_json(folder / "gain.json", report)
        about = card.Card(
            f"{args.translator.name}, kept to level {training.level} and trained on",
            "A UNet in the format of `DepthSkipUNet`; all else is the translator's.",
            f"{recipe.pairs:,} pairs of scenes of the training split from number "
            f"{recipe.offset:,} on",
            trained,
            {
                f"{key}, {name}": each["value"]
                for name, scores in report["scores"].items()
                for key, each in scores.items()
            },
        )
        card.write_card(folder, training, about)
    args.state.with_suffix(".pt").unlink(missing_ok=True)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="FineTuneStepSpec as JSON")
    for name, what in (
        ("--translator", "the model's folder"),
        ("--set", "prepared set to measure on, JSON; its images beside it"),
        ("--clip", "open_clip folder"),
    ):
        parser.add_argument(name, required=True, type=Path, help=what)
    parser.add_argument("--restorer", type=Path, help="its folder; for synthesis")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    run(parser, main)
