"""The tokenizer in a backbone's directory: the one that transformers' `AutoTokenizer` makes of it.

What a directory's tokenizer is stands in up to seven files, whose rules transformers has by class: `tokenizer.json` is the
whole of it for some, for others (BERT's) only its vocabulary, while lower case and accents are as `tokenizer_config.json` says;
tokens may be named there alone, or in `special_tokens_map.json` or `added_tokens.json`. Importing transformers takes longer
than all else that a command does before its first row, so `tokenizer.json` is read without it where it is certain to be
the same: the class is one of `tokenizer_classes.py`, and what the other files say is known and in `tokenizer.json` already. All
other directories go through transformers, and so do chats.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import GraftaxError
from ..json_files import read_object, refuse_pointer
from .characters import read_pair

TOKENIZER_CONFIG = "tokenizer_config.json"
_ENDLESS = 10**9  # transformers writes 10**30 where there is no limit

_TOKEN_LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
#: Keys of tokenizer_config.json that change no token, beside those that name tokens.
_HARMLESS = frozenset(
    [
        "add_bos_token",  # tokenizer.json says what is put around a text
        "add_eos_token",
        "backend",
        "chat_template",
        "clean_up_tokenization_spaces",
        "do_basic_tokenize",
        "errors",
        "is_local",
        "legacy",
        "local_files_only",
        "max_length",
        "model_input_names",
        "model_max_length",
        "name_or_path",
        "never_split",
        "pad_to_multiple_of",
        "pad_token_type_id",
        "padding_side",
        "processor_class",
        "remove_space",
        "sp_model_kwargs",
        "spaces_between_special_tokens",
        "special_tokens_map_file",
        "stride",
        "tokenizer_class",
        "tokenizer_file",
        "truncation_side",
        "truncation_strategy",
        "use_default_system_prompt",
    ]
)
_OFF = ("split_special_tokens",)  # and those that change none while they are false


class TokenizerFiles:
    """What a directory says of its tokenizer; each part is read when it is asked for, once.

    `hf_config` is the directory's config.json; `eos_ids` are the tokens that end a text there.
    """

    def __init__(self, directory: Path, hf_config: Mapping[str, Any], eos_ids: tuple[int, ...]):
        self.directory, self.hf_config, self.eos_ids = directory, hf_config, eos_ids

    @cached_property
    def backends(self) -> tuple[Any, Any]:
        """`tokenizers.Tokenizer` of what is read and of what is written: mostly one."""
        pair = None
        if not (self.directory / "tokenizer.json").is_file():
            pair = read_pair(self.directory, next(iter(self.eos_ids), None))
        backends = pair or (self._certain() or self._backend_of(self.by_transformers),) * 2
        for backend in backends:
            backend.no_padding()
        return backends

    @cached_property
    def by_transformers(self) -> Any:
        """transformers' own object, which also has the chat template."""
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
        from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

        for name in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"):
            if (self.directory / name).is_file():
                refuse_pointer(self.directory / name)
        known = {str(name).removesuffix("Fast") for name in TOKENIZER_MAPPING_NAMES.values()}
        known |= {"PreTrainedTokenizer", "TokenizersBackend"}
        strange = [name for name in self._classes if name.removesuffix("Fast") not in known]
        kind = PreTrainedTokenizerFast if strange else AutoTokenizer  # which would take any class of transformers that is named
        try:
            made = kind.from_pretrained(self.directory, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # whatever transformers raises here means the same to the user
            raise GraftaxError(f"{self.directory}: no tokenizer there that can be loaded ({error}).") from error
        files = dict(made.vocab_files_names)
        whole = files.pop("tokenizer_file", "tokenizer.json")
        missing = [name for name in files.values() if not (self.directory / name).is_file()]
        if missing and not (self.directory / whole).is_file():  # then transformers has made up a vocabulary
            wanted = " and ".join(files.values())
            raise GraftaxError(f"{self.directory}: no tokenizer there: a {type(made).__name__} needs {whole}, or {wanted}.")
        return made

    @cached_property
    def eos_id(self) -> int | None:
        """The token that the tokenizer itself takes for a text's end; None where it names none."""
        named = self._config.get("eos_token") or self._special_tokens.get("eos_token")
        name = next(_contents(named), None)
        return None if name is None else self.backends[1].token_to_id(name)

    @cached_property
    def _config(self) -> dict[str, Any]:
        file = self.directory / TOKENIZER_CONFIG
        return read_object(file) if file.is_file() else {}

    @cached_property
    def _special_tokens(self) -> dict[str, Any]:
        file = self.directory / "special_tokens_map.json"
        return read_object(file) if file.is_file() else {}

    @cached_property
    def _classes(self) -> list[str]:
        """The tokenizer's class as the files name it, the one that counts first."""
        named = [source.get("tokenizer_class") for source in (self._config, self.hf_config)]
        if not all(name is None or (isinstance(name, str) and name) for name in named):
            raise GraftaxError(f"{self.directory}: tokenizer_class is no name: {', '.join(map(repr, named))}.")
        return [name for name in named if name]

    def _backend_of(self, made: Any) -> Any:
        backend = getattr(made, "backend_tokenizer", None)
        if backend is None:
            raise GraftaxError(f"{self.directory}: its {type(made).__name__} is one of transformers' in Python, not supported.")
        return backend

    # -- without transformers -------------------------------------------------------------------------------------------

    def _certain(self) -> Any:
        """The backend by tokenizer.json, where it is certain that transformers makes the same of the directory; else None."""
        from .tokenizer_classes import class_of

        file = self.directory / "tokenizer.json"
        if not file.is_file():
            return None
        kind = class_of(next(iter(self._classes), None), self.hf_config.get("model_type"), file)
        if kind is None:
            return None
        backend = _read_backend(file)
        own = {token.content: token for token in backend.get_added_tokens_decoder().values()}
        if not self._settled(own, kind.settings):
            return None
        if kind.tokens is None:
            return backend if kind.make(backend, self._config) else None
        said = self._config if "added_tokens_decoder" in self._config else {**self._config, **self._special_tokens}
        unsaid = {token for key, token in kind.tokens.items() if key not in said}
        if not unsaid <= own.keys() or not _in_order(backend) or not kind.make(backend, said):
            return None
        for token in (own[name] for name in unsaid if not own[name].special):  # the class makes its own tokens special
            token.special = True
            backend.add_special_tokens([token])
        return backend

    def _settled(self, own: Mapping[str, Any], settings: frozenset[str]) -> bool:
        """Whether what the files beside tokenizer.json say is in it already, but for `settings`; `own`: its added tokens."""
        said = self._config
        tokens = {key for key in said.keys() - _HARMLESS if _names_tokens(key)}
        off = {key for key in _OFF if said.get(key) is False}
        if said.keys() - _HARMLESS - settings - tokens - off - {"added_tokens_decoder"}:
            return False
        if not all(said[key] is None or (_are_tokens if key in _TOKEN_LISTS else _is_token)(said[key]) for key in tokens):
            return False
        named = {token for key in tokens for token in _contents(said[key])}
        if "added_tokens_decoder" not in said:
            if (self.directory / "added_tokens.json").is_file() or not all(map(_names_tokens, self._special_tokens)):
                return False
            named |= {*_contents(self._special_tokens)}
        else:
            states, listed = [token.__getstate__() for token in own.values()], said["added_tokens_decoder"]
            same = isinstance(listed, dict) and {*_contents(listed)} == own.keys()
            if not same or not all(token in states for token in listed.values()):
                return False
        return all(name in own and own[name].special for name in named)


def text_length(directory: Path) -> int | None:
    """Tokens of a text at most, as a directory's tokenizer says it; None where it does not, or says a number beyond reason."""
    file = directory / TOKENIZER_CONFIG
    said = read_object(file).get("model_max_length") if file.is_file() else None
    return said if type(said) is int and 0 < said < _ENDLESS else None


def write_text_length(directory: Path, length: int) -> None:
    """Make a directory's tokenizer say it, where transformers looks for it."""
    file = directory / TOKENIZER_CONFIG
    said = read_object(file) if file.is_file() else {}
    file.write_text(json.dumps(said | {"model_max_length": length}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _read_backend(file: Path) -> Any:
    from tokenizers import Tokenizer

    refuse_pointer(file)
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # of no narrower kind
        raise GraftaxError(f"{file}: no tokenizer that can be read ({error}).") from error


def _names_tokens(key: str) -> bool:
    return key.endswith("_token") or key in _TOKEN_LISTS


def _is_token(value: Any) -> bool:
    """Whether transformers takes a value for a token."""
    return isinstance(value, str) or (isinstance(value, dict) and value.get("__type") == "AddedToken")


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_token, value))


def _in_order(backend: Any) -> bool:
    """Whether the added tokens have the ids that they get when they are added to the vocabulary, one behind another."""
    count, beyond = backend.get_vocab_size(with_added_tokens=False), 0
    for i, token in sorted(backend.get_added_tokens_decoder().items()):
        known = backend.model.token_to_id(token.content)
        if i != (count + beyond if known is None else known):
            return False
        beyond += known is None
    return True


def _contents(value: Any) -> Iterator[str]:
    """The texts of the tokens that a value of these files names: a text, a token with its flags, or a collection of either."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and "content" in value:
        yield str(value["content"])
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _contents(one)
