"""Edit the sources of a set by Plug-and-Play, from their inverted latents."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clockwork_diffusion import edit_sets, provenance, storage
from clockwork_diffusion.specs import parse
from clockwork_diffusion.steps._run import new_parser, run

if TYPE_CHECKING:
    from clockwork_diffusion.editing import Inverted


@dataclass(frozen=True)
class EditSpec:
    """How a set is edited.

    Attributes:
        generation: A `clockwork_diffusion.editing.GenerationSpec`, as plain data.
        batch_size: Pairs per batch; has no influence on the images.
        cut: Where the UNet is split.
        kind: Kind of an adaptor without weights, which has no file.
        target: ``target`` generates towards the target prompts; ``source`` towards the
            source's own, once for each source: a reconstruction.
    """

    generation: dict[str, object]
    batch_size: int
    cut: str = "stage1"
    kind: str = ""
    target: str = "target"

    def __post_init__(self) -> None:
        """Reject unknown targets."""
        if self.target not in ("target", "source"):
            raise ValueError(f"target {self.target!r} is not target or source")


def main(args: Namespace) -> None:
    """Edit batch by batch; batches of a killed run are kept."""
    spec = parse(EditSpec, args.spec)
    edits = edit_sets.read_set(args.set)
    owners, targets = edits.pair_sources, edits.target_prompts
    if spec.target == "source":
        owners, targets = tuple(range(len(edits.ids))), edits.source_prompts
    # By source, so that a batch shares the features that are kept of one.
    order = sorted(range(len(owners)), key=lambda row: owners[row])

    import torch

    from clockwork_diffusion import chunks, editing, injection, loading, runs, sampling

    generation = parse(editing.GenerationSpec, spec.generation, "spec.generation")
    pipe = loading.load_pipeline(args.model, loading.default_device())
    config = pipe.scheduler.config
    needed = editing.ddim_timesteps(config, generation.steps)
    passes, pool, checksums = runs.load_passes(
        pipe,
        args.model,
        spec.cut,
        scheduler="ddim",
        steps=None,
        kind=spec.kind,
        adaptor=args.adaptor,
        clip=args.clip,
    )
    marks = [
        *checksums,
        args.spec,
        storage.sha256_folder(args.model),
        storage.sha256(args.set),
    ]
    marks += [storage.sha256(args.inversion)]
    marks.append(provenance.code_sha256("steps.edit_images"))
    prompts = editing.encode_edits(
        pipe,
        [targets[row] for row in order],
        generation.negative_prompt,
        pool,
    )
    files = storage.read_json(storage.existing(args.inversion))["files"]

    def edit(part: slice) -> dict[str, torch.Tensor]:
        sought = [owners[row] for row in order[part]]
        unique = list(dict.fromkeys(sought))
        rows = [unique.index(owner) for owner in sought]
        read = [
            _read(args.inversion.parent / f"{edits.ids[owner]}.safetensors", files)
            for owner in unique
        ]
        timesteps = read[0].timesteps
        editing.check_timesteps(timesteps, needed)
        sources = editing.Inverted(
            torch.cat([each.latents for each in read]), timesteps
        )
        features = None
        if generation.features == "activations":
            features = editing.extract_features(
                passes, config, sources, prompts, generation, hooks
            )
        latents = editing.generate(
            passes,
            config,
            sources.of(rows),
            prompts.part(part),
            generation,
            hooks,
            features,
            rows,
        )
        return {"images": sampling.decode_latents(pipe, latents)}

    with injection.Injection(pipe.unet, generation.conv_layer) as hooks:
        tensors = chunks.in_chunks(
            len(order), spec.batch_size, edit, args.state, "\n".join(marks), "edits"
        )
    images = tensors["images"][torch.tensor(order).argsort()]
    if spec.target == "source":
        images = images[list(edits.pair_sources)]
    storage.write_tensors(args.output, {"images": images}, {"spec": args.spec})
    chunks.discard(args.state)


def _read(path: Path, files: dict[str, str]) -> Inverted:
    """Read a source's latents, which must be those of the index."""
    from clockwork_diffusion.editing import Inverted

    try:
        tensors, _ = storage.read_tensors(path)
        if files.get(path.stem) != storage.sha256(path):
            raise ValueError(f"{path} is not the file that index.json lists")
    except ValueError as error:
        raise ValueError(
            f"{error}; snakemake --forcerun invert_images inverts it again, and keeps "
            "the files that are whole"
        ) from error
    timesteps = tuple(tensors["timesteps"].tolist())
    return Inverted(tensors["latents"][None], timesteps)


if __name__ == "__main__":
    parser = new_parser(__doc__)
    parser.add_argument("--spec", required=True, help="EditSpec as JSON")
    parser.add_argument("--model", required=True, type=Path, help="pipeline folder")
    parser.add_argument("--adaptor", type=Path, help="folder of a learned adaptor")
    parser.add_argument("--clip", type=Path, help="open_clip folder; for an adaptor")
    parser.add_argument("--set", required=True, type=Path, help="prepared set, JSON")
    parser.add_argument(
        "--inversion", required=True, type=Path, help="index.json of its inversion"
    )
    parser.add_argument("--state", required=True, type=Path, help="resumable state")
    parser.add_argument("--output", required=True, type=Path, help="images to write")
    run(parser, main)
