"""What transformers' tokenizer classes make of a `tokenizer.json`, for those classes that are common and simple.

For some the file is the whole tokenizer. Others take its vocabulary and what stands around a text, and make the rest on their
own, as `tokenizer_config.json` says: a text's case and accents are BERT's affair, a space before it is GPT-2's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import decoders, models, normalizers, pre_tokenizers, processors


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


def _gpt2(backend: Any, said: Mapping[str, Any]) -> bool:
    model, space = backend.model, said.get("add_prefix_space", False)
    if not isinstance(model, models.BPE) or not isinstance(space, bool) or backend.post_processor is None:
        return False
    if model.dropout is not None or model.unk_token is not None or model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    if model.fuse_unk or model.byte_fallback or model.ignore_merges:
        return False
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    return True


def _roberta(backend: Any, said: Mapping[str, Any]) -> bool:
    start, end, trim = said.get("cls_token", "<s>"), said.get("sep_token", "</s>"), said.get("trim_offsets", True)
    if not (isinstance(start, str) and isinstance(end, str) and isinstance(trim, bool)) or not _gpt2(backend, said):
        return False
    ends, starts = ((token, backend.token_to_id(token)) for token in (end, start))
    backend.post_processor = processors.RobertaProcessing(ends, starts, trim, said.get("add_prefix_space", False))
    return True


_BERT_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
_GPT2_TOKENS = {f"{name}_token": "<|endoftext|>" for name in ("unk", "bos", "eos")}
_ROBERTA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>"}
_ROBERTA_TOKENS |= {"pad_token": "<pad>", "mask_token": "<mask>"}

TOKENIZER_CLASSES = (
    TokenizerClass(("PreTrainedTokenizerFast", "TokenizersBackend"), _whole),
    TokenizerClass(
        ("BertTokenizer", "BertTokenizerFast"),
        _bert,
        ("bert", "distilbert"),
        _BERT_TOKENS,
        frozenset(["do_lower_case", "strip_accents", "tokenize_chinese_chars"]),
    ),
    TokenizerClass(("GPT2Tokenizer", "GPT2TokenizerFast"), _gpt2, ("gpt2",), _GPT2_TOKENS, frozenset(["add_prefix_space"])),
    TokenizerClass(
        ("RobertaTokenizer", "RobertaTokenizerFast"),
        _roberta,
        ("roberta", "bart"),
        _ROBERTA_TOKENS,
        frozenset(["add_prefix_space", "trim_offsets"]),
    ),
)
