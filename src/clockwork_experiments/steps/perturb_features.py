"""Sample images with one layer's features perturbed, for each layer, α and start."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets
from clockwork_experiments.random import marks
from clockwork_experiments.run import new_parser, run


def main(args: Namespace) -> None:
    """Sample batch by batch; batches of a killed run are kept."""
    from clockwork_diffusion import encoding
    from clockwork_experiments.base import chunks
    from clockwork_experiments.models import loading
    from clockwork_experiments.score import perturbation

    spec = parse(perturbation.PerturbationSpec, args.spec)
    prompts = datasets.read_prompts(args.prompts)
    pipe = loading.load_pipeline(args.model, loading.default_device())
    for layer in spec.layers:
        perturbation.find_layer(pipe.unet, layer)
    encoded = encoding.encode_prompts(pipe, prompts)
    model = storage.sha256_folder(args.model)
    code = provenance.code_sha256("steps.perturb_features")
    tensors = chunks.in_chunks(
        len(prompts),
        spec.batch_size,
        lambda part: perturbation.sample_grid(pipe, encoded[part], spec, part.start),
        args.state,
        f"{args.spec}\n{model}\n{code}\n{prompts}",
        "perturbations",
    )
    images = {name: tensors[name] for name in ("images", "unperturbed")}
    notes = {"spec": args.spec, "model": model, **marks.notes([args.model])}
    storage.write_tensors(args.output, images, notes)
    storage.write_json(
        args.distances,
        {
            **marks.mark([args.model]),
            "sampler": dataclasses.asdict(spec.sampler),
            "seed": spec.seed,
            **perturbation.summarise(tensors, spec),
            "prompts": prompts[: spec.kept],
            "model": model,
            "versions": provenance.versions("torch", "diffusers"),
        },
    )
    chunks.discard(args.state)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="PerturbationSpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--prompts", required=True, type=Path, help="prompts as JSON")
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="images to write")
    parser.add_argument(
        "--distances", required=True, type=Path, help="JSON of the measures to write"
    )
    run(parser, main)
