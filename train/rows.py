"""Rows of one adapter, tokenized: what batches are laid of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..models.tokens import Tokens
from .batches import wholes
from .data import Examples


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples, tokenized, with labels as arrays: of each text, of which an example may have several, one behind another."""

    examples: Examples
    tokens: list[Tokens]
    labels: list[Any]
    together: int = 1  # texts of an example
    owners: Sequence[int] | None = None  # of each text the row of the data, where one may have several

    def __len__(self) -> int:
        return len(self.tokens) // self.together

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(row) for row in self.tokens]

    @property
    def wholes(self) -> list[int]:
        """Tokens of each example."""
        return wholes(self.lengths, self.together)

    @property
    def longest_target(self) -> int:
        """Tokens of the longest target; 0 where texts have none."""
        return max((len(row.target) for row in self.tokens if row.target is not None), default=0)

    @property
    def cut(self) -> tuple[int, int]:
        """How many rows of the data are cut at the length limit, and how many there are."""
        owners = self.owners or [i // self.together for i in range(len(self.tokens))]
        return len({owner for owner, text in zip(owners, self.tokens, strict=True) if text.cut}), len({*owners})

    def take(self, examples: Sequence[int]) -> Rows:
        texts = [i * self.together + k for i in examples for k in range(self.together)]
        taken = [self.tokens[i] for i in texts], [self.labels[i] for i in texts]
        return Rows(self.examples.take(examples), *taken, self.together)
