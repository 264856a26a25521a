"""State has one owner at a time, and what it made carries whose work it is."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch

from clockwork_experiments.base import chunks, lease, storage

WORKER = """
import sys, time
from pathlib import Path
from clockwork_experiments.base import lease
folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
try:
    with lease.held(folder):
        print("mine", flush=True)
        time.sleep(seconds)
        lease.confirm()
except BlockingIOError as error:
    print(error, flush=True)
"""


def start(folder, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path):
    state = tmp_path / "state"
    first = start(state, 30)
    assert first.stdout.readline() == "mine\n"
    with (
        pytest.raises(BlockingIOError, match=f"in use by process {first.pid} on "),
        lease.held(state),
    ):
        pass
    first.kill()
    first.wait()
    # It is provably gone, though it could not tidy up.
    assert (tmp_path / "state.lease").is_file()
    with lease.held(state):
        lease.confirm()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_start_at_once_one_has_it(tmp_path):
    workers = [start(tmp_path / "state", 4) for _ in range(6)]
    said = [worker.communicate()[0] for worker in workers]
    assert sum(text.startswith("mine") for text in said) == 1
    assert sum("in use by" in text for text in said) == 5


def test_whoever_waits_gets_it_next(tmp_path):
    first = start(tmp_path / "state", 1)
    assert first.stdout.readline() == "mine\n"
    with lease.held(tmp_path / "state", wait=True):
        assert first.wait() == 0


def foreign(path, age):
    owner = {"host": "elsewhere", "pid": 1, "started": 0, "job": "7", "token": "a"}
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age,) * 2)


def test_another_hosts_owner_counts_until_it_has_been_silent_for_long(tmp_path):
    state, path = tmp_path / "state", tmp_path / "state.lease"
    foreign(path, lease.EXPIRES / 2)
    with (
        pytest.raises(BlockingIOError, match="process 1 on elsewhere, Slurm job 7"),
        lease.held(state),
    ):
        pass
    foreign(path, lease.EXPIRES * 2)
    with lease.held(state):
        lease.confirm()


@pytest.mark.parametrize(
    ("answer", "gone"),
    [
        ("exit 0", True),
        ("echo '7 gpu train me R 1:00 1 elsewhere'", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_another_hosts_owner_is_gone_if_its_slurm_job_is(
    tmp_path, monkeypatch, answer, gone
):
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f"#!/bin/sh\n{answer}\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=os.pathsep)
    foreign(tmp_path / "state.lease", 0)
    assert lease._gone(tmp_path / "state.lease") == gone


def test_a_requeued_job_goes_on_from_its_own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    foreign(tmp_path / "state.lease", 0)
    with lease.held(tmp_path / "state"):
        lease.confirm()


def test_who_lost_its_lease_puts_no_file_in_place(tmp_path):
    with lease.held(tmp_path / "state"):
        storage.write_text(tmp_path / "before", "")
        foreign(tmp_path / "state.lease", 0)
        with pytest.raises(
            BlockingIOError, match="was taken over by process 1 on elsewhere"
        ):
            storage.write_text(tmp_path / "after", "")
    assert (tmp_path / "before").is_file()
    # The new owner's lease is left alone.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["before", "state.lease"]


def test_a_chunk_of_other_work_is_not_taken_for_ones_own(tmp_path):
    def work(value):
        def rows(part):
            return {"x": torch.full((part.stop - part.start,), value)}

        return rows

    old, new = tmp_path / "old", tmp_path / "new"
    chunks.in_chunks(4, 2, work(1.0), old, "guidance 2", "old")
    parts = chunks.each_chunk(4, 2, work(2.0), new, "guidance 8", "new")
    next(parts)
    # A job that was thought dead writes into the folder of the next one.
    (old / "00000002.safetensors").rename(new / "00000002.safetensors")
    assert next(parts)["x"].tolist() == [2.0, 2.0]
    again = chunks.in_chunks(4, 2, work(3.0), new, "guidance 8", "new")
    assert again["x"].tolist() == [2.0] * 4


def test_equal_content_is_equal_bytes_for_everyone_to_read(tmp_path):
    notes = {f"note {n}": str(n) for n in range(9)}
    tensors = {"b": torch.arange(4.0), "a": torch.ones(2, dtype=torch.int64)}
    before = os.umask(0o022)
    try:
        for n in range(6):
            turned = dict(sorted(notes.items(), key=lambda kv: hash((n, kv[0]))))
            storage.write_tensors(tmp_path / str(n), tensors, turned)
    finally:
        os.umask(before)
    contents = {(tmp_path / str(n)).read_bytes() for n in range(6)}
    assert len(contents) == 1
    assert (tmp_path / "0").stat().st_mode & 0o777 == 0o644
    read, found = storage.read_tensors(tmp_path / "0")
    assert found["note 3"] == "3"
    assert torch.equal(read["b"], tensors["b"])


@pytest.mark.parametrize("other", [torch.ones(2, 2), torch.ones(4).half()])
def test_a_checksum_covers_shape_and_type(tmp_path, other):
    ones = torch.ones(4)
    storage.write_tensors(tmp_path / "one", {"x": ones})
    storage.write_tensors(tmp_path / "other", {"x": other})
    _, one = storage.read_tensors(tmp_path / "one")
    _, two = storage.read_tensors(tmp_path / "other")
    assert one[storage.CONTENT] != two[storage.CONTENT]


def test_what_a_killed_process_left_is_swept_and_a_living_ones_is_not(tmp_path):
    host = storage._HOST
    dead = tmp_path / f".x.txt.{host}.999999.partial"
    living = tmp_path / f".x.txt.{host}.1.partial"
    silent, writing = (tmp_path / f".x.txt.far.{n}.partial" for n in (1, 2))
    for left in (dead, living, silent, writing):
        left.write_text("half")
    for left, hours in ((living, 25), (silent, 25), (writing, 23)):
        os.utime(left, (time.time() - 3600 * hours,) * 2)
    storage.write_text(tmp_path / "x.txt", "whole")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {living.name, writing.name, "x.txt"}
