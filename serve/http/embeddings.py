"""/v1/embeddings: a vector of each text, under an adapter or none."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from .bodies import read_object
from .complaints import Refused, as_json
from .parameters import ToEmbed, parameters_of
from .service import Service, headers_of, note, route_of, said_of
from .texts_asked import texts_of, usage_of


async def embed(service: Service, request: Request) -> Response:
    """Vectors as `Predictor.embed` makes them."""
    asked = parameters_of(ToEmbed, await read_object(request, service.limits))
    texts = texts_of(asked.input, service.limits)
    who = await service.resolve(asked.model, route_of(request, asked.user))
    await service.adapters(who)
    usage = await usage_of(service, texts)
    note(request, model=asked.model, prompt_tokens=usage["prompt_tokens"], **said_of(who))
    vectors = await service.answered(service.predictor.begin_embedding, texts, who)
    if asked.dimensions is not None and asked.dimensions != len(vectors[0]):
        raise Refused(400, f"dimensions: a vector has {len(vectors[0])} numbers here, and is not cut.", param="dimensions")
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, asked.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    content = {"object": "list", "data": data, "model": asked.model, "usage": usage, **said_of(who)}
    return as_json(content, headers=headers_of(who))


def _written(vector: np.ndarray, form: str) -> Any:
    """Numbers, each as short as a float32 can be said, or their bytes."""
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(str(value)) for value in vector]
