"""A cluster without Ray: shards are trained in this process, one after another, and lost where a test says so."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from graftax.errors import GraftaxError
from graftax.fleet.fleet_run import Cluster
from graftax.fleet.messages import Finished, Measure, Message, Order, Seen, ShardEnds, ShardLost, ShardRefused, Work
from graftax.fleet.on_ray import RayFleet
from graftax.fleet.shard_worker import look, train_shard


class Dies(Exception):
    """The worker of a shard dies, alone or with its machine."""

    def __init__(self, with_node: bool):
        self.with_node = with_node


class LocalCluster:
    """One worker, which begins a shard when it is asked what there is to tell."""

    def __init__(
        self,
        workers: int = 2,
        before: Callable[[Work, Message, int], None] = lambda *_: None,
        *,
        twice: bool = False,
        apart: bool = False,
    ):
        """`before(work, message, count)`: called before a message is put; `count`: of those of its shard's attempt before it.

        `twice`: each message is put two times; `apart`: workers do not see the driver's disk.
        """
        self.room, self.before, self.twice, self.apart = workers, before, twice, apart
        self.submitted: list[Work] = []  # all that ever were
        self.stopped = False
        self._waiting: list[tuple[Order, Work]] = []

    def workers(self) -> int:
        return self.room

    def look(self, order: Order, cohorts: Sequence[Measure]) -> Seen:
        return look(order, cohorts)

    def submit(self, order: Order, work: Work) -> None:
        order, work = pickle.loads(pickle.dumps((order, work)))
        self.submitted.append(work)
        self._waiting.append((replace(order, out="/nowhere") if self.apart else order, work))

    def messages(self) -> list[Message]:
        if not self._waiting:
            return []
        (order, work), told = self._waiting.pop(0), list[Message]()

        def tell(message: Message) -> None:
            self.before(work, message, len(told))
            told.extend([message] * (2 if self.twice else 1))

        try:
            train_shard(order, work, f"machine {len(self.submitted)}", tell)
        except Dies as death:
            return [*told, ShardLost(work.shard, "killed", death.with_node)]
        except GraftaxError as error:
            return [*told, ShardRefused(work.shard, str(error))]
        return [*told, ShardEnds(work.shard)]

    def stop(self) -> None:
        self.stopped = True


def local_fleet(cluster: Cluster, backbone: Any) -> RayFleet:
    """The fleet of such a cluster, which loads a backbone from its directory."""
    return RayFleet(cluster, backbone.directory, {})


def dies_after(finished: int, with_node: bool = False, attempts: int = 1) -> Callable[[Work, Message, int], None]:
    """The worker dies when it would tell of one more adapter than this; as often as is said."""
    seen, left = 0, attempts

    def before(work: Work, message: Message, count: int) -> None:
        nonlocal seen, left
        if left and isinstance(message, Finished):
            if seen == finished:
                left -= 1
                raise Dies(with_node)
            seen += 1

    return before
