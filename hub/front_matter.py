"""Front matter: the YAML between two lines of `---` with which a README begins, and which the Hugging Face Hub reads.

    ---
    license: apache-2.0   # ours
    tags: [banking]
    ---

What somebody has written there stays to the letter, comments too, until a key is given another value. Reading all of it and
writing it again would change it: `version: 1.10` is the number 1.1 to YAML, and `language: no` is false.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import GraftaxError

_MATTER = re.compile(r"\A\s*---\n(?P<yaml>.*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)
_MOST = 1 << 18  # characters: YAML is read slowly
#: what PyYAML raises for texts that are no YAML, or whose tags do not fit (`!!bool maybe`)
_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class FrontMatter:
    """Keys with their values, and each with the lines in which it is said."""

    values: Mapping[Hashable, Any] = field(default_factory=dict)
    lines: Mapping[Hashable, str] = field(default_factory=dict)
    above: str = ""  # comments above the first key

    def changed(self, values: Mapping[Hashable, Any]) -> FrontMatter:
        """The same with these values instead, in their order; of a key whose value stays the lines stay as they are."""
        lines = {
            key: self.lines[key] if key in self.values and self.values[key] == value else _written(key, value)
            for key, value in values.items()
        }
        return FrontMatter(dict(values), lines, self.above)

    def text(self) -> str:
        return f"---\n{self.above}{''.join(self.lines.values())}---\n"


def split_front_matter(text: str, source: str) -> tuple[FrontMatter, str]:
    """A README's front matter, which may be none, and what follows; line breaks are \\n alone.

    Raises GraftaxError, which begins with `source`, where it is no YAML of keys and values.
    """
    match = _MATTER.match(text)
    if match is None:
        return FrontMatter(), text
    return _read(match["yaml"] or "", source), text[match.end() :]


def _read(text: str, source: str) -> FrontMatter:
    if len(text) > _MOST:
        raise GraftaxError(f"{source}: its front matter has {len(text):,} characters; at most {_MOST:,} are read.")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return FrontMatter(above=text)
        if not isinstance(root, yaml.MappingNode):
            raise GraftaxError(f"{source}: its front matter is no list of keys and values.")
        keys = [loader.construct_object(key, deep=True) for key, _ in root.value]
        values = [loader.construct_object(value, deep=True) for _, value in root.value]
        found = dict(zip(keys, values, strict=True))
    except _UNREADABLE as error:
        raise GraftaxError(f"{source}: its front matter is no YAML that can be read ({error}).") from error
    if len(found) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise GraftaxError(f"{source}: its front matter has the key {twice!r} twice.")
    begins = [key.start_mark.index - key.start_mark.column for key, _ in root.value]
    if root.flow_style or len(set(begins)) < len(begins):  # {a: 1, b: 2}
        return FrontMatter(found, {key: _written(key, value) for key, value in found.items()})
    lines = {key: text[begin:end] for key, begin, end in zip(keys, begins, [*begins[1:], len(text)], strict=True)}
    return FrontMatter(found, lines, text[: begins[0]])


class _Loader(yaml.SafeLoader):
    """Plain values alone; no references, a few of which can stand for a text without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has references (*name), which are not followed")
        return super().compose_node(parent, index)


def _written(key: Hashable, value: Any) -> str:
    """A key in lines of its own; the innermost lists are written in one line each."""
    flow = None if isinstance(value, dict | list) else False
    return yaml.safe_dump({key: value}, allow_unicode=True, sort_keys=False, default_flow_style=flow, width=120)
