"""Tokenizers of GGUF files: as transformers makes them where it reads such files as llama.cpp does, else as llama.cpp does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf_files import SPECIAL, byte_tokens, write_gguf
from refusals import refused
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from graftax import load_backbone
from graftax.models.gguf_tokenizer import _WORDS, GgufTokenizer
from graftax.models.tokenizer_files import TokenizerFiles

TEXTS = [
    "hello winner",
    " in 1234, it's 12",
    "Größe 日本 😀\n\n\tx",
    "<|im_start|>hello<|im_end|>\nhe ll",
    "",
    "  two  spaces ",
]
TEXTS += ["DON'T we'LL  ...\r\n\r\n  ½ ²³"]


def ids_of(path: Path, text: str) -> list[int]:
    return GgufTokenizer(path).backends[0].encode(text).ids


def tokens_of(path: Path, text: str) -> list[str]:
    return GgufTokenizer(path).backends[0].encode(text, add_special_tokens=False).tokens


@pytest.mark.parametrize("cut", ["gpt-2", "qwen2", "llama-bpe", "tekken"])
def test_pairs_are_those_of_transformers(cut: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", cut=cut)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")
    assert [ids_of(path, text) for text in TEXTS] == [theirs(text)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize(
    ("cut", "pieces"),
    [
        ("smollm", ["hello", "Ġ", "1", "2", "3", "4"]),  # digits alone, as llama.cpp has it and transformers' reading has not
        ("gpt-2", ["hello", "Ġ", "123", "4"]),
        ("qwen2", ["hello", "Ġ", "1", "2", "3", "4"]),
        ("llama-bpe", ["hello", "Ġ", "123", "4"]),
        ("tekken", ["hello", "Ġ", "1", "2", "3", "4"]),
    ],
)
def test_how_digits_are_cut(cut: str, pieces: list[str], tmp_path: Path) -> None:
    assert tokens_of(write_gguf(tmp_path / "x.gguf", cut=cut), "hello 1234") == pieces


def test_a_word_that_is_a_token_is_one_in_llama_3(tmp_path: Path) -> None:
    """`win` has a token and no merges lead to it without the space."""
    path = tmp_path / "x.gguf"
    tokens = [*byte_tokens(), "xyz"]
    for cut, pieces in (("llama-bpe", ["xyz"]), ("gpt-2", ["x", "y", "z"])):
        write_gguf(path, cut=cut)
        made = GgufTokenizer(path)
        made.vocabulary.metadata["tokenizer.ggml.tokens"][:] = tokens
        made.vocabulary.metadata["tokenizer.ggml.token_type"][:] = [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL))
        assert made.backends[0].encode("xyz", add_special_tokens=False).tokens == pieces


def test_the_words_of_smollm_are_those_of_its_own_tokenizer(tmp_path: Path) -> None:
    """Its `tokenizer.json` says digits apart, then GPT-2's words."""
    from tokenizers import pre_tokenizers

    own = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made = GgufTokenizer(write_gguf(tmp_path / "x.gguf")).backends[0].pre_tokenizer
    for text in TEXTS:
        assert [word for word, _ in made.pre_tokenize_str(text)] == [word for word, _ in own.pre_tokenize_str(text)]


def test_no_name_of_words_stands_twice() -> None:
    names = [name for group in _WORDS for name in group]
    assert len({*names}) == len(names)


PIECES = [
    "<unk>",
    "<s>",
    "</s>",
    *(f"<0x{i:02X}>" for i in range(256)),
    "▁",
    "h",
    "e",
    "l",
    "o",
    "▁h",
    "he",
    "ll",
    "hell",
    "hello",
]
PIECES += ["▁hello", "▁▁", "<tool>"]


def write_pieces(path: Path, **said: Any) -> Path:
    """A file of SentencePiece's tokens, with no weights: later ones are rarer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(PIECES)
    writer.add_token_scores([-float(i) for i in range(len(PIECES))])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(PIECES) - 260), 4])
    for name, value in said.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_pieces_of_sentencepiece(tmp_path: Path) -> None:
    path = write_pieces(tmp_path / "x.gguf")
    assert tokens_of(path, "hello") == ["▁h", "e", "ll", "o"]  # the best scored pair first: ▁h stands before he
    assert ids_of(path, "hello")[0] == 1  # a text begins with <s>, where the file does not say
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="x.gguf")
    for text in ("hello", "hell é", "he  he", "<tool>"):
        assert ids_of(path, text)[1:] == theirs(text, add_special_tokens=False)["input_ids"], text


def test_the_space_before_a_text_is_llama_cpps(tmp_path: Path) -> None:
    """Before each piece between special tokens, even where that begins with a space (transformers: the first alone)."""
    path = write_pieces(tmp_path / "x.gguf")
    assert tokens_of(path, " h") == ["▁", "▁h"]
    assert tokens_of(path, "h</s>h") == ["▁h", "</s>", "▁h"]
    without = write_pieces(tmp_path / "y.gguf", add_space_prefix=False, add_bos_token=False, add_eos_token=True)
    assert GgufTokenizer(without).backends[0].encode("h</s>h").tokens == ["h", "</s>", "h", "</s>"]


def test_pieces_are_a_text_again(tmp_path: Path) -> None:
    backend = GgufTokenizer(write_pieces(tmp_path / "x.gguf")).backends[0]
    for text in ("hello hello", " he", "naïve 日本"):
        assert backend.decode(backend.encode(text).ids) == text


def test_the_files_of_a_merged_model_are_the_same_tokenizer(tmp_path: Path) -> None:
    for make in (write_gguf, write_pieces):
        (out := tmp_path / make.__name__).mkdir()
        made = GgufTokenizer(make(tmp_path / "x.gguf"))
        made.save(out)
        again = TokenizerFiles(out, {"model_type": "llama"}, (2,))
        texts = [text for text in TEXTS if make is write_gguf] or ["hello h", " h</s>h"]
        for text in texts:
            ids = made.backends[0].encode(text).ids
            assert again.backends[0].encode(text).ids == ids
            assert again.by_transformers(text)["input_ids"] == made.by_transformers(text)["input_ids"] == ids
        assert again.eos_id == made.eos_id == 2
        assert isinstance(again.backends[0], Tokenizer)


def test_chats_and_what_ends_a_text(tmp_path: Path) -> None:
    backbone = load_backbone(write_gguf(tmp_path / "x.gguf"))
    tokens = backbone.processor.backend
    chat = backbone.processor.chat([{"role": "user", "content": "hello"}], "here", answer=True)
    assert tokens.decode(chat.tolist(), skip_special_tokens=False) == "<user>hello</s><assistant>"
    assert backbone.config.eos_ids == (2, 4)  # its own, and <|im_end|>, which llama.cpp ends with too
    assert backbone.processor.eos_id == 2


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"tokenizer.ggml.pre": "viking"}, "tokenizer.ggml.pre is 'viking'; those read are gpt-2, "),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model is 'bert', of 272 tokens; those read are gpt2, llama"),
        ({"tokenizer.ggml.model": "llama"}, "it has no score (tokenizer.ggml.scores) of each of its 272 tokens"),
        ({"tokenizer.ggml.merges": ["h e", "x qq"]}, "no tokenizer can be made of its vocabulary"),
        ({"tokenizer.ggml.merges": 3}, "tokenizer.ggml.merges is 3, not of type list"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "2 types (tokenizer.ggml.token_type) of 272 tokens"),
        ({"tokenizer.ggml.tokens": ["a", "b", "a"]}, "its vocabulary has the token 'a' twice"),
        ({"tokenizer.ggml.bos_token_id": 999}, "tokenizer.ggml.add_bos_token, and it names no bos token"),
        ({"tokenizer.ggml.bos_token_id": "x"}, "tokenizer.ggml.bos_token_id is 'x', not of type int"),
    ],
)
def test_refused(said: dict[str, Any], line: str, tmp_path: Path) -> None:
    made = GgufTokenizer(write_gguf(tmp_path / "x.gguf"))
    made.vocabulary.metadata.update(said)
    assert line in (refused(lambda: made.backends) or "")
