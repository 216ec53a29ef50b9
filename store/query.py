"""A query: what is looked for in a store, as SQL over the index's tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import GraftaxError
from ..typed import shown

_METRIC = re.compile(r"\s*(?P<name>[\w.@/-]+?)\s*(?P<sign>>=|<=|>|<|=)\s*(?P<value>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Query:
    """What must be true of a version; what is None is not asked."""

    text: str | None = None  # words, each of which stands (or, from 2 letters on, begins a word) in name, labels, ...
    fingerprint: str | None = None  # of the backbone that it fits, or the beginning
    backbone: str | None = None  # words of the backbone's name
    task: str | None = None
    method: str | None = None
    label: str | None = None  # whole; case does not matter
    metric: str | None = None  # such as "accuracy>=0.9": as its training ended, or on any rows that it was measured on since
    all_versions: bool = False  # else what each name means now

    def condition(self) -> tuple[str, list[Any]]:
        """Everything behind FROM versions: joins, conditions and the order, with the values of its question marks."""
        words, joins, conditions, values = self._words(), "", [], list[Any]()
        if words:
            joins = "JOIN words ON words.rowid = versions.id"
            conditions.append("words MATCH ?")
            values.append(" AND ".join(words))
        conditions.append("NOT gone" if self.all_versions else "newest = 1")
        if self.fingerprint is not None:
            conditions.append("made_for IN (SELECT number FROM backbones WHERE fingerprint >= ? AND fingerprint < ?)")
            values += [self.fingerprint, self.fingerprint + "g"]
        if self.task is not None:
            conditions.append("versions.task = ?")
            values.append(self.task)
        if self.method is not None:
            conditions.append("EXISTS (SELECT 1 FROM json_each(versions.methods) WHERE value = ?)")
            values.append(self.method)
        if self.label is not None:
            conditions.append("EXISTS (SELECT 1 FROM json_each(versions.labels) WHERE casefold(value) = ?)")
            values.append(self.label.casefold())
        if self.metric is not None:
            name, sign, value = _parsed_metric(self.metric)
            # the + says that this is to be looked at for each version, and is no way to find them
            bounds = [f"SELECT id FROM {known} WHERE metric = ? AND value {sign} ?" for known in ("metrics", "evaluations")]
            conditions.append(f"+versions.id IN ({' UNION ALL '.join(bounds)})")
            values += [name, value] * len(bounds)
        order = "words.rowid" if words else "versions.id"
        return f"{joins} WHERE {' AND '.join(conditions)} ORDER BY {order} DESC", values

    def _words(self) -> list[str]:
        """The conditions of the full-text search: SQLite's own signs are only signs, and case is folded as in the index.

        What is looked for in a column alone is among them, which leaves few versions to be looked at more closely.
        """
        found = [f'"{word.casefold()}"' + "*" * _may_go_on(word) for word in _WORD.findall(self.text or "")]
        if self.text and not found:
            raise GraftaxError(f"{shown(self.text)}: there is no word in it to look for.")
        found += [f'backbone : "{word.casefold()}"' for word in _WORD.findall(self.backbone or "")]
        for column, text in (("labels", self.label), ("methods", self.method), ("task", self.task)):
            if any(map(str.isalnum, text or "")):  # else SQLite has no word to look for, and finds nothing
                found.append(f"{column} : {_phrase(text or '')}")
        return found


def _phrase(text: str) -> str:
    """A whole text as the full-text search has it, which finds its words itself: accents and vowel signs are part of them."""
    quoted = text.casefold().replace('"', '""').replace("\0", " ")
    return f'"{quoted}"'


def _may_go_on(word: str) -> bool:
    """Whether a word in a text may be only the beginning of one: one letter begins thousands, but a sign may be a word."""
    return len(word) > 1 or not word.isascii()


def _parsed_metric(text: str) -> tuple[str, str, float]:
    match = _METRIC.fullmatch(text)
    try:
        if match:
            return match["name"], match["sign"], float(match["value"])
    except ValueError:
        pass
    raise GraftaxError(f"{shown(text)}: a metric is looked for by a bound, such as accuracy>=0.9.")
