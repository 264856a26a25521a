"""Steps that work on a shard: together they make what one job makes."""

import json
from pathlib import Path

import pytest
import torch

from clockwork_experiments.base import storage
from clockwork_experiments.data import datasets, shards
from clockwork_experiments.steps import (
    extract_features,
    prepare_prompts,
    sample_images,
    sample_trajectories,
)

MINI = Path(__file__).parents[2] / "resources" / "mini"
SAMPLER = {"scheduler": "dpmpp", "steps": 2, "guidance": 2.0}
PROMPTS, SEEDS = 3, 2


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "few.json"
    spec = datasets.DatasetSpec("scenes", PROMPTS, seeds=SEEDS, redrawn=1)
    prepare_prompts.prepare_prompts(spec=spec, output=path)
    return path


def sampled(folder: Path, prompts: Path, count: int, batch_size: int) -> list[Path]:
    """Sample a run in so many shards."""
    spec = {"sampler": SAMPLER, "seed": 5, "batch_size": batch_size}
    paths = []
    for shard in range(count):
        paths.append(folder / str(count) / f"{shard:03d}.safetensors")
        sample_images.sample_images(
            spec=json.dumps(spec),
            model=MINI / "stable-diffusion",
            adaptor=None,
            clip=None,
            prompts=prompts,
            shard=shard,
            shards=count,
            state=folder / "state",
            output=paths[-1],
        )
    return paths


def test_images_and_their_captions_do_not_depend_on_shards_and_batches(
    prompts, tmp_path
):
    whole = sampled(tmp_path, prompts, 1, 6)
    cut = sampled(tmp_path, prompts, 4, 1)
    one, other = (shards.Rows(paths, "images") for paths in (whole, cut))
    assert one.shape == other.shape == (PROMPTS * SEEDS, 3, 64, 64)
    assert (one[0:6].int() - other[0:6].int()).abs().max() <= 1
    # Row i is of prompt i mod N / seeds: seed by seed, in other noise.
    listed = datasets.read_prompts(prompts)
    assert listed[:PROMPTS] == listed[PROMPTS:] and len(set(listed)) == PROMPTS
    again = (one[0:3].int() - one[3:6].int()).abs().amax(dim=(1, 2, 3))
    assert again.min() > 20

    features = []
    for paths in (whole, cut):
        features.append([path.with_suffix(".features") for path in paths])
        for shard, path in enumerate(paths):
            extract_features.extract_features(
                images=[path],
                clip=MINI / "clip",
                frechet=MINI / "features",
                frechet_kind="mini",
                size=0,
                prompts=prompts,
                shard=shard,
                shards=len(paths),
                output=[features[-1][shard]],
            )
    for name in ("clip_text", "clip_image", "frechet"):
        one, other = (shards.Rows(paths, name) for paths in features)
        # An image may differ by a level where a batch rounds it otherwise.
        assert torch.allclose(one[0:6], other[0:6], atol=2e-2), name
        if name == "clip_text":
            assert torch.allclose(one[0:3], one[3:6], atol=1e-5)


@pytest.mark.parametrize("stored", ["features", "latents"])
def test_trajectories_do_not_depend_on_shards_and_batches(prompts, tmp_path, stored):
    rows = {}
    for count, batch_size in ((1, 6), (4, 1)):
        spec = {"sampler": SAMPLER, "cut": "stage1", "seed": 5, "dtype": "float32"}
        paths = []
        for shard in range(count):
            paths.append(tmp_path / str(count) / f"{shard:03d}.safetensors")
            sample_trajectories.sample_trajectories(
                spec=json.dumps({**spec, "batch_size": batch_size, "stored": stored}),
                model=MINI / "stable-diffusion",
                clip=MINI / "clip",
                prompts=prompts,
                images=None,
                shard=shard,
                shards=count,
                state=tmp_path / "state",
                output=paths[-1],
            )
        names = {"features": ("r_in", "r_out"), "latents": ("latents",)}[stored]
        rows[count] = {name: shards.Rows(paths, name) for name in names}
        fixed = [storage.read_tensors(path)[0]["t_emb"] for path in paths]
        assert all(torch.equal(each, fixed[0]) for each in fixed)
    for name, one in rows[1].items():
        other = rows[4][name]
        assert len(one) == len(other) == PROMPTS * SEEDS
        scale = float(one[0:6].abs().max())
        assert (one[0:6] - other[0:6]).abs().max() <= 1e-4 * scale
        assert (one[0:3] - one[3:6]).abs().max() > 0.1 * scale
