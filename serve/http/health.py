"""/health: whether the process answers. /ready: whether it can do what it is for, and what is not as it should be."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .complaints import as_json
from .service import Service


async def health(service: Service, request: Request) -> Response:
    """That the process answers."""
    return as_json({"status": "ok"})


async def ready(service: Service, request: Request) -> Response:
    """503 where nothing can be answered, or not as fast as it will be; what else is wrong is said.

    Requests that come while programs are compiled are answered all the same.
    """
    status, wrong = condition(service)
    tiers = service.residents.tiers()
    adapters = {"on_device": len(tiers.device), "in_memory": len(tiers.host), "being_read": len(tiers.reading)}
    content: dict[str, Any] = {"status": status, "degraded": wrong, "adapters": adapters}
    if (warm := service.warm_up) is not None:
        content["programs"] = {"compiled": warm.done, "in_all": warm.count}
    return as_json(content, 503 if status in ("unable", "warming up") else 200)


def condition(service: Service) -> tuple[str, list[str]]:
    """Whether the server is ready, degraded, warming up or unable; and what is wrong."""
    degraded, unable = [], []
    if service.hub is not None and service.hub.away is not None:
        degraded.append(f"the hub does not answer: {service.hub.away}")
    if service.rounds.failure is not None:
        degraded.append(f"the last round of the engine failed: {service.rounds.failure}")
    if not service.rounds.alive:
        unable.append("the engine has stopped")
    warm = service.warm_up
    if warm is not None and warm.failure is not None:
        degraded.append(f"the warm-up failed, and requests wait for their programs: {warm.failure}")
    warming = warm is not None and not warm.over
    return "unable" if unable else "warming up" if warming else "degraded" if degraded else "ready", unable + degraded
