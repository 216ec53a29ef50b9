"""/traffic: what goes on at this moment, for the page and for whoever watches without Prometheus.

Totals are since the beginning; who asks twice knows what happened between.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .complaints import as_json
from .health import condition
from .service import Service

_MOST_NAMED = 200  # adapters of a tier that are named


async def traffic(service: Service, request: Request) -> Response:
    """What runs and waits, totals, the latency of the last minute, and which adapters are where."""
    status, degraded = condition(service)
    counts, recent = service.counts, service.counts.recent
    engine, running = service.engine, service.engine.running
    named = Counter(str(handle) for one in running for handle in set(one.handles) if service.shows(handle.name))
    return as_json(
        {
            "at": time.time(),
            "status": status,
            "degraded": degraded,
            "lanes": None if service.generator is None else engine.pool.most,
            "running": len(running),
            "waiting": len(engine.waiting) + len(engine.readings.waiting),
            "running_adapters": dict(named.most_common(_MOST_NAMED)),
            "answered": recent.answered,
            "failed": recent.failed,
            "tokens_read": counts.prompt_tokens,
            "tokens_written": counts.written_tokens + sum(one.count for one in running),
            "latency": recent.latency(),
            "tiers": _tiers(service),
            "offers": sorted(service.offers),
        }
    )


def _tiers(service: Service) -> dict[str, Any]:
    """Which adapters are where, those of other tenants left out."""
    tiers = service.residents.tiers()
    on_device = [(handle, count) for handle, count in tiers.device.items() if service.shows(handle.name)]
    held = sorted(on_device, key=lambda pair: (-pair[1], str(pair[0])))
    host = [handle for handle in reversed(tiers.host) if service.shows(handle.name)]  # the one that was used last is the first
    return {
        "slots": service.slots,
        "device": [{"adapter": str(handle), "digest": handle.digest, "held": count} for handle, count in held[:_MOST_NAMED]],
        "on_device": len(held),
        "memory": [{"adapter": str(handle), "digest": handle.digest} for handle in host[:_MOST_NAMED]],
        "in_memory": len(host),
        "memory_bytes": tiers.host_bytes,
        "reading": [str(handle) for handle in tiers.reading if service.shows(handle.name)][:_MOST_NAMED],
        "hits": tiers.hits,
        "reads": tiers.reads,
        "writes": tiers.writes,
        "evictions": tiers.evictions,
    }
