"""Endpoints of models: made, asked for gradients and steps, saved, loaded, let go."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import wraps
from typing import Any, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ...adapters.adapter import Adapter
from ...errors import GraftaxError
from ...serve.http.bodies import object_in, read_object
from ...serve.http.complaints import Refused, as_json
from ...serve.http.parameters import parameters_of
from ...serve.http.quotas import spend
from ...serve.http.service import in_thread
from ...typed import Count, Name
from ..loops.calls import Call, Moments, Step
from .asked_methods import LoraConfig, methods_of
from .call_order import Advance, Alone, Asked, Gradient
from .kept_models import Checkpoint, Kept, Where, where_of
from .packed_bodies import read_compressed
from .promises import Failure, Result
from .sessions import Model, Session
from .tinker_service import TinkerService
from .wire_data import WireCall, call_of_message

_PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Optimizer:
    """Which optimizer a model has: Adam, and no other."""

    type: Literal["adamw"] = "adamw"


@dataclass(frozen=True, kw_only=True)
class ToCreate:
    session_id: Name
    model_seq_id: Count
    base_model: Name
    user_metadata: Mapping[str, str] = field(default_factory=dict)
    lora_config: LoraConfig = LoraConfig()
    optimizer_config: Optimizer = Optimizer()
    type: Literal["create_model"] = "create_model"


@dataclass(frozen=True, kw_only=True)
class OfModel:
    """What names a model and no more."""

    model_id: Name
    type: str = ""


@dataclass(frozen=True)
class AdamParams:
    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ToStep:
    model_id: Name
    adam_params: AdamParams
    seq_id: Count | None = None
    type: Literal["optim_step"] = "optim_step"


@dataclass(frozen=True, kw_only=True)
class ToSave:
    model_id: Name
    path: Name | None = None  # the checkpoint's name
    seq_id: Count | None = None
    ttl_seconds: Count | None = None
    overwrite: bool = False
    user_metadata: Mapping[str, str] | None = None
    type: Literal["save_weights"] = "save_weights"


@dataclass(frozen=True, kw_only=True)
class ToSaveForSampler:
    model_id: Name
    path: Name | None = None  # None: of a sampler that has no name,
    sampling_session_seq_id: Count | None = None  # and this number
    kind: Literal["snapshot", "inflight"] = "snapshot"
    seq_id: Count | None = None
    ttl_seconds: Count | None = None
    user_metadata: Mapping[str, str] | None = None
    type: Literal["save_weights_for_sampler"] = "save_weights_for_sampler"


@dataclass(frozen=True, kw_only=True)
class ToSaveExternal:
    model_id: Name
    path: Name
    seq_id: Count | None = None
    ttl_seconds: Count | None = None
    age_encryption_recipients: Any = None
    type: Literal["save_weights_external"] = "save_weights_external"


@dataclass(frozen=True, kw_only=True)
class ToLoadWeights:
    path: Name
    optimizer: bool
    model_id: Name | None = None  # into a model that is there,
    seq_id: Count | None = None
    session_id: Name | None = None  # or a new one
    model_seq_id: Count | None = None
    base_model: Name | None = None
    user_metadata: Mapping[str, str] = field(default_factory=dict)
    optimizer_config: Optimizer | None = None
    weights_access_token: str | None = None
    type: Literal["load_weights"] = "load_weights"


Asks = TypeVar("Asks")
Endpoint = Callable[[TinkerService, Request], Awaitable[Response]]


def numbered(cls: type[Asks]) -> Callable[[Callable[[TinkerService, Request, Asks], Awaitable[Response]]], Endpoint]:
    """An endpoint of calls that have numbers. One that is refused has had its number; those behind it do not wait for it."""

    def made(answer: Callable[[TinkerService, Request, Asks], Awaitable[Response]]) -> Endpoint:
        @wraps(answer)
        async def endpoint(tinker: TinkerService, request: Request) -> Response:
            content = await read_object(request, tinker.service.limits)
            try:
                return await answer(tinker, request, parameters_of(cls, content))
            except Refused as refused:
                if refused.status == 400:  # others may be sent again
                    tinker.pass_over(content.get("model_id"), content.get("seq_id"))
                raise

        return endpoint

    return made


# -- made and let go ----------------------------------------------------------------------------------------------------------


async def create_model(tinker: TinkerService, request: Request) -> Response:
    """A new model."""
    asked = parameters_of(ToCreate, await read_object(request, tinker.service.limits))
    session = tinker.sessions.find(tinker.tenant, asked.session_id)
    base = tinker.base_named(asked.base_model)
    methods = methods_of(asked.lora_config, asked.user_metadata, tinker.service.backbone.sites)
    kept = Kept(tinker.tenant, base, asked.lora_config, asked.user_metadata)
    seed = asked.lora_config.seed if asked.lora_config.seed is not None else int.from_bytes(os.urandom(4))

    def make(model: Model) -> Result:
        tinker.loops.create(model.id, methods, seed)
        tinker.accounts.open(model.id, kept.tenant)
        return {"model_id": model.id, "type": "create_model"}

    return _new_model(tinker, session, asked.model_seq_id, kept, make)


def _new_model(tinker: TinkerService, session: Session, number: int, kept: Kept, make: Callable[[Model], Result]) -> Response:
    """A promise of a new model, which `make` makes in its turn; where that fails, there is none."""

    def begin() -> None:
        model = tinker.sessions.add_model(session, number, kept)
        tinker.calls.open(model.id)

        def made(result: Result) -> None:
            if isinstance(result, Failure):
                session.models.pop(model.id, None)
                tinker.let_go_of_model(model, "it was not made.")

        tinker.calls.add(model.id, 0, Alone(lambda: make(model)), tinker.telling(promise, made))

    name = f"{session.id}:train:{number}"
    promise, is_new = tinker.promises.make(tinker.tenant, tinker.key_of(name, 0, None), name)
    if is_new:
        try:
            begin()
        except BaseException:
            tinker.promises.forget(promise)
            raise
    return as_json(promise.answer)


async def get_info(tinker: TinkerService, request: Request) -> Response:
    """What a model is."""
    asked = parameters_of(OfModel, await read_object(request, tinker.service.limits))
    model = tinker.sessions.model(tinker.tenant, asked.model_id)
    backbone, base = tinker.service.backbone, model.kept.base_model
    data = {"arch": backbone.family.model_types[0], "model_name": base, "tokenizer_id": backbone.name}
    return as_json(
        {
            "type": "get_info",
            "model_data": data,
            "model_id": model.id,
            "model_name": base,
            "is_lora": True,
            "lora_rank": model.kept.lora.rank,
        }
    )


async def unload_model(tinker: TinkerService, request: Request) -> Response:
    """Let a model go, behind what it was asked to do before."""
    asked = parameters_of(OfModel, await read_object(request, tinker.service.limits))
    model = tinker.sessions.model(tinker.tenant, asked.model_id)

    def gone(result: Result) -> None:
        for session in tinker.sessions.of(tinker.tenant):
            session.models.pop(model.id, None)
        tinker.let_go_of_model(model, "it was unloaded.")

    done: Result = {"model_id": model.id, "type": "unload_model"}
    return tinker.promised(model.id, None, lambda: Alone(lambda: done), _key(request), gone)


# -- trained ------------------------------------------------------------------------------------------------------------------


async def forward_backward(tinker: TinkerService, request: Request) -> Response:
    """A loss, and its gradient added to the model's."""
    return await _learn(tinker, request, forward_only=False)


async def forward(tinker: TinkerService, request: Request) -> Response:
    """A loss without its gradient."""
    return await _learn(tinker, request, forward_only=True)


async def _learn(tinker: TinkerService, request: Request, *, forward_only: bool) -> Response:
    data = await read_compressed(request, tinker.service.limits)
    in_protobuf = request.headers.get("content-type", "").partition(";")[0].strip() == _PROTOBUF
    if in_protobuf:
        asked = await in_thread(call_of_message, data)
    else:
        asked = await in_thread(parameters_of(WireCall, await in_thread(object_in, data)).numbered, forward_only)
    tinker.sessions.model(tinker.tenant, asked.model)
    if isinstance(asked.call, Call):
        spend(sum(len(datum.tokens) for datum in asked.call.data))

    def gradient() -> Asked:
        if isinstance(asked.call, GraftaxError):
            raise asked.call
        return Gradient(asked.call)

    return tinker.promised(asked.model, asked.number, gradient, _key(request), size=len(data))


@numbered(ToStep)
async def optim_step(tinker: TinkerService, request: Request, asked: ToStep) -> Response:
    """A step of the optimizer along the gradient."""
    tinker.sessions.model(tinker.tenant, asked.model_id)
    return tinker.promised(
        asked.model_id, asked.seq_id, lambda: Advance(Step(asked.model_id, **asdict(asked.adam_params))), _key(request)
    )


# -- kept ---------------------------------------------------------------------------------------------------------------------


@numbered(ToSave)
async def save_weights(tinker: TinkerService, request: Request, asked: ToSave) -> Response:
    """Keep a model, with what its optimizer remembers."""
    model = tinker.sessions.model(tinker.tenant, asked.model_id)

    def save() -> Result:
        where = where_of(f"tinker://{model.id}/weights/{asked.path or f'unnamed-{asked.seq_id}'}")
        moments = tinker.loops.moments(model.id)
        how = {"ttl": asked.ttl_seconds, "user_metadata": asked.user_metadata, "overwrite": asked.overwrite}
        _keep(tinker, model, where, moments, **how)
        return {"path": str(where), "type": "save_weights"}

    return tinker.promised(model.id, asked.seq_id, lambda: Alone(save), _key(request))


@numbered(ToSaveForSampler)
async def save_weights_for_sampler(tinker: TinkerService, request: Request, asked: ToSaveForSampler) -> Response:
    """Keep a model to be sampled from: under a name, or for a sampler that it becomes at once."""
    model = tinker.sessions.model(tinker.tenant, asked.model_id)
    if asked.kind == "inflight":
        raise Refused(400, "kind: samplers here are snapshots; ask for a further one after a step.", param="kind")
    if (asked.path is None) == (asked.sampling_session_seq_id is None):
        raise Refused(400, "one of path and sampling_session_seq_id is needed.", param="path")
    if asked.path is not None:
        return _save_named(tinker, model, asked, request)
    return _save_unnamed(tinker, model, asked.sampling_session_seq_id or 0, asked.seq_id, request)


@numbered(ToSaveExternal)
async def save_weights_external(tinker: TinkerService, request: Request, asked: ToSaveExternal) -> Response:
    """Keep a model to be fetched, as a directory that PEFT reads."""
    model = tinker.sessions.model(tinker.tenant, asked.model_id)

    def save() -> Result:
        if asked.age_encryption_recipients is not None:
            raise GraftaxError("age_encryption_recipients: nothing is encrypted here.")
        where = where_of(f"tinker://{model.id}/external_weights/{asked.path}")
        size = _keep(tinker, model, where, None, ttl=asked.ttl_seconds)
        return {"path": str(where), "size_bytes": size, "type": "save_weights_external"}

    return tinker.promised(model.id, asked.seq_id, lambda: Alone(save), _key(request))


def _save_named(tinker: TinkerService, model: Model, asked: ToSaveForSampler, request: Request) -> Response:
    def save() -> Result:
        where = where_of(f"tinker://{model.id}/sampler_weights/{asked.path}")
        _keep(tinker, model, where, None, ttl=asked.ttl_seconds, user_metadata=asked.user_metadata)
        return {"path": str(where), "type": "save_weights_for_sampler"}

    return tinker.promised(model.id, asked.seq_id, lambda: Alone(save), _key(request))


def _save_unnamed(tinker: TinkerService, model: Model, sampler: int, number: int | None, request: Request) -> Response:
    session = tinker.sessions.find(tinker.tenant, model.session)
    tinker.sessions.refuse_too_many_samplers(session)
    name = f"{session.id}:sample:{sampler}"

    def save() -> Result:
        directory = tinker.kept.save_unnamed(model.id, sampler, tinker.loops.adapter(model.id))
        handle = tinker.handle_of(name, directory)
        tinker.from_thread(tinker.sessions.add_sampler, session, sampler, model.kept.base_model, handle, None)
        return {"sampling_session_id": name, "type": "save_weights_for_sampler"}

    return tinker.promised(model.id, number, lambda: Alone(save), _key(request))


def _keep(tinker: TinkerService, model: Model, where: Where, moments: Moments | None, **how: Any) -> int:
    """Write a checkpoint; its bytes. In the thread of the calls."""
    if not model.described:
        tinker.kept.describe(model.id, model.kept)
        model.described = True
    return tinker.kept.save(where, tinker.loops.adapter(model.id), moments, **how).bytes


@numbered(ToLoadWeights)
async def load_weights(tinker: TinkerService, request: Request, asked: ToLoadWeights) -> Response:
    """A checkpoint into a model, or into a new one."""
    if asked.weights_access_token is not None:
        raise Refused(400, "weights_access_token: a checkpoint is its tenant's alone here.", param="weights_access_token")
    tenant = tinker.tenant

    def restore(model: Model, checkpoint: Checkpoint, adapter: Adapter) -> Result:
        moments = tinker.kept.moments(checkpoint.where) if asked.optimizer else None
        tinker.loops.restore(model.id, adapter, moments)
        return {"path": str(checkpoint.where), "model_id": model.id, "type": "load_weights"}

    if asked.model_id is not None:
        model = tinker.sessions.model(tenant, asked.model_id)

        def load() -> Result:
            checkpoint = tinker.kept.find(tenant, asked.path)
            return restore(model, checkpoint, tinker.kept.adapter(checkpoint.where))

        return tinker.promised(model.id, asked.seq_id, lambda: Alone(load), _key(request))
    if asked.session_id is None or asked.model_seq_id is None:
        raise Refused(400, "model_id, or session_id and model_seq_id, are needed.", param="model_id")
    session = tinker.sessions.find(tenant, asked.session_id)
    try:
        kept = await in_thread(_kept_of, tinker, tenant, asked.path)
    except GraftaxError as error:
        raise Refused(404, str(error), param="path", code="checkpoint_not_found") from None
    if asked.base_model is not None:
        kept = replace(kept, base_model=tinker.base_named(asked.base_model))

    def make(model: Model) -> Result:
        checkpoint = tinker.kept.find(tenant, asked.path)
        adapter = tinker.kept.adapter(checkpoint.where)
        tinker.loops.create(model.id, adapter.methods)
        tinker.accounts.open(model.id, tenant)
        return restore(model, checkpoint, adapter)

    kept = replace(kept, user_metadata=asked.user_metadata, created=time.time())
    return _new_model(tinker, session, asked.model_seq_id, kept, make)


def _kept_of(tinker: TinkerService, tenant: str | None, path: str) -> Kept:
    """What kind of model a checkpoint is of."""
    return tinker.kept.of_run(tenant, tinker.kept.find(tenant, path).where.run)


def _key(request: Request) -> str | None:
    """By what a call without a number is known when it comes again."""
    return request.headers.get("x-idempotency-key")
