"""Endpoints of clients as such: what there is, sessions, and the results of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from ...serve.http.bodies import read_body, read_object
from ...serve.http.complaints import as_json
from ...serve.http.parameters import parameters_of
from ...typed import Name
from .pages import page_of
from .promises import Failure, Packed
from .tinker_service import TinkerService

_PROTOBUF = "application/x-protobuf"
_HELD = 10.0  # seconds that a call for a result is held: clients wait 45, but a server that is to end waits for it


@dataclass(frozen=True, kw_only=True)
class ToOpen:
    tags: Any = ()
    user_metadata: Mapping[str, Any] = field(default_factory=dict)
    sdk_version: str = ""
    project_id: str | None = None  # there are no projects here: a tenant's sessions are in one
    display_name: str | None = None
    type: Literal["create_session"] = "create_session"


@dataclass(frozen=True, kw_only=True)
class OfSession:
    session_id: Name
    type: Literal["session_heartbeat"] = "session_heartbeat"


@dataclass(frozen=True, kw_only=True)
class ToRetrieve:
    request_id: Name
    allow_metadata_only: bool = False  # results are sent as they are, whatever their size


@dataclass(frozen=True, kw_only=True)
class ToCancel:
    request_id: Name


async def healthz(tinker: TinkerService, request: Request) -> Response:
    """That the process answers."""
    return as_json({"status": "ok"})


async def capabilities(tinker: TinkerService, request: Request) -> Response:
    """Which models there are: the one that is served."""
    longest = tinker.service.backbone.config.max_tokens
    model = {"model_name": tinker.service.name, "max_context_length": longest, "trainable": True, "sampleable": True}
    return as_json({"supported_models": [model]})


async def client_config(tinker: TinkerService, request: Request) -> Response:
    """How clients are to ask."""
    most = tinker.service.limits.max_body
    return as_json(
        {
            "pjwt_auth_enabled": False,  # keys are sent as they are
            "proto_compress_fwdbwd": True,
            "parallel_fwdbwd_chunks": True,
            "fwdbwd_max_chunk_len": 1024,
            "fwdbwd_max_chunk_bytes_count": most // 2,  # clients estimate it, and count no names
            "custom_loss_server_side": False,
            "sample_use_retrieve_futures": False,
            "sample_join_sampling_session": False,
        }
    )


async def dynamic_config(tinker: TinkerService, request: Request) -> Response:
    """The same, of what may change while a client lives."""
    return as_json({"refresh_interval_sec": 300, "sample_cancel_enabled": True, "sample_cancel_max_batch_size": 64})


async def telemetry(tinker: TinkerService, request: Request) -> Response:
    """Taken, and dropped."""
    await read_body(request, tinker.service.limits)
    return as_json({"status": "accepted"})


# -- sessions -----------------------------------------------------------------------------------------------------------------


async def create_session(tinker: TinkerService, request: Request) -> Response:
    """A new session."""
    asked = parameters_of(ToOpen, await read_object(request, tinker.service.limits))
    session = tinker.sessions.open(tinker.tenant, asked.user_metadata, asked.display_name)
    return as_json({"type": "create_session", "session_id": session.id})


async def session_heartbeat(tinker: TinkerService, request: Request) -> Response:
    """The client is there."""
    asked = parameters_of(OfSession, await read_object(request, tinker.service.limits))
    tinker.sessions.find(tinker.tenant, asked.session_id)
    return as_json({"type": "session_heartbeat"})


async def finish_session(tinker: TinkerService, request: Request) -> Response:
    """The client has done."""
    await read_object(request, tinker.service.limits)
    tinker.sessions.close(tinker.sessions.find(tinker.tenant, request.path_params["session"]))
    return as_json({})


async def list_sessions(tinker: TinkerService, request: Request) -> Response:
    """A tenant's sessions."""
    page = page_of(request, [session.id for session in tinker.sessions.of(tinker.tenant)], 20)
    return as_json({"sessions": page.items})


async def show_session(tinker: TinkerService, request: Request) -> Response:
    """What a session holds."""
    session = tinker.sessions.find(tinker.tenant, request.path_params["session"])
    return as_json(
        {
            "training_run_ids": list(session.models),
            "sampler_ids": list(session.samplers),
            "user_metadata": {name: str(value) for name, value in session.user_metadata.items()},
            "display_name": session.display_name,
        }
    )


# -- results ------------------------------------------------------------------------------------------------------------------


async def retrieve_future(tinker: TinkerService, request: Request) -> Response:
    """The result of a call, if it comes soon; else that it is to be asked for again."""
    asked = parameters_of(ToRetrieve, await read_object(request, tinker.service.limits))
    promise = tinker.promises.find(tinker.tenant, asked.request_id)
    try:
        async with asyncio.timeout(_HELD):
            await promise.there.wait()
    except TimeoutError:
        return as_json({"type": "try_again", "request_id": promise.id, "queue_state": "active"}, 408)
    tinker.promises.fetched(promise)
    result = promise.result
    assert result is not None
    if isinstance(result, Failure):
        return as_json({"error": result.message, "category": result.category})
    if not isinstance(result, Packed):
        return as_json(result)
    if _PROTOBUF in request.headers.get("accept", ""):
        return Response(result.data, media_type=_PROTOBUF)
    return as_json(result.unpacked(result.data))


async def cancel_future(tinker: TinkerService, request: Request) -> Response:
    """Have a call not be done that nobody waits for, if it is one for samples."""
    asked = parameters_of(ToCancel, await read_object(request, tinker.service.limits))
    tinker.promises.find(tinker.tenant, asked.request_id).cancel()
    return as_json({})
