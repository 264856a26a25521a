"""Load models for the tasks, and hand their UNets what each task gives them.

On disk: ``edit``, ``inpainting`` and ``synthesis`` are folders of diffusers'
InstructPix2Pix pipeline, whose UNet takes the input's latents as further channels;
``text`` is one of Stable Diffusion's; ``control`` is a ControlNet's folder, beside the
pipeline that it controls; ``restoration`` is a StableSR folder
(`clockwork_diffusion.stablesr.pipeline`), or what lies over one
(`clockwork_diffusion.stablesr.overlay`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from clockwork_diffusion.encoding import (
    Prompts,
    decode_latents,
    encode_images,
    encode_prompts,
)
from clockwork_experiments.base import storage
from clockwork_experiments.generate.tasks import Row, check_task
from clockwork_experiments.generate.translate import Feed, Translator
from clockwork_experiments.models import loading

JOINED = ("edit", "inpainting", "synthesis")
"""Tasks whose UNet takes the input's latents as further channels."""


@dataclass(frozen=True)
class _PromptedTranslator:
    """What translators share whose pipeline is Stable Diffusion's.

    Attributes:
        pipe: UNet, autoencoder, text encoder and scheduler.
    """

    pipe: StableDiffusionPipeline

    def encode(
        self,
        prompts: Sequence[str],
        pool: Callable[[Sequence[str]], torch.Tensor] | None = None,
    ) -> Prompts:
        """Encode prompts; see `clockwork_diffusion.encoding.encode_prompts`."""
        return encode_prompts(self.pipe, prompts, pool)

    def start(
        self, noise: torch.Tensor, images: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        """Return the noise: sampling starts from nothing else."""
        return noise

    def noise_shape(self, images: torch.Tensor) -> tuple[int, int, int]:
        """Return the shape of one image's latents, ``(C, h, w)``."""
        return latent_shape(self.pipe, images)

    def decode(self, latents: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Decode latents to uint8 images, ``(N, 3, H, W)``, on the CPU."""
        return decode_latents(self.pipe, latents)


@dataclass(frozen=True)
class TextTranslator(_PromptedTranslator):
    """A UNet that is given a prompt alone; of the input images the size counts.

    Raises:
        ValueError: If the UNet takes another number of channels.
    """

    task = "text"

    def __post_init__(self) -> None:
        """Check the UNet's channels."""
        check_channels(self.pipe, 1, self.task)

    def feed(self, images: torch.Tensor, rows: Sequence[Row]) -> Feed:
        """Return what hands on the latents as they are."""

        def feed(
            x: torch.Tensor, t: torch.Tensor, text: torch.Tensor
        ) -> tuple[torch.Tensor, dict[str, Any]]:
            return x, {}

        return feed


@dataclass(frozen=True)
class JoinedTranslator(_PromptedTranslator):
    """A UNet that takes the input's latents as further channels, unscaled.

    Attributes:
        task: A member of `JOINED`.

    Raises:
        ValueError: If the UNet takes another number of channels.
    """

    task: str

    def __post_init__(self) -> None:
        """Check the task and the UNet's channels."""
        if self.task not in JOINED:
            raise ValueError(f"task {self.task!r} is not one of {', '.join(JOINED)}")
        check_channels(self.pipe, 2, self.task)

    def feed(self, images: torch.Tensor, rows: Sequence[Row]) -> Feed:
        """Return what joins the images' latents to a step's; zeros without image."""
        unet = self.pipe.unet
        latents = encode_images(self.pipe.vae, images, scale=False)
        latents = latents.to(unet.device, unet.dtype)
        nothing = torch.zeros_like(latents)
        given = torch.cat([latents if row.image else nothing for row in rows])

        def feed(
            x: torch.Tensor, t: torch.Tensor, text: torch.Tensor
        ) -> tuple[torch.Tensor, dict[str, Any]]:
            return torch.cat([x, given], dim=1), {}

        return feed


@dataclass(frozen=True)
class ControlTranslator(_PromptedTranslator):
    """A UNet that a ControlNet controls.

    Attributes:
        controlnet: Takes the input images as they are, in ``[0, 1]``.

    Raises:
        ValueError: If the ControlNet does not fit the UNet or the autoencoder.
    """

    controlnet: ControlNetModel

    task = "control"

    def __post_init__(self) -> None:
        """Check that the two fit."""
        check_channels(self.pipe, 1, self.task)
        check_controlnet(self.controlnet, self.pipe.unet, self.pipe.vae)

    def feed(self, images: torch.Tensor, rows: Sequence[Row]) -> Feed:
        """Return what runs the ControlNet, whole, on every row of a step."""
        net = self.controlnet
        pixels = (images.float() / 255).to(net.device, net.dtype)
        given = torch.cat([pixels] * len(rows))

        def feed(
            x: torch.Tensor, t: torch.Tensor, text: torch.Tensor
        ) -> tuple[torch.Tensor, dict[str, Any]]:
            skips, middle = net(x, t, text, given, return_dict=False)
            return x, {
                "down_block_additional_residuals": tuple(skips),
                "mid_block_additional_residual": middle,
            }

        return feed


@dataclass(frozen=True)
class RestorationTranslator:
    """StableSR: a UNet whose SPADE layers take the input image's structure.

    The input images are of the size of the result.

    Attributes:
        pipe: A `clockwork_diffusion.stablesr.pipeline.StableSRPipeline`.
        fidelity: Weight of the input's features in the decoder, 0 to 1.
    """

    pipe: Any
    fidelity: float

    task = "restoration"

    def encode(
        self,
        prompts: Sequence[str],
        pool: Callable[[Sequence[str]], torch.Tensor] | None = None,
    ) -> Prompts:
        """Return the empty prompt, the only one that there is, once per prompt."""
        pooled = None if pool is None else pool([""])
        count = len(prompts)
        return Prompts(
            self.pipe.empty_prompt(count),
            self.pipe.empty_prompt(1),
            None if pooled is None else pooled.expand(count, -1),
            pooled,
        )

    def start(
        self, noise: torch.Tensor, images: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        """Return the input's latents with a timestep's noise."""
        latents = self._latents(images)
        started: torch.Tensor = self.pipe.start(latents, noise.to(latents), timestep)
        return started

    def feed(self, images: torch.Tensor, rows: Sequence[Row]) -> Feed:
        """Return what works out the structure at each timestep."""
        latents = self._latents(images).to(self.pipe.unet.dtype)

        def feed(
            x: torch.Tensor, t: torch.Tensor, text: torch.Tensor
        ) -> tuple[torch.Tensor, dict[str, Any]]:
            return x, {"structure": self.pipe.structure_of(latents, t)}

        return feed

    def noise_shape(self, images: torch.Tensor) -> tuple[int, int, int]:
        """Return the shape of one image's latents, ``(C, h, w)``."""
        return latent_shape(self.pipe, images)

    def decode(self, latents: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Decode to uint8 images, corrected by the input's features and colours."""
        pixels = self.pipe.decode(latents, _pixels(images), self.fidelity)
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().cpu()

    def _latents(self, images: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = self.pipe.encode(_pixels(images))
        return latents


def _pixels(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1


# --- checks ---------------------------------------------------------------------------


def check_channels(pipe: StableDiffusionPipeline, images: int, task: str) -> None:
    """Refuse a UNet that does not take the latents of so many images.

    Raises:
        ValueError: In one line.
    """
    found, each = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
    if found != images * each:
        what = "the noisy latents" if images == 1 else "the noisy latents and the input"
        raise ValueError(
            f"{task} needs a UNet of {images * each} input channels, for {what}, "
            f"and this one has {found}"
        )


def check_controlnet(
    controlnet: ControlNetModel, unet: UNet2DConditionModel, vae: AutoencoderKL
) -> None:
    """Refuse a ControlNet that is not for a UNet, or reads images of another scale.

    Raises:
        ValueError: In one line that names the first difference.
    """
    for key in (
        "in_channels",
        "block_out_channels",
        "down_block_types",
        "layers_per_block",
        "cross_attention_dim",
    ):
        theirs, ours = controlnet.config[key], unet.config[key]
        if _plain(theirs) != _plain(ours):
            raise ValueError(
                f"the ControlNet does not fit the UNet: its {key} is {theirs}, "
                f"the UNet's {ours}"
            )
    widths = controlnet.config.conditioning_embedding_out_channels
    shrunk, factor = 2 ** (len(widths) - 1), image_factor(vae)
    if shrunk != factor:
        raise ValueError(
            f"the ControlNet does not fit the autoencoder: it makes images {shrunk} "
            f"times smaller, and the autoencoder {factor} times"
        )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def image_factor(vae: AutoencoderKL) -> int:
    """Return the number of pixels per latent, along a side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def latent_shape(pipe: Any, images: torch.Tensor) -> tuple[int, int, int]:
    """Return the shape of one image's latents, ``(C, h, w)``.

    Args:
        pipe: The model.
        images: uint8, ``(N, 3, H, W)``.

    Raises:
        ValueError: If the images are none, or too small for the UNet's lowest
            resolution, or a side is not whole latents.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}, not uint8 (N, 3, H, W)"
        )
    height, width = images.shape[2:]
    factor = image_factor(pipe.vae)
    least = factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    if min(height, width) < least:
        raise ValueError(
            f"images are {width}×{height} pixels, and the model needs {least}×{least} "
            "or more"
        )
    if height % factor or width % factor:
        raise ValueError(
            f"images are {width}×{height} pixels, and the model needs multiples of "
            f"{factor}"
        )
    return pipe.vae.config.latent_channels, height // factor, width // factor


# --- loading --------------------------------------------------------------------------


def load_translator(
    task: str,
    path: Path,
    model: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Translator:
    """Load a model for a task.

    Args:
        task: A key of `clockwork_experiments.generate.tasks.TASKS`.
        path: Its folder.
        model: Folder of the pipeline that a ControlNet controls; for ``restoration``
            that of the StableSR which ``path`` lies over, if it does.
        device: Where to put it.
        dtype: Precision to compute in.

    Raises:
        ValueError: If the task is unknown, or a folder holds something else, is
            damaged, or does not fit, naming it.
    """
    check_task(task)
    fits = {"control": model is not None, "restoration": True}
    if not fits.get(task, model is None):
        raise ValueError(
            f"task {task!r}: control needs the pipeline that it controls, restoration "
            "may have one that it lies over, and no other task has one"
        )
    if task == "restoration":
        from clockwork_diffusion.stablesr import overlay, pipeline

        kind = pipeline.StableSRPipeline
        restoring = loading.load_pipeline(model or path, device, dtype, kind)
        if model is not None:
            storage.check_weights(path)
            overlay.lay_over(restoring, path, model)
        # A plain decoder has no features of the input to weigh.
        corrects = isinstance(restoring.vae, pipeline.CFWAutoencoder)
        return RestorationTranslator(restoring, pipeline.FIDELITY if corrects else 0.0)
    try:
        if task in JOINED:
            return JoinedTranslator(_load_joined(path, device, dtype), task)
        pipe: StableDiffusionPipeline
        if model is None:
            pipe = loading.load_pipeline(path, device, dtype)
            return TextTranslator(pipe)
        pipe = loading.load_pipeline(model, device, dtype)
        return ControlTranslator(pipe, _load_controlnet(path, device, dtype))
    except ValueError as error:
        if str(path) in str(error) or str(model) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def _load_joined(
    path: Path, device: torch.device | str, dtype: torch.dtype
) -> StableDiffusionPipeline:
    """Return the parts of an InstructPix2Pix pipeline, to encode prompts as SD does."""
    kind = StableDiffusionInstructPix2PixPipeline
    whole = loading.load_pipeline(path, device, dtype, kind)
    return StableDiffusionPipeline(
        vae=whole.vae,
        text_encoder=whole.text_encoder,
        tokenizer=whole.tokenizer,
        unet=whole.unet,
        scheduler=whole.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _load_controlnet(
    path: Path, device: torch.device | str, dtype: torch.dtype
) -> ControlNetModel:
    config = storage.read_json(storage.existing(path / "config.json"))
    if config.get("_class_name") != "ControlNetModel":
        raise ValueError(f"{path} is a {config.get('_class_name')}, not a ControlNet")
    storage.check_weights(path)
    controlnet = loading.load_network(ControlNetModel, path, dtype)
    return controlnet.to(device).requires_grad_(False)
