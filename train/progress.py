"""What a person sees of a run on standard error: bars on a terminal, elsewhere a line per epoch and for whatever takes long."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from ..compiling import PATIENCE, Compiling
from ..errors import in_a_line


class Progress:
    """Bars or lines while its `with` block runs; silent unless `shown`."""

    def __init__(self, shown: bool):
        self._began, self._shown = time.monotonic(), shown
        self._live: Any = None
        self._compiling = Compiling(long=self._compiles)
        self._doing, self._since = "", self._began  # what is done that no bar shows, and since when
        self._stopping = False
        self._said = 0.0  # when the numbers of a step were last shown as a line
        self._overall: Any = None
        self._bars: dict[str, Any] = {}  # of the adapters in the slots
        self._adapters, self._done = 0, 0

    def __enter__(self) -> Progress:
        if self._shown:
            self._compiling.__enter__()
            if sys.stderr.isatty():
                from rich.console import Console
                from rich.live import Live

                self._live = Live(self, console=Console(stderr=True), transient=True, redirect_stdout=False)
                self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._shown:
            self._compiling.__exit__()
        if self._live:
            self._live.stop()

    # -- what is done ---------------------------------------------------------------------------------------------------

    def doing(self, what: str) -> None:
        """What is done until the next step; on a terminal alone."""
        self._doing, self._since = what, time.monotonic()

    def expect(self, adapters: int, done: int, total_steps: int, steps_done: int) -> None:
        """How much there is to do in all, and how much of it is done."""
        if self._live:
            from .bars import Bar

            self._adapters, self._done = adapters, done
            self._overall, self._first, self._started = Bar("", total_steps, steps_done), steps_done, 0.0

    def begin(self, name: str, steps: int, done: int = 0) -> None:
        if self._live:
            from .bars import Bar

            self._bars[name] = Bar(in_a_line(name), steps, done)

    def advance(self, name: str) -> None:
        self._doing = ""
        if self._live:
            self._bars[name].done += 1
            self._overall.done += 1
            self._started = self._started or time.monotonic()

    def epoch(self, name: str, epoch: int, epochs: int, numbers: dict[str, float], main: str) -> None:
        """The numbers of an epoch, of which `main` is the one that counts."""
        self._measured(name, f"epoch {epoch}/{epochs}", numbers, main)

    def step(self, name: str, step: int, steps: int, numbers: dict[str, float], main: str) -> None:
        """Those of a step, where a step has numbers of its own; of steps that follow one another quickly not all are lines."""
        if self._live or step == steps or time.monotonic() - self._said > _BETWEEN:
            self._said = time.monotonic()
            self._measured(name, f"step {step}/{steps}", numbers, main)

    def _measured(self, name: str, where: str, numbers: dict[str, float], main: str) -> None:
        if self._live:
            from .bars import notes_of

            others = {key: value for key, value in numbers.items() if key != main}
            self._bars[name].notes = notes_of(others | {main: numbers[main]})
        else:
            said = "  ".join(f"{key} {value:.4f}" for key, value in numbers.items())
            self.say(f"{name}: {where}  {said}")

    def end(self, name: str, skipped: int = 0) -> None:
        if self._live:
            del self._bars[name]
            self._done += 1
            self._overall.done += skipped

    def lose(self, name: str) -> None:
        """A job is lost with all that it has done, and begins again."""
        if self._live:
            self._overall.done -= self._bars.pop(name).done

    # -- lines ----------------------------------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        if self._live:
            self._live.console.print(in_a_line(line), highlight=False, markup=False)
        elif self._shown:
            print(f"[{time.monotonic() - self._began:7.1f} s] {in_a_line(line)}", file=sys.stderr, flush=True)

    def stopping(self) -> None:
        """Say, from a signal handler, that the run will stop. It may have interrupted a write: no lock, no buffer."""
        self._stopping = True
        if self._shown and not self._live:
            os.write(2, f"{_STOPPING}\n".encode())

    def _compiles(self) -> None:
        if not self._live:
            self.say("compiling")

    def __rich_console__(self, console: Any, options: Any) -> Any:
        """The bars and, below them, what is done besides."""
        from rich.text import Text

        from .bars import drawn, duration

        if self._overall is not None:
            self._overall.name = f"{self._done} of {self._adapters} done"
            if (fresh := self._overall.done - self._first) > 1:
                left = (time.monotonic() - self._started) / (fresh - 1) * (self._overall.total - self._overall.done)
                self._overall.notes = (f"{duration(left)} left",) * 4
            bars = [self._overall, *list(self._bars.values())]
            yield from drawn(bars, options.max_width, max(3, options.size.height - 2), options.ascii_only)
        now = time.monotonic()
        if self._stopping:
            yield Text(_STOPPING)
        elif (since := self._compiling.since) is not None and now - since > PATIENCE:
            yield Text(f"compiling, {duration(now - since)}", "dim")
        elif self._doing and now - self._since > PATIENCE:
            yield Text(f"{self._doing}, {duration(now - self._since)}", "dim", no_wrap=True, overflow="ellipsis")


_BETWEEN = 5.0  # seconds between lines about steps
_STOPPING = "stopping after this step; once more to stop at once"
