"""Tokenizers with vocabularies of real texts, as transformers 5 writes them and as those of transformers 4 were published."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from test_tokenizers import reference, tokenizer_of
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
LINES = [line for page in PAGES for line in page.read_text("utf-8").splitlines() if line]
TEXTS = [
    *LINES[::12],
    "",
    "  two  spaces \t tab\n\nlines ",
    "na\u00efve \ufb01ne \u4e2d\u6587 \U0001f600 e\u0301",
    "it's 12345, ``so''",
]
TEXTS += ["<s>a</s> [MASK] <extra_id_3>b <|endoftext|>", "\u200bzero\u00adwidth \u0000"]


def table_of(character: str, text: str) -> bytes:
    """SentencePiece's table of one character and what stands in its place: a trie as a double array, and the texts."""
    bytes_ = character.encode()
    units, node = [0] * (512 << len(bytes_)), 256  # the root's children begin at 256
    units[0] = 256 << 10
    for i, byte in enumerate(bytes_):
        node ^= byte
        children, last = 512 << i, i == len(bytes_) - 1
        units[node] = children << 10 | last << 8 | byte
        node ^= children
    units[node] = 1 << 31  # a leaf: the text at 0
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + text.encode() + b"\0"


def trained(algorithm: str, special: list[str]) -> dict[str, Any]:
    """A vocabulary of this repository's pages, as the arguments of transformers' class."""
    if algorithm == "pieces":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        letters = pre_tokenizers.ByteLevel.alphabet() if algorithm == "bytes" else []
        more = [] if algorithm == "bytes" else [f"<0x{i:02X}>" for i in range(256)]
        split = pre_tokenizers.ByteLevel(add_prefix_space=False) if algorithm == "bytes" else pre_tokenizers.Metaspace()
        tokenizer.pre_tokenizer = split
        known = [*special, *more]
        trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=known, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    if algorithm == "pieces":
        return {"vocab": [tuple(piece) for piece in model["vocab"]]}
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


TABLE = table_of("\ufb01", "fi")
#: Class, algorithm of its vocabulary, its first tokens, and further arguments.
CLASSES: dict[str, tuple[Any, str, list[str], dict[str, Any]]] = {
    "qwen2": (
        transformers.Qwen2Tokenizer,
        "bytes",
        ["<|endoftext|>"],
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
    "gpt_neox": (transformers.GPTNeoXTokenizer, "bytes", ["<|endoftext|>", "<|padding|>"], {}),
    "llama": (transformers.LlamaTokenizer, "spaces", ["<unk>", "<s>", "</s>"], {}),
    "llama-legacy": (transformers.LlamaTokenizer, "spaces", ["<unk>", "<s>", "</s>"], {"legacy": True}),
    "llama-bare": (transformers.LlamaTokenizer, "spaces", ["<unk>", "<s>", "</s>"], {"add_prefix_space": False}),
    "gemma2": (transformers.GemmaTokenizer, "spaces", ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], {}),
    "t5": (transformers.T5Tokenizer, "pieces", ["<pad>", "</s>", "<unk>"], {"_spm_precompiled_charsmap": TABLE}),
    "albert": (
        transformers.AlbertTokenizer,
        "pieces",
        ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        {"mask_token": AddedToken("[MASK]", lstrip=True, normalized=False), "_spm_precompiled_charsmap": TABLE},
    ),
    "albert-cased": (
        transformers.AlbertTokenizer,
        "pieces",
        ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        {"do_lower_case": False, "keep_accents": True},
    ),
    "xlm-roberta": (transformers.XLMRobertaTokenizer, "pieces", ["<s>", "<pad>", "</s>", "<unk>"], {}),
}


def write(case: str, directory: Path) -> Path:
    cls, vocabulary, special, more = CLASSES[case]
    cls(**trained(vocabulary, special), **more).save_pretrained(directory)
    model_type = case if case == "xlm-roberta" else case.partition("-")[0]
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    return directory


def edited(directory: Path, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = directory / name
    file.write_text(json.dumps(change(json.loads(file.read_text("utf-8")))), "utf-8")


def assert_alone_and_the_same(directory: Path) -> None:
    mine, theirs = tokenizer_of(directory), reference(directory)
    for special in (True, False):
        ids = [ids.tolist() for ids in mine.ids(TEXTS, special=special)]
        assert ids == [theirs(text, add_special_tokens=special)["input_ids"] for text in TEXTS]
        texts = [mine.text(own) for own in ids]
        assert texts == [theirs.backend_tokenizer.decode(own, skip_special_tokens=True) for own in ids]
    pairs = LINES[:9], LINES[9:18]
    assert [pair.ids.tolist() for pair in mine(*pairs, 512)] == [
        theirs(*both)["input_ids"] for both in zip(*pairs, strict=True)
    ]
    assert sum(map(len, ids)) > 500
    assert "by_transformers" not in vars(mine.files)


@pytest.mark.parametrize("case", CLASSES)
def test_as_transformers_5_writes_it(case: str, tmp_path: Path) -> None:
    assert_alone_and_the_same(write(case, tmp_path))


OLD: dict[str, dict[str, Any]] = {
    "qwen2": {"add_bos_token": False, "bos_token": None, "split_special_tokens": False, "errors": "replace", "unk_token": None},
    "llama": {
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
        "sp_model_kwargs": {},
        "use_default_system_prompt": False,
    },
    "gemma2": {"add_bos_token": True, "sp_model_kwargs": {}, "spaces_between_special_tokens": False},
    "t5": {"extra_ids": 100, "additional_special_tokens": [f"<extra_id_{i}>" for i in range(100)], "legacy": True},
    "albert": {"do_lower_case": True, "remove_space": True, "keep_accents": False},
    "xlm-roberta": {"clean_up_tokenization_spaces": True},
}


@pytest.mark.parametrize("case", OLD)
def test_as_transformers_4_wrote_it(case: str, tmp_path: Path) -> None:
    """Other steps in tokenizer.json than the class takes, and the keys of then."""
    directory = write(case, tmp_path)
    whole = Tokenizer.from_file(str(directory / "tokenizer.json"))
    if case == "llama":
        whole.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        whole.pre_tokenizer = None
    elif CLASSES[case][1] == "pieces":
        own = [] if case == "xlm-roberta" else [normalizers.Precompiled(TABLE)]
        whole.normalizer = normalizers.Sequence([*own, normalizers.Replace(" {2,}", "\u2581")])
        whole.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    whole.save(str(directory / "tokenizer.json"))
    flags = {str(i): token.__getstate__() for i, token in whole.get_added_tokens_decoder().items()}
    edited(directory, "tokenizer_config.json", lambda said: {**said, **OLD[case], "added_tokens_decoder": flags})
    edited(directory, "tokenizer_config.json", lambda said: {k: v for k, v in said.items() if k != "extra_special_tokens"})
    assert_alone_and_the_same(directory)


def test_the_table_of_sentencepiece_is_kept(tmp_path: Path) -> None:
    mine = tokenizer_of(write("t5", tmp_path))
    assert mine.text(mine.ids(["\ufb01ne"])[0]) == "fine"
