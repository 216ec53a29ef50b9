"""Endpoints of samplers: made of a checkpoint or of the base, and asked for texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from ...errors import GraftaxError
from ...serve.chances import MOST_TOLD
from ...serve.handles import Handle
from ...serve.http.bodies import read_object
from ...serve.http.complaints import Refused, as_json
from ...serve.http.parameters import parameters_of
from ...serve.http.service import in_thread, too_much
from ...serve.sampling import Sampling
from ...typed import Count, Name, Share, Some, Within
from .sampling_desk import Wanted
from .sessions import Sampler
from .tinker_service import TinkerService
from .wire_data import WireText

_MOST_STOPS = 64
Told = Annotated[int, Within(0, most=MOST_TOLD)]
None_ = Annotated[int, Within(0, most=0)]  # of what is not there: only 0


@dataclass(frozen=True, kw_only=True)
class ToSampleFrom:
    """Of create_sampling_session."""

    session_id: Name
    sampling_session_seq_id: Count
    base_model: Name | None = None
    model_path: Name | None = None
    type: Literal["create_sampling_session"] = "create_sampling_session"


@dataclass(frozen=True)
class SamplingParams:
    """How texts are to be drawn."""

    max_tokens: Some | None = None  # None: as long as there is room
    seed: int | None = None
    stop: Any = None  # a text, a list of texts, or a list of tokens
    temperature: Annotated[float, Within(0.0, most=1e6)] = 1.0
    top_k: Annotated[int, Within(-1, below=1 << 31)] = -1  # -1: from all
    top_p: Share = 1.0


@dataclass(frozen=True, kw_only=True)
class ToSample:
    """Of asample."""

    prompt: WireText
    sampling_params: SamplingParams
    num_samples: Some = 1
    sampling_session_id: Name | None = None  # a sampler,
    seq_id: Count | None = None  # and the call's number among all of it,
    base_model: Name | None = None  # or the base,
    model_path: Name | None = None  # or a checkpoint
    prompt_logprobs: bool = False
    topk_prompt_logprobs: Told = 0
    topk_sample_logprobs: Told = 0
    target_prompt_logprobs: Literal[None] = None
    prompt_alt_tokens_k: None_ = 0
    prompt_logprobs_last_n: Some | None = None
    record_stability_info: bool = False  # for a loss that is not here
    type: Literal["sample"] = "sample"


async def create_sampling_session(tinker: TinkerService, request: Request) -> Response:
    """A sampler of a checkpoint, or of the base."""
    asked = parameters_of(ToSampleFrom, await read_object(request, tinker.service.limits))
    session = tinker.sessions.find(tinker.tenant, asked.session_id)
    tinker.sessions.refuse_too_many_samplers(session)
    base, handle = await _base_and_adapter(tinker, asked.base_model, asked.model_path)
    sampler = tinker.sessions.add_sampler(session, asked.sampling_session_seq_id, base, handle, asked.model_path)
    return as_json({"type": "create_sampling_session", "sampling_session_id": sampler.id})


async def show_sampler(tinker: TinkerService, request: Request) -> Response:
    """What a sampler was made of."""
    sampler = tinker.sessions.sampler(tinker.tenant, request.path_params["sampler"])
    return as_json({"sampler_id": sampler.id, "base_model": sampler.base_model, "model_path": sampler.path})


async def asample(tinker: TinkerService, request: Request) -> Response:
    """Texts behind a prompt."""
    asked = parameters_of(ToSample, await read_object(request, tinker.service.limits))
    limits = tinker.service.limits
    if asked.num_samples > limits.max_texts:
        raise Refused(400, f"num_samples: more than {limits.max_texts} (--max-texts).", param="num_samples")
    ids = asked.prompt.tokens("prompt")
    if limits.max_prompt is not None and len(ids) > limits.max_prompt:
        raise Refused(400, f"a prompt of {len(ids)} tokens, and this server takes {limits.max_prompt} (--max-prompt).")
    sampler = await _sampler_of(tinker, asked)
    header = request.headers.get("x-idempotency-key")
    promise, is_new = tinker.promises.make(tinker.tenant, tinker.key_of(sampler.id, asked.seq_id, header))
    if not is_new:
        return as_json(promise.answer)
    try:
        waiting = len(tinker.generator.engine.waiting)
        if waiting + asked.num_samples > max(limits.max_queue, asked.num_samples):
            raise too_much(waiting)
        wanted = _wanted(tinker, asked, ids, sampler.handle)
        promise.facts["sample_sequence_ids"] = [f"{promise.id}:{number}" for number in range(asked.num_samples)]
        promise.cancel = await tinker.desk.begin(wanted, tinker.telling(promise))
    except BaseException:
        tinker.promises.forget(promise)
        raise
    return as_json(promise.answer)


async def _sampler_of(tinker: TinkerService, asked: ToSample) -> Sampler:
    """What texts are to be sampled with: what a sampler was made of, or what the call itself says."""
    if asked.sampling_session_id is not None:
        return tinker.sessions.sampler(tinker.tenant, asked.sampling_session_id)
    base, handle = await _base_and_adapter(tinker, asked.base_model, asked.model_path)
    return Sampler(asked.model_path or base, "", base, handle, asked.model_path)


async def _base_and_adapter(tinker: TinkerService, base: str | None, path: str | None) -> tuple[str, Handle | None]:
    """The base by the name that is asked for, and the adapter of a checkpoint, if one is asked for."""
    if path is None:
        if base is None:
            raise Refused(400, "base_model or model_path is needed.", param="base_model")
        return tinker.base_named(base), None
    try:
        return await in_thread(_read, tinker, tinker.tenant, path)
    except GraftaxError as error:
        raise Refused(404, str(error), param="model_path", code="checkpoint_not_found") from None


def _read(tinker: TinkerService, tenant: str | None, path: str) -> tuple[str, Handle]:
    checkpoint = tinker.kept.find(tenant, path)
    base = tinker.kept.of_run(tenant, checkpoint.where.run).base_model
    return base, tinker.handle_of(path, tinker.kept.directory(checkpoint.where))


def _wanted(tinker: TinkerService, asked: ToSample, ids: Sequence[int], handle: Handle | None) -> Wanted:
    """What is to be sampled; Refused where something cannot be done."""
    how = asked.sampling_params
    texts, tokens = _stops(how.stop)
    room = tinker.service.backbone.config.max_tokens - len(ids)
    seed = how.seed if how.seed is not None else int.from_bytes(os.urandom(4))
    sampling = Sampling(how.max_tokens or max(1, room), how.temperature, stop=texts, seed=seed % 2**32)
    if how.temperature > 0:
        sampling = replace(sampling, top_k=max(0, how.top_k), top_p=how.top_p)
    if (last := asked.prompt_logprobs_last_n) is not None and not (asked.prompt_logprobs and last < len(ids)):
        said = "prompt_logprobs_last_n: only together with prompt_logprobs, and fewer than the prompt has tokens."
        raise Refused(400, said, param="prompt_logprobs_last_n")
    return Wanted(
        ids,
        handle,
        sampling,
        asked.num_samples,
        tokens,
        asked.topk_sample_logprobs,
        asked.prompt_logprobs,
        asked.topk_prompt_logprobs,
        last,
    )


def _stops(given: Any) -> tuple[tuple[str, ...], frozenset[int]]:
    """The texts, or the tokens, that end a text beside the tokens that always do."""
    several = [given] if isinstance(given, str) else given
    if several is None:
        return (), frozenset()
    if several == []:
        raise Refused(400, "stop: [] would go on behind a token that ends texts, which this server does not.", param="stop")
    if isinstance(several, list) and len(several) <= _MOST_STOPS:
        if all(isinstance(one, str) and one for one in several):
            return tuple(several), frozenset()
        if all(type(one) is int for one in several):
            return (), frozenset(several)
    raise Refused(400, f"stop must be a text, or a list of at most {_MOST_STOPS} texts or tokens.", param="stop")
