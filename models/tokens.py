"""Text to token ids, with the backbone's own tokenizer (`tokenizer_files.py`), and the ladder of lengths that predictions are
padded to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraftaxError
from ..notes import note
from .chat import AS_TRAINED, TEMPLATES, is_named, marked, render, template_of
from .inputs import Inputs, Texts
from .tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from ..data.batches import Shape
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
    row's own, some of which may have no token. `target [tokens]`: what a decoder reads beside the row. `cut`: whether the text
    has more tokens, beyond the length limit.
    """

    __slots__ = ("count", "cut", "ids", "target", "types", "words")

    def __init__(
        self,
        ids: np.ndarray,
        types: np.ndarray,
        words: np.ndarray | None,
        target: np.ndarray | None = None,
        count: int = 0,
        cut: bool = False,
    ):
        self.ids, self.types, self.words, self.target, self.count, self.cut = ids, types, words, target, count, cut

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """The tokenizer in a backbone's directory.

    `max_tokens`, the longest row the backbone's positions allow, bounds every `max_length`. `files` is None for a backbone that
    has no directory. Of its tokens the backbone may embed less than all: some that no text should hold are beyond its table.
    """

    def __init__(
        self,
        files: TokenizerFiles | None,
        max_tokens: int,
        pad_id: int,
        type_vocab_size: int,
        vocab_size: int,
        eos_ids: tuple[int, ...] = (),
        start_id: int = 0,
    ):
        self.files, self.max_tokens, self.pad_id, self.types = files, max_tokens, pad_id, type_vocab_size > 1
        self.vocab_size, self.eos_ids, self.start_id = vocab_size, eos_ids, start_id
        self.chat_template: str | None = None  # in place of the tokenizer's own
        self.trusting, self.foreign = (
            False,
            False,
        )  # whether templates of adapters may run, and whether this is one that may not

    @classmethod
    def of(cls, backbone: Backbone, chat_template: str | None = None) -> Tokenizer:
        """`chat_template`: see `with_template`."""
        config, files = backbone.config, None
        eos, start = config.eos_ids, config.start_id
        if backbone.directory is not None:
            files = TokenizerFiles(Path(backbone.directory), backbone.hf_config or {}, eos)
        made = cls(files, config.max_tokens, config.pad_id, config.type_vocab_size, config.vocab_size, eos, start)
        return made.with_template(chat_template)

    def with_template(self, given: str | None) -> Tokenizer:
        """The same, with another template for chats: a name of `chat.TEMPLATES`, or a Jinja text; None: as it is.

        Where it is `chat.AS_TRAINED`, `of_adapter` will take any.
        """
        if given is None:
            return self
        other = copy.copy(self)
        if given == AS_TRAINED:
            other.trusting = True
            return other
        other.chat_template = template_of(given)
        end = TEMPLATES[given][1] if given in TEMPLATES else ""
        if end and self.backend.token_to_id(end) not in self.eos_ids:
            what = f"chat template {given!r} ends a turn with {end}, which is not among the tokens that end a text here"
            advice = "name it in eos_token_id of generation_config.json, or use the template 'plain' or one of your own"
            raise GraftaxError(f"{self._files.directory}: {what}; {advice}.")
        return other

    def of_adapter(self, recipe: Mapping[str, Any]) -> Tokenizer:
        """The same, with the template with which an adapter was trained, unless another was given.

        One that may not run (`chat.py` says which) is refused where a chat needs it.
        """
        if self.chat_template is not None or recipe.get("chat_template") is None:
            return self
        other = copy.copy(self)
        other.chat_template = template_of(recipe["chat_template"])
        other.foreign = not (self.trusting or is_named(other.chat_template))
        return other

    @property
    def _files(self) -> TokenizerFiles:
        if self.files is None:
            raise GraftaxError("this backbone was made without a directory, so it has no tokenizer.")
        return self.files

    @property
    def backend(self) -> Any:
        return self._files.backends[0]

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text in training: the tokenizer's own where generation ends with it, else the first such."""
        if self.files is not None and self.files.eos_id in self.eos_ids:
            return self.files.eos_id
        return next(iter(self.eos_ids), None)

    def ids(self, texts: Sequence[str], special: bool = True, written: bool = False) -> list[np.ndarray]:
        """Token ids of whole texts, int32, with the tokenizer's own special tokens or without; `written`: of targets."""
        return [self._array(e.ids) for e in self._encoded(texts, special, written)]

    def prompts(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of texts that are to go on: with what the tokenizer puts before a text, without what it puts behind."""
        encoded = self._encoded(texts, special=True, written=False)
        return [self._array(e.ids[: _end_of_text(e.special_tokens_mask)]) for e in encoded]

    def ended(self, ids: np.ndarray) -> np.ndarray:
        """Token ids and the one that ends a text behind them, unless such a one is there: some tokenizers put it there."""
        if self.eos_id is None or (len(ids) and int(ids[-1]) in self.eos_ids):
            return ids
        return np.append(ids, self.eos_id).astype(np.int32)

    def _encoded(self, texts: Sequence[str], special: bool, written: bool) -> list[Any]:
        backend = self._files.backends[written]
        backend.no_truncation()
        return self._tried(backend.encode_batch_fast, list(texts), add_special_tokens=special)

    def _tried(self, encode: Callable[..., list[Any]], batch: list[Any], **options: Any) -> list[Any]:
        try:
            return encode(batch, **options)
        except TypeError as error:  # half of a surrogate pair, say, which JSON can hold
            raise GraftaxError("a row holds what is no Unicode text.") from error
        except Exception as error:  # of no narrower kind: a vocabulary that lacks the token for what is not in it, say
            raise GraftaxError(f"{self._files.directory}: its tokenizer cannot read a row ({error}).") from error

    def _array(self, ids: Sequence[int]) -> np.ndarray:
        """Token ids, int32, all of them in the backbone's table."""
        array = np.asarray(ids, np.int32)
        if (largest := array.max(initial=-1)) >= self.vocab_size:
            names = [backend.id_to_token(int(largest)) for backend in self._files.backends]
            both = (
                f"a row holds the token {names[0] or names[1]!r} with id {largest}, and the backbone embeds {self.vocab_size}"
            )
            raise GraftaxError(f"{self._files.directory}: {both}. For tokens that were added, resize it (docs/training.md).")
        return array

    def text(self, ids: Sequence[int]) -> str:
        """What token ids say, without special tokens."""
        return str(self._files.backends[1].decode(list(map(int, ids)), skip_special_tokens=True))

    def chat(self, messages: Sequence[Mapping[str, Any]], where: str, answer: bool = False) -> np.ndarray:
        """Token ids of a chat by the template (`chat.py`); with `answer` up to where the assistant is to speak.

        `where` names the chat in errors.
        """
        self._refuse_foreign(where)
        text = render(self._files.by_transformers, messages, self.chat_template, answer, where)
        return self.ids([text], special=False)[0]

    def marked_chat(self, messages: Sequence[Mapping[str, Any]], where: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Token ids of a whole chat, and which of them the assistant says (bool) as the template marks it; None: it does not.

        A token that ends texts, right behind what is marked, is said too: else no answer would learn to end.
        """
        self._refuse_foreign(where)
        found = marked(self._files.by_transformers, messages, self.chat_template, where)
        if found is None:
            return None
        ids, said = self._array(found[0]), np.asarray(found[1], bool)
        said[1:] |= said[:-1] & np.isin(ids[1:], self.eos_ids)
        return ids, said

    def _refuse_foreign(self, where: str) -> None:
        if self.foreign:
            raise GraftaxError(
                f"{where}: the adapter brings a chat template of its own, a program of whoever made it; it runs if you say so "
                f"(--chat-template {AS_TRAINED}, in Python chat_template={AS_TRAINED!r}), or give the template yourself."
            )

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 128) -> list[Tokens]:
        """Tokenize rows, cut to `max_length` tokens."""
        self._check(max_length)
        self.backend.enable_truncation(max_length)
        batch: Any = list(zip(texts, pairs, strict=True)) if pairs is not None else list(texts)
        encoded = self._tried(self.backend.encode_batch_fast, batch)
        return [Tokens(self._array(e.ids), self._types_of(e), None, cut=bool(e.overflowing)) for e in encoded]

    def pieces(self, texts: Sequence[Sequence[str]], max_length: int = 128) -> list[list[Tokens]]:
        """Tokenize lists of words, each as a row or, if it has more than `max_length` tokens, as several pieces.

        A piece begins with the last tokens of the one before, a quarter of what it holds, so that its first words have some
        context. A word belongs to the piece that has its first token first. Those without a token belong to a piece, too: the
        words of a text's pieces, behind one another, are the text's.
        """
        self._check(max_length)
        room = max_length - self.backend.num_special_tokens_to_add(is_pair=False)
        self.backend.enable_truncation(max_length, stride=max(0, room // 4))
        encoded = self._tried(self.backend.encode_batch, [list(words) for words in texts], is_pretokenized=True)
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
            Tokens(self._array(part.ids), self._types_of(part), np.where(own < 0, -1, own - begin), count=end - begin)
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


def note_cut(name: str, count: int, rows: int, max_length: int) -> None:
    """A note of how many of the rows of `name` are cut; none where none is."""
    if count:
        note(f"{name}: {count} of {rows} rows cut at {max_length} tokens (max_length).")


def _end_of_text(special: Sequence[int]) -> int:
    """Where the tokens that a tokenizer puts behind a text begin; `special`: 1 for those that it puts anywhere."""
    end = len(special)
    while end and special[end - 1]:
        end -= 1
    return end
