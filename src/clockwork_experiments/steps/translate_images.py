"""Translate one shard of a set of pairs, with the whole UNet or some levels of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import datasets, pair_sets
from clockwork_experiments.random.marks import notes
from clockwork_experiments.run import run
from clockwork_experiments.search.answers import answer_of

if TYPE_CHECKING:
    import torch

    from clockwork_experiments.data.pair_sets import PairSet
    from clockwork_experiments.generate.translate import TranslationSpec
    from clockwork_experiments.generate.translators import Translator


@dataclass(frozen=True)
class TranslateSpec:
    """How a set is translated.

    Attributes:
        translation: A `generate.translate.TranslationSpec`, as plain data.
        seed: Seed of the run; pair *i* starts from the same noise in every run of it.
        batch_size: Pairs per batch; has no influence on the images.
        level: The deepest level of the UNet to keep (depth-skip); all if left out.
        cut: Where the UNet is split, with a clock.
        kind: Kind of an adaptor without weights, which has no file.
    """

    translation: dict[str, object]
    seed: int
    batch_size: int
    level: int | None = None
    cut: str = "stage1"
    kind: str = ""

    def __post_init__(self) -> None:
        """Reject batches of nothing."""
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} is less than 1")


def translate_images(
    spec: str,
    translator: Path,
    set: Path,
    images: Path,
    state: Path,
    output: Path,
    model: Path | None = None,
    searched: Path | None = None,
    method: str = "",
    shard: int = 0,
    shards: int = 1,
) -> None:
    """Translate batch by batch; batches of a killed run are kept.

    Args:
        spec: A `TranslateSpec` as JSON, as it is noted in the images' file.
        translator: The model's folder.
        set: Prepared set, JSON.
        images: Its images, safetensors.
        state: Resumable state.
        output: Images to write.
        model: Pipeline folder that a ControlNet controls.
        searched: A search's result, for its time steps.
        method: Method that found them.
        shard: Index from 0.
        shards: Number of shards.
    """
    told = parse(TranslateSpec, spec)
    pairs = pair_sets.read_set(set)
    rows = datasets.shard_rows(len(pairs), shard, shards)
    stored, _ = pair_sets.image_rows(images, pairs)
    inputs = stored[rows.start : rows.stop]

    from clockwork_diffusion import tokens
    from clockwork_diffusion.clock import Clock
    from clockwork_experiments.base import chunks
    from clockwork_experiments.generate import runs, text

    chosen = _chosen(told, pairs, set, searched, method)
    loaded, adaptor = _load(told, chosen, translator, model)
    marks = [spec, str(chosen.visited), str(rows)]
    marks += [storage.sha256(set), storage.sha256(images)]
    marks += [storage.sha256_folder(translator)]
    marks += [storage.sha256_folder(model)] if model is not None else []
    marks += [provenance.code_sha256("steps.translate_images")]
    prompts = pairs.prompts[rows.start : rows.stop]
    tokens.count_lost(loaded.pipe.tokenizer, prompts)

    def translate(part: slice) -> dict[str, torch.Tensor]:
        numbers = range(rows.start + part.start, rows.start + part.stop)
        seeds = [text.image_seed(told.seed, index) for index in numbers]
        latents = loaded.translate(inputs[part], prompts[part], seeds, chosen)
        return {"images": loaded.decode(latents, inputs[part])}

    def described(row: int) -> str:
        return text.described(prompts[row], told.seed, rows.start + row)

    size, work = told.batch_size, "\n".join(marks)
    with runs.applied(loaded.pipe, Clock(chosen.clock), adaptor):
        tensors = chunks.in_chunks(
            len(rows), size, translate, state, work, "translations", described
        )
    noted = {"spec": spec, **notes([translator, model])}
    storage.write_tensors(output, tensors, noted)
    chunks.discard(state)


def _chosen(
    told: TranslateSpec,
    pairs: PairSet,
    prepared: Path,
    searched: Path | None,
    method: str,
) -> TranslationSpec:
    """Return how to translate, with the time steps that a search found.

    Raises:
        ValueError: If the set is for another task, or the search has no such answer.
    """
    from clockwork_experiments.generate.translate import TranslationSpec

    chosen = parse(TranslationSpec, told.translation, "spec.translation")
    if chosen.task != pairs.task:
        raise ValueError(f"{prepared} is for {pairs.task}, not for {chosen.task}")
    if searched is None:
        return chosen
    found = {searched.stem: storage.read_json(storage.existing(searched))}
    answer = answer_of(found, searched.stem, chosen.steps, method)
    return replace(chosen, timesteps=tuple(answer["timesteps"]))


def _load(
    told: TranslateSpec, chosen: TranslationSpec, translator: Path, model: Path | None
) -> tuple[Translator, Any]:
    """Return the model, at its level, and what light steps run."""
    from clockwork_diffusion import depth_skip
    from clockwork_experiments.generate import runs, translators
    from clockwork_experiments.models import loading

    device = loading.default_device()
    loaded = translators.load_translator(
        chosen.task, translator, model, device, fidelity=chosen.fidelity
    )
    if told.level is not None:
        # Not as something to undo: what is left out leaves the memory.
        loaded.pipe.unet = depth_skip.depth_skip(loaded.pipe.unet, told.level)
    if not told.kind:
        return loaded, None
    passes = runs.load_passes(
        loaded.pipe,
        translator,
        told.cut,
        scheduler=chosen.scheduler,
        steps=chosen.steps,
        kind=told.kind,
    ).passes
    return loaded, passes.adaptor


if __name__ == "__main__":
    run(translate_images)
