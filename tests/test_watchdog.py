"""A process that looks after another: what it makes of its end, and of its standing still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WATCHING = """
import sys
from graftax import watchdog
child = "import os, signal, sys, time; from graftax import watchdog; watchdog.hold_on(); " + sys.argv[1]
sys.exit(watchdog.watch([sys.executable, "-c", child], float(sys.argv[2]) or None, among_others=sys.argv[3:] == ["others"]))
"""
FOR_EVER = "print(os.getpid(), flush=True)\nwhile True: watchdog.beat(); time.sleep(0.05)"


def watching(child: str, stall_after: float = 0, *others: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WATCHING, child, str(stall_after), *others]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("child", "others", "code", "said"),
    [
        ("sys.exit(2)", (), 2, ""),
        ("pass", ("others",), 0, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", ("others",), 137, "graftax: the process was ended by SIGKILL.\n"),
        ("os.abort()", (), 134, "graftax: the process was ended by SIGABRT.\n"),
        ("os.abort()", ("others",), 75, "other processes of this run are gone"),
    ],
)
def test_how_a_child_has_ended_is_one_exit_code(child: str, others: tuple[str, ...], code: int, said: str) -> None:
    watching_it = watching(child, 0, *others)
    _, heard = watching_it.communicate(timeout=60)
    assert (watching_it.returncode, said in heard, heard == "") == (code, True, said == "")


def test_who_does_nothing_is_killed_and_who_is_slow_is_not() -> None:
    """A process that is stopped, or waits for ever, cannot say so itself. Beats keep a child alive."""
    stopped = watching(FOR_EVER, 5)
    assert stopped.stdout is not None
    child = int(stopped.stdout.readline())
    time.sleep(6.5)
    assert stopped.poll() is None
    os.kill(child, signal.SIGSTOP)
    _, said = stopped.communicate(timeout=60)
    assert (stopped.returncode, said) == (124, "graftax: nothing was done for 5 seconds, the process was killed.\n")
    assert not Path(f"/proc/{child}").exists()


def test_a_child_ends_with_its_watchdog() -> None:
    alone = watching(FOR_EVER)
    assert alone.stdout is not None
    child = int(alone.stdout.readline())
    alone.kill()
    until = time.monotonic() + 60
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_signal_is_passed_on_and_the_end_awaited() -> None:
    """So that a run saves its state; the child's code is the watchdog's."""
    child = (
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(130)))\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    asked = watching(child)
    assert asked.stdout is not None
    asked.stdout.readline()
    asked.send_signal(signal.SIGTERM)
    asked.communicate(timeout=60)
    assert asked.returncode == 130
