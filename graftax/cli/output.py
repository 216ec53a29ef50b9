"""How commands print: JSON that every reader takes, and pages that stay in their columns on a narrow terminal."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

from ..errors import in_a_line
from ..json_files import json_line

if TYPE_CHECKING:
    from ..serve.evaluation import Measured


_DAY = len("2026-11-28")  # the beginning of a moment


def print_json(content: Any) -> None:
    """One line of JSON.

    Letters that standard output may not have are written in ASCII, in which JSON says the same.
    """
    ascii_alone = (sys.stdout.encoding or "utf-8").lower() != "utf-8"
    print(json_line(content, ensure_ascii=ascii_alone), flush=True)


def print_measured(measured: Measured, as_json: bool, adapter: str | None = None) -> None:
    """Metrics and a table of confusions; on standard error, which labels the adapter does not know.

    `adapter`: whose they are, where there are several.
    """
    if measured.unknown:
        which = ", ".join(f"{label!r} ({count})" for label, count in measured.unknown.items())
        print(in_a_line(f"graftax: labels that the adapter does not know, counted as wrong: {which}"), file=sys.stderr)
    if as_json:
        confusion = {"confusion": measured.confusion.records()} if measured.confusion else {}
        print_json(({} if adapter is None else {"adapter": adapter}) | {**measured.metrics, **confusion})
        return
    if adapter is not None:
        print(in_a_line(adapter))
    width = max(12, *map(len, measured.metrics))
    for name, value in measured.metrics.items():
        print(f"{name:{width}} {value}" if isinstance(value, int) else f"{name:{width}} {value:.4f}")
    if measured.confusion:
        print("", *measured.confusion.lines(shutil.get_terminal_size().columns), sep="\n")


def print_table(columns: Sequence[str], lines: Iterable[Sequence[str]], moments: str | None = None) -> None:
    """A table, of which every line is whole.

    On a terminal that is too narrow for it, of the moments in the column of that name the day alone is shown, and if that
    is not enough columns are left out from the right. The first column always stays as it is: it is what people copy.
    """
    rows = [list(columns), *([in_a_line(cell) for cell in line] for line in lines)]
    if sys.stdout.isatty():
        rows = _fitting(rows, shutil.get_terminal_size().columns, moments)
    widths = _widths(rows)
    for row in rows:
        print("  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _fitting(rows: list[list[str]], width: int, moments: str | None) -> list[list[str]]:
    """Rows of which no more is left than a width has room for."""
    if _room(rows) > width and moments in rows[0]:
        at = rows[0].index(moments)
        rows = [rows[0], *([*row[:at], row[at][:_DAY], *row[at + 1 :]] for row in rows[1:])]
    while _room(rows) > width and len(rows[0]) > 1:
        rows = [row[:-1] for row in rows]
    return rows


def _room(rows: list[list[str]]) -> int:
    """The width of a table, with two columns of a terminal between any two of its own."""
    return sum(width + 2 for width in _widths(rows)) - 2


def _widths(rows: list[list[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def print_page(page: str) -> None:
    """Lines of columns; on a terminal folded to its width, elsewhere (for grep, say) as they are."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in page.splitlines():
        print(line if width is None else folded(line, width))


def folded(line: str, width: int) -> str:
    """A line as several of at most `width` characters: the others begin below its second column, or a little further in."""
    first = re.match(r"\s*\S+\s{2,}", line)
    begin = len(first[0]) if first else width
    if begin > width // 2:
        begin = len(line) - len(line.lstrip()) + 4
    lines = textwrap.wrap(line, max(width, begin + 8), subsequent_indent=" " * begin, break_on_hyphens=False)
    return "\n".join(lines)
