"""Stopped: by one signal, by two, and by being killed; the same command ends with the bytes of an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import lines
from tiny import command_line, toy_rows, weights_of, write_csv

from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.train import Interrupted, Recipe, train_many
from graftax.train.queue import Run

QUICK: dict[str, Any] = {"recipe": Recipe(epochs=2, batch_size=8, max_length=16), "progress": False, "save_every": 0.0}


# -- the second signal ------------------------------------------------------------------------------------------------


STUBBORN = """
import os, signal, sys, time
from graftax import signals

class Swallows:
    def __del__(self):  # Python passes over whatever is raised here, as XLA does in its callbacks
        os.kill(os.getpid(), signal.{second})
        time.sleep(5)

with signals.heard_at_once():
    print("printed, not written yet", end="")
    with signals.remembered(lambda: os.write(2, b"heard\\n")) as stop:
        os.kill(os.getpid(), signal.{first})
        while not stop.asked:
            time.sleep(0.001)
        swallows = Swallows()
        del swallows
print("goes on")
"""

BUSY = """
import hashlib, os, signal, threading, time
from graftax import signals

def twice():
    for _ in range(2):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

with signals.heard_at_once(), signals.remembered(lambda: os.write(2, b"heard\\n")):
    threading.Thread(target=twice).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)  # minutes away from Python, as where XLA compiles
"""


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGINT"), ("SIGINT", "SIGTERM")])
def test_a_second_signal_is_never_swallowed(first: str, second: str) -> None:
    """Wherever it arrives it ends the command with exit code 130, and what was printed is printed."""
    code = STUBBORN.replace("{first}", first).replace("{second}", second)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "printed, not written yet")
    assert done.stderr == "heard\ngraftax: interrupted\n"


def test_signals_are_heard_while_the_main_thread_is_not_in_python() -> None:
    """Both of them: the first is answered with its line, the second ends the process."""
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "heard\ngraftax: interrupted\n")


def test_in_python_a_second_signal_raises(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook lives on: KeyboardInterrupt, no wait for a checkpoint, handlers as before; and the call can be repeated."""
    handler, fill = signal.getsignal(signal.SIGINT), Run._fill

    def twice(run: Run) -> None:
        fill(run)
        if run.ticks == 3:
            os.kill(os.getpid(), signal.SIGINT)
            assert run.stop.asked
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_fill", twice)
        with pytest.raises(KeyboardInterrupt):
            train_many(tiny, {"a": toy_rows()}, tmp_path / "out", **QUICK)
    assert signal.getsignal(signal.SIGINT) is handler
    train_many(tiny, {"a": toy_rows()}, tmp_path / "out", **QUICK)
    train_many(tiny, {"a": toy_rows()}, tmp_path / "whole", **QUICK)
    assert weights_of(tmp_path / "out" / "a") == weights_of(tmp_path / "whole" / "a")


def test_the_first_signal_is_answered_when_the_state_is_saved(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Interrupted` promises a checkpoint, so a checkpoint that cannot be written is an error, and no promise."""
    from graftax.train.run_checkpoint import Checkpoints

    fill = Run._fill

    def stop(run: Run) -> None:
        fill(run)
        run.stop.asked = run.ticks == 2

    def fail(self: Checkpoints) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Run, "_fill", stop)
    with pytest.raises(Interrupted):
        train_many(tiny, {"a": toy_rows()}, tmp_path / "one", **QUICK)
    monkeypatch.setattr(Checkpoints, "wait", fail)
    with pytest.raises(GraftaxError, match=r"cannot be written \(the disk is gone\)"):
        train_many(tiny, {"a": toy_rows()}, tmp_path / "two", **QUICK)


# -- a real process, really killed ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """`graftax train` of four adapters in two slots; about a second of steps after starting."""
    folder = tmp_path_factory.mktemp("data")
    files = [str(write_csv(folder / f"{n}.csv", toy_rows(count=40, seed=ord(n)))) for n in "abcd"]
    options = "--epochs 8 --lr 3e-3 --batch-size 4 --max-length 16 --pack-size 2 --save-every 0 --val 0.2 --option dropout=0.1"

    def build(out: Path) -> list[str]:
        return command_line("train", "-b", tiny_dir, "--out", out, *options.split(), "--data", *files)

    return build


@pytest.fixture(scope="module")
def uninterrupted(command: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(command(out), check=True, capture_output=True)
    return out


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not ready() and process.poll() is None:
        time.sleep(0.005)


def moment(out: Path, when: str) -> Callable[[], bool]:
    """Tests for a moment in a run."""
    saves = out / ".run" / "checkpoints"

    def complete() -> list[int]:
        return [int(p.name) for p in saves.iterdir() if p.name.isdigit()] if saves.is_dir() else []

    return {
        "begun": out.is_dir,
        "before a checkpoint": lambda: (out / ".run" / "run.json").is_file(),
        "in a checkpoint": lambda: len(complete()) > 1 and any("tmp" in p.name for p in saves.iterdir()),
        "after some": lambda: max(complete(), default=0) >= 20,
        "between jobs": lambda: (out / "a").is_dir() or (out / "b").is_dir(),
        "in the last job": lambda: (out / "c").is_dir() or (out / "d").is_dir(),
    }[when]


MOMENTS = ["before a checkpoint", "in a checkpoint", "after some", "between jobs", "in the last job"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_same(out: Path, whole: Path) -> None:
    for name in "abcd":
        assert weights_of(out / name) == weights_of(whole / name)
    assert lines(out) == lines(whole)
    assert not (out / ".run").exists()


def test_resume_after_sigkill(command: Callable[[Path], list[str]], uninterrupted: Path, tmp_path: Path) -> None:
    """Killed at three moments of one run and started again each time, it ends with the bytes of an uninterrupted run."""
    out = tmp_path / "out"
    for when in ("in a checkpoint", "between jobs", "in the last job"):
        process = start(command(out))
        wait_for(moment(out, when), process)
        process.kill()
        process.communicate()
    done = subprocess.run(command(out), capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert_same(out, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("when", MOMENTS)
def test_resume_after_sigkill_each(
    command: Callable[[Path], list[str]], uninterrupted: Path, tmp_path: Path, when: str
) -> None:
    """The same, one moment at a time."""
    process = start(command(tmp_path / "out"))
    wait_for(moment(tmp_path / "out", when), process)
    process.kill()
    process.communicate()
    subprocess.run(command(tmp_path / "out"), check=True, capture_output=True)
    assert_same(tmp_path / "out", uninterrupted)


@pytest.mark.slow  # resuming after SIGKILL and in one process is always tested
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_resume_after_a_polite_signal(
    command: Callable[[Path], list[str]], uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Exit code 130 and a line that says how to go on; the same command ends with the same bytes."""
    out = tmp_path / "out"
    process = start(command(out))
    wait_for(moment(out, "after some"), process)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("graftax: interrupted, state saved in ")
    assert errors.splitlines()[-1].endswith("run the same command again to go on.")
    assert "Traceback" not in errors
    again = subprocess.run(command(out), capture_output=True, text=True, check=True)
    assert "resumed: " in again.stderr
    assert_same(out, uninterrupted)


@pytest.mark.slow
def test_same_seed_same_bits_in_another_process(
    command: Callable[[Path], list[str]], uninterrupted: Path, tmp_path: Path
) -> None:
    """Nothing but the settings decides the bits: a second process writes the same files."""
    subprocess.run(command(tmp_path / "out"), check=True, capture_output=True)
    assert_same(tmp_path / "out", uninterrupted)


def signalled_twice(arguments: list[str], ready: Callable[[], bool], gap: float) -> subprocess.CompletedProcess[str]:
    """A process that gets two signals, the second `gap` seconds behind the first; it has a minute to end."""
    process = start(arguments)
    wait_for(ready, process)
    process.send_signal(signal.SIGINT)
    time.sleep(gap)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def assert_interrupted(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 130, done
    assert done.stderr.splitlines()[-1].startswith("graftax: interrupted")
    assert not any(word in done.stderr for word in ("Traceback", "Exception ignored", "ERROR"))


def test_two_signals_end_a_command_at_once(command: Callable[[Path], list[str]], uninterrupted: Path, tmp_path: Path) -> None:
    """While it starts, while it trains, while it saves: exit code 130, one last line, and no bit is lost.

    Each in a directory of its own: what one has left there would be taken for a moment that the next has come to.
    """
    for when, gap in (("begun", 0.0), ("after some", 0.02), ("in a checkpoint", 0.001)):
        out = tmp_path / when
        assert_interrupted(signalled_twice(command(out), moment(out, when), gap))
    subprocess.run(command(out), check=True, capture_output=True)
    assert_same(out, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_two_signals_at_random(command: Callable[[Path], list[str]], uninterrupted: Path, tmp_path: Path, seed: int) -> None:
    """The same, at moments that nobody chose."""
    chance, out = random.Random(seed), tmp_path / "out"
    later = time.monotonic() + chance.uniform(0.5, 6.0)
    done = signalled_twice(command(out), lambda: time.monotonic() > later, chance.choice([0.0, 0.003, 0.03, 0.3]))
    if done.returncode != 0:  # it was not done before
        assert_interrupted(done)
        subprocess.run(command(out), check=True, capture_output=True)
    assert_same(out, uninterrupted)


def test_an_interrupt_in_the_garbage_collector_ends_the_command() -> None:
    """Python prints what a callback of its collector raises, and goes on: an `eval` ran to its end after Ctrl-C."""
    script = """
import gc, os, signal
from graftax.signals import leave_where_swallowed
leave_where_swallowed()
gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGINT))
gc.collect()
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "graftax: interrupted\n"
