"""The processor of a pair of towers (`pairs.py`): an item is a picture and a text, each as its tower's processor makes it.

What is asked is a picture or a text, and an item has the one alone: `{"image": "a.jpg"}`, `{"text": "a cat"}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data.batches import Shape, rung
from ..data.columns import Field
from ..data.values import text_of
from ..errors import GraftaxError
from .inputs import Compared, PairInputs, TextInputs
from .pictures import Pictures, Pixels
from .processor import Processor
from .tokens import Tokenizer, Tokens

if TYPE_CHECKING:
    from ..data.prepared import Prepared
    from .backbone import Backbone


@dataclass(frozen=True, eq=False)
class Both:
    """A picture and a text, as `data.prepared.Item` has an item; of one that is asked, one of them alone."""

    image: Pixels | None
    text: Tokens | None

    @property
    def cut(self) -> bool:
        return self.text is not None and self.text.cut

    target_length = 0

    @property
    def ids(self) -> np.ndarray:
        """The tokens of its text."""
        assert self.text is not None, "a picture alone is asked about, and nothing learnt of it"
        return self.text.ids

    def __len__(self) -> int:
        """As many positions as the text has."""
        return 1 if self.text is None else len(self.text)

    def tobytes(self) -> bytes:
        return b"".join(part.tobytes() for part in (self.image, self.text) if part is not None)


class PairRows(Processor):
    """Pictures with texts about them, in columns `image` and `text`."""

    kind = "pair"
    several = True
    fields = (*Pictures.fields, Field("text", text_of))

    def __init__(self, pictures: Pictures, texts: Tokenizer, joined: bool):
        self.pictures, self.texts, self.joined, self.max_length = pictures, texts, joined, texts.max_length

    @classmethod
    def of(cls, backbone: Backbone) -> PairRows:
        image, text = backbone.config.towers
        return cls(image.family.processor.of(image), text.family.processor.of(text), backbone.config.joined)

    def items(self, fields: Mapping[str, Sequence[Any]], max_length: int) -> list[Both]:
        """Of rows with both, or of some that are asked, which have one of both."""
        count = len(next(iter(fields.values())))
        pictures = self.pictures.items({"image": fields["image"]}, 1) if "image" in fields else [None] * count
        texts = self.texts.items({"text": fields["text"]}, max_length) if "text" in fields else [None] * count
        return [Both(*both) for both in zip(pictures, texts, strict=True)]

    def asked(self, row: Any, where: str, adapter: str | None) -> dict[str, Any]:
        if not isinstance(row, Mapping) or len(own := [field for field in self.fields if field.name in row]) != 1:
            raise GraftaxError(f'{where}: of a pair of towers a row is {{"image": ...}} or {{"text": ...}}, one of the two.')
        (name,) = (field.name for field in own)
        return (self.texts if name == "text" else self.pictures).asked(row[name], where, adapter)

    def told(self, line: Mapping[str, Any], where: str, folder: Path) -> Any:
        own: Processor = self.texts if "text" in line else self.pictures
        return {"text" if "text" in line else "image": own.told(line, where, folder)}

    def row_of(self, fields: Mapping[str, Any]) -> Any:
        return dict(fields)

    def room(self, taken: int) -> int:
        return self.texts.room(taken)

    def refuse_length(self, max_length: int, taken: int) -> None:
        self.texts.refuse_length(max_length, taken)

    # -- batches: a batch row for each item -------------------------------------------------------------------------------

    def shape_to_train(self, parts: Sequence[Prepared], batch_size: int, seed: int, epochs: int, *, alone: bool) -> Shape:
        return self._shape([length for part in parts for length in part.lengths], batch_size)

    def shape_to_measure(self, prepared: Prepared, *, alone: bool) -> Shape:
        return self._shape(prepared.lengths, super().shape_to_measure(prepared, alone=alone).items)

    def shape_to_ask(self, items: Sequence[Both], count: int) -> Shape:
        return self._shape([len(item) for item in items], count)

    def _shape(self, lengths: Sequence[int], count: int) -> Shape:
        return Shape(count, count, rung(max(lengths), self.max_length), shared=False)

    def lay(self, items: Sequence[Both], places: Sequence[tuple[int, int]], shape: Shape) -> PairInputs:
        pictures = [(item.image, place) for item, place in zip(items, places, strict=True) if item.image is not None]
        image = None
        if pictures or not items:
            image = self.pictures.lay([picture for picture, _ in pictures], [place for _, place in pictures], shape)
        of_text = np.zeros(shape.rows, bool)
        of_text[[row for item, (row, _) in zip(items, places, strict=True) if item.image is None]] = True
        return PairInputs(image, self._texts(items, shape), of_text)

    def lay_beside(self, items: Sequence[Both], places: Sequence[tuple[int, int]], shape: Shape) -> PairInputs:
        return PairInputs(None, self._texts(items, shape))

    def _texts(self, items: Sequence[Both], shape: Shape) -> TextInputs | None:
        """The texts of items, each of which is a batch row; where only some have one, the others have a token of padding."""
        if items and all(item.text is None for item in items):
            return None
        nothing = np.array([self.texts.pad_id], np.int32)
        texts = [item.text or Tokens(nothing, np.zeros_like(nothing), None) for item in items]
        return self.texts.pad(texts, shape.rows, shape.length)

    def random_inputs(self, count: int) -> PairInputs:
        return PairInputs(self.pictures.random_inputs(count), self.texts.random_inputs(count), np.zeros(count, bool))

    def with_hidden(self, hidden: Any, inputs: PairInputs | None) -> PairInputs:
        return PairInputs(None, None if inputs is None else inputs.text, hidden=hidden)

    # -- vectors ----------------------------------------------------------------------------------------------------------

    def vector_size(self, hidden: int) -> int:
        """Of towers of one model, which say vectors of one size; what else is joined has the size that an adapter gives it."""
        return hidden // 2 if self.joined else 0

    @property
    def vector_length(self) -> int | None:
        return self.texts.vector_length

    def vector_of(self, outputs: Compared, inputs: PairInputs) -> jax.Array:
        """That of each item's picture or text, whichever it is."""
        image, text = outputs.image, outputs.text
        if image is not None and text is not None:
            return jnp.where(inputs.of_text[:, None], text, image)
        either = text if image is None else image
        assert either is not None
        return either
