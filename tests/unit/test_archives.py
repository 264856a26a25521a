"""Archives unpack into their folder, and nowhere else."""

import gzip
import io
import random
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from clockwork_experiments.data import archives
from clockwork_experiments.data.archives import unpack


def zipped(path: Path, members: dict[str, bytes], kind: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = kind << 16
            file.writestr(info, content)
    return path


def tarred(
    path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE
) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            file.addfile(info, io.BytesIO(content))
    return path


PACKERS = [(zipped, "a.zip"), (tarred, "a.tar"), (tarred, "a.tar.gz")]


def nothing_but(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize(("pack", "name"), PACKERS)
def test_files_come_out_as_they_went_in(tmp_path, pack, name):
    members = {"x/a.txt": b"one", "x/y/b.txt": b"two" * 9}
    archive = pack(tmp_path / name, members)
    assert unpack(archive, tmp_path / "out") == 2
    for place, content in members.items():
        assert (tmp_path / "out" / place).read_bytes() == content
    assert nothing_but(tmp_path, name, "out")


@pytest.mark.parametrize(("pack", "name"), PACKERS)
@pytest.mark.parametrize(
    "member", ["/etc/x", "../x", "a/../../x", "a\\..\\x", "C:/x", "//x/y"]
)
def test_what_leaves_the_folder_is_refused(tmp_path, pack, name, member):
    archive = pack(tmp_path / name, {"good": b"1", member: b"2"})
    with pytest.raises(ValueError, match="leaves the folder") as caught:
        unpack(archive, tmp_path / "out")
    assert str(archive) in str(caught.value)
    assert nothing_but(tmp_path, name)


def test_what_a_choice_renames_is_checked_too(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"x": b"1"})
    with pytest.raises(ValueError, match="leaves the folder"):
        unpack(archive, tmp_path / "out", lambda name: f"../{name}")
    archive = zipped(tmp_path / "b.zip", {"x": b"1", "y": b"2"})
    with pytest.raises(ValueError, match="holds 'same' twice"):
        unpack(archive, tmp_path / "out", lambda name: "same")
    assert nothing_but(tmp_path, "a.zip", "b.zip")


def test_links_are_refused(tmp_path):
    link = zipped(tmp_path / "a.zip", {"x": b"/etc"}, kind=stat.S_IFLNK | 0o777)
    with pytest.raises(ValueError, match="'x' is a link or special file"):
        unpack(link, tmp_path / "out")
    for index, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)):
        link = tarred(tmp_path / f"{index}.tar", {"x": b"../../y"}, kind)
        with pytest.raises(ValueError, match="'x' is a link or special file"):
            unpack(link, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bombs_are_refused_before_they_go_off(tmp_path):
    bomb = zipped(tmp_path / "a.zip", {"x": bytes(10_000_000)})
    assert bomb.stat().st_size < 20_000
    with pytest.raises(ValueError, match="1 files of 10000000 bytes, and at most"):
        unpack(bomb, tmp_path / "out")
    with pytest.raises(ValueError, match="of 9999999 bytes are allowed"):
        unpack(bomb, tmp_path / "out", limit=9_999_999)
    assert unpack(bomb, tmp_path / "out", limit=10_000_000) == 1
    # Only what is chosen counts.
    assert unpack(bomb, tmp_path / "none", lambda name: None) == 0


def test_an_archive_that_lies_about_lengths_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"x": bytes(1000)})
    data = archive.read_bytes()
    lie = (10).to_bytes(4, "little")
    archive.write_bytes(data.replace((1000).to_bytes(4, "little"), lie))
    with pytest.raises(ValueError, match=r"a\.zip.*'x'"):
        unpack(archive, tmp_path / "out", limit=1_000_000)
    assert nothing_but(tmp_path, "a.zip")


@pytest.mark.parametrize(("pack", "name"), PACKERS)
@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damage_is_named_and_leaves_nothing(tmp_path, pack, name, damage):
    content = bytes(range(256)) * 200
    archive = pack(tmp_path / name, {"x": content, "y": content})
    data = bytearray(archive.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[20:400] = bytes(255 - byte for byte in data[20:400])
    else:
        data = bytearray()
    archive.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=name):
        unpack(archive, tmp_path / "out")
    assert nothing_but(tmp_path, name)


def test_a_wrong_checksum_at_the_very_end_is_found(tmp_path):
    archive = tarred(tmp_path / "a.tar.gz", {"x": random.Random(0).randbytes(50_000)})
    data = bytearray(archive.read_bytes())
    data[-8] ^= 1
    archive.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"a\.tar\.gz is damaged.*CRC check failed"):
        unpack(archive, tmp_path / "out")
    assert nothing_but(tmp_path, "a.tar.gz")


def test_a_long_note_is_refused_before_it_is_read(tmp_path):
    size = 300_000_000
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, size
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(header.tobuf())
        for _ in range(size // 1_000_000):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.tar\.gz.*a note of 300000000 bytes"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_too_many_files_are_refused_before_they_are_all_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "COUNT", 50)
    many = tarred(tmp_path / "a.tgz", {f"{n}": b"" for n in range(51)})
    with pytest.raises(ValueError, match=r"a\.tgz holds more than 50 files"):
        unpack(many, tmp_path / "out")
    assert nothing_but(tmp_path, "a.tgz")


def test_other_suffixes_are_refused(tmp_path):
    (tmp_path / "a.rar").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.rar is not one of \.zip, \.tar"):
        unpack(tmp_path / "a.rar", tmp_path / "out")


def test_the_archive_beside_a_folder_fills_it(tmp_path):
    assert archives.unpack_beside(tmp_path / "set") is None
    tarred(tmp_path / "set.tgz", {"top/a": b"1", "top/b/c": b"2"})
    archives.unpack_beside(tmp_path / "set")
    assert (tmp_path / "set" / "a").read_bytes() == b"1"
    assert (tmp_path / "set" / "b" / "c").read_bytes() == b"2"
    # Two folders at the top are not one too many.
    zipped(tmp_path / "two.zip", {"a/x": b"1", "b/x": b"2"})
    archives.unpack_beside(tmp_path / "two")
    assert (tmp_path / "two" / "b" / "x").read_bytes() == b"2"
