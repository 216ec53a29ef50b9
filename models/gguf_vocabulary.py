"""The vocabulary in a GGUF file: tokens, what kind each is, and which begins, ends or fills a text, as llama.cpp reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..notes import note
from ..typed import shown

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

#: Tokens that end what is generated, where the file does not name them: those that llama.cpp looks for.
_ENDS = frozenset(["<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>", "<|eom_id|>"])
_ENDS |= {"<end_of_turn>", "<|end_of_text|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_utterance>"}
_ENDS |= {"<\uff5cend\u2581of\u2581sentence\uff5c>"}  # DeepSeek's
#: Ids that llama.cpp takes where a SentencePiece vocabulary does not say them.
_PIECES_IDS = {"bos": 1, "eos": 2, "unknown": 0}


@dataclass(frozen=True)
class Vocabulary:
    """What the keys of a file that begin with `tokenizer.` say."""

    path: Path
    metadata: Mapping[str, Any]

    def said(self, key: str, kind: type, default: Any = None) -> Any:
        """What stands at a key of `tokenizer.ggml`; GraftaxError where it is of another kind."""
        value = self.metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            return default
        if type(value) is not kind:
            raise GraftaxError(f"{self.path}: tokenizer.ggml.{key} is {shown(value)}, not of type {kind.__name__}.")
        return value

    def listed(self, key: str, kind: type) -> list[Any] | None:
        """A list at a key of `tokenizer.ggml`, None where there is none."""
        values = self.said(key, list)
        if values is not None and not all(type(value) is kind for value in values):
            raise GraftaxError(f"{self.path}: tokenizer.ggml.{key} is no list of type {kind.__name__}.")
        return values

    @property
    def model(self) -> str:
        """How words become tokens: "gpt2" by byte-level pairs, "llama" by the pairs of SentencePiece."""
        return str(self.said("model", str, "none"))

    @cached_property
    def tokens(self) -> list[str]:
        """By id; empty ones by the name that llama.cpp gives them."""
        found = [token or f"[EMPTY_{i}]" for i, token in enumerate(self.listed("tokens", str) or [])]
        if len({*found}) != len(found):
            twice = next(token for token, count in Counter(found).items() if count > 1)
            raise GraftaxError(f"{self.path}: its vocabulary has the token {twice!r} twice.")
        return found

    @cached_property
    def kinds(self) -> list[int]:
        """Of each token."""
        kinds = self.listed("token_type", int) or [NORMAL] * len(self.tokens)
        if len(kinds) < len(self.tokens):
            raise GraftaxError(f"{self.path}: {len(kinds)} types (tokenizer.ggml.token_type) of {len(self.tokens)} tokens.")
        return kinds

    def id_of(self, name: str) -> int | None:
        """The id of "bos", "eos", "eot", "eom", "unknown" or "padding"; None where there is none."""
        default = _PIECES_IDS.get(name) if self.model == "llama" else None
        found = self.said(f"{name}_token_id", int, default)
        if found is not None and not 0 <= found < len(self.tokens):
            note(f"{self.path}: ignored, for there is no such token: tokenizer.ggml.{name}_token_id={found}.")
            return None
        return found

    def token_of(self, name: str) -> str | None:
        return None if (found := self.id_of(name)) is None else self.tokens[found]

    def named_ids(self) -> dict[str, Any]:
        """The ids as config.json has them: several that end a text, the tokenizer's own first."""
        ends = [i for i in map(self.id_of, ("eos", "eot", "eom")) if i is not None]
        ends += [i for i, token in enumerate(self.tokens) if token in _ENDS and self.kinds[i] in (CONTROL, USER_DEFINED)]
        ids = {"bos_token_id": self.id_of("bos"), "pad_token_id": self.id_of("padding")}
        return ids | {"eos_token_id": [*dict.fromkeys(ends)] or None}
