"""A slice of the mini pipeline on a real Slurm, which is then made to misbehave.

One run takes all the blows, each while the others' jobs go on: starting a job costs ten
seconds on two cores, and the executor looks at them ever more rarely.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cluster as slurm
import pytest
import yaml
from checkout import copy_checkout, environment

from clockwork_experiments.base import storage

TABLE = "results/mini/tables/clockwork/table_1.csv"
ADAPTOR = Path("results/mini/adaptors/sd_resnet/diffusion_pytorch_model.safetensors")
CURVE = Path("results/mini/curves/adaptors/sd_resnet.csv")
IMAGES = Path("results/mini/images/sd_clockwork/000.safetensors")
STATE = Path("results/mini/.state")
TRAINED = "logs/mini/train_adaptor/sd_resnet.log"
SAMPLED = "logs/mini/sample_images/{}/000.log"
SAMPLING = "clockwork_experiments.steps.sample_images"
ROWS = ("sd", "sd_clockwork")
SLICE: dict[str, Any] = {
    "mini": {
        "datasets": {"test": {"count": 16}, "reference": {"count": 40}},
        "adaptors": {
            "sd_resnet": {"gpus": 2, "spec": {"optimisation": {"steps": 400}}}
        },
        "runs": {"sd": {"batch_size": 2}, "sd_clockwork": {"batch_size": 2}},
    }
}
"""What differs from tests/e2e/tiny.yaml: training on two GPUs, and more chunks."""


def prepare(checkout: Path) -> None:
    """Leave one small table in the registry, and fill in the profile."""
    path = checkout / "workflow/papers/clockwork.yaml"
    registry = json.loads(json.dumps(yaml.safe_load(path.read_text("utf-8"))))
    table = registry["tables"]["table_1"]["mini"]
    table["columns"] = ["frechet", "clip", "psnr_to_teacher", "gflops", "n"]
    table["rows"] = [row for row in table["rows"] if row["run"] in ROWS]
    registry = {
        "title": registry["title"],
        "tables": {"table_1": {"mini": table}},
        "figures": {},
    }
    write(path, registry)
    path.with_name("compression.yaml").unlink()
    write(checkout / "slice.yaml", SLICE)
    profile = checkout / "profiles/slurm"
    settings = yaml.safe_load((profile / "config.yaml").read_text("utf-8"))
    del settings["default-resources"]["slurm_account"]
    # Short waits; all else is as users have it.
    settings["seconds-between-status-checks"] = 2
    settings["slurm-init-seconds-before-status-checks"] = 2
    settings["latency-wait"] = 10
    write(profile / "config.yaml", settings)
    partitions = (profile / "partitions.yaml").read_text("utf-8")
    partitions = re.sub(r"YOUR_(\w+)_PARTITION", lambda m: m[1].lower(), partitions)
    (profile / "partitions.yaml").write_text(partitions, encoding="utf-8")


def write(path: Path, data: Any) -> None:
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


@dataclass
class Run:
    """A Snakemake in a copy of the checkout, and what happened to its jobs."""

    checkout: Path
    cluster: slurm.Cluster
    seen: dict[str, dict[str, str]] = field(default_factory=dict)
    """Jobs as they were when something was done to them."""

    def start(self, target: str | Path, *arguments: str) -> None:
        configs = ("--configfile", "tests/e2e/tiny.yaml", "slice.yaml", "--")
        self.launch(*arguments, *configs, str(target))

    def launch(self, *arguments: str) -> None:
        self.log = self.checkout / "snakemake.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *arguments],
                cwd=self.checkout,
                env=self.environment(),
                stdout=log,
                stderr=log,
            )

    def environment(self) -> dict[str, str]:
        ours, slurms = environment(self.checkout), self.cluster.environment
        path = f"{self.cluster.folder / 'bin'}{os.pathsep}{ours['PATH']}"
        return {**ours, "SLURM_CONF": slurms["SLURM_CONF"], "PATH": path}

    def jobs(self, rule: str, state: str = "") -> list[dict[str, str]]:
        return [
            job
            for job in self.cluster.jobs()
            if job.get("Comment", "").startswith(f"rule_{rule}")
            and job["JobState"].startswith(state)
        ]

    def job(self, number: str) -> dict[str, str]:
        return next(job for job in self.cluster.jobs() if job["JobId"] == number)

    def wait(self, what: str, reached: Callable[[], Any], seconds: float = 600) -> Any:
        """Wait for something, and return it; or say how far Snakemake came."""
        result: list[Any] = []

        def look() -> bool:
            try:
                result[:] = [reached()]
            except subprocess.SubprocessError:
                return False  # the controller is away
            assert result[0] or self.process.poll() is None, self.tail()
            return bool(result[0])

        try:
            slurm.wait_for(what, look, seconds)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None
        return result[0]

    def wait_job(self, rule: str, state: str = "RUNNING") -> dict[str, str]:
        what = f"{rule} to be {state}"
        return self.wait(what, lambda: self.jobs(rule, state))[-1]

    def tail(self) -> str:
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return "\n".join(line[:300] for line in lines[-40:])

    def text(self, path: str) -> str:
        found = self.checkout / path
        return found.read_text("utf-8") if found.is_file() else ""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[slurm.Cluster]:
    if os.environ.get("INSTALL_SLURM"):
        slurm.install()
    if slurm.missing():
        pytest.skip(slurm.missing())
    started = slurm.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    copy = copy_checkout(tmp_path_factory.mktemp("checkout"))
    prepare(copy)
    return copy


@pytest.fixture(scope="module")
def finished(cluster: slurm.Cluster, checkout: Path) -> Iterator[Run]:
    """Return a run that came to its end through all that is done to it here."""
    run = Run(checkout, cluster)
    run.start(TABLE, "--profile", "profiles/slurm")
    try:
        drain(run)
        cancel(run)
        preempt(run)
        requeue(run)
        outlast(run)
        run.wait("the end", lambda: run.process.poll() is not None)
        assert run.process.returncode == 0, run.tail()
        yield run
    finally:
        run.process.kill()
        run.process.wait()


def drain(run: Run) -> None:
    """Drain a node while a job runs on it."""
    run.seen["drained"] = run.wait(
        "a job on gpu2",
        lambda: next(
            (job for job in run.jobs("", "RUNNING") if job["NodeList"] == "gpu2"), None
        ),
    )
    update = ("scontrol", "update", "nodename=gpu2")
    run.cluster.run(*update, "state=drain", "reason=test")


def cancel(run: Run) -> None:
    """Cancel a job between two batches of images."""
    run.seen["cancelled"] = run.wait_job("sample_images_wildcards_mini_sd_000")
    wait_chunk(run, "sd")
    run.cluster.run("scancel", run.seen["cancelled"]["JobId"])


def wait_chunk(run: Run, images: str) -> None:
    chunks = run.checkout / STATE / "images" / images / "000"
    run.wait(f"images of {images}", lambda: list(chunks.glob("0*.safetensors")))


def preempt(run: Run) -> None:
    """Submit what is more urgent than training; then restart the controller."""
    run.seen["preempted"] = run.wait_job("train_adaptor")
    run.wait("training", lambda: "adaptor step" in run.text(TRAINED))
    urgent = ["sbatch", "--parsable", "-p", "urgent", "--gpus=2", "--nodes=1"]
    urgent += ["--mem=100", "-o", "/dev/null", "--wrap", "sleep 1"]
    number = run.cluster.run(*urgent).strip()
    run.wait("the urgent job", lambda: run.job(number)["JobState"] == "COMPLETED")
    run.seen["stopped"] = {"log": run.text(TRAINED)}
    run.cluster.stop_controller()
    run.cluster.start_controller()


def requeue(run: Run) -> None:
    """Have Slurm kill training without a warning and put it back into the queue."""
    before = run.seen["preempted"]["JobId"]
    job = run.wait(
        "training's next attempt",
        lambda: next(
            (j for j in run.jobs("train_adaptor", "RUNNING") if j["JobId"] != before),
            None,
        ),
    )
    # Not in the log of the first attempt, which lies there until this one begins.
    resumed = r"(?s)adaptor resumes at.*adaptor step"
    run.wait("training to go on", lambda: re.search(resumed, run.text(TRAINED)))
    run.seen["killed"] = {"log": run.text(TRAINED)}
    run.cluster.run("scontrol", "requeue", job["JobId"])
    run.wait("requeueing", lambda: run.job(job["JobId"])["JobState"] == "PENDING")
    # Slurm waits two minutes, so that the node does not mistake the job for the killed
    # one, whose credential it has just revoked; a few seconds are enough.
    time.sleep(5)
    run.cluster.run("scontrol", "update", f"jobid={job['JobId']}", "starttime=now")
    run.seen["requeued"] = run.wait(
        "the requeued job to run",
        lambda: run.job(job["JobId"])["JobState"] == "RUNNING" and job,
    )


def outlast(run: Run) -> None:
    """Let a job meet its time limit between two batches of images."""
    run.seen["limited"] = run.wait_job("sample_images_wildcards_mini_sd_clockwork")
    wait_chunk(run, "sd_clockwork")
    number = run.seen["limited"]["JobId"]
    # It hangs: Slurm looks at limits twice a minute, and the images take seconds.
    pid = run.wait("its step", lambda: process(number, SAMPLING))
    os.kill(pid, signal.SIGSTOP)
    run.cluster.run("scontrol", "update", f"jobid={number}", "timelimit=1")
    run.wait("the warning", lambda: not hangs(pid))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def process(job: str, module: str) -> int | None:
    """Return the process of a job that runs a module, if there is one by now."""
    for found in Path("/proc").iterdir():
        if (
            found.name.isdigit()
            and f"\0-m\0{module}\0" in read(found / "cmdline")
            and f"\0SLURM_JOB_ID={job}\0" in read(found / "environ")
        ):
            return int(found.name)
    return None


def hangs(pid: int) -> bool:
    """Return whether a process is stopped, and has not been sent a SIGTERM."""
    status = read(Path(f"/proc/{pid}/status"))
    pending = re.search(r"ShdPnd:\s*(\w+)", status)
    warned = pending and int(pending[1], 16) >> (signal.SIGTERM - 1) & 1
    return "State:\tT" in status and not warned


def read(path: Path) -> str:
    """Return a file, or nothing if its process is gone."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def test_table_has_numbers(finished):
    with (finished.checkout / TABLE).open(encoding="utf-8") as file:
        teacher, clockwork = csv.DictReader(file)
    assert (teacher["run"], clockwork["run"]) == ROWS
    for name in ("frechet", "clip", "psnr_to_teacher", "gflops", "n"):
        assert float(clockwork[name]) > 0, name
    assert not [path for path in (finished.checkout / STATE).rglob("*.*")]


def test_jobs_ask_for_what_rules_declare(finished):
    jobs = {job["Comment"].split("_wildcards_")[0]: job for job in finished.jobs("")}
    asked = {
        rule.removeprefix("rule_"): (job["Partition"], job.get("TresPerJob"))
        for rule, job in jobs.items()
    }
    assert asked == {
        "counts_count_flops": ("cpu", None),
        "prepare_images": ("cpu", None),
        "sample_trajectories": ("gpu", "gres:gpu:1"),
        "sample_images": ("gpu", "gres:gpu:1"),
        "train_adaptor": ("gpu", "gres:gpu:2"),
        "extract_features": ("gpu", "gres:gpu:1"),
        "score_images": ("cpu", None),
    }
    assert {job["NumNodes"] for job in jobs.values()} == {"1"}
    first = finished.seen["preempted"]
    assert (first["TimeLimit"], first["MinMemoryNode"]) == ("1-00:00:00", "4000M")
    assert first["NumCPUs"] == "8"  # four for each GPU


def test_nothing_starts_on_a_drained_node(finished):
    drained = finished.seen["drained"]
    # It may be the job that was cancelled afterwards, between two batches.
    cancelled = drained["JobId"] == finished.seen["cancelled"]["JobId"]
    state = finished.job(drained["JobId"])["JobState"]
    assert state == ("CANCELLED" if cancelled else "COMPLETED")
    later = [
        job
        for job in finished.jobs("")
        if job["NodeList"] == "gpu2" and job["StartTime"] > drained["StartTime"]
    ]
    assert later == []


@pytest.mark.parametrize(
    ("done", "images", "states"),
    [
        ("cancelled", "sd", ("CANCELLED",)),
        ("limited", "sd_clockwork", ("FAILED", "TIMEOUT")),
    ],
)
def test_job_that_ended_early_asks_for_more_and_goes_on(finished, done, images, states):
    first, second = finished.jobs(f"sample_images_wildcards_mini_{images}_000")
    assert first["JobId"] == finished.seen[done]["JobId"]
    assert first["JobState"] in states
    assert second["JobState"] == "COMPLETED"
    assert finished.seen[done]["TimeLimit"] == "04:00:00"
    assert finished.seen[done]["MinMemoryNode"] == "4000M"
    assert (second["TimeLimit"], second["MinMemoryNode"]) == ("08:00:00", "8000M")
    assert "rows from 0 on were done before" in finished.text(SAMPLED.format(images))


def test_preempted_training_stops_saved_and_is_tried_again(finished):
    first, second = finished.jobs("train_adaptor")
    assert first["JobState"] == "FAILED"
    stopped = re.search(
        r"stopped by SIGTERM after (\d+) of 400", finished.seen["stopped"]["log"]
    )
    assert stopped, finished.seen["stopped"]["log"]
    resumed = f"adaptor resumes at step {stopped[1]} of 400"
    assert resumed in finished.seen["killed"]["log"]
    assert second["JobId"] == finished.seen["requeued"]["JobId"]
    assert second["TimeLimit"] == "2-00:00:00"


def test_training_killed_and_requeued_is_the_same_job(finished):
    _, job = finished.jobs("train_adaptor")
    assert (job["Restarts"], job["JobState"]) == ("1", "COMPLETED")
    assert "adaptor resumes at step" in finished.text(TRAINED)


def test_interrupted_run_made_what_an_undisturbed_one_makes(finished, tmp_path):
    copy = shutil.copytree(finished.checkout, tmp_path / "copy", symlinks=True)
    shutil.rmtree((copy / ADAPTOR).parent)
    (copy / IMAGES).unlink()
    local = Run(copy, finished.cluster)
    local.start(IMAGES, "--cores", "2", "--resources", "gpu=2")
    local.wait("the end", lambda: local.process.poll() is not None)
    assert local.process.returncode == 0, local.tail()
    assert (copy / ADAPTOR).read_bytes() == (finished.checkout / ADAPTOR).read_bytes()
    ours, whole = (
        storage.read_tensors(each / IMAGES)[0]["images"]
        for each in (finished.checkout, copy)
    )
    assert ours.equal(whole)
    curves = [losses(each / CURVE) for each in (finished.checkout, copy)]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 201


def losses(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let what is started hear SIGINT, which shells have ignored in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_gpu_model_and_limits_reach_slurm_and_an_interrupt_cancels(finished):
    update = ("scontrol", "update", "nodename=gpu2")
    finished.cluster.run(*update, "state=resume")
    run = Run(finished.checkout, finished.cluster)
    settings = ("gpu_model=v100", "max_runtime=90", "max_mem_mb=3000")
    target = "results/mini/images/sd_identity/000.safetensors"
    run.start(target, "--profile", "profiles/slurm", "--config", *settings)
    try:
        job = run.wait_job("sample_images_wildcards_mini_sd_identity")
        assert job["TresPerJob"] == "gres:gpu:v100:1"
        assert job["NodeList"] == "gpu2"
        assert (job["TimeLimit"], job["MinMemoryNode"]) == ("01:30:00", "3000M")
        run.process.send_signal(signal.SIGINT)
        run.wait("snakemake to end", lambda: run.process.poll() is not None, 60)
        assert run.process.returncode != 0
        run.wait_job("sample_images_wildcards_mini_sd_identity", "CANCELLED")
    finally:
        run.process.kill()
        run.process.wait()


def test_classes_of_failure_are_followed(cluster, checkout):
    """Bad input is looked at once; what memory's end kills gets more of it."""
    bad = checkout / "bad"
    (bad / "images").mkdir(parents=True)
    (bad / "images/0.png").write_text("no picture", encoding="utf-8")
    (bad / "prompts.txt").write_text("one\n", encoding="utf-8")
    own = {"source": "folder", "path": "bad", "count": 1, "shards": 1}
    write(checkout / "bad.yaml", {"mini": {"datasets": {"bad": own}}})
    run = Run(checkout, cluster)
    configs = ("--configfile", "tests/e2e/tiny.yaml", "slice.yaml", "bad.yaml")
    targets = [f"results/mini/images/{name}/000.safetensors" for name in ("bad", "sd")]
    (checkout / targets[1]).unlink(missing_ok=True)
    sampled = "sample_images_wildcards_mini_sd_000"
    before = len(run.jobs(sampled))
    # Whichever comes first, the other job goes on.
    options = ("--profile", "profiles/slurm", "--keep-going", "--retries", "2")
    forced = ("--forcerun", "sample_images")
    run.launch(*options, *forced, *configs, "--", *targets)
    try:
        # Those that other tests ran are not this one's.
        (job,) = run.wait(
            "sampling",
            lambda: [
                each
                for each in run.jobs(sampled)[before:]
                if each["JobState"] == "RUNNING"
            ],
        )
        pid = run.wait("its step", lambda: process(job["JobId"], SAMPLING))
        # As the kernel does: the shell reports 137.
        os.kill(pid, signal.SIGKILL)
        run.wait("the end", lambda: run.process.poll() is not None)
    finally:
        run.process.kill()
        run.process.wait()
    assert run.process.returncode == 1, run.tail()
    first, second = run.jobs(sampled)[before:]
    assert [each["JobState"] for each in (first, second)] == ["FAILED", "COMPLETED"]
    assert [each["MinMemoryNode"] for each in (first, second)] == ["4000M", "8000M"]
    assert (checkout / targets[1]).is_file()
    refused = run.jobs("prepare_images_wildcards_mini_bad")
    assert [each["JobState"] for each in refused] == ["FAILED"] * 3
    # The second and third have not looked: the first one's log, traceback and all.
    text = run.text("logs/mini/prepare_images/bad/000.log")
    assert text.count("clockwork_experiments.run traceback") == 1
    said = re.findall(r"error: \S*0\.png is not a .*", run.log.read_text("utf-8"))
    assert said and len(set(said)) == 1
