"""The bytes of tokens, put together, are what the tokenizer's own decoder makes of the tokens behind others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from graftax.models.token_bytes import TokenBytes

TEXTS = ["day", " day", "apples and pears", "café\N{NO-BREAK SPACE}ß", "naïve \N{GRINNING FACE}!", "a\n\tb", "plums"]


def of_bytes() -> Tokenizer:
    """Byte-level BPE, of which some pairs are merged: one of them is half of a character and a space before it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "p"), ("Ġ", "d"), ("Ġd", "a"), ("Ġ", "ð"), ("ð", "Ł")]
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, *(a + b for a, b in merges)])}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return made


def of_pieces() -> Tokenizer:
    """SentencePiece's, as Llama's: what has no token is bytes."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁adyplesnrc", "▁d"]
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [("▁", "d")], byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return made


def of_words() -> Tokenizer:
    """WordPiece, which knows these words alone."""
    pieces = ["[UNK]", "apple", "##s", "and", "pear", "day", "plum"]
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.WordPiece(cleanup=False)
    return made


@pytest.mark.parametrize(
    ("made", "texts"), [(of_bytes, TEXTS), (of_pieces, TEXTS), (of_words, ["apples and pears", "plums day"])]
)
def test_bytes_make_the_text(made: Callable[[], Tokenizer], texts: list[str]) -> None:
    backend = made()
    bytes_of = TokenBytes(backend)
    before = backend.encode("day").ids
    for text in texts:
        ids = backend.encode(text).ids
        behind = backend.decode([*before, *ids])[len(backend.decode(before)) :]
        assert b"".join(map(bytes_of, ids)).decode() == behind
        assert behind.strip() == text.strip()


def test_tokens_that_are_added_are_their_names() -> None:
    backend = of_bytes()
    backend.add_special_tokens(["<|end|>"])
    backend.add_tokens([AddedToken("Ġé")])  # no letters of bytes: they stand for themselves
    bytes_of = TokenBytes(backend)
    (end,), (own,) = backend.encode("<|end|>").ids, backend.encode("Ġé").ids
    assert (bytes_of(end), bytes_of.is_special(end)) == (b"<|end|>", True)
    assert (bytes_of(own), bytes_of.is_special(own)) == ("Ġé".encode(), False)
    assert bytes_of(backend.get_vocab_size() + 7) == b""
