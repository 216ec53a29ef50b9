"""Several processes that do one thing together: how they begin, what they tell one another, who is gone.

JAX runs one program on the devices of many processes where each of them asks for the same programs in the same order. So all
of them run one command, read the same data and take the same decisions, and whatever a decision rests on must be the same
everywhere: a clock, a signal, what is on a disk. Such things are told by *words*, small values as JSON that go through JAX's
coordination service (a server in process 0, which JAX itself and orbax use, too), and nothing of them is ever on a device:

    words("the data", digest)      what each process says, in the order of their numbers, once all have spoken
    first_says("...", function)    what a function returns in process 0, or its GraftaxError, everywhere
    sound("...")                   a GraftaxError of one process in the block ends the block in all

A word is waited for so long and no longer, and who has not spoken then is named. A process that dies is noticed by JAX, which
aborts the others; `watchdog.py` says that in a line and with an exit code.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from . import watchdog
from .counted import counted
from .errors import GraftaxError
from .exit_codes import AGAIN
from .signals import leave

_WAIT = 600.0  # seconds for which a word is waited for
_PARTING = 5.0  # and who ends for the end of the others
_HEARTBEAT = 30  # after so many seconds without a sign of life a process is dead

_joined: Any = None  # JAX's state of the distributed system, once this process has joined others
_wait = _WAIT
_numbers = itertools.count()  # of what is spoken about: the same everywhere, for all speak about the same in the same order


class Gone(GraftaxError):
    """Other processes are gone or do not answer: nothing is wrong here, and all are to be started again."""

    exit_code = AGAIN


def count() -> int:
    """How many processes there are; 1 where this one is alone."""
    return _state().num_processes if _state() else 1


def index() -> int:
    """The number of this process, from 0."""
    return _state().process_id if _state() else 0


def is_first() -> bool:
    """Whether this is process 0, which alone writes and shows anything."""
    return index() == 0


def of_each(devices: int) -> int:
    """How many devices each process has of a number that all are to have together. GraftaxError where they have not so many."""
    import jax

    each, left_over = divmod(devices, count())
    if left_over:
        raise GraftaxError(f"{counted(devices, 'device')} cannot be those of {count()} processes, which have as many each.")
    if each > (there := jax.local_device_count()):
        whose = "this process has" if count() == 1 else f"each of {count()} processes has"
        raise GraftaxError(f"{counted(devices, 'device')} are wanted, and {whose} {there}.")
    return each


def devices(each: int) -> list[Any]:
    """So many of JAX's devices of every process, in the order of the processes."""
    import jax

    by_process: dict[int, list[Any]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    return [device for _, own in sorted(by_process.items()) for device in own[:each]]


def _state() -> Any:
    """JAX's, or None where `jax.distributed.initialize` was not called: on the command line `join` does that."""
    if _joined is None and "jax" in sys.modules:
        from jax._src import distributed

        return distributed.global_state if distributed.global_state.client is not None else None
    return _joined


# -- beginning and end ----------------------------------------------------------------------------------------------------


def join(within: float, answer_within: float | None = None) -> None:
    """Join the other processes of this command, as `jax.distributed.initialize` finds them; at most so many seconds.

    It knows Slurm, Open MPI, Cloud TPU and (with the package `kubernetes`) Kubernetes by itself; elsewhere
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say it, of which JAX reads the first.

    Args:
        answer_within: seconds for which a word is waited for later; None: ten minutes.
    """
    import jax
    from jax._src import distributed

    global _joined, _wait
    _wait = _WAIT if answer_within is None else answer_within
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    own, all_of_them = _number("JAX_PROCESS_ID"), _number("JAX_NUM_PROCESSES")
    if address is not None and ":" not in address:
        raise GraftaxError(f"JAX_COORDINATOR_ADDRESS is {address!r}, and must be HOST:PORT.")
    if own is not None and all_of_them is not None and own >= all_of_them:
        raise GraftaxError(f"JAX_PROCESS_ID is {own}, of JAX_NUM_PROCESSES={all_of_them}: they are numbered from 0.")
    began = time.monotonic()
    if address is not None and own:
        _expect_coordinator(address, began + within)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM, which `signals.py` hears
    # JAX aborts the process where others do not come in time; a line is better, so this is a little quicker
    impatient = threading.Timer(max(0.0, began + within - time.monotonic()), _did_not_come, [within])
    impatient.daemon = True
    impatient.start()
    try:
        jax.distributed.initialize(
            num_processes=all_of_them,
            process_id=own,
            initialization_timeout=int(within) + 60,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_HEARTBEAT,
        )
    except ValueError as error:
        raise GraftaxError(
            "--distributed: this is no job of Slurm, Open MPI, Cloud TPU or Kubernetes that JAX knows; set "
            "JAX_COORDINATOR_ADDRESS to HOST:PORT of process 0, JAX_NUM_PROCESSES, and JAX_PROCESS_ID to a number of its own "
            "for each."
        ) from error
    except RuntimeError as error:
        raise GraftaxError(
            f"process {own or 0} cannot listen at {address or 'its port'} for the others ({error}): choose another."
        ) from error
    finally:
        impatient.cancel()
    _joined = distributed.global_state


def _number(variable: str) -> int | None:
    """What a variable of the environment says; None where it is not set."""
    said = os.environ.get(variable)
    if said is None:
        return None
    if not said.isascii() or not said.isdigit():
        raise GraftaxError(f"{variable} is {said!r}, and must be a number.")
    return int(said)


def _expect_coordinator(address: str, until: float) -> None:
    """Wait until somebody listens there, which JAX does less well: it takes an abort for an error."""
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit():
        raise GraftaxError(f"JAX_COORDINATOR_ADDRESS is {address!r}, and must be HOST:PORT.")
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
        except OSError as error:
            if time.monotonic() > until:
                raise Gone(f"process 0 cannot be reached at {address} ({error}); is it running there?") from error
            time.sleep(0.2)
        else:
            return


def _did_not_come(within: float) -> None:
    leave(f"graftax: not all processes were there within {within:g} seconds; start all of them again.", AGAIN)


def part() -> bool:
    """Take leave of the others, where all of them are at their end too; False where they are not."""
    global _joined
    if _joined is None:
        return True
    import jax

    with suppress(Exception):
        _joined.client.wait_at_barrier("graftax/the end", int(_PARTING * 1000))
        jax.distributed.shutdown()
        _joined = None
    return _joined is None


def end(code: int) -> NoReturn:
    """End this process. Where others go on, JAX would wait for them, and abort: then without it."""
    if part():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def await_verdict(error: Exception) -> None:
    """Where XLA has failed among others: wait until it is known whether one of them is gone, for then JAX aborts this process.

    What has begun with another's death looks like an error of the program here.
    """
    if count() == 1:
        return
    import jax

    if not isinstance(error, jax.errors.JaxRuntimeError):
        return
    try:
        _state().client.wait_at_barrier("graftax/an error", 2000 * _HEARTBEAT)  # all have failed alike, and none is gone
    except RuntimeError:
        time.sleep(_PARTING)  # JAX knows, and is about to


# -- words ------------------------------------------------------------------------------------------------------------------


def words(topic: str, mine: Any) -> list[Any]:
    """What each process says about a topic, such as "the end of an epoch", as JSON, in the order of their numbers."""
    watchdog.beat()
    if count() == 1:
        return [mine]
    number = next(_numbers)
    said = _meet(f"graftax/{number}", topic, {"topic": topic, "word": mine}, _wait)
    if is_first() and number > 1:  # all have read what was said before, or they would not have come
        with suppress(Exception):
            _state().client.key_value_delete(f"graftax/{number - 2}/")
    if apart := [process for process, one in enumerate(said) if one["topic"] != topic]:
        raise GraftaxError(
            f"process {apart[0]} is at {said[apart[0]]['topic']}, and process {index()} at {topic}: not one command."
        )
    return [one["word"] for one in said]


def _meet(key: str, topic: str, word: Any, wait: float) -> list[Any]:
    """What each process says under a key, once all have; `Gone`, with who has not, where they do not come."""
    client = _state().client
    try:
        client.key_value_set(f"{key}/{index()}", json.dumps(word))
        client.wait_at_barrier(f"{key}/all", int(wait * 1000))
        return [json.loads(client.blocking_key_value_get(f"{key}/{process}", 10_000)) for process in range(count())]
    except RuntimeError as error:
        came: set[int] = set()
        with suppress(Exception):
            came = {int(name.rpartition("/")[2]) for name, _ in client.key_value_dir_get(f"{key}/")}
        missing = [str(process) for process in range(count()) if process not in came]
        who = f"process {missing[0]}" if len(missing) == 1 else f"processes {', '.join(missing[:20])}"
        if not missing:
            who = "another process"
        raise Gone(
            f"{who} of {count()} did not come to {topic} ({wait:g} seconds are waited at most); start all of them again, to go "
            "on from the newest state that was saved."
        ) from error


def first_says(topic: str, function: Callable[[], Any]) -> Any:
    """What a function returns in process 0, as JSON; its GraftaxError is everybody's."""
    if count() == 1:
        return function()
    said, error = None, None
    if is_first():
        try:
            said = function()
        except GraftaxError as raised:
            error = raised
    first = words(topic, [said, None if error is None else str(error)])[0]
    if error is not None:
        raise error
    if first[1] is not None:
        raise GraftaxError(f"process 0: {first[1]}")
    return first[0]


@contextmanager
def sound(topic: str) -> Iterator[None]:
    """A block from which all processes come without an error, or none."""
    if count() == 1:
        yield
        return
    try:
        yield
    except Gone:
        raise
    except GraftaxError as error:
        words(topic, str(error))
        raise
    found = words(topic, None)
    for process, said in enumerate(found):
        if said is not None:
            raise GraftaxError(f"process {process}: {said}")
