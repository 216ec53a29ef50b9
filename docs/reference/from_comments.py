"""What the reference pages show beside docstrings: the comments of fields, and the idea of a method.

In graftax a field of a dataclass says what it is in a comment beside it or above it:

    r: Size = 8  # rank

and a method's idea, formula and paper stand in the docstring of its file. This extension of Griffe, which reads the sources
for the site, turns the comments into the section "Args" of the class's docstring, and puts the file's docstring in front of a
method's.
"""

from __future__ import annotations

from typing import Any

from griffe import Attribute, Class, Docstring, Extension, Module, Object

_METHODS = "graftax.adapters.methods"


class FromComments(Extension):
    """Fills docstrings when the package has been read."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        for cls in _classes(pkg):
            above = cls.parent.docstring if cls.parent and cls.module.path.startswith(_METHODS) else None
            own = cls.docstring.value if cls.docstring else ""
            parts = [above.value if above else "", own, _arguments(cls)]
            if text := "\n\n".join(part for part in parts if part):
                cls.docstring = Docstring(text, parent=cls, parser="google")


def _classes(within: Object) -> list[Class]:
    """All classes of a module and of the modules in it; what is imported from elsewhere is met at home."""
    found: list[Class] = []
    for member in within.members.values():
        if member.is_alias:
            continue
        if isinstance(member, Class):
            found.append(member)
        elif isinstance(member, Module):
            found += _classes(member)
    return found


def _arguments(cls: Class) -> str:
    """The section "Args" of a dataclass, its inherited fields last; empty where no field has a comment."""
    if "dataclass" not in cls.labels:
        return ""
    said: dict[str, str] = {}
    for one in (cls, *cls.mro()):
        for name, field in one.members.items():
            if isinstance(field, Attribute) and name in cls.parameters and name not in said and (comment := _comment(field)):
                said[name] = comment
    return "\n".join(["Args:", *(f"    {name}: {comment}" for name, comment in said.items())]) if said else ""


def _comment(field: Attribute) -> str:
    """What a field's comment says: in the lines of `#:` above it, and beside it. A constant of the class is no field."""
    if "instance-attribute" not in field.labels or field.lineno is None or field.endlineno is None:
        return ""
    source = field.lines_collection[field.filepath]
    above: list[str] = []
    for line in reversed(source[: field.lineno - 1]):
        if not line.strip().startswith("#:"):
            break
        above.insert(0, line.strip().removeprefix("#:").strip())
    return " ".join([*above, source[field.endlineno - 1].partition("  # ")[2]]).strip()
