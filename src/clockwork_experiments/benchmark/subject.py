"""What methods are measured on: a model, its captions or pairs, and fixed noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from clockwork_diffusion.encoding import Prompts, decode_latents, encode_prompts
from clockwork_diffusion.schedulers import new_scheduler
from clockwork_experiments.base import storage
from clockwork_experiments.benchmark.method import Given, Method
from clockwork_experiments.benchmark.methods import made
from clockwork_experiments.data import datasets
from clockwork_experiments.data.pair_sets import image_rows, read_set
from clockwork_experiments.data.shards import Rows
from clockwork_experiments.generate import runs, text, translators
from clockwork_experiments.generate.text import SamplerSpec
from clockwork_experiments.generate.translate import TranslationSpec, Translator
from clockwork_experiments.models import loading


@dataclass(frozen=True)
class TaskSpec:
    """What all methods of a task have in common.

    Attributes:
        task: ``text``, or what a translator does.
        scheduler: The solver of all methods, and of the teacher.
        steps: Number of steps of the plain sampler that costs and times refer to.
        reference: Number of steps of the teacher's images.
        guidance: Scale of guidance by the prompt.
        image_guidance: Scale of guidance by the input image; for edits.
        seed: Image i starts from the same noise whatever is measured.
        seeds: Sampling seeds of each caption or pair.
        batch_size: Images per batch; has no influence on the images.
    """

    task: str
    scheduler: str
    steps: int
    reference: int
    guidance: float
    seed: int
    seeds: int
    batch_size: int
    image_guidance: float = 1.0

    @property
    def guided(self) -> bool:
        """Whether both branches of guidance are in one batch."""
        return self.guidance > 1


@dataclass(frozen=True)
class LightSpec:
    """What light steps run, if the method has such.

    Attributes:
        cut: Where the UNet is split.
        kind: Kind of an adaptor without weights.
        branch: DeepCache's branch.
    """

    cut: str = "stage1"
    kind: str = ""
    branch: int | None = None


class Subject(Protocol):
    """A model with what it is asked for, all images in a row."""

    pipe: Any
    prompts: Prompts | None

    def __len__(self) -> int:
        """Return the number of images: of each caption as many as there are seeds."""

    def latents(
        self, rows: slice, steps: int, timesteps: tuple[int, ...] = ()
    ) -> torch.Tensor:
        """Sample some images by whatever is on the pipeline."""

    def images(self, latents: torch.Tensor, rows: slice) -> torch.Tensor:
        """Decode them: uint8, ``(n, 3, H, W)``."""

    def planning(self) -> dict[str, Any]:
        """Return what `clockwork_diffusion.plan` is told beside a budget."""


class Captions:
    """Text-to-image: captions of a data set, which repeats them for each seed."""

    def __init__(
        self, spec: TaskSpec, pipe: Any, captions: Sequence[str], prompts: Prompts
    ) -> None:
        """Take encoded captions."""
        self.spec, self.pipe, self.captions = spec, pipe, captions
        self.prompts: Prompts | None = prompts
        self._prompts = prompts

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._prompts)

    def latents(
        self, rows: slice, steps: int, timesteps: tuple[int, ...] = ()
    ) -> torch.Tensor:
        """Sample some images by whatever is on the pipeline."""
        sampler = SamplerSpec(self.spec.scheduler, steps, self.spec.guidance)
        seeds = [text.image_seed(self.spec.seed, index) for index in _of(rows)]
        return text.sample(
            self.pipe,
            self._prompts[rows],
            text.generators(seeds),
            sampler,
            timesteps=timesteps,
        )

    def images(self, latents: torch.Tensor, rows: slice) -> torch.Tensor:
        """Decode them."""
        return decode_latents(self.pipe, latents)

    def planning(self) -> dict[str, Any]:
        """Return what a plan is made of."""
        return {
            "prompts": list(self.captions),
            "guidance_scale": self.spec.guidance,
        }


class Pairs:
    """An image-to-image task: the inputs of a set of pairs, again for each seed."""

    prompts: Prompts | None = None

    def __init__(
        self, spec: TaskSpec, translator: Translator, inputs: Rows, texts: Sequence[str]
    ) -> None:
        """Take inputs and their prompts."""
        self.spec, self.pipe, self.translator = spec, translator.pipe, translator
        self._inputs, self._texts = inputs, texts

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._inputs) * self.spec.seeds

    def latents(
        self, rows: slice, steps: int, timesteps: tuple[int, ...] = ()
    ) -> torch.Tensor:
        """Translate some inputs by whatever is on the pipeline."""
        spec = self.spec
        if not timesteps:
            # A translation without time steps has even ones down to 0. Plans are made
            # on the scheduler's own, as text-to-image samples.
            own = new_scheduler(spec.scheduler, self.pipe.scheduler.config, steps)
            timesteps = tuple(int(each) for each in own.timesteps)
        asked = TranslationSpec(
            spec.task,
            steps,
            spec.guidance,
            spec.image_guidance,
            timesteps,
            spec.scheduler,
        )
        places = [index % len(self._inputs) for index in _of(rows)]
        seeds = [text.image_seed(spec.seed, index) for index in _of(rows)]
        prompts = [self._texts[place] for place in places]
        return self.translator.translate(self._shown(rows), prompts, seeds, asked)

    def images(self, latents: torch.Tensor, rows: slice) -> torch.Tensor:
        """Decode them."""
        return self.translator.decode(latents, self._shown(rows))

    def planning(self) -> dict[str, Any]:
        """Return what a plan is made of."""
        shown = self._shown(slice(0, len(self._inputs)))
        told: dict[str, Any] = {
            "prompts": list(self._texts),
            "images": list(shown.float() / 255),
            "guidance_scale": self.spec.guidance,
        }
        if self.spec.task == "edit":
            told["image_guidance_scale"] = self.spec.image_guidance
        return told

    def _shown(self, rows: slice) -> torch.Tensor:
        count = len(self._inputs)
        return torch.stack([self._inputs[index % count] for index in _of(rows)])


def _of(rows: slice) -> range:
    return range(rows.start, rows.stop)


@dataclass(frozen=True)
class Opened:
    """A subject, and what a method on it is given.

    Attributes:
        subject: The subject.
        given: What a method is given; without grids and plan.
        checksums: Of an adaptor's weights, if there are any.
    """

    subject: Subject
    given: Given
    checksums: tuple[str, ...] = ()


def open_subject(
    spec: TaskSpec,
    model: Path,
    *,
    prompts: Path | None = None,
    pairs: Path | None = None,
    most: int = 0,
    light: LightSpec | None = None,
    steps: int | None = None,
    adaptor: Path | None = None,
    clip: Path | None = None,
) -> Opened:
    """Load a model, what it is asked for, and what light steps run.

    Args:
        spec: The task.
        model: The model's folder.
        prompts: Prompts of a data set, for text-to-image.
        pairs: Prepared set of pairs, its images beside it, for other tasks.
        most: Captions at most; 0 for all.
        light: What light steps run.
        steps: The number of steps that a learned adaptor must be made for.
        adaptor: Folder of a learned adaptor.
        clip: Folder of the CLIP that it asks.

    Raises:
        ValueError: If neither prompts nor pairs are given, or both.
    """
    if (prompts is None) == (pairs is None):
        raise ValueError("give either prompts or a set of pairs")
    device = loading.default_device()
    light = light or LightSpec()
    subject: Subject
    if pairs is not None:
        listed = read_set(pairs)
        translator = translators.load_translator(spec.task, model, None, device)
        inputs, _ = image_rows(pairs.with_suffix(".safetensors"), listed)
        pipe, subject = translator.pipe, Pairs(spec, translator, inputs, listed.prompts)
    else:
        pipe = loading.load_pipeline(model, device)
    loaded = None
    if light.kind or adaptor is not None:
        loaded = runs.load_passes(
            pipe,
            model,
            light.cut,
            scheduler=spec.scheduler,
            steps=steps,
            kind=light.kind,
            adaptor=adaptor,
            clip=clip,
        )
    if prompts is not None:
        captions = datasets.read_prompts(prompts)
        captions = captions[:most] if most else captions
        pool = loaded.pool if loaded is not None else None
        encoded = encode_prompts(pipe, captions, pool)
        subject = Captions(spec, pipe, captions, encoded)
    given = Given(
        pipe,
        spec.guided,
        None if loaded is None else loaded.passes.adaptor,
        light.branch,
        subject.prompts,
    )
    return Opened(subject, given, () if loaded is None else loaded.checksums)


class Chosen(Protocol):
    """What says which method runs on what; a step's spec."""

    @property
    def task(self) -> TaskSpec:
        """The task."""

    @property
    def kind(self) -> str:
        """A key of `benchmark.methods.METHODS`, or ``my_module:MyMethod``."""

    @property
    def settings(self) -> dict[str, object]:
        """The method's own."""

    @property
    def light(self) -> LightSpec:
        """What light steps run."""


def open_method(
    spec: Chosen, model: Path, *, grids: Path | None, plan: Path | None, **of: Any
) -> tuple[Method, Opened]:
    """Make a method, and load what it runs on.

    Args:
        spec: Which method, and on what.
        model: The model's folder.
        grids: Time steps by others' rules.
        plan: A planned method's plan.
        **of: The rest of what `open_subject` takes.
    """
    method = made(spec.kind, spec.settings)
    opened = open_subject(spec.task, model, light=spec.light, steps=method.steps, **of)
    known = storage.read_json(grids)["grids"] if grids is not None else {}
    given = replace(opened.given, grids=known, plan=plan)
    return method, replace(opened, given=given)
