"""Estimate what a scale's rules cost, from its configuration alone.

Work is counted in *passes*, one row of SD v1.5's whole UNet; a device takes so many
seconds for one. Loading, disks and waiting are left out, and so is what a CPU does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clockwork_diffusion.clock import clock_of
from clockwork_experiments.cost.formulas import translation_rows

FITTED = ("affine", "low_rank")
"""Kinds of adaptors that are fitted in closed form."""


@dataclass(frozen=True)
class Passes:
    """What work takes, in passes; for one image where nothing else is said.

    Attributes:
        full: A row of a model's whole UNet, by model.
        light: A row of an adaptor step, by model.
        task: A row of a translator's whole UNet, by task.
        levels: What is left of that at level 1, 2, and so on.
        decode: The VAE's decoder.
        encode: Its encoder.
        features: What text-to-image is scored with.
        translation_scores: What translations are scored with.
        edit_scores: What edits are scored with.
        adaptor: A sample through an adaptor.
    """

    full: dict[str, float]
    light: dict[str, float]
    task: dict[str, float]
    levels: tuple[float, ...]
    decode: float
    encode: float
    features: float
    translation_scores: float
    edit_scores: float
    adaptor: float


@dataclass(frozen=True)
class EditSetSize:
    """How large an editing set is.

    Attributes:
        sources: Its source images.
        pairs: Its target prompts, all sources together.
    """

    sources: int
    pairs: int


@dataclass(frozen=True)
class Device:
    """What something computes on.

    Attributes:
        label: What the reader sees.
        seconds: Of one pass.
        basis: Where that number is from.
    """

    label: str
    seconds: float
    basis: str


@dataclass(frozen=True)
class UnitCosts:
    """What a unit of work costs.

    Attributes:
        passes: Work in passes.
        training: A forward and backward pass, in forward passes.
        pairs: Pairs of a set whose number the configuration leaves to its folder.
        edit_sets: Sizes of editing sets.
        evaluations: Evaluations of a search for time steps, by method.
        devices: Devices by id.
    """

    passes: Passes
    training: float
    pairs: dict[str, int]
    edit_sets: dict[str, EditSetSize]
    evaluations: dict[str, int]
    devices: dict[str, Device]


@dataclass(frozen=True)
class Work:
    """What a rule has to do.

    Attributes:
        jobs: Its jobs.
        passes: What they take together.
    """

    jobs: int = 0
    passes: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Return both together."""
        return Work(self.jobs + other.jobs, self.passes + other.passes)


def estimate(config: Mapping[str, Any], units: UnitCosts) -> dict[str, Work]:
    """Return the work of each rule that needs a GPU, all of a scale together.

    Args:
        config: A scale's configuration, as in ``config.yaml``.
        units: What a unit costs.

    Raises:
        ValueError: If the costs lack a model, a set or a method that it names.
    """
    found: dict[str, Work] = {}
    try:
        for rule, work in _Estimate(config, units).all():
            found[rule] = found.get(rule, Work()) + work
    except KeyError as error:
        raise ValueError(f"the unit costs say nothing of {error.args[0]!r}") from error
    return found


def hours(passes: float, device: Device) -> float:
    """Return how long a device computes."""
    return passes * device.seconds / 3600


@dataclass(frozen=True)
class _Estimate:
    config: Mapping[str, Any]
    units: UnitCosts
    passes: Passes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "passes", self.units.passes)

    def all(self) -> Iterator[tuple[str, Work]]:
        yield from self.backbones()
        yield from self.adaptors()
        yield from self.runs()
        yield from self.perturbations()
        yield from self.edits()
        yield from self.translations()
        yield from self.depth_searches()
        yield from self.step_searches()

    def of(self, section: str) -> Mapping[str, Any]:
        return self.config.get(section, {}) or {}

    def sampled(self, model: str, sampler: Mapping[str, Any]) -> float:
        """Return the passes of one image's UNet calls."""
        steps, scheduler = sampler["steps"], sampler.get("scheduler", "dpmpp")
        calls = clock_of(sampler).calls(scheduler, steps)
        total = calls.full * self.passes.full[model]
        if calls.light:
            total += calls.light * self.passes.light[model]
        return total * (2 if sampler["guidance"] > 1 else 1)

    def images(self, dataset: str) -> tuple[int, int]:
        """Return how many images a run on a data set has, and in how many shards."""
        chosen = self.of("datasets")[dataset]
        return chosen["count"] * chosen.get("seeds", 1), chosen["shards"]

    def runs(self) -> Iterator[tuple[str, Work]]:
        scored = set()
        for run in self.of("runs").values():
            count, shards = self.images(run["dataset"])
            each = self.sampled(run["model"], run["sampler"]) + self.passes.decode
            yield "sample_images", Work(shards, count * each)
            yield "extract_features", Work(shards, count * self.passes.features)
            scored.add(run["dataset"])
        for dataset in scored:
            count, shards = self.images(dataset)
            yield "extract_features", Work(shards, count * self.passes.features)

    def adaptors(self) -> Iterator[tuple[str, Work]]:
        recorded = set()
        for adaptor in self.of("adaptors").values():
            if "model" not in adaptor:
                continue
            spec = adaptor["spec"]
            optimisation = spec["optimisation"]
            samples = optimisation["steps"] * optimisation["batch_size"]
            total = samples * self.units.training * self.passes.adaptor
            if spec["kind"] in FITTED:
                total = 0.0  # seconds, whatever the recipe of others
            trained = self.of("trajectories")[adaptor["train"]]
            if trained["spec"].get("stored") == "latents":
                # Its r_in and r_out, and r_out of the step before.
                total += samples * 2 * self.passes.full[trained["model"]]
            recorded |= {adaptor["heldout"], *adaptor.get("also_train", ())}
            if spec.get("epochs"):
                count = (
                    spec.get("subset")
                    or self.images(
                        self.of("trajectories")[adaptor["train"]]["dataset"]
                    )[0]
                )
                total += spec["epochs"] * count * self.trajectory(adaptor["train"])
            else:
                recorded.add(adaptor["train"])
            yield "train_adaptor", Work(1, total)
        for name in sorted(recorded):
            count, shards = self.images(self.of("trajectories")[name]["dataset"])
            yield "sample_trajectories", Work(shards, count * self.trajectory(name))

    def trajectory(self, name: str) -> float:
        """Return the passes of one prompt's trajectory."""
        chosen = self.of("trajectories")[name]
        total = self.sampled(chosen["model"], chosen["spec"]["sampler"])
        started = chosen["spec"].get("source") in ("noised", "inverted")
        return total + (self.passes.encode if started else 0.0)

    def backbones(self) -> Iterator[tuple[str, Work]]:
        for name, backbone in self.of("backbones").items():
            teacher = self.passes.full[backbone["teacher"]]
            student = self.units.training * self.passes.full[name]
            total = 0.0
            for stage in backbone["spec"]["stages"]:
                # Guidance takes two rows; half the steps, two calls for one.
                calls = 2 if "guidance" in stage or "steps" in stage else 1
                chosen = stage["optimisation"]
                each = calls * teacher + student + self.passes.encode
                total += chosen["steps"] * chosen["batch_size"] * each
            yield "make_backbone", Work(1, total)

    def perturbations(self) -> Iterator[tuple[str, Work]]:
        for chosen in self.of("perturbations").values():
            spec = chosen["spec"]
            count, _ = self.images(chosen["dataset"])
            grid = len(spec["layers"]) * len(spec["starts"]) * len(spec["alphas"]) + 1
            each = self.sampled(chosen["model"], spec["sampler"]) + self.passes.decode
            yield "perturb_features", Work(1, count * grid * each)

    def edits(self) -> Iterator[tuple[str, Work]]:
        editing = self.of("editing")
        if not editing:
            return
        settings, edits = editing["settings"], editing["edits"]
        for name, chosen in self.of("edit_sets").items():
            size = self.units.edit_sets[name]
            inverted = set()
            for edit_name, edit in edits.items():
                wanted = edit.get("settings", tuple(settings))
                if edit_name not in chosen.get("edits", (edit_name,)):
                    continue
                for setting in wanted:
                    inverted.add((edit["inversion"], setting))
                    yield "edit_images", self.edited(edit, settings[setting], size)
                    yield (
                        "score_edits",
                        Work(0, size.pairs * self.passes.edit_scores),
                    )
            used = {setting for _, setting in inverted}
            yield "score_edits", Work(len(used), 0.0)
            for inversion, setting in sorted(inverted):
                loop = editing["inversions"][inversion]
                each = self.looped(loop["model"], loop, settings[setting]["inversion"])
                total = size.sources * (each + self.passes.encode)
                yield "invert_images", Work(1, total)

    def looped(self, model: str, loop: Mapping[str, Any], steps: int) -> float:
        """Return the passes of a row of a loop of DDIM."""
        full = clock_of(loop).full_steps(steps)
        total = full * self.passes.full[model]
        if full < steps:
            total += (steps - full) * self.passes.light[model]
        return total

    def edited(
        self, edit: Mapping[str, Any], setting: Mapping[str, Any], size: EditSetSize
    ) -> Work:
        editing = self.of("editing")
        model = editing["inversions"][edit["inversion"]]["model"]
        # Source, negative and target prompt, or without guidance no negative one.
        rows = 3 if edit["guidance"] > 1 else 2
        each = rows * self.looped(model, edit, setting["generation"])
        return Work(1, size.pairs * (each + self.passes.decode))

    def pairs(self, name: str) -> int:
        chosen = self.of("translation_sets")[name]
        return int(chosen["count"] if "count" in chosen else self.units.pairs[name])

    def call(self, run: Mapping[str, Any]) -> float:
        """Return the passes of one UNet call of a translation, all rows together."""
        task = self.of("translators")[run["translator"]]["task"]
        rows = translation_rows(run, task)
        level = run.get("level", len(self.passes.levels))
        return rows * self.passes.task[task] * self.passes.levels[level - 1]

    def translated(self, run: Mapping[str, Any], steps: int) -> float:
        """Return the passes of one translated image."""
        full = clock_of(run).full_steps(steps)
        light = self.passes.light["sd"] / self.passes.full["sd"]
        calls = full + (steps - full) * light
        return calls * self.call(run) + self.passes.encode + self.passes.decode

    def translations(self) -> Iterator[tuple[str, Work]]:
        for run in self.of("translations").values():
            count = self.pairs(run["set"])
            shards = self.of("translation_sets")[run["set"]].get("shards", 1)
            total = count * self.translated(run, run["steps"])
            yield "translate_images", Work(shards, total)
            scores = count * self.passes.translation_scores
            yield "score_translations", Work(1, scores)

    def depth_searches(self) -> Iterator[tuple[str, Work]]:
        for search in self.of("depth_searches").values():
            count, steps = self.pairs(search["set"]), search["steps"]
            levels = [{**search, "level": level} for level in search["levels"]]
            total = count * sum(self.translated(run, steps) for run in levels)
            whole = self.translated(search, steps)
            multi = search.get("multi", {})
            # Each group of steps at each level alone, then the best predicted: no
            # dearer than the whole UNet.
            more = multi.get("groups", 0) * len(multi.get("levels", ()))
            more += len(multi.get("rows", ())) * multi.get("verified", 0)
            total += count * more * whole
            answers = 2 + len(multi.get("rows", ()))
            total += self.pairs(search["heldout"]) * answers * whole
            yield "search_depth", Work(1, total)

    def step_searches(self) -> Iterator[tuple[str, Work]]:
        for search in self.of("step_searches").values():
            count = self.pairs(search["set"])
            total = count * self.translated(search, search["reference"])
            held = search.get("heldout")
            answers = list(search["steps"])
            for method, asked in search["methods"].items():
                known = search.get("evolution_set") if "evolution" in method else None
                seen = count if known is None else self.pairs(known)
                for steps in asked:
                    each = self.translated(search, steps)
                    total += self.units.evaluations[method] * seen * each
                    answers.append(steps)
            if held is not None:
                run = [self.translated(search, steps) for steps in answers]
                run.append(self.translated(search, search["reference"]))
                total += self.pairs(held) * sum(run)
            yield "search_steps", Work(1, total)


# --- what a reader sees --------------------------------------------------------------


def to_markdown(found: Mapping[str, Work], units: UnitCosts, title: str) -> str:
    """Return the estimate as a table, the dearest rule first, with what it rests on."""
    devices = list(units.devices.values())
    heads = ["rule", "GPU jobs", "passes, M", *(f"{d.label}, h" for d in devices)]
    ordered = sorted(found.items(), key=lambda item: -item[1].passes)
    total = sum(found.values(), Work())
    lines = [
        " | ".join((rule, str(work.jobs), *_numbers(work.passes, devices)))
        for rule, work in [*ordered, ("all", total)]
    ]
    rule = "|".join([":--", *("--:" for _ in heads[1:])])
    bases = "; ".join(f"{d.label}: {d.basis}" for d in devices)
    body = "\n".join(f"| {line} |" for line in lines)
    return (
        f"**{title}**\n\n| {' | '.join(heads)} |\n|{rule}|\n{body}\n\n"
        "Estimates; nothing was measured on a GPU. A pass: one row of SD v1.5's whole "
        f"UNet at 64×64 latents, 677.8 GFLOPs. Seconds of a pass: {bases}. Our "
        "steps compute in fp32, which takes a GPU longer than the fp16 of its number. "
        "Loading, disks and what runs on a CPU are left out.\n"
    )


def to_text(stats: Mapping[str, int], found: Mapping[str, Work], device: Device) -> str:
    """Return what the jobs of a dry run would cost, for a terminal.

    Args:
        stats: Jobs by rule; a rule's name may have a suffix.
        found: The work of each rule, all of its jobs together.
        device: What it is reckoned on.
    """
    rows, total = [], 0.0
    for rule, jobs in stats.items():
        base = (
            rule
            if rule in found
            else next((name for name in found if rule.startswith(f"{name}_")), "")
        )
        if not base or not found[base].jobs:
            continue
        time = jobs * hours(found[base].passes / found[base].jobs, device)
        rows.append((time, f"{rule:<42}{jobs:>6}{time:>12.1f}"))
        total += time
    if not rows:
        return ""
    lines = [line for _, line in sorted(rows, key=lambda row: -row[0])]
    head = (
        f"Estimated GPU hours ({device.label}; {device.basis}; a job of the mean size):"
    )
    names = f"{'rule':<42}{'jobs':>6}{'hours':>12}"
    jobs = sum(stats.values())
    return "\n".join([head, names, *lines, f"{'all':<42}{jobs:>6}{total:>12.1f}"])


def _numbers(passes: float, devices: list[Device]) -> list[str]:
    return [f"{passes / 1e6:.2f}", *(f"{hours(passes, d):,.0f}" for d in devices)]
