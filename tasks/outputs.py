"""What a task reads of a backbone's forward pass, and how that lies in a batch.

| output | what it needs | what `loss` reads |
|---|---|---|
| `OfItem` | features of an item, and a head of the adapter's over them | `[items, room]` |
| `OfPosition` | features of every position, and a head over them | `[rows, length, room]` |
| `OfPixel` | feature maps, and a head over their positions | `[items, high, wide, room]` |
| `OfObjects` | feature maps, and a head that puts questions to them | `[items, queries, 6 + room]` |
| `NextToken` | a language model | `[rows, length, 3]`: see `NextToken.compute` |
| `OfTarget` | an encoder-decoder | the same, of the target: `length` is the target's |
| `Against` | a language model | `[items, 2]`: see `Against.compute` |
| `OfPair` | a pair of towers | `[items, 2, size + 1]`: see `Compared.together` |
| `AgainstTexts` | a pair of towers | the same, and behind it all texts of the rows: `by_names.py` |

A task names one of them (`Task.output`), so what it needs of a backbone is said in one place. `rows` are batch rows. `room`
is the number of classes that there is room for: adapters that share a program share it, and the loss masks what is beyond an
adapter's own.

For instance, two texts of 3 and 2 tokens lie in one batch row of 8 positions, at the places (0, 0) and (0, 3). A tagging task
(`OfPosition`) lays their labels as `[[5, 0, 2, 1, 1, -1, -1, -1]]`, where -1 (`IGNORE`) says that no label is there. Of outputs
`[1, 8, room]` the first text is then given positions 0 to 2, and the second one positions 3 and 4 (`Output.each`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adapters.method import Method
from ..adapters.methods.detection_head import BEFORE
from ..adapters.methods.head import POOLED, TOKENS
from ..data.batches import Planned, Shape, rung
from ..data.box_values import NOTHING, LaidBoxes
from ..data.mask_values import VOID
from ..data.prepared import Prepared
from ..shapes import AnyArray, Float, Int, shaped

IGNORE = -1  # in arrays of labels: a position without a label of its own


class HasHead(Protocol):
    """A backbone on whose features an adapter may have a head."""

    def head(self, labels: int, tokens: bool = False, dropout: float = 0.0) -> Any:
        """The head for so many classes; GraftaxError where the family has none."""

    def forward(self, params: Any, state: Any, inputs: Any, *, key: Any = None, layers: Any = None) -> Any:
        """`Logits`: those of items, `[items, room]`, and those of positions, `[rows, length, room]`."""


class SaysTokens(Protocol):
    """A language model."""

    def likelihood(self, params: Any, state: Any, inputs: Any, targets: Any, *, key: Any = None, layers: Any = None) -> Any:
        """Log-likelihood of each token of `targets`, and whether it was the likeliest; `[rows, length]` both."""


class Output(ABC):
    """Base of the outputs; see the module docstring."""

    heads: ClassVar[tuple[str, ...]] = ("linear",)  # the kinds of head there are (`Recipe.head`)
    of_pixels: ClassVar[bool] = False  # whether labels are masks
    moves: ClassVar[str] = ""  # of labels that are augmented with their pictures: what they are, in words before "of one"
    headed: ClassVar[bool]  # whether a head of the adapter's makes it; else the backbone does
    by_position: ClassVar[bool] = False  # whether it says something of each position of an item
    bare: ClassVar[bool] = False  # whether the backbone also runs without the adapter: then nothing of frozen layers is kept

    @abstractmethod
    def unfit(self, backbone: Any) -> str | None:
        """Why a backbone cannot give this output, in words behind "task NAME"; None where it can."""

    @abstractmethod
    def head(self, backbone: Any, classes: int, kind: str = "linear") -> Any:
        """The adapter's head for so many classes, of one of the `heads`; None where there is none."""

    def beside(self, backbone: Any) -> tuple[Method, ...]:
        """Methods that an adapter needs for it besides, as they start, unless it has its own of them."""
        return ()

    @abstractmethod
    def compute(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        """What `loss` and `answer` read of a batch. Pure, and meant to be traced. Arguments are as of `Backbone.forward`."""

    def widened(self, shape: Shape, parts: Sequence[Any]) -> Shape:
        """The shape of a job's batches with what each holds beside its items. `parts`: the `Prepared` of the job."""
        return shape

    @abstractmethod
    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> Any:
        """The labels of a planned batch in one array, laid as its items are; `room`: for so many classes."""

    @abstractmethod
    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        """The index of each item in a planned batch, with that part of the batch's outputs which is about it."""

    def own(self, outputs: np.ndarray, classes: int) -> np.ndarray:
        """Outputs without the room beyond an adapter's own classes."""
        return outputs[..., :classes] if self.headed else outputs


class OfItem(Output):
    """The logits of an item: what a head makes of its features."""

    headed = True
    reads: ClassVar[str] = POOLED  # the site at which the head acts

    def unfit(self, backbone: Any) -> str | None:
        if backbone.family.encodes:
            return f"needs a backbone with a head, and {backbone.name} is an encoder-decoder"
        if self.reads not in backbone.family.head.sites:
            return f"needs a head that {backbone.name} has no features for"
        return None

    def head(self, backbone: HasHead, classes: int, kind: str = "linear") -> Any:
        return backbone.head(classes)

    @shaped
    def compute(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: Any, key: Any = None, layers: Any = None
    ) -> Float[Array, "items room"]:
        logits: jax.Array = backbone.forward(params, state, inputs, key=key, layers=layers).pooled
        return logits

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        """`[items]`, a number for each item; or `[items, room]` where the label of an item is several numbers."""
        first = np.asarray(prepared.labels[0])
        laid = np.zeros((shape.items, room) if first.ndim else shape.items, first.dtype)
        for k, i in enumerate(planned.items):
            own = prepared.labels[i]
            laid[(k, slice(0, len(own))) if first.ndim else k] = own
        return laid

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return zip(planned.items, outputs, strict=False)  # the batch may have fewer items than room for them


class OfPosition(OfItem):
    """The logits of every position of an item: what a head makes of its features there."""

    by_position = True
    reads = TOKENS

    def head(self, backbone: HasHead, classes: int, kind: str = "linear") -> Any:
        return backbone.head(classes, tokens=True)

    @shaped
    def compute(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: Any, key: Any = None, layers: Any = None
    ) -> Float[Array, "rows length room"]:
        logits: jax.Array = backbone.forward(params, state, inputs, key=key, layers=layers).tokens
        return logits

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        return lay_by_position(prepared.labels, planned, (shape.rows, shape.length))

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return each_by_position(outputs, prepared.labels, planned)


class OfPixel(Output):
    """The logits of every position of a picture's feature maps, which the loss resizes to the pixels of the picture."""

    heads = ("linear", "multiscale")
    of_pixels = True
    moves = "a mask is"
    headed = True
    by_position = True

    def unfit(self, backbone: Any) -> str | None:
        return None if backbone.config.maps else f"needs feature maps of pictures, and {backbone.name} gives none"

    def head(self, backbone: Any, classes: int, kind: str = "linear") -> Any:
        return backbone.head_of_maps(classes, several=kind == "multiscale")

    @shaped
    def compute(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: Any, key: Any = None, layers: Any = None
    ) -> Float[Array, "items high wide room"]:
        found = backbone.forward(params, state, inputs, key=key, layers=layers)
        logits: jax.Array = found.maps if found.map is None else found.map  # an adapter has one head
        return logits

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        """The masks, uint8 `[items, height, width]`; of no class where there is no item."""
        laid = np.full((shape.items, *prepared.labels[0].shape), VOID, np.uint8)
        for k, i in enumerate(planned.items):
            laid[k] = prepared.labels[i]
        return laid

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return zip(planned.items, outputs, strict=False)  # the batch may have fewer items than room for them


class OfObjects(Output):
    """What a head says of each of its questions about objects in a picture (`adapters/methods/detection_head.py`)."""

    heads = ("linear", "multiscale")
    moves = "boxes are"
    headed = True
    by_position = True

    def unfit(self, backbone: Any) -> str | None:
        return None if backbone.config.maps else f"needs feature maps of pictures, and {backbone.name} gives none"

    def head(self, backbone: Any, classes: int, kind: str = "linear") -> Any:
        return backbone.detection_head(classes, several=kind == "multiscale")

    @shaped
    def compute(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: Any, key: Any = None, layers: Any = None
    ) -> Float[Array, "items queries said"]:
        found = backbone.forward(params, state, inputs, key=key, layers=layers)
        said: jax.Array = found.objects_of_maps if found.objects is None else found.objects  # an adapter has one head
        return said

    def widened(self, shape: Shape, parts: Sequence[Any]) -> Shape:
        return shape._replace(aside=(max(_most_boxes(part) for part in parts), 4))

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> LaidBoxes:
        most = shape.aside[0] or _most_boxes(prepared)
        laid = LaidBoxes(np.full((shape.items, most), NOTHING, np.int32), np.zeros((shape.items, most, 4), np.float32))
        for k, i in enumerate(planned.items):
            own = prepared.labels[i]
            laid.numbers[k, : len(own)], laid.boxes[k, : len(own)] = own[:, 0], own[:, 1:]
        return laid

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return zip(planned.items, outputs, strict=False)  # the batch may have fewer items than room for them

    def own(self, outputs: np.ndarray, classes: int) -> np.ndarray:
        return outputs[..., : BEFORE + classes]


def _most_boxes(prepared: Prepared) -> int:
    """Room for the boxes of any of its items, rounded up, so that like data share programs."""
    return rung(max((len(label) for label in prepared.labels), default=0), 1 << 20)


class OfPair(Output):
    """The vectors of an item's picture and text, whose inner products with others' are logits."""

    headed = False

    def __init__(self, joint: Method):
        self.joint = joint  # what joins two towers that are not of one model, as it starts

    def unfit(self, backbone: Any) -> str | None:
        return None  # the kind of input says it (`Task.about`)

    def head(self, backbone: Any, classes: int, kind: str = "linear") -> None:
        return None

    def beside(self, backbone: Any) -> tuple[Method, ...]:
        return () if backbone.config.joined else (self.joint,)

    @shaped
    def compute(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: Any, key: Any = None, layers: Any = None
    ) -> Float[Array, "items 2 more"]:
        vectors: jax.Array = backbone.encode(params, state, inputs, key=key, layers=layers).together
        return vectors

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        """`[items, 3]`: which picture an item has, which text, and which label."""
        laid = np.full((shape.items, 3), IGNORE, np.int32)
        for k, i in enumerate(planned.items):
            laid[k] = prepared.labels[i]
        return laid

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return zip(planned.items, outputs, strict=False)  # the batch may have fewer items than room for them


class NextToken(Output):
    """How likely each next token is. The backbone says that, and the adapter has no head."""

    headed = False
    by_position = True

    def unfit(self, backbone: Any) -> str | None:
        if not backbone.generates:
            return f"needs a language model, and {backbone.name} is none"
        return f"needs a decoder alone, and {backbone.name} is an encoder-decoder" if backbone.family.encodes else None

    def head(self, backbone: Any, classes: int, kind: str = "linear") -> None:
        return None

    @shaped
    def compute(
        self,
        backbone: Any,
        params: Any,
        state: Any,
        inputs: Any,
        labels: Int[AnyArray, "rows length"],
        key: Any = None,
        layers: Any = None,
    ) -> Float[Array, "rows length 3"]:
        """Three numbers of each token of `labels`: its log-likelihood, whether it was the likeliest (1 or 0), whether it
        counts.

        All three are 0 where `labels` has `IGNORE`.
        """
        found, hit = backbone.likelihood(params, state, inputs, jnp.maximum(labels, 0), key=key, layers=layers)
        counts = labels != IGNORE
        return jnp.where(counts[..., None], jnp.stack([found, hit, counts.astype(found.dtype)], axis=-1), 0.0)

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        return lay_by_position(prepared.labels, planned, (shape.rows, shape.length))

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return each_by_position(outputs, prepared.labels, planned)


class OfTarget(NextToken):
    """How likely each token of a target is, which an encoder-decoder writes beside the item that it reads."""

    def unfit(self, backbone: Any) -> str | None:
        if not backbone.generates:
            return f"needs a language model, and {backbone.name} is none"
        return None if backbone.family.encodes else f"needs an encoder-decoder, and {backbone.name} is none"

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        return lay_by_position(prepared.labels, planned, (shape.rows, shape.target))


class Against(NextToken):
    """How likely the counted tokens of an item are together, with the adapter and without it."""

    bare = True

    @shaped
    def compute(
        self,
        backbone: Any,
        params: Any,
        state: Any,
        inputs: Any,
        labels: Int[AnyArray, "rows length"],
        key: Any = None,
        layers: Any = None,
    ) -> Float[Array, "items 2"]:
        """Two sums of log-likelihoods for each item: with the adapter, and without it, through which no gradient flows.

        Where items share batch rows, `inputs.texts.segments [rows, length]` says which item each position belongs to: 1 is the
        first item, 2 the second, and 0 is padding. For instance, segments `[[1, 1, 2, 2, 2, 0]]` make sums over the first two
        and over the next three positions.
        """
        targets, counts = jnp.maximum(labels, 0), labels != IGNORE
        found, _ = backbone.likelihood(params, state, inputs, targets, key=key, layers=layers)
        before, _ = backbone.likelihood(params, {}, inputs, targets)
        both = jnp.where(counts[..., None], jnp.stack([found, jax.lax.stop_gradient(before)], axis=-1), 0.0)
        if inputs.texts is None:
            return both.sum(1)
        texts = jnp.arange(1, len(inputs.texts.first) + 1, dtype=jnp.int32)
        mine = inputs.texts.segments[..., None] == texts  # [rows, length, items]
        return jnp.sum(jnp.where(mine[..., None], both[:, :, None], 0.0), axis=(0, 1))

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return zip(planned.items, outputs, strict=False)  # the batch may have fewer items than room for them


def lay_by_position(labels: Sequence[np.ndarray], planned: Planned, size: tuple[int, int]) -> np.ndarray:
    """Labels of positions in a batch: int32, of `size` (batch rows, positions); `IGNORE` where no item lies."""
    laid = np.full(size, IGNORE, np.int32)
    for i, (batch_row, begin) in zip(*planned, strict=True):
        laid[batch_row, begin : begin + len(labels[i])] = labels[i]
    return laid


def each_by_position(outputs: np.ndarray, labels: Sequence[np.ndarray], planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
    """The index of each item in a batch, with the outputs `[its positions, ...]` at its place."""
    for i, (batch_row, begin) in zip(*planned, strict=True):
        yield i, outputs[batch_row, begin : begin + len(labels[i])]
