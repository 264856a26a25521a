"""Make a cheaper backbone out of a teacher by distillation, and save its pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets, shards
from clockwork_experiments.run import run


def make_backbone(
    spec: str,
    teacher: Path,
    images: list[Path],
    prompts: Path,
    state: Path,
    output: Path,
    quality: str = "",
) -> None:
    """Encode the images, distil, save.

    Args:
        spec: A `BackboneSpec` as JSON.
        teacher: Pipeline folder.
        images: Shards of images.
        prompts: Prompts as JSON.
        state: Resumable state.
        output: Folder to write.
        quality: Generated table that the card will show.
    """
    import torch
    from diffusers import UNet2DConditionModel

    from clockwork_diffusion import encoding
    from clockwork_experiments.mini import card
    from clockwork_experiments.models import loading
    from clockwork_experiments.train import backbones

    chosen = parse(backbones.BackboneSpec, spec)
    captions = datasets.read_prompts(prompts)
    device = loading.default_device()
    pipe = loading.load_pipeline(teacher, device)
    rows = shards.Rows(images, "images")
    if len(rows) != len(captions):
        raise ValueError(f"{len(rows)} images do not match {len(captions)} prompts")
    # Only their latents are kept, a fiftieth of the size.
    clean = torch.cat(
        [encoding.encode_images(pipe.vae, part) for part in rows.blocks(shards.IMAGES)]
    )

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> torch.Tensor:
        return pipe.encode_prompt(list(texts), device, 1, False)[0]

    data = backbones.Data(
        clean, backbones.text_features(encode, captions), encode([""])
    )
    work = [spec, provenance.code_sha256("steps.make_backbone")]
    work += [storage.sha256_folder(teacher), storage.sha256(prompts)]
    work += [storage.sha256(path) for path in images]
    trained = backbones.make_backbone(
        chosen, pipe.unet, pipe.scheduler.config, data, state, "\n".join(work)
    )
    assert isinstance(trained.module, UNet2DConditionModel)
    pipe.register_modules(unet=trained.module)
    for part in (pipe, pipe.vae):
        # Where the teacher lay says nothing to whoever loads the student.
        part.register_to_config(_name_or_path="")
    with storage.atomic_path(output) as partial:
        for part in (pipe.vae, pipe.text_encoder, pipe.unet):
            part.half()
        pipe.save_pretrained(partial)
        storage.write_checksums(partial)
        made = card.Card(
            f"Stable Diffusion with the {chosen.backbone} UNet",
            "Made from the teacher by distillation; every other part is the teacher's.",
            f"{len(captions):,} images and their captions",
            trained,
            {"mean of the last training losses": trained.last_loss},
            quality,
        )
        card.write_card(partial, chosen, made)


if __name__ == "__main__":
    run(make_backbone)
