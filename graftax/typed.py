"""Values that others give, held against the annotations of what they are for.

Python does not look at annotations, so without this a rank of True, a rate of NaN or a label that is a list would live on until
something breaks far from where it came in. A dataclass here says what it takes once, where its fields are declared, and both of
its makers are held to that: a person who calls it (`settle`), and a file (`read`).

    Rank = Annotated[int, Within(1, below=1 << 15)]

    @dataclass(frozen=True)
    class LoRA:
        r: Rank = 8
        rank_pattern: Mapping[str, Rank] = field(default_factory=dict)

A public call says it in its signature, and its arguments are held to that (`held`):

    @held
    def load_adapter(directory: Location, backbone: Backbone, *, any_backbone: bool = False) -> Adapter: ...

What fits: a whole number where a float is wanted, NumPy's numbers, a list or an array for a tuple. What does not: a truth value
for a number, a number with a point for a whole one, a float that float32 cannot hold, NaN, a set or a text for a list.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib
import inspect
import math
import numbers
import os
import re
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from .errors import GraftaxError

T = TypeVar("T")
P = ParamSpec("P")
_LARGEST, _SMALLEST = 3.4028234e38, 1.1754944e-38  # that float32 can hold, and at full precision
_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, of what file systems hold


@dataclasses.dataclass(frozen=True)
class Within:
    """Bounds of a number: it may be `least` or `most` itself, but not `above` or `below`."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, number: float) -> bool:
        number = _on_device(number)
        return self.least <= number <= self.most and self.above < number < self.below

    def __str__(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {_numeral(bound)}" for word, bound in bounds.items() if math.isfinite(bound))


def _numeral(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


@dataclasses.dataclass(frozen=True)
class Such:
    """Any other rule, and its words."""

    words: str
    holds: Callable[[Any], bool]

    def __str__(self) -> str:
        return self.words


def _on_disk(path: str | Path) -> bool:
    """Whether a file system could hold something of this name, be it there or not."""
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    fits = len(name) <= _LONGEST_PATH and all(len(part) <= _LONGEST_NAME for part in name.split(b"/"))
    return fits and bool(name.strip()) and b"\0" not in name


Count = Annotated[int, Within(0, below=1 << 31)]  # of what there may be none of: steps, layers
Some = Annotated[int, Within(1, below=1 << 31)]  # of what there is at least one: rows, tokens
Size = Annotated[int, Within(1, below=1 << 15)]  # of an axis that a user chooses: a rank, a width, a number of virtual tokens
SizeOrZero = Annotated[int, Within(0, below=1 << 15)]  # where 0 says that another field chooses
Seed = Annotated[int, Within(0, below=1 << 63)]
ShortSeed = Annotated[int, Within(0, below=1 << 32)]  # that is drawn from on the device
Rate = Annotated[float, Within(0.0, below=1.0)]  # a share that is never all: of dropout, of steps
Share = Annotated[float, Within(above=0.0, most=1.0)]  # that is never nothing
Positive = Annotated[float, Within(above=0.0)]
Name = Annotated[str, Such("not empty", bool)]
Location = Annotated[str | Path, Such("such as a file system can hold", _on_disk)]  # a Hub id, too, is one


_PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    types.NoneType: "null",
    Path: "a path",
}


class Unfit(Exception):
    """A value that is not of a kind."""


class Settled:
    """Base of dataclasses that call `settle` when they are made, so that who reads one need not check its values before."""


def settle(made: Any, where: str = "") -> None:
    """Hold a frozen dataclass that was just made to its annotations, and bring its values to their plain form.

    Raises:
        GraftaxError: `where`, if it is said, and the field with what it takes and what it got.
    """
    for name, fit in _fits_of(made.__class__):
        value = getattr(made, name)
        try:
            plain = fit(value)
        except Unfit:
            plain = checked(value, kinds_of(made.__class__)[name], f"{where}: {name}" if where else name)
        object.__setattr__(made, name, plain)


def held(call: Callable[P, T]) -> Callable[P, T]:
    """A call whose arguments are held to its annotations, and come to it in their plain form.

    What is annotated as `Any`, or not at all, is the call's own affair. Where an argument does not fit, a GraftaxError says
    which, what it takes and what it got; one that is missing or unknown is Python's own TypeError.
    """
    parameters, plain = inspect.signature(call).parameters.values(), typing.cast(Callable[..., T], call)
    positional = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

    @functools.wraps(call)
    def checking(*args: P.args, **options: P.kwargs) -> T:
        kinds = _kinds_of_arguments(call)
        first = [_of_kind(value, kinds.get(name, Any), name) for name, value in zip(positional, args, strict=False)]
        named = {name: _of_kind(value, kinds.get(name, Any), name) for name, value in options.items()}
        return plain(*first, *args[len(first) :], **named)

    return checking


def read(cls: type[T], content: Mapping[str, Any], where: str) -> T:
    """The dataclass that an object of JSON or a table of TOML stands for.

    Raises:
        GraftaxError: a key that the dataclass has not, one that is missing, or a value of another kind.
    """
    kinds = kinds_of(typing.cast(Any, cls))
    if unknown := content.keys() - kinds.keys():
        raise GraftaxError(f"{where}: no such key: {', '.join(sorted(unknown))}; there are {', '.join(kinds)}.")
    if missing := [name for name in _required(typing.cast(Any, cls)) if name not in content]:
        raise GraftaxError(f"{where}: {', '.join(missing)} is missing.")
    plain = _as_it_is if issubclass(cls, Settled) else checked
    values = {
        name: (checked_object if isinstance(value, dict) else plain)(value, kinds[name], f"{where}: {name}")
        for name, value in content.items()
    }
    try:
        return cls(**values)
    except GraftaxError as error:  # of a rule that is no annotation
        raise GraftaxError(f"{where}: {error}") from error


def _as_it_is(value: Any, kind: Any, what: str) -> Any:
    """A value that is checked later."""
    return value


def checked_object(value: dict[str, Any], kind: Any, what: str) -> Any:
    """As `checked`, of an object of JSON: it may also be read as a dataclass that may be missing, or that each key has."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return checked(value, next((one for one in inner if dataclasses.is_dataclass(one)), kind), what)
    if origin is Mapping and dataclasses.is_dataclass(inner[1]):
        return {_of_kind(key, inner[0], what): checked(one, inner[1], f"{what}: {key}") for key, one in value.items()}
    return checked(value, kind, what)


@functools.cache
def _required(cls: type) -> tuple[str, ...]:
    """The fields of a dataclass that have no default."""
    missing = dataclasses.MISSING
    return tuple(field.name for field in dataclasses.fields(cls) if field.default is missing is field.default_factory)


def checked(value: Any, kind: Any, what: str) -> Any:
    """The value in its plain form where it is of a kind, an annotation; else a GraftaxError that begins with `what`.

    An object of JSON is read as the dataclass that the annotation may be.
    """
    if dataclasses.is_dataclass(kind) and not isinstance(value, typing.cast(type, kind)):
        if not isinstance(value, Mapping):
            raise GraftaxError(f"{what} must be an object, got {shown(value)}.")
        return read(typing.cast(Any, kind), value, what)
    return _of_kind(value, kind, what)


def _of_kind(value: Any, kind: Any, what: str) -> Any:
    try:
        return fitted(value, kind)
    except Unfit:
        raise GraftaxError(f"{what} must be {in_words(kind)}, got {shown(value)}.") from None


@functools.cache
def kinds_of(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields."""
    kinds = typing.get_type_hints(cls, include_extras=True)
    return {field.name: kinds[field.name] for field in dataclasses.fields(cls)}


@functools.cache
def _fits_of(cls: type) -> tuple[tuple[str, Fit], ...]:
    """What fits a dataclass's fields, by name."""
    return tuple((name, fit_of(kind)) for name, kind in kinds_of(cls).items())


@functools.cache
def _kinds_of_arguments(call: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a call's arguments.

    They may name what the call's file knows for type checking alone, because it lies above it, as `Backbone` does above
    `adapters/`. When a call is made that can be imported: by its name, which the package exports.
    """
    package = importlib.import_module(__package__)
    words = {word for annotation in call.__annotations__.values() for word in re.findall(r"\w+", str(annotation))}
    unknown = words.intersection(package.__all__).difference(inspect.unwrap(call).__globals__)
    kinds = typing.get_type_hints(call, localns={word: getattr(package, word) for word in unknown}, include_extras=True)
    return {name: kind for name, kind in kinds.items() if name != "return"}


Fit = Callable[[Any], Any]  # gives a value in the plain form of a kind, and raises Unfit where it is not of that kind


def fitted(value: Any, kind: Any) -> Any:
    """The value in the plain form of a kind; Unfit where it is not of that kind."""
    return fit_of(kind)(value)


@functools.cache
def fit_of(kind: Any) -> Fit:
    """What fits a kind. Annotations are taken apart here, once for each, and not at every value that is held to them."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _anything
    if kind in _PLAIN:
        return functools.partial(_plain, kind)
    if origin is Annotated:
        return functools.partial(_by_rules, fit_of(inner[0]), _rules(inner))
    if origin is Literal:
        return functools.partial(_among, inner)
    if origin in (typing.Union, types.UnionType):
        return functools.partial(_first, tuple(map(fit_of, inner)))
    if origin in (tuple, Sequence):
        return functools.partial(_each, fit_of(inner[0]))
    if origin is Mapping:
        return functools.partial(_entries, fit_of(inner[0]), fit_of(inner[1]))
    return functools.partial(_instance, origin or kind)  # the content of a `dict` is not looked at: of arrays, say


def _anything(value: Any) -> Any:
    return value


def _by_rules(fit: Fit, rules: Sequence[Within | Such], value: Any) -> Any:
    plain = fit(value)
    for rule in rules:
        if not rule.holds(plain):
            raise Unfit
    return plain


def _among(words: Sequence[str], value: Any) -> str:
    if isinstance(value, str) and value in words:
        return value
    raise Unfit


def _first(fits: Sequence[Fit], value: Any) -> Any:
    """The value in the form of the first of some kinds that it is of."""
    for fit in fits:
        try:
            return fit(value)
        except Unfit:
            continue
    raise Unfit


def _each(fit: Fit, values: Any) -> tuple[Any, ...]:
    return tuple(map(fit, _listed(values)))


def _entries(fit_key: Fit, fit_value: Fit, values: Any) -> dict[Any, Any]:
    if not isinstance(values, Mapping):
        raise Unfit
    return {fit_key(key): fit_value(value) for key, value in values.items()}


def _instance(cls: Any, value: Any) -> Any:
    if isinstance(cls, type) and isinstance(value, cls):
        return value
    raise Unfit


def _rules(inner: Sequence[Any]) -> list[Within | Such]:
    """What an `Annotated` holds its values to; the rest of what it says is for others, such as words for people."""
    return [rule for rule in inner[1:] if isinstance(rule, Within | Such)]


def _plain(kind: Any, value: Any) -> Any:
    """As `fitted`, for a text, a truth value, a number, none or a path."""
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return _finite(value)
    if kind is Path and isinstance(value, os.PathLike) and isinstance(os.fspath(value), str):
        return Path(value)
    if kind in (str, bool, types.NoneType) and isinstance(value, kind):
        return value
    raise Unfit


def _listed(values: Any) -> list[Any]:
    """What a list, an array or the like holds. A text's letters, an object's keys and a set, which has no order, are none."""
    if isinstance(values, list | tuple):  # the commonest
        return list(values)
    if isinstance(values, str | bytes | bytearray | Mapping | Set) or not isinstance(values, Iterable):
        raise Unfit
    try:
        return list(values)
    except TypeError:  # an array without axes
        raise Unfit from None


def _finite(number: Any) -> float:
    if not -_LARGEST <= number <= _LARGEST:  # NaN neither
        raise Unfit
    return float(number)


def _on_device(number: float) -> float:
    """What becomes of a number as float32: 1e-60 is 0 there, and 0.99999999 is 1. Whole numbers stay what they are."""
    if isinstance(number, int):
        return number
    return ctypes.c_float(number).value if abs(number) >= _SMALLEST else 0.0


def in_words(kind: Any) -> str:
    """A kind, for people: "a whole number, at least 1 and less than 32,768"."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return ", ".join([in_words(inner[0]), *map(str, _rules(inner))])
    if origin is Literal:
        return " or ".join(f'"{word}"' for word in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(in_words, inner))
    if origin in (tuple, Sequence):
        return "a list" if inner[0] is Any else f"a list, each of which is {in_words(inner[0])}"
    if origin is dict:
        return "an object"
    if origin is Mapping:
        return "an object" if inner[1] is Any else f"an object, each of whose values is {in_words(inner[1])}"
    return _PLAIN[kind] if kind in _PLAIN else f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def shown(value: Any) -> str:
    """The beginning and end of a value as Python writes it."""
    try:
        return reprlib.repr(value)
    except ValueError:  # what Python says of integers of thousands of digits
        return "an integer of thousands of digits"
