"""Which labels were taken for which: counts of pairs of a label and the answer to it, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..counted import counted
from ..errors import in_a_line

_CLASSES = 12  # of a table at most
_NAME = 24  # columns of the terminal for a name in it; at least
_SHORTEST = 8
_LISTED = 12  # confusions, where there are more classes


@dataclass(frozen=True)
class Confusion:
    """`counts [label, answer]`; `labels` are in order: those that the adapter knows, then others of the rows.

    Where a row has any number of labels, one that was missed has the answer None, and an answer that is wrong the label None.
    """

    labels: tuple[str, ...]
    counts: Mapping[tuple[str | None, str | None], int]  # (label, answer) -> rows, or labels of rows

    def records(self) -> list[dict[str, Any]]:
        """For JSON: every pair that occurred."""
        rank: dict[str | None, int] = {label: i for i, label in enumerate((*self.labels, None))}
        pairs = sorted(self.counts, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
        return [{"label": label, "answer": answer, "count": self.counts[label, answer]} for label, answer in pairs]

    def lines(self, width: int = 80) -> list[str]:
        """For a terminal of so many columns: a table of few classes, else the most frequent confusions."""
        from rich.cells import cell_len

        names: list[str | None] = [*self.labels, *([None] if any(None in pair for pair in self.counts) else [])]
        column = 2 + max(len(str(number)) for number in (len(names), *self.counts.values()))
        shown = [f"{i:>{len(str(len(names)))}} {_shown(name)}" for i, name in enumerate(names, 1)]
        longest = max(map(cell_len, shown))
        room = min(width - column * len(names), _NAME, longest)
        if len(self.labels) > _CLASSES or room < min(_SHORTEST, longest):
            return self._largest(width)
        numbers = _fit("", room) + "".join(f"{i:>{column}}" for i in range(1, len(names) + 1))
        lines = [
            _fit(name, room) + "".join(f"{self.counts.get((label, answer), 0) or '.':>{column}}" for answer in names)
            for label, name in zip(names, shown, strict=True)
        ]
        return ["rows: labels, columns: answers", numbers, *lines]

    def _largest(self, width: int) -> list[str]:
        wrong = sorted(((n, pair) for pair, n in self.counts.items() if pair[0] != pair[1]), key=lambda found: -found[0])
        if not wrong:
            return ["no confusions"]
        from rich.cells import cell_len

        digits = len(str(wrong[0][0]))
        pairs = [(_shown(label), _shown(answer)) for _, (label, answer) in wrong[:_LISTED]]
        name = min((width - digits - 6) // 2, max(cell_len(label) for label, _ in pairs))
        lines = [
            f"{count:>{digits}}  {_fit(label, name)} -> {_fit(answer, (width - digits - 6) // 2)}".rstrip()
            for (count, _), (label, answer) in zip(wrong, pairs, strict=False)
        ]
        return [f"the largest of {counted(len(wrong), 'confusion')}:", *lines]


def _shown(name: str | None) -> str:
    return "(none)" if name is None else in_a_line(name)


def _fit(text: str, width: int) -> str:
    """A text in exactly so many columns, of which some characters take two."""
    from rich.cells import cell_len, set_cell_size

    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "~"
