"""Plan how to spend a budget: how many steps, which are full, how deep, and when.

    made = plan(pipe, ["a red ring on the sea", "a blue square"], steps=8, budget=0.65)
    print(made)
    made.save("plan.json")
    with made.applied(pipe) as summary:
        image = pipe("a green star", num_inference_steps=made.steps).images[0]

The choices depend on each other. Number of steps and level (depth-skip) come first:
evenly spread full steps are tried with each that the budget pays for, and the search
goes on from the best few. From there level, time steps, mask and predictor are set in
turn, each to the best that is found while the others stay, sweep after sweep, until a
sweep gains nothing. Time steps walk along γ and along their end, and then move one by
one. What is lowered is the distance to what many steps of the whole UNet lead to, from
the same noise, on a few prompts; it is published for each sweep. Latents are compared,
so that no image is decoded.
"""

from __future__ import annotations

import contextlib
import copy
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
from clockwork_diffusion.depth_skip import depth_skipped, levels_of
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

AXES = ("steps", "level", "time steps", "mask", "predictor")
"""What is chosen, in this order; all but the number of steps in each sweep."""

APART = 0.05
"""Levels are tried that cost less than the one before by so much of the whole UNet."""

STARTS = 3
"""From how many starts the search goes on; and from the best of whole steps alone."""

MOVED = 0.25
"""By which share of the gap before it a time step moves at first."""

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
        level: The deepest level that full steps run; None for all.
    """

    mask: str
    predictor: str
    timesteps: tuple[int, ...]
    error: float
    tried: int
    level: int | None


@dataclass(frozen=True)
class Plan:
    """A choice of full steps, predictor and time steps.

    Attributes:
        mask: A digit for each step: 1 where it is full, 0 where it is light.
        predictor: What light steps run, by name.
        timesteps: The time steps; empty for the scheduler's own.
        budget: The share of the FLOPs that was allowed.
        share: The share that it takes.
        error: Distance to the many-step latents, relative to their size.
        plain: The same of ``most`` full steps at the scheduler's own time steps.
        reference: How many steps led there.
        prompts: On how many prompts it was made.
        scheduler: The scheduler's name, as `clockwork_diffusion.schedulers` has it.
        sweeps: How the search went.
        most: Of how many full steps budget and share are shares.
        level: The deepest level of the UNet that full steps run (depth-skip); None for
            all.
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
    most: int
    level: int | None

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
            if self.level is not None:
                stack.enter_context(depth_skipped(pipe, self.level))
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
            f"{self.steps} steps, {self.mask} (1 full, 0 {self.predictor})"
            if "0" in self.mask
            else f"{self.steps} steps, all of them full",
            f"time steps: {grid}",
            "level: all" if self.level is None else f"level: kept down to {self.level}",
            f"FLOPs: {self.share:.1%} of {self.most} full steps, "
            f"{self.budget:.1%} allowed",
            f"distance to {self.reference} steps on {self.prompts} prompts: "
            f"{self.error:.4f}; {self.most} full steps: {self.plain:.4f}",
        ]
        for index, sweep in enumerate(self.sweeps):
            lines.append(
                f"sweep {index}: {sweep.error:.4f} after {sweep.tried} tried, "
                f"{sweep.mask}, {sweep.predictor}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Choice:
    """A point of the search.

    ``grid`` is γ and the end's share, None for the scheduler's own time steps;
    ``moved`` the time steps, if they were moved one by one.
    """

    mask: str
    predictor: str
    grid: tuple[float, float] | None = None
    moved: tuple[int, ...] = ()
    level: int | None = None


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
    """Choose how to sample, by all of `AXES`, for a budget of FLOPs.

    Args:
        pipe: A diffusers pipeline around a UNet of Stable Diffusion's or SDXL's
            topology, without a method on it.
        prompts: A few prompts of the kind that it is for.
        steps: Most sampling steps; as many, if their number is not chosen.
        budget: The share of the FLOPs of that many full steps that may be spent.
        reference: Number of steps of what is to be come near to.
        predictors: What light steps may run, by name; the identity and extrapolation
            if left out.
        images: The input image of each prompt, for an image-to-image pipeline.
        choose: What of `AXES` is chosen; the rest stays as the search begins: all
            steps, full ones evenly spread, all levels, the first predictor, the
            scheduler's own time steps. Where the number of steps is chosen and the mask
            is not, all are full.
        batch_size: Prompts per batch.
        seed: Of the starting noise; each prompt has its own.
        **call: Further arguments of the pipeline, such as ``guidance_scale``.

    Raises:
        ValueError: If the budget does not pay for a full step and light ones, there are
            no prompts or not as many images, nothing is to be chosen, or a method is
            applied already.

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
        self.levels: dict[int, float] = {}
        self.moves = True
        try:
            visiting(pipe.scheduler, range(steps - 1, -1, -1))
        except ValueError:
            self.moves = False  # a scheduler that takes no time steps

    def run(self, budget: float, reference: int, choose: Sequence[str] = AXES) -> Plan:
        """Search."""
        self.shares = {name: self.cost(name)[False] for name in self.predictors}
        self.levels = self.cheaper() if "level" in choose else {}
        self.budget = budget
        lengths = range(2, self.steps + 1) if "steps" in choose else (self.steps,)
        starts = [
            start
            for level in (None, *self.levels)
            for steps in lengths
            if (start := self.start(steps, level)) is not None
        ]
        if "steps" in choose and "mask" not in choose:
            starts = [start for start in starts if "0" not in start.mask]
        if not starts:
            raise ValueError(
                f"a budget of {budget:.1%} of {self.steps} full steps does not pay for "
                "one full step and light ones"
            )
        self.target = self.draw(reference)
        ranked = sorted(starts, key=self.error)
        whole = [each for each in ranked if "0" not in each.mask and each.level is None]
        # Fewer whole steps gain most by time steps of their own, which come later.
        chosen = dict.fromkeys((*ranked[:STARTS], *whole[:1]))
        found = [self.descended(start, choose) for start in chosen]
        sweeps = min(found, key=lambda each: each[-1].error)
        plain = self.distance(self.draw(self.steps))
        final = sweeps[-1]
        return Plan(
            mask=final.mask,
            predictor=final.predictor,
            timesteps=final.timesteps,
            budget=budget,
            share=self.share(final.mask, final.predictor, final.level),
            error=final.error,
            plain=plain,
            reference=reference,
            prompts=len(self.prompts),
            scheduler=name_of(self.pipe.scheduler),
            sweeps=tuple(sweeps),
            most=self.steps,
            level=final.level,
        )

    def start(self, steps: int, level: int | None) -> _Choice | None:
        """Return where a search with so many steps begins; None if none is paid for."""
        for name in self.predictors:
            if full := self.full(steps, name, level):
                return _Choice(_even(steps, full), name, level=level)
        return None

    def descended(self, best: _Choice, choose: Sequence[str]) -> list[Sweep]:
        """Search with the number of steps that a start has."""
        sweeps = [self.swept(best)]
        for index in range(SWEEPS):
            before = self.error(best)
            best = self.over_levels(best)
            if "time steps" in choose:
                best = self.over_grids(best, 2.0**-index)
            if "mask" in choose:
                best = self.over_masks(best)
            if "predictor" in choose:
                best = self.over_predictors(best)
            sweeps.append(self.swept(best))
            if self.error(best) >= before:
                break
        return sweeps

    # --- the coordinates ---

    def over_grids(self, best: _Choice, scale: float) -> _Choice:
        """Walk to better time steps: along γ and the end, then one by one."""
        if not self.moves:
            return best
        factor, stride = STRIDES[0] ** scale, STRIDES[1] * scale
        if not best.moved:
            best = self.better(best, replace(best, grid=best.grid or START))
        while best.grid is not None and not best.moved:
            gamma, end = best.grid
            near = [(gamma * factor, end), (gamma / factor, end)]
            near += [(gamma, end + stride), (gamma, max(0.0, end - stride))]
            moved = self.better(best, *(replace(best, grid=grid) for grid in near))
            if moved == best:
                break
            best = moved
        return self.over_moves(best, scale)

    def over_moves(self, best: _Choice, scale: float) -> _Choice:
        """Move time steps one by one; the first stays, where noise is all there is."""
        timesteps = self.grid(best) or self.own(len(best.mask))
        if len(timesteps) != len(best.mask):
            return best  # a scheduler that takes two calls for a step
        for index in range(1, len(best.mask)):
            above, own, *below = timesteps[index - 1 : index + 2]
            step = max(1, round(MOVED * scale * (above - own)))
            near = [
                (*timesteps[:index], moved_to, *timesteps[index + 1 :])
                for moved_to in (own + step, own - step)
                if max(below, default=-1) < moved_to < above
            ]
            best = self.better(best, *(replace(best, moved=each) for each in near))
            timesteps = best.moved or timesteps
        return best

    def over_masks(self, best: _Choice) -> _Choice:
        """Try the masks of the budget, or the one that spans tell if they are many."""
        steps = len(best.mask)
        full = self.full(steps, best.predictor, best.level)
        masks = [m for m in _masks(steps) if m.count("1") == full]
        if len(masks) > MEASURED or not masks:
            base = self.latents(replace(best, mask="1" * steps))
            costs = {}
            for span in all_spans(steps):
                one = replace(best, mask=mask_of_span(steps, span))
                costs[span] = self.distance(self.latents(one), base)
            masks = [best_mask(steps, full, costs)]
        return self.better(best, *(replace(best, mask=mask) for mask in masks))

    def over_levels(self, best: _Choice) -> _Choice:
        """Try other levels, with as many full steps as each leaves the budget for."""
        others, steps = [], len(best.mask)
        for level in (None, *self.levels):
            if full := self.full(steps, best.predictor, level):
                fits = best.mask.count("1") == full
                mask = best.mask if fits else _even(steps, full)
                others.append(replace(best, mask=mask, level=level))
        return self.better(best, *others)

    def over_predictors(self, best: _Choice) -> _Choice:
        """Try the others, at the same mask if that is within their budget."""
        others = []
        for name in self.predictors if "0" in best.mask else ():
            if full := self.full(len(best.mask), name, best.level):
                fits = best.mask.count("1") <= full
                mask = best.mask if fits else _even(len(best.mask), full)
                others.append(replace(best, mask=mask, predictor=name))
        return self.better(best, *others)

    # --- what they cost and what they are worth ---

    def cost(self, predictor: str, level: int | None = None) -> dict[bool, float]:
        """Return what a full (True) and a light pass cost, of a pass of all levels.

        Raises:
            ValueError: If light passes need what is not kept.
        """
        adaptor = self.predictors[predictor]
        with contextlib.ExitStack() as stack:
            if level is not None:
                stack.enter_context(depth_skipped(self.pipe, level))
            told = stack.enter_context(clockwork(self.pipe, mask="10", adaptor=adaptor))
            self.sample(2, self.prompts[:1], 0)
            flops = told.flops
        if level is None:
            self.whole = flops[True]
        return {full: count / self.whole for full, count in flops.items()}

    def cheaper(self) -> dict[int, float]:
        """Return levels that are worth a try, the deepest first, and their costs."""
        found: dict[int, float] = {}
        first = next(iter(self.predictors))
        for level in range(levels_of(self.pipe.unet) - 1, 0, -1):
            try:
                cost = self.cost(first, level)[True]
            except ValueError:
                break  # light passes begin there
            if cost <= min(found.values(), default=1.0) - APART:
                found[level] = cost
        return found

    def share(self, mask: str, predictor: str, level: int | None = None) -> float:
        """Return a mask's share of the FLOPs, PNDM's and Heun's calls as they are."""
        scheduler = name_of(self.pipe.scheduler)
        calls = Clock(mask=mask).calls(scheduler, len(mask))
        whole = Clock().calls(scheduler, self.steps).full
        full = 1.0 if level is None else self.levels[level]
        return (calls.full * full + calls.light * self.shares[predictor]) / whole

    def full(self, steps: int, predictor: str, level: int | None = None) -> int:
        """Return how many of so many steps may be full, the first ones: 0 if none."""
        masks = ["1" * n + "0" * (steps - n) for n in range(1, steps + 1)]
        if steps == self.steps and level is None:
            masks.pop()  # no plan
        paid = [
            mask
            for mask in masks
            if self.share(mask, predictor, level) <= self.budget + 1e-9
        ]
        return max((mask.count("1") for mask in paid), default=0)

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
        if choice.moved:
            return choice.moved
        if choice.grid is None:
            return ()
        last = self.pipe.scheduler.config.num_train_timesteps - 1
        gamma, share = choice.grid
        steps = len(choice.mask)
        return ending_timesteps(steps, gamma, round(share * last), last=last)

    def own(self, steps: int) -> tuple[int, ...]:
        """Return the scheduler's own time steps, whole numbers."""
        scheduler = copy.deepcopy(self.pipe.scheduler)
        scheduler.set_timesteps(steps)
        return tuple(round(t) for t in scheduler.timesteps.tolist())

    def latents(self, choice: _Choice) -> torch.Tensor:
        """Sample by a choice."""
        adaptor, timesteps = self.predictors[choice.predictor], self.grid(choice)
        with contextlib.ExitStack() as stack:
            if choice.level is not None:
                stack.enter_context(depth_skipped(self.pipe, choice.level))
            if timesteps:
                stack.enter_context(at_timesteps(self.pipe, timesteps))
            stack.enter_context(clockwork(self.pipe, mask=choice.mask, adaptor=adaptor))
            return self.draw(len(choice.mask))

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
            best.level,
        )


def _even(steps: int, full: int) -> str:
    """Return the mask whose full steps are spread most evenly."""
    places = {index * steps // full for index in range(full)}
    return "".join("01"[index in places] for index in range(steps))


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
