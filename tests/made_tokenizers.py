"""Generated tokenizer directories: vocabularies of every algorithm, in the files that people have, tokens named anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

#: Words beside letters; "apples" and "Käse" are of several pieces in all of them.
WORDS = ["apple", "tree", "the", "a", "Iron", "\N{GREEK SMALL LETTER ALPHA}"]
EXTRA = ["<call>", "<|im_end|>"]
NAMED_IN = [
    "tokenizer.json",
    "added_tokens_decoder",
    "additional_special_tokens",
    "special_tokens_map.json",
    "added_tokens.json",
]
CLASSES = {
    "wordpiece": ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "AStranger", None],
    "bytes": [
        "GPT2Tokenizer",
        "RobertaTokenizerFast",
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
        "Qwen2TokenizerFast",
        "GPTNeoXTokenizerFast",
        "LlamaTokenizerFast",
        None,
    ],
    "spaces": ["LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "PreTrainedTokenizerFast", None],
    "pieces": ["T5Tokenizer", "AlbertTokenizerFast", "PreTrainedTokenizerFast", None],
    "pieces-albert": ["AlbertTokenizer", "T5TokenizerFast", None],
    "pieces-xlm": ["XLMRobertaTokenizerFast", None],
}
MODEL_TYPES = {
    "wordpiece": ["bert", "distilbert", "gpt2"],
    "bytes": ["gpt2", "llama", "qwen2", "qwen3", "phi3", "gpt_neox", "bart"],
    "spaces": ["llama", "gemma", "gemma2", "gemma3_text", "phi3"],
    "pieces": ["t5", "mt5", "albert"],
    "pieces-albert": ["albert", "t5"],
    "pieces-xlm": ["xlm-roberta"],
}
SPECIAL = {
    "wordpiece": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "bytes": ["<pad>", "</s>", "<unk>", "<s>", "<mask>", "<|endoftext|>", "<|padding|>"],
    "spaces": ["<pad>", "<eos>", "<bos>", "<unk>", "<s>", "</s>"],
    "pieces": ["<pad>", "</s>", "<unk>", "<s>", *(f"<extra_id_{i}>" for i in range(100))],
    "pieces-albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
    "pieces-xlm": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
#: Of each algorithm the tokens before and behind a text, and the one for what is unknown.
AROUND = dict.fromkeys(SPECIAL, ("<s>", "</s>", "<unk>"))
AROUND |= {"wordpiece": ("[CLS]", "[SEP]", "[UNK]"), "pieces-albert": ("[CLS]", "[SEP]", "<unk>")}
#: By class, where it is not "bytes".
ALGORITHM_OF = {"BertTokenizer": "wordpiece", "LlamaTokenizer": "spaces", "GemmaTokenizer": "spaces", "T5Tokenizer": "pieces"}
ALGORITHM_OF |= {"AlbertTokenizer": "pieces-albert", "XLMRobertaTokenizer": "pieces-xlm"}


@dataclass(frozen=True)
class Made:
    """What is in a directory."""

    algorithm: str
    whole: bool  # there is a tokenizer.json
    vocabulary: bool  # there are the files from before tokenizer.json
    of_class: str | None
    model_type: str
    added: str | None  # where the extra tokens are named
    appends: bool  # the tokenizer puts a token behind a text
    settings: dict[str, Any]  # of tokenizer_config.json


@st.composite
def directories(draw: st.DrawFn) -> Made:
    algorithm = draw(st.sampled_from(sorted(CLASSES)))
    flags = {"do_lower_case": st.booleans(), "strip_accents": st.sampled_from([True, False, None])}
    flags |= {"tokenize_chinese_chars": st.booleans()}
    other = {"model_max_length": st.just(512), "add_prefix_space": st.booleans(), "add_eos_token": st.booleans()}
    other |= {"split_special_tokens": st.sampled_from([False, False, True]), "clean_up_tokenization_spaces": st.booleans()}
    other |= {"legacy": st.sampled_from([True, False, None]), "sp_model_kwargs": st.just({}), "extra_ids": st.just(0)}
    other |= {"keep_accents": st.booleans(), "do_lower_case": st.booleans()} if algorithm == "pieces-albert" else {}
    return Made(
        algorithm,
        draw(st.sampled_from([True, True, True, False])),
        draw(st.booleans()),
        draw(st.sampled_from(CLASSES[algorithm])),
        draw(st.sampled_from(MODEL_TYPES[algorithm])),
        draw(st.sampled_from([*NAMED_IN, None])),
        draw(st.booleans()),
        draw(st.fixed_dictionaries({}, optional=flags | other if algorithm == "wordpiece" else other)),
    )


def write(made: Made, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    special = SPECIAL[made.algorithm]
    tokenizer = _tokenizer(made.algorithm, special, made.appends)
    if made.added == "tokenizer.json":
        tokenizer.add_special_tokens(EXTRA)
    first = tokenizer.get_vocab_size()
    if made.whole:
        tokenizer.save(str(directory / "tokenizer.json"))
    if made.vocabulary and made.algorithm == "wordpiece":
        pieces = sorted(tokenizer.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in pieces), "utf-8")
    if made.vocabulary and made.algorithm == "bytes":
        (directory / "vocab.json").write_text(json.dumps(tokenizer.get_vocab(with_added_tokens=False)))
        (directory / "merges.txt").write_text("#version: 0.2\na p\nap p\n")
    _, end, unknown = AROUND[made.algorithm]
    said = {"tokenizer_class": made.of_class, "eos_token": end, "unk_token": unknown, **made.settings}
    ids = {first + i: token for i, token in enumerate(EXTRA)}
    if made.added == "added_tokens_decoder":
        own = {tokenizer.token_to_id(token): token for token in special}
        flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
        said["added_tokens_decoder"] = {str(i): {"content": token, **flags} for i, token in (own | ids).items()}
    elif made.added == "additional_special_tokens":
        said["additional_special_tokens"] = EXTRA
    elif made.added == "special_tokens_map.json":
        (directory / made.added).write_text(json.dumps({"additional_special_tokens": EXTRA}))
    elif made.added == "added_tokens.json":
        (directory / made.added).write_text(json.dumps({token: i for i, token in ids.items()}))
    (directory / "tokenizer_config.json").write_text(json.dumps({key: v for key, v in said.items() if v is not None}))
    (directory / "config.json").write_text(json.dumps({"model_type": made.model_type}))
    return directory


def _tokenizer(algorithm: str, special: list[str], appends: bool) -> Tokenizer:
    if algorithm == "wordpiece":
        letters = [chr(i) for i in range(ord("a"), ord("z") + 1)] + ["A", "I", "K", "\u4e2d", "\u6587"]
        pieces = dict.fromkeys([*special, *WORDS, "iron", *letters, *(f"##{letter}" for letter in letters)])
        tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
    elif algorithm == "bytes":
        pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ap", "app"]
        tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [("a", "p"), ("ap", "p")]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    elif algorithm == "spaces":  # as Llama 2's is published
        letters = [chr(i) for i in range(ord("a"), ord("z") + 1)]
        pieces = [*special, "<mask>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", *letters, "ap", "app", "\u2581t"]
        pairs, settings = [("a", "p"), ("ap", "p"), ("\u2581", "t")], {"fuse_unk": True, "byte_fallback": True}
        tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, pairs, unk_token="<unk>", **settings))
        before = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        tokenizer.normalizer = normalizers.Sequence(before)
        behind = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(behind)
        tokenizer.add_tokens(["<mask>"])  # which is not special in Gemma's
    else:
        letters = [chr(i) for i in range(ord("a"), ord("z") + 1)]
        pieces = [(piece, -1.0) for piece in [*special, "\u2581", *(f"\u2581{word}" for word in WORDS)]]
        unknown = special.index(AROUND[algorithm][2])
        tokenizer = Tokenizer(models.Unigram([*pieces, *((letter, -5.0) for letter in letters)], unk_id=unknown))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    start, end, _ = AROUND[algorithm]
    around = {token: tokenizer.token_to_id(token) for token in (start, end)}
    single = f"{start} $A {end}" if appends else f"{start} $A"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B:1 {end}:1", special_tokens=list(around.items())
    )
    return tokenizer
