"""The one exception a user sees: a line that says what is wrong and what to do about it.

What is wrong often stands in a file that a stranger wrote: a tensor's name, a key, a label. So the text of an error is made fit
for a terminal where the error is made: line breaks become spaces, control characters are written out (an escape code in a name
would otherwise colour the terminal, or worse), and a text of a megabyte is cut in the middle.
"""

from __future__ import annotations

from .exit_codes import REFUSED

_MOST, _TAIL = 2000, 400  # characters of a message, and of its end where it is cut


class GraftaxError(Exception):
    """Bad input, or a state of the disk that a person must settle. The command line prints it and exits with its code."""

    exit_code = REFUSED

    def __init__(self, message: str):
        super().__init__(in_a_line(message))


def in_a_line(text: str) -> str:
    """A text as one printable line of at most 2,000 characters: `in_a_line("a\\n\\x1b[31mb")` is `a \\x1b[31mb`."""
    if len(text) > _MOST:
        text = f"{text[: _MOST - _TAIL]} [...] {text[-_TAIL:]}"
    return printable(" ".join(line.strip() for line in text.strip().splitlines()))


def printable(text: str) -> str:
    """A text in which each character that cannot be seen is written out, line breaks too."""
    return text if text.isprintable() else "".join(map(_written_out, text))


def _written_out(character: str) -> str:
    """A character that cannot be seen (controls, marks of direction, half of a surrogate pair) as Python writes it."""
    return character if character.isprintable() else ascii(character)[1:-1]
