"""T-GATE and ToMe do what their papers say."""

import sys
from pathlib import Path

import pytest
import torch

from clockwork_diffusion.pipeline import apply_clockwork, remove_clockwork
from clockwork_experiments.rivals.attention import transformer_blocks
from clockwork_experiments.rivals.tgate import apply_tgate, remove_tgate, tgate
from clockwork_experiments.rivals.tome import apply_tome, matched, remove_tome, tome

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipelines import PROMPT, sd, sdxl  # noqa: E402

STEPS = 4


@pytest.fixture(scope="module")
def pipe():
    return sd()


def draw(pipe, steps: int = STEPS, **given) -> torch.Tensor:
    return pipe(
        [PROMPT, "a blue square"],
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
        output_type="latent",
        **{"guidance_scale": 3.0, **given},
    ).images


def text_projections(pipe) -> list[int]:
    """Return how many layers projected the text's keys at each step of a run."""
    counted, handles = [], []
    step = pipe.unet.conv_in.register_forward_hook(lambda *_: counted.append(0))
    for block in transformer_blocks(pipe.unet):
        handles.append(
            block.attn2.to_k.register_forward_hook(
                lambda *_: counted.append(counted.pop() + 1)
            )
        )
    draw(pipe)
    for handle in (step, *handles):
        handle.remove()
    return counted


def test_no_cross_attention_is_computed_after_the_gate(pipe):
    layers = len(transformer_blocks(pipe.unet))
    assert text_projections(pipe) == [layers] * STEPS
    with tgate(pipe, steps=STEPS, gate=2):
        assert text_projections(pipe) == [layers, layers, 0, 0]
    assert text_projections(pipe) == [layers] * STEPS


def test_one_branch_is_run_after_the_gate_and_its_flops_are_counted(pipe):
    sizes = []
    hook = pipe.unet.conv_in.register_forward_hook(
        lambda _, args, __: sizes.append(len(args[0]))
    )
    with tgate(pipe, steps=STEPS, gate=1) as summary:
        draw(pipe)
    hook.remove()
    assert sizes == [4, 2, 2, 2]
    assert summary.full_steps == (1,)
    assert 0 < summary.flops[False] < summary.flops[True] / 2


def by_hand(pipe, gate: int) -> torch.Tensor:
    """Derive T-GATE anew: hooks that replace outputs, and a scale of guidance of 1."""
    kept, calls = {}, 0

    def count(*_):
        nonlocal calls
        calls += 1

    def crossing(name):
        def hook(_, args, output):
            if calls <= gate:
                kept[name] = output
                return output
            empty, text = kept[name].chunk(2)
            return torch.cat([(empty + text) / 2] * 2)

        return hook

    def blend(module, args, given, output):
        if calls <= gate:
            return output
        # The two branches, as one: that of the text.
        text = output[0].chunk(2)[1]
        return (torch.cat([text, text]),)

    handles = [pipe.unet.conv_in.register_forward_hook(count)]
    for index, block in enumerate(transformer_blocks(pipe.unet)):
        handles.append(block.attn2.register_forward_hook(crossing(index)))
    handles.append(pipe.unet.register_forward_hook(blend, with_kwargs=True))
    found = draw(pipe)
    for handle in handles:
        handle.remove()
    return found


def test_the_image_is_that_of_a_derivation_by_hooks(pipe):
    for gate in (1, 3):
        with tgate(pipe, steps=STEPS, gate=gate):
            gated = draw(pipe)
        torch.testing.assert_close(gated, by_hand(pipe, gate), rtol=1e-4, atol=1e-4)


def test_a_gate_at_the_end_changes_nothing_and_removal_restores(pipe):
    before = draw(pipe)
    with tgate(pipe, steps=STEPS, gate=STEPS):
        assert torch.equal(draw(pipe), before)
    with tgate(pipe, steps=STEPS, gate=2):
        assert not torch.equal(draw(pipe), before)
    assert torch.equal(draw(pipe), before)
    assert "forward" not in vars(pipe.unet)


def test_tgate_without_guidance_and_on_sdxl(pipe):
    with tgate(pipe, steps=STEPS, gate=2, guided=False) as summary:
        draw(pipe, guidance_scale=1.0)
    assert summary.full_steps == (1, 2)
    with tgate(sdxl(), steps=2, gate=1) as summary:
        pass
    large = sdxl()
    with tgate(large, steps=3, gate=1) as summary:
        large(PROMPT, num_inference_steps=3, output_type="latent")
    assert summary.light_steps == (2, 3)


def test_rivals_follow_the_shape_of_the_library(pipe):
    with pytest.raises(ValueError, match="gate 5 is not between 1 and the 4 steps"):
        apply_tgate(pipe, steps=4, gate=5)
    with pytest.raises(ValueError, match="ratio 0.8 is not above 0 and at most 0.75"):
        apply_tome(pipe, ratio=0.8)
    apply_clockwork(pipe)
    with pytest.raises(ValueError, match="Clockwork is applied to this UNet already"):
        apply_tome(pipe)
    remove_tome(pipe)  # another method's is left alone
    remove_tgate(pipe)
    remove_clockwork(pipe)
    assert "forward" not in vars(pipe.unet)


def merged_by_loops(tokens, side, ratio, draws):
    """Derive what each token of one image gets back, a token at a time."""
    where = {}
    for square, place in enumerate(draws):
        row, column = divmod(square, side // 2)
        where[(2 * row + place // 2) * side + 2 * column + place % 2] = []
    sources = [index for index in range(side**2) if index not in where]
    pairs = []
    for source in sources:
        likeness = {
            each: torch.cosine_similarity(tokens[source], tokens[each], dim=0).item()
            for each in where
        }
        best = max(likeness, key=likeness.__getitem__)
        pairs.append((likeness[best], source, best))
    pairs.sort(reverse=True)
    comes_from = {index: index for index in range(side**2)}
    for _, source, best in pairs[: int(ratio * side**2)]:
        where[best].append(source)
        comes_from[source] = best
    means = {
        each: tokens[[each, *merged]].mean(dim=0) for each, merged in where.items()
    }
    values = [means.get(comes_from[index], tokens[index]) for index in range(side**2)]
    return torch.stack(values)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
def test_tokens_are_merged_as_by_loops(ratio):
    torch.manual_seed(0)
    side, draws = 6, [0, 3, 1, 2, 2, 0, 3, 1, 0]
    tokens = torch.randn(2, side**2, 5)
    match = matched(tokens, side, side, ratio, draws)
    merged = match.merge(tokens)
    assert merged.shape == (2, side**2 - int(ratio * side**2), 5)
    for image, spread in zip(tokens, match.unmerge(merged), strict=True):
        torch.testing.assert_close(spread, merged_by_loops(image, side, ratio, draws))


def test_self_attention_sees_fewer_tokens_at_the_highest_resolution_alone(pipe):
    seen = []
    first, deep = transformer_blocks(pipe.unet)[0], transformer_blocks(pipe.unet)[2]
    hooks = [
        block.attn1.to_k.register_forward_hook(
            lambda _, args, __: seen.append(args[0].shape[1])
        )
        for block in (first, deep)
    ]
    plain = draw(pipe, 1)
    with tome(pipe, ratio=0.5) as summary:
        merged = draw(pipe, 1)
        assert torch.equal(draw(pipe, 1), merged)
        assert draw(pipe, 1, guidance_scale=1.0).shape == merged.shape
        cost = summary.flops[True]
    for hook in hooks:
        hook.remove()
    assert seen[:4] == [256, 64, 128, 64]
    assert not torch.equal(merged, plain)
    assert torch.equal(draw(pipe, 1), plain)
    with tome(pipe, ratio=0.1) as summary:
        draw(pipe, 1, guidance_scale=1.0)
    assert cost < summary.flops[True]
