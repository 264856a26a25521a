"""The long steps, small, as processes that can be hurt at any moment.

A server that has imported the libraries forks each of them, which takes a hundredth of
the time that Python takes to import torch.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import runpy
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clockwork_experiments.base import failures, storage

MINI = Path(__file__).parents[2] / "resources" / "mini"
STEPS = "clockwork_experiments.steps"
ROWS = "write_rows"
SAMPLER = {"scheduler": "dpmpp", "steps": 3, "guidance": 4.0}
CAPTIONS = [f"a {c} {s}" for c in ("red", "blue") for s in ("ring", "star", "moon")]


@dataclass(frozen=True)
class Step:
    """A step, and what it is told.

    Attributes:
        name: The step's, or the name of a module beside this one.
        spec: Its settings; their ``seed`` is varied.
        options: Its other options; paths are relative to the folder where it runs.
        outputs: What is the same, byte by byte, whatever happened on the way.
        loose: What else it writes, which says when.
        keeps: Whether its state stays, for other searches.
    """

    name: str
    options: Mapping[str, Any]
    spec: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("out/x.safetensors",)
    loose: tuple[str, ...] = ()
    keeps: bool = False

    def seeded(self, seed: int) -> Step:
        """Return the step with another seed."""
        return replace(self, spec={**self.spec, "seed": seed})

    @property
    def arguments(self) -> list[str]:
        """Return its command line."""
        words = ["--threads", "1"]
        if self.spec:
            words += ["--spec", json.dumps(self.spec)]
        for name, value in {"log": "logs/x.log", **self.options}.items():
            words += [
                f"--{name}",
                *(map(str, value if type(value) is list else [value])),
            ]
        return words


def prepare(folder: Path, translators: Path) -> dict[str, Step]:
    """Write what the steps read, and return them in the order in which they run."""
    given = folder / "given"
    storage.write_json(given / "prompts.json", CAPTIONS)
    levels = [
        {"level": n, "parameters": 10 * n, "count": {"macs_with_norms": 100 + n}}
        for n in range(1, 14)
    ]
    counted = {"levels": levels, "shared": {"output": 1}, "branch": None}
    storage.write_json(given / "levels.json", counted)
    shard = {"shard": 0, "shards": 1, "prompts": given / "prompts.json"}
    model = {"model": MINI / "stable-diffusion"}
    state, output = {"state": "state/x"}, {"output": "out/x.safetensors"}
    learned = given / "trajectories.safetensors"
    trajectory = {"sampler": SAMPLER, "cut": "stage1", "seed": 1, "batch_size": 1}
    recipe = {"steps": 60, "batch_size": 4, "lr": 0.001}
    return {
        ROWS: Step(ROWS, {**state, **output}, {"seed": 0}),
        "sample_trajectories": Step(
            "sample_trajectories",
            {**model, **shard, **state, **output, "clip": MINI / "clip"},
            trajectory,
        ),
        "train_adaptor": Step(
            "train_adaptor",
            {
                **{**model, "train": [learned], "heldout": [learned]},
                **{"prompts": given / "prompts.json", "state": "state/x.pt"},
                **{"output": "out/a", "error": "out/e.json", "curve": "out/c.csv"},
            },
            {"kind": "resnet", "cut": "stage1", "clock": 2, "optimisation": recipe},
            ("out/a/diffusion_pytorch_model.safetensors", "out/e.json"),
            ("out/a/config.json", "out/a/SHA256SUMS", "out/c.csv"),
        ),
        "sample_images": Step(
            "sample_images",
            {**model, **shard, **state, **output},
            {"sampler": SAMPLER, "seed": 0, "batch_size": 1},
        ),
        "extract_features": Step(
            "extract_features",
            {
                "images": [given / "images.safetensors"],
                **{"clip": MINI / "clip", "frechet": MINI / "features"},
                **{"frechet-kind": "mini", **shard, **output},
            },
        ),
        "search_depth": Step(
            "search_depth",
            {
                **{"translator": translators / "joined", "clip": MINI / "clip"},
                **{"set": given / "edit.json", "heldout": given / "others.json"},
                **{"levels": given / "levels.json", **state, "output": "out/x.json"},
            },
            {
                "translation": {"task": "edit", "steps": 2, "guidance": 3.0},
                **{"seed": 4, "batch_size": 1, "levels": [13, 9, 2]},
                "thresholds": [{"metric": "psnr_to_teacher", "at_least": 0.0}],
                "multi": {"groups": 2, "levels": [13, 9], "rows": [9], "verified": 2},
            },
            ("out/x.json",),
            keeps=True,
        ),
        "search_steps": Step(
            "search_steps",
            {
                **{"translator": translators / "joined", "clip": MINI / "clip"},
                **{"set": given / "edit.json", "heldout": given / "others.json"},
                **{**state, "references": "state/references", "output": "out/x.json"},
            },
            {
                "translation": {"task": "edit", "steps": 4, "guidance": 3.0},
                **{"seed": 4, "batch_size": 1, "steps": [2, 3], "most": 4},
                "methods": {"greedy": [2, 3]},
            },
            ("out/x.json",),
            keeps=True,
        ),
        "perturb_features": Step(
            "perturb_features",
            {
                **{**model, "prompts": given / "prompts.json", **state, **output},
                "distances": "out/x.json",
            },
            {
                **{"sampler": SAMPLER, "layers": ["bottleneck"], "alphas": [0.3, 1.0]},
                **{"starts": [0], "seed": 5, "batch_size": 1, "kept": 2},
            },
            ("out/x.safetensors", "out/x.json"),
        ),
        "train_mini": Step(
            "train_mini",
            {
                "recipe": "clockwork_experiments.mini.recipes.restorer",
                **{"state": "state/x.pt", "output": "out/m"},
            },
            RESTORER,
            ("out/m/model.safetensors",),
            ("out/m/README.md", "out/m/SHA256SUMS"),
        ),
    }


RESTORER = {
    **{"images": 32, "offset": 0, "width": 8, "layers": 2},
    "optimisation": {"steps": 60, "batch_size": 4, "lr": 0.001},
}

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        # First of all: it makes torchvision importable beside a CPU build of torch.
        "clockwork_experiments",
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "clockwork_experiments.generate.runs",
        "clockwork_experiments.generate.translators",
        "clockwork_experiments.models.encoders",
        "clockwork_experiments.search.evaluator",
        "clockwork_experiments.train.distillation",
    ]
)


class Running:
    """A step at work in a folder."""

    def __init__(
        self,
        step: Step,
        folder: Path,
        *,
        host: str = "",
        job: str = "",
        limit: int = 0,
        ahead: float = 0,
    ) -> None:
        """Start it.

        Args:
            step: Which, and what with.
            folder: Where.
            host: What it takes for the name of its machine; the true one if empty.
            job: Its Slurm job.
            limit: Bytes that a file may have; all if 0.
            ahead: Seconds that its machine's clock is wrong by.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / "logs" / "x.log"
        self.errors = folder.parent / f"{folder.name}.{time.monotonic_ns()}.err"
        told = (step.name, step.arguments, folder, self.errors)
        told += (host, job, limit, ahead)
        self.process = _FORKS.Process(target=_work, args=told)
        self.process.start()

    def until(self, reached: Callable[[], bool], seconds: float = 120) -> bool:
        """Wait until something is reached; return whether the step still runs."""
        end = time.monotonic() + seconds
        while not reached() and self.process.is_alive():
            assert time.monotonic() < end, f"{self.folder}: too slow"
            time.sleep(0.002)
        return self.process.is_alive()

    def hit(self, signal: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal)

    def end(self) -> int:
        """Wait for the end, and return the exit code, which is that of a class."""
        self.process.join(300)
        code = self.process.exitcode
        said = self.said()
        assert code in (0, -9, failures.Kind.INTERRUPTED), said
        assert "Traceback" not in said, said
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(lines) == (code == failures.Kind.INTERRUPTED), said
        return code

    def said(self) -> str:
        """Return what it said on stderr, without its bars."""
        text = self.errors.read_text("utf-8", errors="replace")
        return re.sub(r".*\r", "", text)


def _work(
    name: str,
    arguments: list[str],
    folder: Path,
    errors: Path,
    host: str,
    job: str,
    limit: int,
    ahead: float,
) -> None:
    """Become a step, within a process of the server's."""
    with errors.open("wb") as file:
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.update({"SLURM_JOB_ID": job} if job else {})
    os.environ["OMP_NUM_THREADS"] = "1"
    # What stops a process or limits it is to meet the step itself.
    os.environ["CLOCKWORK_FORKSERVER"] = "off"
    if host:
        socket.gethostname = lambda: host
        storage._HOST = host
    if ahead:
        now = time.time
        time.time = lambda: now() + ahead
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    module = name if name == ROWS else f"{STEPS}.{name}"
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def finish(step: Step, folder: Path) -> None:
    """Run a step, which nothing disturbs any more, to its end."""
    running = Running(step, folder)
    assert running.end() == 0, running.said()


@dataclass(frozen=True)
class Made:
    """A file that a step has made; equal ones have equal bytes.

    Whole, pytest would look for minutes for what differs between two.
    """

    size: int
    sha256: str


def made(step: Step, folder: Path) -> dict[str, Made]:
    """Return what a step has made; nothing else may be left in its folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix() for path in files}
    if step.keeps:
        ends = (".lease", ".partial", ".failed")
        state = {name for name in found if name.startswith("state/")}
        found -= {name for name in state if not name.endswith(ends)}
    assert found == {*step.outputs, *step.loose, "logs/x.log"}
    return {name: steady(folder / name) for name in step.outputs}


def steady(path: Path) -> Made:
    """Return a file that was made, but for the seconds that work took."""
    content = path.read_bytes()
    if path.suffix == ".json":
        content = re.sub(rb'"(\w*seconds\w*)": [\d.e-]+', rb'"\1": 0', content)
    return Made(len(content), storage.sha256_bytes(content))


def clear(folder: Path) -> None:
    """Remove a folder, and what the processes in it said."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in folder.parent.glob(f"{folder.name}.*.err"):
        path.unlink()
