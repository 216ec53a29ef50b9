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
    no_repeat: int = 0  # so many tokens in a row are there once at most; 0: any number of times
    min_new_tokens: int = 0  # before one that ends the text
    min_length: int = 0  # the same, with the prompt's tokens; of an encoder-decoder with the one that begins a text
    unsupported: tuple[str, ...] = ()  # as "key=value"


def with_generation(config: Any, directory: Path, raw: Mapping[str, Any]) -> Any:
    """A language model's config with what the directory says of generation; `raw`: its config.json."""
    file = directory / "generation_config.json"
    own = file.is_file()
    said = _Said(read_object(file), file) if own else _Said(raw, directory / "config.json")

    def tokens(key: str) -> tuple[int, ...]:
        """One or several, those that there are: configs are written with another vocabulary's, which nothing can say."""
        return tuple(token for token in said.ids(key) if 0 <= token < config.vocab_size)

    ends = tokens("eos_token_id") or tuple(token for token in config.eos_ids if _is_id(token) and token < config.vocab_size)
    changes: dict[str, Any] = {"rules": said.rules(), "eos_ids": ends}
    changes["last_id"] = next(iter(tokens("forced_eos_token_id")), -1 if own else config.last_id)
    if hasattr(config, "start_id"):  # transformers forces the first token of an encoder-decoder's text alone
        changes["first_id"] = next(iter(tokens("forced_bos_token_id")), -1 if own else config.first_id)
        changes["start_id"] = next(iter(tokens("decoder_start_token_id")), config.start_id)
    return replace(config, **changes)


@dataclass(frozen=True)
class _Said:
    """The keys of a file, read by kind."""

    content: Mapping[str, Any]
    file: Path

    def rules(self) -> Rules:
        bad = self._list("bad_words_ids")
        if not all(isinstance(words, list) and words and all(map(_is_id, words)) for words in bad):
            raise self._error("bad_words_ids", "lists of tokens' ids")
        early = self.content.get("early_stopping") or False
        if not isinstance(early, bool) and early != "never":
            raise self._error("early_stopping", "true or false")
        unsupported = [key for key, neutral in _UNSUPPORTED.items() if self.content.get(key) not in (None, *neutral)]
        unsupported += ["bad_words_ids"] if any(len(words) > 1 for words in bad) else []
        unsupported += ["early_stopping"] if early == "never" else []
        return Rules(
            repetition_penalty=self._number("repetition_penalty", 1.0, positive=True),
            length_penalty=self._number("length_penalty", 1.0),
            early_stopping=early is True,
            suppressed=self.ids("suppress_tokens") + tuple(words[0] for words in bad),
            first_suppressed=self.ids("begin_suppress_tokens"),
            no_repeat=self._count("no_repeat_ngram_size"),
            min_new_tokens=self._count("min_new_tokens"),
            min_length=self._count("min_length"),
            unsupported=tuple(f"{key}={self.content[key]!r}" for key in unsupported),
        )

    def ids(self, key: str) -> tuple[int, ...]:
        """A token's id, or several."""
        value = self.content.get(key)
        several = () if value is None else value if isinstance(value, list) else (value,)
        if not all(map(_is_id, several)):
            raise self._error(key, "a token's id, or a list of them")
        return tuple(several)

    def _list(self, key: str) -> list[Any]:
        value = self.content.get(key)
        if not isinstance(value, list | None):
            raise self._error(key, "a list")
        return value or []

    def _number(self, key: str, default: float, positive: bool = False) -> float:
        value = self.content.get(key)
        if value is None:
            return default
        sound = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
        if not sound or (positive and value < 1e-6):
            raise self._error(key, "a positive number" if positive else "a number")
        return float(value)

    def _count(self, key: str) -> int:
        value = self.content.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            raise self._error(key, "a number of tokens")
        return value

    def _error(self, key: str, wanted: str) -> GraftaxError:
        return GraftaxError(f"{self.file}: {key} must be {wanted}, got {self.content.get(key)!r}.")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
