"""Say what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from clockwork_experiments.cli import checkout
from clockwork_experiments.cli.facts import Facts, gather
from clockwork_experiments.cli.options import ConfigFiles, Directory
from clockwork_experiments.cli.sources import MISSING, OK, WARNING, State, states

PYTHON = (3, 11)
LEAST_CORES, LEAST_MEMORY_GB, LEAST_DISK_GB = 2, 4, 3
"""Of the mini run: two processes of below 1 GB each; its results and the packages."""

PAPER_DISK_GB = 100
"""Of the paper scale: tens of GB are fetched, and 500 SD trajectories are 16 GB."""

PAPER_GPU_GB = 16
"""What batches of eight in fp32 beside ViT-g/14 fit into; smaller ones need less."""

INSTALL = 'pip install -e ".[experiments]" -c constraints.txt'


def machine(facts: Facts) -> Iterator[State]:
    """Yield what facts mean, one line each."""
    python = tuple(map(int, facts.python.split(".")[:2]))
    yield _least("python", facts.python, python >= PYTHON, "install Python 3.11", True)
    yield from _packages(facts)
    yield from _torch(facts)
    yield from _gpus(facts)
    several = f"{facts.cores} core{'s' if facts.cores > 1 else ''}"
    todo = "the mini run takes twice as long"
    yield _least("cores", several, facts.cores >= LEAST_CORES, todo)
    enough = facts.memory_gb >= LEAST_MEMORY_GB
    yield _least("memory", f"{facts.memory_gb:.0f} GB", enough, "run with --cores 1")
    free = f"{facts.free_gb:.0f} GB free"
    if facts.free_gb < LEAST_DISK_GB:
        todo = f"make room: the mini run takes up to {LEAST_DISK_GB} GB"
        yield State(WARNING, "disk", free, todo)
    elif facts.free_gb < PAPER_DISK_GB:
        todo = "enough for mini scale; paper scale fetches tens of GB and makes more"
        yield State(WARNING, "disk", free, todo)
    else:
        yield State(OK, "disk", free)
    if facts.slurm:
        yield State(OK, "slurm", facts.slurm, "see profiles/slurm")
    else:
        yield State(MISSING, "slurm", "no sbatch here", "only a cluster needs it")


def _least(
    name: str, said: str, enough: bool, todo: str, needed: bool = False
) -> State:
    if enough:
        return State(OK, name, said)
    return State(MISSING if needed else WARNING, name, said, todo, needed)


def _packages(facts: Facts) -> Iterator[State]:
    from packaging.requirements import Requirement

    required = list(map(Requirement, facts.required))
    absent = [str(each) for each in required if each.name not in facts.installed]
    old = [
        f"{each.name} {facts.installed[each.name]} (needs {each.specifier})"
        for each in required
        if each.name in facts.installed
        and not each.specifier.contains(facts.installed[each.name], prereleases=True)
    ]
    other = []
    for name in ("diffusers", "transformers"):
        found, pin = facts.installed.get(name), facts.pins.get(name)
        if found and pin and found != pin:
            other.append(f"{name} {found} (tested with {pin})")
        elif found:
            yield State(OK, name, f"{found}{', as pinned' if pin else ''}")
    if absent or old or not required:
        wrong = ", ".join([*absent, *old]) or "this package is not installed"
        yield State(MISSING, "packages", wrong, INSTALL, needed=True)
    else:
        yield State(OK, "packages", f"all {len(required)} that the experiments need")
    if other:
        todo = f"works, but numbers may differ; {INSTALL}"
        yield State(WARNING, "versions", ", ".join(other), todo)


def _torch(facts: Facts) -> Iterator[State]:
    told = facts.torch
    if "error" in told:
        yield State(MISSING, "torch", told["error"], INSTALL, needed=True)
        return
    kind = f"CUDA {told['cuda']}" if told.get("cuda") else "CPU"
    yield State(OK, "torch", f"{told['torch']} ({kind} build)")
    version = facts.installed.get("torchvision", "none")
    if not told["operators"]:
        yield State(OK, "torchvision", f"{version}; its compiled operators load")
        return
    yield State(
        WARNING,
        "torchvision",
        f"{version} is not built for this torch ({told['operators']})",
        "we do without its operators; other programs may want the pair of one index",
    )


def _gpus(facts: Facts) -> Iterator[State]:
    gpus = facts.torch.get("gpus", [])
    for name, memory, (major, minor) in gpus:
        # As torch says itself: bfloat16 from Ampere on, float16 before.
        half = "float16, bfloat16" if major >= 8 else "float16"
        said = f"{name}, {memory / 1e9:.0f} GB, float32, {half} (sm_{major}{minor})"
        enough = memory / 1e9 >= PAPER_GPU_GB
        todo = "for paper scale set smaller batch_size in config.yaml"
        yield _least("gpu", said, enough, todo)
    if gpus:
        return
    if facts.seen:
        said = f"{facts.seen[0]} is here, but this torch cannot use it"
        yield State(WARNING, "gpu", said, "install the CUDA build of torch")
    elif facts.torch.get("mps"):
        said = "Apple's; the steps compute on the CPU in float32"
        yield State(WARNING, "gpu", said, "enough for mini scale")
    else:
        said = "none; the CPU computes in float32"
        yield State(
            WARNING, "gpu", said, "enough for mini scale; paper scale needs one"
        )


def summary(here: list[State], sources: list[State]) -> str:
    """Return what all of it comes to."""
    lacking = [each.name for each in here if each.needed and each.level != OK]
    mini = f"Not ready: {', '.join(lacking)}." if lacking else "Mini scale: ready."
    there = sum(each.level == OK for each in sources)
    paper = f"Paper scale: {there} of {len(sources)} sources are at hand."
    return f"{mini} {paper}" if sources else mini


def doctor(directory: Directory = None, configfile: ConfigFiles = None) -> None:
    """Say what works here, and what to do about what does not.

    Looks at Python and its packages, the GPU, memory, disk, Slurm, and where the paper
    scale's weights and data are. Ends with exit code 1 if even mini scale cannot run.

    Example: clockwork doctor
    """
    found: checkout.Checkout | None = None
    try:
        root = checkout.find(directory)
    except ValueError as error:
        wanted = State(MISSING, "checkout", str(error), needed=True)
    else:
        found = checkout.configured(root, configfile)
        wanted = State(OK, "checkout", str(root))
    # First, since a configuration that cannot be read ends it.
    sources = states(found) if found else []
    facts = gather(found.root if found else Path.cwd())
    here = [wanted, *machine(facts)]
    width = max(len(each.name) for each in (*here, *sources))
    lines = [each.line(width) for each in here]
    if sources:
        lines += ["", "Weights and data of the paper scale; mini scale needs none:"]
        lines += [each.line(width) for each in sources]
    typer.echo("\n".join([*lines, "", summary(here, sources)]))
    if any(each.needed and each.level != OK for each in here):
        raise typer.Exit(1)


COMMANDS = (doctor,)
"""The commands of this module."""
