"""Runs the tutorials in docs/tutorials, and writes a page of each: its text, its code, and what that printed.

    python tests/run_tutorials.py [BACKBONE]

A tutorial is a script in cells, as editors and Jupytext know them: `# %% [markdown]` begins a cell of text, in comments, and
`# %%` one of code. It takes the directory of a backbone as its only argument, and without one gets MiniLM as
`graftax demo` does.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "tutorials"
TUTORIALS = ("many_domains", "which_method", "hot_swap")
_OUTPUT = re.compile(r'^```text title="Output"\n(.*?)^```\n', re.MULTILINE | re.DOTALL)


class Cell(NamedTuple):
    """A piece of a tutorial."""

    is_text: bool
    source: str  # Markdown or Python


def cells(name: str) -> list[Cell]:
    """A tutorial in its pieces."""
    found = []
    for piece in re.split(r"^# %%", (FOLDER / f"{name}.py").read_text("utf-8"), flags=re.MULTILINE)[1:]:
        cell_type, _, source = piece.partition("\n")
        is_text = cell_type.strip() == "[markdown]"
        if is_text:
            source = "\n".join(line.removeprefix("#").removeprefix(" ") for line in source.splitlines())
        found.append(Cell(is_text, source.strip("\n")))
    return found


def outputs(name: str, directory: str | None) -> Iterator[str]:
    """What each cell of code prints, in turn; they share their names and run in the current folder."""
    names: dict[str, Any] = {"__name__": name}
    before, sys.argv = sys.argv, [f"{name}.py", *([directory] if directory else [])]
    try:
        for number, cell in enumerate(cells(name)):
            if not cell.is_text:
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(cell.source, f"{name}.py, cell {number}", "exec"), names)
                yield printed.getvalue()
    finally:
        sys.argv = before


def page(name: str, printed: Sequence[str]) -> str:
    """The Markdown of a tutorial whose cells of code have printed this."""
    left = iter(printed)
    parts = []
    for cell in cells(name):
        parts.append(cell.source if cell.is_text else f"```python\n{cell.source}\n```")
        if not cell.is_text and (said := next(left)):
            parts.append(f'```text title="Output"\n{said.rstrip()}\n```')
    title, *rest = parts
    heading, _, text = title.partition("\n")
    there = f"*The script of this page is [{name}.py]({name}.py); it runs in an empty folder.*"
    return "\n\n".join(filter(None, [heading, there, text.strip("\n"), *rest])) + "\n"


def printed_on(text: str) -> list[str]:
    """The outputs that a page shows."""
    return _OUTPUT.findall(text)


def main() -> None:
    directory = str(Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else None
    home = Path.cwd()
    for name in TUTORIALS:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            try:
                text = page(name, list(outputs(name, directory)))
            finally:
                os.chdir(home)
        (FOLDER / f"{name}.md").write_text(text, "utf-8")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
