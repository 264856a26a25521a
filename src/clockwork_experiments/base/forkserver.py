"""Run steps as forks of one process that has imported the heavy libraries.

Importing torch, diffusers and transformers costs a process five CPU seconds, and a run
at mini scale has hundreds of jobs. The workflow therefore starts one process that has
imported them, and a step's process asks it for a fork that does the work: it has the
step's command line, environment, folder, files and exit code, and dies with it. This
project's own code is imported after the fork. Where there is no such server, or another
installation's, a step does its work itself; results are the same.

The server speaks over a socket in a folder of its own. It ends with the process that
started it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ADDRESS = "CLOCKWORK_FORKSERVER"
"""Environment variable: the socket, and the installation that the server is of."""

FEWEST = 10
"""Jobs from which on a server is worth its own start."""

HEAVY = (
    "torch",
    "diffusers:StableDiffusionPipeline",
    "transformers:CLIPTextModel",
    "torchmetrics",
    "pandas",
)
"""What the server imports: modules, and what they would import when they are asked."""

SETTINGS = {
    # Every weight is a local file; a typo must not become a request to a hub.
    "HF_HUB_OFFLINE": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
"""Environment that the libraries read as they are imported: their own bars and notices
stay off the terminal, errors do not."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def usable() -> bool:
    """Return whether steps may be forks: on Linux, without a GPU's driver.

    Not if `ADDRESS` is set already, for instance to ``off``.
    """
    driven = Path("/dev/nvidiactl").exists()
    return sys.platform == "linux" and not driven and ADDRESS not in os.environ


def start() -> None:
    """Start a server for this process and those that it starts; it ends with this."""
    address = Path(tempfile.mkdtemp(prefix="clockwork-")) / "socket"
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(address)],
        # Of torch's threads a step says how many it wants.
        env={**SETTINGS, **os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Its end of the pipe tells the server when this process has ended, however.
    atexit.register(process.wait)
    assert process.stdin is not None
    atexit.register(process.stdin.close)
    os.environ[ADDRESS] = f"{address}{os.pathsep}{sys.prefix}"


def run_there() -> int | None:
    """Have this process's command run by the server, and wait for it.

    Returns:
        The exit code; None if there is no server for this process. Where the fork was
        killed by a signal, this process is, too.
    """
    address, _, prefix = os.environ.get(ADDRESS, "").partition(os.pathsep)
    spec = sys.modules["__main__"].__spec__
    if not address or prefix != sys.prefix or spec is None:
        return None
    if any(os.environ.get(name, value) != value for name, value in SETTINGS.items()):
        return None  # It wants the libraries imported otherwise.
    request = {
        "module": spec.name,
        "arguments": sys.argv,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": sys.path,
    }
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:
            return None  # It is still importing, or has ended.
        message = json.dumps(request).encode()
        socket.send_fds(connection, [len(message).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(message)
        # Not before: a signal's byte is not to lie within the message.
        for number in _FORWARDED:
            signal.signal(number, lambda n, _frame: connection.send(bytes([n])))
        answer = connection.recv(4)
    if len(answer) < 4:
        print("the process that runs the steps has ended", file=sys.stderr)
        return 1
    code = int.from_bytes(answer, "big", signed=True)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler.
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def serve(address: Path) -> None:
    """Import the heavy libraries, then fork for whoever asks, until stdin ends.

    Args:
        address: The socket; its folder is removed in the end.
    """
    try:
        _serve(address)
    finally:  # Its forks leave by `os._exit`.
        shutil.rmtree(address.parent, ignore_errors=True)


def _serve(address: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for heavy in HEAVY:
        name, _, part = heavy.partition(":")
        module = importlib.import_module(name)
        if part:
            getattr(module, part)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(64)
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in ready:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _attend(connection)
            connection.close()


def _attend(connection: socket.socket) -> None:
    """Fork for a step, pass signals on to it, and tell its asker how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(connection, 4, 3)
    message, length = b"", int.from_bytes(head, "big")
    while len(message) < length:
        part = connection.recv(length - len(message))  # A signal may follow it.
        if not part:
            os._exit(1)
        message += part
    worker = os.fork()
    if worker == 0:
        connection.close()
        _work(json.loads(message), files)
    for file in files:
        os.close(file)
    handle = os.pidfd_open(worker)
    while True:
        ready, _, _ = select.select([connection.fileno(), handle], [], [])
        if handle in ready:
            break
        asked = connection.recv(1)
        # Whoever asked has been killed, and so is this.
        os.kill(worker, asked[0] if asked else signal.SIGKILL)
        if not asked:
            break
    _, status = os.waitpid(worker, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        connection.sendall(code.to_bytes(4, "big", signed=True))
    os._exit(0)


def _work(request: dict[str, Any], files: list[int]) -> None:
    """Be the step's process, to its end."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number in (*_FORWARDED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    del os.environ[ADDRESS]
    os.chdir(request["folder"])
    sys.argv, sys.path[:] = request["arguments"], request["path"]
    # The step's own checkout, as it is now.
    for name in [name for name in sys.modules if name.startswith("clockwork_")]:
        del sys.modules[name]
    # As a new process draws them, who has not set a seed.
    sys.modules["numpy"].random.seed()
    code = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
