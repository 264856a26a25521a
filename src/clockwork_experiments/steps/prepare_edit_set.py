"""Prepare an editing set: read its folder, and sample the sources that need it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import edit_sets
from clockwork_experiments.run import new_parser, run

if TYPE_CHECKING:
    import torch

BATCH = 8
"""Sources per batch."""


def main(args: Namespace) -> None:
    """Check everything before anything is sampled; write the images first."""
    spec = parse(edit_sets.EditSetSpec, args.spec)
    if args.folder is None and not spec.path:
        raise ValueError("a set of scenes needs the folder of make_scene_edits")
    layout = edit_sets.read_layout(
        args.folder or Path(spec.path), spec.size, spec.prompts, spec.convert
    )
    waiting = {
        index: source
        for index, source in enumerate(layout.sources)
        if isinstance(source, edit_sets.Sampling)
    }
    if waiting and args.model is None:
        raise ValueError(
            f"{len(waiting)} of {len(layout.sources)} sources are sampled from seeds, "
            "and no --model is given"
        )

    import torch

    images = {
        index: source
        for index, source in enumerate(layout.sources)
        if isinstance(source, torch.Tensor)
    }
    notes = {"spec": args.spec}
    if waiting:
        images |= _sampled(waiting, layout.edits.source_prompts, args.model, spec.size)
        notes["model_sha256"] = storage.sha256_folder(args.model)
    tensors = {"sources": torch.stack([image for _, image in sorted(images.items())])}
    if layout.targets is not None:
        tensors["targets"] = layout.targets
    storage.write_tensors(args.output.with_suffix(".safetensors"), tensors, notes)
    edit_sets.write_set(args.output, layout.edits)


def _sampled(
    waiting: dict[int, edit_sets.Sampling],
    prompts: tuple[str, ...],
    model: Path,
    size: int,
) -> dict[int, torch.Tensor]:
    """Return images of sources, uint8 ``(3, S, S)``; batches share their settings."""
    from tqdm import tqdm

    from clockwork_diffusion import encoding
    from clockwork_experiments.generate import text
    from clockwork_experiments.models import loading

    pipe = loading.load_pipeline(model, loading.default_device())
    made = pipe.unet.config.sample_size * pipe.vae_scale_factor
    if made != size:
        raise ValueError(f"{model} samples {made}×{made} pixels, not {size}×{size}")
    alike: dict[tuple[float, int], list[int]] = {}
    for index, source in waiting.items():
        alike.setdefault((source.guidance, source.steps), []).append(index)
    batches = [
        (key, rows[start : start + BATCH])
        for key, rows in alike.items()
        for start in range(0, len(rows), BATCH)
    ]
    images: dict[int, torch.Tensor] = {}
    for (guidance, steps), rows in tqdm(batches, desc="sources", disable=None):
        latents = text.sample(
            pipe,
            encoding.encode_prompts(pipe, [prompts[row] for row in rows]),
            text.generators([waiting[row].seed for row in rows]),
            text.SamplerSpec("ddim", steps, guidance),
        )
        images |= dict(zip(rows, encoding.decode_latents(pipe, latents), strict=True))
    return images


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="EditSetSpec as JSON")
    parser.add_argument(
        "--folder", type=Path, help="the set's folder, if the spec does not name it"
    )
    parser.add_argument(
        "--model", type=Path, help="pipeline folder; for sources that are sampled"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="JSON to write; the images beside it, .safetensors",
    )
    run(parser, main)
