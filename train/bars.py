"""The bars of a run as lines of text that fit a terminal of any width from 40 columns.

    3 of 8 done  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━  41%  about 2 min left
    bank         ━━━━━━━━━━━━━━━━━━━━━━━━━━━━  73%  val_accuracy 0.9062

A bar has room first. The numbers are shortened until they leave it that room: all of them, the loss and the main one, the main
one, none. No value stands there without its name. Adapters that are done have no line of their own, and those that the terminal
is too low for are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

_BAR_LEAST, _BAR_MOST = 8, 40  # columns


@dataclass
class Bar:
    """How far one adapter, or all of them, are; and what stands behind the bar, in four forms, the longest first."""

    name: str
    total: int
    done: int = 0
    notes: tuple[str, str, str, str] = ("", "", "", "")


def notes_of(numbers: Mapping[str, float]) -> tuple[str, str, str, str]:
    """The numbers of an epoch, the loss first and the main one last, as they stand behind a bar."""
    said = [f"{name} {value:.4f}" for name, value in numbers.items()]
    return "  ".join(said), "  ".join(dict.fromkeys((said[0], said[-1]))), said[-1], ""


def drawn(bars: Sequence[Bar], width: int, height: int, ascii_only: bool = False) -> list[Text]:
    """A line for each bar, at most `height` lines of at most `width` columns."""
    if len(bars) > height:
        more = Text(f"and {len(bars) - height + 1} more", "dim", no_wrap=True)
        return [*drawn(bars[: height - 1], width, height, ascii_only), more]
    room = min(max(cell_len(bar.name) for bar in bars), max(12, width // 4))
    notes, columns = [""] * len(bars), width - room - len("  ") - len(" 100%")
    for said in zip(*(bar.notes for bar in bars), strict=True):
        left = columns - len("  ") - max(map(cell_len, said))
        if left >= max(_BAR_LEAST, width // 5):
            notes, columns = list(said), left
            break
    columns = min(columns, _BAR_MOST)
    full, empty = ("#", "-") if ascii_only else ("━", "━")
    lines = []
    for bar, note in zip(bars, notes, strict=True):
        share = min(bar.done / max(bar.total, 1), 1.0)
        filled = int(columns * share)
        line = Text(f"{_fitted(bar.name, room)}  ", no_wrap=True, overflow="crop")
        line.append(full * filled, "bar.complete").append(empty * (columns - filled), "bar.back")
        lines.append(line.append(f" {share:4.0%}  {note}".rstrip()))
    return lines


def _fitted(name: str, columns: int) -> str:
    """A name in so many columns, its middle left out where it is longer: what tells names apart is at either end."""
    if cell_len(name) <= columns:
        return set_cell_size(name, columns)
    tail = name[-(columns // 3) :]
    return set_cell_size(f"{set_cell_size(name, columns - cell_len(tail) - 2)}..{tail}", columns)


def duration(seconds: float) -> str:
    """A time in the unit that one would say."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
