"""Whatever happens to a long step, it ends with the same bytes, and leaves nothing.

The suite runs a slice of this; `make test-chaos` all steps, and as many blows and pairs
as its options say. The moments are random, and the same for one ``--chaos-seed``.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import yaml
from checkout import copy_checkout, environment, snakemake
from steps import ROWS, Made, Running, Step, clear, finish, made, prepare, steady

from clockwork_experiments.base import storage
from clockwork_experiments.base.failures import Kind
from clockwork_experiments.steps import prepare_pairs, release_lock

SLICE = ("sample_trajectories", "train_adaptor", "sample_images")
ALL = (
    *SLICE,
    *("extract_features", "search_depth", "search_steps", "perturb_features"),
    "train_mini",
)
FEEDS = {
    "sample_trajectories": "trajectories.safetensors",
    "sample_images": "images.safetensors",
}
"""What later steps read of these."""


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", chosen(metafunc.config))


def chosen(config: pytest.Config) -> tuple[str, ...]:
    return ALL if config.getoption("blows") >= len(ALL) else SLICE


@dataclass(frozen=True)
class World:
    """The steps, what each makes undisturbed, and how many seconds that takes."""

    folder: Path
    steps: dict[str, Step]
    whole: dict[str, dict[str, Made]]
    seconds: dict[str, float]


@pytest.fixture(scope="module")
def world(tmp_path_factory, random_translators, request) -> World:
    folder = tmp_path_factory.mktemp("chaos")
    steps = prepare(folder, random_translators)
    for number, name in enumerate(("edit", "others")):
        spec = '{"task": "edit", "source": "scenes", "count": 2, "offset": %d}'
        output = folder / "given" / f"{name}.json"
        prepare_pairs.prepare_pairs(spec=spec % (10 * number), output=output)
    whole, seconds = {}, {}
    for name in (ROWS, *chosen(request.config)):
        # Once more, for the time: the first waits for the server's imports.
        for _ in range(1 + (not whole)):
            clear(folder / name)
            began = time.monotonic()
            finish(steps[name], folder / name)
            seconds[name] = time.monotonic() - began
        whole[name] = made(steps[name], folder / name)
        if name in FEEDS:
            (output,) = steps[name].outputs
            shutil.copy2(folder / name / output, folder / "given" / FEEDS[name])
    return World(folder, steps, whole, seconds)


@pytest.fixture
def moments(request) -> random.Random:
    """Return what random moments come from."""
    return random.Random(
        f"{request.node.name} {request.config.getoption('chaos_seed')}"
    )


def hurt(world: World, name: str, number: int, moment: float) -> None:
    """Start a step, and send it a signal at some moment, unless it ends before.

    Args:
        world: The steps.
        name: The step's.
        number: The signal.
        moment: When, as a share of the step's whole time.
    """
    folder = world.folder / f"{name}-hurt"
    (folder / "logs" / "x.log").unlink(missing_ok=True)
    running = Running(world.steps[name], folder)
    # Before, Python has not come to the step.
    running.until(running.log.is_file)
    end = time.monotonic() + moment * world.seconds[name]
    if running.until(lambda: time.monotonic() > end):
        running.hit(number)
    code = running.end()
    print(f"{name}: signal {number} at {moment:.2f}: {code}")
    if code == 0:
        check(world, name)


def check(world: World, name: str) -> None:
    """Compare what a disturbed step has made with the whole, and clear it away."""
    folder = world.folder / f"{name}-hurt"
    assert made(world.steps[name], folder) == world.whole[name]
    clear(folder)


def test_killed_stopped_interrupted(world, name, moments, request):
    blows = -(-request.config.getoption("blows") // len(chosen(request.config)))
    for _ in range(blows):
        hurt(world, name, signal.SIGKILL, moments.random())
    for number in (signal.SIGTERM, signal.SIGINT):
        hurt(world, name, number, moments.random())
    finish(world.steps[name], world.folder / f"{name}-hurt")
    check(world, name)


def test_a_disk_that_is_full(world, name, moments):
    """A file may not become larger than so many bytes."""
    step, folder = world.steps[name], world.folder / f"{name}-hurt"
    largest = max(each.size for each in world.whole[name].values())
    running = Running(step, folder, limit=moments.randrange(largest // 4, largest))
    assert running.end() == Kind.INTERRUPTED
    assert "File too large while writing: " in running.said()
    assert not list(folder.rglob("*.partial")) and not list(folder.rglob("*.lease"))
    finish(step, folder)
    check(world, name)


@pytest.mark.parametrize("hosts", [("", ""), ("one", "two")], ids=["host", "hosts"])
@pytest.mark.parametrize("same", [True, False], ids=["same work", "other specs"])
def test_two_live_jobs_on_one_folder(world, moments, request, same, hosts):
    count = -(-request.config.getoption("pairs") // 2)
    told = {0: 0, int(Kind.INTERRUPTED): 0}
    # A step that takes seconds is no other owner of its state than one that does not.
    for name, pairs in ((ROWS, count), ("sample_images", -(-count // 20))):
        folder, one = world.folder / f"{name}-pair", world.steps[name]
        other = one if same else one.seeded(1)
        finish(other, world.folder / f"{name}-other")
        wholes = [world.whole[name], made(other, world.folder / f"{name}-other")]
        assert same == (wholes[0] == wholes[1])
        clear(world.folder / f"{name}-other")
        for _ in range(pairs):
            jobs = [Running(one, folder, host=hosts[0])]
            time.sleep(moments.random() * world.seconds[name])
            jobs.append(Running(other, folder, host=hosts[1]))
            codes = [job.end() for job in jobs]
            assert 0 in codes
            for code, job in zip(codes, jobs, strict=True):
                told[code] += 1
                assert code == 0 or " is in use by process " in job.said()
            # Of one that came to its end, and whole; the later replaces the other's.
            ended = [each for each, code in zip(wholes, codes, strict=True) if not code]
            assert made(one, folder) in ended
            clear(folder)
    print(f"jobs of pairs: {told[0]} ended, {told[Kind.INTERRUPTED]} were refused")


def test_two_live_searches_share_what_they_compare_with(world, request):
    """Of the images of the reference, which cost the most; each waits for the other."""
    if "search_steps" not in world.whole:
        pytest.skip("of the whole suite, `make test-chaos`, alone")
    folder, one = world.folder / "shared", world.steps["search_steps"]
    own = {"state": "state/y", "output": "out/y.json", "log": "logs/y.log"}
    spec = {**one.spec, "methods": {"bracketed": [2, 3]}}
    other = replace(one, options={**one.options, **own}, spec=spec)
    other = replace(other, outputs=("out/y.json",))
    finish(other, world.folder / "other")
    whole = world.whole["search_steps"] | made_beside(other, world.folder / "other")
    clear(world.folder / "other")
    jobs = [Running(each, folder) for each in (one, other)]
    assert [job.end() for job in jobs] == [0, 0]
    assert whole == made_beside(one, folder) | made_beside(other, folder)
    assert not [*folder.rglob("*.lease"), *folder.rglob("*.partial")]
    clear(folder)


def test_clocks_that_differ_cost_nothing(world):
    """Not the owner, who seems silent for an hour to another; nor what it has done."""
    name = "sample_images"
    step, folder = world.steps[name], world.folder / f"{name}-hurt"
    owner = Running(step, folder, host="one", job="7")
    state = folder / "state" / "x"
    assert owner.until(lambda: len(list(state.glob("0*.safetensors"))) == 1)
    owner.hit(signal.SIGSTOP)
    refused = Running(step, folder, host="two", ahead=3600)
    assert refused.end() == Kind.INTERRUPTED
    assert " is in use by process " in refused.said()
    owner.hit(signal.SIGKILL)
    owner.end()
    for path in [state, *state.iterdir()]:
        os.utime(path, (time.time() + 3600,) * 2)
    again = Running(step, folder, host="two", job="7", ahead=-3600)
    assert again.end() == 0
    assert "rows from 0 on were done before" in again.log.read_text("utf-8")
    # Of the first host's; for a day the second cannot know that nobody writes there.
    for left in folder.rglob(".*.one.*.partial"):
        left.unlink()
    check(world, name)


def test_a_job_that_was_requeued_beside_its_zombie(world):
    """Slurm thinks that it is gone, and starts it on another machine."""
    step, folder = world.steps["sample_images"], world.folder / "sample_images-hurt"
    zombie = Running(step, folder, host="one", job="7")
    state = folder / "state" / "x"
    assert zombie.until(lambda: len(list(state.glob("0*.safetensors"))) == 2)
    zombie.hit(signal.SIGSTOP)
    again = Running(step, folder, host="two", job="7")
    assert again.end() == 0
    before = made_beside(step, folder)
    zombie.hit(signal.SIGCONT)
    assert zombie.end() == Kind.INTERRUPTED
    assert "was taken over by another process; nothing more is written" in zombie.said()
    assert before == made(step, folder)
    check(world, "sample_images")


def made_beside(step: Step, folder: Path) -> dict[str, Made]:
    """Return what is made in a folder where another process may be at work."""
    return {name: steady(folder / name) for name in step.outputs}


# --- Snakemake itself ----------------------------------------------------------------

IMAGES = "results/mini/images/sd/000.safetensors"
FEW = {"mini": {"datasets": {"test": {"count": 48}}, "runs": {"sd": {"batch_size": 4}}}}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, request) -> Path:
    if chosen(request.config) == SLICE:
        pytest.skip("of the whole suite, `make test-chaos`, alone")
    linked = ("profiles", "resources/mini", "src", "workflow")
    copy = copy_checkout(tmp_path_factory.mktemp("checkout"), linked=linked)
    (copy / "few.yaml").write_text(yaml.safe_dump(FEW), encoding="utf-8")
    run(copy)
    return copy


def run(checkout: Path) -> None:
    done = snakemake(checkout, "--cores", "1", "--configfile", "few.yaml", "--", IMAGES)
    assert done.returncode == 0, done.stdout[-3000:]


def kill(process: subprocess.Popen[bytes], how: str) -> None:
    """Do to Snakemake what may happen to it."""
    tree = [psutil.Process(process.pid)]
    tree += tree[0].children(recursive=True)
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    elif how == "SIGTERM":
        process.terminate()
    else:
        for victim in tree if how == "all killed" else tree[:1]:
            victim.kill()
    process.wait(120)


@pytest.mark.parametrize("how", ["all killed", "killed alone", "SIGTERM", "Ctrl-C"])
def test_snakemake_itself(checkout, how, moments):
    whole = steady(checkout / IMAGES)
    (checkout / IMAGES).unlink()
    with (checkout / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "1"]
            + ["--configfile", "few.yaml", "--", IMAGES],
            cwd=checkout,
            env=environment(checkout),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    state = checkout / "results/mini/.state/images/sd/000"
    count = moments.randrange(1, 8)
    while len(list(state.glob("0*.safetensors"))) < count:
        assert process.poll() is None, (checkout / "said.txt").read_text("utf-8")
        time.sleep(0.02)
    kill(process, how)
    # A step can outlive it; nobody may start another run meanwhile.
    for orphan in release_lock.live_runs(checkout):
        with pytest.raises(ValueError, match="another run is alive in "):
            release_lock.release_lock(checkout)
        orphan.wait(120)
    release_lock.release_lock(checkout)
    assert "Traceback" not in (checkout / "said.txt").read_text("utf-8")
    run(checkout)
    assert steady(checkout / IMAGES) == whole
    assert not list(checkout.glob("results/**/*.partial"))
    assert not [path for path in state.parent.rglob("*") if path.is_file()]


def test_the_steps_are_all_that_keep_state():
    """A step that keeps state is hurt here, or is named for what hurts it."""
    keep = set()
    for path in (Path(storage.__file__).parents[1] / "steps").glob("*.py"):
        text = path.read_text("utf-8")
        if '"--state"' in text or " state: Path" in text:
            keep.add(path.stem)
    same_loop = {
        # chunks, as in sampling
        *("edit_images", "invert_images", "translate_images"),
        *("measure_masks", "measure_method", "sample_reference"),
        *("finetune_translator", "make_backbone"),  # training.fit, as the adaptor
        *("time_unet",),  # timings, which are no bytes to compare
    }
    assert keep - same_loop <= set(ALL)
