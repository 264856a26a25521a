"""A throw-away Slurm on loopback: one CPU node and two with fake GPUs, on this host.

It needs root and Debian's packages, and neither systemd nor cgroups: every daemon is a
child of this process with files of its own, so it disturbs no other Slurm.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import which

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "squeue")
NODES = ("cpu1", "gpu1", "gpu2")
CONF = """\
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
MailProg=/bin/true
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
MinJobAge=7200
KillWait=5
GresTypes=gpu
NodeName=cpu1 {node} Port={ports[1]}
NodeName=gpu1 {node} Port={ports[2]} Gres=gpu:a100:2
NodeName=gpu2 {node} Port={ports[3]} Gres=gpu:v100:1
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=UNLIMITED
PartitionName=gpu Nodes=gpu[1-2] MaxTime=UNLIMITED PriorityTier=1 GraceTime=120
PartitionName=urgent Nodes=gpu[1-2] MaxTime=UNLIMITED PriorityTier=9 PreemptMode=OFF
"""
# Nothing is read from or written to these; each only has to be a device of its own.
GRES = """\
NodeName=gpu1 Name=gpu Type=a100 File=/dev/null,/dev/zero
NodeName=gpu2 Name=gpu Type=v100 File=/dev/full
"""


def wait_for(what: str, reached: Callable[[], object], seconds: float) -> None:
    """Wait until something is true.

    Raises:
        TimeoutError: If it is not in time, naming it.
    """
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.2)


def missing() -> str:
    """Say why no Slurm can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    absent = [name for name in PROGRAMS if which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: {' '.join(PACKAGES)})"
    return ""


def install() -> None:
    """Install Debian's packages, if apt can; whether it could, `missing` says."""
    if not missing() or os.geteuid() != 0 or which("apt-get") is None:
        return
    quietly = {"DEBIAN_FRONTEND": "noninteractive", **os.environ}
    for command in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        try:
            subprocess.run(
                ["apt-get", *command],
                env=quietly,
                capture_output=True,
                timeout=180,
                check=True,
            )
        except subprocess.SubprocessError:
            return


class Cluster:
    """Three nodes and their controller, from `start` to `stop`.

    Attributes:
        folder: Where all of its files lie.
        environment: What commands need to talk to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Bring everything up."""
        folder = self.folder
        (folder / "state").mkdir(parents=True)
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        # The executor clears Slurm's variables before it calls srun within a job.
        (folder / "bin").mkdir()
        shim = f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {which("srun")} "$@"\n'
        (folder / "bin/srun").write_text(shim)
        (folder / "bin/srun").chmod(0o755)
        host = socket.gethostname().split(".")[0]
        node = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=400000"
        conf = CONF.format(folder=folder, host=host, ports=free_ports(4), node=node)
        (folder / "slurm.conf").write_text(conf)
        (folder / "gres.conf").write_text(GRES)
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "seed")]
        files += [f"--{name}-file={folder}/munged.{name}" for name in ("log", "pid")]
        self.daemon(
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            *files,
        )
        wait_for("munged", (folder / "munge.socket").exists, 20)
        self.start_controller()
        for name in NODES:
            (folder / f"spool-{name}").mkdir()
            self.daemon("slurmd", "-D", "-N", name)
        wait_for("three nodes", lambda: self.nodes("idle") == set(NODES), 60)

    def start_controller(self) -> None:
        """Start the controller, which goes on from its saved state."""
        self.daemon("slurmctld", "-D")
        wait_for("slurmctld", lambda: self.try_run("scontrol", "ping") == 0, 30)

    def stop_controller(self) -> None:
        """End the controller; jobs run on."""
        self.end("slurmctld")

    def stop(self) -> None:
        """Cancel every job, and end the daemons."""
        self.try_run("scancel", "--user=root")
        with suppress(TimeoutError, subprocess.SubprocessError):
            # What is left goes with its slurmd.
            wait_for("no job", lambda: not self.run("squeue", "-h").strip(), 30)
        for name in reversed(list(self.daemons)):
            self.end(name)

    def daemon(self, *command: str) -> None:
        """Start a daemon in the foreground of a process of its own."""
        name = command[-1] if command[0] == "slurmd" else command[0]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log
            )

    def end(self, name: str) -> None:
        """End a daemon."""
        process = self.daemons.pop(name)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)

    def run(self, *command: str) -> str:
        """Run a command of Slurm's, and return what it prints."""
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout

    def try_run(self, *command: str) -> int:
        """Run such a command, and return its exit status."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, timeout=30
        ).returncode

    def nodes(self, state: str) -> set[str]:
        """Return the nodes in a state."""
        try:
            return set(self.run("sinfo", "-hN", "-t", state, "-o", "%N").split())
        except subprocess.SubprocessError:
            return set()  # the controller is not there yet

    def jobs(self) -> list[dict[str, str]]:
        """Return every job that the controller remembers, oldest first."""
        lines = self.run("scontrol", "--oneliner", "show", "job").splitlines()
        known = [
            dict(word.split("=", 1) for word in line.split() if "=" in word)
            for line in lines
        ]
        known = [job for job in known if "JobId" in job]
        return sorted(known, key=lambda job: int(job["JobId"]))


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
