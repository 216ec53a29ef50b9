"""Examples of one adapter as a processor has prepared them: what batches are laid of."""

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
        """Whether the example has more than the limit on lengths leaves of it."""

    @property
    def target_length(self) -> int:
        """Positions of what a decoder reads beside it; 0 where there is no such thing."""

    def __len__(self) -> int:
        """How many positions it takes in a batch row; 1 where it has no length."""

    def tobytes(self) -> bytes:
        """All that a batch holds of it, so that two items are told apart."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Examples as items, with labels as arrays: of each item, of which an example may have several, one behind another.

    Either every example has as many items, and they are in one batch (`together`: two responses to a prompt); or each has as
    many as it needs, wherever they are (`owners`: the pieces of a long text, the turns of a chat).
    """

    examples: Examples
    items: Sequence[Any]  # each an `Item`, of the processor's own class
    labels: Sequence[Any]
    together: int = 1  # items of an example
    owners: Sequence[int] | None = None  # of each item its example, where that does not follow from `together`

    def __len__(self) -> int:
        """How many there are for batches to hold: examples, or of those with `owners` items."""
        return len(self.items) // self.together

    @property
    def lengths(self) -> list[int]:
        """Of each item."""
        return [len(item) for item in self.items]

    @property
    def wholes(self) -> list[int]:
        """The length of each of what batches hold."""
        return wholes(self.lengths, self.together)

    @property
    def longest_target(self) -> int:
        """Positions of the longest target; 0 where items have none."""
        return max((item.target_length for item in self.items), default=0)

    @property
    def items_of(self) -> list[list[int]]:
        """The items of each example, by their index."""
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
        """Some of the examples, with all of their items."""
        items = self.items_of
        chosen = [(new, item) for new, old in enumerate(examples) for item in items[old]]
        taken = [self.items[item] for _, item in chosen], [self.labels[item] for _, item in chosen]
        owners = None if self.owners is None else [new for new, _ in chosen]
        return Prepared(self.examples.take(examples), *taken, self.together, owners)


def note_cut(name: str, count: int, examples: int, max_length: int) -> None:
    """A note of how many of the examples of `name` are cut; none where none is."""
    if count:
        note(f"{name}: {count} of {examples} rows cut at {max_length} tokens (max_length).")
