"""What stands between rows and a backbone: a processor, which a family of backbones names.

    fields of an example  ->  an item, with a length  ->  a place in a batch  ->  inputs of the backbone

A text becomes token ids, of which a text has as many as it has; a picture becomes pixels, of one size for all. Whoever trains,
predicts or measures asks the processor, and nobody else knows which kind of input there is:

- `items` makes items of what examples have in the processor's `fields`; their lengths decide which are trained together
  (`data/batches.py`). An item without a length, such as a picture, has length 1.
- `shape_to_train`, `shape_to_measure` and `shape_to_ask` are the shapes of batches that hold a set of items.
- `lay` lays items out in a batch of such a shape: the inputs that the backbone's `forward` takes, a pytree.

What is here holds for items of one size, each with a batch row of its own; a processor whose items have lengths (`tokens.py`)
says more. docs/adding_a_processor.md walks through a new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import jax

from ..data.batches import Shape
from ..data.columns import Field
from ..data.values import Unreadable
from ..errors import GraftaxError
from ..typed import shown
from .inputs import features_of

if TYPE_CHECKING:
    from ..data.prepared import Prepared
    from .augment import Augment
    from .backbone import Backbone

_MEASURED = 64  # items in a batch that is measured


class UnreadableItems(GraftaxError):
    """Some of the examples cannot be read, and the others can."""

    def __init__(self, lines: Mapping[int, str]):
        """`lines`: of each that cannot, by its index, why not."""
        super().__init__(next(iter(lines.values())))
        self.lines = lines


class Augmented(NamedTuple):
    """What `Processor.augmented` gives."""

    inputs: Any
    share: jax.Array  # [items] that each item has in what then stands in its place
    masks: Any  # or boxes, of what then stands there


class Processor(ABC):
    """Base of the processors; see the module docstring."""

    kind: ClassVar[str]  # of input, in a word: "text", "image"
    fields: ClassVar[tuple[Field, ...]]  # what it reads of a row, beside what a task reads
    sequences: ClassVar[bool] = False  # whether items are sequences of positions, of which layers say something of each
    several: ClassVar[bool] = False  # whether an item is of several inputs, of which frozen layers may have seen some alone
    augments: ClassVar[bool] = False  # whether it has `augmented`
    max_length: int = 1  # positions of an item at most; of items without a length 1

    @classmethod
    @abstractmethod
    def of(cls, backbone: Backbone) -> Self:
        """That of a backbone, by its config and the files of its directory. GraftaxError where these do not say enough."""

    @abstractmethod
    def items(self, fields: Mapping[str, Sequence[Any]], max_length: int) -> list[Any]:
        """An item of each example, of what it has in the processor's fields; longer ones are cut to `max_length`.

        Raises GraftaxError for what cannot be read; UnreadableItems where all of the others can be.
        """

    def called(self, fields: Mapping[str, Sequence[Any]]) -> Sequence[str] | None:
        """What each example is called, where two that are the same are worth a note, as of pictures; None of texts."""
        return None

    @abstractmethod
    def lay(self, items: Sequence[Any], places: Sequence[tuple[int, int]], shape: Shape) -> Any:
        """Items in a batch of a shape, each at its batch row and first position: inputs, as NumPy arrays.

        There may be fewer items than the shape has room for; what fills the others is read by nobody.
        """

    def asked(self, row: Any, where: str, adapter: str | None) -> dict[str, Any]:
        """The fields of a row as a caller hands it to `Predictor.predict`: field -> value.

        Of a processor with one field the row is the field's value; of several a mapping from fields to values. `where` names
        the row in errors, `adapter` the adapter that answers it.
        """
        names = [field.name for field in self.fields]
        if isinstance(row, Mapping):
            if missing := [name for name in names if name not in row]:
                raise GraftaxError(f"{where} has no {', '.join(missing)}.")
            return {name: row[name] for name in names}
        if len(names) > 1:
            raise GraftaxError(f"{where} is {shown(row)}; a row is a mapping from {', '.join(names)} to values.")
        return {names[0]: row}

    def told(self, line: Mapping[str, Any], where: str, folder: Path) -> Any:
        """A row as `asked` takes it, of a line of a file or of standard input, whose keys are the names of fields.

        `folder`: what relative paths in the line are relative to.
        """
        values: dict[str, Any] = {}
        for field in self.fields:
            if field.name not in line:
                raise GraftaxError(f'{where} has no "{field.name}".')
            value = line[field.name]
            try:
                values[field.name] = field.meaning(value, where=where, folder=folder) if field.located else value
            except Unreadable as error:
                raise GraftaxError(f"{where}: {error}.") from None
        return self.row_of(values)

    def row_of(self, fields: Mapping[str, Any]) -> Any:
        """A row as `asked` takes it, of its fields."""
        return next(iter(fields.values())) if len(self.fields) == 1 else dict(fields)

    def augmented(self, policy: Augment, inputs: Any, keys: jax.Array, partners: jax.Array, masks: Any = None) -> Augmented:
        """Inputs as they are trained on. Pure.

        `keys [items]`: a random key of each. `partners [items]`: with which each may be mixed, which has the rest. `masks`:
        what is said of each of their pixels, uint8 `[items, height, width]`, or of boxes in them (`data.box_values.LaidBoxes`).
        """
        raise GraftaxError(f"input of kind {self.kind!r} is not augmented.")

    def lay_beside(self, items: Sequence[Any], places: Sequence[tuple[int, int]], shape: Shape) -> Any:
        """What the layers above frozen ones need of a batch beside what these have made of it: inputs, as `lay` gives them."""
        return self.lay(items, places, shape)

    def random_inputs(self, count: int) -> Any:
        """A batch of `count` made-up items, always the same, on which two backbones are compared; here of none but padding."""
        return self.lay([], [], Shape(count, count, shared=False))

    def keep_length(self, directory: Path, length: int) -> None:
        """Write into a backbone's directory how long the items are that are read with it; of items without a length nothing."""
        return

    # -- what a recipe, or an adapter's, says of it ---------------------------------------------------------------------

    def for_training(self, recipe: Any) -> Self:
        """The processor as a `Recipe` wants it."""
        return self.for_measuring(recipe.chat_template, {})

    def for_measuring(self, chat_template: str | None, recipe: Mapping[str, Any]) -> Self:
        """The processor for an adapter of a recipe, with a chat template that was asked for."""
        if chat_template is not None:
            raise GraftaxError(f"a chat template is for texts, and this backbone reads input of kind {self.kind}.")
        return self

    def room(self, taken: int) -> int:
        """Positions of an item at most, beside `taken` that a method puts in front; of items without a length 1."""
        return self.max_length

    def refuse_length(self, max_length: int, taken: int) -> None:
        """An error where a backbone has no room for items of this length, `taken` positions beside them."""
        return

    # -- shapes of batches ----------------------------------------------------------------------------------------------

    def shape_to_train(self, parts: Sequence[Prepared], batch_size: int, seed: int, epochs: int, *, alone: bool) -> Shape:
        """Of all batches of a job: its examples for training, and those for validation if there are any.

        `batch_size` counts examples; `alone`: each item needs a batch row of its own.
        """
        items = batch_size * parts[0].together
        return Shape(items, items, shared=False, together=parts[0].together)

    def shape_to_measure(self, prepared: Prepared, *, alone: bool) -> Shape:
        """Of batches in which examples are measured; `alone` as of `shape_to_train`."""
        return Shape(_MEASURED, _MEASURED, shared=False, together=prepared.together)

    def shape_to_ask(self, items: Sequence[Any], count: int) -> Shape:
        """Of one batch with `count` batch rows, for some items that are asked together."""
        return Shape(count, count, shared=False)

    # -- what layers make of items --------------------------------------------------------------------------------------

    def with_hidden(self, hidden: Any, inputs: Any) -> Any:
        """Inputs from which the backbone goes on where frozen layers have been computed before (`train/features.py`).

        `hidden`: what these made of each item `[items, ...]`, or of each position `[rows, length, ...]`. `inputs`: the batch it
        was made of; None where only a position of each item is left. Asked of families alone whose module keeps that
        (`Network.keeps_frozen`).
        """
        raise GraftaxError(f"what frozen layers make of input of kind {self.kind!r} is not kept.")

    @property
    def vector_length(self) -> int | None:
        """Positions of an item that vectors are made of; None: as many as a caller wants."""
        return None

    def vector_size(self, hidden: int) -> int:
        """Numbers in a vector, of a backbone with features of `hidden`."""
        return hidden

    def vector_of(self, outputs: Any, inputs: Any) -> jax.Array:
        """What says an item in a vector, float32 `[items, size]`, of a backbone's `Outputs`."""
        return features_of(outputs)
