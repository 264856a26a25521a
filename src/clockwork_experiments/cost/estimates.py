"""Estimate what a scale's jobs cost, from its configuration alone.

Work is counted in *passes*, one row of SD v1.5's whole UNet; a device takes so many
seconds for one. Loading, disks and waiting are left out, and so is what a CPU does.
A job is known by what it writes, so that the estimate of a target is that of its jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
class Memory:
    """What takes memory on a GPU, in GB and fp32.

    Attributes:
        pipeline: Weights of a text-to-image pipeline.
        row: A row of a UNet call, at its peak.
        decode: An image in the VAE's decoder, at its peak.
        scoring: CLIP ViT-g/14 with Inception, at their batch size.
    """

    pipeline: float
    row: float
    decode: float
    scoring: float


@dataclass(frozen=True)
class Disk:
    """What takes disk, in MB where nothing else is said.

    Attributes:
        image: An image of 512×512.
        features: Of one image.
        latent: Of one image.
        step: Stored features of a row of a teacher's step.
        sources: What a source brings, in GB, by its name.
    """

    image: float
    features: float
    latent: float
    step: float
    sources: dict[str, float]


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
        memory: What takes memory on a GPU.
        disk: What takes disk.
    """

    passes: Passes
    training: float
    pairs: dict[str, int]
    edit_sets: dict[str, EditSetSize]
    evaluations: dict[str, int]
    devices: dict[str, Device]
    memory: Memory
    disk: Disk


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


@dataclass(frozen=True)
class Job:
    """What one job takes.

    Attributes:
        rule: Its rule.
        output: What it writes, below ``results/<scale>/``; of several files one.
        passes: Its passes; 0 if it needs no GPU.
        memory: GB of a GPU; 0 if nobody counted it.
        disk: MB that stay on a disk.
    """

    rule: str
    output: str
    passes: float
    memory: float = 0.0
    disk: float = 0.0


def list_jobs(config: Mapping[str, Any], units: UnitCosts) -> Iterator[Job]:
    """Yield the jobs of a scale that cost something, each once.

    Args:
        config: A scale's configuration, as in ``config.yaml``.
        units: What a unit costs.

    Raises:
        ValueError: If the costs lack a model, a set or a method that it names.
    """
    try:
        found = {job.output: job for job in _Estimate(config, units).all()}
    except KeyError as error:
        raise ValueError(f"the unit costs say nothing of {error.args[0]!r}") from error
    yield from found.values()


def estimate(config: Mapping[str, Any], units: UnitCosts) -> dict[str, Work]:
    """Return the work of each rule that needs a GPU, all of a scale together.

    Args:
        config: A scale's configuration, as in ``config.yaml``.
        units: What a unit costs.

    Raises:
        ValueError: If the costs lack a model, a set or a method that it names.
    """
    found: dict[str, Work] = {}
    for job in list_jobs(config, units):
        if job.passes:
            found[job.rule] = found.get(job.rule, Work()) + Work(1, job.passes)
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

    def all(self) -> Iterator[Job]:
        yield from self.backbones()
        yield from self.adaptors()
        yield from self.runs()
        yield from self.timings()
        yield from self.perturbations()
        yield from self.edits()
        yield from self.translations()
        yield from self.depth_searches()
        yield from self.step_searches()
        yield from self.benchmark()

    def sharded(
        self,
        rule: str,
        folder: str,
        shards: int,
        passes: float,
        memory: float = 0.0,
        disk: float = 0.0,
    ) -> Iterator[Job]:
        """Yield the jobs of a rule that share its work."""
        for index in range(shards):
            output = f"{folder}/{index:03d}.safetensors"
            yield Job(rule, output, passes / shards, memory, disk / shards)

    def sampling(self, rows: int, images: int) -> float:
        """Return the GB that so many rows at once take, or images if decoded."""
        memory = self.units.memory
        return memory.pipeline + max(rows * memory.row, images * memory.decode)

    def of(self, section: str) -> Mapping[str, Any]:
        return self.config.get(section, {}) or {}

    def sampled(self, model: str, sampler: Mapping[str, Any]) -> float:
        """Return the passes of one image's UNet calls."""
        steps, scheduler = sampler["steps"], sampler.get("scheduler", "dpmpp")
        calls = clock_of(sampler).calls(scheduler, steps)
        total = calls.full * self.passes.full[model]
        if calls.light:
            total += calls.light * self.passes.light[model]
        return total * self.rows(sampler)

    def images(self, dataset: str) -> tuple[int, int]:
        """Return how many images a run on a data set has, and in how many shards."""
        chosen = self.of("datasets")[dataset]
        return chosen["count"] * chosen.get("seeds", 1), chosen["shards"]

    def runs(self) -> Iterator[Job]:
        scored = set()
        for name, run in self.of("runs").items():
            count, shards = self.images(run["dataset"])
            each = self.sampled(run["model"], run["sampler"]) + self.passes.decode
            batch = run.get("batch_size", 1)
            yield from self.sharded(
                "sample_images",
                f"images/{name}",
                shards,
                count * each,
                self.sampling(self.rows(run["sampler"]) * batch, batch),
                count * self.units.disk.image,
            )
            data = self.of("datasets")[run["dataset"]]
            if not data.get("scored", True):
                continue
            yield from self.features(name, run["dataset"])
            scored.add(data.get("reference", run["dataset"]))
            scored.add(run["dataset"])
        for name in sorted(scored):
            if "sampled" in self.of("datasets")[name]:
                continue
            count, shards = self.images(name)
            disk = count * self.units.disk.image
            folder = f"images/{name}"
            yield from self.sharded("prepare_images", folder, shards, 0.0, 0.0, disk)
            yield from self.features(name, name)

    def features(self, name: str, dataset: str) -> Iterator[Job]:
        count, shards = self.images(dataset)
        return self.sharded(
            "extract_features",
            f"features/{name}",
            shards,
            count * self.passes.features,
            self.units.memory.scoring,
            count * self.units.disk.features,
        )

    def rows(self, sampler: Mapping[str, Any]) -> int:
        """Return the rows of a UNet call for one image."""
        return 2 if sampler["guidance"] > 1 else 1

    def timings(self) -> Iterator[Job]:
        timing = self.of("latency")
        runs = [self.of("runs")[name] for name in timing.get("runs", ())]
        total = sum(self.sampled(run["model"], run["sampler"]) for run in runs)
        repeats = timing.get("repeats", 0)
        if runs:
            output, memory = "latency/sampling.json", self.sampling(2, 0)
            yield Job("time_sampling", output, repeats * total, memory)

    def used_adaptors(self) -> set[str]:
        """Return the adaptors that something is made with; others are drawn alone."""
        editing = self.of("editing")
        users = (
            self.of("runs"),
            editing.get("inversions", {}),
            editing.get("edits", {}),
            self.of("translations"),
            self.of("step_searches"),
            self.of("benchmark"),
        )
        masks = [task.get("masks", ()) for task in self.of("benchmark_tasks").values()]
        return {
            one["adaptor"] for of in users for one in of.values() if "adaptor" in one
        } | {name for names in masks for name in names}

    def adaptors(self) -> Iterator[Job]:
        recorded = set()
        used = self.used_adaptors()
        for name, adaptor in self.of("adaptors").items():
            if "model" not in adaptor or name not in used:
                continue
            spec = adaptor["spec"]
            optimisation = spec["optimisation"]
            samples = optimisation["steps"] * optimisation["batch_size"]
            total = samples * self.units.training * self.passes.adaptor
            if spec["kind"] in FITTED:
                total = 1.0  # Seconds, whatever the recipe of others.
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
            yield Job("train_adaptor", f"adaptors/{name}/config.json", total)
        for name in sorted(recorded):
            chosen = self.of("trajectories")[name]
            count, shards = self.images(chosen["dataset"])
            sampler = chosen["spec"]["sampler"]
            rows = self.rows(sampler)
            if chosen["spec"].get("stored") == "latents":
                each = self.units.disk.latent
            else:
                each = rows * self.units.disk.step
            yield from self.sharded(
                "sample_trajectories",
                f"trajectories/{name}",
                shards,
                count * self.trajectory(name),
                self.sampling(rows * chosen["spec"].get("batch_size", 1), 0),
                count * sampler["steps"] * each,
            )

    def trajectory(self, name: str) -> float:
        """Return the passes of one prompt's trajectory."""
        chosen = self.of("trajectories")[name]
        total = self.sampled(chosen["model"], chosen["spec"]["sampler"])
        started = chosen["spec"].get("source") in ("noised", "inverted")
        return total + (self.passes.encode if started else 0.0)

    def backbones(self) -> Iterator[Job]:
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
            yield Job("make_backbone", f"models/{name}/README.md", total)

    def perturbations(self) -> Iterator[Job]:
        for name, chosen in self.of("perturbations").items():
            spec = chosen["spec"]
            count, _ = self.images(chosen["dataset"])
            grid = len(spec["layers"]) * len(spec["starts"]) * len(spec["alphas"]) + 1
            each = self.sampled(chosen["model"], spec["sampler"]) + self.passes.decode
            total, output = count * grid * each, f"perturbations/{name}.safetensors"
            yield Job("perturb_features", output, total)

    def edits(self) -> Iterator[Job]:
        editing = self.of("editing")
        if not editing:
            return
        disk = self.units.disk
        settings, edits = editing["settings"], editing["edits"]
        for name, chosen in self.of("edit_sets").items():
            size = self.units.edit_sets[name]
            inverted, scored = set(), dict.fromkeys(settings, 0)
            for edit_name, edit in edits.items():
                wanted = edit.get("settings", tuple(settings))
                if edit_name not in chosen.get("edits", (edit_name,)):
                    continue
                batch = edit.get("batch_size", 1)
                for setting in wanted:
                    inverted.add((edit["inversion"], setting))
                    scored[setting] += size.pairs
                    yield Job(
                        "edit_images",
                        f"edited/{name}/{edit_name}/{setting}.safetensors",
                        self.edited(edit, settings[setting], size),
                        self.sampling(3 * batch, batch),
                        size.pairs * disk.image,
                    )
            for setting, pairs in scored.items():
                if pairs:
                    output = f"scores/edits/{name}/{setting}.json"
                    yield Job("score_edits", output, pairs * self.passes.edit_scores)
            for inversion, setting in sorted(inverted):
                loop, steps = editing["inversions"][inversion], settings[setting]
                each = self.looped(loop["model"], loop, steps["inversion"])
                yield Job(
                    "invert_images",
                    f"inversions/{name}/{inversion}/{setting}/index.json",
                    size.sources * (each + self.passes.encode),
                    self.sampling(loop.get("batch_size", 1), 0),
                    size.sources * steps["inversion"] * disk.latent,
                )

    def looped(self, model: str, loop: Mapping[str, Any], steps: int) -> float:
        """Return the passes of a row of a loop of DDIM."""
        full = clock_of(loop).full_steps(steps)
        total = full * self.passes.full[model]
        if full < steps:
            total += (steps - full) * self.passes.light[model]
        return total

    def edited(
        self, edit: Mapping[str, Any], setting: Mapping[str, Any], size: EditSetSize
    ) -> float:
        editing = self.of("editing")
        model = editing["inversions"][edit["inversion"]]["model"]
        # Source, negative and target prompt, or without guidance no negative one.
        rows = 3 if edit["guidance"] > 1 else 2
        each = rows * self.looped(model, edit, setting["generation"])
        return size.pairs * (each + self.passes.decode)

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

    def translations(self) -> Iterator[Job]:
        for name, run in self.of("translations").items():
            count = self.pairs(run["set"])
            shards = self.of("translation_sets")[run["set"]].get("shards", 1)
            task = self.of("translators")[run["translator"]]["task"]
            batch = run.get("batch_size", 1)
            yield from self.sharded(
                "translate_images",
                f"translated/{name}",
                shards,
                count * self.translated(run, run["steps"]),
                self.sampling(translation_rows(run, task) * batch, batch),
                count * self.units.disk.image,
            )
            scores = count * self.passes.translation_scores
            output = f"scores/translations/{name}.json"
            yield Job("score_translations", output, scores)

    def depth_searches(self) -> Iterator[Job]:
        for name, search in self.of("depth_searches").items():
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
            yield Job("search_depth", f"depth/{name}.json", total)

    def step_searches(self) -> Iterator[Job]:
        for name, search in self.of("step_searches").items():
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
            yield Job("search_steps", f"timesteps/{name}.json", total)

    def benchmark(self) -> Iterator[Job]:
        """Yield the benchmark's jobs; T-GATE and ToMe as if they saved nothing."""
        for task, found in self.of("benchmark_tasks").items():
            folder = f"benchmark/{task}"
            if "model" in found:
                count, _ = self.images(found["dataset"])
            else:
                count = self.pairs(found["set"]) * found.get("seeds", 1)
            many = self.benchmarked(found, found["reference"])
            each = self.benchmarked(found, found["steps"])
            scored = count * self.passes.features
            plans = self.units.evaluations["plan"] * found["planned_on"]
            yield Job(
                "sample_reference",
                f"{folder}/reference.safetensors",
                count * many + scored,
            )
            yield Job("find_grids", f"{folder}/grids.json", found["planned_on"] * many)
            for name, method in self.of("benchmark").items():
                if method["task"] != task:
                    continue
                told = method.get("settings", {})
                steps = told.get("steps", found["steps"])
                own = self.benchmarked(found, steps, told, "adaptor" in method)
                if method["kind"] == "planned":
                    own = each * told["budget"]
                    total = plans * own + found["planned_on"] * many
                    yield Job("make_plan", f"{folder}/plans/{name}.json", total)
                measured = f"{folder}/methods/{name}.json"
                yield Job("measure_method", measured, count * own + scored)
                turns = found["timed"] + 3  # those that warm up
                timing = turns * (own + 2 * each)
                yield Job("time_method", f"{folder}/times/{name}.json", timing)
            masks = 2 ** (found["steps"] - 1) * found.get("mask_captions", 16)
            half = self.benchmarked(found, found["steps"], {"clock": 2}, True)
            for name in found.get("masks", ()):
                yield Job("measure_masks", f"{folder}/masks/{name}.json", masks * half)

    def benchmarked(
        self,
        task: Mapping[str, Any],
        steps: int,
        told: Mapping[str, Any] | None = None,
        reuses: bool = False,
    ) -> float:
        """Return the passes of one image of a task by a method."""
        clock = {"clock": 2, **(told or {})} if reuses else {}
        clock = {key: clock[key] for key in ("clock", "mask") if key in clock}
        if clock.get("mask"):
            clock.pop("clock")
        if "translator" in task:
            return self.translated({**task, **clock}, steps)
        sampler = {**task, "steps": steps, **clock}
        return self.sampled(task["model"], sampler) + self.passes.decode


# --- what a reader sees --------------------------------------------------------------


def to_markdown(config: Mapping[str, Any], units: UnitCosts, title: str) -> str:
    """Return the estimate as a table, the dearest rule first, with what it rests on."""
    devices = list(units.devices.values())
    heads = ["rule", "GPU jobs", "passes, M", *(f"{d.label}, h" for d in devices)]
    heads += ["GPU, GB", "disk, GB"]
    rules: dict[str, list[Job]] = {}
    for job in list_jobs(config, units):
        rules.setdefault(job.rule, []).append(job)
    ordered = sorted(rules.items(), key=lambda item: -sum(j.passes for j in item[1]))
    every = [job for jobs in rules.values() for job in jobs]
    lines = []
    for rule, jobs in [*ordered, ("all", every)]:
        passes = sum(job.passes for job in jobs)
        counted = str(sum(job.passes > 0 for job in jobs)) if passes else "—"
        times = _numbers(passes, devices) if passes else ["—"] * (1 + len(devices))
        most = max(job.memory for job in jobs)
        memory = f"{most:.1f}" if most else "—"
        disk = sum(job.disk for job in jobs) / 1e3
        lines.append(
            [rule, counted, *times, memory, f"{disk:,.1f}" if disk >= 0.05 else "—"]
        )
    rule = "|".join([":--", *("--:" for _ in heads[1:])])
    bases = "; ".join(f"{d.label}: {d.basis}" for d in devices)
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"**{title}**\n\n| {' | '.join(heads)} |\n|{rule}|\n{body}\n\n"
        "Estimates; nothing was measured on a GPU. A pass: one row of SD v1.5's whole "
        f"UNet at 64×64 latents, 677.8 GFLOPs. Seconds of a pass: {bases}. Our "
        "steps compute in fp32, which takes a GPU longer than the fp16 of its number. "
        "Loading, disks and what runs on a CPU are left out. GPU, GB: the largest job, "
        "in fp32, by the shapes of its tensors; a dash: not counted. Disk: what is "
        "made; a dry run adds what is fetched.\n"
    )


def to_text(jobs: Sequence[Job], fetched: Sequence[str], units: UnitCosts) -> str:
    """Return what the jobs of a dry run would cost, for a terminal; "" if nothing.

    Args:
        jobs: The jobs that are left, of those that cost something.
        fetched: The sources that are left to fetch.
        units: What a unit costs; reckoned is on its first device.
    """
    device = next(iter(units.devices.values()))
    rules: dict[str, list[Job]] = {}
    for job in jobs:
        rules.setdefault(job.rule, []).append(job)
    known = {name: units.disk.sources.get(name, 0.0) for name in fetched}
    if not rules and not known:
        return ""
    rows = []
    for rule, each in rules.items():
        time = hours(sum(job.passes for job in each), device)
        most = max(job.memory for job in each)
        rows.append((time, rule, len(each), most, sum(job.disk for job in each) / 1e3))
    rows.sort(reverse=True)
    if known:
        rows.append((0.0, "fetch_source", len(known), 0.0, sum(known.values())))
    times, _, counts, memories, disks = zip(*rows, strict=True)
    rows.append((sum(times), "all", sum(counts), max(memories), sum(disks)))
    lines = [
        f"{rule:<30}{count:>6}{_shown(time):>12}{_shown(memory):>10}{_shown(disk):>10}"
        for time, rule, count, memory, disk in rows
    ]
    names = f"{'rule':<30}{'jobs':>6}{'GPU hours':>12}{'GPU GB':>10}{'disk GB':>10}"
    head = f"Estimated costs ({device.label}; {device.basis}):"
    said = [
        "GPU GB: the largest job, fp32, by the shapes of its tensors; with what an "
        "allocator wastes, up to a third more. A dash: not counted."
    ]
    unknown = sorted(name for name, size in known.items() if not size)
    if unknown:
        said.append(f"Disk leaves out what nobody told: {', '.join(unknown)}.")
    return "\n".join([head, names, *lines, *said])


def _shown(value: float) -> str:
    return "-" if not value else f"{value:.2f}" if value < 1 else f"{value:.1f}"


def _numbers(passes: float, devices: list[Device]) -> list[str]:
    times = [hours(passes, device) for device in devices]
    return [_rounded(each) for each in (passes / 1e6, *times)]


def _rounded(value: float) -> str:
    """Return an estimate with no more digits than it deserves."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
