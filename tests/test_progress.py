"""What a person sees of a run: lines that fit the terminal, a word for what takes long, nothing left when it is done."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import jax.monitoring
import pytest
from rich.cells import cell_len
from rich.console import Console
from tiny import toy_rows

from graftax import compiling
from graftax.compiling import Compiling
from graftax.models.backbone import Backbone
from graftax.train import Recipe, train_many
from graftax.train.bars import Bar, drawn, duration, notes_of
from graftax.train.progress import Progress

NUMBERS = {"loss": 0.4321, "val_loss": 0.5123, "val_macro_f1": 0.8765, "val_matthews": 0.7654, "val_accuracy": 0.9062}
BARS = [
    Bar("3 of 8 done", 800, 330, notes=("12 min left",) * 4),
    Bar("bank", 100, 73, notes_of(NUMBERS)),
    Bar("a-name-that-somebody-meant-to-be-told-apart-by-its-end-1", 100, 5, notes_of(NUMBERS)),
    Bar("银行客户服务", 100, 0),
]


def shown(bars: list[Bar], width: int, height: int = 20) -> list[str]:
    return [line.plain for line in drawn(bars, width, height)]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 300])
def test_bars_fit_any_width(width: int) -> None:
    """No line is longer than the terminal is wide, each has a bar of eight columns or more, and all begin in one column."""
    lines = shown(BARS, width)
    assert len(lines) == len(BARS)
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.count("━") >= 8 for line in lines)
    assert len({cell_len(line.partition("━")[0]) for line in lines}) == 1
    assert lines[2].split("━")[0].rstrip().endswith("-1")


@pytest.mark.parametrize(
    ("width", "note"),
    [
        (40, ""),
        (60, "val_accuracy 0.9062"),
        (80, "loss 0.4321  val_accuracy 0.9062"),
        (160, "loss 0.4321  val_loss 0.5123  val_macro_f1 0.8765  val_matthews 0.7654  val_accuracy 0.9062"),
    ],
)
def test_numbers_give_way_to_the_bar(width: int, note: str) -> None:
    """What counts stays longest."""
    assert shown([BARS[0], BARS[1]], width)[1].split("%")[1].strip() == note


@pytest.mark.parametrize("numbers", [{"loss": 0.4321}, NUMBERS])
@pytest.mark.parametrize("width", range(40, 100, 3))
def test_no_value_without_its_name(width: int, numbers: dict[str, float]) -> None:
    """On a terminal of any width; at 40 columns a short name has room, and so has the time that is left."""
    overall, bank = shown([BARS[0], Bar("bank", 100, 73, notes_of(numbers))], width)
    said = bank.split("%")[1].split()
    assert all(name in numbers and value == f"{numbers[name]:.4f}" for name, value in zip(said[::2], said[1::2], strict=True))
    assert overall.endswith("12 min left")
    assert bool(said) == (width >= 48 or numbers is not NUMBERS)


def test_low_terminals_and_plain_ones() -> None:
    """What has no line is counted; without Unicode a bar is made of other signs."""
    lines = shown([BARS[0], *[Bar(f"job {i}", 10, i) for i in range(30)]], 60, height=8)
    assert (len(lines), lines[-1]) == (8, "and 24 more")
    assert "##" in drawn(BARS, 60, 8, ascii_only=True)[0].plain


def test_durations() -> None:
    assert [duration(seconds) for seconds in (7, 99, 100, 5999, 90_000)] == ["7 s", "99 s", "2 min", "100 min", "25.0 h"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [40, 80])
def test_a_run_on_a_terminal(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Its bars come and go; what stays is what was said."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    data = {name: toy_rows(count=12) for name in ("bank", "air")}
    train_many(tiny, data, tmp_path, recipe=Recipe(epochs=2, batch_size=4, max_length=16), val=0.3, pack_size=1)
    written = sys.stderr.getvalue()
    assert "of 2 done" in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h")  # the cursor is there again


def rendered(progress: Progress, width: int) -> list[str]:
    console = Console(width=width, height=12, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(progress)
    return console.file.getvalue().splitlines()


def test_what_takes_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second: what is done, that a program compiles, and that the run is asked to stop."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Progress(True) as progress:
        progress.doing("reading bank, 1 of 2")
        assert rendered(progress, 40) == []
        now[0] += 5
        assert rendered(progress, 40) == ["reading bank, 1 of 2, 5 s"]
        jax.monitoring.record_event_duration_secs(compiling._BEGINS, 0.1)
        now[0] += 30
        assert rendered(progress, 40) == ["compiling, 30 s"]
        jax.monitoring.record_event_duration_secs(compiling._ENDS, 30.0)
        progress.expect(2, 1, 20, 10)
        progress.begin("bank", 10)
        progress.advance("bank")
        assert len(rendered(progress, 40)) == 2
        progress.stopping()
        assert rendered(progress, 60)[-1] == "stopping after this step; once more to stop at once"


def test_jax_tells_when_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's events are those that are listened to, a short program is not worth a word, and nothing is heard afterwards."""
    heard: list[Any] = []
    with Compiling(long=lambda: heard.append("long")) as watch:
        end = watch._end
        monkeypatch.setattr(watch, "_end", lambda thread: (heard.append(watch.since), end(thread)))
        jax.jit(lambda x: x * 3 + 1)(2.0)
        assert watch.since is None
    assert any(isinstance(since, float) for since in heard)
    assert "long" not in heard
    count = len(heard)
    jax.jit(lambda x: x * 5 + 1)(2.0)
    assert len(heard) == count


def test_elsewhere_a_line_each(tiny: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Why adapters are trained one after another, and a line per epoch; nothing at all without `progress`."""
    data = {name: toy_rows(count=12) for name in ("bank", "air")}
    settings: dict[str, Any] = {"recipe": Recipe(epochs=1, batch_size=4, max_length=16)}
    train_many(tiny, data, tmp_path / "said", **settings)
    said = [line.split("s] ")[1] for line in capsys.readouterr().err.splitlines() if not line.endswith("compiling")]
    assert said[0].startswith("2 adapters, one after another: ")
    assert [line.split("  ")[0] for line in said[1:]] == ["bank: epoch 1/1", "air: epoch 1/1"]
    train_many(tiny, data, tmp_path / "silent", progress=False, **settings)
    assert capsys.readouterr().err == ""
