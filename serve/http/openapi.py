"""/openapi.json: what can be asked, as OpenAPI 3.1 says it.

The schema of a body is made of the dataclass that its values are held to (`parameters.py`), so that they cannot say different
things: kinds, bounds, defaults, what is known and changes nothing, what is not supported and may have which values. A field of
kind `Any` is checked by its endpoint, and says with a `Form` what it takes.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ... import __version__
from ...typed import Such, Within, kinds_of
from .complaints import as_json
from .further import Body, Unguarded
from .parameters import (
    HARMLESS,
    UNSUPPORTED,
    ChatCompletion,
    Completion,
    Form,
    ToClassify,
    ToEmbed,
    ToLoad,
    ToScore,
    ToTag,
    ToUnload,
)
from .service import Service

Schema = dict[str, Any]

#: What each path is asked with.
BODIES: Mapping[str, Body] = {
    "/v1/completions": Completion,
    "/v1/chat/completions": ChatCompletion,
    "/v1/embeddings": ToEmbed,
    "/classify": ToClassify,
    "/v1/classify": ToClassify,
    "/v1/tag": ToTag,
    "/score": ToScore,
    "/v1/score": ToScore,
    "/v1/load_lora_adapter": ToLoad,
    "/v1/unload_lora_adapter": ToUnload,
}
_PLAIN = {int: "integer", float: "number", bool: "boolean", str: "string", types.NoneType: "null"}
_IN_PATH = re.compile(r"\{(\w+)(?::\w+)?\}")
_NULL: Schema = {"type": "null"}
_STRING: Schema = {"type": "string"}
_TEXT: Schema = {"type": ["string", "null"]}
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _TEXT,
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}


def openapi_of(routes: Iterable[Route], bodies: Mapping[str, Body]) -> Schema:
    """The description of paths, by the first line of what the code there says. `bodies`: what it is asked with."""
    paths: dict[str, Schema] = {}
    schemas: Schema = {"Error": _ERROR}
    for route in routes:
        named = [{"name": name, "in": "path", "required": True, "schema": _STRING} for name in _IN_PATH.findall(route.path)]
        own = paths.setdefault(_IN_PATH.sub(r"{\1}", route.path), {"parameters": named} if named else {})
        for method in (route.methods or set()) - {"HEAD"}:
            said = own[method.lower()] = _said_of(route)
            if method in ("POST", "PUT") and route.path in bodies:
                said["requestBody"] = {"required": True, "content": _content_of(bodies[route.path], schemas)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "graftax", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def endpoint(described: Callable[[], Schema]) -> Callable[..., Any]:
    """What answers with a description, which is made when it is first asked for."""
    once = cache(described)

    async def openapi(service: Service, request: Request) -> Response:
        """What can be asked, as OpenAPI says it."""
        return as_json(once())

    return openapi


def _said_of(route: Route) -> Schema:
    wrong = {"description": "An error", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    answer = route.endpoint.func if isinstance(route.endpoint, partial) else route.endpoint
    summary = (answer.__doc__ or "").strip().partition("\n")[0]
    said: Schema = {"summary": summary, "responses": {"200": {"description": "The answer"}, "default": wrong}}
    return {**said, "security": []} if isinstance(route, Unguarded) else said


def _content_of(body: Body, schemas: Schema) -> Schema:
    """A body by its media types; the schemas of dataclasses are put beside the others."""
    content: Schema = {}
    for media, what in ({"application/json": body} if isinstance(body, type) else body).items():
        if isinstance(what, type):
            made = schemas.setdefault(what.__name__, schema_of_body(what))
            assert made == schema_of_body(what), f"two bodies are called {what.__name__}"
            what = {"$ref": f"#/components/schemas/{what.__name__}"}
        content[media] = {"schema": what}
    return content


def schema_of_body(cls: type) -> Schema:
    """The schema of an object that `parameters_of` takes for a dataclass: any value may be null, which says nothing."""
    made = _schema_of_fields(cls)
    known: Schema = {name: _or_null(own) for name, own in made["properties"].items()}
    known |= {name: {} for name in sorted(HARMLESS) if name not in known}
    neutral = {name: one.neutral for name, one in UNSUPPORTED.items() if name not in known}
    known |= {name: {"enum": [*_different(values), None]} for name, values in neutral.items()}
    for name in made.get("required", ()):
        known[name] = made["properties"][name]
    return {**made, "properties": known}


def _different(values: Sequence[Any]) -> list[Any]:
    """The values without those that are one in JSON, as 0 and 0.0 are, while 0 and false are two."""
    return [one for i, one in enumerate(values) if (type(one) is bool, one) not in [(type(v) is bool, v) for v in values[:i]]]


def _or_null(schema: Schema) -> Schema:
    """A schema that takes null, too."""
    either = schema.get("anyOf", [schema])
    return schema if not schema or _NULL in either else {"anyOf": [*either, _NULL]}


def _schema_of_fields(cls: Any) -> Schema:
    """The schema of an object that is read as a dataclass (`typed.read`)."""
    own, kinds = fields(cls), kinds_of(cls)
    needed = [one.name for one in own if one.default is MISSING and one.default_factory is MISSING]
    properties = {one.name: {**schema_of(kinds[one.name]), **_default_of(one)} for one in own}
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, "required": needed} if needed else made


def _default_of(field: Field[Any]) -> Schema:
    plain = isinstance(field.default, str | int | float)
    return {"default": field.default} if plain else {}


def schema_of(kind: Any) -> Schema:
    """The schema of what is of a kind, as `typed.fitted` takes it apart."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        made = schema_of(inner[0])
        for rule in inner[1:]:
            made |= _rule(rule, made)
        return made
    if is_dataclass(kind):
        return _schema_of_fields(kind)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(one) for one in inner]}
    if origin in (tuple, Sequence):
        return {"type": "array", "items": schema_of(inner[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    return {"type": _PLAIN[kind]} if kind in _PLAIN else {}


def _rule(rule: Any, made: Schema) -> Schema:
    """What a rule of `typed.py` adds to the schema of a kind."""
    if isinstance(rule, Form):
        return dict(rule.schema)
    if isinstance(rule, Such):
        empty = {"string": "minLength", "array": "minItems"}.get(made.get("type", ""))
        return {empty: 1} if rule.holds is bool and empty else {}
    if not isinstance(rule, Within):
        return {}
    names = {"minimum": rule.least, "maximum": rule.most, "exclusiveMinimum": rule.above, "exclusiveMaximum": rule.below}
    finite = {name: bound for name, bound in names.items() if abs(bound) != float("inf")}
    return {name: int(bound) if made.get("type") == "integer" else bound for name, bound in finite.items()}
