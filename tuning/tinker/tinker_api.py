"""Tinker's API as further endpoints of a server: which one answers where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from starlette.routing import Route

from ...serve.http.further import Body, Poll, Unguarded
from ...serve.http.service import Service
from . import checkpoint_calls as checkpoints
from . import sample_calls as samples
from . import session_calls as sessions
from . import training_calls as training
from . import usage_calls as usage
from .accounts import Accounts
from .tinker_service import TinkerService, Turn, make_tinker
from .wire_data import WireCall
from .wire_messages import refuse_without_protobuf

_PREFIX = "/api/v1/"
_RUN = "training_runs/{run}"
_CHECKPOINT = f"{_RUN}/checkpoints/{{folder}}/{{name}}"
_GET: dict[str, Callable[..., Any]] = {
    "healthz": sessions.healthz,
    "get_server_capabilities": sessions.capabilities,
    "sessions": sessions.list_sessions,
    "sessions/{session}": sessions.show_session,
    "samplers/{sampler}": samples.show_sampler,
    "training_runs": checkpoints.list_runs,
    _RUN: checkpoints.show_run,
    f"{_RUN}/checkpoints": checkpoints.list_checkpoints_of_run,
    "checkpoints": checkpoints.list_checkpoints,
    "billing/usage/events": usage.events,
    f"{_CHECKPOINT}/archive": checkpoints.archive,
    f"{_CHECKPOINT}/adapter.tar": checkpoints.download,
    f"{_CHECKPOINT}/external_weights_urls": checkpoints.external_urls,
}
_POLLS: dict[str, Callable[..., Any]] = {
    "client/config": sessions.client_config,
    "client/dynamic_config": sessions.dynamic_config,
    "telemetry": sessions.telemetry,
    "session_heartbeat": sessions.session_heartbeat,
    "retrieve_future": sessions.retrieve_future,
    "cancel_future": sessions.cancel_future,
}
_POST: dict[str, Callable[..., Any]] = {
    "create_session": sessions.create_session,
    "sessions/{session}/finish": sessions.finish_session,
    "create_model": training.create_model,
    "get_info": training.get_info,
    "unload_model": training.unload_model,
    "forward_backward": training.forward_backward,
    "forward": training.forward,
    "optim_step": training.optim_step,
    "save_weights": training.save_weights,
    "save_weights_for_sampler": training.save_weights_for_sampler,
    "save_weights_external": training.save_weights_external,
    "load_weights": training.load_weights,
    "create_sampling_session": samples.create_sampling_session,
    "asample": samples.asample,
    "weights_info": checkpoints.weights_info,
    f"{_CHECKPOINT}/publish": checkpoints.publish,
}
_PUT: dict[str, Callable[..., Any]] = {f"{_CHECKPOINT}/ttl": checkpoints.change_ttl}
_DELETE: dict[str, Callable[..., Any]] = {
    _CHECKPOINT: checkpoints.delete_checkpoint,
    f"{_CHECKPOINT}/publish": checkpoints.publish,
}
_PROTOBUF = "application/x-protobuf"
_CALL: Body = {_PROTOBUF: {"type": "string", "contentMediaType": _PROTOBUF}, "application/json": WireCall}
#: What is asked with a body that is looked at.
_BODIES: dict[str, Body] = {
    "create_session": sessions.ToOpen,
    "session_heartbeat": sessions.OfSession,
    "retrieve_future": sessions.ToRetrieve,
    "cancel_future": sessions.ToCancel,
    "create_model": training.ToCreate,
    "get_info": training.OfModel,
    "unload_model": training.OfModel,
    "forward_backward": _CALL,
    "forward": _CALL,
    "optim_step": training.ToStep,
    "save_weights": training.ToSave,
    "save_weights_for_sampler": training.ToSaveForSampler,
    "save_weights_external": training.ToSaveExternal,
    "load_weights": training.ToLoadWeights,
    "create_sampling_session": samples.ToSampleFrom,
    "asample": samples.ToSample,
    "weights_info": checkpoints.OfCheckpoint,
    f"{_CHECKPOINT}/ttl": checkpoints.ToKeepLonger,
}
_METHODS = {"GET": _GET, "POST": _POST, "PUT": _PUT, "DELETE": _DELETE}


class TinkerApi:
    """Tinker's API beside a server's own endpoints (`serve/http/further.py`)."""

    def __init__(self, service: Service, directory: Path, accounts: Accounts, turn: Turn = nullcontext):
        """Arguments and errors as of `make_tinker`."""
        refuse_without_protobuf()
        self.tinker: TinkerService = make_tinker(service, directory, accounts, turn)

    @property
    def routes(self) -> Sequence[Route]:
        fetch = partial(checkpoints.fetch_file, self.tinker)
        fetched = Unguarded(f"{_PREFIX}files/{{ticket}}/{{file}}", fetch, methods=["GET"], name="file_by_ticket")
        polls = [Poll(_PREFIX + path, partial(answer, self.tinker), methods=["POST"]) for path, answer in _POLLS.items()]
        return [fetched, *polls] + [
            Route(_PREFIX + path, partial(answer, self.tinker), methods=[method])
            for method, answers in _METHODS.items()
            for path, answer in answers.items()
        ]

    @property
    def bodies(self) -> Mapping[str, Body]:
        return {_PREFIX + path: body for path, body in _BODIES.items()}

    def start(self) -> None:
        self.tinker.start()

    def stop(self) -> None:
        self.tinker.stop()
