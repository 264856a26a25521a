"""Text-guided editing by Plug-and-Play: DDIM inversion and generation, with a clock.

A source image is *inverted* (DDIM run backwards, without guidance, with a prompt that
describes it), and the latent of every timestep is kept. *Generation* denoises the last
of them towards a target prompt, while the source, denoised beside it from the kept
latents, lends its features (`injection`). Clockwork saves in both loops, each with a
clock and an adaptor of its own. On adaptor steps ε_L is not run, and nothing is
injected there; the self-attention of ε_H still gets its injection (our choice).

As in pnp-diffusers: a batch holds [source with the empty prompt, negative prompt,
target prompt], three times the rows of one image; τ_f and τ_A are fractions of the
generation steps, cut to whole steps. Two options that the Clockwork paper names and did
not build (Section 5.3) give the same image for less: see `GenerationSpec`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import StableDiffusionPipeline

from clockwork_diffusion.clock import Clock
from clockwork_diffusion.encoding import Prompts, encode_prompts
from clockwork_diffusion.finite import check_finite, step_name
from clockwork_diffusion.passes import Memory, UNetPasses
from clockwork_diffusion.plug_and_play.injection import (
    CONV_LAYER,
    FeatureStore,
    Injection,
)
from clockwork_diffusion.schedulers import log_snr, new_scheduler

FEATURES = ("latents", "activations")
"""What inversion keeps for the source row of generation."""


@dataclass(frozen=True)
class InversionSpec:
    """How a source image is inverted.

    Attributes:
        steps: Number of DDIM steps.
        clock: Runs the whole UNet once in so many steps; 1 at every step.
    """

    steps: int
    clock: int = 1

    def __post_init__(self) -> None:
        """Reject clocks and numbers of steps that cannot run."""
        Clock(self.clock).full_steps(self.steps)


@dataclass(frozen=True)
class GenerationSpec:
    """How an edit is generated (Table S4).

    Attributes:
        steps: Number of DDIM steps.
        guidance: Scale of classifier-free guidance; 1 turns it off, and with it the
            negative prompt's third of the batch.
        tau_f: Fraction of the steps, from the first, with injected conv features (τ_f).
        tau_a: Fraction of the steps with injected queries and keys (τ_A).
        negative_prompt: What guidance leads away from.
        conv_layer: The layer whose conv features are injected; see `layers_of`.
        clock: Runs the whole UNet once in so many steps; 1 at every step.
        drop_source: Leave the source out of the batch once its features are no longer
            injected. The same image for less.
        features: ``latents`` computes the source's features beside each of its edits;
            ``activations`` computes them once, with the inversion, and keeps them. The
            same image for less if a source has several target prompts, and for far
            more memory.
    """

    steps: int
    guidance: float
    tau_f: float
    tau_a: float
    negative_prompt: str = ""
    conv_layer: str = CONV_LAYER
    clock: int = 1
    drop_source: bool = False
    features: str = "latents"

    def __post_init__(self) -> None:
        """Reject values that make no generation."""
        Clock(self.clock).full_steps(self.steps)
        if self.guidance < 1:
            raise ValueError(f"guidance {self.guidance} is less than 1")
        for name in ("tau_f", "tau_a"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is not within 0 and 1")
        if self.features not in FEATURES:
            raise ValueError(
                f"features {self.features!r} is not {' or '.join(FEATURES)}"
            )

    @property
    def conv_steps(self) -> int:
        """Number of steps with injected conv features."""
        return int(self.steps * self.tau_f)

    @property
    def attention_steps(self) -> int:
        """Number of steps with injected queries and keys."""
        return int(self.steps * self.tau_a)

    @property
    def injected_steps(self) -> int:
        """Number of steps at the beginning that need the source at all."""
        return max(self.conv_steps, self.attention_steps)

    @property
    def branches(self) -> int:
        """Rows of one edit without its source's: 2 with guidance, else 1."""
        return 2 if self.guidance > 1 else 1


class Inverted(NamedTuple):
    """Latents of source images at every timestep of their inversion.

    Attributes:
        latents: ``(N, steps, C, h, w)``, from little noise to much.
        timesteps: Their timesteps, ascending.
    """

    latents: torch.Tensor
    timesteps: tuple[int, ...]

    def at(self, timestep: int) -> torch.Tensor:
        """Return the latents at a timestep, ``(N, C, h, w)``."""
        return self.latents[:, self.timesteps.index(timestep)]

    def of(self, rows: Sequence[int]) -> Inverted:
        """Return some of the sources, in an order that may repeat."""
        return Inverted(self.latents[list(rows)], self.timesteps)


class EditPrompts(NamedTuple):
    """Encoded prompts of some edits.

    Attributes:
        targets: Target prompts, one row per edit; their empty prompt is the source's.
        negative: Features of the negative prompt, ``(1, L, D)``.
        negative_pooled: Its pooled embedding, ``(1, P)``, or None.
    """

    targets: Prompts
    negative: torch.Tensor
    negative_pooled: torch.Tensor | None = None

    def part(self, index: slice) -> EditPrompts:
        """Return some of the edits."""
        return EditPrompts(self.targets[index], self.negative, self.negative_pooled)


def encode_edits(
    pipe: StableDiffusionPipeline,
    targets: Sequence[str],
    negative: str,
    pool: Callable[[Sequence[str]], torch.Tensor] | None = None,
) -> EditPrompts:
    """Encode target prompts, and the negative prompt that they share.

    Args:
        pipe: The pipeline.
        targets: The target prompts.
        negative: The negative prompt.
        pool: As for `encode_prompts`.
    """
    encoded = encode_prompts(pipe, [negative, *targets], pool)
    pooled = None if encoded.pooled is None else encoded.pooled[:1]
    return EditPrompts(encoded[slice(1, None)], encoded.text[:1], pooled)


# --- timesteps ------------------------------------------------------------------------


def ddim_timesteps(scheduler_config: object, steps: int) -> tuple[int, ...]:
    """Return the timesteps of a DDIM generation, descending.

    Raises:
        ValueError: If the model has fewer timesteps, or the last lies beyond them; 1000
            steps of SD's schedule, which starts at 1, do, and pnp-diffusers takes 999.
    """
    trained = int(dict(scheduler_config)["num_train_timesteps"])  # type: ignore[call-overload]
    if not 1 <= steps <= trained:
        raise ValueError(f"{steps} DDIM steps are not between 1 and {trained}")
    scheduler = new_scheduler("ddim", scheduler_config, steps)
    timesteps = tuple(int(timestep) for timestep in scheduler.timesteps)
    if max(timesteps) >= trained:
        raise ValueError(
            f"{steps} DDIM steps reach timestep {max(timesteps)}, and the model has 0 "
            f"to {trained - 1}; take {steps - 1} steps"
        )
    return timesteps


def check_timesteps(inversion: Sequence[int], generation: Sequence[int]) -> None:
    """Make sure that every generation timestep has an inverted latent.

    Raises:
        ValueError: If one has none; the message lists both grids.
    """
    missing = sorted(set(generation) - set(inversion))
    if missing:
        raise ValueError(
            f"inversion keeps no latent for {len(missing)} of the {len(generation)} "
            f"timesteps of generation, such as {missing[0]}: inversion visits "
            f"{_grid(inversion)}, generation {_grid(generation)}"
        )


def _grid(timesteps: Sequence[int]) -> str:
    """List timesteps; a regular grid of many as its ends and its step."""
    ordered = sorted(timesteps)
    gaps = {after - before for before, after in zip(ordered, ordered[1:], strict=False)}
    if len(ordered) <= 12 or len(gaps) > 1:
        return ", ".join(map(str, ordered))
    first = ", ".join(map(str, ordered[:3]))
    return f"{first}, …, {ordered[-1]} ({len(ordered)}, {gaps.pop()} apart)"


# --- inversion ------------------------------------------------------------------------


@torch.inference_mode()
def invert(
    passes: UNetPasses,
    scheduler_config: object,
    latents: torch.Tensor,
    prompts: Prompts,
    spec: InversionSpec,
    on_step: Callable[[int, int, Any], None] | None = None,
) -> Inverted:
    """Run DDIM backwards, from images to noise.

    Every image's rows depend on that image alone. As pnp-diffusers does, the step to
    timestep t asks the UNet about the latent before it, as if it had t's noise already.

    Args:
        passes: The UNet's passes.
        scheduler_config: Configuration of the model's own scheduler.
        latents: Of the source images, ``(N, C, h, w)``.
        prompts: Source prompts, N of them, encoded.
        spec: How to invert.
        on_step: Called after each pass with the step's index from 0, its timestep, and
            what the pass yielded.

    Raises:
        ValueError: If the clock needs an adaptor, or the schedule lacks the steps.
    """
    clock, memory = Clock(spec.clock), Memory()
    passes.check(clock)
    timesteps = ddim_timesteps(scheduler_config, spec.steps)[::-1]
    scheduler = new_scheduler("ddim", scheduler_config, spec.steps)
    unet = passes.unet
    x = latents.to(unet.device, unet.dtype)
    before = scheduler.final_alpha_cumprod
    kept, levels = [], log_snr(scheduler, torch.tensor(timesteps))
    for index, timestep in enumerate(timesteps):
        t = torch.tensor(timestep, device=unet.device)
        given = (x, t, prompts.text, prompts.pooled)
        step = memory.run(passes, clock, index, *given, log_snr=levels)
        if on_step is not None:
            on_step(index, timestep, step)
        after = scheduler.alphas_cumprod[timestep]
        kind = scheduler.config.prediction_type
        clean, noise = _parts(x, step.eps, before, after, kind)
        x = after.sqrt().item() * clean + (1 - after).sqrt().item() * noise
        check_finite(x, f"inverted {step_name(index, timestep)}")
        kept.append(x)
        before = after
    return Inverted(torch.stack(kept, dim=1), timesteps)


def _parts(
    x: torch.Tensor,
    output: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    kind: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the clean image and the noise that a latent and a prediction amount to.

    The latent has the noise of ``before`` and the UNet was told ``after``. A v is
    v = √ᾱ·ε − √(1 − ᾱ)·x₀ at the latter, so both equations are solved for x₀ and ε;
    of equal noise, that is v-prediction's usual rule. On the mini model it
    reconstructs better (48.5 dB at 50 steps) than taking either noise for both
    (46.5, 46.7).
    """
    a, s = before.sqrt().item(), (1 - before).sqrt().item()
    if kind == "epsilon":
        return (x - s * output) / a, output
    if kind != "v_prediction":
        raise ValueError(
            f"prediction type {kind!r} cannot be inverted; epsilon and v_prediction can"
        )
    b, r = after.sqrt().item(), (1 - after).sqrt().item()
    both = a * b + s * r
    return (b * x - s * output) / both, (r * x + a * output) / both


# --- generation -----------------------------------------------------------------------


def edit(
    passes: UNetPasses,
    scheduler_config: object,
    inverted: Inverted,
    prompts: EditPrompts,
    spec: GenerationSpec,
    rows: Sequence[int],
    spill: Path | None = None,
) -> torch.Tensor:
    """Generate edits of inverted sources, from kept features if the spec says so.

    Args:
        passes: The UNet's passes.
        scheduler_config: Configuration of the model's own scheduler.
        inverted: The sources.
        prompts: The edits' prompts, N of them.
        spec: How to generate.
        rows: The row of each edit's source within ``inverted``.
        spill: Folder for kept features; in memory if left out.

    Returns:
        Latents, ``(N, C, h, w)``.

    Raises:
        ValueError: As `extract_features` and `generate`.
    """
    features, config = None, scheduler_config
    with Injection(passes.unet, spec.conv_layer) as hooks:
        if spec.features == "activations":
            store = FeatureStore(spill)
            features = extract_features(
                passes, config, inverted, prompts, spec, hooks, store
            )
        own = inverted.of(rows)
        return generate(passes, config, own, prompts, spec, hooks, features, rows)


@torch.inference_mode()
def extract_features(
    passes: UNetPasses,
    scheduler_config: object,
    inverted: Inverted,
    prompts: EditPrompts,
    spec: GenerationSpec,
    injection: Injection,
    store: FeatureStore | None = None,
) -> FeatureStore:
    """Compute the features that a generation will inject, once for all its prompts.

    The source is denoised from its kept latents with the empty prompt, on the
    generation's own steps and clock, so that an edit comes out as with the source in
    its batch. (The features that inversion itself passes by are others: it asks about
    the latent *before* each timestep, with the source prompt.)

    Args:
        passes: The UNet's passes.
        scheduler_config: Configuration of the model's own scheduler.
        inverted: N sources.
        prompts: Any edits; only their empty prompt counts.
        spec: The generation.
        injection: Hooks on the UNet, within their context.
        store: Where to keep the features; in memory if left out.

    Raises:
        ValueError: If the clock needs an adaptor, inversion kept no latent for a
            timestep, or the hooks are at another conv layer.
    """
    clock, timesteps = _prepared(passes, scheduler_config, inverted, spec, injection)
    memory, store = Memory(), FeatureStore() if store is None else store
    unet, targets, count = passes.unet, prompts.targets, len(inverted.latents)
    text = targets.empty.expand(count, -1, -1)
    pooled = targets.empty_pooled
    pooled = None if pooled is None else pooled.expand(count, -1)
    scheduler = new_scheduler("ddim", scheduler_config, spec.steps)
    levels = log_snr(scheduler, torch.tensor(timesteps))
    for index, timestep in enumerate(timesteps[: spec.injected_steps]):
        features = injection.record(
            conv=index < spec.conv_steps, attention=index < spec.attention_steps
        )
        x = inverted.at(timestep).to(unet.device, unet.dtype)
        t = torch.tensor(timestep, device=unet.device)
        memory.run(passes, clock, index, x, t, text, pooled, log_snr=levels)
        store.put(index, features)
    injection.off()
    return store


@torch.inference_mode()
def generate(
    passes: UNetPasses,
    scheduler_config: object,
    inverted: Inverted,
    prompts: EditPrompts,
    spec: GenerationSpec,
    injection: Injection,
    features: FeatureStore | None = None,
    rows: Sequence[int] | None = None,
) -> torch.Tensor:
    """Generate edits of inverted sources (Plug-and-Play).

    Args:
        passes: The UNet's passes.
        scheduler_config: Configuration of the model's own scheduler.
        inverted: The source of each edit, N of them.
        prompts: Their prompts, N of them.
        spec: How to generate.
        injection: Hooks on the UNet, within their context.
        features: What `extract_features` kept; needed by, and only by, ``activations``.
        rows: The row of each edit's source within ``features``; one each if left out.

    Returns:
        Latents, ``(N, C, h, w)``.

    Raises:
        ValueError: If the clock needs an adaptor, inversion kept no latent for a
            timestep, the hooks are at another conv layer, or the features do not go
            with the spec.
    """
    if (features is None) != (spec.features == "latents"):
        given = "none" if features is None else "some"
        raise ValueError(
            f"features {spec.features!r} of the generation, and {given} were given"
        )
    clock, timesteps = _prepared(passes, scheduler_config, inverted, spec, injection)
    memory = Memory()
    scheduler = new_scheduler("ddim", scheduler_config, spec.steps)
    levels = log_snr(scheduler, torch.tensor(timesteps))
    unet, count = passes.unet, len(prompts.targets)
    text, pooled = _conditions(prompts, spec)
    picked = list(range(count)) if rows is None else list(rows)
    x = inverted.at(timesteps[0]).to(unet.device, unet.dtype)
    with_source = spec.features == "latents"
    if not with_source:
        text, pooled = _without_source(text, pooled, count)
    for index, timestep in enumerate(timesteps):
        conv, attention = index < spec.conv_steps, index < spec.attention_steps
        if with_source and spec.drop_source and index >= spec.injected_steps:
            with_source = False
            text, pooled = _without_source(text, pooled, count)
            memory.keep_rows(slice(count, None))
        batch = torch.cat([x] * spec.branches)
        if with_source:
            source = inverted.at(timestep).to(batch)
            batch = torch.cat([source, batch])
            injection.share(count, conv=conv, attention=attention)
        elif features is not None and (conv or attention):
            kept = features.get(index)
            kept = {name: value[picked] for name, value in kept.items()}
            injection.replay(kept, conv=conv, attention=attention)
        else:
            injection.off()
        t = torch.tensor(timestep, device=unet.device)
        step = memory.run(passes, clock, index, batch, t, text, pooled, log_snr=levels)
        output = step.eps[count:] if with_source else step.eps
        if spec.branches == 2:
            negative, target = output.chunk(2)
            output = negative + spec.guidance * (target - negative)
        x = scheduler.step(output, timestep, x, return_dict=False)[0]
        check_finite(x, step_name(index, timestep))
    injection.off()
    return x


def _prepared(
    passes: UNetPasses,
    scheduler_config: object,
    inverted: Inverted,
    spec: GenerationSpec,
    injection: Injection,
) -> tuple[Clock, tuple[int, ...]]:
    """Return a generation's clock and timesteps, once all goes together."""
    if injection.conv_layer != spec.conv_layer:
        raise ValueError(
            f"the injection is at conv layer {injection.conv_layer!r}, "
            f"and the generation's is {spec.conv_layer!r}"
        )
    clock = Clock(spec.clock)
    passes.check(clock)
    timesteps = ddim_timesteps(scheduler_config, spec.steps)
    check_timesteps(inverted.timesteps, timesteps)
    return clock, timesteps


def _conditions(
    prompts: EditPrompts, spec: GenerationSpec
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return text features and pooled embeddings: source, negative, target."""
    targets = prompts.targets
    like = targets.text
    parts = [targets.empty.expand_as(like), prompts.negative.expand_as(like), like]
    chosen = parts if spec.branches == 2 else [parts[0], parts[2]]
    pooled = targets.pooled
    if pooled is None:
        return torch.cat(chosen), None
    assert targets.empty_pooled is not None and prompts.negative_pooled is not None
    embeddings = [
        targets.empty_pooled.expand_as(pooled),
        prompts.negative_pooled.expand_as(pooled),
        pooled,
    ]
    if spec.branches == 1:
        del embeddings[1]
    return torch.cat(chosen), torch.cat(embeddings)


def _without_source(
    text: torch.Tensor, pooled: torch.Tensor | None, count: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return text[count:], None if pooled is None else pooled[count:]
