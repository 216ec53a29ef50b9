"""Texts that obey a grammar, such as a JSON schema: after each token, which may come next.

    guide = grammars.guide(json_schema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}))
    guide.allowed()       the tokens that may come next, a bit for each
    guide.take(token)     one that has come

A grammar is followed on the host, byte by byte, whatever bytes a token stands for (Willard and Louf, 2023, arXiv:2307.09702).
This is done by llguidance, a library in Rust of the extra `structured`. Where a text may end, the tokens that end texts are
among those allowed; where it must, they alone are.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.tokens import Tokenizer

#: Of JSON: at most one space, behind a comma or a colon. Where any space may stand a model may write nothing else.
_SPACES = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


class Guide:
    """How far one text has come in its grammar. For one thread."""

    def __init__(self, matcher: Any):
        self._matcher = matcher

    def copy(self) -> Guide:
        """One of another text, which has come as far."""
        return Guide(self._matcher.deep_copy())

    def allowed(self) -> np.ndarray:
        """Of every token whether it may come next: bit i % 32 of number i // 32 is token i's, int32 `[vocabulary / 32]`.

        Raises GraftaxError where none may.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.int32)
        if not bits.any():
            raise GraftaxError(f"no token goes on by the grammar ({self._matcher.get_error() or 'the text has ended'}).")
        return bits

    def take(self, token: int) -> None:
        """Go on behind a token, one of those allowed."""
        if not self._matcher.consume_token(token):
            raise GraftaxError(f"token {token} does not go on by the grammar ({self._matcher.get_error()}).")


class Grammars:
    """Grammars over the tokens of a backbone. Calls may come from several threads."""

    def __init__(self, backbone: Backbone, tokenizer: Tokenizer):
        self._backbone, self._tokenizer, self._lock = backbone, tokenizer, threading.Lock()

    def guide(self, grammar: str) -> Guide:
        """A guide at the beginning of a text; GraftaxError where a grammar is none, or asks for too much."""
        library = _llguidance()
        with self._lock:
            tokens = self._tokens
        if wrong := library.LLMatcher.validate_grammar(grammar, tokens):
            raise GraftaxError(wrong)
        return Guide(library.LLMatcher(tokens, grammar, log_level=0))

    @cached_property
    def _tokens(self) -> Any:
        """The vocabulary as llguidance takes it."""
        config, bytes_of = self._backbone.config, self._tokenizer.bytes_of
        if not config.eos_ids:
            raise GraftaxError(f"{self._backbone.name} has no token that ends texts, so none can end by a grammar.")
        library = _llguidance()
        vocabulary = _Vocabulary(self._tokenizer, config.eos_ids[0])
        vocabulary.tokens = [bytes_of(token) for token in range(config.vocab_size)]
        vocabulary.special_token_ids = [token for token in range(config.vocab_size) if bytes_of.is_special(token)]
        return library.LLTokenizer(library.TokenizerWrapper(vocabulary), eos_token=list(config.eos_ids))


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None
    tokens: Sequence[bytes]
    special_token_ids: Sequence[int]

    def __init__(self, tokenizer: Tokenizer, eos_token_id: int):
        self._tokenizer, self.eos_token_id = tokenizer, eos_token_id

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.ids([text], special=False)[0].tolist()
        return ids


def json_schema(schema: Mapping[str, Any]) -> str:
    """The grammar of what a JSON schema takes; GraftaxError where it says what cannot be followed."""
    try:
        made: str = _llguidance().LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_SPACES)
    except ValueError as error:
        raise GraftaxError(str(error)) from None
    return made


def json_object() -> str:
    """The grammar of any object of JSON."""
    return json_schema({"type": "object"})


def pattern(regex: str) -> str:
    """The grammar of what a regular expression matches, as a whole."""
    made: str = _llguidance().LLMatcher.grammar_from_regex(regex)
    return made


def one_of(texts: Sequence[str]) -> str:
    """The grammar of one of some texts."""
    made: str = _llguidance().LLMatcher.grammar_from_lark(f"start: {' | '.join(map(json.dumps, texts))}")
    return made


def _llguidance() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError:
        raise GraftaxError("texts by a grammar need llguidance: pip install 'graftax[structured]'.") from None
    return llguidance
