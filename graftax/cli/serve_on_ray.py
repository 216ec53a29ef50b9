"""`graftax serve --ray`: replicas of a server on the machines of a Ray cluster."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated

import typer
from annotated_doc import Doc

from ..counted import counted
from ..errors import GraftaxError
from ..signals import STOPPING
from ..typed import Positive, Within, settle
from .arguments import is_given
from .served_backbone import ServedBackbone, say

if TYPE_CHECKING:
    from ..fleet.ray_serving import ReplicatedServer
    from ..serve.http.keys import Key
    from ..serve.http.tls import Certificate

_ROOM = 2  # requests that a replica may have for each lane, before others are asked that do not have the adapter
_COUNT = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


@dataclass(frozen=True)
class OnRay:
    """Where replicas are, and how many."""

    ray: Annotated[
        str | None, Doc("Serve on this Ray cluster: auto, the one this machine is in, or HOST:PORT of its head.")
    ] = None
    replicas: Annotated[str, Doc("How many there are: 4, or 1-8, as many of these as there is work for.")] = "1"
    replica_cpus: Annotated[Positive, Doc("CPUs that each takes.")] = 1.0
    replica_gpus: Annotated[
        Annotated[int, Within(0)] | None,
        Doc("GPUs that each takes, as many as share its weights, or 0. Default: 1, where the cluster has any."),
    ] = None

    def __post_init__(self) -> None:
        settle(self)

    def count(self) -> tuple[int, int]:
        """The fewest replicas and the most."""
        found = _COUNT.fullmatch(self.replicas)
        fewest, most = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
        if not 1 <= fewest <= most:
            raise GraftaxError(f"--replicas {self.replicas!r}: give a number, as 4, or a smaller and a larger one, as 1-8.")
        return fewest, most

    def gpus(self, sharing: int) -> int | None:
        """GPUs of each replica, of which so many devices share the weights; None: one, where the cluster has any."""
        if self.replica_gpus not in ((0, sharing) if sharing > 1 else (None, 0, 1)):
            wanted = (
                f"--tensor-parallel-size {sharing} wants --replica-gpus {sharing}" if sharing > 1 else "a replica uses one GPU"
            )
            raise GraftaxError(f"{wanted}, or 0 where it computes on CPUs.")
        return self.replica_gpus


def refuse_without_ray(context: typer.Context) -> None:
    """An error where an option was given that is for a Ray cluster alone."""
    given = [one.name for one in fields(OnRay) if is_given(context, one.name)]
    if given:
        raise GraftaxError(f"--{given[0].replace('_', '-')} is for a Ray cluster; name it with --ray.")


def replicated(
    served: ServedBackbone, on_ray: OnRay, keys: tuple[Key, ...], origins: tuple[str, ...], refused: Mapping[str, bool]
) -> ReplicatedServer:
    """What is served by replicas; `refused`: options that these cannot have, and whether they were given."""
    from ..serve.http.quotas import Quota

    for option, given in refused.items():
        if given:
            raise GraftaxError(f"{option} is for a server of one process, and not for replicas (--ray).")
    if any(key.quota != Quota() for key in keys):
        raise GraftaxError("keys with quotas (rpm, tpm, ...) are counted by each process, and so not for replicas (--ray).")
    fewest, most = on_ray.count()
    try:
        from ..fleet.ray_serving import Replicas, ReplicatedServer
    except ModuleNotFoundError as error:
        raise GraftaxError("a Ray cluster needs Ray, here and on its machines: pip install 'graftax[ray]'.") from error
    from ..serve.http.serving import called

    replicas = Replicas(
        fewest,
        most,
        under_way=served.lanes,
        at_most=_ROOM * served.lanes,
        adapters=served.slots,
        cpus=on_ray.replica_cpus,
        gpus=on_ray.gpus(served.loading["tensor_parallel_size"]),
    )
    return ReplicatedServer(served.anywhere().service, called(served.backbone), replicas, keys, origins, served.limits)


def serve_replicas(server: ReplicatedServer, address: str, host: str, port: int, certificate: Certificate | None) -> None:
    """Serve on the Ray cluster at an address until Ctrl-C or SIGTERM."""
    from ..fleet.ray_serving import served_on_ray
    from ..serve.http.serving import address_of

    asked_to_end, replicas = threading.Event(), server.replicas
    with served_on_ray(server, address=address, host=host, port=port, certificate=certificate):
        for number in STOPPING:
            signal.signal(number, lambda *_: asked_to_end.set())
        many = counted(replicas.fewest, "replica") + (f", up to {replicas.most}" if replicas.most > replicas.fewest else "")
        say(f"{server.base} at {address_of(host, port, certificate)}/v1 on every machine of the cluster, {many}")
        asked_to_end.wait()
