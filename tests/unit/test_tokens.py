"""What captions lose in a tokenizer is counted, and said."""

from pathlib import Path

import open_clip
import pytest
from transformers import CLIPTokenizer

from clockwork_diffusion import encoding, tokens
from clockwork_diffusion.tokens import Lost
from clockwork_experiments.models import loading

MINI = Path(__file__).parents[2] / "resources" / "mini"
LONG = " ".join(["ring"] * 31)
TOKENIZERS = {
    "transformers": lambda: CLIPTokenizer.from_pretrained(
        MINI / "stable-diffusion" / "tokenizer", local_files_only=True
    ),
    "open_clip": lambda: open_clip.get_tokenizer(f"local-dir:{MINI / 'clip'}"),
}


@pytest.fixture(params=TOKENIZERS, scope="module")
def tokenizer(request):
    return TOKENIZERS[request.param]()


def test_what_fits_loses_nothing(tokenizer, caplog):
    captions = ["a red ring", " ".join(["ring"] * 30), ""]
    assert tokens.count_lost(tokenizer, captions) == Lost(3, 0, 0)
    assert not caplog.text


def test_what_is_cut_or_unknown_is_counted_and_said(tokenizer, caplog):
    captions = [LONG, "a caf\u00e9", "a red ring", f"{LONG} \u72d0"]
    assert tokens.count_lost(tokenizer, captions) == Lost(4, 2, 2)
    assert "2 of 4 captions are cut to 32 tokens" in caplog.text
    assert "2 of 4 captions hold characters that the tokenizer does" in caplog.text


@pytest.mark.parametrize("caption", ["\u4e00\u53ea\u72d0\u72f8", "\U0001f98a"])
def test_a_caption_of_which_nothing_is_left_is_refused(tokenizer, caption):
    with pytest.raises(ValueError, match="knows no character of the caption"):
        tokens.count_lost(tokenizer, ["a red ring", caption])


def test_the_published_tokenizer_knows_every_byte():
    tokenizer = open_clip.SimpleTokenizer()
    captions = ["ring " * 75, "ring " * 76, "\u4e00\u53ea\u72d0\u72f8", "\U0001f98a"]
    assert tokens.count_lost(tokenizer, captions) == Lost(4, 1, 0)


def test_prompts_lose_nothing_without_a_word(caplog):
    pipe = loading.load_pipeline(MINI / "stable-diffusion")
    encoding.encode_prompts(pipe, ["a red ring", ""])
    assert not caplog.text
    encoding.encode_prompts(pipe, ["a red ring", LONG])
    assert "1 of 2 captions are cut to 32 tokens" in caplog.text
    with pytest.raises(ValueError, match="knows no character of the caption"):
        encoding.encode_prompts(pipe, ["\U0001f98a"])


def test_parts_add_up():
    assert tokens.total([Lost(2, 1, 0), Lost(3, 0, 2)]) == Lost(5, 1, 2)
    assert tokens.total([]) == Lost()
