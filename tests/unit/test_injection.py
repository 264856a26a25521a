import copy

import pytest
import torch
from diffusers import UNet2DConditionModel

from clockwork_diffusion.plug_and_play.injection import (
    FeatureStore,
    Injection,
    layers_of,
)
from clockwork_experiments.cost.architectures import build_unet

CONV = "up_blocks.1.resnets.1.conv2"
TOP = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_q"
TINY = {
    "sample_size": 16,
    "block_out_channels": (16, 32, 64, 64),
    "cross_attention_dim": 24,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}


@pytest.fixture(scope="module")
def efficient() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return build_unet("efficient", TINY, "cpu")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two rows of a source, and four that get its features."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 4, 16, 16, generator=generator)
    c = torch.randn(6, 5, 24, generator=generator)
    return x, torch.tensor(500), c


def hooks_of(unet) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(part, kind)) for part in unet.modules() for kind in kinds)


@torch.no_grad()
def run(unet, batch, names=()) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Run a UNet, and see what comes out of some of its modules, hooks included."""
    seen, handles = {}, []
    for name in names:

        def look(_module, _inputs, output, name=name):
            seen[name] = output

        handles.append(unet.get_submodule(name).register_forward_hook(look))
    eps = unet(*batch).sample
    for handle in handles:
        handle.remove()
    return eps, seen


# --- where ----------------------------------------------------------------------------


def test_the_layers_are_those_of_the_official_code():
    layers = layers_of(build_unet("sd"))
    assert layers.conv == (CONV,)
    places = [(1, 1), (1, 2)] + [(up, place) for up in (2, 3) for place in range(3)]
    attention = {
        f"up_blocks.{up}.attentions.{place}.transformer_blocks.0.attn1.to_{kind}"
        for up, place in places
        for kind in "qk"
    }
    assert len(attention) == 16 and set(layers.attention) == attention


def test_blocks_without_attention_have_none_to_inject(efficient):
    layers = layers_of(efficient)
    assert layers.conv == (CONV,)
    blocks = [name.split(".")[1] for name in layers.attention]
    assert sorted(set(blocks)) == ["1", "2"] and len(blocks) == 2 * 5


def test_another_resnet_can_be_chosen(unet):
    assert layers_of(unet, "up_blocks.2.resnets.0").conv == (
        "up_blocks.2.resnets.0.conv2",
    )


@pytest.mark.parametrize(
    "layer", ["up_blocks.1.resnets.3", "down_blocks.0.resnets.0", "conv_in", ""]
)
def test_a_layer_that_there_is_not_is_refused(unet, layer):
    with pytest.raises(ValueError, match=f"conv layer '{layer}' is not one of up_bloc"):
        Injection(unet, layer)


def test_fused_projections_are_refused(unet):
    fused = copy.deepcopy(unet)
    fused.fuse_qkv_projections()
    with pytest.raises(ValueError, match=r"attn1 has fused projections; call unet\.un"):
        layers_of(fused)
    fused.unfuse_qkv_projections()
    assert layers_of(fused) == layers_of(unet)


def test_a_unet_without_attention_is_refused():
    blocks = {"down_block_types": ("DownBlock2D",) * 4}
    blocks["up_block_types"] = ("UpBlock2D",) * 4
    with torch.device("meta"):
        bare = UNet2DConditionModel(**{**TINY, **blocks})
    with pytest.raises(ValueError, match="needs self-attention in the up blocks"):
        layers_of(bare)


# --- what -----------------------------------------------------------------------------


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("attention", [False, True])
def test_the_first_rows_are_copied_to_all_others(unet, batch, conv, attention):
    names = [CONV, TOP]
    _, plain = run(unet, batch, names)
    with Injection(unet) as injection:
        injection.share(2, conv=conv, attention=attention)
        _, shared = run(unet, batch, names)
    for name, injected in ((CONV, conv), (TOP, attention)):
        if injected:
            assert torch.equal(shared[name], torch.cat([shared[name][:2]] * 3))
        else:
            assert not torch.isclose(shared[name][2:4], shared[name][:2]).all()
    # The source is as it was, which needs no other row.
    for name in names:
        torch.testing.assert_close(shared[name][:2], plain[name][:2])


def test_recorded_features_do_what_shared_ones_do(unet, batch):
    x, t, c = batch
    with Injection(unet) as injection:
        injection.share(2, conv=True, attention=True)
        shared, _ = run(unet, batch)
        features = injection.record(conv=True, attention=True)
        source, _ = run(unet, (x[:2], t, c[:2]))
        assert set(features) == {CONV, *layers_of(unet).attention}
        injection.replay(features, conv=True, attention=True)
        replayed, _ = run(unet, (x[2:], t, c[2:]))
        injection.off()
        plain, _ = run(unet, (x[2:], t, c[2:]))
    torch.testing.assert_close(source, shared[:2], rtol=0, atol=1e-5)
    torch.testing.assert_close(replayed, shared[2:], rtol=0, atol=1e-5)
    assert (plain - shared[2:]).abs().max() > 1e-3


def test_of_what_was_recorded_only_the_chosen_is_injected(unet, batch):
    with Injection(unet) as injection:
        kept = injection.record(conv=True, attention=True)
        run(unet, batch)
        others = (batch[0].flip(0), *batch[1:])
        injection.replay(dict(kept), conv=True, attention=False)
        _, seen = run(unet, others, [CONV, TOP])
    assert torch.equal(seen[CONV], kept[CONV])
    assert not torch.isclose(seen[TOP], kept[TOP]).all()


@pytest.mark.parametrize("missing", [CONV, TOP])
def test_features_that_were_not_kept_are_missed(unet, batch, missing):
    with Injection(unet) as injection:
        kept = injection.record(conv=True, attention=True)
        run(unet, batch)
        rest = {name: value for name, value in kept.items() if name != missing}
        injection.replay(rest, conv=True, attention=True)
        with pytest.raises(ValueError, match=f"no features of {missing} were kept"):
            run(unet, batch)


def test_the_efficient_unet_is_injected_as_well(efficient, batch):
    x, t, c = batch
    with Injection(efficient) as injection:
        injection.share(2, conv=True, attention=True)
        shared, _ = run(efficient, batch)
        features = injection.record(conv=True, attention=True)
        run(efficient, (x[:2], t, c[:2]))
        injection.replay(features, conv=True, attention=True)
        replayed, _ = run(efficient, (x[2:], t, c[2:]))
    torch.testing.assert_close(replayed, shared[2:], rtol=0, atol=1e-5)


# --- nothing is left ------------------------------------------------------------------


@pytest.mark.parametrize("failing", [False, True])
def test_the_unet_is_afterwards_what_it_was(unet, batch, failing):
    before, _ = run(unet, batch)
    hooks, names = hooks_of(unet), set(vars(unet))
    forwards = [part.forward.__func__ for part in unet.modules()]
    injection = Injection(unet)
    assert hooks_of(unet) == hooks
    try:
        with injection:
            assert hooks_of(unet) == hooks + 17
            assert torch.equal(run(unet, batch)[0], before)
            injection.share(2, conv=True, attention=True)
            assert not torch.isclose(run(unet, batch)[0], before).all()
            if failing:
                raise KeyError
    except KeyError:
        assert failing
    assert hooks_of(unet) == hooks and set(vars(unet)) == names
    assert [part.forward.__func__ for part in unet.modules()] == forwards
    assert torch.equal(run(unet, batch)[0], before)


def test_foreign_hooks_stay(unet):
    handle = unet.conv_in.register_forward_hook(lambda *_: None)
    with Injection(unet):
        pass
    assert hooks_of(unet) == 1
    handle.remove()


def test_a_context_can_be_entered_again_and_starts_idle(unet, batch):
    before, _ = run(unet, batch)
    injection = Injection(unet)
    with injection:
        injection.share(2, conv=True, attention=True)
        first, _ = run(unet, batch)
    with injection:
        assert torch.equal(run(unet, batch)[0], before)
        injection.share(2, conv=True, attention=True)
        assert torch.equal(run(unet, batch)[0], first)


def test_outside_of_its_context_it_cannot_be_asked_for(unet):
    injection = Injection(unet)
    for ask in (
        lambda: injection.share(1, conv=True, attention=False),
        lambda: injection.record(conv=False, attention=True),
        lambda: injection.replay({}, conv=True, attention=True),
    ):
        with pytest.raises(ValueError, match="no hooks outside of its context"):
            ask()
    injection.share(1, conv=False, attention=False)


# --- the store ------------------------------------------------------------------------


@pytest.mark.parametrize("spilled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_store_gives_back_what_it_got(tmp_path, spilled, dtype):
    store = FeatureStore(tmp_path / "features" if spilled else None)
    one = {CONV: torch.randn(2, 3, 4, 4).to(dtype), TOP: torch.randn(2, 5).to(dtype)}
    two = {TOP: torch.randn(2, 5).to(dtype)}
    for index, features in enumerate((one, two, {})):
        store.put(index, features)
    assert store.nbytes == (96 + 10 + 10) * dtype.itemsize
    for index, features in enumerate((one, two, {}, {})):
        found = store.get(index)
        assert set(found) == set(features)
        for name, value in features.items():
            assert torch.equal(found[name], value) and found[name].dtype == dtype
    files = sorted(path.name for path in tmp_path.rglob("*.safetensors"))
    assert files == [f"000{index}.safetensors" for index in range(3 * spilled)]


def test_a_damaged_file_of_a_store_is_named(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(7, {CONV: torch.zeros(1)})
    path = tmp_path / "0007.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"0007\.safetensors is corrupt or truncated"):
        store.get(7)
