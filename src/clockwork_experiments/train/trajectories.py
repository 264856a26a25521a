"""The teacher's trajectories, which adaptors learn from (Algorithm 1).

A trajectory is *unrolled* by sampling from noise, as the paper does, or *noised*: the
noise of every step is added to an image, which is the paper's comparator, regular
distillation; or *inverted*: the way of an image to noise, on which an adaptor for the
inversion of an edit learns (`loops.invert`). With a *policy*, an adaptor and its clock,
the latents of an unrolled trajectory are those that they lead to. Each is kept as
features, or as latents from which the teacher makes the features again when they are
asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from clockwork_diffusion.clock import Clock, steps_of_calls
from clockwork_diffusion.contract import inputs_of
from clockwork_diffusion.encoding import Prompts
from clockwork_diffusion.hook import sampling_with
from clockwork_diffusion.passes import Passes, Past
from clockwork_diffusion.plug_and_play.loops import (
    InversionSpec,
    ddim_timesteps,
    invert,
)
from clockwork_diffusion.schedulers import log_snr, new_scheduler
from clockwork_diffusion.trajectories import Picked, Recorded, Trajectories
from clockwork_diffusion.unet import SplitUNet
from clockwork_experiments.base import interruption, storage
from clockwork_experiments.generate.text import (
    SamplerSpec,
    generators,
    image_seed,
    sample,
    table_of,
)
from clockwork_experiments.train.backbones import Noise
from clockwork_experiments.train.training import generator_for

log = logging.getLogger(__name__)

SOURCES = ("unroll", "noised", "inverted")
"""Where the latents of a trajectory come from."""

OF_IMAGES = ("noised", "inverted")
"""Those of them that start from images."""

STORED = ("features", "latents")
"""What is kept of a trajectory."""

RECOMPUTED = 32
"""Samples that the teacher's UNet sees at once when it makes features again."""


def loop_of(source: str) -> str:
    """Return the loop whose steps a source shows, a value of `contract.LOOPS`."""
    return "inversion" if source == "inverted" else "sampling"


@dataclass(frozen=True)
class TrajectorySpec:
    """Which trajectories to record.

    Attributes:
        sampler: How the teacher samples; always at clock 1.
        cut: Where the features are taken.
        seed: Seed of the starting noise, or of the noise added to images.
        batch_size: Prompts per batch.
        dtype: Precision on disk, ``float16`` or ``float32``.
        source: ``unroll`` samples from noise. ``noised`` takes x_t = √ᾱ_t·x₀ +
            √(1 − ᾱ_t)·ε of an image at each step, with the same ε at all steps: regular
            distillation. ``inverted`` runs DDIM backwards from an image, with its
            prompt and without guidance: the previous step is a less noisy one.
        stored: ``features`` keeps r_in and r_out. ``latents`` keeps x_t, of which the
            teacher's UNet makes them again: far fewer bytes, and a UNet to run.
    """

    sampler: SamplerSpec
    cut: str
    seed: int
    batch_size: int
    dtype: str = "float16"
    source: str = "unroll"
    stored: str = "features"

    def __post_init__(self) -> None:
        """Reject clocks, precisions and choices that make no sense here."""
        if self.sampler.phases.needs_adaptor:
            raise ValueError(
                f"clock {self.sampler.clock}: the teacher runs in full at every step"
                if self.sampler.clock > 1
                else "adaptor steps: the teacher runs in full at every step"
            )
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype {self.dtype!r} is not float16 or float32")
        if self.source not in SOURCES:
            raise ValueError(
                f"source {self.source!r} is not one of {', '.join(SOURCES)}"
            )
        if self.source == "inverted":
            if self.sampler.scheduler != "ddim":
                raise ValueError(
                    f"source 'inverted' needs scheduler 'ddim', not "
                    f"{self.sampler.scheduler!r}"
                )
            if self.sampler.guidance != 1:
                raise ValueError(
                    "source 'inverted' needs guidance 1, not "
                    f"{self.sampler.guidance:g}: inversion has none"
                )
        if self.stored not in STORED:
            raise ValueError(f"stored {self.stored!r} is not {' or '.join(STORED)}")


class _Pass(NamedTuple):
    """What a pass yields, and the latents that it was given.

    Attributes:
        eps: The UNet's output.
        x: The latents.
        r_in: Features entering ε_L.
        r_out: What leaves it.
        left: What the next step finds of it: of a light pass, the adaptor's estimate.
    """

    eps: torch.Tensor
    x: torch.Tensor
    r_in: torch.Tensor
    r_out: torch.Tensor
    left: torch.Tensor | None = None


class _Watched(Passes):
    """The teacher's passes; each also yields what it was given."""

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Any:
        step = super().full(x, t, c, **kwargs)
        return _Pass(step.eps, x, step.r_in, step.r_out)


Policy = tuple[nn.Module, Clock]
"""An adaptor, and the clock at which it samples."""


class _Clocked(Passes):
    """A policy's passes; light ones also yield what the teacher would make of r_in."""

    def full(
        self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, **kwargs: Any
    ) -> Any:
        step = super().full(x, t, c, **kwargs)
        return _Pass(step.eps, x, step.r_in, step.r_out, step.r_out)

    def light(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c: torch.Tensor,
        past: Past,
        pooled: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        step = super().light(x, t, c, past, pooled, **kwargs)
        whole = super().full(x, t, c, **kwargs)
        return _Pass(step.eps, x, whole.r_in, whole.r_out, step.r_out)

    def keep(self, step: Any) -> torch.Tensor | None:
        return super().keep(step._replace(r_out=step.left))


def unroll(
    pipe: StableDiffusionPipeline,
    prompts: Prompts,
    spec: TrajectorySpec,
    first: int,
    clean: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Record the trajectories of some prompts, each with the noise of its place.

    Args:
        pipe: The teacher.
        prompts: N encoded prompts with their pooled embeddings.
        spec: What to record.
        first: Index of the first prompt within its set; decides the noise.
        clean: Latents of the prompts' images, ``(N, C, h, w)``, if they start from
            images.

    Returns:
        See `record`.
    """
    seeds = [image_seed(spec.seed, first + index) for index in range(len(prompts))]
    return record(pipe, prompts, spec, generators(seeds), clean)


def latent_shape(unet: UNet2DConditionModel) -> tuple[int, int, int]:
    """Return the shape of a latent image, ``(C, h, w)``."""
    size = unet.config.sample_size
    return unet.config.in_channels, size, size


def record(
    pipe: StableDiffusionPipeline,
    prompts: Prompts,
    spec: TrajectorySpec,
    drawn: Sequence[torch.Generator],
    clean: torch.Tensor | None = None,
    policy: Policy | None = None,
) -> dict[str, torch.Tensor]:
    """Run the teacher and record what the spec asks for at every step.

    Where a step has several calls, its last one counts: that is what an adaptor sees of
    a previous step.

    Args:
        pipe: The teacher.
        prompts: N encoded prompts with their pooled embeddings.
        spec: What to record.
        drawn: Draws each prompt's starting noise, or what is added to its image;
            inversion has none.
        clean: Latents of the prompts' images, ``(N, C, h, w)``, if they start from
            images.
        policy: An adaptor and its clock, which decide the latents in the teacher's
            place; what is recorded is still what the teacher makes of them.

    Returns:
        ``r_in`` and ``r_out``, ``(N, branches, steps, c, h, w)``, the empty prompt's
        branch first, and with a policy ``left``, what the next step finds; or else
        ``latents`` as the UNet sees them, ``(N, steps, C, h, w)``, which the branches
        share. ``pooled``, ``(N, branches, P)``. All on the CPU.

    Raises:
        ValueError: If what is recorded is not finite, or the images to start from are
            missing or of another size, or a policy is given where there is none.
    """
    if policy is not None and (spec.source, spec.stored) != ("unroll", "features"):
        raise ValueError(
            "a policy needs source 'unroll' and stored 'features', not "
            f"{spec.source!r} and {spec.stored!r}"
        )
    dtype = getattr(torch, spec.dtype)
    count, branches = len(prompts), spec.sampler.branches
    names = ("r_in", "r_out") if spec.stored == "features" else ("x",)
    if policy is not None:
        names = (*names, "left")
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def keep(index: int, timestep: torch.Tensor | int, step: _Pass) -> None:
        for name in names:
            value = getattr(step, name)
            rows = value.view(branches, count, *value.shape[1:]).transpose(0, 1)
            kept[name][index:] = [rows.to("cpu", dtype)]

    watched = _Watched(SplitUNet(pipe.unet, spec.cut))
    if spec.source in OF_IMAGES:
        shape = latent_shape(pipe.unet)
        clean = _checked(clean, (count, *shape), spec.source)
        if spec.source == "noised":
            noise = torch.stack([torch.randn(shape, generator=each) for each in drawn])
            _add_noise(pipe, prompts, spec, noise, clean, keep)
        else:
            inversion = InversionSpec(spec.sampler.steps)
            invert(watched, pipe.scheduler.config, clean, prompts, inversion, keep)
    elif policy is not None:
        adaptor, clock = policy
        clocked = _Clocked(watched.split, adaptor.eval())
        pool = table_of(prompts) if "text" in inputs_of(adaptor) else None
        with sampling_with(pipe, clocked, clock, pool=pool, observe=keep):
            sample(pipe, prompts, drawn, spec.sampler)
    else:
        with sampling_with(pipe, watched, observe=keep):
            sample(pipe, prompts, drawn, spec.sampler)
    tensors = {name: torch.stack(steps, dim=2) for name, steps in kept.items()}
    if "x" in tensors:
        # Both branches of guidance see the same.
        tensors["latents"] = tensors.pop("x")[:, 0].contiguous()
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} of the trajectories is not finite in {dtype}")
    assert prompts.pooled is not None and prompts.empty_pooled is not None
    pooled = prompts.pooled[:, None]
    if branches == 2:
        empty = prompts.empty_pooled.expand_as(prompts.pooled)
        pooled = torch.stack([empty, prompts.pooled], dim=1)
    return {**tensors, "pooled": pooled.cpu().float()}


def _checked(
    clean: torch.Tensor | None, shape: tuple[int, ...], source: str
) -> torch.Tensor:
    """Return the latents of images, or say what is wrong with them."""
    if clean is None or clean.shape != shape:
        given = "none" if clean is None else f"latents of shape {tuple(clean.shape)}"
        raise ValueError(
            f"source {source!r} needs latents of shape {shape}, not {given}"
        )
    return clean


@torch.inference_mode()
def _add_noise(
    pipe: StableDiffusionPipeline,
    prompts: Prompts,
    spec: TrajectorySpec,
    noise: torch.Tensor,
    clean: torch.Tensor,
    keep: Callable[[int, torch.Tensor, _Pass], None],
) -> None:
    """Show the teacher noised images in place of its own samples."""
    unet, guided = pipe.unet, spec.sampler.branches == 2
    passes = Passes(SplitUNet(unet, spec.cut))
    text = prompts.text
    if guided:
        text = torch.cat([prompts.empty.expand_as(text), text])
    schedule = Noise(pipe.scheduler.config, unet.device)
    clean, noise = clean.to(unet.device), noise.to(unet.device)
    timesteps = recorded_timesteps(spec.sampler, pipe.scheduler.config)
    for index, timestep in enumerate(timesteps):
        # Some samplers stop between two timesteps, and the schedule has none there.
        at = timestep.round().long().to(unet.device).expand(len(clean))
        alpha, sigma = schedule.at(at)
        x = (alpha * clean + sigma * noise).to(unet.dtype)
        x = torch.cat([x, x]) if guided else x
        if spec.stored == "latents":
            keep(index, timestep, _Pass(x, x, x, x))
            continue
        step = passes.full(x, timestep, text)
        keep(index, timestep, _Pass(step.eps, x, step.r_in, step.r_out))


def constants(
    pipe: StableDiffusionPipeline, prompts: Prompts, spec: TrajectorySpec
) -> dict[str, torch.Tensor]:
    """Return what a shard holds besides what `record` yields.

    Returns:
        ``t_emb``, ``(steps, E)``, and ``log_snr``, ``(steps,)``. With latents also what
        the teacher is asked with:
        ``timesteps``, ``(steps,)``; ``text``, ``(N, L, D)``; ``empty``, ``(1, L, D)``.
    """
    timesteps = timesteps_of(spec, pipe.scheduler.config)
    tensors = {
        "t_emb": time_embeddings(pipe.unet, timesteps, prompts.text),
        "log_snr": log_snr_of(spec, pipe.scheduler.config),
    }
    if spec.stored == "latents":
        like = {"device": "cpu", "dtype": getattr(torch, spec.dtype)}
        tensors["timesteps"] = timesteps.cpu()
        tensors["text"] = prompts.text.to(**like)
        tensors["empty"] = prompts.empty.to(**like)
    return tensors


def timesteps_of(spec: TrajectorySpec, scheduler_config: object) -> torch.Tensor:
    """Return the timestep of each recorded step, in the loop's own order.

    Raises:
        ValueError: If an inversion's last timestep lies beyond the model's.
    """
    if spec.source == "inverted":
        timesteps = ddim_timesteps(scheduler_config, spec.sampler.steps)
        return torch.tensor(timesteps[::-1])
    return recorded_timesteps(spec.sampler, scheduler_config)


def log_snr_of(spec: TrajectorySpec, scheduler_config: object) -> torch.Tensor:
    """Return the log-SNR of each step at the first of its calls, as sampling has it."""
    if spec.source == "inverted":
        scheduler = new_scheduler("ddim", scheduler_config, spec.sampler.steps)
        return log_snr(scheduler, timesteps_of(spec, scheduler_config))
    sampler = spec.sampler
    scheduler = new_scheduler(sampler.scheduler, scheduler_config, sampler.steps)
    owners = steps_of_calls(sampler.scheduler, sampler.steps)
    firsts = [owners.index(step) for step in range(sampler.steps)]
    return log_snr(scheduler, scheduler.timesteps[firsts])


def recorded_timesteps(sampler: SamplerSpec, scheduler_config: object) -> torch.Tensor:
    """Return the timestep of the call that `unroll` records of each step."""
    scheduler = new_scheduler(sampler.scheduler, scheduler_config, sampler.steps)
    owners = steps_of_calls(sampler.scheduler, sampler.steps)
    # Of equal keys, a dictionary keeps the last value.
    calls = {owner: call for call, owner in enumerate(owners)}
    timesteps: torch.Tensor = scheduler.timesteps[list(calls.values())]
    return timesteps


@torch.inference_mode()
def time_embeddings(
    unet: UNet2DConditionModel, timesteps: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Return the UNet's time embedding of each sampling step, ``(steps, E)``."""
    split, size = SplitUNet(unet), unet.config.sample_size
    blank = torch.zeros(1, unet.config.in_channels, size, size).to(text)
    rows = [split.condition(blank, timestep, text[:1]).t_emb for timestep in timesteps]
    return torch.cat(rows).cpu().float()


@dataclass(frozen=True)
class LatentTrajectories:
    """Trajectories of which the latents are stored; the teacher makes features of them.

    Attributes:
        latents: As the UNet sees them, ``(prompts, steps, C, h, w)``.
        timesteps: ``(steps,)``.
        text: ``(prompts, L, D)``.
        empty: ``(1, L, D)``.
        pooled: ``(N, P)``; N counts prompts × branches.
        t_emb: ``(steps, E)``.
        log_snr: ``(steps,)``.
        split: The teacher's UNet.
    """

    latents: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    empty: torch.Tensor
    pooled: torch.Tensor
    t_emb: torch.Tensor
    log_snr: torch.Tensor
    split: SplitUNet

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.pooled)

    @property
    def steps(self) -> int:
        """Number of sampling steps."""
        return self.latents.shape[1]

    @torch.no_grad()
    def pick(
        self,
        rows: torch.Tensor,
        steps: torch.Tensor,
        earlier: Sequence[torch.Tensor],
        device: torch.device,
    ) -> Picked:
        """Let the teacher make the features again; see the library's `Recorded`."""
        every = torch.cat([steps, *earlier])
        asked = torch.stack([rows.repeat(1 + len(earlier)), every])
        parts = [
            [value.to(device, torch.float32) for value in self._run(*part)]
            for part in asked.split(RECOMPUTED, dim=1)
        ]
        r_in, r_out = (torch.cat(values) for values in zip(*parts, strict=True))
        now, *before = r_out.split(len(rows))
        told = self.t_emb[steps].to(device), self.pooled[rows].to(device)
        return Picked(r_in[: len(rows)], now, tuple(before), *told)

    def _run(
        self, rows: torch.Tensor, steps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the UNet up to r_out, and return r_in and r_out."""
        branches = len(self) // len(self.latents)
        prompts = rows // branches
        text = self.text[prompts]
        if branches == 2:
            # The empty prompt's branch comes first.
            text = torch.where((rows % 2 == 0).view(-1, 1, 1), self.empty, text)
        split = self.split
        like = {"device": split.unet.device, "dtype": split.unet.dtype}
        x = self.latents[prompts, steps].to(**like)
        timesteps = self.timesteps[steps].to(split.unet.device)
        conditions = split.condition(x, timesteps, text.to(**like))
        high = split.encode(x, conditions)
        return high.r_in, split.low(high, conditions)


@dataclass(frozen=True)
class OwnTrajectories(Trajectories):
    """Trajectories of a policy's latents.

    Attributes:
        left: What the next step finds of a step: r_out where the policy's pass was
            full, its estimate elsewhere, ``(rows, steps, c_out, h, w)``.
    """

    left: torch.Tensor

    def pick(
        self,
        rows: torch.Tensor,
        steps: torch.Tensor,
        earlier: Sequence[torch.Tensor],
        device: torch.device,
    ) -> Picked:
        """Look the features up; see the library's `Recorded`."""
        left = (self.left[rows, other] for other in earlier)
        before = tuple(each.to(device, torch.float32) for each in left)
        return super().pick(rows, steps, [], device)._replace(earlier=before)


NEEDED = {
    "features": ("r_in", "r_out", "pooled", "t_emb", "log_snr"),
    "latents": (
        *("latents", "timesteps", "text", "empty", "pooled"),
        *("t_emb", "log_snr"),
    ),
}
"""Tensors of a shard by what is stored."""


def join(
    shards: Sequence[dict[str, torch.Tensor]],
    split: Callable[[], SplitUNet] | None = None,
) -> Trajectories | LatentTrajectories:
    """Join shards of one kind, complete and of equal shapes.

    Args:
        shards: What `record` and `constants` yield, joined.
        split: Loads the teacher's UNet; called only if latents are stored.

    Raises:
        ValueError: If latents are stored, and there is no teacher to load.
    """

    def joined(name: str) -> torch.Tensor:
        parts = [shard[name] for shard in shards]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    pooled = joined("pooled").flatten(0, 1)
    t_emb, of_steps = shards[0]["t_emb"], shards[0]["log_snr"]
    if "latents" not in shards[0]:
        r_in, r_out = (joined(name).flatten(0, 1) for name in ("r_in", "r_out"))
        t_emb = t_emb.expand(len(pooled), -1, -1)
        if "left" in shards[0]:
            left = joined("left").flatten(0, 1)
            return OwnTrajectories(r_in, r_out, t_emb, pooled, of_steps, left)
        return Trajectories(r_in, r_out, t_emb, pooled, of_steps)
    if split is None:
        raise ValueError("stored latents need the teacher that makes features of them")
    return LatentTrajectories(
        joined("latents"),
        shards[0]["timesteps"],
        joined("text"),
        shards[0]["empty"],
        pooled,
        t_emb,
        of_steps,
        split(),
    )


def read_trajectories(
    paths: Sequence[Path],
    teacher: str,
    split: Callable[[], SplitUNet] | None = None,
) -> Trajectories | LatentTrajectories:
    """Read shards of trajectories.

    Args:
        paths: The shards.
        teacher: SHA-256 of the weights of the teacher that they must come from.
        split: Loads the teacher's UNet; called only if latents are stored.

    Raises:
        ValueError: If a shard is damaged, of another teacher, or of another shape than
            the first; the message names it.
    """
    shards: list[dict[str, torch.Tensor]] = []
    for path in paths:
        tensors, metadata = storage.read_tensors(path)
        if metadata.get("teacher") != teacher:
            raise ValueError(
                f"{path} is of another teacher ({metadata.get('teacher', 'unknown')}); "
                f"this one is {teacher}"
            )
        stored = "latents" if "latents" in tensors else "features"
        missing = set(NEEDED[stored]) - set(tensors)
        if missing:
            raise ValueError(f"{path} lacks {', '.join(sorted(missing))}")
        if shards and _shapes(tensors) != _shapes(shards[0]):
            raise ValueError(f"{path} has other steps or features than {paths[0]}")
        shards.append(tensors)
    return join(shards, split)


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that shards of one kind share."""
    return {name: tuple(value.shape[1:]) for name, value in tensors.items()}


@dataclass(frozen=True)
class FreshTrajectories:
    """Trajectories that are recorded anew for each epoch (Algorithm 1).

    Which prompts an epoch has, and the noise of each, depend on the seed and the epoch
    alone: an epoch can be recorded again, in whole or in part.

    Attributes:
        pipe: The teacher.
        encode: Encodes prompts, and pools them.
        prompts: All prompts.
        spec: What to record of them.
        subset: Prompts per epoch; 0 takes all. No prompt comes twice before so many
            epochs have passed as the prompts have subsets.
        clean: Maps prompts' places among all to the latents of their images,
            ``(N, C, h, w)``, if their trajectories start from images.
    """

    pipe: StableDiffusionPipeline
    encode: Callable[[Sequence[str]], Prompts]
    prompts: Sequence[str]
    spec: TrajectorySpec
    subset: int
    clean: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __post_init__(self) -> None:
        """Reject a subset that is larger than the whole."""
        if self.subset > len(self.prompts):
            raise ValueError(
                f"subset {self.subset} is more than the {len(self.prompts)} prompts"
            )

    @property
    def steps(self) -> int:
        """Number of sampling steps."""
        return self.spec.sampler.steps

    @property
    def count(self) -> int:
        """Prompts per epoch."""
        return self.subset or len(self.prompts)

    def prompts_of(self, epoch: int) -> torch.Tensor:
        """Return the places of an epoch's prompts among all."""
        if not self.subset:
            return torch.arange(len(self.prompts))
        turn, place = divmod(epoch, len(self.prompts) // self.subset)
        generator = generator_for(self.spec.seed, turn)
        order = torch.randperm(len(self.prompts), generator=generator)
        return order[place * self.subset :][: self.subset]

    def of_epoch(
        self, epoch: int, part: range | None = None, policy: Policy | None = None
    ) -> Recorded:
        """Record an epoch's trajectories.

        Args:
            epoch: Which, from 0.
            part: Which of its prompts to record; all if left out.
            policy: What decides the latents; see `record`.

        Raises:
            InterruptedError: If SIGTERM came, after a batch.
        """
        places = self.prompts_of(epoch)
        if part is not None:
            places = places[part.start : part.stop]
        shards: list[dict[str, torch.Tensor]] = []
        with interruption.noticing_sigterm() as terminated:
            for batch in places.split(self.spec.batch_size):
                if terminated():
                    done = len(shards) * self.spec.batch_size
                    raise interruption.stopped(f"epoch {epoch}", done, len(places))
                drawn = [
                    generator_for(self.spec.seed, epoch, place)
                    for place in batch.tolist()
                ]
                prompts = self.encode([self.prompts[place] for place in batch.tolist()])
                clean = None if self.clean is None else self.clean(batch)
                arguments = (self.pipe, prompts, self.spec)
                tensors = record(*arguments, drawn, clean, policy)
                shards.append({**tensors, **constants(*arguments)})
        log.info("epoch %d: recorded %d prompts", epoch, len(places))
        return join(shards, lambda: SplitUNet(self.pipe.unet, self.spec.cut))


@torch.no_grad()
def bytes_per_trajectory(
    unet: UNet2DConditionModel, spec: TrajectorySpec, tokens: int, text_channels: int
) -> dict[str, int]:
    """Return what one prompt takes on disk, by what is stored.

    Args:
        unet: The teacher's UNet; may lie on the meta device.
        spec: What is recorded; ``stored`` does not count.
        tokens: Length of a prompt.
        text_channels: Channels of the pooled text embedding.
    """
    split, sampler = SplitUNet(unet, spec.cut), spec.sampler
    like = {"device": unet.device, "dtype": unet.dtype}
    x = torch.zeros(1, *latent_shape(unet), **like)
    text = torch.zeros(1, tokens, unet.config.cross_attention_dim, **like)
    step = split.full(x, torch.zeros(1, device=unet.device), text)
    size = getattr(torch, spec.dtype).itemsize
    pooled = sampler.branches * text_channels * torch.float32.itemsize
    features = step.r_in.numel() + step.r_out.numel()
    return {
        "features": sampler.branches * sampler.steps * features * size + pooled,
        "latents": (sampler.steps * x.numel() + text.numel()) * size + pooled,
    }
