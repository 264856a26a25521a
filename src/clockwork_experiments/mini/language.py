"""Make the mini tokenizer: CLIP's byte-pair encoding over the captions' few words."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

MAX_LENGTH = 32
"""Tokens of a padded prompt; two objects in the longest phrasing need 31."""


def build_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """Learn a vocabulary in which each word of the captions is one token.

    Other words still work: they fall apart into letters.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789,.'-")
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(sorted(captions), trainer)
    merges = [tuple(pair) for pair in _merges(bpe)]
    # The trainer numbers letters in another order in each process.
    tokens = alphabet + [f"{letter}</w>" for letter in alphabet]
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=MAX_LENGTH,
    )


def _merges(bpe: Tokenizer) -> list[list[str]]:
    import json

    merges: list[list[str]] = json.loads(bpe.to_str())["model"]["merges"]
    return merges
