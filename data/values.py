"""What a value in a row means: a text, a label, words, tags, a number.

A value is read where there is one way to read it, and refused otherwise: what Python would print of it is never taken for text.

| wanted | read |
|---|---|
| a text | text; UTF-8 bytes; a number, as it is written |
| a label | text without the space around it; a number, a whole one without a fraction; True and False |
| words, tags, labels | a list; what Python, NumPy or JSON write of one; text with spaces (words, tags) or "|" between |
| a number | a number, or text that is one |
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

_QUOTED = r"'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\""
_ITEM = rf"(?:{_QUOTED}|-?\d++(?:\.\d*+)?|True|False)"
_BETWEEN = r"(?:\s*+,\s*+|\s++)"  # NumPy writes no commas
# as Python and NumPy write lists; nothing in it looks back, so that no text keeps it busy
_LIST = re.compile(rf"[\[(]\s*+(?:{_ITEM}(?:{_BETWEEN}{_ITEM})*+\s*+,?\s*+)?[\])]", re.DOTALL)
_LIKE_A_LIST = re.compile(r"[\[({](?:['\"]|.*?\w['\"]?,)", re.DOTALL)  # ( NNP , NNP ) are tags of five words
_ITEMS = re.compile(_ITEM, re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_BRACKETS = ("[]", "()")
_LARGEST = 10**4000  # of the integers that are written as text
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class Unreadable(ValueError):
    """A value that is not what is wanted; the message is the reason, without the row."""


def plain(value: Any) -> Any:
    """Arrays and numbers of other libraries as Python's own, buffers as bytes; all else as it is."""
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Decimal):  # from Parquet
        whole = value.is_finite() and value.adjusted() < 300 and value == value.to_integral_value()
        return int(value) if whole else float(value)
    return value.tolist() if hasattr(value, "tolist") else value


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(value: Any) -> str:
    """A text."""
    value = plain(value)
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable(f"its bytes are not UTF-8 text ({error.reason} at byte {error.start})") from None
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
            raise Unreadable("it is no Unicode text: half of a character stands there") from None
        return str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _digits(value)
    raise Unreadable(f"{described(value)} is no text")


def label_of(value: Any) -> str:
    """The name of a label."""
    value = plain(value)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | tuple | set | frozenset):
        raise Unreadable(f"{described(value)} is no label; task multilabel takes several per row, tag one per word")
    name = text_of(value).strip()
    if not name:
        raise Unreadable("a label is empty")
    return name


def class_of(value: Any, names: Sequence[str]) -> str:
    """The name of a label that may be given by its number among `names` (there may be none)."""
    value = plain(value)
    if not names or isinstance(value, str | bytes):
        return label_of(value)
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise Unreadable(f"{_short(value)} is no class: they are numbered 0 to {len(names) - 1} ({', '.join(names[:20])})")
    return names[value]


def words_of(value: Any) -> list[str]:
    """The words of a text, or a list of words as it is."""
    value = plain(value)
    if isinstance(value, list | tuple):
        return [text_of(word) for word in value]
    if isinstance(value, str | bytes):
        text = text_of(value)
        items = written_list(text)
        quoted = items is not None and all(isinstance(item, str) for item in items)
        return list(map(str, items or ())) if quoted else text.split()  # [1] may be a text; ['a', 'b'] is a list
    raise Unreadable(f"{described(value)} is neither a text nor a list")


def items_of(value: Any, separator: str | None) -> list[Any]:
    """What stands in a list, a text that was written of a list, or a text with separators.

    With white space (None) between them their order counts, and a set has none.
    """
    value = plain(value)
    if isinstance(value, list | tuple) or (separator is not None and isinstance(value, set | frozenset)):
        return [plain(item) for item in value]
    if not isinstance(value, str | bytes):
        raise Unreadable(f"{described(value)} is neither a text nor a list")
    text = text_of(value).strip()
    items = written_list(text)
    if items is None and _LIKE_A_LIST.match(text):
        raise Unreadable(f"{_short(text)} looks like a list, and is none that Python, NumPy or JSON would write")
    return [item for item in text.split(separator) if item.strip()] if items is None else items


def written_list(text: str) -> list[Any] | None:
    """The list that a text was written of: ["a", "b"] by JSON, ['a', 'b'] by Python, ['a' 'b'] by NumPy. None: of no such."""
    text = text.strip()
    if text[:1] + text[-1:] not in _BRACKETS:
        return None
    try:
        if isinstance(items := json.loads(text), list):
            return items
    except (ValueError, RecursionError):
        pass
    return [_item(item) for item in _ITEMS.findall(text)] if _LIST.fullmatch(text) else None


def _item(written: str) -> Any:
    if written[0] in "'\"":
        return _ESCAPE.sub(_unescaped, written[1:-1])
    if written in ("True", "False"):
        return written == "True"
    try:
        return float(written) if "." in written else int(written)
    except ValueError:  # of more than 4,300 digits
        raise Unreadable("a number of thousands of digits stands there") from None


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    if code is None:
        return _ESCAPES.get(found[4], found[4])
    if int(code, 16) > 0x10FFFF:
        raise Unreadable(f"\\U{code} is no character")
    return chr(int(code, 16))


def number_of(value: Any) -> float:
    """A finite number that float32 can hold."""
    value = plain(value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise Unreadable(f"{_short(value) if isinstance(value, str) else described(value)} is not a number") from None
    if not abs(number) <= float(np.finfo(np.float32).max):
        raise Unreadable(f"the label is {_short(value)}")
    return number


def described(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, int | float):
        return _short(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return "a list of messages" if "role" in value[0] else "a list of objects"
    if isinstance(value, list | tuple) and not value:
        return "an empty list"
    names = {str: "a text", list: "a list", tuple: "a list", dict: "an object", bytes: "bytes", type(None): "nothing"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def _digits(value: int | float) -> str:
    if not abs(value) <= _LARGEST:
        raise Unreadable(f"{_short(value)} is no text")
    return str(value)


def _short(value: Any) -> str:
    """A value for a message. Python does not write integers of more than 4,300 digits."""
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "an integer of thousands of digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
