"""The examples of one adapter as items: what batches are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..notes import note
from .batches import wholes
from .examples import Examples


class Item(Protocol):
    """What a processor makes of an example, or of a piece of one: a text's tokens, a picture's pixels."""

    @property
    def cut(self) -> bool:
        """Whether it leaves something out that the example has, because of the limit on lengths."""

    @property
    def target_length(self) -> int:
        """How many positions has what a decoder reads beside it; 0 where there is no such thing."""

    def __len__(self) -> int:
        """How many positions it takes in a batch row; 1 where it has no length."""

    def tobytes(self) -> bytes:
        """All that a batch holds of it; the same for two items that are the same."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Examples as items, and for each item its label as an array. The items of an example are behind one another.

    Most examples are one item. Where they are several, there are two ways:

    - Every example has the same number of items (`together`), and one batch holds all of them. Of `dpo` it is two, a prompt
      with either response: items 2 i and 2 i + 1 are those of example i.
    - Each example has as many items as it needs, and batches hold them one by one (`owners`): the pieces of a long text, the
      turns of a chat. Three pieces of a first text and one of a second have the owners [0, 0, 0, 1].
    """

    examples: Examples
    items: Sequence[Any]  # each an `Item`, of the processor's own class
    labels: Sequence[Any]
    together: int = 1  # items of an example
    owners: Sequence[int] | None = None  # of each item its example, where that does not follow from `together`

    def __len__(self) -> int:
        """How many things there are that batches hold: examples, or items where examples are held item by item."""
        return len(self.items) // self.together

    @property
    def lengths(self) -> list[int]:
        """The length of each item."""
        return [len(item) for item in self.items]

    @property
    def wholes(self) -> list[int]:
        """The length of each thing that batches hold."""
        return wholes(self.lengths, self.together)

    @property
    def longest_target(self) -> int:
        """How many positions the longest target has; 0 where items have none."""
        return max((item.target_length for item in self.items), default=0)

    @property
    def items_of(self) -> list[list[int]]:
        """For each example the indices of its items."""
        found: list[list[int]] = [[] for _ in range(len(self.examples))]
        for item in range(len(self.items)):
            found[item // self.together if self.owners is None else self.owners[item]].append(item)
        return found

    @property
    def cut(self) -> tuple[int, int]:
        """How many examples are cut at the limit on lengths, and how many there are."""
        cut = [any(self.items[item].cut for item in items) for items in self.items_of]
        return sum(cut), len(cut)

    def take(self, examples: Sequence[int]) -> Prepared:
        """Some of the examples, by their indices, with all of their items."""
        items = self.items_of
        chosen = [(new, item) for new, old in enumerate(examples) for item in items[old]]
        taken = [self.items[item] for _, item in chosen], [self.labels[item] for _, item in chosen]
        owners = None if self.owners is None else [new for new, _ in chosen]
        return Prepared(self.examples.take(examples), *taken, self.together, owners)


def note_cut(name: str, count: int, examples: int, max_length: int) -> None:
    """Say in a note how many of the examples of `name` are cut, if any."""
    if count:
        note(f"{name}: {count} of {examples} rows cut at {max_length} tokens (max_length).")
