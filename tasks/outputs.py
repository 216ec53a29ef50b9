"""What a task reads of a backbone's forward pass, and how that lies in a batch.

| output | needs | what `loss` and `answer` read |
|---|---|---|
| `OfItem` | features of an item, and a head of the adapter's over them | `[items, room]` |
| `OfPosition` | features of every position, and a head over them | `[rows, length, room]` |
| `NextToken` | a language model; of `OfTarget` an encoder-decoder | `[rows, length, 3]`: see `NextToken.compute` |

A task names one (`Task.output`), so what it needs of a backbone is said in one place. `room` is at least the number of an
adapter's classes: adapters that share a program have the same, and what is beyond an adapter's own is masked by the loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..data.batches import Planned, Shape
from ..data.prepared import Prepared
from ..errors import GraftaxError

IGNORE = -1  # a position without a label of its own, in label arrays


class HasHead(Protocol):
    """A backbone on whose features an adapter may have a head."""

    def head(self, labels: int, tokens: bool = False, dropout: float = 0.0) -> Any:
        """The head for so many classes; GraftaxError where the family has none."""

    def forward(self, params: Any, state: Any, inputs: Any, *, key: Any = None, layers: Any = None) -> Any:
        """`Logits`."""


class SaysTokens(Protocol):
    """A language model."""

    def likelihood(self, params: Any, state: Any, inputs: Any, targets: Any, *, key: Any = None, layers: Any = None) -> Any:
        """Log-likelihood of each token of `targets`, and whether it was the likeliest."""


class Output(ABC):
    """Base of the outputs; see the module docstring."""

    headed: ClassVar[bool]  # whether a head of the adapter's makes it; else the backbone does
    by_position: ClassVar[bool] = False  # whether it says something of each position of an item
    bare: ClassVar[bool] = False  # whether it also runs the backbone without the adapter: then no frozen layer's work is kept

    @abstractmethod
    def refuse_unfit(self, backbone: Any, task: str) -> None:
        """An error where a backbone cannot give this output."""

    @abstractmethod
    def head(self, backbone: Any, classes: int) -> Any:
        """The adapter's head for so many classes; None where there is none."""

    @abstractmethod
    def compute(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        """What `loss` and `answer` read; arguments as of `Backbone.forward`. Pure; meant to be traced."""

    @abstractmethod
    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        """The labels of a batch, where its items are laid, with room for so many classes."""

    @abstractmethod
    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        """The items of a batch, and what is theirs of its outputs."""

    def own(self, outputs: np.ndarray, classes: int) -> np.ndarray:
        """Without what there is room for beyond an adapter's own classes."""
        return outputs[..., :classes] if self.headed else outputs


class OfItem(Output):
    """One row of numbers for each item: the logits of a head over its features."""

    headed = True

    def refuse_unfit(self, backbone: Any, task: str) -> None:
        if backbone.family.encodes:
            raise GraftaxError(f"task {task!r}: {backbone.name} is an encoder-decoder, for task 'seq2seq' alone.")

    def head(self, backbone: HasHead, classes: int) -> Any:
        return backbone.head(classes)

    def compute(
        self, backbone: HasHead, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        logits: jax.Array = backbone.forward(params, state, inputs, key=key, layers=layers).pooled
        return logits

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        """A number for each item, or `room` numbers where an item has several."""
        first = np.asarray(prepared.labels[0])
        laid = np.zeros((shape.items, room) if first.ndim else shape.items, first.dtype)
        for k, i in enumerate(planned.items):
            own = prepared.labels[i]
            laid[(k, slice(0, len(own))) if first.ndim else k] = own
        return laid

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return zip(planned.items, outputs, strict=False)  # fewer items than there is room for


class OfPosition(OfItem):
    """One row of numbers for each position of an item: the logits of a head over its features there."""

    by_position = True

    def head(self, backbone: HasHead, classes: int) -> Any:
        return backbone.head(classes, tokens=True)

    def compute(
        self, backbone: HasHead, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        logits: jax.Array = backbone.forward(params, state, inputs, key=key, layers=layers).tokens
        return logits

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        return lay_by_position(prepared.labels, planned, (shape.rows, shape.length))

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return each_by_position(outputs, prepared.labels, planned)


class NextToken(Output):
    """How likely each next token is: the backbone says it, and the adapter has no head."""

    headed = False
    by_position = True

    def refuse_unfit(self, backbone: Any, task: str) -> None:
        if not backbone.generates:
            raise GraftaxError(f"task {task!r} needs a language model, and {backbone.name} is none.")
        if backbone.family.encodes:
            raise GraftaxError(f"task {task!r}: {backbone.name} is an encoder-decoder, for task 'seq2seq' alone.")

    def head(self, backbone: Any, classes: int) -> None:
        return None

    def compute(
        self, backbone: SaysTokens, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        """`[rows, length, 3]`: the next token's log-likelihood, whether it was the likeliest, whether it counts."""
        found, hit = backbone.likelihood(params, state, inputs, jnp.maximum(labels, 0), key=key, layers=layers)
        counts = labels != IGNORE
        return jnp.where(counts[..., None], jnp.stack([found, hit, counts.astype(found.dtype)], axis=-1), 0.0)

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        return lay_by_position(prepared.labels, planned, (shape.rows, shape.length))

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return each_by_position(outputs, prepared.labels, planned)


class OfTarget(NextToken):
    """How likely the tokens of a target are, which an encoder-decoder writes beside the item that it reads."""

    def refuse_unfit(self, backbone: Any, task: str) -> None:
        if not backbone.generates:
            raise GraftaxError(f"task {task!r} needs a language model, and {backbone.name} is none.")
        if not backbone.family.encodes:
            raise GraftaxError(f"task {task!r}: {backbone.name} is no encoder-decoder.")

    def lay(self, prepared: Prepared, planned: Planned, shape: Shape, room: int) -> np.ndarray:
        return lay_by_position(prepared.labels, planned, (shape.rows, shape.target))


class Against(NextToken):
    """How likely an item's counted tokens are together, with the adapter and without it: `[items, 2]`."""

    bare = True

    def compute(
        self, backbone: SaysTokens, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        targets, counts = jnp.maximum(labels, 0), labels != IGNORE
        found, _ = backbone.likelihood(params, state, inputs, targets, key=key, layers=layers)
        before, _ = backbone.likelihood(params, {}, inputs, targets)
        both = jnp.where(counts[..., None], jnp.stack([found, jax.lax.stop_gradient(before)], axis=-1), 0.0)
        if inputs.texts is None:
            return both.sum(1)
        texts = jnp.arange(1, len(inputs.texts.first) + 1, dtype=jnp.int32)
        mine = inputs.texts.segments[..., None] == texts  # [rows, tokens, texts]
        return jnp.sum(jnp.where(mine[..., None], both[:, :, None], 0.0), axis=(0, 1))

    def each(self, outputs: np.ndarray, prepared: Prepared, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return zip(planned.items, outputs, strict=False)  # fewer items than there is room for


def lay_by_position(labels: Sequence[np.ndarray], planned: Planned, size: tuple[int, int]) -> np.ndarray:
    """Labels of positions in a batch, int32 of a size; `IGNORE` where no item lies."""
    laid = np.full(size, IGNORE, np.int32)
    for i, (row, begin) in zip(*planned, strict=True):
        laid[row, begin : begin + len(labels[i])] = labels[i]
    return laid


def each_by_position(outputs: np.ndarray, labels: Sequence[np.ndarray], planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
    """The items of a batch, and what is theirs of outputs by position."""
    for i, (row, begin) in zip(*planned, strict=True):
        yield i, outputs[row, begin : begin + len(labels[i])]
