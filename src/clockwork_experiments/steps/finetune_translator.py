"""Train a mini translator further after depth-skip, and measure what that gains."""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.mini import gains
from clockwork_experiments.run import run


def finetune_translator(
    spec: gains.FineTuneStepSpec,
    translator: Path,
    set: Path,
    clip: Path,
    state: Path,
    output: Path,
    restorer: Path | None = None,
) -> None:
    """Train, save, then translate with the whole UNet, the cut one and the trained.

    Args:
        spec: What is trained further, and how the gain is measured.
        translator: The model's folder.
        set: Prepared set to measure on, JSON; its images beside it.
        clip: Folder of the CLIP that scores.
        state: Resumable state.
        output: Folder to write.
        restorer: Folder of the restoration net, for synthesis.
    """
    from clockwork_diffusion import depth_skip
    from clockwork_experiments.generate import translate, translators
    from clockwork_experiments.mini import finetuning
    from clockwork_experiments.models import loading

    training = parse(finetuning.FineTuneSpec, spec.training, "spec.training")
    chosen = parse(translate.TranslationSpec, spec.translation, "spec.translation")
    device = loading.default_device()
    loaded = translators.load_translator(
        training.recipe.task, translator, device=device
    )
    judging = gains.open_evaluator(spec, loaded, chosen, set, clip, state)
    work = [str(training), storage.sha256_folder(translator)]
    work += [provenance.code_sha256("steps.finetune_translator")]
    trained = finetuning.finetune(
        training,
        loaded,
        gains.training_pairs(training.recipe, restorer),
        state.with_suffix(".pt"),
        "\n".join(work),
    )
    with storage.atomic_path(output) as folder:
        left = trained.module
        assert isinstance(left, depth_skip.DepthSkipUNet)
        left.half().save_pretrained(folder)
        storage.write_checksums(folder)
        tuned = loading.load_network(depth_skip.DepthSkipUNet, folder).to(device)
        whole = loaded.pipe.unet
        cut = depth_skip.depth_skip(whole, training.level)
        unets = {"whole": whole, "cut": cut, "tuned": tuned}
        report = {
            "level": training.level,
            "updates": training.recipe.optimisation.steps,
            "seconds": trained.seconds,
            **gains.measure(judging, loaded, unets),
            "versions": provenance.versions("torch", "diffusers"),
        }
        storage.write_json(folder / "gain.json", report)
        gains.write_card(folder, translator.name, training, trained, report["scores"])
    state.with_suffix(".pt").unlink(missing_ok=True)


if __name__ == "__main__":
    run(finetune_translator)
