"""Prepare an editing set: read its folder, and sample the sources that need it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import edit_sets
from clockwork_experiments.run import run

if TYPE_CHECKING:
    import torch

BATCH = 8
"""Sources per batch."""


def prepare_edit_set(
    spec: str,
    output: Path,
    folder: Path | None = None,
    model: Path | None = None,
) -> None:
    """Check everything before anything is sampled; write the images first.

    Args:
        spec: An `EditSetSpec` as JSON.
        output: JSON to write; the images beside it, ``.safetensors``.
        folder: The set's folder, if the spec does not name it.
        model: Pipeline folder; for sources that are sampled.
    """
    chosen = parse(edit_sets.EditSetSpec, spec)
    if folder is None and not chosen.path:
        raise ValueError("a set of scenes needs the folder of make_scene_edits")
    layout = edit_sets.read_layout(
        folder or Path(chosen.path), chosen.size, chosen.prompts, chosen.convert
    )
    waiting = {
        index: source
        for index, source in enumerate(layout.sources)
        if isinstance(source, edit_sets.Sampling)
    }
    if waiting and model is None:
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
    notes = {"spec": spec}
    if waiting:
        assert model is not None
        images |= _sampled(waiting, layout.edits.source_prompts, model, chosen.size)
        notes["model_sha256"] = storage.sha256_folder(model)
    tensors = {"sources": torch.stack([image for _, image in sorted(images.items())])}
    if layout.targets is not None:
        tensors["targets"] = layout.targets
    storage.write_tensors(output.with_suffix(".safetensors"), tensors, notes)
    edit_sets.write_set(output, layout.edits)


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
    run(prepare_edit_set)
