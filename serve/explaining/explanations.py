"""Explanations of several rows: their JSON and their directory.

explain.html     the page (`explain_page.py`)
explain.json     the numbers on it
1.png, ...       of each picture: what made the model answer as it did, in colours over it,
1.without.png    the same without what the adapter changes within the network, and
1.change.png     the difference
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import disk
from ...errors import GraftaxError
from ...json_files import json_line
from .explain_page import drawings, page_of
from .explanation import About, Explanation

_JSON, PAGE = "explain.json", "explain.html"
_SCHEMA = 1


def expect_place(directory: Path) -> None:
    """An error where explanations cannot be written, for something else is there."""
    if directory.exists() and not directory.is_dir():
        raise GraftaxError(f"{directory} is not a directory.")
    disk.refuse_foreign(directory, (_JSON,))


@dataclass(frozen=True)
class Explanations:
    """What `explain` returns."""

    about: About  # what they have in common
    rows: tuple[Explanation, ...]  # in the order in which they were given

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": _SCHEMA, **asdict(self.about), "rows": [row.record() for row in self.rows]}

    def write(self, directory: str | Path) -> Path:
        """Write page, numbers and pictures, in place of those of other explanations, and return the page's path.

        Raises GraftaxError: a directory that holds something else.
        """
        page = page_of(self.about, self.rows)
        with disk.new_directory(Path(directory), overwrite=True, marks=(_JSON,)) as draft:
            (draft / _JSON).write_text(json_line(self.record()) + "\n", "utf-8")
            (draft / PAGE).write_text(page, "utf-8")
            for row in self.rows:
                for what, png in drawings(row, self.about.signed).items():
                    if what != "picture":
                        (draft / f"{row.row}{'' if what == 'seen' else f'.{what}'}.png").write_bytes(png)
        return Path(directory) / PAGE
