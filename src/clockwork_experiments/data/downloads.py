"""Download a file over HTTP so that it arrives whole, as expected, or not at all.

What has arrived so far is kept beside the file, ``.<name>.part``, with a note of which
version of the file it is of. A later call goes on from there, in this process or in
another: by ``Range`` and ``If-Range``, so that a file which changed meanwhile, or a
server that knows no ranges, makes it start anew.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from clockwork_experiments.base import storage

log = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Bytes that are read and written at a time, at most."""

ATTEMPTS = 6
"""Attempts in a row that bring nothing new before a download is given up."""

TIMEOUT = (10.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that may be different the next time."""


class RefusedError(ValueError):
    """The server asks for a login, or for a licence that has not been accepted."""


class MissingError(ValueError):
    """The server has no such file."""


class _PassingError(Exception):
    """Something that may go well the next time; ``wait`` is what the server asks."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _ChangedError(Exception):
    """What arrived before belongs to another version of the file."""


@dataclass(frozen=True)
class Expected:
    """What a file should be.

    Attributes:
        sha256: Its SHA-256, lower-case hexadecimal; empty if not known.
        size: Its length in bytes; 0 if not known.
    """

    sha256: str = ""
    size: int = 0


def download(
    url: str,
    path: Path,
    expected: Expected | None = None,
    headers: Mapping[str, str] | None = None,
    backoff: float = 1.0,
) -> str:
    """Download a file, or the rest of it, and return its SHA-256.

    Args:
        url: Where from, http or https.
        path: Where to; it appears there complete, or not at all.
        expected: What it should be.
        headers: Further headers, such as a login. They do not go to other hosts, and
            logins that the machine keeps in a netrc file go nowhere.
        backoff: Seconds before the second attempt; each further wait is twice as long.

    Raises:
        RefusedError: On status 401 or 403.
        MissingError: On status 404 or 410.
        ValueError: If the file is not as expected.
        OSError: If the server cannot be reached or breaks off again and again, or the
            disk is full or fails; what has arrived is kept, and the next call goes on.
    """
    wanted = expected or Expected()
    address = urlsplit(url)
    if address.scheme not in ("http", "https"):
        raise ValueError(f"{url} is not an http or https address")
    if address.username is not None or address.password is not None:
        raise ValueError(
            f"the address of {path.name} at {address.hostname} holds a login, which "
            "logs would show; none is allowed there"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = partial_of(path)
    failures, changes, fresh = 0, 0, False
    while max(failures, changes) < ATTEMPTS:
        before = _length(part)
        try:
            with _naming(path):
                _attempt(url, part, wanted, headers or {})
        except _ChangedError as error:
            log.info("%s: %s; starting anew", url, error)
            _discard(part)
            changes += 1
        except (_PassingError, requests.RequestException, HTTPError) as error:
            if isinstance(error, requests.exceptions.SSLError):
                raise OSError(f"{url}: {_line(error)}") from error
            failures = 0 if _length(part) > before else failures + 1
            if failures < ATTEMPTS:
                wait = _wait(backoff, failures, getattr(error, "wait", 0.0))
                log.info("%s: %s; again in %.1f s", url, _line(error), wait)
                time.sleep(wait)
        else:
            found = storage.sha256(part)
            if not wanted.sha256 or found == wanted.sha256:
                os.replace(part, path)
                _note_of(part).unlink(missing_ok=True)
                return found
            _discard(part)
            # Parts of two versions may have been joined; a whole one was just wrong.
            if fresh or not before:
                raise ValueError(
                    f"{url} has SHA-256 {found}, and {wanted.sha256} is expected: it "
                    "is not the file that it should be, or was damaged on its way"
                )
            fresh = True
    raise OSError(
        f"{url} could not be had in {ATTEMPTS} attempts; {_length(part)} bytes are "
        "kept, and the next run goes on from there"
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in a failure of the disk, which the system reports without."""
    try:
        yield
    except requests.RequestException:
        raise
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        what = f"{os.strerror(error.errno)} while writing"
        raise OSError(error.errno, what, str(path)) from error


def partial_of(path: Path) -> Path:
    """Return where a file is written until it is whole."""
    return path.with_name(f".{path.name}.part")


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def _line(error: Exception) -> str:
    # What follows a question mark may be a signature that lets others in.
    text = re.sub(r"\?[^\s'\")>]+", "?…", str(error))
    return " ".join(text.split())[:300]


class _Session(requests.Session):
    """Sends private headers to the host that they are meant for, and no other login."""

    def __init__(self, private: Mapping[str, str]) -> None:
        super().__init__()
        self._private = private
        # In place of what a netrc file says.
        self.auth = lambda request: request

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Drop what the next host must not see; a redirect leads there."""
        before, after = response.request.url, prepared_request.url
        assert before is not None and after is not None
        if urlsplit(before).scheme == "https" and urlsplit(after).scheme != "https":
            shown = urlsplit(after)._replace(query="").geturl()
            raise ValueError(f"{before} leads to {shown}, which is not encrypted")
        if self.should_strip_auth(before, after):
            for name in self._private:
                prepared_request.headers.pop(name, None)


def _wait(backoff: float, failures: int, asked: float) -> float:
    """Return seconds to wait; drawn, so that many clients do not return together."""
    doubled = backoff * 2.0 ** max(failures - 1, 0) * random.uniform(0.75, 1.25)
    return max(min(doubled, 60.0), min(asked, 300.0))


def _attempt(
    url: str, part: Path, expected: Expected, headers: Mapping[str, str]
) -> None:
    """Ask once, and write what comes behind what is there."""
    start, version = _begun(url, part, expected)
    if start and start == expected.size:
        return  # Killed after the last byte.
    asked = {**headers, "Accept-Encoding": "identity"}
    if start:
        asked["Range"] = f"bytes={start}-"
        if version:
            asked["If-Range"] = version
    session = _Session(headers)
    with (
        session,
        session.get(url, headers=asked, stream=True, timeout=TIMEOUT) as response,
    ):
        _check_status(url, response, start)
        total = _total(url, response, start)
        if expected.size and total not in (0, expected.size):
            raise ValueError(
                f"{url} has {total} bytes, and {expected.size} are expected"
            )
        if response.status_code != 206:
            _discard(part)
            start = 0
        check_room(part, (total or expected.size) - start)
        _write_note(part, url, response)
        _receive(response, part, start, total)
    got, wanted = _length(part), total or expected.size
    if wanted and got < wanted:
        raise _PassingError(f"{got} of {wanted} bytes came")
    if wanted and got > wanted:
        raise _ChangedError(f"{got} bytes came, not {wanted}")


def _begun(url: str, part: Path, expected: Expected) -> tuple[int, str]:
    """Return how much of the file is there, and of which version it is.

    A server that names no version could join two of them; only a checksum would tell.
    """
    length = _length(part)
    if not length:
        return 0, ""
    version = ""
    note = _note_of(part)
    if note.is_file():
        try:
            data = storage.read_json(note)
        except ValueError:
            data = {}
        if isinstance(data, dict) and isinstance(data.get("version"), str):
            version = data["version"]
    too_long = expected.size and length > expected.size
    if too_long or not (version or expected.sha256):
        _discard(part)
        return 0, ""
    return length, version


def _write_note(part: Path, url: str, response: requests.Response) -> None:
    etag = response.headers.get("ETag", "")
    # A weak tag says that two files mean the same, not that their bytes do.
    version = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    storage.write_json(_note_of(part), {"url": url, "version": version or ""})


def _check_status(url: str, response: requests.Response, start: int) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in (401, 403):
        raise RefusedError(f"{url} answers {status} {response.reason}")
    if status in (404, 410):
        raise MissingError(f"{url} answers {status} {response.reason}")
    if status == 416 and start:
        raise _ChangedError(f"the file has no bytes from {start} on")
    if status in PASSING:
        asked = response.headers.get("Retry-After", "")
        wait = float(asked) if asked.isdigit() else 0.0
        raise _PassingError(f"status {status} {response.reason}", wait)
    raise ValueError(f"{url} answers {status} {response.reason}")


def _total(url: str, response: requests.Response, start: int) -> int:
    """Return the length of the whole file, or 0 if the server does not tell."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else 0
    found = response.headers.get("Content-Range", "")
    unit, _, rest = found.partition(" ")
    span, _, total = rest.partition("/")
    if unit != "bytes" or span.partition("-")[0] != str(start):
        raise _ChangedError(f"Content-Range {found!r} does not start at {start}")
    return int(total) if total.isdigit() else 0


def check_room(path: Path, needed: int) -> None:
    """Refuse to start what the disk has no room for.

    Raises:
        OSError: If it has not.
    """
    folder = path.parent
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise OSError(
            f"{folder} has {free / 1e9:.2f} GB left, and {path.name} needs "
            f"{needed / 1e9:.2f} GB more"
        )


def _receive(response: requests.Response, part: Path, start: int, total: int) -> None:
    bar = tqdm(
        desc=part.name.removeprefix(".").removesuffix(".part"),
        total=total or None,
        initial=start,
        unit="B",
        unit_scale=True,
        disable=None,
    )
    with bar, part.open("ab" if start else "wb") as file:
        # What comes is written at once: a line that breaks often still gets on.
        while chunk := response.raw.read1(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
