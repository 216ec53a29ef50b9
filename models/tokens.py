"""The processor of texts: text to token ids, with the backbone's own tokenizer (`tokenizer_files.py`), and these in batches.

Several short texts may share a batch row, behind one another (`inputs.Texts`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..data.batches import Shape, rung, shape_alone, shape_for
from ..data.columns import Field
from ..data.values import text_of
from ..errors import GraftaxError
from .chat import AS_TRAINED, TEMPLATES, is_named, marked, render, template_of
from .gguf_tokenizer import GgufTokenizer
from .inputs import TextInputs, Texts
from .pooling import Pooling
from .processor import Processor
from .text_rows import text_asked
from .token_bytes import TokenBytes
from .tokenizer_files import TokenizerFiles, write_text_length

if TYPE_CHECKING:
    from ..data.prepared import Prepared
    from .backbone import Backbone

_MEASURED = 1024  # tokens of a batch that is measured; but
_MEASURED_ROWS = 8  # batch rows at least
_NARROWEST = 64  # tokens of a batch row that texts share
_SHORTEST = 4  # tokens of a text, for the room a batch has for texts


class Tokens:
    """One tokenized text: `ids` and `types [tokens]`; of words `words [tokens]`, the index of each token's word.

    It is -1 for special tokens, and for words that belong to the piece before (`Tokenizer.pieces`). `count`: words that are the
    text's own, some of which may have no token. `target [tokens]`: what a decoder reads beside the text. `cut`: whether the
    text has more tokens, beyond the length limit.
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

    @property
    def target_length(self) -> int:
        return 0 if self.target is None else len(self.target)

    def tobytes(self) -> bytes:
        return self.ids.tobytes() if self.target is None else self.ids.tobytes() + self.target.tobytes()


class Span(NamedTuple):
    """What a token was made of: the characters from `begin` to `end` of a row's first text (0) or its second (1)."""

    text: int
    begin: int
    end: int


class Tokenizer(Processor):
    """The tokenizer in a backbone's directory.

    `max_length`, the longest text that the backbone's positions allow, bounds every other. `files` is None for a backbone that
    has no directory. Of its tokens the backbone may embed less than all: some that no text should hold are beyond its table.
    """

    kind = "text"
    fields = (Field("text", text_of), Field("pair", text_of, read="named"))
    sequences = True

    def __init__(
        self,
        files: TokenizerFiles | GgufTokenizer | None,
        max_length: int,
        pad_id: int,
        type_vocab_size: int,
        vocab_size: int,
        eos_ids: tuple[int, ...] = (),
        start_id: int = 0,
    ):
        self.files, self.max_length, self.pad_id, self.types = files, max_length, pad_id, type_vocab_size > 1
        self.vocab_size, self.eos_ids, self.start_id = vocab_size, eos_ids, start_id
        self.chat_template: str | None = None  # in place of the tokenizer's own
        self.trusting, self.foreign = (
            False,
            False,
        )  # whether templates of adapters may run, and whether this is one that may not

    @classmethod
    def of(cls, backbone: Backbone, chat_template: str | None = None) -> Tokenizer:
        """`chat_template`: see `with_template`."""
        config: Any = backbone.config
        files: TokenizerFiles | GgufTokenizer | None = None
        eos, start = config.eos_ids, config.start_id
        if backbone.directory is not None:
            files = _files_in(Path(backbone.directory), backbone.hf_config or {}, eos)
        made = cls(files, config.max_tokens, config.pad_id, config.type_vocab_size, config.vocab_size, eos, start)
        return made.with_template(chat_template)

    def for_training(self, recipe: Any) -> Tokenizer:
        return self.with_template(recipe.chat_template)

    def for_measuring(self, chat_template: str | None, recipe: Mapping[str, Any]) -> Tokenizer:
        return self.with_template(chat_template).of_adapter(recipe)

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
    def _files(self) -> TokenizerFiles | GgufTokenizer:
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

    @cached_property
    def bytes_of(self) -> TokenBytes:
        """What each token of a text that is written stands for."""
        return TokenBytes(self._files.backends[1])

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

    def spans(self, texts: Sequence[str], max_length: int = 128) -> list[Span | None]:
        """Where each token of a row, a text or a pair of them, lies in it; None of what the tokenizer adds."""
        self._check(max_length)
        self.backend.enable_truncation(max_length)
        (encoded,) = self._tried(self.backend.encode_batch, [tuple(texts) if len(texts) == 2 else texts[0]])
        each = zip(encoded.sequence_ids, encoded.offsets, strict=True)
        return [None if which is None else Span(which, *offsets) for which, offsets in each]

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
        if max_length > self.max_length:
            raise GraftaxError(f"max length {max_length} is more than the {self.max_length} tokens this backbone takes.")

    # -- as a processor -------------------------------------------------------------------------------------------------

    def items(self, fields: Mapping[str, Sequence[Any]], max_length: int) -> list[Tokens]:
        return self(fields["text"], fields.get("pair"), max_length)

    def asked(self, row: Any, where: str, adapter: str | None) -> dict[str, Any]:
        text = text_asked(row, where, adapter)
        return {"text": text} if isinstance(text, str) else dict(zip(("text", "pair"), text, strict=True))

    def told(self, line: Mapping[str, Any], where: str, folder: Path) -> Any:
        """A text or words under "text", and perhaps a second text under "text_pair"."""
        if not isinstance(line.get("text"), str | list):
            raise GraftaxError(f'{where} has no "text".')
        if not isinstance(line.get("text_pair"), str | None):
            raise GraftaxError(f'{where}: "text_pair" must be a text.')
        return (line["text"], line["text_pair"]) if line.get("text_pair") else line["text"]

    def row_of(self, fields: Mapping[str, Any]) -> Any:
        return (fields["text"], fields["pair"]) if "pair" in fields else fields["text"]

    def room(self, taken: int) -> int:
        return self.max_length - taken

    def refuse_length(self, max_length: int, taken: int) -> None:
        most = self.room(taken)
        if max_length > most:
            raise GraftaxError(f"max length {max_length} is more than the {most} tokens this backbone takes here.")

    def shape_to_train(self, parts: Sequence[Prepared], batch_size: int, seed: int, epochs: int, *, alone: bool) -> Shape:
        texts = parts[0]
        if alone:
            longest = max(length for part in parts for length in part.lengths)
            return shape_alone(longest, batch_size, texts.together, max(part.longest_target for part in parts))
        longest = max(length for part in parts for length in part.wholes)
        return shape_for(texts.lengths, longest, batch_size, seed, epochs, texts.together)

    def shape_to_measure(self, prepared: Prepared, *, alone: bool) -> Shape:
        if alone or prepared.longest_target:
            return shape_alone(max(prepared.lengths), _MEASURED_ROWS, prepared.together, prepared.longest_target)
        width = max(_NARROWEST, 1 << (max(prepared.wholes) - 1).bit_length())
        rows = max(_MEASURED_ROWS, _MEASURED // width)
        return Shape(rows * width // _SHORTEST, rows, width, together=prepared.together)

    def shape_to_ask(self, items: Sequence[Tokens], count: int) -> Shape:
        return Shape(count, count, rung(max(map(len, items)), self.max_length), shared=False)

    def lay(self, items: Sequence[Tokens], places: Sequence[tuple[int, int]], shape: Shape) -> TextInputs:
        if not shape.shared:
            return self.pad(items, shape.rows, shape.length, shape.target)
        size = (shape.rows, shape.length)
        ids = np.full(size, self.pad_id, np.int32)
        types, segments = np.zeros(size, np.int32), np.zeros(size, np.int32)
        first = np.zeros(shape.items, np.int32)  # 0 for texts that are not there
        for i, (text, (row, begin)) in enumerate(zip(items, places, strict=True)):
            cells = (row, slice(begin, begin + len(text)))
            ids[cells], types[cells], segments[cells] = text.ids, text.types, i + 1
            first[i] = row * size[1] + begin
        return TextInputs(ids, segments > 0, types, Texts(segments, first))

    def pad(self, texts: Sequence[Tokens], count: int, length: int, target: int = 0) -> TextInputs:
        """Texts in a batch of `[count, length]`, a batch row each, and their targets in `[count, target]`.

        A filling batch row has one visible pad token, so that its attention is defined.
        """
        ids = np.full((count, length), self.pad_id, np.int32)
        types = np.zeros((count, length), np.int32)
        mask = np.zeros((count, length), bool)
        for i, text in enumerate(texts):
            ids[i, : len(text)] = text.ids
            types[i, : len(text)] = text.types
            mask[i, : len(text)] = True
        mask[len(texts) :, 0] = True
        if not target:
            return TextInputs(ids, mask, types)
        read = [Tokens(text.target, np.zeros_like(text.target), None) for text in texts if text.target is not None]
        return TextInputs(ids, mask, types, target=self.pad(read, count, target))

    def random_inputs(self, count: int) -> TextInputs:
        ids = np.random.default_rng(0).integers(0, self.vocab_size, (count, min(32, self.max_length))).astype(np.int32)
        ids[ids == self.pad_id] = (self.pad_id + 1) % self.vocab_size
        return TextInputs(ids, np.ones(ids.shape, bool), np.zeros_like(ids))

    def keep_length(self, directory: Path, length: int) -> None:
        write_text_length(directory, length)

    def with_hidden(self, hidden: Any, inputs: TextInputs | None) -> TextInputs:
        if inputs is not None:
            return inputs._replace(types=None, hidden=hidden)
        size = (len(hidden), 1)  # batch rows of one token, the one that is left of each text
        return TextInputs(np.zeros(size, np.int32), np.ones(size, bool), None, hidden=hidden)

    @cached_property
    def pooling(self) -> Pooling:
        """How the last layer becomes a vector; GraftaxError where that cannot be computed."""
        return Pooling.of(None if self.files is None else str(self.files.directory))

    @property
    def vector_length(self) -> int | None:
        return self.pooling.max_length

    def vector_size(self, hidden: int) -> int:
        return hidden * len(self.pooling.names)

    def vector_of(self, outputs: Any, inputs: TextInputs) -> jax.Array:
        return self.pooling(outputs.hidden, inputs.mask) if outputs.vector is None else outputs.vector.astype(jnp.float32)


def _files_in(place: Path, hf_config: Mapping[str, Any], eos_ids: tuple[int, ...]) -> TokenizerFiles | GgufTokenizer:
    """What a directory, or a GGUF file, says of its tokenizer."""
    return GgufTokenizer(place) if place.is_file() else TokenizerFiles(place, hf_config, eos_ids)


def _end_of_text(special: Sequence[int]) -> int:
    """Where the tokens that a tokenizer puts behind a text begin; `special`: 1 for those that it puts anywhere."""
    end = len(special)
    while end and special[end - 1]:
        end -= 1
    return end
