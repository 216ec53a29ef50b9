"""/score and /v1/score: how well pairs of texts go together, in the form of vLLM's pooling API.

    {"model": "rank", "text_1": "a query", "text_2": ["one document", "another"]}      1 with each, or pairs of as many

A head that gives a number reads both texts of a pair at once (a cross-encoder): the score is that number. Where nothing has a
head, each text is a vector, and the score their cosine. Any other head is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from .bodies import read_object
from .complaints import Refused, as_json
from .mixes import Who
from .parameters import ToScore, parameters_of
from .service import Service, headers_of, note, route_of, said_of
from .texts_asked import head_of, texts_of, usage_of

Pair = tuple[str, str]
_SIDES = "text_1", "text_2"


async def score(service: Service, request: Request) -> Response:
    """A number for each pair."""
    asked = parameters_of(ToScore, await read_object(request, service.limits))
    pairs = _pairs(service, asked)
    who = await service.resolve(asked.model, route_of(request, asked.user))
    await service.adapters(who)
    head = head_of(service, who)
    sides = [await usage_of(service, side, name) for name, side in zip(_SIDES, zip(*pairs, strict=True), strict=True)]
    usage = {name: sum(side[name] for side in sides) for name in sides[0]}
    note(request, model=asked.model, prompt_tokens=usage["prompt_tokens"], **said_of(who))
    if head is None:
        scores = await _likeness(service, pairs, who)
    elif head.task == "regress":
        scores = [answer.label for answer in await service.answered(service.predictor.begin, pairs, who)]
    else:
        raise Refused(422, f"{asked.model} is of task {head.task!r}, whose head gives no number for a pair.", param="model")
    content = {
        "id": f"score-{request.state.id}",
        "object": "list",
        "created": request.state.begun,
        "model": asked.model,
        "data": [{"index": index, "object": "score", "score": one} for index, one in enumerate(scores)],
        "usage": usage | {"completion_tokens": 0},
        **said_of(who),
    }
    return as_json(content, headers=headers_of(who))


def _pairs(service: Service, asked: ToScore) -> list[Pair]:
    """The pairs of a request; Refused where neither side is one text, and one has more than the other."""
    first, second = (texts_of(getattr(asked, name), service.limits, name=name) for name in _SIDES)
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        said = f"{len(first)} texts and {len(second)}: there must be as many of both, or one of either."
        raise Refused(400, f"text_1, text_2: {said}", param="text_2")
    count = max(len(first), len(second))
    return list(zip(first * (count // len(first)), second * (count // len(second)), strict=True))


async def _likeness(service: Service, pairs: list[Pair], who: Who) -> list[float]:
    """The cosine of each pair's vectors; of a text that is there more than once there is one."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = dict(zip(texts, await service.answered(service.predictor.begin_embedding, texts, who), strict=True))
    return [_cosine(vectors[first], vectors[second]) for first, second in pairs]


def _cosine(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else 0.0
