"""Sample images with one layer's features perturbed, for each layer, α and start."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.random import marks
from clockwork_experiments.run import run


def perturb_features(
    spec: str,
    model: Path,
    prompts: Path,
    state: Path,
    output: Path,
    distances: Path,
) -> None:
    """Sample batch by batch; batches of a killed run are kept.

    Args:
        spec: A `PerturbationSpec` as JSON.
        model: Pipeline folder.
        prompts: Prompts as JSON.
        state: Resumable state.
        output: Images to write.
        distances: JSON of the measures to write.
    """
    from clockwork_diffusion import encoding
    from clockwork_experiments.base import chunks
    from clockwork_experiments.models import loading
    from clockwork_experiments.score import perturbation

    chosen = parse(perturbation.PerturbationSpec, spec)
    captions = datasets.read_prompts(prompts)
    pipe = loading.load_pipeline(model, loading.default_device())
    for layer in chosen.layers:
        perturbation.find_layer(pipe.unet, layer)
    encoded = encoding.encode_prompts(pipe, captions)
    weights = storage.sha256_folder(model)
    code = provenance.code_sha256("steps.perturb_features")
    tensors = chunks.in_chunks(
        len(captions),
        chosen.batch_size,
        lambda part: perturbation.sample_grid(pipe, encoded[part], chosen, part.start),
        state,
        f"{spec}\n{weights}\n{code}\n{captions}",
        "perturbations",
    )
    images = {name: tensors[name] for name in ("images", "unperturbed")}
    notes = {"spec": spec, "model": weights, **marks.notes([model])}
    storage.write_tensors(output, images, notes)
    storage.write_json(
        distances,
        {
            **marks.mark([model]),
            "sampler": dataclasses.asdict(chosen.sampler),
            "seed": chosen.seed,
            **perturbation.summarise(tensors, chosen),
            "prompts": captions[: chosen.kept],
            "model": weights,
            "versions": provenance.versions("torch", "diffusers"),
        },
    )
    chunks.discard(state)


if __name__ == "__main__":
    run(perturb_features)
