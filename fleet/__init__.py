"""Many adapters trained over the machines of a cluster: any number of them, which may come and go.

Adapters are independent of each other. So a run needs no link between machines and no gang that has to be complete: its jobs
are cut into *shards* (`shards.py`), each of which one worker trains through a pack, as one machine would (`shard_worker.py`).
What comes of them goes to the *driver*, the process that was called, adapter by adapter (`messages.py`), and is written there
(`fleet_run.py`). Where workers run, and which of them are lost, is told by Ray (`ray_cluster.py`).

A cluster can serve adapters as well: replicas of the server, behind one address (`ray_serving.py`). No other file than these
two knows Ray.
"""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .on_ray import ray_fleet

__all__ = ["ray_fleet"]

__getattr__, __dir__ = lazily(__name__, {".on_ray": "ray_fleet"})
