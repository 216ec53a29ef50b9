"""A Ray cluster as the fleet that trains a run (`train/fleet.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import GraftaxError
from ..paths import anywhere
from ..train.wanted_run import WantedRun
from ..typed import Location, Some, checked
from .fleet_run import Cluster, FleetRun, new_token, open_fleet_run
from .messages import Order


@contextmanager
def ray_fleet(address: str, backbone: Location, *, cpus: int = 1, **loading: Any) -> Iterator[RayFleet]:
    """The machines of a Ray cluster, for `train_many(..., fleet=fleet)`.

    Args:
        address: "auto", the cluster that this machine is part of (or that of `RAY_ADDRESS`), or HOST:PORT of its head.
        backbone: where each worker finds it: a directory, the same on every machine, or a Hub id.
        cpus: that a worker takes; it takes a GPU as well, where the cluster has any.
        loading: how it is loaded, as `load_backbone` takes it.

    Raises:
        GraftaxError: no such cluster; Ray is not installed.
    """
    with ray_fleets(address, cpus=cpus) as fleet_of:
        yield fleet_of(backbone, **loading)


@contextmanager
def ray_fleets(address: str, *, cpus: int = 1) -> Iterator[Callable[..., RayFleet]]:
    """The same for any number of backbones: a function of the backbone and how it is loaded."""
    checked(cpus, Some, "the CPUs of a worker")
    try:
        from .ray_cluster import RayCluster, connected
    except ImportError as error:
        raise GraftaxError("a Ray cluster needs Ray, here and on its machines: pip install 'graftax[ray]'.") from error
    with connected(address):
        yield partial(_fleet_of, RayCluster(cpus))


def _fleet_of(cluster: Cluster, backbone: Location, **loading: Any) -> RayFleet:
    if loading.get("tensor_parallel_size", 1) != 1:
        raise GraftaxError("a worker of a Ray cluster has one device: leave out tensor_parallel_size.")
    return RayFleet(cluster, anywhere(backbone), {name: anywhere(value) for name, value in loading.items()})


@dataclass(frozen=True)
class RayFleet:
    """A cluster, and how its workers load the backbone."""

    cluster: Cluster
    backbone: str
    loading: Mapping[str, Any]

    def open_run(self, wanted: WantedRun) -> FleetRun:
        """As `queue.open_run`; how many devices a worker has is the cluster's affair."""
        from .shard_worker import settings_of_jax

        order = Order(
            self.backbone,
            self.loading,
            wanted.backbone.fingerprint,
            settings_of_jax(),
            wanted.task,
            str(wanted.out.absolute()),
            new_token(),
            wanted.save_every,
        )
        return open_fleet_run(self.cluster, order, wanted)
