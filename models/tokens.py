"""Text to token ids, with the backbone's own tokenizer, and the ladder of lengths that predictions are padded to.

Reads `tokenizer.json` through `tokenizers` (30 ms to import); only a directory without one goes through transformers' slow
conversion (more than a second).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraftaxError
from .characters import read_pair
from .inputs import Inputs, Texts

if TYPE_CHECKING:
    from ..train.batches import Shape
    from .backbone import Backbone


def rung(length: int, limit: int) -> int:
    """The shortest padded length that holds `length` tokens, at most `limit`.

    A program is compiled per length, so rows are padded to 8, 12, 16, 24, 32, 48, ...: at most 1.5 times their own from 8 on.
    """
    double = max(8, 1 << (length - 1).bit_length())
    between = double * 3 // 4
    return min(between if length <= between and between > 8 else double, limit)


class Tokens:
    """One tokenized row: `ids` and `types [tokens]`; of words `words [tokens]`, the index of each token's word.

    It is -1 for special tokens, and for words that belong to the piece before (`Tokenizer.pieces`). `count`: words that are the
    row's own, some of which may have no token. `target [tokens]`: what a decoder reads beside the row.
    """

    __slots__ = ("count", "ids", "target", "types", "words")

    def __init__(
        self, ids: np.ndarray, types: np.ndarray, words: np.ndarray | None, target: np.ndarray | None = None, count: int = 0
    ):
        self.ids, self.types, self.words, self.target, self.count = ids, types, words, target, count

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """The tokenizer in a backbone's directory.

    `max_tokens`, the longest row the backbone's positions allow, bounds every `max_length`.
    """

    def __init__(
        self,
        directory: str | None,
        max_tokens: int,
        pad_id: int,
        type_vocab_size: int,
        vocab_size: int,
        eos_id: int | None = None,
        start_id: int = 0,
    ):
        self.directory, self.max_tokens, self.pad_id, self.types = directory, max_tokens, pad_id, type_vocab_size > 1
        self.vocab_size, self.eos_id, self.start_id = vocab_size, eos_id, start_id

    @classmethod
    def of(cls, backbone: Backbone) -> Tokenizer:
        config = backbone.config
        eos, start = next(iter(getattr(config, "eos_ids", ())), None), getattr(config, "start_id", 0)
        return cls(backbone.directory, config.max_tokens, config.pad_id, config.type_vocab_size, config.vocab_size, eos, start)

    @property
    def backend(self) -> Any:
        return self._backends[0]

    @cached_property
    def _backends(self) -> tuple[Any, Any]:
        """Of what is read and of what is written: mostly one."""
        from tokenizers import Tokenizer as Backend

        if self.directory is None:
            raise GraftaxError("this backbone was made without a directory, so it has no tokenizer.")
        file = Path(self.directory) / "tokenizer.json"
        if file.is_file():
            backends = (Backend.from_file(str(file)),) * 2
        elif (found := read_pair(Path(self.directory), self.eos_id)) is not None:
            backends = found
        else:
            from transformers import AutoTokenizer

            try:
                backends = (AutoTokenizer.from_pretrained(self.directory).backend_tokenizer,) * 2
            except Exception as error:  # whatever transformers raises here means the same to the user
                raise GraftaxError(f"{self.directory}: no tokenizer there that can be loaded ({error}).") from error
        for backend in backends:
            backend.no_padding()
            if backend.get_vocab_size() > self.vocab_size:
                both = f"its tokenizer has {backend.get_vocab_size()} tokens, and the backbone embeds {self.vocab_size}"
                raise GraftaxError(
                    f"{self.directory}: {both}. For tokens that were added, resize the backbone (docs/training.md)."
                )
        return backends

    def ids(self, texts: Sequence[str], special: bool = True, written: bool = False) -> list[np.ndarray]:
        """Token ids of whole texts, int32, with the tokenizer's own special tokens or without; `written`: of targets."""
        backend = self._backends[written]
        backend.no_truncation()
        try:
            encoded = backend.encode_batch_fast(list(texts), add_special_tokens=special)
        except TypeError as error:
            raise GraftaxError("a row holds what is no Unicode text.") from error
        return [np.asarray(e.ids, np.int32) for e in encoded]

    def text(self, ids: Sequence[int]) -> str:
        """What token ids say, without special tokens."""
        return str(self._backends[1].decode(list(map(int, ids)), skip_special_tokens=True))

    @cached_property
    def _templated(self) -> Any:
        """transformers' tokenizer, for its chat template."""
        from transformers import AutoTokenizer

        made = AutoTokenizer.from_pretrained(self.directory)
        if not made.chat_template:
            raise GraftaxError(f"{self.directory}: its tokenizer has no chat template; give prompts and completions.")
        return made

    def chat(self, messages: Sequence[Mapping[str, Any]], answer: bool = False) -> np.ndarray:
        """Token ids of a chat by the tokenizer's template; with `answer` up to where the assistant is to speak."""
        text = self._templated.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer)
        return self.ids([text], special=False)[0]

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128) -> list[Tokens]:
        """Tokenize rows, cut to `max_length` tokens."""
        self._check(max_length)
        self.backend.enable_truncation(max_length)
        batch: Any = list(zip(texts, pairs, strict=True)) if pairs is not None else list(texts)
        try:
            encoded = self.backend.encode_batch_fast(batch)
        except TypeError as error:  # half of a surrogate pair, say, which JSON can hold
            raise GraftaxError("a row holds what is no Unicode text.") from error
        return [Tokens(np.asarray(e.ids, np.int32), self._types_of(e), None) for e in encoded]

    def pieces(self, texts: Sequence[Sequence[str]], max_length: int = 128) -> list[list[Tokens]]:
        """Tokenize lists of words, each as a row or, if it has more than `max_length` tokens, as several pieces.

        A piece begins with the last tokens of the one before, a quarter of what it holds, so that its first words have some
        context. A word belongs to the piece that has its first token first. Those without a token belong to a piece, too: the
        words of a text's pieces, behind one another, are the text's.
        """
        self._check(max_length)
        room = max_length - self.backend.num_special_tokens_to_add(is_pair=False)
        self.backend.enable_truncation(max_length, stride=max(0, room // 4))
        try:
            encoded = self.backend.encode_batch([list(words) for words in texts], is_pretokenized=True)
        except TypeError as error:
            raise GraftaxError("a row holds what is no Unicode text.") from error
        return [self._pieces_of(whole, len(words)) for whole, words in zip(encoded, texts, strict=True)]

    def _pieces_of(self, encoded: Any, count: int) -> list[Tokens]:
        """The pieces of a text of `count` words, encoded with what overflowed."""
        found: list[tuple[Any, np.ndarray, int]] = []
        last = -1  # word that was begun
        for part in (encoded, *encoded.overflowing):
            words = np.array([-1 if word is None else word for word in part.word_ids], np.int32)
            own = np.where(words > last, words, -1)
            if not found or (own >= 0).any():
                found.append((part, own, max(0, last + 1)))
            last = max(last, int(words.max(initial=-1)))
        ends = [*(begin for _, _, begin in found[1:]), count]
        return [
            Tokens(np.asarray(part.ids, np.int32), self._types_of(part), np.where(own < 0, -1, own - begin), count=end - begin)
            for (part, own, begin), end in zip(found, ends, strict=True)
        ]

    def _types_of(self, encoded: Any) -> np.ndarray:
        return np.asarray(encoded.type_ids, np.int32) if self.types else np.zeros(len(encoded.ids), np.int32)

    def _check(self, max_length: int) -> None:
        if max_length > self.max_tokens:
            raise GraftaxError(f"max length {max_length} is more than the {self.max_tokens} tokens this backbone takes.")

    def pad(self, rows: Sequence[Tokens], count: int, length: int, target: int = 0) -> Inputs:
        """Rows in a batch of `[count, length]`, and their targets in `[count, target]`.

        A filling row has one visible pad token, so that its attention is defined.
        """
        ids = np.full((count, length), self.pad_id, np.int32)
        types = np.zeros((count, length), np.int32)
        mask = np.zeros((count, length), bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row.ids
            types[i, : len(row)] = row.types
            mask[i, : len(row)] = True
        mask[len(rows) :, 0] = True
        if not target:
            return Inputs(ids, mask, types)
        read = [Tokens(row.target, np.zeros_like(row.target), None) for row in rows if row.target is not None]
        return Inputs(ids, mask, types, target=self.pad(read, count, target))

    def lay(self, texts: Sequence[Tokens], places: Sequence[tuple[int, int]], shape: Shape) -> Inputs:
        """Texts in a batch of a shape, each at its row and first token; missing texts begin at 0."""
        if not shape.shared:
            return self.pad(texts, shape.rows, shape.tokens, shape.target)
        size = (shape.rows, shape.tokens)
        ids = np.full(size, self.pad_id, np.int32)
        types, segments = np.zeros(size, np.int32), np.zeros(size, np.int32)
        first = np.zeros(shape.texts, np.int32)
        for i, (text, (row, begin)) in enumerate(zip(texts, places, strict=True)):
            at = (row, slice(begin, begin + len(text)))
            ids[at], types[at], segments[at] = text.ids, text.types, i + 1
            first[i] = row * size[1] + begin
        return Inputs(ids, segments > 0, types, Texts(segments, first))
