"""Replicas of a server on the machines of a Ray cluster, by Ray Serve.

    proxy (Ray's, on every node)  ->  front: reads the model's name  ->  a replica: a process with the whole server

Ray Serve begins the replicas, looks whether they live, begins others in their place, and more of them while more requests are
under way than each is to have (`Replicas`). Which adapters a replica was asked for last it tells Ray (`serve.multiplexed`), and
Ray hands a request for one of them to a replica that has it, unless those are full.

Served so it stays when the process that began it has gone: it belongs to the cluster, until it is deleted. Whoever begins it is
a command (`served_on_ray`), or Ray Serve itself, which has read of it in a file (`graftax/cli/ray_service.py`).
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message
from uvicorn.lifespan.on import LifespanOn

from ..cache import use_compilation_cache
from ..errors import GraftaxError
from ..serve.http.app import make_app
from ..serve.http.health import condition
from ..serve.http.keys import Key
from ..serve.http.limits import Limits
from ..serve.http.replicas.front import ReplicaGone, make_front
from ..serve.http.replicas.whole_request import WholeRequest, answer_of
from ..serve.http.service import Service, too_much
from ..serve.http.tls import Certificate
from .ray_cluster import connected, taken_by_a_worker

APPLICATION = "graftax"  # what it is called in the cluster
_OF_FRONT = 8  # replicas that one process of the front hands requests to, when they are busy
_STARTS = 2  # of a replica that fails to begin, before that is said
_GONE = (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError)
_LOOK = 0.2  # seconds between two looks whether something has come true
_TO_LISTEN, _TO_ANSWER = 10.0, 2.0  # seconds that a proxy may take to listen, and to answer
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_QUIET = {"log_level": "WARNING"}


@dataclass(frozen=True)
class Replicas:
    """How many replicas there are, and what each has."""

    fewest: int
    most: int
    under_way: int  # requests that each is to have, on the mean; with more there are more replicas, up to `most`
    at_most: int  # requests that one may have; then it is full
    adapters: int  # that a replica is taken to have, those it was asked for last
    cpus: float
    gpus: int | None = None  # beside these; None: one, where the cluster has any when they begin


def _replica_class(adapters: int) -> type:
    """The class of replicas, whose memory for names Ray wants to know where it is declared."""

    class Replica:
        """A server in a process, asked without a socket."""

        # Ray Serve awaits it, in the loop in which requests are answered
        async def __init__(self, make: Callable[[], Service], keys: tuple[Key, ...], origins: tuple[str, ...]):  # type: ignore[misc]
            use_compilation_cache()
            self._service = await asyncio.to_thread(make)
            self._app = make_app(self._service, keys, origins)
            self._lifespan = LifespanOn(uvicorn.Config(self._app, lifespan="on"))
            await self._lifespan.startup()
            if self._lifespan.should_exit:
                raise RuntimeError("the server did not begin; its log has what happened.")
            while (warm := self._service.warm_up) is not None and not warm.over:  # it is asked when it is as fast as it will be
                await asyncio.sleep(_LOOK)

        @serve.multiplexed(max_num_models_per_replica=adapters)
        async def _has(self, name: str) -> str:
            """Tell Ray that the adapter of this name was asked for here. (Reading it is the server's own matter.)"""
            return name

        async def answer(self, asked: WholeRequest) -> AsyncIterator[Message]:
            if name := serve.get_multiplexed_model_id():
                await self._has(name)
            async for message in answer_of(self._app, asked):
                yield message

        async def whole_answer(self, asked: WholeRequest) -> tuple[str, int, str]:
            """The name of this replica, and the status and the text that it answers."""
            messages = [message async for message in answer_of(self._app, asked)]
            text = b"".join(message.get("body", b"") for message in messages).decode()
            return serve.get_replica_context().replica_id.unique_id, messages[0]["status"], text

        def check_health(self) -> None:
            """Raises where this replica can do nothing any more; Ray begins another in its place."""
            status, wrong = condition(self._service)
            if status == "unable":
                raise RuntimeError("; ".join(wrong))

        async def __del__(self) -> None:
            await self._lifespan.shutdown()

    return Replica


class _Front:
    """The process where requests come in, of which each machine's proxy knows."""

    def __init__(self, replicas: DeploymentHandle, base: str, limits: Limits):
        self._replicas, self._base, self._limits = replicas, base, limits

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return make_front(self._base, self._limits, self._ask, self._ask_all)

    async def _ask(self, name: str, asked: WholeRequest) -> AsyncIterator[Message]:
        try:
            messages: Any = self._replicas.options(stream=True, multiplexed_model_id=name).answer.remote(asked)
            async for message in messages:
                yield message
        except BackPressureError as error:
            raise too_much(self._limits.max_queue) from error
        except _GONE as error:
            raise ReplicaGone from error

    async def _ask_all(self, asked: WholeRequest) -> Mapping[str, tuple[int, str]]:
        answers = await asyncio.to_thread(lambda: self._replicas.broadcast("whole_answer", asked).results())
        return {name: (status, text) for name, status, text in answers}


@dataclass(frozen=True)
class ReplicatedServer:
    """What the replicas of a server are, wherever they will be."""

    make: Callable[[], Service]  # of a replica, in the process and on the machine where that is: it is sent there
    base: str  # what requests name the backbone by
    replicas: Replicas
    keys: tuple[Key, ...]
    origins: tuple[str, ...]
    limits: Limits

    def application(self) -> serve.Application:
        """The front with its replicas, as Ray Serve begins them."""
        replicas, limits = self.replicas, self.limits
        replica = serve.deployment(
            name="Replica",
            autoscaling_config={
                "min_replicas": replicas.fewest,
                "max_replicas": replicas.most,
                "target_ongoing_requests": replicas.under_way,
            },
            max_ongoing_requests=replicas.at_most,
            max_queued_requests=limits.max_queue,
            max_constructor_retry_count=_STARTS,
            graceful_shutdown_timeout_s=limits.timeout,
            ray_actor_options=taken_by_a_worker(replicas.cpus, replicas.gpus),
        )(_replica_class(replicas.adapters)).bind(self.make, self.keys, self.origins)
        under_way = _OF_FRONT * replicas.under_way
        return serve.deployment(
            name="Front",
            autoscaling_config={"min_replicas": 1, "max_replicas": replicas.most, "target_ongoing_requests": under_way},
            max_ongoing_requests=replicas.most * replicas.at_most + limits.max_queue,
            ray_actor_options={"num_cpus": 0},
        )(serve.ingress()(_Front)).bind(replica, self.base, limits)


@contextmanager
def served_on_ray(
    server: ReplicatedServer, *, address: str, host: str, port: int, certificate: Certificate | None = None
) -> Iterator[None]:
    """Serve on a cluster as long as the block goes on, which begins when the first replicas can answer.

    Args:
        server: what is served.
        address: of the cluster: host:port of its head, or "auto" for the one that this machine belongs to.
        host, port: where each machine's proxy listens.

    Raises GraftaxError where there is no such cluster, graftax is served there already, or no replica begins.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with connected(address):
        there = serve.status()
        if APPLICATION in there.applications:
            raise GraftaxError(f"{APPLICATION} is served on that cluster already; end that first (serve delete {APPLICATION}).")
        end = partial(serve.delete, APPLICATION) if there.proxies else serve.shutdown  # of Ray Serve, unless others use it
        serve.start(proxy_location="EveryNode", http_options=_http_options(host, port, certificate), logging_config=_QUIET)
        try:
            _expect_at(host, port, certificate)
            _run(server.application())
            yield
        finally:
            end()


def _run(front: serve.Application) -> None:
    """Let it be served; a GraftaxError says why no replica begins, in what the last one has said."""
    try:
        serve.run(front, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        deployments = serve.status().applications[APPLICATION].deployments.values()
        lines = [line for one in deployments for line in one.message.splitlines() if line.strip()]
        said = lines[-1].strip() if lines else str(error)
        raise GraftaxError(
            f"no replica begins: {said.removeprefix(f'{GraftaxError.__module__}.{GraftaxError.__name__}: ')}"
        ) from error


def _http_options(host: str, port: int, certificate: Certificate | None) -> dict[str, Any]:
    options: dict[str, Any] = {"host": host, "port": port}
    if certificate is not None:
        key = certificate.key or certificate.file
        options |= {"ssl_certfile": str(certificate.file.absolute()), "ssl_keyfile": str(key.absolute())}
    return options


def _expect_at(host: str, port: int, certificate: Certificate | None) -> None:
    """A GraftaxError where no proxy answers there as it was asked to.

    Who begins Ray Serve on a cluster says for all that is served there where its proxies listen, and whether they speak TLS.
    What is asked for later is passed over by Ray.
    """
    end = time.monotonic() + _TO_LISTEN
    while not _answers({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, certificate):
        if time.monotonic() > end:
            how = "without TLS" if certificate is None else "with this certificate"
            raise GraftaxError(
                f"Ray Serve does not listen at {host}:{port} {how}: it was begun on that cluster for something else, which "
                "holds until `serve shutdown`."
            )
        time.sleep(_LOOK)


def _answers(host: str, port: int, certificate: Certificate | None) -> bool:
    """Whether a proxy answers there, in HTTP, or shows this certificate."""
    try:
        if certificate is None:
            asked = http.client.HTTPConnection(host, port, timeout=_TO_ANSWER)
            asked.request("GET", "/-/healthz")
            return bool(asked.getresponse().status)
        shown, own = ssl.get_server_certificate((host, port), timeout=_TO_ANSWER), _PEM.search(certificate.file.read_text())
        return own is not None and ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(own[0])
    except (OSError, http.client.HTTPException):
        return False
