"""JSON that every reader takes, and objects in files that others wrote: `config.json`, `adapter_config.json`, `graftax.json`.

`json.loads` alone lets pass, or ends in exceptions of many kinds for, what none of these files may hold. Everything that is not
one sound object is one line here that names the file: no UTF-8, no JSON, nesting without end, integers of thousands of
digits, `NaN`, `Infinity` and numbers that become infinite (1e999), a key that is there twice, half a surrogate pair, and the
pointer that git leaves where Git LFS did not fetch the file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from .errors import GraftaxError
from .paths import expect_file

MOST_BYTES = 1 << 28  # the largest tokenizers have some 40 MB
_POINTER = b"version https://git-lfs.github.com/spec/"  # how every pointer begins, by Git LFS's specification


def read_object(path: Path, missing: str | None = None, *, not_numbers: bool = False, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file of `most` bytes at most.

    With `not_numbers` NaN and Infinity, which older versions wrote, are read as null.

    Raises:
        GraftaxError: `missing` (or a line that names it), where there is no such file; else what is wrong with it.
    """
    content = read_value(path, missing, not_numbers=not_numbers, most=most)
    if not isinstance(content, dict):
        raise GraftaxError(f"{path}: expected a JSON object.")
    return content


def read_value(path: Path, missing: str | None = None, *, not_numbers: bool = False, most: int = MOST_BYTES) -> Any:
    """The JSON in a file, be it an object or not; arguments and errors as of `read_object`."""
    expect_file(path, missing)
    data = read_bytes(path, most)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise GraftaxError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    return parse_json(text, str(path), not_numbers=not_numbers)


def parse_json(text: str, source: str, *, not_numbers: bool = False) -> Any:
    """The value that a text of JSON stands for; GraftaxError, which names `source`, where it is not sound.

    With `not_numbers` NaN and Infinity are read as null: nothing is there.
    """
    constant = _as_null if not_numbers else _refuse_constant
    try:
        content = json.loads(text, parse_constant=constant, parse_float=_finite, object_pairs_hook=_unique)
        text.encode()
        if "\\u" in text:  # by which half a pair can be written in a text that has none
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise GraftaxError(f"{source}: a string in it has half of a surrogate pair.") from error
    except RecursionError as error:
        raise GraftaxError(f"{source}: not valid JSON (nested too deep).") from error
    except ValueError as error:
        raise GraftaxError(f"{source}: not valid JSON ({error}).") from error
    return content


def json_line(content: Any, *, ensure_ascii: bool = True) -> str:
    """A line of JSON that every reader takes.

    JSON has no word for what is no finite number (the correlation with a constant, say): that is null. Characters that cannot
    be seen, some of which a terminal obeys, are escaped: a label may have any.
    """
    line = json.dumps(_without_nan(content), ensure_ascii=ensure_ascii, allow_nan=False)
    return line if line.isprintable() else "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line)


def _without_nan(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return content


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """What is in a file; GraftaxError where it cannot be read, has more than `most` bytes or is a Git LFS pointer."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read() if most is None or size <= most else b""
    except OSError as error:
        raise GraftaxError(f"{path}: cannot be read ({error.strerror}).") from error
    if most is not None and size > most:
        raise GraftaxError(f"{path}: {size:,} bytes are too many for a file of its kind.")
    _refuse_beginning(path, data)
    return data


def refuse_pointer(path: Path) -> None:
    """An error where a file is a Git LFS pointer, some 130 bytes in place of the content, or cannot be opened."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(_POINTER))
    except OSError as error:
        raise GraftaxError(f"{path}: cannot be read ({error.strerror}).") from error
    _refuse_beginning(path, begins)


def _refuse_beginning(path: Path, data: bytes) -> None:
    if data.startswith(_POINTER):
        raise GraftaxError(f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`.")


def _as_null(name: str) -> None:
    return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large a number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} is there twice")
        content[key] = value
    return content
