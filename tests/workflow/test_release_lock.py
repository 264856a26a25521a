"""A lock goes when its run is dead, and stays while a run is alive."""

import subprocess
import sys
from pathlib import Path

import pytest

from clockwork_experiments.steps import release_lock

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def locked(tmp_path) -> Path:
    lock = tmp_path / ".snakemake" / "locks" / "0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/mini/prompts/test.json\n")
    return tmp_path


def locks(folder: Path) -> list[Path]:
    return list(folder.glob(".snakemake/locks/*"))


def test_stale_lock_is_released(locked, caplog):
    with caplog.at_level("INFO"):
        release_lock.release_lock(locked)
    assert not locks(locked)
    assert [str(locked) in line for line in caplog.messages] == [True]


def test_without_a_lock_nothing_is_said(tmp_path, caplog):
    with caplog.at_level("INFO"):
        release_lock.release_lock(tmp_path)
    assert not caplog.messages


@pytest.mark.parametrize(
    "name", ["snakemake", "clockwork_experiments.steps.train_adaptor"]
)
def test_lock_of_a_live_run_stays(locked, name):
    with subprocess.Popen([*SLEEP, name], cwd=locked) as process:
        try:
            with pytest.raises(ValueError, match=f"is alive.*{process.pid}"):
                release_lock.release_lock(locked)
        finally:
            process.kill()
    assert locks(locked)


def test_a_run_elsewhere_does_not_matter(locked, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with subprocess.Popen([*SLEEP, "snakemake"], cwd=elsewhere) as process:
        try:
            release_lock.release_lock(locked)
        finally:
            process.kill()
    assert not locks(locked)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/venv/bin/python3 /venv/bin/snakemake --cores 2", True),
        ("/venv/bin/python -m snakemake", True),
        ("python -m clockwork_experiments.steps.sample_images --spec {}", True),
        ("python -m clockwork_experiments.steps.release_lock .", False),
        ("vim Snakefile", False),
        ("less logs/snakemake", False),
        ("", False),
    ],
)
def test_command_lines(command, expected):
    assert release_lock.works_on_results(command.split()) is expected
