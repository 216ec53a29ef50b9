"""A Ray cluster as the fleet that trains a run (`train/fleet.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import disk
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..tasks.task import Task
from ..train.job import Job
from ..train.progress import Progress
from ..train.shelf import Shelf
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
        cluster = RayCluster(cpus)
        yield lambda backbone, **loading: RayFleet(
            cluster, _anywhere(backbone), {name: _anywhere(value) for name, value in loading.items()}
        )


def _anywhere(location: Any) -> Any:
    """A directory or file of this machine by its whole path, because workers stand elsewhere; all else as it is."""
    return str(Path(location).absolute()) if isinstance(location, str | Path) and Path(location).exists() else location


@dataclass(frozen=True)
class RayFleet:
    """A cluster, and how its workers load the backbone."""

    cluster: Cluster
    backbone: str
    loading: Mapping[str, Any]

    def open_run(
        self,
        backbone: Backbone,
        task: Task,
        jobs: list[Job],
        out: Path,
        lock: disk.Locked | None,
        pack_size: int | None,
        overwrite: bool,
        save_every: float,
        progress: Progress,
        push: Shelf | None = None,
        devices: int | None = None,
    ) -> FleetRun:
        """As `queue.open_run`; how many devices a worker has is the cluster's affair."""
        from .shard_worker import settings_of_jax

        assert lock is not None, "one process has it, and several have no fleet"
        order = Order(
            self.backbone,
            self.loading,
            backbone.fingerprint,
            settings_of_jax(),
            task,
            str(out.absolute()),
            new_token(),
            save_every,
        )
        return open_fleet_run(self.cluster, order, backbone, jobs, out, lock, pack_size, overwrite, progress, push)
