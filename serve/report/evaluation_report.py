"""A report: its JSON and its directory.

report.html      the page (`report_page.py`)
report.json      the numbers on it
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import disk
from ...errors import GraftaxError
from ...json_files import json_line
from ...store.manifest import DataFacts
from .adapter_report import AdapterReport
from .report_page import page_of_report

_JSON, PAGE = "report.json", "report.html"
_SCHEMA = 1


def expect_place(directory: Path) -> None:
    """An error where a report cannot be written, for something else is there."""
    if directory.exists() and not directory.is_dir():
        raise GraftaxError(f"{directory} is not a directory.")
    disk.refuse_foreign(directory, (_JSON,))


@dataclass(frozen=True)
class Report:
    """How adapters did on the same rows."""

    backbone: str  # its name
    data: DataFacts  # which rows they were
    adapters: tuple[AdapterReport, ...]  # in the order in which they were named

    def record(self) -> dict[str, Any]:
        """For JSON."""
        adapters = [adapter.record() for adapter in self.adapters]
        return {"schema": _SCHEMA, "backbone": self.backbone, "data": asdict(self.data), "adapters": adapters}

    def write(self, directory: str | Path) -> Path:
        """Write both files, in place of those of another report, and return the page's path.

        Raises GraftaxError: a directory that holds something else.
        """
        page = page_of_report(self.backbone, self.data, self.adapters)
        with disk.new_directory(Path(directory), overwrite=True, marks=(_JSON,)) as draft:
            (draft / _JSON).write_text(json_line(self.record()) + "\n", "utf-8")
            (draft / PAGE).write_text(page, "utf-8")
        return Path(directory) / PAGE
