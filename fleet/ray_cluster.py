"""A cluster of Ray's, on each machine of which Ray and graftax must be: how shards come to workers, and what they tell back.

A shard is a task of Ray's, which finds it a machine with a free GPU, or where the cluster has none, with free CPUs. Ray is
not asked to try again by itself, for the driver knows more: which adapters have come, and whether a machine was taken away or
a worker has died. Workers put what they tell in a *mailbox*, an actor on the driver's machine, and go on when it is there; so
whatever a worker has told is heard before it is heard that the worker is no more.

A worker's process is kept for the next shard. It is sent bytes, and makes objects of them when it has found that graftax and
JAX are the driver's versions.
"""

from __future__ import annotations

import asyncio
import io
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import ray
from ray import cloudpickle
from ray.exceptions import NodeDiedError, RayError, RayTaskError, RuntimeEnvSetupError, TaskUnschedulableError
from ray.util import get_node_ip_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..cache import use_compilation_cache
from ..errors import GraftaxError, in_a_line

if TYPE_CHECKING:  # a worker's process imports this file before it is known where compiled programs are kept
    from .messages import Measure, Message, Order, Seen, Work

PATIENCE = 30.0  # seconds for a cluster to answer; Ray's own would be two minutes
_REACHED = 5.0  # seconds for its machine to answer
_MOMENT = 0.2  # seconds to wait for messages
_TO_STOP = 15.0  # seconds for workers to save their states
_ROOM = 256  # messages in the mailbox
_NUMERIC = ("XLA_FLAGS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION")  # variables on which numbers may depend
_LISTENER = "ray_listen_error_messages"  # the thread in which Ray prints what it sees of machines that die


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Ray's connection to a cluster; a GraftaxError soon where there is none.

    `address`: "auto", the cluster that this machine is in, or that of RAY_ADDRESS; or HOST:PORT of its head.
    """
    if ray.is_initialized():  # by whoever calls graftax from Python
        there = ray.get_runtime_context().gcs_address
        if address not in ("auto", there):
            raise GraftaxError(
                f"--ray {address}: this process is connected to the cluster at {there}; ray.shutdown() ends that."
            )
        yield
        return
    if address != "auto":
        _reach(address)
    failed: list[BaseException] = []

    def connect() -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except BaseException as error:
            failed.append(error)

    # not in the main thread, where it would take SIGTERM for itself, and could not be left
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise GraftaxError(f"--ray {address}: no Ray cluster answers there within {PATIENCE:.0f} seconds.")
    if failed:
        how = " Start one with `ray start --head`, or say where one is: --ray HOST:PORT." if address == "auto" else ""
        raise GraftaxError(f"--ray {address}: no Ray cluster there: {_first_line(failed[0])}{how}")
    try:
        with _without_rays_words():
            yield
    finally:
        with redirect_stdout(io.StringIO()):  # it prints what it has kept back
            ray.shutdown()


def _reach(address: str) -> None:
    """An error where nothing answers at an address."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise GraftaxError(f"--ray {address!r} is no address: give auto, or HOST:PORT of a cluster's head.")
    if host in ("localhost", "127.0.0.1"):
        host = get_node_ip_address()  # as Ray reads these
    try:
        socket.create_connection((host, int(port)), _REACHED).close()
    except OSError as error:
        raise GraftaxError(f"--ray {address}: nothing answers at {host}:{port} ({error.strerror or error}).") from error


class _Out:
    """Standard output, without what Ray prints there."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name == _LISTENER else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _without_rays_words() -> Iterator[None]:
    """Standard output is for results; Ray would print pages there when a machine dies, which the run says in a line."""
    stream: Any = sys.stdout
    sys.stdout = _Out(stream)
    try:
        yield
    finally:
        sys.stdout = stream


def taken_by_a_worker(cpus: float, gpus: int | None = None) -> dict[str, Any]:
    """What a process that computes takes of a cluster, as Ray's options; and its environment.

    That is so many CPUs, and so many GPUs; None: one where the cluster that this process is connected to has any.
    """
    if gpus is None:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    environment = {name: os.environ[name] for name in _NUMERIC if name in os.environ}
    if not gpus:
        environment["NPROC"] = str(math.ceil(cpus))  # XLA's threads: by itself as many as there are cores
    return {"num_cpus": cpus, "num_gpus": gpus, "runtime_env": {"env_vars": environment}}


class RayCluster:
    """The cluster to which this process is connected (a `fleet_run.Cluster`)."""

    def __init__(self, cpus: int):
        """`cpus`: that each worker takes."""
        self._refs: dict[Any, int] = {}  # what stands for a task that is under way, and its shard
        taken = taken_by_a_worker(cpus)
        self._gpus, self._cpus = taken["num_gpus"], cpus
        self._work = ray.remote(max_calls=0, max_retries=0)(_work).options(**taken)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # a worker that waits for room counts as a call under way
        mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here, max_concurrency=1 << 20)
        self._mailbox: Any = mailbox.remote(_ROOM)

    def workers(self) -> int:
        there = ray.cluster_resources()
        return max(1, math.floor(there.get("GPU", 0) if self._gpus else there.get("CPU", 0) / self._cpus))

    def look(self, order: Order, cohorts: Sequence[Measure]) -> Seen:
        try:
            said = ray.get(self._started((order, tuple(cohorts))))
        except RayError as error:
            raise GraftaxError(f"a first worker has failed: {_first_line(error)}") from error
        if isinstance(said, _Refusal):
            raise GraftaxError(said.why)
        seen: Seen = cloudpickle.loads(said)
        return seen

    def submit(self, order: Order, work: Work) -> None:
        self._refs[self._started((order, work))] = work.shard

    def _started(self, content: Any) -> Any:
        from ..train.begun import versions

        return self._work.remote(versions(), ray.put(cloudpickle.dumps(content)), self._mailbox)

    def messages(self) -> list[Message]:
        refs = list(self._refs)
        ended, _ = ray.wait(refs, num_returns=len(refs), timeout=0) if refs else ([], [])
        told = ray.get(self._mailbox.take.remote(0.0 if ended else _MOMENT))
        return [*map(cloudpickle.loads, told), *(self._end(ref) for ref in ended)]

    def _end(self, ref: Any) -> Message:
        """How a shard has ended."""
        from .messages import ShardEnds, ShardLost, ShardRefused

        shard = self._refs.pop(ref)
        try:
            said = ray.get(ref)
        except NodeDiedError as error:
            return ShardLost(shard, _first_line(error), with_node=True)
        except (RuntimeEnvSetupError, TaskUnschedulableError) as error:
            return ShardRefused(shard, f"Ray starts no worker: {_first_line(error)}")
        except (RayError, Exception) as error:  # a task's own is of its own class, too
            return ShardLost(shard, _first_line(error), with_node=False)
        return ShardRefused(shard, said.why) if isinstance(said, _Refusal) else ShardEnds(shard)

    def stop(self) -> None:
        refs = list(self._refs)
        for ref in refs:
            ray.cancel(ref)  # which a worker hears as SIGINT
        if refs:
            _, left = ray.wait(refs, num_returns=len(refs), timeout=_TO_STOP)
            for ref in left:
                ray.cancel(ref, force=True)
        self._refs.clear()


class Mailbox:
    """What workers have told, until the driver takes it."""

    def __init__(self, room: int):
        """`room`: for so many messages; whoever brings one more waits."""
        self._told: asyncio.Queue[bytes] = asyncio.Queue(room)

    async def put(self, message: bytes) -> None:
        """Put a message here, as soon as there is room."""
        await self._told.put(message)

    async def take(self, seconds: float) -> list[bytes]:
        """All that is here; where nothing is, what comes within so many seconds."""
        taken = []
        with suppress(TimeoutError):
            if self._told.empty() and seconds:
                taken.append(await asyncio.wait_for(self._told.get(), seconds))
        while not self._told.empty():
            taken.append(self._told.get_nowait())
        return taken


class _Refusal:
    """Why a worker refuses what it was sent. (No exception: Ray would wrap it in some of its own.)"""

    def __init__(self, why: str):
        self.why = why


def _tell(mailbox: Any, message: Message) -> None:
    """Put a message into the mailbox, and go on when it is there.

    Not by `ray.get`: who waits there gives up its CPUs meanwhile, and Ray begins another worker on them, with a backbone of its
    own, beside the one that goes on.
    """
    mailbox.put.remote(cloudpickle.dumps(message)).future().result()


def _work(versions: Mapping[str, str], content: bytes, mailbox: Any) -> Any:
    """In a worker's process: look at a run's backbone, or train a shard of it."""
    use_compilation_cache()
    node = get_node_ip_address()
    try:
        _refuse_others(versions)
        from .shard_worker import look, train_shard

        order, work = cloudpickle.loads(content)
        if isinstance(work, tuple):
            return cloudpickle.dumps(look(order, work))
        train_shard(order, work, node, partial(_tell, mailbox))
    except GraftaxError as error:
        return _Refusal(f"worker on {node}: {error}")
    return None


def _refuse_others(wanted: Mapping[str, str]) -> None:
    """An error where this process has other versions than the driver of what computes the bits of a run."""
    from ..train.begun import versions

    for name, here in versions().items():
        if (there := wanted.get(name)) != here:
            raise GraftaxError(f"{name} is version {here} there, and the driver has {there}: install one version everywhere.")


def _first_line(error: BaseException) -> str:
    """What an exception says, without the pages that Ray says behind it."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return in_a_line(lines[0] if lines else type(cause).__name__)
