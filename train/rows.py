"""Rows of one adapter, tokenized: what batches are laid of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..models.tokens import Tokens
from .data import Examples


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples, tokenized, with labels as arrays."""

    examples: Examples
    tokens: list[Tokens]
    labels: list[Any]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.tokens]

    @property
    def longest_target(self) -> int:
        """Tokens of the longest target; 0 where rows have none."""
        return max((len(row.target) for row in self.tokens if row.target is not None), default=0)

    def take(self, rows: Sequence[int]) -> Rows:
        return Rows(self.examples.take(rows), [self.tokens[i] for i in rows], [self.labels[i] for i in rows])
