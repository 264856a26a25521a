"""Train an adaptor on the trajectories of one's own pipeline (Algorithm 1).

    adaptor = train_adaptor(pipe, captions, "my-adaptor", clock=2, steps=8)
    with clockwork(pipe, clock=2, adaptor=adaptor):
        image = pipe("a red ring on the sea", num_inference_steps=8).images[0]

The whole pipeline is the teacher: it samples from noise with captions, and an observer
on the passes keeps what enters and what leaves ε_L at each step. The adaptor learns to
tell the one from the other, on the steps at which it will stand for ε_L.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn
from tqdm import tqdm

from clockwork_diffusion.adaptor_error import (
    HeldOutError,
    adaptor_steps,
    error_of,
    held_out_error,
)
from clockwork_diffusion.adaptors import (
    build_adaptor,
    is_fitted,
    is_learned,
    load_adaptor,
)
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.hook import unet_of
from clockwork_diffusion.made_for import facts_of_use
from clockwork_diffusion.pooling import POOLINGS, pool_for
from clockwork_diffusion.trajectories import Recorder, Trajectories

STATE = ".training.pt"
"""Where a training is that is not finished, in the adaptor's folder."""

FAILED = ".training.failed.pt"
"""Where the last state of one is kept whose loss was not finite."""

SAVE_SECONDS = 60.0
"""Longest time between two saves of it."""

Sample = Callable[[Sequence[str], list[torch.Generator]], Any]
"""Samples with captions, one generator each: ``sample(captions, generators)``."""


def generator_for(*key: int) -> torch.Generator:
    """Return a CPU generator for a key such as ``(seed, epoch)``."""
    seed = 0
    for part in key:
        seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(seed)


def train_adaptor(
    pipe: Any,
    captions: Sequence[str],
    folder: str | PathLike[str],
    *,
    steps: int,
    clock: int | Clock = 2,
    guidance_scale: float = 7.5,
    kind: str = "resnet",
    cut: str = "stage1",
    pooling: str | None = None,
    updates: int = 2000,
    batch_size: int = 16,
    lr: float = 1e-3,
    captions_per_epoch: int = 32,
    captions_at_once: int = 4,
    held_out: int = 8,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
    sample: Sample | None = None,
    rank: int = 0,
) -> ModelMixin:
    """Train an adaptor for a pipeline, its scheduler and a number of steps.

    Each epoch samples anew with captions drawn at random, and goes through all that an
    adaptor can learn of them once. Killed and called again with the same arguments it
    goes on; the outcome is that of a run left alone. A progress bar shows the loss.

    Args:
        pipe: The teacher: a diffusers pipeline whose UNet has Stable Diffusion's
            topology, with the scheduler that it will sample with.
        captions: What to sample; hundreds, like those that it will be asked for. The
            last ``held_out`` judge the adaptor and are not learned from.
        folder: Where the adaptor, its card (``README.md``) and the state of an
            unfinished training go.
        steps: Number of sampling steps that it is for.
        clock: Clock that it is for.
        guidance_scale: Guidance of the teacher.
        kind: A key of `clockwork_diffusion.adaptors.KINDS` that has weights, or one's
            own as ``my_package.my_module:MyAdaptor``. One with a ``fit`` (``affine``,
            ``low_rank``) is fitted to one epoch's captions, without updates.
        cut: Where the UNet is split.
        pooling: A key of `clockwork_diffusion.pooling.POOLINGS`, if it is to look at
            text as the paper's does; without is as good (Table S2).
        updates: Updates of the weights.
        batch_size: Samples per update.
        lr: Peak learning rate; a twentieth of the updates warm up, and it falls to
            zero as a cosine.
        captions_per_epoch: Captions sampled in each epoch; what is kept of them is in
            memory (32 MB each for SD v1.5 at 8 steps in half precision).
        captions_at_once: Captions per call of the pipeline.
        held_out: Captions that judge; 0 for none.
        seed: Decides the weights at the start, the captions and the noise.
        height: Of the images, in pixels; the pipeline's own if left out.
        width: Likewise.
        sample: How to sample, for pipelines that need more than captions.
        rank: Of kind ``low_rank``: the rank of its map across channels.

    Returns:
        The adaptor, float32 on the CPU, as `load_adaptor` gives it.

    Raises:
        ValueError: If an argument is not legal, the captions are too few, the folder
            holds an adaptor or another training already, the number of steps is not
            what the pipeline makes, or the loss or a feature is not finite: what was
            saved before is then kept in ``folder``, under a name that the message says.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> import tempfile
    >>> captions = ["a red ring on the sea", "a blue square on the grass"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     adaptor = train_adaptor(
    ...         pipe, captions, folder, steps=2, updates=1, batch_size=2, held_out=0
    ...     )
    >>> adaptor.inputs
    ('r_in', 'r_out')
    """
    folder = Path(folder)
    clock = clock if isinstance(clock, Clock) else Clock(clock)
    _check(folder, captions, kind, pooling, updates, batch_size, lr, held_out)
    indices = adaptor_steps(clock, steps)
    unet = unet_of(pipe)
    inputs = ("r_in", "r_out") if pooling is None else ("r_in", "r_out", "text")
    made_for = facts_of_use(unet, pipe.scheduler, clock, cut, steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adaptor = build_adaptor(
            kind,
            unet,
            cut,
            unet.config.cross_attention_dim,
            made_for=made_for,
            inputs=inputs,
            pooling=pooling,
            **({"rank": rank} if rank else {}),
        )
    if sample is None:
        sample = _sampler(pipe, steps, guidance_scale, height, width)
    recorder = Recorder(pipe, cut, pool_for(adaptor, pipe))
    teacher = _Teacher(recorder, sample, steps, seed, captions_at_once)
    recipe = {
        **{"made_for": made_for, "kind": kind, "pooling": pooling, "seed": seed},
        **{"updates": updates, "batch_size": batch_size, "lr": lr},
        **{"captions_per_epoch": captions_per_epoch, "held_out": held_out},
        **{"guidance_scale": guidance_scale, "height": height, "width": width},
        **({"rank": rank} if rank else {}),
        "captions": hashlib.sha256(json.dumps(list(captions)).encode()).hexdigest(),
    }
    judging = len(captions) - held_out
    data_of = teacher.epochs(list(captions[:judging]), captions_per_epoch)

    def loss_of(batch: tuple[Trajectories, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        error = error_of(adaptor, *batch, clock, unet.device)
        return error.flatten(1).norm(dim=1).mean()

    nn.Module.to(adaptor, unet.device, torch.float32)
    if is_fitted(kind):
        data = data_of(0)
        nn.Module.to(adaptor, "cpu").fit(data, [clock])
        losses = [(0, held_out_error(adaptor, data, clock, unet.device).l2)]
    else:
        batches = _Batches(data_of, indices, batch_size, seed)
        losses = _fit(adaptor, batches, loss_of, recipe, folder / STATE)
    # Judged is what is saved: the weights in half precision.
    nn.Module.half(adaptor)
    judged = None
    if held_out:
        data = teacher.record(captions[judging:], -1)
        nn.Module.float(adaptor)
        judged = held_out_error(adaptor, data, clock, unet.device)
    return _saved(adaptor, folder, _card(recipe, losses, judged))


def _saved(adaptor: Any, folder: Path, card: str) -> ModelMixin:
    """Write an adaptor and its card, and return it as it is read from there."""
    nn.Module.half(adaptor).save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    for name in (STATE, FAILED):
        (folder / name).unlink(missing_ok=True)
    loaded: ModelMixin = load_adaptor(folder, trust=True)
    return loaded


@dataclass(frozen=True)
class _Teacher:
    """A pipeline that samples, and what is kept of it.

    Attributes:
        recorder: Keeps what the pipeline does.
        sample: How to sample.
        steps: Number of sampling steps that there must be.
        seed: Decides the captions and the noise.
        at_once: Captions per call of the pipeline.
    """

    recorder: Recorder
    sample: Sample
    steps: int
    seed: int
    at_once: int

    def record(self, captions: Sequence[str], epoch: int) -> Trajectories:
        """Sample with captions; the noise follows from the epoch and their places."""
        with self.recorder.recording():
            for start in range(0, len(captions), self.at_once):
                part = captions[start : start + self.at_once]
                places = range(start, start + len(part))
                noise = [generator_for(self.seed, epoch, place) for place in places]
                self.sample(part, noise)
                self.recorder.end_batch()
        data = self.recorder.take()
        if data.steps != self.steps:
            raise ValueError(
                f"the pipeline made {data.steps} steps, and not {self.steps}"
            )
        return data

    def epochs(
        self, captions: Sequence[str], count: int
    ) -> Callable[[int], Trajectories]:
        """Return what records an epoch, with so many captions drawn at random."""

        def of_epoch(epoch: int) -> Trajectories:
            generator = generator_for(self.seed, epoch)
            order = torch.randperm(len(captions), generator=generator)
            return self.record([captions[at] for at in order[:count]], epoch)

        return of_epoch


def _check(
    folder: Path,
    captions: Sequence[str],
    kind: str,
    pooling: str | None,
    updates: int,
    batch_size: int,
    lr: float,
    held_out: int,
) -> None:
    """Reject what makes no training."""
    if isinstance(captions, str):
        raise ValueError("captions are one text; give a list of texts")
    if not is_learned(kind):
        raise ValueError(f"adaptor kind {kind!r} has nothing to train")
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
    for name, value in (("updates", updates), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} {value} is less than 1")
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr {lr} is not a positive number")
    if not 0 <= held_out < len(captions):
        raise ValueError(f"held_out {held_out} of {len(captions)} captions leaves none")
    if (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds an adaptor already; give another folder")


def _sampler(
    pipe: Any,
    steps: int,
    guidance_scale: float,
    height: int | None,
    width: int | None,
) -> Sample:
    """Return how to sample latents with captions, as most pipelines do it."""
    size = {"height": height, "width": width}
    given = {name: value for name, value in size.items() if value is not None}

    def sample(captions: Sequence[str], generators: list[torch.Generator]) -> Any:
        before = dict(getattr(pipe, "_progress_bar_config", {}))
        pipe.set_progress_bar_config(disable=True)
        try:
            return pipe(
                list(captions),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=generators,
                output_type="latent",
                **given,
            )
        finally:
            pipe.set_progress_bar_config(**before)

    return sample


class _Batches:
    """The batches of a training, each a function of the update's number alone."""

    def __init__(
        self,
        data_of: Callable[[int], Trajectories],
        indices: torch.Tensor,
        size: int,
        seed: int,
    ) -> None:
        self.data_of, self.indices, self.size, self.seed = data_of, indices, size, seed
        self._data: Trajectories | None = None
        self._epoch = self._updates = 0

    def of(self, update: int) -> tuple[Trajectories, torch.Tensor, torch.Tensor]:
        """Return an epoch's trajectories, and the rows and steps of a batch."""
        if self._data is None:
            # Each epoch yields as many samples as the first.
            self._data = self.data_of(0)
            self._updates = -(-len(self._data) * len(self.indices) // self.size)
        epoch, place = divmod(update, self._updates)
        if epoch != self._epoch:
            self._data, self._epoch = self.data_of(epoch), epoch
        count = len(self._data) * len(self.indices)
        order = torch.randperm(count, generator=generator_for(self.seed, epoch, -1))
        chosen = order[place * self.size :][: self.size]
        at = chosen % len(self.indices)
        return self._data, chosen // len(self.indices), self.indices[at]


def _fit(
    adaptor: nn.Module,
    batches: _Batches,
    loss_of: Callable[[tuple[Trajectories, torch.Tensor, torch.Tensor]], torch.Tensor],
    recipe: dict[str, Any],
    state: Path,
) -> list[tuple[int, float]]:
    """Minimise the loss, from where a state of the same recipe left it.

    Returns:
        Some updates and their losses.
    """
    updates, lr = recipe["updates"], recipe["lr"]
    optimizer = torch.optim.Adam(adaptor.parameters(), lr=lr)
    start, losses = 0, [(0, 0.0)][:0]
    if state.is_file():
        known = torch.load(state, weights_only=True, map_location="cpu")
        if known["recipe"] != json.dumps(recipe):
            raise ValueError(
                f"{state} is of a training with other arguments; delete it to begin "
                "anew, or give another folder"
            )
        adaptor.load_state_dict(known["adaptor"])
        optimizer.load_state_dict(known["optimizer"])
        start, losses = known["update"], [(int(u), v) for u, v in known["losses"]]
    # Kept on the device, so that no update waits for it.
    first_bad = torch.full((), -1, device=next(adaptor.parameters()).device)
    saved = time.monotonic()
    bar = tqdm(range(start, updates), initial=start, total=updates, desc="adaptor")
    for update in bar:
        warm = min(1.0, (update + 1) / max(1, updates // 20))
        fall = 0.5 * (1 + math.cos(math.pi * update / updates))
        for group in optimizer.param_groups:
            group["lr"] = lr * warm * fall
        with torch.enable_grad():
            loss = loss_of(batches.of(update))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        optimizer.step()
        first_bad.masked_fill_((first_bad < 0) & ~loss.detach().isfinite(), update)
        shown = update % max(1, updates // 100) == 0 or update == updates - 1
        due = time.monotonic() - saved > SAVE_SECONDS or update == updates - 1
        if shown or due:
            _refuse(int(first_bad), state)
        if shown:
            losses.append((update, float(loss)))
            bar.set_postfix(loss=f"{losses[-1][1]:.4g}")
        if due:
            # A finite loss may have a gradient that is not.
            finite = all(bool(each.isfinite().all()) for each in adaptor.parameters())
            _refuse(-1 if finite else update, state)
            _save(state, adaptor, optimizer, recipe, update + 1, losses)
            saved = time.monotonic()
    return losses


def _refuse(update: int, state: Path) -> None:
    """End a training whose loss was not finite at an update; -1 is none.

    Its last state is kept, out of the way of a training with other arguments.
    """
    if update < 0:
        return
    kept = ""
    if state.is_file():
        failed = state.with_name(FAILED)
        os.replace(state, failed)
        kept = f"; what was saved last is {failed}"
    raise ValueError(
        f"the loss, or its gradient, is not finite at update {update}; a lower lr may "
        f"keep it so{kept}"
    )


def _save(
    path: Path,
    adaptor: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: dict[str, Any],
    update: int,
    losses: list[tuple[int, float]],
) -> None:
    """Write the state of a training in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "recipe": json.dumps(recipe),
            "adaptor": adaptor.state_dict(),
            "optimizer": optimizer.state_dict(),
            "update": update,
            "losses": losses,
        },
        partial,
    )
    os.replace(partial, path)


def _card(
    recipe: dict[str, Any],
    losses: list[tuple[int, float]],
    judged: HeldOutError | None,
) -> str:
    """Return an adaptor's card, in Markdown as the hub has it."""
    facts = dict(recipe["made_for"])
    facts.pop("weights")
    clock = {name: facts[name] for name in ("clock", "adaptor_steps") if name in facts}
    (call,) = (f"{name}={value!r}" for name, value in clock.items())
    rows = {**facts, **{name: recipe[name] for name in recipe if name != "made_for"}}
    lines = [f"| {name.replace('_', ' ')} | {value} |" for name, value in rows.items()]
    error = "Not judged: no caption was held out."
    if judged is not None:
        share = judged.l2 / judged.identity_l2
        error = (
            f"On {recipe['held_out']} captions held out, its estimates lie "
            f"{judged.l2:.4g} from the teacher's features (mean L2), and the "
            f"features of the step before {judged.identity_l2:.4g}: {share:.0%} of the "
            "error of reusing them."
        )
    return "\n".join(
        [
            "---",
            "library_name: clockwork-diffusion",
            "tags: [clockwork-diffusion, adaptor]",
            "---",
            "# A Clockwork adaptor",
            "",
            "It stands for the low-resolution part of a UNet on some sampling steps",
            "(Clockwork Diffusion, CVPR 2024), and is for one checkpoint, scheduler",
            "and number of steps:",
            "",
            "```py",
            "from clockwork_diffusion import clockwork, load_adaptor",
            "",
            'adaptor = load_adaptor("…")  # this folder',
            f"with clockwork(pipe, {call}, adaptor=adaptor):",
            f'    image = pipe("…", num_inference_steps={facts["steps"]}).images[0]',
            "```",
            "",
            "| made for, and trained with | |",
            "|---|---|",
            *lines,
            "",
            f"{error} The loss went from {losses[0][1]:.4g} to {losses[-1][1]:.4g}.",
            "",
        ]
    )
