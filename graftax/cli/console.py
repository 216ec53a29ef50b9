"""How continuations are printed: one as it is, several with the adapter's name before every line, or as JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import print_json

if TYPE_CHECKING:
    from ..serve.generator import Continuation


class Printer:
    """Prints rows `(prompt, adapter)` as they are continued if `stream`, else each when those before it are done."""

    def __init__(self, rows: Sequence[tuple[Any, Any]], stream: bool, as_json: bool):
        self.stream, self.as_json, self.single = stream, as_json, len(rows) == 1
        self.labels = ["base" if what is None else str(what) for _, what in rows]
        self.lines = [""] * len(rows)  # begun and not printed yet
        self.ends: list[Continuation | None] = [None] * len(rows)
        self.next = 0  # row to be printed, where rows are printed in order

    def hear(self, row: int, text: str, end: Continuation | None) -> None:
        if self.stream and not self.as_json:
            self._say(row, text, end is not None)
            return
        self.ends[row] = end
        while self.next < len(self.ends) and (done := self.ends[self.next]) is not None:
            if self.as_json:
                facts = {"adapter": done.adapter, "text": done.text, "tokens": len(done.tokens), "finished": done.finished}
                print_json(facts)
            else:
                self._say(self.next, done.text, True)
            self.next += 1

    def _say(self, row: int, text: str, end: bool) -> None:
        if self.single:
            print(text, end="\n" if end else "", flush=True)
            return
        *whole, self.lines[row] = (self.lines[row] + text).split("\n")
        for line in [*whole, *([self.lines[row]] if end else [])]:
            print(f"{self.labels[row]}: {line}", flush=True)
