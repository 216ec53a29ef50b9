"""How commands print: JSON that every reader takes, and pages that stay in their columns on a narrow terminal."""

from __future__ import annotations

import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import in_a_line
from ..json_files import json_line

if TYPE_CHECKING:
    from ..serve.evaluation import Measured


_WIDE = 1000  # characters, of a line that no terminal folds


def print_json(content: Any) -> None:
    """One line of JSON.

    Letters that standard output may not have are written in ASCII, in which JSON says the same.
    """
    ascii_alone = (sys.stdout.encoding or "utf-8").lower() != "utf-8"
    print(json_line(content, ensure_ascii=ascii_alone), flush=True)


def print_measured(measured: Measured, as_json: bool) -> None:
    """Metrics and a table of confusions; on standard error, which labels the adapter does not know."""
    if measured.unknown:
        which = ", ".join(f"{label!r} ({count})" for label, count in measured.unknown.items())
        print(in_a_line(f"graftax: labels that the adapter does not know, counted as wrong: {which}"), file=sys.stderr)
    if as_json:
        confusion = {"confusion": measured.confusion.records()} if measured.confusion else {}
        print_json({**measured.metrics, **confusion})
        return
    width = max(12, *map(len, measured.metrics))
    for name, value in measured.metrics.items():
        print(f"{name:{width}} {value}" if isinstance(value, int) else f"{name:{width}} {value:.4f}")
    if measured.confusion:
        print("", *measured.confusion.lines(shutil.get_terminal_size().columns), sep="\n")


def print_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """A table; on a terminal folded to its width, elsewhere each line whole."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE
    table = Table(box=None, pad_edge=False, header_style="")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for line in lines:
        table.add_row(*(Text(in_a_line(cell)) for cell in line))
    with (console := Console(file=io.StringIO(), width=width, color_system=None)).capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        print(line.rstrip())


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
