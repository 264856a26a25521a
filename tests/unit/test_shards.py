import numpy as np
import pytest
import torch

from clockwork_experiments.base import storage
from clockwork_experiments.data import shards


def cut(folder, tensor, sizes, name="images"):
    """Write rows to shards of given sizes, and return their paths."""
    paths = []
    for index, part in enumerate(tensor.split(sizes)):
        paths.append(folder / f"{index:03d}.safetensors")
        storage.write_tensors(paths[-1], {name: part, "other": part[:1].double()})
    return paths


@pytest.mark.parametrize("sizes", [[23], [5, 1, 9, 8], [1] * 23])
def test_rows_are_the_same_however_they_are_cut(tmp_path, sizes):
    rows = torch.arange(23 * 6, dtype=torch.uint8).view(23, 2, 3)
    read = shards.Rows(cut(tmp_path, rows, sizes), "images")
    assert len(read) == 23 and read.shape == (23, 2, 3)
    assert torch.equal(read[0:23], rows) and torch.equal(read[4:17], rows[4:17])
    blocks = list(read.blocks(7))
    assert [len(block) for block in blocks] == [7, 7, 7, 2]
    assert torch.equal(torch.cat(blocks), rows)


def test_only_rows_that_there_are_can_be_read(tmp_path):
    read = shards.Rows(cut(tmp_path, torch.zeros(6, 2), [2, 4]), "images")
    assert read[4:9].shape == (2, 2)
    with pytest.raises(ValueError, match="rows 6 to 6 of 6 do not exist"):
        read[7:9]
    with pytest.raises(ValueError, match="not by 2"):
        read[0:6:2]
    with pytest.raises(IndexError, match="row 6 of 6"):
        read[6]


def test_rows_are_read_without_torch(tmp_path):
    rows = torch.arange(24, dtype=torch.uint8).view(8, 3)
    read = shards.Rows(cut(tmp_path, rows, [3, 5]), "images", "np")
    assert (
        isinstance(read[1:6], np.ndarray) and read[1:6].tolist() == rows[1:6].tolist()
    )
    assert read[4].tolist() == [12, 13, 14]


def test_tensors_side_by_side_need_equal_numbers_of_rows(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = shards.Rows(cut(tmp_path / "a", torch.zeros(6, 2), [2, 4]), "images")
    other = shards.Rows(cut(tmp_path / "b", torch.ones(6, 3), [3, 3]), "images")
    pairs = list(shards.paired(one, other, size=4))
    assert [(len(a), len(b)) for a, b in pairs] == [(4, 4), (2, 2)]
    short = shards.Rows([tmp_path / "b" / "000.safetensors"], "images")
    with pytest.raises(ValueError, match=r"6 rows of .*a.* and 3 of .*b.* no pairs"):
        shards.paired(one, short, size=4)


def test_rows_that_are_written_in_parts_are_as_if_written_at_once(tmp_path):
    images = torch.arange(5 * 6, dtype=torch.uint8).view(5, 2, 3)
    seconds = torch.tensor([1.5], dtype=torch.float64)
    path, notes = tmp_path / "parts.safetensors", {"spec": "ü"}
    parts = {
        "seconds": shards.Parts("F64", (1,), [seconds]),
        "images": shards.Parts("U8", (5, 2, 3), iter(images.transpose(1, 2).split(2))),
    }
    with pytest.raises(
        ValueError, match=r"up to 2 of images are uint8 \(3, 2\), not U8"
    ):
        shards.write_rows(path, parts, notes)
    parts["images"] = shards.Parts("U8", (5, 2, 3), iter(images.split(2)))
    shards.write_rows(path, parts, notes)
    storage.write_tensors(
        tmp_path / "whole.safetensors", {"images": images, "seconds": seconds}, notes
    )
    (found, read), (wanted, written) = (
        storage.read_tensors(tmp_path / f"{name}.safetensors")
        for name in ("parts", "whole")
    )
    assert read == written
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)
    assert shards.Rows([path], "images")[1:3].equal(images[1:3])


@pytest.mark.parametrize("count", [4, 6])
def test_a_wrong_number_of_rows_leaves_no_file(tmp_path, count):
    path = tmp_path / "images.safetensors"
    rows = torch.zeros(count, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"{count} "):
        shards.write_rows(path, {"images": shards.Parts("U8", (5, 3), rows.split(2))})
    assert not list(tmp_path.iterdir())


def test_bad_shards_are_named(tmp_path):
    paths = cut(tmp_path, torch.rand(8, 5), [4, 4])
    with pytest.raises(ValueError, match="000.* lacks the tensor 'frechet'"):
        shards.Rows(paths, "frechet")
    with pytest.raises(ValueError, match="no files with the tensor 'images'"):
        shards.Rows([], "images")
    missing = tmp_path / "002.safetensors"
    with pytest.raises(ValueError, match="002.safetensors does not exist"):
        shards.Rows([*paths, missing], "images")
    storage.write_tensors(missing, {"images": torch.zeros(4, 6)})
    with pytest.raises(ValueError, match=r"002.*F32 \(6,\), not F32 \(5,\)"):
        shards.Rows([*paths, missing], "images")


def test_damage_anywhere_in_a_shard_is_found(tmp_path):
    paths = cut(tmp_path, torch.rand(8, 5), [4, 4])
    assert len(shards.Rows(paths, "images")) == 8
    content = bytearray(paths[1].read_bytes())
    content[-3] ^= 1
    paths[1].write_bytes(content)
    with pytest.raises(ValueError, match="001.*does not match its checksum"):
        shards.Rows(paths, "images")
    paths[1].write_bytes(content[:-9])
    with pytest.raises(ValueError, match="001.*is corrupt or truncated"):
        shards.Rows(paths, "images")
