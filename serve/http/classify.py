"""/classify, /v1/classify and /v1/tag: what adapters with heads answer to texts or pictures, in vLLM's form."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...data.box_values import THRESHOLD, Found
from ...data.mask_values import Mask
from ..predictor import Prediction
from ..report.shown_pictures import data_url
from .bodies import read_object
from .complaints import Refused, as_json
from .mixes import Who
from .parameters import Asked, ToClassify, ToTag, parameters_of
from .pictures_asked import pictures_of
from .service import Service, headers_of, in_thread, note, route_of, said_of
from .texts_asked import NO_TOKENS, Head, head_of, texts_of, usage_of


async def classify(service: Service, request: Request) -> Response:
    """Of each text or picture the label, and the probability of every label."""
    asked = parameters_of(ToClassify, await read_object(request, service.limits))
    if service.tokenizer is None:
        rows = await in_thread(pictures_of, asked.input, asked.messages, service.limits)
        return await _answered(service, request, asked, rows, tags=False, threshold=asked.threshold)
    if asked.messages is not None:
        raise Refused(400, f"messages: pictures are asked about so, and {service.name} reads texts.", param="messages")
    if asked.input is None:
        raise Refused(400, "input is missing.", param="input")
    texts = texts_of(asked.input, service.limits)
    return await _answered(service, request, asked, texts, tags=False, threshold=asked.threshold)


async def tag(service: Service, request: Request) -> Response:
    """Of each text a label for every word."""
    asked = parameters_of(ToTag, await read_object(request, service.limits))
    return await _answered(service, request, asked, texts_of(asked.input, service.limits, words=True), tags=True)


async def _answered(
    service: Service, request: Request, asked: Asked, rows: list[Any], *, tags: bool, threshold: float | None = None
) -> Response:
    who = await service.resolve(asked.model, route_of(request, asked.user))
    await service.adapters(who)
    head = _head(service, asked.model, who, tags)
    if threshold is not None and head.task != "image-detect":
        raise Refused(400, f"threshold is for adapters of task image-detect, and {asked.model} is none.", param="threshold")
    begin = partial(service.predictor.begin, threshold=THRESHOLD if threshold is None else threshold)
    usage = NO_TOKENS if isinstance(rows[0], bytes) else await usage_of(service, rows)
    note(request, model=asked.model, prompt_tokens=usage["prompt_tokens"], **said_of(who))
    answers = await service.answered(begin, rows, who)
    told = [_tags(answer) if tags else _classes(answer, head.labels) for answer in answers]
    data = [{"index": index, **one} for index, one in enumerate(told)]
    content = {
        "id": f"{'tag' if tags else 'classify'}-{request.state.id}",
        "object": "list",
        "created": request.state.begun,
        "model": asked.model,
        "data": data,
        "usage": usage | {"completion_tokens": 0},
        **said_of(who),
    }
    return as_json(content, headers=headers_of(who))


def _head(service: Service, model: str, who: Who, tags: bool) -> Head:
    """Of who answers. Refused where nothing has a head, or one of another task than the endpoint's."""
    head = head_of(service, who)
    if head is None:
        raise Refused(422, f"{model} has no head that could answer; name an adapter that has one.", param="model")
    if tags != (head.task == "tag"):
        where = "/v1/tag" if head.task == "tag" else "/classify"
        raise Refused(422, f"{model} is of task {head.task!r}, which {where} answers.", param="model")
    return head


def _classes(answer: Prediction, labels: tuple[str, ...]) -> dict[str, Any]:
    """`label` is a list of a multilabel adapter, a number of one that regresses, which has no probabilities."""
    if isinstance(answer.label, Mask):
        return _mask(answer, labels)
    if isinstance(answer.label, Found):
        return _objects(answer, labels)
    chances = answer.probabilities
    return {
        "label": answer.label,
        "probs": None if chances is None else [chances[label] for label in labels],
        "num_classes": len(labels),
        "labels": labels,
        "cut": answer.cut,
    }


def _mask(answer: Prediction, labels: tuple[str, ...]) -> dict[str, Any]:
    """Of a segmented picture `label` is a list of the classes in it, the largest first, and `probs` the share of each class."""
    return {
        "label": [*answer.score],
        "probs": [answer.score.get(label, 0.0) for label in labels],
        "num_classes": len(labels),
        "labels": labels,
        "cut": answer.cut,
        "mask": data_url(answer.label.png()),
    }


def _objects(answer: Prediction, labels: tuple[str, ...]) -> dict[str, Any]:
    """Where objects are looked for `label` is a list of what each is, the surest first, and `probs` of how sure that is."""
    return {
        "label": [one["label"] for one in answer.label],
        "probs": answer.score,
        "num_classes": len(labels),
        "labels": labels,
        "cut": answer.cut,
        "objects": answer.label,
    }


def _tags(answer: Prediction) -> dict[str, Any]:
    return {"labels": answer.label, "scores": answer.score}
