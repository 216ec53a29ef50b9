"""What an input is made of, by kind of input: fragments that can be taken away, and what is left when all are.

| input    | positions | a fragment                           | what is in its place when it is taken away              |
|----------|-----------|--------------------------------------|---------------------------------------------------------|
| pictures | pixels    | a cell of a grid, of 14 x 14 at most | the picture's mean colour                               |
| texts    | tokens    | a token, if it is one of the text    | `[MASK]` or `<mask>`, or padding where there is neither |

An input without any of its fragments is *blank*. What is taken away of a picture are cells and not single pixels, for speckles
of another colour harm a network whatever they cover.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...models.inputs import ImageInputs, TextInputs
from ...models.pictures import Pictures, Pixels
from ...models.processor import Processor
from ...models.tokens import Tokenizer, Tokens

NO_FRAGMENT = -1  # of a position: it stays, whatever is taken away
_CELLS = 14  # on each side of a picture, at most
_MASKS = ("[MASK]", "<mask>")


class Kind(ABC):
    """Input of one kind, as a processor lays it."""

    @abstractmethod
    def fragments(self, fields: Mapping[str, Any], max_length: int) -> np.ndarray:
        """The number of the fragment, from 0, that each position of a row with these fields belongs to; or `NO_FRAGMENT`."""

    @abstractmethod
    def moved(self, attributed: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """What is attributed to the fragments of a row, `[fragments]`, at others of them, drawn at random."""

    @abstractmethod
    def shown(self, fields: Mapping[str, Any], item: Any, max_length: int) -> tuple[str, tuple[Any, ...]]:
        """What a row is called, "" where it has no name; and what there is to be seen of it: its pixels, or texts and spans."""

    @abstractmethod
    def positions(self, inputs: Any) -> tuple[int, ...]:
        """The shape of a row's positions in a batch."""

    @abstractmethod
    def blank(self, inputs: Any, fragments: np.ndarray) -> Any:
        """Inputs without their fragments; `fragments`: of all rows, with an axis for them."""

    @abstractmethod
    def kept(self, inputs: Any, blank: Any, kept: jax.Array) -> Any:
        """Inputs of which the positions are left where `kept` `[rows, *positions]` is True. To be traced."""


class OfPictures(Kind):
    """Positions are pixels, `[height, width]`."""

    def __init__(self, processor: Pictures):
        self._processor = processor

    def fragments(self, fields: Mapping[str, Any], max_length: int) -> np.ndarray:
        down, across = (
            np.arange(side, dtype=np.int32) * cells // side
            for side, cells in zip(self._processor.shape[:2], self._cells, strict=True)
        )
        return down[:, None] * np.int32(self._cells[1]) + across

    @property
    def _cells(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        high, wide, _ = self._processor.shape
        return min(_CELLS, high), min(_CELLS, wide)

    def moved(self, attributed: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Moved as a whole, around the picture's edges, and mirrored or not, across and upside down."""
        rolled = np.roll(attributed.reshape(self._cells), random.integers(0, self._cells), (0, 1))
        return rolled[:: random.choice((1, -1)), :: random.choice((1, -1))].ravel()

    def shown(self, fields: Mapping[str, Any], item: Pixels, max_length: int) -> tuple[str, tuple[Any, ...]]:
        content = fields["image"].content
        return content.name if isinstance(content, Path) else "", (item.array,)

    def positions(self, inputs: ImageInputs) -> tuple[int, ...]:
        return tuple(inputs.pixels.shape[1:3])

    def blank(self, inputs: ImageInputs, fragments: np.ndarray) -> ImageInputs:
        mean = inputs.pixels.mean((1, 2), keepdims=True)
        return ImageInputs(np.ascontiguousarray(np.broadcast_to(mean, inputs.pixels.shape)))

    def kept(self, inputs: ImageInputs, blank: ImageInputs, kept: jax.Array) -> ImageInputs:
        return ImageInputs(jnp.where(kept[..., None], inputs.pixels, blank.pixels))


class OfTexts(Kind):
    """Positions are tokens, `[tokens]`."""

    def __init__(self, processor: Tokenizer):
        self._processor = processor
        masks = (processor.backend.token_to_id(name) for name in _MASKS)
        self._blank = next((token for token in masks if token is not None), processor.pad_id)

    def fragments(self, fields: Mapping[str, Any], max_length: int) -> np.ndarray:
        real = np.array([span is not None for span in self._processor.spans([*fields.values()], max_length)])
        return np.where(real, np.cumsum(real) - 1, NO_FRAGMENT).astype(np.int32)

    def moved(self, attributed: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return random.permutation(attributed)

    def shown(self, fields: Mapping[str, Any], item: Tokens, max_length: int) -> tuple[str, tuple[Any, ...]]:
        texts = tuple(fields.values())
        return "", (None, texts, tuple(span for span in self._processor.spans(texts, max_length) if span is not None))

    def positions(self, inputs: TextInputs) -> tuple[int, ...]:
        return tuple(inputs.ids.shape[1:])

    def blank(self, inputs: TextInputs, fragments: np.ndarray) -> TextInputs:
        return inputs._replace(ids=np.where(fragments == NO_FRAGMENT, inputs.ids, np.int32(self._blank)))

    def kept(self, inputs: TextInputs, blank: TextInputs, kept: jax.Array) -> TextInputs:
        return inputs._replace(ids=jnp.where(kept, inputs.ids, blank.ids))


def kind_of(processor: Processor) -> Kind:
    """GraftaxError for input that is neither pictures nor texts."""
    if isinstance(processor, Pictures):
        return OfPictures(processor)
    if isinstance(processor, Tokenizer):
        return OfTexts(processor)
    raise GraftaxError(f"explained are pictures and texts, and this backbone reads input of kind {processor.kind!r}.")


def laid(fragments: Sequence[np.ndarray], count: int, positions: tuple[int, ...]) -> np.ndarray:
    """The fragments of rows in one array `[count, *positions]`; what no row has is `NO_FRAGMENT`."""
    array = np.full((count, *positions), NO_FRAGMENT, np.int32)
    for row, own in enumerate(fragments):
        array[row][tuple(map(slice, own.shape))] = own
    return array


def sums(values: np.ndarray, fragments: np.ndarray) -> np.ndarray:
    """What the positions of each fragment of a row have together, `[fragments]`."""
    inside = fragments != NO_FRAGMENT
    return np.bincount(fragments[inside], values[inside], minlength=int(fragments.max(initial=NO_FRAGMENT)) + 1)
