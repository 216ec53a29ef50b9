"""The methods there are, by name: those that graftax brings (`builtin.py`), and those of other packages.

A package brings a method through an entry point, which is read when a name is not known here:

    [project.entry-points."graftax.methods"]
    gate = "mypackage.gate:Gate"

In a program of one's own `add_method` does, before the first adapter of that method is made or read.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from typing import TypeVar

from ... import plugins
from ...errors import GraftaxError
from ...typed import shown
from ..method import BUCKET, Method

METHODS: dict[str, type[Method]] = {}  # those that a user chooses
MADE: dict[str, type[Method]] = {}  # nobody chooses these: they are made of trained adapters
INNER: dict[str, type[Method]] = {}  # nor these, which live while an adapter is trained or explained and are never saved

_NAME = re.compile("[a-z][a-z0-9_]*")  # a key of a method has it in front of a colon (`Method.key`)
C = TypeVar("C", bound=type[Method])


def add_method(method: C) -> C:
    """A method of somebody else's, so that its name is known to adapters' files, commands and programs from now on.

    It is written into files as the default dialect has it (`adapters/formats/peft/dialect.py`), and can stand as a decorator
    over the method's `@dataclass(frozen=True)`.

    Raises GraftaxError for what is no method, and for one whose name another has.
    """
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise GraftaxError(f"expected a class of methods, got {shown(method)}.")
    missing = [name for name in ("name", "summary", "count", "acts_on") if not hasattr(method, name)]
    if missing or inspect.isabstract(method) or "__dataclass_params__" not in vars(method):
        lacks = ", ".join(missing) or ("identity" if inspect.isabstract(method) else "@dataclass(frozen=True)")
        raise GraftaxError(f"{_where(method)} is no whole method: it lacks {lacks}.")
    if not isinstance(method.name, str) or not _NAME.fullmatch(method.name):
        raise GraftaxError(f"{_where(method)}: a method's name is made of a-z, 0-9 and _, got {method.name!r}.")
    known = (MADE | INNER).get(method.name) or METHODS.setdefault(method.name, method)
    if known is not method:
        raise GraftaxError(f"{_where(method)}: there is a method {method.name!r} already, {_where(known)}.")
    return method


def _where(method: type[Method]) -> str:
    return f"{method.__module__}.{method.__qualname__}"


def all_methods() -> dict[str, type[Method]]:
    """Those that a user may choose, other packages' among them."""
    for name, method in plugins.found("graftax.methods").items():
        try:
            add_method(method)
        except GraftaxError as error:
            raise GraftaxError(f"the entry point {name!r} of graftax.methods: {error}") from error
    return METHODS


@functools.cache
def method_of(key: str) -> Method:
    """The method a key of an adapter tree stands for (`Method.key`)."""
    key = key.partition(BUCKET)[0]
    name = key.partition(":")[0]
    return (INNER.get(name) or method_class(name)).from_key(key)


def method_class(name: str) -> type[Method]:
    """The method of that name; an unknown one is an error that names the nearest and all there are."""
    found = METHODS.get(name) or MADE.get(name) or all_methods().get(name)
    if found is None:
        near = difflib.get_close_matches(name.lower(), METHODS, n=1)
        meant = f": did you mean {near[0]}?" if near else "."
        raise GraftaxError(f"unknown method {name!r}{meant} There are {', '.join(METHODS)}.")
    return found
