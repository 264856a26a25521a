import errno

import numpy as np
import pytest
import torch

from clockwork_experiments.base import storage


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "shard.safetensors"
    tensors = {"a": torch.arange(6).view(2, 3), "b": torch.rand(4).half()}
    storage.write_tensors(path, tensors, {"run": "sd"})
    read, metadata = storage.read_tensors(path)
    assert metadata["run"] == "sd"
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    arrays = storage.read_arrays(path)
    np.testing.assert_array_equal(arrays["a"], tensors["a"].numpy())


@pytest.mark.parametrize("read", [storage.read_tensors, storage.read_arrays])
@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damage_is_named(tmp_path, read, damage):
    path = tmp_path / "shard.safetensors"
    storage.write_tensors(path, {"a": torch.zeros(1000)})
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        content = content[:-100]
    else:
        content[-50] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is corrupt or truncated"):
        read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.safetensors does not exist"):
        storage.read_tensors(tmp_path / "none.safetensors")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    storage.write_text(path, "old")
    with pytest.raises(RuntimeError), storage.atomic_path(path) as partial:
        partial.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stale").write_text("")
    with storage.atomic_path(folder) as partial:
        partial.mkdir()
        (partial / "fresh").write_text("")
    assert [path.name for path in folder.iterdir()] == ["fresh"]


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_args):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="while writing") as caught:
        storage.write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_weights_are_compared_with_their_checksums(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    storage.check_weights(tmp_path)
    storage.write_checksums(tmp_path)
    storage.check_weights(tmp_path)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is corrupt"):
        storage.check_weights(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors does not exist"):
        storage.check_weights(tmp_path)


def test_json_names_its_file(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON"):
        storage.read_json(path)
