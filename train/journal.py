"""`metrics.jsonl`: a line of JSON per epoch and adapter, as it happens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import disk
from ..errors import GraftaxError
from ..json_files import json_line, parse_json


class Metrics:
    """The file, to which lines are added; TensorBoard too where tensorboardX is installed."""

    def __init__(self, path: Path, offset: int | None, adapters: Sequence[str]):
        """`offset`: where a resumed run goes on; None: a new one, which keeps what is there about other adapters."""
        there = path.read_bytes() if path.exists() else b""
        if offset is None:
            there = b"".join(line for line in there.splitlines(keepends=True) if _adapter(line) not in (None, *adapters))
        disk.write_bytes(path, there[:offset])  # what was written after the checkpoint will be written again
        self._file = path.open("ab")
        self._board = _board(path.parent)

    @property
    def offset(self) -> int:
        """How long the file is: where a resumed run goes on."""
        return self._file.tell()

    def write(self, line: dict[str, Any]) -> None:
        """Add a line, and its numbers to TensorBoard."""
        self._file.write((json_line(line) + "\n").encode())
        self._file.flush()
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{line['adapter']}/{name}", value, line["step"])

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


class NoMetrics:
    """In the other processes of a run, which write no file."""

    offset = 0

    def write(self, line: dict[str, Any]) -> None:
        """Nothing."""

    def __enter__(self) -> NoMetrics:
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing."""


def _adapter(line: bytes) -> str | None:
    """Which adapter a line is about; None for a line that is none of ours."""
    try:
        said = parse_json(line.decode(), "a line", not_numbers=True)  # which older versions wrote
    except (UnicodeDecodeError, GraftaxError):
        return None
    return said.get("adapter") if isinstance(said, dict) else None


def _board(directory: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory / "tensorboard"))
