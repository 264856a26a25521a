"""Steps as forks of one process: they live, speak and die as processes of their own."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from clockwork_experiments.base import forkserver

STEP = """
import os, signal, sys, time
from clockwork_experiments.base import forkserver

here = os.getpid()
code = forkserver.run_there()
if code is not None:
    sys.exit(code)
"""
SERVER = """
import sys
from pathlib import Path
from clockwork_experiments.base import forkserver

forkserver.HEAVY = ("numpy",)
forkserver.serve(Path(sys.argv[1]))
"""


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return a running server's socket, and its process."""
    address = tmp_path_factory.mktemp("server") / "its" / "socket"
    address.parent.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(address)], stdin=subprocess.PIPE
    )
    wait_for(address.exists)
    yield address, process
    process.stdin.close()
    process.wait(20)
    assert not address.parent.exists(), "its folder is left"


@pytest.fixture
def start(server, tmp_path):
    """Return a function that starts a step, whose body is given."""

    def started(body, *arguments, prefix=sys.prefix, **more):
        (tmp_path / "own_step.py").write_text(STEP + textwrap.dedent(body), "utf-8")
        address = f"{server[0]}{os.pathsep}{prefix}"
        places = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        env = {**os.environ, "PYTHONPATH": places, forkserver.ADDRESS: address, **more}
        return subprocess.Popen(
            [sys.executable, "-m", "own_step", *arguments],
            **{"env": env, "cwd": tmp_path, "text": True},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
        )

    return started


def ended(process):
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_a_fork_is_the_step_that_asked_for_it(start, tmp_path):
    body = """
    print(sys.argv[1:], os.getcwd(), os.environ["MINE"], here != int(os.environ["PID"]))
    print("numpy" in sys.modules, forkserver.ADDRESS in os.environ, __name__)
    print("told", file=sys.stderr)
    """
    code, out, err = ended(start(body, "a b", "c", MINE="é", PID="1"))
    assert (code, err) == (0, "told\n")
    assert out == f"['a b', 'c'] {tmp_path} é True\nTrue False __main__\n"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("sys.exit(65)", 65, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('one line')", 1, "one line\n"),
        ("raise ValueError('oh')", 1, "ValueError: oh\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, ""),
    ],
)
def test_it_ends_as_its_fork_ends(start, body, code, said):
    found, _, err = ended(start(body))
    assert found == code
    assert err.endswith(said)
    assert ("Traceback" in err) == body.startswith("raise")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_fork(start, number):
    body = f"""
    def leave(number, frame):
        print("left at", number, flush=True)
        sys.exit(75)
    signal.signal({int(number)}, leave)
    print("ready", flush=True)
    time.sleep(30)
    """
    process = start(body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert ended(process)[:2] == (75, f"left at {int(number)}\n")


def test_a_fork_dies_with_who_asked_for_it(start):
    process = start("print(os.getpid(), flush=True); time.sleep(30)")
    fork = int(process.stdout.readline())
    assert fork != process.pid
    process.kill()
    wait_for(lambda: not Path(f"/proc/{fork}").exists())


def test_forks_run_side_by_side_and_draw_their_own_numbers(start):
    body = "import numpy; print(numpy.random.rand()); time.sleep(1)"
    began = time.monotonic()
    several = [ended(process) for process in [start(body) for _ in range(4)]]
    assert {code for code, _, _ in several} == {0}
    assert len({out for _, out, _ in several}) == 4
    assert time.monotonic() - began < 3.5


@pytest.mark.parametrize(
    "more",
    [
        {"prefix": "/another/installation"},
        {"HF_HUB_OFFLINE": "0"},
        {forkserver.ADDRESS: f"/nowhere/socket{os.pathsep}{sys.prefix}"},
        {forkserver.ADDRESS: ""},
    ],
)
def test_without_its_server_a_step_works_itself(start, more):
    process = start("print(os.getpid() == here and os.getppid())", **more)
    assert ended(process) == (0, f"{os.getpid()}\n", "")


def test_a_fork_imports_the_checkout_of_who_asked(start, tmp_path):
    other = tmp_path / "other" / "clockwork_experiments" / "base"
    other.mkdir(parents=True)
    (other.parent / "__init__.py").write_text("MARK = 7\n", "utf-8")
    (other / "__init__.py").touch()
    shutil.copy(forkserver.__file__, other / "forkserver.py")
    body = "import clockwork_experiments; print(clockwork_experiments.MARK)"
    places = os.pathsep.join([str(other.parents[1]), str(tmp_path)])
    assert ended(start(body, PYTHONPATH=places)) == (0, "7\n", "")


def test_a_server_ends_with_who_started_it(tmp_path):
    code = """
    import os, time
    from clockwork_experiments.base import forkserver
    forkserver.start()
    print(os.environ[forkserver.ADDRESS].partition(os.pathsep)[0], flush=True)
    time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        **{"stdout": subprocess.PIPE, "text": True},
    )
    folder = Path(process.stdout.readline().strip()).parent
    wait_for((folder / "socket").exists, 60)
    process.kill()
    wait_for(lambda: not folder.exists())
