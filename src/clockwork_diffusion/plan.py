"""Plan how to spend a budget: which steps are full, what the others run, and when.

    made = plan(pipe, ["a red ring on the sea", "a blue square"], steps=8, budget=0.65)
    print(made)
    made.save("plan.json")
    with made.applied(pipe) as summary:
        image = pipe("a green star", num_inference_steps=made.steps).images[0]

The three choices depend on each other, and are made in turn: each is set to the best
that is found while the others stay, sweep after sweep, until a sweep gains nothing.
What is lowered is the distance to what many steps of the whole UNet lead to, from the
same noise, on a few prompts; it is published for each sweep. Latents are compared, so
that no image is decoded.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from clockwork_diffusion.adaptors import ExtrapolationAdaptor, IdentityAdaptor
from clockwork_diffusion.clock import Clock
from clockwork_diffusion.hook import hook_of
from clockwork_diffusion.masks import all_masks, all_spans, best_mask, mask_of_span
from clockwork_diffusion.pipeline import clockwork
from clockwork_diffusion.predictors.taylor import TaylorAdaptor
from clockwork_diffusion.schedulers import at_timesteps, name_of, visiting
from clockwork_diffusion.summary import Summary
from clockwork_diffusion.timesteps import ending_timesteps

PREDICTORS: dict[str, Callable[[], Any]] = {
    "identity": IdentityAdaptor,
    "extrapolation": ExtrapolationAdaptor,
    "taylor": TaylorAdaptor,
}
"""Predictors that need no training, by name."""

MEASURED = 40
"""Up to so many masks of a budget all are measured: those of 8 steps. Of more, spans
are measured, and the mask whose spans cost least together."""

START = (1.0, 0.05)
"""Where the search for time steps begins: γ, and the end as a share of all."""

STRIDES = (1.25, 0.03)
"""Its first strides: a factor of γ, and a share."""

AXES = ("time steps", "mask", "predictor")
"""What is chosen, in the order in which a sweep goes through them."""

SWEEPS = 3
"""Most sweeps; strides halve from one to the next."""


@dataclass(frozen=True)
class Sweep:
    """What stood at the end of a sweep; the first is where the search began.

    Attributes:
        mask: Which steps are full.
        predictor: What the light ones run.
        timesteps: The time steps; empty for the scheduler's own.
        error: Distance to the many-step latents, relative to their size.
        tried: How many choices had been sampled by then.
    """

    mask: str
    predictor: str
    timesteps: tuple[int, ...]
    error: float
    tried: int


@dataclass(frozen=True)
class Plan:
    """A choice of full steps, predictor and time steps.

    Attributes:
        mask: A digit for each step: 1 where it is full, 0 where it is light.
        predictor: What light steps run, by name.
        timesteps: The time steps; empty for the scheduler's own.
        budget: The share of the FLOPs that was allowed.
        share: The share that it takes, of as many full steps.
        error: Distance to the many-step latents, relative to their size.
        plain: The same of as many full steps at the scheduler's own time steps.
        reference: How many steps led there.
        prompts: On how many prompts it was made.
        scheduler: The scheduler's name, as `clockwork_diffusion.schedulers` has it.
        sweeps: How the search went.
    """

    mask: str
    predictor: str
    timesteps: tuple[int, ...]
    budget: float
    share: float
    error: float
    plain: float
    reference: int
    prompts: int
    scheduler: str
    sweeps: tuple[Sweep, ...]

    @property
    def steps(self) -> int:
        """The number of steps, which ``num_inference_steps`` must be."""
        return len(self.mask)

    @contextlib.contextmanager
    def applied(self, pipe: Any, predictor: Any = None) -> Iterator[Summary]:
        """Apply the plan within a block.

        Args:
            pipe: A pipeline like the one that it was made for.
            predictor: What light steps run, if that is one of one's own.

        Raises:
            ValueError: If the predictor is unknown, or a method is applied already.
        """
        if predictor is None:
            if self.predictor not in PREDICTORS:
                raise ValueError(
                    f"predictor {self.predictor!r} is not one of "
                    f"{', '.join(PREDICTORS)}: hand it over"
                )
            predictor = PREDICTORS[self.predictor]()
        with contextlib.ExitStack() as stack:
            if self.timesteps:
                stack.enter_context(at_timesteps(pipe, self.timesteps))
            yield stack.enter_context(
                clockwork(pipe, mask=self.mask, adaptor=predictor)
            )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the plan as JSON."""
        text = json.dumps(asdict(self), indent=2)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Plan:
        """Read a plan that was saved.

        Raises:
            ValueError: If the file is none.
        """
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
            sweeps = tuple(
                Sweep(**{**each, "timesteps": tuple(each["timesteps"])})
                for each in read.pop("sweeps")
            )
            timesteps = tuple(read.pop("timesteps"))
            found = cls(**read, timesteps=timesteps, sweeps=sweeps)
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a plan: {error}") from None
        Clock(mask=found.mask)
        return found

    def __str__(self) -> str:
        """Return the plan and how it was found, a line per sweep."""
        grid = ", ".join(map(str, self.timesteps)) or "the scheduler's own"
        lines = [
            f"{self.steps} steps, {self.mask} (1 full, 0 {self.predictor})",
            f"time steps: {grid}",
            f"FLOPs: {self.share:.1%} of {self.steps} full steps, "
            f"{self.budget:.1%} allowed",
            f"distance to {self.reference} steps on {self.prompts} prompts: "
            f"{self.error:.4f}; {self.steps} full steps: {self.plain:.4f}",
        ]
        for index, sweep in enumerate(self.sweeps):
            lines.append(
                f"sweep {index}: {sweep.error:.4f} after {sweep.tried} tried, "
                f"{sweep.mask}, {sweep.predictor}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Choice:
    """A point of the search: γ and the end's share are None for the own time steps."""

    mask: str
    predictor: str
    grid: tuple[float, float] | None = None


def plan(
    pipe: Any,
    prompts: Sequence[str],
    *,
    steps: int = 8,
    budget: float = 0.65,
    reference: int = 50,
    predictors: Mapping[str, Any] | None = None,
    images: Sequence[Any] | None = None,
    choose: Sequence[str] = AXES,
    batch_size: int = 4,
    seed: int = 0,
    **call: Any,
) -> Plan:
    """Choose mask, predictor and time steps for a budget of FLOPs.

    Args:
        pipe: A diffusers pipeline around a UNet of Stable Diffusion's or SDXL's
            topology, without a method on it.
        prompts: A few prompts of the kind that it is for.
        steps: Number of sampling steps.
        budget: The share of the FLOPs of that many full steps that may be spent.
        reference: Number of steps of what is to be come near to.
        predictors: What light steps may run, by name; the identity and extrapolation
            if left out.
        images: The input image of each prompt, for an image-to-image pipeline.
        choose: What of `AXES` is chosen; the rest stays as the search begins: evenly
            spread full steps, the first predictor, the scheduler's own time steps.
        batch_size: Prompts per batch.
        seed: Of the starting noise; each prompt has its own.
        **call: Further arguments of the pipeline, such as ``guidance_scale``.

    Raises:
        ValueError: If the budget allows no light step or takes fewer than one full one,
            there are no prompts or not as many images, nothing is to be chosen, or a
            method is applied already.

    >>> import torch
    >>> from diffusers import StableDiffusionPipeline
    >>> mini = "resources/mini/stable-diffusion"
    >>> pipe = StableDiffusionPipeline.from_pretrained(mini, dtype=torch.float32)
    >>> made = plan(pipe, ["a red ring on the sea"], steps=3, budget=0.8, reference=6)
    >>> made.share <= made.budget
    True
    """
    if not prompts:
        raise ValueError("there are no prompts to plan for")
    unknown = [each for each in choose if each not in AXES]
    if unknown or not choose:
        raise ValueError(f"choose {list(choose)} is not some of {', '.join(AXES)}")
    if images is not None and len(images) != len(prompts):
        raise ValueError(
            f"{len(images)} images and {len(prompts)} prompts are not one of each"
        )
    hook = hook_of(pipe)
    if hook is not None and hook.settings is not None:
        raise ValueError(f"{hook.settings.method.name} is applied: remove it first")
    given = predictors or {name: make() for name, make in PREDICTORS.items()}
    with _quiet(pipe):
        shown = None if images is None else list(images)
        search = _Search(
            pipe, list(prompts), steps, given, batch_size, seed, call, shown
        )
        return search.run(budget, reference, choose)


class _Search:
    """Coordinate descent; what was sampled once is not sampled again."""

    def __init__(
        self,
        pipe: Any,
        prompts: list[str],
        steps: int,
        predictors: Mapping[str, Any],
        batch_size: int,
        seed: int,
        call: dict[str, Any],
        images: list[Any] | None = None,
    ) -> None:
        self.pipe, self.prompts, self.steps = pipe, prompts, steps
        self.images = images
        self.predictors, self.batch_size = predictors, batch_size
        self.seed, self.call = seed, call
        self.known: dict[_Choice, float] = {}
        self.moves = True
        try:
            visiting(pipe.scheduler, range(steps - 1, -1, -1))
        except ValueError:
            self.moves = False  # a scheduler that takes no time steps

    def run(self, budget: float, reference: int, choose: Sequence[str] = AXES) -> Plan:
        """Search."""
        self.shares = {name: self.cost(name) for name in self.predictors}
        self.full = {name: self.allowed(name, budget) for name in self.predictors}
        self.full = {name: full for name, full in self.full.items() if full}
        if not self.full:
            raise ValueError(
                f"a budget of {budget:.1%} of {self.steps} full steps does not pay for "
                "one full step and light ones"
            )
        self.target = self.draw(reference)
        first = next(iter(self.full))
        best = _Choice(self.even(first), first)
        sweeps = [self.swept(best)]
        for index in range(SWEEPS):
            before = self.error(best)
            if "time steps" in choose:
                best = self.over_grids(best, 2.0**-index)
            if "mask" in choose:
                best = self.over_masks(best)
            if "predictor" in choose:
                best = self.over_predictors(best)
            sweeps.append(self.swept(best))
            if self.error(best) >= before:
                break
        plain = self.distance(self.draw(self.steps))
        final = sweeps[-1]
        return Plan(
            mask=final.mask,
            predictor=final.predictor,
            timesteps=final.timesteps,
            budget=budget,
            share=self.share(final.mask, final.predictor),
            error=final.error,
            plain=plain,
            reference=reference,
            prompts=len(self.prompts),
            scheduler=name_of(self.pipe.scheduler),
            sweeps=tuple(sweeps),
        )

    # --- the coordinates ---

    def over_grids(self, best: _Choice, scale: float) -> _Choice:
        """Walk to better time steps: along γ, along the end, as long as it helps."""
        if not self.moves:
            return best
        factor, stride = STRIDES[0] ** scale, STRIDES[1] * scale
        best = self.better(best, replace(best, grid=best.grid or START))
        while best.grid is not None:
            gamma, end = best.grid
            near = [(gamma * factor, end), (gamma / factor, end)]
            near += [(gamma, end + stride), (gamma, max(0.0, end - stride))]
            moved = self.better(best, *(replace(best, grid=grid) for grid in near))
            if moved == best:
                break
            best = moved
        return best

    def over_masks(self, best: _Choice) -> _Choice:
        """Try the masks of the budget, or the one that spans tell if they are many."""
        full = self.full[best.predictor]
        masks = [m for m in _masks(self.steps) if m.count("1") == full]
        if len(masks) > MEASURED or not masks:
            whole = "1" * self.steps
            base = self.latents(replace(best, mask=whole))
            costs = {}
            for span in all_spans(self.steps):
                one = replace(best, mask=mask_of_span(self.steps, span))
                costs[span] = self.distance(self.latents(one), base)
            masks = [best_mask(self.steps, full, costs)]
        return self.better(best, *(replace(best, mask=mask) for mask in masks))

    def over_predictors(self, best: _Choice) -> _Choice:
        """Try the others, at the same mask if that is within their budget."""
        others = []
        for name, full in self.full.items():
            fits = best.mask.count("1") <= full
            mask = best.mask if fits else self.even(name)
            others.append(replace(best, mask=mask, predictor=name))
        return self.better(best, *others)

    # --- what they cost and what they are worth ---

    def cost(self, predictor: str) -> float:
        """Return what a light pass costs, as a share of a full one."""
        mask, adaptor = "1" + "0" * (self.steps - 1), self.predictors[predictor]
        with clockwork(self.pipe, mask=mask, adaptor=adaptor) as told:
            self.sample(self.steps, self.prompts[:1], 0)
        return told.flops[False] / told.flops[True]

    def share(self, mask: str, predictor: str) -> float:
        """Return a mask's share of the FLOPs, PNDM's and Heun's calls as they are."""
        calls = Clock(mask=mask).calls(name_of(self.pipe.scheduler), len(mask))
        light = calls.light * self.shares[predictor]
        return (calls.full + light) / (calls.full + calls.light)

    def allowed(self, predictor: str, budget: float) -> int:
        """Return how many steps may be full, the first ones: 0 if none."""
        masks = ["1" * n + "0" * (self.steps - n) for n in range(1, self.steps)]
        paid = [m for m in masks if self.share(m, predictor) <= budget + 1e-9]
        return max((mask.count("1") for mask in paid), default=0)

    def even(self, predictor: str) -> str:
        """Return the mask whose full steps are spread most evenly."""
        full = self.full[predictor]
        places = {index * self.steps // full for index in range(full)}
        return "".join("01"[index in places] for index in range(self.steps))

    def better(self, best: _Choice, *others: _Choice) -> _Choice:
        """Return the best of choices; of equals the first."""
        return min((best, *others), key=self.error)

    def error(self, choice: _Choice) -> float:
        """Return a choice's distance; infinite if its time steps are none."""
        if choice not in self.known:
            try:
                self.grid(choice)
            except ValueError:
                return float("inf")
            self.known[choice] = self.distance(self.latents(choice))
        return self.known[choice]

    def distance(
        self, latents: torch.Tensor, target: torch.Tensor | None = None
    ) -> float:
        """Return the distance of latents, relative to the target's size."""
        target = self.target if target is None else target
        return float((latents - target).norm() / target.norm())

    def grid(self, choice: _Choice) -> tuple[int, ...]:
        """Return a choice's time steps; empty for the scheduler's own."""
        if choice.grid is None:
            return ()
        last = self.pipe.scheduler.config.num_train_timesteps - 1
        gamma, share = choice.grid
        return ending_timesteps(self.steps, gamma, round(share * last), last=last)

    def latents(self, choice: _Choice) -> torch.Tensor:
        """Sample by a choice."""
        adaptor, timesteps = self.predictors[choice.predictor], self.grid(choice)
        with contextlib.ExitStack() as stack:
            if timesteps:
                stack.enter_context(at_timesteps(self.pipe, timesteps))
            stack.enter_context(clockwork(self.pipe, mask=choice.mask, adaptor=adaptor))
            return self.draw(self.steps)

    def draw(self, steps: int) -> torch.Tensor:
        """Sample all prompts; float32 on the CPU."""
        parts = [
            self.sample(steps, self.prompts[start : start + self.batch_size], start)
            for start in range(0, len(self.prompts), self.batch_size)
        ]
        return torch.cat(parts)

    @torch.inference_mode()
    def sample(self, steps: int, prompts: list[str], start: int) -> torch.Tensor:
        """Sample some prompts, each from its own noise."""
        seeds = range(self.seed + start, self.seed + start + len(prompts))
        shown: dict[str, Any] = {}
        if self.images is not None:
            shown["image"] = self.images[start : start + len(prompts)]
        found: torch.Tensor = self.pipe(
            prompts,
            **shown,
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
            **self.call,
        ).images
        return found.float().cpu()

    def swept(self, best: _Choice) -> Sweep:
        """Return what stands at the end of a sweep."""
        return Sweep(
            best.mask,
            best.predictor,
            self.grid(best),
            self.error(best),
            len(self.known),
        )


@functools.cache
def _masks(steps: int) -> tuple[str, ...]:
    """Return all masks, or none if they are more than anyone measures."""
    return all_masks(steps) if steps <= 12 else ()


@contextlib.contextmanager
def _quiet(pipe: Any) -> Iterator[None]:
    """Let a pipeline show no bar for each of many runs."""
    before = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**{**before, "disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)
