"""The rows that were answered most wrongly: those that an adapter is surest of, or furthest from, where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.box_values import THRESHOLD, Boxes, Found
from ...data.mask_values import Mask
from ...data.picture_values import Picture
from ...tasks.task import Answer
from ..evaluation import Answered
from .shown_pictures import boxes_beside, masks_beside, thumbnail

MOST = 12
_CHARACTERS = 600  # of a text
_WORDS = 12  # of those that were tagged wrongly


@dataclass(frozen=True)
class Wrong:
    """A row and what was answered."""

    row: int  # from 1
    shown: Mapping[str, str]  # the row's fields, as texts; of a picture its path, if it has one
    label: str
    answer: str
    probability: float | None  # of the answer, where it is one label
    mistake: float  # as `Task.mistake` counts it
    picture: str | None = None  # a small PNG, as a data URL


def most_wrong(answered: Answered, most: int = MOST) -> tuple[Wrong, ...]:
    """The worst first; of equally wrong ones the first of the rows."""
    each = zip(answered.labels, answered.answers, strict=True)
    mistakes = [answered.task.mistake(label, answer) for label, answer in each]
    found = sorted((-mistake, row) for row, mistake in enumerate(mistakes) if mistake is not None)
    return tuple(_wrong(answered, row, -mistake) for mistake, row in found[:most])


def _wrong(answered: Answered, row: int, mistake: float) -> Wrong:
    label, answer = answered.labels[row], answered.answers[row]
    fields = {field: values[row] for field, values in answered.examples.fields.items()}
    picture = next((value for value in fields.values() if isinstance(value, Picture)), None)
    shown = {field: _text(value) for field, value in fields.items()}
    probability = answer.score if isinstance(answer.label, str) else None
    truth, said = _compared(label, answer, fields)
    if isinstance(label, Mask):  # which classes are in a mask is worth a line where that is what is wrong
        classes = [_classes_in(mask, answered.names) for mask in (label, answer.label)]
        truth, said = classes if classes[0] != classes[1] else ("", "")
    return Wrong(row + 1, shown, truth, said, probability, mistake, _drawn(picture, label, answer.label, answered.names))


def _drawn(picture: Picture | None, label: Any, said: Any, names: Sequence[str]) -> str | None:
    """The row's picture, if it has one; where it was segmented, with both masks, the truth first, and so with boxes."""
    if picture is None:
        return None
    if isinstance(label, Boxes):
        truth = [(names.index(name), corners) for name, corners in zip(label.names, label.corners, strict=True)]
        found = [(names.index(one["label"]), tuple(one["box"].values())) for one in said.above(THRESHOLD)]
        return boxes_beside(picture, (truth, found))
    return masks_beside(picture, [label, said]) if isinstance(label, Mask) else thumbnail(picture)


def _classes_in(mask: Mask, names: Sequence[str]) -> str:
    return ", ".join(names[number] for number in sorted(mask.occurring))


def _compared(label: Any, answer: Answer, fields: Mapping[str, Any]) -> tuple[str, str]:
    """Label and answer as texts: of a tagged text the words whose tags differ."""
    words = fields.get("text")
    if not isinstance(words, list) or not isinstance(answer.label, list):
        return _text(label), _text(answer.label)
    differ = [(word, a, b) for word, a, b in zip(words, label, answer.label, strict=True) if a != b][:_WORDS]
    return ", ".join(f"{word}: {a}" for word, a, _ in differ), ", ".join(f"{word}: {b}" for word, _, b in differ)


def _text(value: Any) -> str:
    """Any value of a row, for people."""
    if value is None:
        return ""
    if isinstance(value, Picture):
        return str(value.content) if isinstance(value.content, Path) else ""
    if isinstance(value, Boxes):
        return _cut(", ".join(value.names))
    if isinstance(value, Found):
        return _cut(", ".join(f"{one['label']} {one['score']:.2f}" for one in value.above(THRESHOLD)))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], Mapping):  # the messages of a chat
            return _cut("\n".join(f"{message['role']}: {message['content']}" for message in value))
        return _cut((" " if isinstance(value, list) else ", ").join(map(str, value)))
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} [...]"
