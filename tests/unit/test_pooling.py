"""What an adaptor is told of the prompt is what the UNet is told in the same call."""

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from clockwork_diffusion import pooling
from clockwork_diffusion.adaptors import IdentityAdaptor, build_adaptor
from clockwork_diffusion.pooling import PooledTable, PromptPooler, pool_for
from clockwork_experiments.models import loading

PROMPTS = ["a red ring", "a blue disc on the sea"]


def features(rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, 24, generator=generator)


@pytest.fixture(scope="module")
def pipe(root):
    return loading.load_pipeline(root / "resources/mini/stable-diffusion")


def embed(texts) -> torch.Tensor:
    """Return an embedding that tells which text it is of."""
    return torch.tensor(
        [[float(len(text)), float(sum(map(ord, text)))] for text in texts]
    )


@pytest.mark.parametrize("recipe", ["last", "mean"])
def test_recipes_of_the_text_features_are_functions_of_each_row(unet, recipe):
    adaptor = build_adaptor("resnet", unet, "stage1", 24, pooling=recipe)
    pool = pool_for(adaptor, None)
    text = features(4)
    expected = text[:, -1] if recipe == "last" else text.mean(dim=1)
    assert torch.equal(pool(text), expected)
    assert torch.equal(pool(text[2:3]), expected[2:3])


def test_a_table_finds_rows_by_content():
    table, text, pooled = PooledTable(), features(3), torch.arange(6.0).view(3, 2)
    table.add(text, pooled)
    assert torch.equal(table(text), pooled)
    shuffled = text.clone()[[2, 0, 0, 1]]
    assert torch.equal(table(shuffled), pooled[[2, 0, 0, 1]])
    # Another tensor at the same place, or the same call after another.
    assert torch.equal(table(text), pooled)
    with pytest.raises(ValueError, match="row 1 of the UNet's text features .* pool="):
        table(torch.cat([text[:1], features(1, seed=9)]))


def test_a_table_forgets_the_oldest_and_takes_equal_lengths():
    table, text = PooledTable(rows=2), features(3)
    with pytest.raises(ValueError, match="2 pooled embeddings are not 3 prompts"):
        table.add(text, torch.zeros(2, 2))
    table.add(text, torch.zeros(3, 2))
    table(text[1:])
    with pytest.raises(ValueError, match="row 0"):
        table(text)


@torch.inference_mode()
def test_prompts_are_pooled_as_the_pipeline_encodes_them(pipe):
    pooler = PromptPooler(pipe, embed)
    try:
        text, empty = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
        rows = torch.cat([empty, text])
        # Guidance on, off, one prompt of several, and another in the same block.
        assert torch.equal(pooler(rows), embed(["", "", *PROMPTS]))
        assert torch.equal(pooler(text), embed(PROMPTS))
        assert torch.equal(pooler(text[1:]), embed(PROMPTS[1:]))
        more, _ = pipe.encode_prompt("a green cross", "cpu", 2, False)
        assert torch.equal(pooler(more), embed(["a green cross"] * 2))
        with pytest.raises(ValueError, match="was not pooled for the adaptor"):
            pooler(text + 1)
    finally:
        pooler.close()
    with pytest.raises(ValueError, match="was not pooled"):
        pooler(text)
    assert not pipe.text_encoder._forward_hooks


def test_another_clip_is_loaded_from_its_folder(pipe, tmp_path):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(pipe.tokenizer),
        hidden_size=16,
        intermediate_size=16,
        projection_dim=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=pipe.tokenizer.model_max_length,
        eos_token_id=pipe.tokenizer.eos_token_id,
    )
    CLIPTextModelWithProjection(config).save_pretrained(tmp_path)
    pipe.tokenizer.save_pretrained(tmp_path)
    recipe = {"encoder": str(tmp_path)}
    adaptor = build_adaptor("resnet", pipe.unet, "stage1", 12, pooling=recipe)
    pool = pool_for(adaptor, pipe)
    try:
        text, _ = pipe.encode_prompt(PROMPTS, "cpu", 1, False)
        pooled = pool(text)
    finally:
        pool.close()
    assert pooled.shape == (2, 12)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(2))
    expected = pooling.clip_embedder(str(tmp_path))(PROMPTS[1:])
    torch.testing.assert_close(pooled[1:], expected)


class WantsText(nn.Module):
    inputs = ("r_in", "r_out", "text")

    def forward(self, r_in, r_out, t_emb, text_emb):
        return r_out + text_emb.mean()


def test_who_says_how_to_pool(unet, pipe):
    assert pool_for(IdentityAdaptor(), pipe) is None
    without = build_adaptor("resnet", unet, "stage1", 8, inputs=("r_in", "r_out"))
    assert pool_for(without, pipe) is None
    with pytest.raises(ValueError, match="this ResNetAdaptor looks at no text"):
        pool_for(without, pipe, pooling.pool_last)
    assert pool_for(WantsText(), pipe, pooling.pool_mean) is pooling.pool_mean
    for adaptor in (WantsText(), build_adaptor("resnet", unet, "stage1", 8)):
        with pytest.raises(ValueError, match="looks at text, and its pooling None is"):
            pool_for(adaptor, pipe)
    two = type("Two", (), {"text_encoder": 1, "text_encoder_2": 2})()
    with pytest.raises(ValueError, match="Two has not one text encoder"):
        PromptPooler(two, embed)
