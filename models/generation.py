"""What `generation_config.json` says of the texts that a language model writes.

transformers takes all of it for `generate`'s defaults. Here what a text may be is the model's own affair and taken: the tokens
that end it and begin it, tokens forced or forbidden, the penalty on repetition, the least length. How it is searched for or
drawn, and how long it may be, is the caller's (`serve/sampling.py`): `do_sample`, `temperature`, `top_k`, `top_p`, `num_beams`,
`max_new_tokens` and their like are not taken, so a call that asks for nothing is greedy. What would change greedy texts and is
not supported is refused when a text is to be written (`Rules.unsupported`).

Where there is no such file, config.json may have the same keys, as in transformers; a file that names no token that ends or
begins texts leaves those of config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..json_files import read_object
from . import config_keys
from .config_keys import Key, is_number

#: Keys that change greedy texts, and the values with which they do not, beside null.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "constraints": ([],),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_decoder_ids": ([],),
    "guidance_scale": (1.0,),
    "sequence_bias": ([], {}),
    "stop_strings": ([],),
    "token_healing": (False,),
    "watermarking_config": (),
}


@dataclass(frozen=True)
class Rules:
    """What every text obeys; defaults are those that change nothing."""

    repetition_penalty: float = 1.0
    length_penalty: float = 1.0  # of beams
    early_stopping: bool = False  # of beams
    suppressed: tuple[int, ...] = ()  # tokens that are never written,
    first_suppressed: tuple[int, ...] = ()  # nor first
    no_repeat: int = 0  # so many tokens one behind another are there once at most; 0: any number of times
    min_new_tokens: int = 0  # before one that ends the text
    min_length: int = 0  # the same, with the prompt's tokens; of an encoder-decoder with the one that begins a text
    unsupported: tuple[str, ...] = ()  # as "key=value"
    beams: int = 1  # that the file asks for; a caller who does not is told


def with_generation(config: Any, directory: Path, raw: Mapping[str, Any], *, encodes: bool) -> Any:
    """A language model's config with what the directory says of generation; `raw`: its config.json, `encodes`: whether it is an
    encoder-decoder."""
    file = directory / "generation_config.json"
    own = file.is_file()
    content, source = (read_object(file), file) if own else (raw, directory / "config.json")
    said = _Said(content, source, config.vocab_size)
    changes: dict[str, Any] = {"rules": said.rules(), "eos_ids": said.known("eos_token_id") or config.eos_ids}
    changes["last_id"] = said.token("forced_eos_token_id", -1 if own else config.last_id)
    if encodes:  # transformers forces the first token of an encoder-decoder's text alone
        changes["first_id"] = said.token("forced_bos_token_id", -1 if own else config.first_id)
        changes["start_id"] = said.token("decoder_start_token_id", config.start_id)
    return replace(config, **changes)


#: What stands at a key of the file, as of config.json (`models/config_keys.py`).
_IDS = config_keys.tokens(None)
_COUNT = config_keys.size(0, least=0)
_BEAMS = config_keys.size(1)
_FACTOR = Key(1.0, lambda v: is_number(v) and 1e-6 <= v < 1e6, "a positive number")
_EXPONENT = Key(1.0, lambda v: is_number(v) and abs(v) < 1e6, "a number")
_WHEN = Key(False, lambda v: v in (True, False, "never"), "true or false")
_WORDS = Key((), lambda v: isinstance(v, list) and all(map(_is_word, v)), "lists of tokens' ids")


def _is_word(value: Any) -> bool:
    """Whether it is the tokens of a word: a list, not empty."""
    return isinstance(value, list) and bool(value) and _IDS.allows(value)


@dataclass(frozen=True)
class _Said:
    """The keys of a file, read by kind."""

    content: Mapping[str, Any]
    file: Path
    vocabulary: int  # how many tokens there are

    def rules(self) -> Rules:
        bad, early = self._take("bad_words_ids", _WORDS), self._take("early_stopping", _WHEN)
        unsupported = [key for key, neutral in _UNSUPPORTED.items() if self.content.get(key) not in (None, *neutral)]
        unsupported += ["bad_words_ids"] if any(len(words) > 1 for words in bad) else []
        unsupported += ["early_stopping"] if early == "never" else []
        return Rules(
            repetition_penalty=float(self._take("repetition_penalty", _FACTOR)),
            length_penalty=float(self._take("length_penalty", _EXPONENT)),
            early_stopping=bool(early),
            suppressed=self.ids("suppress_tokens") + tuple(words[0] for words in bad),
            first_suppressed=self.ids("begin_suppress_tokens"),
            no_repeat=self._take("no_repeat_ngram_size", _COUNT),
            min_new_tokens=self._take("min_new_tokens", _COUNT),
            min_length=self._take("min_length", _COUNT),
            beams=self._take("num_beams", _BEAMS),
            unsupported=tuple(f"{key}={self.content[key]!r}" for key in unsupported),
        )

    def ids(self, key: str) -> tuple[int, ...]:
        """A token's id, or several."""
        value = self._take(key, _IDS)
        return () if value is None else tuple(value) if isinstance(value, list) else (value,)

    def known(self, key: str) -> tuple[int, ...]:
        """Those of the vocabulary: configs are written with the ids of a larger one, which nothing can say."""
        return tuple(token for token in self.ids(key) if 0 <= token < self.vocabulary)

    def token(self, key: str, default: int) -> int:
        """The first of them."""
        return next(iter(self.known(key)), default)

    def _take(self, name: str, key: Key) -> Any:
        """What the file says at a key; the default where it says nothing, or null."""
        value = self.content.get(name)
        if value is None:
            return key.default
        if not key.allows(value):
            raise GraftaxError(f"{self.file}: {name} must be {key.takes}, got {value!r}.")
        return value
