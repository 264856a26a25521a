"""Invert the sources of an editing set by DDIM, and keep their latents."""

from __future__ import annotations

import logging
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from clockwork_diffusion import edit_sets, provenance, storage
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InvertSpec:
    """How sources are inverted.

    Attributes:
        inversion: A `clockwork_diffusion.editing.InversionSpec`, as plain data.
        batch_size: Sources per batch; has no influence on the latents.
        cut: Where the UNet is split.
        kind: Kind of an adaptor without weights, which has no file.
    """

    inversion: dict[str, object]
    batch_size: int
    cut: str = "stage1"
    kind: str = ""


def main(args: Namespace) -> None:
    """Invert batch by batch; the files of a killed run are kept."""
    spec = parse(InvertSpec, args.spec)
    edits = edit_sets.read_set(args.set)
    sources, _ = edit_sets.read_images(args.sources, edits)

    import torch
    from tqdm import tqdm

    from clockwork_diffusion import editing, latents, loading, runs, sampling

    inversion = parse(editing.InversionSpec, spec.inversion, "spec.inversion")
    pipe = loading.load_pipeline(args.model, loading.default_device())
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    if sources.shape[-1] != size:
        raise ValueError(
            f"{args.sources}: images have {sources.shape[-1]} pixels a side, and "
            f"{args.model} wants {size}"
        )
    passes, pool, checksums = runs.load_passes(
        pipe,
        args.model,
        spec.cut,
        scheduler="ddim",
        steps=None,
        loop="inversion",
        kind=spec.kind,
        adaptor=args.adaptor,
        clip=args.clip,
    )
    marks = [*checksums, args.spec, storage.sha256_folder(args.model)]
    marks.append(provenance.code_sha256("steps.invert_images"))
    folder = args.output.parent
    waiting, fingerprints = [], []
    for row, name in enumerate(edits.ids):
        # A file answers for itself: a set may have gained sources since.
        content = storage.sha256_bytes(sources[row].numpy().tobytes())
        fingerprints.append("\n".join([*marks, edits.source_prompts[row], content]))
        if not _is_done(folder / f"{name}.safetensors", fingerprints[row]):
            waiting.append(row)
    if len(waiting) < len(edits.ids):
        log.info("%d sources were inverted before", len(edits.ids) - len(waiting))
    starts = range(0, len(waiting), spec.batch_size)
    for start in tqdm(starts, desc="inversion", unit="batch", disable=None):
        rows = waiting[start : start + spec.batch_size]
        prompts = [edits.source_prompts[row] for row in rows]
        inverted = editing.invert(
            passes,
            pipe.scheduler.config,
            latents.encode_images(pipe.vae, sources[rows]),
            sampling.encode_prompts(pipe, prompts, pool),
            inversion,
        )
        for row, kept in zip(rows, inverted.latents.cpu(), strict=True):
            storage.write_tensors(
                folder / f"{edits.ids[row]}.safetensors",
                {"latents": kept, "timesteps": torch.tensor(inverted.timesteps)},
                {"fingerprint": fingerprints[row]},
            )
            log.info("%s inverted", edits.ids[row])
    storage.write_json(
        args.output,
        {
            "inversion": spec.inversion,
            "files": {
                name: storage.sha256(folder / f"{name}.safetensors")
                for name in edits.ids
            },
        },
    )


def _is_done(path: Path, fingerprint: str) -> bool:
    """Tell whether a file holds what an inversion would write."""
    if not path.is_file():
        return False
    try:
        _, notes = storage.read_tensors(path)
    except ValueError as error:
        log.info("%s", error)
        return False
    return notes.get("fingerprint") == fingerprint


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="InvertSpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--adaptor", type=Path, help="folder of a learned adaptor")
    parser.add_argument("--clip", type=Path, help="open_clip folder; for an adaptor")
    parser.add_argument("--set", required=True, type=Path, help="prepared set, JSON")
    parser.add_argument(
        "--sources", required=True, type=Path, help="its images, safetensors"
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="index to write; the latents beside it, one file per source",
    )
    run(parser, main)
