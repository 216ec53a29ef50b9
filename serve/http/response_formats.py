"""The form that a text is to have, as a grammar: OpenAI's `response_format`, and vLLM's `structured_outputs`.

"response_format": {"type": "json_schema", "json_schema": {"name": "card", "schema": {"type": "object", ...}}}
"structured_outputs": {"choice": ["yes", "no"]}
"""

from __future__ import annotations

from ...errors import GraftaxError
from ..grammars import json_object, json_schema, one_of, pattern
from .complaints import Refused
from .parameters import ResponseFormat, StructuredOutputs, ToWrite


def grammar_of(asked: ToWrite) -> str | None:
    """What a request's texts are to obey; None: nothing. Refused where that is said twice, or cannot be read."""
    given = {"response_format": asked.response_format.type != "text", "structured_outputs": asked.structured_outputs.says}
    names = [name for name, there in given.items() if there]
    if len(names) > 1:
        raise Refused(400, f"{' and '.join(names)}: only one of them can be obeyed.", param=names[0])
    if not names:
        return None
    try:
        return _by_format(asked.response_format) if names == ["response_format"] else _by_vllm(asked.structured_outputs)
    except GraftaxError as error:
        raise Refused(400, f"{names[0]}: {error}", param=names[0]) from None


def _by_format(given: ResponseFormat) -> str:
    if given.type == "json_object":
        return json_object()
    if given.json_schema is None or given.json_schema.schema is None:
        raise GraftaxError("json_schema.schema is missing.")
    return json_schema(given.json_schema.schema)


def _by_vllm(given: StructuredOutputs) -> str:
    if len(given.says) > 1:
        raise GraftaxError(f"{' and '.join(given.says)}: only one of them can be obeyed.")
    if given.json is not None:
        return json_schema(given.json)
    if given.regex is not None:
        return pattern(given.regex)
    return json_object() if given.choice is None else one_of(given.choice)
