"""What a person sees of a run: bars on a terminal, a line per epoch elsewhere; and the metrics as a stream of JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import disk


class Metrics:
    """`metrics.jsonl`, a line per epoch and adapter as it happens; TensorBoard too where tensorboardX is installed."""

    def __init__(self, path: Path, offset: int | None, adapters: Sequence[str]):
        """`offset`: where a resumed run goes on; None: a new one, which keeps what is there about other adapters."""
        there = path.read_bytes() if path.exists() else b""
        if offset is None:
            there = b"".join(line for line in there.splitlines(keepends=True) if _adapter(line) not in (None, *adapters))
        disk.write_text(path, there[:offset].decode())  # what was written after the checkpoint will be written again
        self._file = path.open("ab")
        self._board = _board(path.parent)

    @property
    def offset(self) -> int:
        return self._file.tell()

    def write(self, line: dict[str, Any]) -> None:
        self._file.write((json.dumps(line) + "\n").encode())
        self._file.flush()
        if self._board is not None:
            for key, value in line.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{line['adapter']}/{key}", value, line["step"])

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _adapter(line: bytes) -> str | None:
    """Which adapter a line is about; None for a line that is none of ours."""
    try:
        return json.loads(line)["adapter"]
    except (ValueError, TypeError, KeyError):
        return None


def _board(directory: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory / "tensorboard"))


class Progress:
    """Bars for every task in a slot and for the whole run, or plain lines when nobody watches."""

    def __init__(self, total_steps: int, done: int, enabled: bool = True):
        self._enabled = enabled
        self._live: Any = None
        self._tasks: dict[str, Any] = {}
        self._began = time.monotonic()
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            self._live = Bars(
                TextColumn("{task.description:<24}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._overall = self._live.add_task("all adapters", total=total_steps, completed=done, note="")
            self._live.start()

    def begin(self, name: str, steps: int, done: int = 0) -> None:
        if self._live:
            self._tasks[name] = self._live.add_task(name, total=steps, completed=done, note="")

    def advance(self, name: str) -> None:
        if self._live:
            self._live.advance(self._tasks[name])
            self._live.advance(self._overall)

    def epoch(self, name: str, epoch: int, epochs: int, numbers: dict[str, float]) -> None:
        note = "  ".join(f"{key} {value:.4f}" for key, value in numbers.items())
        if self._live:
            self._live.update(self._tasks[name], note=note)
        else:
            self.say(f"{name}: epoch {epoch}/{epochs}  {note}")

    def end(self, name: str, skipped: int = 0) -> None:
        if self._live:
            self._live.remove_task(self._tasks.pop(name))
            self._live.advance(self._overall, skipped)

    def say(self, line: str) -> None:
        if self._live:
            self._live.console.print(line, highlight=False)
        elif self._enabled:
            print(f"[{time.monotonic() - self._began:7.1f} s] {line}", file=sys.stderr, flush=True)

    def interject(self, line: str) -> None:
        """`say` from a signal handler, which may have interrupted a write: no lock, no buffer."""
        if self._enabled:
            os.write(2, f"{line}\n".encode())

    def close(self) -> None:
        if self._live:
            self._live.stop()
