"""What the reference pages show beside docstrings: the comments of fields, the idea of a method, and plain types.

In graftax a field of a dataclass says what it is in a comment beside it or above it:

    r: Size = 8  # rank

and a method's idea, formula and paper stand in the docstring of its file. This extension of Griffe, which reads the sources for
the site, turns the comments into the section "Args" of the class's docstring, and puts the file's docstring in front of a
method's. An annotation such as `Size`, which is `Annotated[int, Within(1, ...)]`, is shown as `int`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from griffe import Attribute, Class, Docstring, Expr, ExprName, ExprSubscript, ExprTuple, Extension, Function, Module

_METHODS = "graftax.adapters.methods"


class FromComments(Extension):
    """Fills docstrings and plains annotations when the package has been read, before Griffe makes signatures of dataclasses."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        for one in _members(pkg):
            if isinstance(one, Class) and (text := _docstring(one)):
                one.docstring = Docstring(text, parent=one, parser="google")
            annotated = one.parameters if isinstance(one, Function) else [one] if isinstance(one, Attribute) else []
            for some in annotated:
                some.annotation = _plain(some.annotation, pkg)


def _members(within: Module | Class) -> Iterator[Module | Class | Function | Attribute]:
    """Everything that is defined in a module, in the modules and in the classes within."""
    for member in within.members.values():
        if isinstance(member, Module | Class | Function | Attribute):  # and no alias of what is defined elsewhere
            yield member
            if isinstance(member, Module | Class):
                yield from _members(member)


def _docstring(cls: Class) -> str:
    """A class's own, a method's file's before it, and its fields behind it, but for the section "Raises", which comes last."""
    file = cls.module.docstring if cls.module.path.startswith(_METHODS) else None
    own, raises, errors = (cls.docstring.value if cls.docstring else "").partition("\n\nRaises:")
    parts = [file.value if file else "", own, _arguments(cls)]
    return "\n\n".join(part for part in parts if part) + raises + errors


def _arguments(cls: Class) -> str:
    """The section "Args" of a dataclass, its inherited fields last; empty where no field has a comment."""
    if "dataclass" not in cls.labels:
        return ""
    said: dict[str, str] = {}
    for one in (cls, *cls.mro()):
        for name, field in one.members.items():
            if isinstance(field, Attribute) and name not in said and (comment := _comment(field)):
                said[name] = comment
    return "\n".join(["Args:", *(f"    {name}: {comment}" for name, comment in said.items())]) if said else ""


def _comment(field: Attribute) -> str:
    """What a field's comment says: in the lines of `#:` above it, and beside it. Constants of the class are no fields."""
    given = "instance-attribute" in field.labels and "init=False" not in str(field.value)
    if not given or field.lineno is None or field.endlineno is None:
        return ""
    source = field.lines_collection[field.filepath]
    above: list[str] = []
    for line in reversed(source[: field.lineno - 1]):
        if not line.strip().startswith("#:"):
            break
        above.insert(0, line.strip().removeprefix("#:").strip())
    return " ".join([*above, source[field.endlineno - 1].partition("  # ")[2]]).strip()


def _plain(annotation: Any, pkg: Module) -> Any:
    """An annotation without what `Annotated` adds, be it written there or under a name of graftax's."""
    annotated = isinstance(annotation, ExprSubscript) and str(annotation.left) == "Annotated"
    if annotated and isinstance(annotation.slice, ExprTuple):
        return _plain(annotation.slice.elements[0], pkg)
    if isinstance(annotation, ExprName):
        named = annotation.resolved if annotation.canonical_path.startswith(f"{pkg.name}.") else None
        is_type = isinstance(named, Attribute) and str(named.value).startswith("Annotated[")
        return _plain(named.value, pkg) if is_type else annotation
    if isinstance(annotation, Expr):
        parts = {field.name: getattr(annotation, field.name) for field in dataclasses.fields(annotation)}
        return dataclasses.replace(annotation, **{name: _plain(part, pkg) for name, part in parts.items()})
    return [_plain(part, pkg) for part in annotation] if isinstance(annotation, list) else annotation
