import pytest
import torch

from clockwork_diffusion import storage
from clockwork_diffusion.adaptors import IdentityAdaptor, build_adaptor, load_adaptor
from clockwork_diffusion.distillation import (
    AdaptorSpec,
    adaptor_steps,
    held_out_error,
    train_adaptor,
)
from clockwork_diffusion.sampling import Passes, Prompts, SamplerSpec
from clockwork_diffusion.split import SplitUNet
from clockwork_diffusion.training import Optimisation
from clockwork_diffusion.trajectories import (
    Trajectories,
    TrajectorySpec,
    read_trajectories,
    time_embeddings,
    unroll,
)

SPEC = TrajectorySpec(SamplerSpec("dpmpp", 4, 3.0), "stage1", 0, 4, "float32")
CPU = torch.device("cpu")


@pytest.fixture
def shard(unet, scheduler_config) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    prompts = Prompts(
        torch.randn(6, 5, 24, generator=generator),
        torch.randn(1, 5, 24, generator=generator),
        torch.randn(6, 8, generator=generator),
        torch.randn(1, 8, generator=generator),
    )
    passes = Passes(SplitUNet(unet))
    tensors = unroll(passes, scheduler_config, prompts, SPEC, first=0)
    timesteps = torch.tensor([999, 749, 500, 250])
    tensors["t_emb"] = time_embeddings(passes, timesteps, prompts.text)
    return tensors


def data_of(shard: dict[str, torch.Tensor]) -> Trajectories:
    flat = [shard[name].flatten(0, 1) for name in ("r_in", "r_out", "pooled")]
    return Trajectories(*flat, shard["t_emb"], "teacher")


def test_shapes(shard):
    assert shard["r_in"].shape == (6, 2, 4, 16, 8, 8)
    assert shard["r_out"].shape == (6, 2, 4, 32, 8, 8)
    assert shard["pooled"].shape == (6, 2, 8)
    assert shard["t_emb"].shape == (4, 64)
    # The empty prompt's branch comes first, and its embedding is everybody's.
    assert torch.equal(shard["pooled"][0, 0], shard["pooled"][5, 0])
    assert not torch.equal(shard["pooled"][0, 1], shard["pooled"][5, 1])


def test_a_batch_in_two_parts_is_the_same(unet, scheduler_config, shard):
    generator = torch.Generator().manual_seed(5)
    text = torch.randn(6, 5, 24, generator=generator)
    empty = torch.randn(1, 5, 24, generator=generator)
    pooled = torch.randn(6, 8, generator=generator)
    prompts = Prompts(text, empty, pooled, torch.randn(1, 8, generator=generator))
    part = unroll(Passes(SplitUNet(unet)), scheduler_config, prompts[4:], SPEC, first=4)
    torch.testing.assert_close(part["r_out"], shard["r_out"][4:], rtol=0, atol=1e-4)


def test_the_clock_decides_which_steps_are_learned():
    assert adaptor_steps(2, 8).tolist() == [1, 3, 5, 7]
    assert adaptor_steps(4, 8).tolist() == [1, 2, 3, 5, 6, 7]
    with pytest.raises(ValueError, match="has no adaptor step"):
        adaptor_steps(2, 1)


def test_training_beats_identity_and_identity_is_measured_right(unet, shard, tmp_path):
    data = data_of(shard)
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    before = held_out_error(adaptor, data, 2, CPU)
    # Untrained, it is the identity exactly.
    assert before.l2 == pytest.approx(before.identity_l2)
    rows = data.r_out[:, [1, 3]] - data.r_out[:, [0, 2]]
    assert before.identity_l2 == pytest.approx(
        float(rows.flatten(2).norm(dim=2).mean()), rel=1e-5
    )
    assert before.n == 6 * 2 * 2
    recipe = Optimisation(steps=60, batch_size=8, lr=2e-3)
    spec = AdaptorSpec("resnet", "stage1", 2, recipe)
    trained = train_adaptor(adaptor, data, spec, tmp_path / "state.pt", CPU)
    after = held_out_error(trained.module, data, 2, CPU)
    assert after.l2 < 0.7 * before.l2


def test_identity_scores_as_identity(shard):
    error = held_out_error(IdentityAdaptor(), data_of(shard), 2, CPU)
    assert error.l2 == pytest.approx(error.identity_l2)
    assert error.to_json()["mse_over_identity"] == pytest.approx(1.0)


def test_shards_of_another_teacher_or_damaged_are_refused(shard, tmp_path):
    path = tmp_path / "000.safetensors"
    storage.write_tensors(path, shard, {"teacher": "one"})
    assert read_trajectories([path], "one").r_in.shape == (12, 4, 16, 8, 8)
    with pytest.raises(ValueError, match=r"000\.safetensors is of another teacher"):
        read_trajectories([path], "two")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"000\.safetensors is corrupt or truncated"):
        read_trajectories([path], "one")


def test_a_clocked_teacher_is_refused():
    with pytest.raises(ValueError, match="clock 2: the teacher runs in full"):
        TrajectorySpec(SamplerSpec("dpmpp", 4, 3.0, clock=2), "stage1", 0, 4)


def test_adaptors_are_saved_and_loaded(unet, tmp_path):
    adaptor = build_adaptor("resnet", unet, "stage2", 8, made_for={"steps": 8})
    torch.nn.init.normal_(adaptor.up.weight)
    adaptor.save_pretrained(tmp_path)
    loaded = load_adaptor(tmp_path)
    assert loaded.config.cut == "stage2"
    assert loaded.config.made_for == {"steps": 8}
    assert torch.equal(loaded.up.weight, adaptor.up.weight)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is corrupt or truncated"):
        load_adaptor(tmp_path)


def test_odd_sizes_are_kept(unet):
    adaptor = build_adaptor("resnet", unet, "stage1", 8)
    r_in, r_out = torch.randn(1, 16, 9, 7), torch.randn(1, 32, 9, 7)
    estimate = adaptor(r_in, r_out, torch.randn(1, 64), torch.randn(1, 8))
    assert torch.equal(estimate, r_out)


def test_unknown_kinds_are_refused(unet):
    with pytest.raises(ValueError, match="kind 'magic' is not one of identity, resnet"):
        build_adaptor("magic", unet, "stage1", 8)
