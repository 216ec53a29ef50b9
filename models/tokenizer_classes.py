"""What transformers' tokenizer classes make of a `tokenizer.json`, for the classes that supported backbones have.

For some the file is the whole tokenizer. Others take its vocabulary and what stands around a text, and make the rest on their
own, as `tokenizer_config.json` says: a text's case and accents are BERT's affair, a space before it is GPT-2's. Each function
here follows the `__init__` of the class that it is named after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

_SPACE = "\u2581"  # SentencePiece's mark where a word begins
_QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class TokenizerClass:
    """A class, by its names."""

    names: tuple[str, ...]
    make: Callable[[Any, Mapping[str, Any]], bool]  # change the file's backend to the class's; False where it is not certain
    model_types: tuple[str, ...] = ()  # of backbones that have it where no class is named
    tokens: Mapping[str, str] | None = None  # by key, those that it has where the files do not name others; None: none
    settings: frozenset[str] = frozenset()  # keys of tokenizer_config.json that it reads, beside tokens'


def _whole(backend: Any, said: Mapping[str, Any]) -> bool:
    return backend.post_processor is not None


def _bert(backend: Any, said: Mapping[str, Any]) -> bool:
    model, accents = backend.model, said.get("strip_accents")
    unknown, start, end = (said.get(f"{name}_token", f"[{name.upper()}]") for name in ("unk", "cls", "sep"))
    lower, chinese = said.get("do_lower_case", True), said.get("tokenize_chinese_chars", True)
    if not isinstance(model, models.WordPiece) or model.max_input_chars_per_word != 100 or model.unk_token != unknown:
        return False
    if model.continuing_subword_prefix != "##" or not (isinstance(start, str) and isinstance(end, str)):
        return False
    if not (isinstance(lower, bool) and isinstance(chinese, bool) and isinstance(accents, bool | None)):
        return False
    backend.normalizer = normalizers.BertNormalizer(True, chinese, accents, lower)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start}:0 $A:0 {end}:0",
        pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[(token, model.token_to_id(token)) for token in (start, end)],
    )
    return True


# -- byte-level pairs ---------------------------------------------------------------------------------------------------


def _gpt2(backend: Any, said: Mapping[str, Any]) -> bool:
    space = said.get("add_prefix_space", False)
    if not _has_plain_pairs(backend.model) or not isinstance(space, bool) or backend.post_processor is None:
        return False
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    return True


def _has_plain_pairs(model: Any) -> bool:
    if not isinstance(model, models.BPE) or model.dropout is not None or model.unk_token is not None or model.fuse_unk:
        return False
    return not (model.continuing_subword_prefix or model.end_of_word_suffix or model.byte_fallback or model.ignore_merges)


def _roberta(backend: Any, said: Mapping[str, Any]) -> bool:
    start, end, trim = said.get("cls_token", "<s>"), said.get("sep_token", "</s>"), said.get("trim_offsets", True)
    if not (isinstance(start, str) and isinstance(end, str) and isinstance(trim, bool)) or not _gpt2(backend, said):
        return False
    ends, starts = ((token, backend.token_to_id(token)) for token in (end, start))
    backend.post_processor = processors.RobertaProcessing(ends, starts, trim, said.get("add_prefix_space", False))
    return True


def _gpt_neox(backend: Any, said: Mapping[str, Any]) -> bool:
    trim = said.get("trim_offsets", True)
    if not isinstance(trim, bool) or not _gpt2(backend, said):
        return False
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=said.get("add_prefix_space", False), trim_offsets=trim)
    backend.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    return True


def _qwen2(backend: Any, said: Mapping[str, Any]) -> bool:
    space = said.get("add_prefix_space")
    plain = all(token == AddedToken(token.content, special=True) for token in _added(backend) if token.special)
    if not plain or not isinstance(space, bool | None) or not _gpt2(backend, {}):
        return False
    words = pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated", invert=False)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=bool(space), use_regex=False)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    return True


def _added(backend: Any) -> Any:
    return backend.get_added_tokens_decoder().values()


# -- SentencePiece's pairs: letters that have no token are bytes --------------------------------------------------------


def _llama(backend: Any, said: Mapping[str, Any]) -> bool:
    space, legacy = said.get("add_prefix_space"), said.get("legacy", False)
    if not _falls_back_to_bytes(backend) or not (isinstance(space, bool | None) and isinstance(legacy, bool | None)):
        return False
    space = space is not False
    backend.model.unk_token = None
    backend.normalizer = None
    before = ("always" if legacy else "first") if space else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=before, split=False)
    parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*parts, decoders.Strip(content=" ", left=1)] if space else parts)
    return True


def _gemma(backend: Any, said: Mapping[str, Any]) -> bool:
    unknown = said.get("unk_token", "<unk>")
    if not _falls_back_to_bytes(backend) or not isinstance(unknown, str) or backend.model.unk_token != unknown:
        return False
    backend.normalizer = normalizers.Replace(" ", _SPACE)
    backend.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return True


def _falls_back_to_bytes(backend: Any) -> bool:
    model = backend.model
    if not isinstance(model, models.BPE) or backend.post_processor is None or model.dropout is not None:
        return False
    if model.continuing_subword_prefix or model.end_of_word_suffix or model.ignore_merges:
        return False
    return bool(model.fuse_unk and model.byte_fallback)


# -- SentencePiece's likeliest pieces -----------------------------------------------------------------------------------


def _t5(backend: Any, said: Mapping[str, Any]) -> bool:
    end, extra = said.get("eos_token", "</s>"), said.get("extra_ids", 100)
    there = {token.content for token in _added(backend) if token.special}
    if not isinstance(end, str) or backend.token_to_id(end) is None or not isinstance(extra, int) or extra > len(there):
        return False
    if not {f"<extra_id_{i}>" for i in range(extra)} <= there:
        return False
    if not _makes_pieces(backend, unknown=2, before="always"):
        return False
    backend.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", backend.token_to_id(end))]
    )
    return True


def _albert(backend: Any, said: Mapping[str, Any]) -> bool:
    lower, accents, space = (said.get(*one) for one in (("do_lower_case", True), ("keep_accents", False), _WITH_SPACE))
    if not (isinstance(lower, bool) and isinstance(accents, bool) and isinstance(space, bool)):
        return False
    if backend.post_processor is None or not _makes_pieces(backend, unknown=1, before="always" if space else "never"):
        return False
    quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    bare = [] if accents else [normalizers.NFKD(), normalizers.StripAccents()]
    small = [normalizers.Lowercase()] if lower else []
    backend.normalizer = normalizers.Sequence(
        [*quotes, *bare, *small, *([] if backend.normalizer is None else [backend.normalizer])]
    )
    return True


def _xlm_roberta(backend: Any, said: Mapping[str, Any]) -> bool:
    start, end, space = said.get("bos_token", "<s>"), said.get("eos_token", "</s>"), said.get(*_WITH_SPACE)
    if not (isinstance(start, str) and isinstance(end, str) and isinstance(space, bool)):
        return False
    ids = [(token, backend.token_to_id(token)) for token in (start, end)]
    if None in dict(ids).values() or not _makes_pieces(backend, unknown=3, before="always" if space else "never"):
        return False
    backend.post_processor = processors.TemplateProcessing(
        single=[start, "$A", end], pair=[start, "$A", end, end, "$B", end], special_tokens=ids
    )
    return True


_WITH_SPACE = ("add_prefix_space", True)


def _makes_pieces(backend: Any, unknown: int, before: str) -> bool:
    """Cut as these classes do, and keep of the file's normalizer SentencePiece's own table; False where it is not certain."""
    if not isinstance(backend.model, models.Unigram) or backend.model.alpha is not None or backend.model.nbest_size is not None:
        return False
    saved = json.loads(backend.model.__getstate__())
    if saved["unk_id"] != unknown or saved["byte_fallback"]:
        return False
    there = backend.normalizer
    steps = [there[i] for i in range(len(there))] if isinstance(there, normalizers.Sequence) else [there]
    backend.normalizer = next((step for step in steps if isinstance(step, normalizers.Precompiled)), None)
    marks = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=before)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
    backend.decoder = decoders.Metaspace(_SPACE, prepend_scheme=before)
    return True


# -- the classes ----------------------------------------------------------------------------------------------------------


def _tokens(**names: str) -> dict[str, str]:
    return {f"{name}_token": token for name, token in names.items()}


_BERT_TOKENS = _tokens(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]")
_END_OF_TEXT = "<|endoftext|>"
_ROBERTA_TOKENS = _tokens(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="<unk>", pad="<pad>", mask="<mask>")

TOKENIZER_CLASSES = (
    TokenizerClass(("PreTrainedTokenizerFast", "TokenizersBackend"), _whole, ("llama",)),
    TokenizerClass(
        ("BertTokenizer", "BertTokenizerFast"),
        _bert,
        ("bert", "distilbert"),
        _BERT_TOKENS,
        frozenset(["do_lower_case", "strip_accents", "tokenize_chinese_chars"]),
    ),
    TokenizerClass(
        ("GPT2Tokenizer", "GPT2TokenizerFast"),
        _gpt2,
        ("gpt2",),
        _tokens(unk=_END_OF_TEXT, bos=_END_OF_TEXT, eos=_END_OF_TEXT),
        frozenset(["add_prefix_space"]),
    ),
    TokenizerClass(
        ("RobertaTokenizer", "RobertaTokenizerFast"),
        _roberta,
        ("roberta", "bart"),
        _ROBERTA_TOKENS,
        frozenset(["add_prefix_space", "trim_offsets"]),
    ),
    TokenizerClass(
        ("GPTNeoXTokenizer", "GPTNeoXTokenizerFast"),
        _gpt_neox,
        ("gpt_neox",),
        _tokens(unk=_END_OF_TEXT, bos=_END_OF_TEXT, eos=_END_OF_TEXT, pad="<|padding|>"),
        frozenset(["add_prefix_space", "trim_offsets"]),
    ),
    TokenizerClass(
        ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
        _qwen2,
        ("qwen2", "qwen3"),
        _tokens(unk=_END_OF_TEXT, eos=_END_OF_TEXT, pad=_END_OF_TEXT),
        frozenset(["add_prefix_space"]),
    ),
    TokenizerClass(
        ("LlamaTokenizer", "LlamaTokenizerFast"),
        _llama,
        (),
        _tokens(unk="<unk>", bos="<s>", eos="</s>"),
        frozenset(["add_prefix_space", "legacy"]),
    ),
    TokenizerClass(
        ("GemmaTokenizer", "GemmaTokenizerFast"),
        _gemma,
        ("gemma", "gemma2", "gemma3_text"),
        _tokens(unk="<unk>", bos="<bos>", eos="<eos>", pad="<pad>", mask="<mask>"),
    ),
    TokenizerClass(
        ("T5Tokenizer", "T5TokenizerFast"),
        _t5,
        ("t5", "mt5"),
        _tokens(eos="</s>", unk="<unk>", pad="<pad>"),
        frozenset(["extra_ids"]),
    ),
    TokenizerClass(
        ("AlbertTokenizer", "AlbertTokenizerFast"),
        _albert,
        ("albert",),
        _tokens(bos="[CLS]", eos="[SEP]", unk="<unk>", sep="[SEP]", pad="<pad>", cls="[CLS]", mask="[MASK]"),
        frozenset(["do_lower_case", "keep_accents", "add_prefix_space", "trim_offsets"]),
    ),
    TokenizerClass(
        ("XLMRobertaTokenizer", "XLMRobertaTokenizerFast"),
        _xlm_roberta,
        ("xlm-roberta",),
        _ROBERTA_TOKENS,
        frozenset(["add_prefix_space"]),
    ),
)
#: Model types of which transformers takes one class, whatever the files name.
_ALWAYS = {"qwen2": "Qwen2Tokenizer", "phi3": "TokenizersBackend"}


def class_of(named: str | None, model_type: Any, file: Path) -> TokenizerClass | None:
    """The class that transformers takes of a directory, if it is one of these.

    `named`: what its files name, `model_type`: of the backbone, `file`: the tokenizer.json.
    """
    if model_type == "mistral":  # another library's, if that is there
        return None
    named = _ALWAYS.get(model_type, named)
    if named in ("LlamaTokenizer", "LlamaTokenizerFast") and b'"ByteLevel"' in file.read_bytes():  # as Llama 3's are published
        named = "TokenizersBackend"
    fitting = (one for one in TOKENIZER_CLASSES if (named in one.names if named else model_type in one.model_types))
    return next(fitting, None)
