"""The text in a file, or on standard input, that a person gives.

It is UTF-8, or what a mark in its first bytes says (UTF-16, as Windows and Excel write it). Other encodings cannot be told from
one another, so that a text in Latin-1 is refused in a line that says how it becomes UTF-8.
"""

from __future__ import annotations

import codecs
import io
from pathlib import Path

from ..errors import GraftaxError
from ..json_files import read_bytes
from ..paths import expect_file

#: How files begin, and what they are then; in this order, for one mark begins with another.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BEGINNING = 200  # bytes by which UTF-16 without a mark is known: about half of them are zero


def read_text(path: Path) -> str:
    """A file's text, with a line feed at the end of each line; GraftaxError where there is no such file, or nothing in it."""
    expect_file(path)
    text = io.StringIO(read_as_is(path), newline=None).read()
    if not text.strip():
        raise GraftaxError(f"{path}: no text in it.")
    return text


def read_as_is(path: Path) -> str:
    """A file's text, whose lines end as they do there."""
    return decoded(read_bytes(path), str(path))


def decoded(data: bytes, source: str) -> str:
    """The text that bytes are; `source` names them in errors."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    beginning = data[:_BEGINNING]
    if encoding == "utf-8" and beginning.count(0) > len(beginning) // 4:
        raise GraftaxError(f"{source}: every other byte is zero, as in UTF-16 or UTF-32 without a mark; save it as UTF-8.")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        what = f"not {encoding.removesuffix('-sig').upper()} text ({error.reason} at byte {error.start})"
        raise GraftaxError(f"{source}: {what}; save it as UTF-8 (from Latin-1: iconv -f latin1 -t utf-8).") from error
