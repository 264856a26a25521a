"""Train the mini CLIP and save it as a folder that open_clip loads."""

from __future__ import annotations

from clockwork_experiments.mini import clip
from clockwork_experiments.mini.card import Card
from clockwork_experiments.mini.recipe import Job


def train(spec: clip.ClipSpec, job: Job) -> Card:
    """Train with open_clip's loss on scenes and captions, measure, save."""
    trained, tokenizer = clip.train(spec, job.state, job.device)
    model = trained.module.half().float()  # what the shipped fp16 file will hold
    quality = clip.measure(model, tokenizer)
    clip.save(model, spec, tokenizer, job.folder)
    return Card(
        "Mini CLIP",
        "An open_clip model of scenes and captions, for the CLIP score at mini "
        "scale; open_clip loads it as `local-dir:`.",
        f"{spec.images:,} scenes of the training split from number "
        f"{spec.offset:,} on, {clip.PHRASINGS} captions each",
        trained,
        {f"{name}, 1,000 validation scenes": v for name, v in quality.items()},
    )
