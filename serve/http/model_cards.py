"""/v1/models: the base, the adapters that were registered, and those on the hub that were made for it, with vLLM's fields."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...store.version import Version
from .complaints import as_json
from .service import Service, route_of, said_of


async def list_models(service: Service, request: Request) -> Response:
    """All of them; of the hub's the newest version of each name."""
    registered = service.registered()
    cards = [_base(service), *(_adapter(service, name, said_of(handle)) for name, handle in registered.items())]
    cards += [_version(service, one) for one in await service.fitting() if one.name not in registered]
    return as_json({"object": "list", "data": cards})


async def show_model(service: Service, request: Request) -> Response:
    """One, by whatever a request may name it."""
    name = request.path_params["name"]
    who = await service.resolve(name, route_of(request, None))
    return as_json(_base(service) if who is None else _adapter(service, name, said_of(who)))


def _base(service: Service) -> dict[str, Any]:
    return {
        "id": service.name,
        "object": "model",
        "created": service.started,
        "owned_by": "graftax",
        "root": service.name,
        "parent": None,
        "max_model_len": service.longest,
        "permission": [],
    }


def _adapter(service: Service, name: str, said: dict[str, Any]) -> dict[str, Any]:
    return {**_base(service), "id": name, "root": said["adapter"], "parent": service.name, **said}


def _version(service: Service, version: Version) -> dict[str, Any]:
    said = {"adapter": str(version), "adapter_digest": f"sha256:{version.digest}"}
    created = int(datetime.fromisoformat(version.pushed).timestamp())
    return {**_adapter(service, version.name, said), "created": created, "task": version.task}
