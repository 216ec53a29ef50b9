"""What an object shows of itself: one line in a terminal, a small table in a notebook, never its arrays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from html import escape
from typing import Any

_MOST = 60  # characters of a fact in a line; a notebook shows it whole


class Shown:
    """Base of what prints as `Name(fact, fact, ...)`."""

    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """What is worth seeing, by name, the most telling first."""

    def __repr__(self) -> str:
        said = (f"{name}={_short(value)}" for name, value in self.facts().items())
        return f"{type(self).__name__}({', '.join(said)})"

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(_text(value))}</td></tr>" for name, value in self.facts().items())
        return f"<table><caption>{type(self).__name__}</caption>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)


def _short(value: Any) -> str:
    text = _text(value)
    text = text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."
    return repr(text) if isinstance(value, str) else f"[{text}]" if isinstance(value, list | tuple | Mapping) else text
