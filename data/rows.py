"""Rows of one adapter, tokenized: what batches are laid of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..models.tokens import Tokens
from .batches import wholes
from .examples import Examples


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples, tokenized, with labels as arrays: of each text, of which an example may have several, one behind another.

    Either every example has as many texts, and they are in one batch (`together`: two responses to a prompt); or each has as
    many as it needs, wherever they are (`owners`: the pieces of a long text, the turns of a chat).
    """

    examples: Examples
    tokens: list[Tokens]
    labels: list[Any]
    together: int = 1  # texts of an example
    owners: Sequence[int] | None = None  # of each text its example, where that does not follow from `together`

    def __len__(self) -> int:
        """How many there are for batches to hold: examples, or of those with `owners` texts."""
        return len(self.tokens) // self.together

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(row) for row in self.tokens]

    @property
    def wholes(self) -> list[int]:
        """Tokens of each of what batches hold."""
        return wholes(self.lengths, self.together)

    @property
    def longest_target(self) -> int:
        """Tokens of the longest target; 0 where texts have none."""
        return max((len(row.target) for row in self.tokens if row.target is not None), default=0)

    @property
    def texts(self) -> list[list[int]]:
        """The texts of each example, by their index."""
        found: list[list[int]] = [[] for _ in range(len(self.examples))]
        for text in range(len(self.tokens)):
            found[text // self.together if self.owners is None else self.owners[text]].append(text)
        return found

    @property
    def cut(self) -> tuple[int, int]:
        """How many examples are cut at the length limit, and how many there are."""
        cut = [any(self.tokens[text].cut for text in texts) for texts in self.texts]
        return sum(cut), len(cut)

    def take(self, examples: Sequence[int]) -> Rows:
        """Some of the examples, with all of their texts."""
        texts = self.texts
        chosen = [(new, text) for new, old in enumerate(examples) for text in texts[old]]
        taken = [self.tokens[text] for _, text in chosen], [self.labels[text] for _, text in chosen]
        owners = None if self.owners is None else [new for new, _ in chosen]
        return Rows(self.examples.take(examples), *taken, self.together, owners)
