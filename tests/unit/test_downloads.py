"""Files arrive whole over a line with faults, or not at all."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import loopback
import pytest
from loopback import Answer

from clockwork_experiments.data import downloads
from clockwork_experiments.data.downloads import Expected, download, partial_of

CONTENT = os.urandom(300_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/file.bin"
MIDDLE = 100_077


@pytest.fixture(autouse=True)
def no_other_machine(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    undo = loopback.guard()
    yield
    undo()


@pytest.fixture
def server():
    with loopback.serving() as server:
        server.files[PATH] = CONTENT
        yield server


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "new" / "file.bin"


def get(server, target, expected=None, **options):
    return download(server.url(PATH), target, expected, backoff=0.001, **options)


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_the_guard_forbids_other_machines(target):
    with pytest.raises(loopback.Elsewhere, match=r"example\.org"):
        download("http://example.org/file.bin", target)
    with pytest.raises(loopback.Elsewhere, match=r"192\.0\.2\.1"):
        download("http://192.0.2.1/file.bin", target)


def test_a_file_arrives_whole(server, target):
    assert get(server, target, Expected(SHA256, len(CONTENT))) == SHA256
    assert target.read_bytes() == CONTENT
    assert left(target) == ["file.bin"]
    assert server.ranges() == [None]


@pytest.mark.parametrize("cut", [1, MIDDLE])
def test_a_truncated_body_is_continued(server, target, cut):
    server.answers[PATH] = [Answer(cut=cut), Answer(cut=cut)]
    assert get(server, target) == SHA256
    assert target.read_bytes() == CONTENT
    first, *more = server.ranges()
    assert first is None and len(more) == 2
    assert more == [f"bytes={cut}-", f"bytes={2 * cut}-"]


def test_a_body_of_unknown_length_is_checked(server, target):
    server.answers[PATH] = [Answer(length=False, cut=MIDDLE)]
    assert get(server, target, Expected(SHA256, len(CONTENT))) == SHA256
    assert server.ranges() == [None, f"bytes={MIDDLE}-"]


def test_a_server_without_ranges_starts_anew(server, target):
    server.answers[PATH] = [Answer(cut=MIDDLE), Answer(ranges=False)]
    assert get(server, target) == SHA256
    assert target.read_bytes() == CONTENT
    assert len(server.ranges()) == 2 and server.ranges()[1]


def test_a_file_that_changed_meanwhile_is_not_joined(server, target):
    other = CONTENT[::-1]
    server.answers[PATH] = [Answer(cut=MIDDLE)]

    def change(path):
        server.files[PATH] = other

    server.after = change
    assert get(server, target) == hashlib.sha256(other).hexdigest()
    assert target.read_bytes() == other
    assert server.asked[1][2]["if-range"] == loopback.tag(CONTENT)


def test_a_change_that_no_tag_tells_is_found_by_the_checksum(server, target):
    old = CONTENT[::-1]
    server.files[PATH] = old
    server.always[PATH] = Answer(tagged=False)
    server.answers[PATH] = [Answer(cut=MIDDLE, tagged=False)]

    def change(path):
        server.files[PATH] = CONTENT

    server.after = change
    assert get(server, target, Expected(SHA256)) == SHA256
    assert target.read_bytes() == CONTENT
    assert server.ranges()[-1] is None


def test_without_tag_and_checksum_nothing_is_joined(server, target):
    server.always[PATH] = Answer(tagged=False)
    server.answers[PATH] = [Answer(cut=MIDDLE, tagged=False)]
    assert get(server, target) == SHA256
    assert server.ranges() == [None, None]


def test_a_range_that_starts_elsewhere_is_refused(server, target):
    wrong = {"Content-Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}
    partial = partial_of(target)
    target.parent.mkdir()
    partial.write_bytes(CONTENT[:MIDDLE])
    server.answers[PATH] = [Answer(status=206, headers=wrong)]
    assert get(server, target, Expected(SHA256)) == SHA256
    assert server.ranges() == [f"bytes={MIDDLE}-", None]


def test_a_part_that_is_too_long_is_thrown_away(server, target):
    target.parent.mkdir()
    partial_of(target).write_bytes(CONTENT + b"more")
    assert get(server, target, Expected(SHA256, len(CONTENT))) == SHA256
    assert server.ranges() == [None]
    target.unlink()
    # Without the length, the server says so.
    partial_of(target).write_bytes(CONTENT + b"more")
    assert get(server, target, Expected(SHA256)) == SHA256
    assert server.ranges()[1:] == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_whole_part_needs_no_request(server, target):
    target.parent.mkdir()
    partial_of(target).write_bytes(CONTENT)
    assert get(server, target, Expected(SHA256, len(CONTENT))) == SHA256
    assert not server.asked


def test_a_wrong_checksum_leaves_nothing(server, target):
    with pytest.raises(ValueError, match=f"SHA-256 {SHA256}, and {'0' * 64}") as caught:
        get(server, target, Expected("0" * 64))
    assert server.url(PATH) in str(caught.value)
    assert left(target) == []
    assert len(server.asked) == 1


def test_a_wrong_length_is_found_before_the_download(server, target):
    with pytest.raises(ValueError, match=f"has {len(CONTENT)} bytes, and 5 are"):
        get(server, target, Expected(size=5))
    assert not target.exists()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, downloads.MissingError),
        (410, downloads.MissingError),
        (401, downloads.RefusedError),
        (403, downloads.RefusedError),
        (400, ValueError),
    ],
)
def test_final_answers_are_not_asked_for_again(server, target, status, kind):
    server.always[PATH] = Answer(status=status)
    with pytest.raises(kind, match=f"{PATH} answers {status}"):
        get(server, target)
    assert len(server.asked) == 1
    assert left(target) == []


def test_passing_answers_are(server, target):
    waits = {"Retry-After": "0"}
    server.answers[PATH] = [Answer(status=503), Answer(status=429, headers=waits)]
    assert get(server, target) == SHA256
    assert len(server.asked) == 3


def test_a_server_that_never_answers_well_is_given_up(server, target):
    server.answers[PATH] = [Answer(cut=MIDDLE)]
    server.always[PATH] = Answer(status=503)
    with pytest.raises(OSError, match=f"{MIDDLE} bytes are kept") as caught:
        get(server, target)
    assert server.url(PATH) in str(caught.value)
    assert len(server.asked) == 1 + downloads.ATTEMPTS
    assert left(target) == [".file.bin.part", ".file.bin.part.json"]
    # The next run goes on.
    del server.always[PATH]
    assert get(server, target) == SHA256
    assert server.ranges()[-1] == f"bytes={MIDDLE}-"


def test_no_server_at_all(target):
    with loopback.serving() as gone:
        url = gone.url(PATH)
    with pytest.raises(OSError, match="could not be had in 6 attempts"):
        download(url, target, backoff=0.001)


def test_a_login_does_not_go_to_another_host(server, target):
    where = {"Location": server.url(PATH, "localhost")}
    server.always["/door"] = Answer(status=302, headers=where)
    login = {"authorization": "Bearer secret", "x-token": "secret too"}
    download(server.url("/door"), target, headers=login)
    (_, door, first), (_, path, second) = server.asked
    assert (door, path) == ("/door", PATH)
    assert first["authorization"] == "Bearer secret"
    assert first["x-token"] == "secret too"
    assert not {"authorization", "x-token"} & {name.lower() for name in second}


def test_logins_of_the_machine_go_nowhere(server, target, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.always["/door"] = Answer(status=302, headers={"Location": server.url(PATH)})
    download(server.url("/door"), target)
    assert len(server.asked) == 2
    for _, _, headers in server.asked:
        assert "authorization" not in {name.lower() for name in headers}


def test_an_address_with_a_login_is_refused_and_not_shown(target):
    with pytest.raises(ValueError, match="at example.org holds a login") as caught:
        download("https://me:secret@example.org/x", target)
    assert "secret" not in str(caught.value)


def test_signatures_of_addresses_are_not_shown():
    error = OSError("no route to host with url: /file?signature=secret (caused by x)")
    assert downloads._line(error) == (
        "no route to host with url: /file?… (caused by x)"
    )


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "x"])
def test_other_addresses_are_refused(target, url):
    with pytest.raises(ValueError, match="not an http or https address"):
        download(url, target)


# --- the disk ------------------------------------------------------------------------


SMALL_DISK = 128
"""KiB of the file system that `small_disk` mounts."""


def test_a_full_disk_is_found_before_the_download(server, small_disk):
    with pytest.raises(OSError, match=r"GB left, and \.file\.bin\.part needs"):
        get(server, small_disk / "file.bin")


def test_a_disk_that_fills_up_is_named(server, small_disk):
    server.always[PATH] = Answer(length=False)
    with pytest.raises(OSError) as caught:
        get(server, small_disk / "file.bin")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(small_disk / "file.bin")
    assert len(server.asked) == 1
    assert not (small_disk / "file.bin").exists()


def test_a_write_that_fails_is_named(server, target, monkeypatch):
    settle = os.fsync

    def full(number):
        part = partial_of(target)
        if part.is_file() and os.path.samestat(os.fstat(number), part.stat()):
            raise OSError(errno.ENOSPC, "No space left on device")
        settle(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device while writing") as found:
        get(server, target)
    assert found.value.filename == str(target)
    # What came stays, and is not fetched again.
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    assert get(server, target, Expected(SHA256, len(CONTENT))) == SHA256
    assert len(server.asked) == 1


def test_killed_midway_and_run_again(server, target):
    stall = threading.Event()
    server.answers[PATH] = [Answer(cut=MIDDLE, stall=stall)]
    code = (
        "import loopback, sys; loopback.guard()\n"
        "from pathlib import Path; from clockwork_experiments.data import downloads\n"
        "downloads.CHUNK = 4096; downloads.download(sys.argv[1], Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, server.url(PATH), str(target)]
    paths = [str(Path(__file__).parents[1]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(command, env=environment) as process:
        end = time.monotonic() + 30
        part = partial_of(target)
        while not (part.is_file() and part.stat().st_size) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    stall.set()
    kept = part.stat().st_size
    assert 0 < kept <= MIDDLE and not target.exists()
    assert get(server, target) == SHA256
    assert target.read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={kept}-"]
