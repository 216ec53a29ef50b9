"""What the reference pages show beside docstrings: the comments of fields, the idea of a method, and plain types.

In graftax a field of a dataclass says what it is in a comment beside it or above it:

    r: Size = 8  # rank
    lr: Annotated[Positive, Doc("Peak learning rate.")] = 1e-3

or in a `Doc`. A method's idea, formula and paper stand in the docstring of its file. This extension of Griffe, which reads the
sources for the site, turns what fields say into the section "Args" of the class's docstring, and puts the file's docstring in
front of a method's. An annotation such as `Size`, which is `Annotated[int, Within(1, ...)]`, is shown as `int`.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from typing import Any

from griffe import Attribute, Class, Docstring, Expr, ExprCall, ExprName, ExprSubscript, ExprTuple, Extension, Function, Module

_METHODS = "graftax.adapters.methods"


class FromComments(Extension):
    """Fills docstrings and plains annotations when the package has been read, before Griffe makes signatures of dataclasses."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        members = [*_members(pkg)]
        for one in members:
            if isinstance(one, Class) and (text := _docstring(one)):
                one.docstring = Docstring(text, parent=one, parser="google")
        for one in members:
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
    """The section "Args" of a dataclass, its inherited fields last; empty where no field says anything."""
    if "dataclass" not in cls.labels:
        return ""
    said: dict[str, str] = {}
    for one in (cls, *cls.mro()):
        for name, field in one.members.items():
            if isinstance(field, Attribute) and name not in said and (words := _words(field)):
                said[name] = words
    return "\n".join(["Args:", *(f"    {name}: {words}" for name, words in said.items())]) if said else ""


def _words(field: Attribute) -> str:
    """What a field says: in its `Doc`, in lines of `#:` above it, and beside it. Constants of the class are no fields."""
    given = "instance-attribute" in field.labels and "init=False" not in str(field.value)
    if not given or field.lineno is None or field.endlineno is None:
        return ""
    source = field.lines_collection[field.filepath]
    above: list[str] = []
    for line in reversed(source[: field.lineno - 1]):
        if not line.strip().startswith("#:"):
            break
        above.insert(0, line.strip().removeprefix("#:").strip())
    comment = " ".join([*above, source[field.endlineno - 1].partition("  # ")[2]]).strip()
    calls = [added for added in _annotated(field.annotation) if isinstance(added, ExprCall)]
    docs = [ast.literal_eval(str(call.arguments[0])) for call in calls if str(call.function) == "Doc"]
    return " ".join([*docs, f"({comment})" if docs and comment else comment]).strip()


def _annotated(annotation: Any) -> list[Any]:
    """What stands in `Annotated[...]`, the type first; empty for another annotation."""
    is_one = isinstance(annotation, ExprSubscript) and str(annotation.left) == "Annotated"
    return list(annotation.slice.elements) if is_one and isinstance(annotation.slice, ExprTuple) else []


def _plain(annotation: Any, pkg: Module) -> Any:
    """An annotation without what `Annotated` adds, be it written there or under a name of graftax's."""
    if parts := _annotated(annotation):
        return _plain(parts[0], pkg)
    if isinstance(annotation, ExprName):
        named = annotation.resolved if annotation.canonical_path.startswith(f"{pkg.name}.") else None
        is_type = isinstance(named, Attribute) and _annotated(named.value)
        return _plain(named.value, pkg) if is_type else annotation
    if isinstance(annotation, Expr):
        within = {field.name: getattr(annotation, field.name) for field in dataclasses.fields(annotation)}
        return dataclasses.replace(annotation, **{name: _plain(part, pkg) for name, part in within.items()})
    return [_plain(part, pkg) for part in annotation] if isinstance(annotation, list) else annotation
