"""Search for the time steps of a translator, and measure them on other pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.random.marks import mark
from clockwork_experiments.run import run
from clockwork_experiments.search.methods import StepSearchSpec


def search_steps(
    spec: StepSearchSpec,
    translator: Path,
    set: Path,
    clip: Path,
    state: Path,
    output: Path,
    model: Path | None = None,
    heldout: Path | None = None,
    evolution_set: Path | None = None,
    frechet: Path | None = None,
    frechet_kind: str | None = None,
    lpips: Path | None = None,
    lpips_kind: str | None = None,
    also: Sequence[Path] = (),
    references: Path | None = None,
) -> None:
    """Search for every n by every method, then measure all answers on other pairs.

    Args:
        spec: What to search.
        translator: The model's folder.
        set: Prepared set to search on, JSON; its images beside it.
        clip: Folder of the CLIP that scores.
        state: Resumable state.
        output: JSON to write.
        model: Pipeline folder that a ControlNet controls.
        heldout: Prepared set of other pairs; without, the answers are not judged.
        evolution_set: Prepared set that AutoDiffusion goes by, if another.
        frechet: The Fréchet distance's network.
        frechet_kind: Kind of that network.
        lpips: LPIPS's network.
        lpips_kind: Kind of that network.
        also: Results of other searches, whose time steps are measured, too.
        references: Folder of references' images, which searches of one model share.
    """
    from clockwork_experiments.search import timesteps

    others = timesteps.read_others(also)
    networks = timesteps.Networks(clip, frechet, frechet_kind, lpips, lpips_kind)
    models = timesteps.load_models(spec, translator, model, networks)
    marks = [storage.sha256_folder(translator)]
    marks += [storage.sha256_folder(model)] if model is not None else []
    marks += [provenance.code_sha256("steps.search_steps")]
    sets = {"search": set, "evolution": evolution_set, "validation": heldout}
    on = timesteps.open_evaluators(spec, models, sets, state, marks, references)
    found = timesteps.search_all(spec, models.searching.spec, on, others)
    storage.write_json(
        output,
        {
            **mark([translator, model, clip, frechet, lpips]),
            **timesteps.report(spec, models, on, found),
            "versions": provenance.versions("torch", "diffusers", "torchmetrics"),
        },
    )


if __name__ == "__main__":
    run(search_steps)
