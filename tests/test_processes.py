"""One run by several processes on loopback: what they tell one another, what they train, what becomes of it when one is gone.

That two processes of one device make the bits of one process of two devices is the claim that all of this hangs on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import command_line, toy_rows, write_backbone, write_csv

from graftax import processes
from graftax.errors import GraftaxError
from graftax.train.begun import versions
from graftax.train.meetings import Meetings
from graftax.train.queue import _refuse_unlike
from graftax.train.spreading import devices_for

ADAPTERS = 5


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def begin(command: Sequence[str], process: int, of: int, at: int, **variables: str) -> subprocess.Popen[str]:
    """One of several processes of a command, which finds the others by its environment."""
    own = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{at}", "JAX_NUM_PROCESSES": str(of), "JAX_PROCESS_ID": str(process)}
    environment = {**os.environ, **own, **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(running: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each."""
    said = [one.communicate(timeout=300) for one in running]
    return [(one.returncode, out, err) for one, (out, err) in zip(running, said, strict=True)]


# -- words ----------------------------------------------------------------------------------------------------------------

SPEAKING = """
import json, sys, time
from graftax import processes
from graftax.errors import GraftaxError
processes.join(60.0, 6.0)
me, said = processes.index(), []
said.append(processes.words("numbers", {"number": me, "nan": float("nan")}))
said.append(processes.first_says("a plan", lambda: f"of {me}"))
def refused(function):
    try:
        function()
    except GraftaxError as error:
        return str(error)
def fails():
    raise GraftaxError("no disk.")
said.append(refused(lambda: processes.first_says("a plan", fails)))
def second_fails():
    with processes.sound("the data"):
        if me == 1:
            fails()
said.append(refused(second_fails))
said.append(refused(lambda: processes.words("odd" if me else "even", me)))
began = time.monotonic()
if me != 1:
    said.append(refused(lambda: processes.words("the end of an epoch", me)))
    assert time.monotonic() - began < 60
else:
    time.sleep(8)
print(json.dumps(said), flush=True)
processes.end(7)
"""


def test_words_are_the_same_everywhere_and_who_does_not_come_is_named() -> None:
    at = port()
    found = ended([begin([sys.executable, "-c", SPEAKING], n, 3, at) for n in range(3)])
    assert [code for code, *_ in found] == [7, 7, 7], found
    first, second, third = (json.loads(out.splitlines()[-1]) for _, out, _ in found)
    for mine in (first, second, third):
        assert [one["number"] for one in mine[0]] == [0, 1, 2]
        assert mine[1] == "of 0"
    assert [mine[2] for mine in (first, second, third)] == ["no disk.", "process 0: no disk.", "process 0: no disk."]
    assert [mine[3] for mine in (first, second, third)] == ["process 1: no disk.", "no disk.", "process 1: no disk."]
    assert first[4] == "process 1 is at odd, and process 0 at even: not one command."
    assert second[4] == "process 0 is at even, and process 1 at odd: not one command."
    for mine in (first, third):
        assert mine[5].startswith(
            "process 1 of 3 did not come to the end of an epoch (6 seconds are waited at most); start all"
        )


JOINING = """
import json, os, sys
from graftax import processes
from graftax.errors import GraftaxError
for within, variables in json.loads(sys.argv[1]):
    kept = dict(os.environ)
    for name, value in variables.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        processes.join(within)
    except GraftaxError as error:
        print(error.exit_code, error)
    os.environ.update(kept)
"""


def test_who_cannot_join_says_why_in_a_line_and_soon() -> None:
    cases: list[tuple[float, dict[str, str | None]]] = [
        (1, {"JAX_PROCESS_ID": "1"}),
        (60, {"JAX_PROCESS_ID": "2"}),
        (60, {"JAX_NUM_PROCESSES": "two"}),
        (60, {"JAX_COORDINATOR_ADDRESS": "here"}),
        (60, {"JAX_COORDINATOR_ADDRESS": None}),
    ]
    at = port()
    ((code, out, err),) = ended([begin([sys.executable, "-c", JOINING, json.dumps(cases)], 0, 2, at)])
    assert (code, err) == (0, "")
    unreachable, *rest = out.splitlines()
    assert unreachable.startswith(f"75 process 0 cannot be reached at 127.0.0.1:{at} (")
    assert rest == [
        "2 JAX_PROCESS_ID is 2, of JAX_NUM_PROCESSES=2: they are numbered from 0.",
        "2 JAX_NUM_PROCESSES is 'two', and must be a number.",
        "2 JAX_COORDINATOR_ADDRESS is 'here', and must be HOST:PORT.",
        "2 --distributed: this is no job of Slurm, Open MPI, Cloud TPU or Kubernetes that JAX knows; set "
        "JAX_COORDINATOR_ADDRESS to HOST:PORT of process 0, JAX_NUM_PROCESSES, and JAX_PROCESS_ID to a number of its own for "
        "each.",
    ]


def test_the_first_process_does_not_wait_for_ever() -> None:
    ((code, out, err),) = ended([begin([sys.executable, "-c", JOINING, "[[1, {}]]"], 0, 2, port())])
    assert (code, out) == (75, "")
    assert err == "graftax: not all processes were there within 1 seconds; start all of them again.\n"


# -- training -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone and data."""
    there = tmp_path_factory.mktemp("processes")
    write_backbone(there / "backbone")
    for n in range(ADAPTERS):
        write_csv(there / f"t{n}.csv", toy_rows(count=24 - n, seed=n))
    return there


def training(there: Path, out: Path, *more: object) -> list[str]:
    data = [there / f"t{n}.csv" for n in range(ADAPTERS)]
    settings = ["--epochs=2", "--batch-size=8", "--max-length=16", "--lr=1e-2", "--rank=2", "--val=0.25"]
    settings += ["--pack-size=4", "--save-every=0"]
    return command_line("train", "-b", there / "backbone", "--data", *data, "--out", out, *settings, *more)


def alone(there: Path, out: Path, *more: object) -> None:
    """One process, whose CPU counts as several devices."""
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"}
    done = subprocess.run(training(there, out, *more), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def made(out: Path) -> dict[str, bytes]:
    """All that a run has written, by path."""
    files = sorted(file for file in out.rglob("*") if file.is_file() and file.suffix != ".md")
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def of_two_devices(there: Path) -> dict[str, bytes]:
    """What one process makes of it on two devices."""
    alone(there, there / "one", "--devices", 2)
    return made(there / "one")


def until_saved(out: Path, running: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until a checkpoint is there."""
    until = time.monotonic() + 240
    while not any(name.name.isdigit() for name in (out / ".run" / "checkpoints").glob("*")):
        assert time.monotonic() < until
        assert all(one.poll() is None for one in running), ended(running)
        time.sleep(0.05)


def test_two_processes_make_the_bits_of_one(there: Path, of_two_devices: dict[str, bytes]) -> None:
    """Adapters and metrics, to the last bit; a process beside the first says nothing and writes nothing."""
    at, out = port(), there / "two"
    first, second = ended([begin(training(there, out, "--distributed"), n, 2, at) for n in range(2)])
    assert (first[0], second[0]) == (0, 0), (first[2], second[2])
    assert [line.split()[0] for line in first[1].splitlines() if line.startswith("/")] == [
        str(out / f"t{n}") for n in range(ADAPTERS)
    ]
    assert not [line for line in (second[1] + second[2]).splitlines() if not line.startswith("[Gloo]")]
    assert made(out) == of_two_devices
    assert not (out / ".run").exists()


@pytest.mark.slow
def test_two_processes_share_the_weights(there: Path) -> None:
    """Each device has half of every large one, and the bits are those of one process whose two devices do."""
    alone(there, there / "shared", "--devices", 2, "--fsdp")
    at, out = port(), there / "sharing"
    found = ended([begin(training(there, out, "--distributed", "--fsdp"), n, 2, at) for n in range(2)])
    assert [code for code, *_ in found] == [0, 0], found
    assert made(out) == made(there / "shared")


@pytest.mark.slow
def test_two_processes_compute_together(there: Path) -> None:
    """Each device computes every slot with its half of the weights; where one is killed, a process of two devices goes on."""
    together = "--tensor-parallel-size=2"
    alone(there, there / "together", together)
    at, out = port(), there / "in-two"
    running = [begin(training(there, out, "--distributed", together), n, 2, at) for n in range(2)]
    until_saved(out, running)
    running[0].kill()
    assert [code for code, *_ in ended(running)] == [-signal.SIGKILL, 75]
    alone(there, out, together)
    assert made(out) == made(there / "together")
    at, out = port(), there / "to-the-end"
    found = ended([begin(training(there, out, "--distributed", together), n, 2, at) for n in range(2)])
    assert [code for code, *_ in found] == [0, 0], found
    assert made(out) == made(there / "together")


@pytest.mark.slow
def test_one_is_killed_and_the_run_goes_on_alone(there: Path, of_two_devices: dict[str, bytes]) -> None:
    """The other ends with a code of its own, soon; one process of two devices goes on, to the same bits."""
    at, out = port(), there / "killed"
    running = [begin(training(there, out, "--distributed"), n, 2, at) for n in range(2)]
    until_saved(out, running)
    running[0].kill()  # its child goes with it
    killed, other = ended(running)
    assert killed[0] == -signal.SIGKILL
    assert other[0] == 75, other[2]
    assert other[2].splitlines()[-1].startswith("graftax: ")
    assert "start all of them again" in other[2].splitlines()[-1]
    assert not set(of_two_devices) <= set(made(out))  # it had not been done
    alone(there, out, "--devices", 2)
    assert made(out) == of_two_devices


@pytest.mark.slow
def test_a_signal_to_one_stops_all(there: Path, of_two_devices: dict[str, bytes]) -> None:
    """At the same step, with their state saved; the same command goes on."""
    at, out = port(), there / "stopped"
    running = [begin(training(there, out, "--distributed"), n, 2, at) for n in range(2)]
    until_saved(out, running)
    running[1].send_signal(signal.SIGTERM)
    for code, _, err in ended(running):
        assert code == 130, err
        assert err.splitlines()[-1].startswith(f"graftax: interrupted, state saved in {out / '.run'}")
    assert (out / ".run" / "run.json").is_file()
    at = port()
    assert [code for code, *_ in ended([begin(training(there, out, "--distributed"), n, 2, at) for n in range(2)])] == [0, 0]
    assert made(out) == of_two_devices


@pytest.mark.slow
def test_unlike_commands_are_refused_everywhere(there: Path) -> None:
    at, out = port(), there / "unlike"
    more: list[Any] = ["--distributed"]
    commands = [training(there, out, *more), training(there, out, *more, "--seed", 1)]
    found = ended([begin(command, n, 2, at) for n, command in enumerate(commands)])
    for code, _, err in found:
        assert code == 2
        assert "process 1 has other data and settings than process 0: all of them run the same command." in err
    assert not any(out.glob("t*"))


@pytest.mark.slow
def test_four_processes_of_which_one_dies_and_two_go_on(there: Path) -> None:
    """One that is not the first is missed by its heartbeat. Another number of devices rounds otherwise, and nothing else."""
    alone(there, there / "four", "--devices", 4)
    whole, at, out = made(there / "four"), port(), there / "died"
    running = [begin(training(there, out, "--distributed"), n, 4, at) for n in range(4)]
    until_saved(out, running)
    running[2].kill()
    began = time.monotonic()
    codes = [code for code, *_ in ended(running)]
    assert (codes, time.monotonic() - began < 90) == ([75, 75, -signal.SIGKILL, 75], True)
    at = port()
    first, second = ended([begin(training(there, out, "--distributed"), n, 2, at) for n in range(2)])
    assert (first[0], second[0]) == (0, 0), (first[2], second[2])
    assert "begun on another machine: the last bits may differ from an uninterrupted run's" in first[2]
    for n in range(ADAPTERS):
        mine, wanted = (load_file(run / f"t{n}" / "adapter_model.safetensors") for run in (out, there / "four"))
        for key in wanted:
            np.testing.assert_allclose(mine[key], wanted[key], atol=2e-5)
    lines = [run / "metrics.jsonl" for run in (out, there / "four")]
    for mine, wanted in zip(*([json.loads(line) for line in file.read_text().splitlines()] for file in lines), strict=True):
        assert mine == pytest.approx(wanted, abs=1e-6)
    assert whole


@pytest.mark.slow
def test_one_that_stands_still_is_ended_and_said(there: Path) -> None:
    at, out = port(), there / "still"
    running = [begin(training(there, out, "--distributed", "--stall-after", 25), n, 2, at) for n in range(2)]
    until_saved(out, running)
    (child,) = Path(f"/proc/{running[1].pid}/task/{running[1].pid}/children").read_text().split()
    os.kill(int(child), signal.SIGSTOP)
    other, still = ended(running)
    killed = "graftax: nothing was done for 25 seconds, the process was killed."
    assert (still[0], still[2].splitlines()[-1]) == (124, killed)
    if other[0] == 75:
        assert "graftax: process 1 of 2 did not come to " in other[2]
    else:  # it has waited in a program on the device, where nobody can say for whom
        assert (other[0], other[2].splitlines()[-1]) == (124, killed)


def test_a_worker_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And other data or settings likewise."""
    mine = {**versions(), "data and settings": "abc"}
    for changed, said in (
        (
            {"graftax": "9.9"},
            f"process 1 has other graftax than process 0 ({versions()['graftax']} and 9.9): all of them run the",
        ),
        (
            {"data and settings": "xyz"},
            "process 1 has other data and settings than process 0: all of them run the same command.",
        ),
    ):
        monkeypatch.setattr(processes, "words", lambda topic, word, changed=changed: [mine, mine | changed])
        with pytest.raises(GraftaxError) as refused:
            _refuse_unlike("abc")
        assert str(refused.value).startswith(said)
    monkeypatch.setattr(processes, "words", lambda topic, word: [word, word])
    _refuse_unlike("abc")


def test_devices_are_those_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many of each; a CPU counts as one, and a process has one however few jobs there are."""
    monkeypatch.setattr(processes, "count", lambda: 4)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    assert [devices_for(jobs, wanted) for jobs, wanted in ((9, None), (9, 8), (1, None), (3, 8))] == [4, 8, 4, 4]
    for wanted, said in (
        (6, "6 devices cannot be those of 4 processes, which have as many each."),
        (12, "12 devices are wanted, and each of 4 processes has 2."),
    ):
        with pytest.raises(GraftaxError) as refused:
            devices_for(20, wanted)
        assert str(refused.value) == said


def test_processes_meet_about_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many ticks as the slowest makes in one; a process alone after every one."""
    meetings, now = Meetings(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert meetings.hold(1, False, True) == (False, True)
    assert meetings.due(2)
    meetings = Meetings(10)  # of a run that goes on
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "words", lambda topic, word: [word, [True, True, 0.25]])
    now[0] += 0.1  # of one tick
    assert meetings.hold(11, False, False) == (True, False)  # one wants to stop; whether it is time to save, the first says
    assert [tick for tick in range(12, 17) if meetings.due(tick)] == [13, 14, 15, 16]  # at most twice as far as before
    meetings.hold(13, False, False)
    assert [tick for tick in range(14, 21) if meetings.due(tick)] == [17, 18, 19, 20]
    meetings.hold(17, False, False)
    assert [tick for tick in range(18, 27) if meetings.due(tick)] == [21, 22, 23, 24, 25, 26]
