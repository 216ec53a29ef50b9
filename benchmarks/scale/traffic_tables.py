"""Ten thousand tenants on fifty replicas, as tables of docs/scale.md. All of it is computed."""

from __future__ import annotations

import numpy as np

from ..accelerators.accelerator_table import figure
from .adapter_queue import CHATS
from .assumptions import Assumptions
from .constants_tables import quantity, table
from .scenarios import REPLICAS, TENANTS, TOKENS, capacity, replica_costs
from .simulated_replicas import Answers, Outage, Traffic, answered, drawn_traffic
from .tenant_routing import Anywhere, AtHome, Routing, WhereItIs

POPULARITY = 1.0  # Zipf's exponent
BOUND = 1.25
_ROOM = 2  # requests for each lane with which a replica is full, as `graftax serve --ray` has it
_SECONDS, _WARM = 30.0, 12.0  # of traffic; the first, in which tiers fill, are not counted
_DIES, _NOTICED, _RETURNS = 17.0, 19.0, 25.0


def _offered(load: float, seed: int = 0) -> Traffic:
    rate = load * REPLICAS * capacity(replica_costs())
    return drawn_traffic(_SECONDS, rate, TENANTS, POPULARITY, TOKENS, seed)


def _ways() -> dict[str, Routing]:
    """Each as if nobody had asked anything yet."""
    costs = replica_costs()
    return {
        "any replica in turn": Anywhere(),
        "its own": AtHome(TENANTS, REPLICAS),
        _BOUNDED: AtHome(TENANTS, REPLICAS, BOUND),
        _AS_BUILT: WhereItIs(REPLICAS, costs.slots, _ROOM * costs.lanes),
    }


_BOUNDED = f"its own, up to {BOUND} times its share"
_AS_BUILT = "one that has the adapter, until it is full"


def _row(title: str, load: float, found: Answers, counted: np.ndarray) -> list[str]:
    asked = sum(found.tiers.values())
    tiers = [f"{found.tiers[tier] / asked:.0%}" for tier in ("bank", "host", "store")]
    times = [np.percentile(seconds[counted], share) for seconds in (found.first, found.whole) for share in (50, 99)]
    return [title, f"{load:.0%}", *tiers, *(quantity(float(one), "s") for one in times)]


_HEAD = ["a request goes to", "load", "in the bank", "in memory", "in the store"]
_HEAD += ["first token, median", "99th percentile", "whole answer, median", "99th percentile"]


def traffic() -> str:
    rows = []
    for load in (0.6, 0.8, 0.95):
        offered = _offered(load)
        for title, routing in _ways().items():
            if title == "its own" and load != 0.8:
                continue  # once is enough to see it fail
            rows.append(_row(title, load, answered(offered, replica_costs(), REPLICAS, routing), offered.arrives > _WARM))
    return table(_HEAD, rows)


def outage() -> str:
    """A replica dies that nothing is special about."""
    rows, load = [], 0.8
    offered = _offered(load)
    dies = Outage(REPLICAS // 2, _DIES, _NOTICED, _RETURNS)
    moments = {
        "before": (_WARM, _DIES),
        "it is dead, and nobody knows": (_DIES, _NOTICED),
        "one replica fewer": (_NOTICED, _RETURNS),
        "it is back, with nothing in its tiers": (_RETURNS, _SECONDS),
    }
    for title in ("any replica in turn", _BOUNDED, _AS_BUILT):
        found = answered(offered, replica_costs(), REPLICAS, _ways()[title], [dies])
        for moment, (since, until) in moments.items():
            counted = (offered.arrives > since) & (offered.arrives <= until)
            late = np.mean(found.first[counted] > _LATE)
            times = [*np.percentile(found.first[counted], [50, 99]), np.max(found.first[counted])]
            rows.append([title, moment, *(quantity(float(one), "s") for one in times), f"{late:.2%}"])
    head = ["a request goes to", "when it arrives", "first token, median", "99th percentile", "the last of all"]
    return table([*head, f"later than {_LATE:.0f} s"], rows)


_LATE = 1.0


def limits() -> str:
    costs, assumed = replica_costs(), Assumptions()
    one = capacity(costs)
    popular = 1 / float(np.sum(np.arange(1, TENANTS + 1) ** -POPULARITY))
    fetches = assumed.store / CHATS.adapter_bytes
    rows = [
        [
            "a replica's lanes",
            f"{figure(one)} requests a second",
            f"more than {figure(one * REPLICAS)} requests a second in all",
        ],
        [
            f"the own replica of the tenant that asks most, {popular:.1%} of all requests",
            f"{figure(one)} requests a second",
            f"more than {figure(one / popular)} requests a second in all, {1 / popular / REPLICAS:.0%} of what all can",
        ],
        [
            "the store, from which adapters are fetched",
            f"{figure(fetches)} adapters a second",
            "more than as many requests a second whose adapter is in no memory",
        ],
        [
            "the slots of the bank",
            f"{costs.slots} adapters",
            f"more than {costs.slots * REPLICAS:,} tenants that are all active",
        ],
    ]
    return table(["what there is one of", "it does (computed)", "too little for (computed)"], rows)
