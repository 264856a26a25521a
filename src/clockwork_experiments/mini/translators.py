"""Train the mini translators: image-to-image models made from the mini teacher.

Each starts from the teacher's weights, as the published ones start from Stable
Diffusion's, and differs from it as they do:

- ``edit`` (InstructPix2Pix): the UNet takes the input's latents as four more channels,
  whose weights start at zero; prompts are instructions. SD's text encoder can read
  instructions before; ours knows captions alone, so it learns to read them first, and
  is then trained with the UNet.
- ``inpainting`` and ``synthesis``: the same UNet with the empty prompt. One model may
  learn them beside its edits: what there is to do can be seen from the input.
- ``control`` (ControlNet): a copy of the UNet's encoder sees Canny edges; the UNet and
  the text encoder stay as they are.
- ``restoration`` (StableSR): the structure encoder and the SPADE layers learn; the UNet
  stays as it is, and the prompt is empty.

Like the teacher, all predict v, and see some samples as sampling starts: noise alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from diffusers import (
    ConfigMixin,
    ControlNetModel,
    DiffusionPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel

from clockwork_diffusion.encoding import encode_images
from clockwork_diffusion.stablesr.pipeline import StableSRPipeline
from clockwork_diffusion.stablesr.spade import (
    SpadeUNet,
    calibrate_spade,
    spades,
)
from clockwork_diffusion.stablesr.structure_encoder import StructureEncoder
from clockwork_experiments.generate.tasks import JOINED, PROMPTED, check_task
from clockwork_experiments.generate.text import image_seed
from clockwork_experiments.generate.translate import TranslationSpec
from clockwork_experiments.generate.translators import load_translator
from clockwork_experiments.mini.cfw import FuseSpec
from clockwork_experiments.mini.teacher import Reader, tokenize
from clockwork_experiments.models.loading import default_device
from clockwork_experiments.score.metrics import psnr
from clockwork_experiments.train.training import (
    Optimisation,
    Trained,
    fit,
    generator_for,
)
from clockwork_experiments.world import edits, scenes
from clockwork_experiments.world.pairs import Pairs


@dataclass(frozen=True)
class StableSRParts:
    """What StableSR adds to a UNet, by channels.

    Attributes:
        structure: Channels of the structure, at every resolution.
        spade: Channels between structure and modulation.
        encoder: Channels of the structure encoder, from the highest resolution.
        fuse: The decoder's fuse blocks, trained after everything else.
    """

    structure: int
    spade: int
    encoder: tuple[int, int, int, int]
    fuse: FuseSpec


@dataclass(frozen=True)
class TranslatorSpec:
    """Data and recipe of a mini translator.

    Attributes:
        task: What it is for, a key of `clockwork_experiments.generate.tasks.TASKS`.
        pairs: Number of training pairs.
        offset: First scene, counted within the training split.
        optimisation: The recipe.
        reading: The recipe by which the text encoder learns to read instructions; for
            ``edit`` alone.
        parts: What StableSR adds; for ``restoration`` alone.
        empty_prompts: Share of samples without the prompt, for guidance.
        empty_inputs: Share of samples without the input image, for its guidance, and
            as many again without either.
        beside: For ``edit``, tasks without prompts that the same model learns, from as
            many pairs each.
        blind_share: Share of samples that show noise alone, at a timestep from which a
            sampler may start; their target is the clean image's.
        blind_from: First such timestep.
        judged: Number of validation pairs that its card reports on.
    """

    task: str
    pairs: int
    offset: int
    optimisation: Optimisation
    reading: Optimisation | None = None
    parts: StableSRParts | None = None
    empty_prompts: float = 0.0
    empty_inputs: float = 0.0
    beside: tuple[str, ...] = ()
    blind_share: float = 0.15
    blind_from: int = 850
    judged: int = 128

    def __post_init__(self) -> None:
        """Reject tasks that there are not, and recipes that do not fit them."""
        check_task(self.task)
        if (self.reading is not None) != (self.task == "edit"):
            raise ValueError(f"task {self.task!r} and a recipe for reading do not fit")
        for other in self.beside:
            if self.task != "edit" or other not in JOINED or other in PROMPTED:
                raise ValueError(f"task {self.task!r} does not learn {other!r} beside")
        if (self.parts is not None) != (self.task == "restoration"):
            raise ValueError(f"task {self.task!r} and parts of StableSR do not fit")
        if not 0 <= self.empty_prompts + 2 * self.empty_inputs <= 1:
            raise ValueError(
                f"empty_prompts {self.empty_prompts} and empty_inputs "
                f"{self.empty_inputs} leave no sample with both"
            )


class Joined(nn.Module):
    """UNet that takes the input's latents as further channels, and its text encoder."""

    def __init__(
        self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, learns: bool
    ) -> None:
        """Take a UNet as it is; copy a text encoder, which ``learns`` or does not."""
        super().__init__()
        self.unet = unet
        self.text_encoder = copy.deepcopy(text_encoder).requires_grad_(learns)

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        inputs: torch.Tensor,
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Predict v for noisy and input latents ``(N, 4, h, w)``, tokens ``(N, L)``."""
        text = self.text_encoder(tokens).last_hidden_state
        v: torch.Tensor = self.unet(torch.cat([noisy, inputs], 1), timesteps, text)[0]
        return v


class Controlled(nn.Module):
    """ControlNet beside a UNet and a text encoder that stay as they are."""

    def __init__(
        self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, factor: int
    ) -> None:
        """Copy the UNet's encoder; ``factor`` is pixels per latent, a power of 2."""
        super().__init__()
        widths = (16, 32, 64, 128)[: factor.bit_length()]
        self.controlnet = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=widths
        )
        self.unet = copy.deepcopy(unet).requires_grad_(False)
        self.text_encoder = copy.deepcopy(text_encoder).requires_grad_(False)

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        inputs: torch.Tensor,
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Predict v for latents ``(N, 4, h, w)``, edges ``(N, 3, H, W)`` in [0, 1]."""
        text = self.text_encoder(tokens).last_hidden_state
        skips, middle = self.controlnet(
            noisy, timesteps, text, inputs, return_dict=False
        )
        v: torch.Tensor = self.unet(
            noisy,
            timesteps,
            text,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
        )[0]
        return v


class Restored(nn.Module):
    """StableSR: a UNet with SPADE, and the structure encoder that it listens to."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        parts: StableSRParts,
    ) -> None:
        """Put SPADE into a UNet, all of which stays as it is but SPADE."""
        super().__init__()
        self.unet = SpadeUNet.from_unet(
            unet, structure_channels=parts.structure, spade_channels=parts.spade
        ).requires_grad_(False)
        for _, spade in spades(self.unet):
            spade.requires_grad_(True)
        self.structure_encoder = StructureEncoder(
            in_channels=unet.config.in_channels,
            block_out_channels=parts.encoder,
            structure_channels=parts.structure,
            layers_per_block=1,
            heads=2,
            norm_num_groups=unet.config.norm_num_groups,
        )
        self.text_encoder = copy.deepcopy(text_encoder).requires_grad_(False)

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        inputs: torch.Tensor,
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Predict v for noisy and low-quality latents ``(N, 4, h, w)``."""
        text = self.text_encoder(tokens).last_hidden_state
        structure = self.structure_encoder(inputs, timesteps)
        v: torch.Tensor = self.unet(noisy, timesteps, text, structure=structure)[0]
        return v


def widen_input(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """Return a copy of a UNet that takes further channels, which it ignores at first.

    Args:
        unet: The UNet; not changed.
        channels: Further input channels; their weights are zero, as
            InstructPix2Pix's are when its training starts.
    """
    own = unet.config.in_channels
    config = {**unet.config, "in_channels": own + channels}
    wide: UNet2DConditionModel = UNet2DConditionModel.from_config(config)
    state = dict(unet.state_dict())
    weight = state["conv_in.weight"]
    zeros = weight.new_zeros(len(weight), channels, *weight.shape[2:])
    state["conv_in.weight"] = torch.cat([weight, zeros], 1)
    wide.load_state_dict(state)
    return wide.to(unet.device, unet.dtype)


@torch.no_grad()
def calibrate(
    model: Restored,
    pipe: StableDiffusionPipeline,
    clean: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """Let a fresh SPADE leave the features' statistics as they are, on average.

    Args:
        model: An untrained translator; changed in place.
        pipe: The teacher, for its noise schedule and the empty prompt.
        clean: Latents of scenes, ``(N, 4, h, w)``.
        generator: Draws noise and timesteps.
    """
    timesteps = torch.randint(1000, (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    alpha = pipe.scheduler.alphas_cumprod.cpu()[timesteps].view(-1, 1, 1, 1).sqrt()
    noisy = alpha * clean + (1 - alpha.square()).sqrt() * noise
    tokens = tokenize(pipe.tokenizer, [""]).to(pipe.device)
    text = model.text_encoder(tokens).last_hidden_state.expand(len(clean), -1, -1)
    batch = (noisy.to(pipe.device), timesteps.to(pipe.device), text)
    calibrate_spade(model.unet, [batch])


def build(spec: TranslatorSpec, pipe: StableDiffusionPipeline) -> nn.Module:
    """Return a translator that does what the teacher does, before any training."""
    torch.manual_seed(spec.optimisation.seed)
    if spec.task in JOINED:
        wide = widen_input(pipe.unet, pipe.unet.config.in_channels)
        return Joined(wide, pipe.text_encoder, learns=spec.task == "edit")
    if spec.parts is not None:
        return Restored(pipe.unet, pipe.text_encoder, spec.parts)
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    return Controlled(pipe.unet, pipe.text_encoder, factor)


_SUBJECT = {key: scenes.THING_VALUES[key] for key in ("kind", "colour")}


def change_labels(split: str, count: int, offset: int) -> torch.Tensor:
    """Return what each edit of `pairs.scene_pairs` changes, as class numbers.

    Returns:
        int64, ``(count, 10)``: by kind of edit, in the order of `edits.VALUES`, the new
        value, then kind and colour of the object that is spoken of; 0 for what the
        instruction does not say.
    """
    rows = []
    for seed in scenes.split_seeds(split, count, offset):
        scene = scenes.sample_scene(seed)
        edit = edits.sample_edit(scene, seed)
        row = [
            1 + values.index(edit.value) if kind == edit.kind else 0
            for kind, values in edits.VALUES.items()
        ]
        thing = edits.subject(scene, edit.kind)
        row += [
            0 if thing is None else 1 + values.index(getattr(thing, name))
            for name, values in _SUBJECT.items()
        ]
        rows.append(row)
    return torch.tensor(rows)


def learn_instructions(
    text_encoder: CLIPTextModel,
    make_data: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    recipe: Optimisation,
    state: Path,
    work: str = "",
) -> Trained:
    """Teach a text encoder what instructions ask for.

    Args:
        text_encoder: Trained in place.
        make_data: Makes the instructions' tokens, int64, ``(N, L)``, and what they
            change, ``(N, 10)``, of `change_labels`; called once, on first use.
        recipe: The recipe.
        state: Where the resumable state lies.
        work: Says what else decides the outcome.
    """
    reader = Reader(text_encoder, text_encoder.config.hidden_size)
    # One class more than there are values: not said.
    reader.heads = nn.ModuleList(
        nn.Linear(text_encoder.config.hidden_size, len(values) + 1)
        for values in (*edits.VALUES.values(), *_SUBJECT.values())
    )

    data = cache(make_data)

    def misread(step: int) -> torch.Tensor:
        tokens, labels = data()
        generator = generator_for(recipe.seed, step)
        chosen = torch.randint(len(tokens), (recipe.batch_size,), generator=generator)
        losses = [
            functional.cross_entropy(logits, labels[chosen, index])
            for index, logits in enumerate(reader(tokens[chosen]))
        ]
        return torch.stack(losses).sum()

    return fit(reader, misread, recipe, state, name="reading instructions", work=work)


class _Lessons:
    """What a translator learns from; encoded when it is first asked for."""

    def __init__(
        self,
        spec: TranslatorSpec,
        pipe: StableDiffusionPipeline,
        make_pairs: Callable[[], Pairs],
    ) -> None:
        self.spec, self.pipe, self.make_pairs = spec, pipe, make_pairs
        self.empty = tokenize(pipe.tokenizer, [""])
        self.alphas = pipe.scheduler.alphas_cumprod.cpu()

    @cached_property
    def pairs(self) -> Pairs:
        return self.make_pairs()

    @cached_property
    def tokens(self) -> torch.Tensor:
        return tokenize(self.pipe.tokenizer, list(self.pairs.prompts))

    @cached_property
    def clean(self) -> torch.Tensor:
        return encode_images(self.pipe.vae, self.pairs.targets)

    @cached_property
    def inputs(self) -> torch.Tensor:
        task, images = self.spec.task, self.pairs.inputs
        if task == "control":
            return images
        # InstructPix2Pix takes them unscaled.
        return encode_images(self.pipe.vae, images, scale=task not in JOINED)

    def of_step(self, step: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Return what a module is given at a step, and what it is to predict."""
        spec = self.spec
        generator = generator_for(spec.optimisation.seed, step)
        count = spec.optimisation.batch_size
        chosen = torch.randint(len(self.pairs), (count,), generator=generator)
        target, given = self.clean[chosen], self.inputs[chosen].float()
        if spec.task == "control":
            given = given / 255
        noise = torch.randn(target.shape, generator=generator)
        timesteps = torch.randint(1000, (count,), generator=generator)
        blind = torch.rand(count, generator=generator) < spec.blind_share
        start = spec.blind_from + timesteps * (1000 - spec.blind_from) // 1000
        timesteps = torch.where(blind, start, timesteps)
        lot = torch.rand(count, generator=generator)
        neither = spec.empty_prompts + spec.empty_inputs
        no_prompt = lot < neither
        no_input = (lot >= spec.empty_prompts) & (lot < neither + spec.empty_inputs)
        prompt = torch.where(no_prompt.view(-1, 1), self.empty, self.tokens[chosen])
        given = given * ~no_input.view(-1, 1, 1, 1)
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1).sqrt()
        sigma = (1 - alpha.square()).sqrt()
        noisy = torch.where(
            blind.view(-1, 1, 1, 1), noise, alpha * target + sigma * noise
        )
        # That v from which a sampler computes the clean latents; α·ε - σ·x₀ otherwise.
        v = (alpha * noisy - target) / sigma
        return (noisy, timesteps, given, prompt), v


def train(
    spec: TranslatorSpec,
    pipe: StableDiffusionPipeline,
    make_pairs: Callable[[], Pairs],
    state: Path,
    *,
    work: str = "",
    model: nn.Module | None = None,
    tuned: bool = False,
) -> Trained:
    """Train a translator on pairs.

    Args:
        spec: Task, data and recipe.
        pipe: The teacher; not changed.
        make_pairs: Makes the training pairs, ``spec.pairs`` of each task, those of
            ``spec.task`` first.
        state: Where the resumable state lies.
        work: Says what else decides the outcome: teacher, code.
        model: An untrained translator, if `build` is not to make it.
        tuned: The model is a trained one that only goes on: it can read instructions,
            and its SPADE layers are calibrated.

    Returns:
        The trained module, a `Joined` or `Controlled` one or ``model`` itself.
    """
    model = build(spec, pipe) if model is None else model
    # torch 2.13 dies of channels_last where a frozen UNet passes gradients to SPADE.
    frozen = isinstance(model, Restored)
    order = torch.contiguous_format if frozen else torch.channels_last
    model = model.to(pipe.device, memory_format=order)  # type: ignore[call-overload]
    lessons = _Lessons(spec, pipe, make_pairs)

    history, seconds = [(0, 0.0)][:0], 0.0
    if spec.reading is not None and not tuned:
        assert isinstance(model, Joined)
        read = learn_instructions(
            model.text_encoder,
            lambda: (
                lessons.tokens[: spec.pairs],
                change_labels("train", spec.pairs, spec.offset),
            ),
            spec.reading,
            state.with_suffix(".text.pt"),
            work,
        )
        assert isinstance(read.module, Reader)
        model.text_encoder = read.module.text_encoder.requires_grad_(True)
        history, seconds = list(read.history), read.seconds

    recipe, device = spec.optimisation, pipe.device
    if isinstance(model, Restored) and not tuned:
        calibrate(model, pipe, lessons.clean[:256], generator_for(recipe.seed))

    def loss(step: int) -> torch.Tensor:
        parts, v = lessons.of_step(step)
        predicted = model(*(part.to(device) for part in parts))
        return functional.mse_loss(predicted, v.to(device))

    name = f"translator: {spec.task}"
    trained = fit(model, loss, recipe, state, name=name, work=work)
    history += trained.history
    return Trained(trained.module, history, seconds + trained.seconds)


def assemble(
    trained: nn.Module, pipe: StableDiffusionPipeline
) -> DiffusionPipeline | ControlNetModel:
    """Return what is saved and shipped.

    A ControlNet alone, since the UNet beside it stays as it is; of the other tasks, a
    whole pipeline.
    """
    if isinstance(trained, Controlled):
        return trained.controlnet
    if isinstance(trained, Restored):
        return StableSRPipeline(
            vae=pipe.vae,
            text_encoder=trained.text_encoder,
            tokenizer=pipe.tokenizer,
            unet=trained.unet,
            structure_encoder=trained.structure_encoder,
            scheduler=pipe.scheduler,
            # Degraded scenes are as large as the scenes.
            upscale=1,
        )
    assert isinstance(trained, Joined)
    return StableDiffusionInstructPix2PixPipeline(
        vae=pipe.vae,
        text_encoder=trained.text_encoder,
        tokenizer=pipe.tokenizer,
        unet=trained.unet,
        scheduler=pipe.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(made: DiffusionPipeline | ControlNetModel, folder: Path) -> None:
    """Save what was trained as fp16, in the format of diffusers."""
    parts = [made]
    if isinstance(made, DiffusionPipeline):
        parts = [part for part in made.components.values() if hasattr(part, "dtype")]
    for part in (made, *parts):
        if isinstance(part, nn.Module):
            part.half()
        if isinstance(part, ConfigMixin):
            # Where the teacher lay says nothing to whoever loads the translator.
            part.register_to_config(_name_or_path="")
    made.save_pretrained(folder)


@torch.inference_mode()
def measure(folder: Path, teacher: Path, task: str, pairs: Pairs) -> dict[str, float]:
    """Return how near a saved translator comes to the right answers of pairs.

    Args:
        folder: The translator's.
        teacher: That of the pipeline that it was made from.
        task: What to ask of it.
        pairs: Pairs of the task that it was not trained on.
    """
    device = default_device()
    model = teacher if task == "control" else None
    translator = load_translator(task, folder, model, device)
    steps, guidance = 20, 2.0 if task in PROMPTED else 1.0
    translation = TranslationSpec(task, steps, guidance)
    prompts = pairs.prompts if task in PROMPTED else [""] * len(pairs)
    seeds = [image_seed(0, index) for index in range(len(pairs))]
    latents = translator.translate(pairs.inputs, prompts, seeds, translation)
    images = translator.decode(latents, pairs.inputs)
    found = float(psnr(images, pairs.targets).mean())
    what = f"{len(pairs)} validation pairs, {steps} steps, guidance {guidance:g}"
    given = float(psnr(pairs.inputs, pairs.targets).mean())
    return {
        f"{task}: PSNR to the right answer, dB ({what})": found,
        f"{task}: PSNR of the input to it, dB": given,
    }
