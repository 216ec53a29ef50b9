"""A method by its name and settings, as the command line and a benchmark's suite give them: in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import GraftaxError
from ...json_files import parse_json
from ...typed import read
from ..method import Method
from .lora import LoRA
from .method_registry import method_class
from .unions import UNIONS

PROBE = ("probe", "head", "linear_probe")  # no method: the head alone


def method_from(name: str, settings: Mapping[str, Any], where: str) -> Method:
    """The method of a name with fields as JSON has them; a GraftaxError, if there is one, begins with `where`."""
    try:
        cls = method_class(name)
    except GraftaxError as error:
        raise GraftaxError(f"{where}: {error}") from error
    return read(cls, settings, where)


def make_method(
    method: str,
    *,
    rank: int | None = None,
    alpha: float | None = None,
    start: str | None = None,
    target: str | None = None,
    option: Sequence[str] = (),
) -> Method | tuple[Method, ...] | None:
    """The method that the words describe, a tuple of them for a union; None for a probe.

    Args:
        method: a method's or a union's name, or several joined by "+".
        rank: of LoRA and its kin, as are the next two; None: the method's own default.
        alpha: the update is scaled by alpha / rank.
        start: how the factors begin.
        target: regex over module paths, for every part; None: each method's default targets.
        option: "name=value", the value as JSON or a bare text; each goes to every part that has the field.

    Raises:
        GraftaxError: an unknown name or field, a value of another type, a setting that no part has.
    """
    if method in PROBE:
        return None
    parts = _parts(method)
    given = {key: value for key, value in (("rank", rank), ("alpha", alpha), ("start", start)) if value is not None}
    if given and not is_lora(method):
        raise GraftaxError(
            f"{', '.join(given)} is for LoRA and its kin; settings of {method} are given as --option name=value: "
            f"{_names(parts)}."
        )
    of_lora = {"r" if key == "rank" else key: value for key, value in given.items()}
    values = {"targets": target} | dict(_value(text, method, parts) for text in option)
    made = tuple(_with(part, of_lora if isinstance(part, LoRA) else {}, values) for part in parts)
    return made if len(made) > 1 else made[0]


def is_lora(method: str) -> bool:
    """Whether a part of what is named is LoRA or its kin, which have a rank, an alpha and a start."""
    return method not in PROBE and any(isinstance(part, LoRA) for part in _parts(method))


def _parts(method: str) -> list[Method]:
    parts: list[Method] = []
    for name in method.split("+"):
        if name == "head":
            raise GraftaxError(f"--method {method}: every adapter has a head; name the other methods alone.")
        parts.extend(UNIONS[name]() if name in UNIONS else [method_class(name)()])
    return parts


def _with(part: Method, of_lora: dict[str, Any], values: dict[str, Any]) -> Method:
    """The part with LoRA's settings, and with the values that it has a field for."""
    fields = {field.name for field in dataclasses.fields(part)}
    return dataclasses.replace(part, **of_lora | {key: value for key, value in values.items() if key in fields})


def _names(parts: Sequence[Method]) -> str:
    names = dict.fromkeys(field.name for part in parts for field in dataclasses.fields(part))
    return ", ".join(name for name in names if name != "targets") or "it has none"


def _value(text: str, method: str, parts: Sequence[Method]) -> tuple[str, Any]:
    """Field and value of an option; the method that has the field says whether it takes the value."""
    fields = {field.name for part in parts for field in dataclasses.fields(part)}
    key, equals, said = text.partition("=")
    if not equals or key not in fields:
        raise GraftaxError(f"--option {text}: expected name=value with a field of {method}: {_names(parts)}.")
    try:
        return key, parse_json(said, f"--option {key}")
    except GraftaxError:
        return key, said
