"""Inverting and editing a set from the command line, with the shipped mini model."""

import json
from pathlib import Path

import pytest
import torch

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.data import edit_sets
from clockwork_experiments.generate.inverting import InvertSpec
from clockwork_experiments.steps import edit_images, invert_images, prepare_edit_set
from clockwork_experiments.world import edit_sets as scene_edits

MODEL = Path(__file__).parents[2] / "resources" / "mini" / "stable-diffusion"
INVERT = {
    "inversions": [{"steps": 4}, {"steps": 5}],
    "generations": [4, 5],
    "batch_size": 2,
}
PNP = {"guidance": 2.0, "tau_f": 0.8, "tau_a": 0.5}
EDIT = {"generations": [{"steps": 4, **PNP}, {"steps": 5, **PNP}], "batch_size": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    spec = scene_edits.SceneEditsSpec(count=3, kinds=("recolour", "background"))
    scene_edits.write_layout(spec, folder / "scenes")
    prepare_edit_set.prepare_edit_set(
        spec='{"source": "scenes", "size": 64}',
        folder=folder / "scenes",
        output=folder / "real.json",
    )
    return folder / "real.json"


def invert(prepared: Path, folder: Path, **changed) -> list[Path]:
    outputs = [folder / f"steps{steps}" / "index.json" for steps in (4, 5)]
    invert_images.invert_images(
        spec=parse(InvertSpec, {**INVERT, **changed}),
        model=MODEL,
        set=prepared,
        sources=prepared.with_suffix(".safetensors"),
        output=outputs,
    )
    return outputs


def edit(prepared: Path, inversion: list[Path], folder: Path, **changed) -> list[Path]:
    outputs = [folder / f"steps{steps}.safetensors" for steps in (4, 5)]
    edit_images.edit_images(
        spec=json.dumps({**EDIT, **changed}),
        model=MODEL,
        set=prepared,
        inversion=inversion,
        state=folder / "state",
        output=outputs,
    )
    return outputs


@pytest.fixture(scope="module")
def inverted(prepared, tmp_path_factory) -> list[Path]:
    return invert(prepared, tmp_path_factory.mktemp("inverted"))


def test_each_source_has_a_file_with_the_latent_of_every_timestep(prepared, inverted):
    ids = edit_sets.read_set(prepared).ids
    for index, steps in zip(inverted, (4, 5), strict=True):
        listed = storage.read_json(index)["files"]
        assert set(listed) == set(ids)
        for name in ids:
            path = index.parent / f"{name}.safetensors"
            assert storage.sha256(path) == listed[name]
            tensors, _ = storage.read_tensors(path)
            assert tensors["latents"].shape == (steps, 4, 16, 16)
            assert tensors["timesteps"].tolist() == [
                1 + step * (1000 // steps) for step in range(steps)
            ]


def test_inversion_keeps_what_is_whole_and_repairs_what_is_not(prepared, tmp_path):
    outputs = invert(prepared, tmp_path)
    files = sorted(tmp_path.rglob("*.safetensors"))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    files[0].write_bytes(before[files[0]][1][:-50])
    files[1].unlink()
    outputs[0].unlink()
    invert(prepared, tmp_path)
    remade = {p for p in files if p.stat().st_mtime_ns != before[p][0]}
    assert remade == set(files[:2])
    for path in files:
        ours, _ = storage.read_tensors(path)
        assert ours["latents"].isfinite().all()
    # Another clock is other work.
    invert(
        prepared,
        tmp_path,
        inversions=[{"steps": 4, "clock": 2}, {"steps": 5, "clock": 2}],
        kind="identity",
    )
    assert all(p.stat().st_mtime_ns != before[p][0] for p in files)


def test_grids_that_do_not_fit_are_refused_before_anything_is_inverted(
    prepared, tmp_path
):
    with pytest.raises(ValueError, match="inversion visits 1, 251, 501, 751, gen"):
        invert(prepared, tmp_path, generations=[5, 5])
    assert not list(tmp_path.iterdir())


def test_edits_come_in_the_order_of_the_pairs_whatever_the_batches(
    prepared, inverted, tmp_path
):
    one = edit(prepared, inverted, tmp_path / "one")
    other = edit(prepared, inverted, tmp_path / "other", batch_size=6)
    for path, again in zip(one, other, strict=True):
        images = storage.read_tensors(path)[0]["images"]
        assert images.shape == (6, 3, 64, 64) and images.dtype == torch.uint8
        gap = images.int() - storage.read_tensors(again)[0]["images"].int()
        assert gap.abs().max() <= 2
    assert not (tmp_path / "one" / "state").exists()
    # Each edit is nearer to its own source than to the next one.
    sources, _ = edit_sets.read_images(
        prepared.with_suffix(".safetensors"), edit_sets.read_set(prepared)
    )
    owners = edit_sets.read_set(prepared).pair_sources[:3]
    near = [
        (images[i].float() - sources[s].float()).square().mean()
        for i, s in enumerate(owners)
    ]
    far = [
        (images[i].float() - sources[(s + 1) % 3].float()).square().mean()
        for i, s in enumerate(owners)
    ]
    assert sum(near) < sum(far)


def test_activations_give_the_same_images_as_latents(prepared, inverted, tmp_path):
    plain = edit(prepared, inverted, tmp_path / "plain")
    kept = edit(
        prepared,
        inverted,
        tmp_path / "kept",
        generations=[{**one, "features": "activations"} for one in EDIT["generations"]],
    )
    spilled = edit(
        prepared,
        inverted,
        tmp_path / "spilled",
        generations=[{**one, "features": "activations"} for one in EDIT["generations"]],
        spill=True,
    )
    for paths in (kept, spilled):
        for path, again in zip(plain, paths, strict=True):
            gap = (
                storage.read_tensors(path)[0]["images"].int()
                - storage.read_tensors(again)[0]["images"].int()
            )
            assert gap.abs().max() <= 1
    assert len(list((tmp_path / "spilled").rglob("*"))) == 2


def test_reconstructions_are_made_once_and_shown_for_each_pair(
    prepared, inverted, tmp_path
):
    back = {"guidance": 1.0, "tau_f": 0.0, "tau_a": 0.0, "drop_source": True}
    paths = edit(
        prepared,
        inverted,
        tmp_path,
        generations=[{"steps": 4, **back}, {"steps": 5, **back}],
        target="source",
    )
    images = storage.read_tensors(paths[1])[0]["images"]
    assert torch.equal(images[:3], images[3:])
    assert not torch.equal(images[0], images[1])


def test_a_corrupt_or_foreign_latent_is_named_with_its_remedy(
    prepared, inverted, tmp_path
):
    outputs = invert(prepared, tmp_path)
    path = sorted(outputs[0].parent.glob("*.safetensors"))[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(ValueError, match=rf"{path.name} is corrupt.*--forcerun"):
        edit(prepared, outputs, tmp_path / "edited")
    other = sorted(outputs[0].parent.glob("*.safetensors"))[0]
    path.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="is not the file that index.json lists"):
        edit(prepared, outputs, tmp_path / "edited")
    # What was done before it stays for the next run.
    path.write_bytes(whole)
    assert edit(prepared, outputs, tmp_path / "edited")[0].is_file()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "resnet"}, "'resnet' has weights"),
        ({"inversions": [{"steps": 4}]}, "1 inversions and 2 generations"),
        ({"inversions": [{"steps": 1000}] * 2}, "take 999 steps"),
        (
            {"inversions": [{"steps": 4, "clock": 2}] * 2, "generations": [4, 4]},
            "clock 2 needs an adaptor",
        ),
    ],
)
def test_wrong_inversions(prepared, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        invert(prepared, tmp_path, **changed)
    assert not list(tmp_path.rglob("*.json"))


def test_images_of_another_size_than_the_models(prepared, tmp_path):
    tensors, _ = storage.read_tensors(prepared.with_suffix(".safetensors"))
    small = {name: value[..., ::2, ::2] for name, value in tensors.items()}
    storage.write_tensors(tmp_path / "real.safetensors", small)
    storage.write_text(tmp_path / "real.json", prepared.read_text())
    with pytest.raises(ValueError, match="have 32 pixels a side, and .* wants 64"):
        invert(tmp_path / "real.json", tmp_path / "inverted")
