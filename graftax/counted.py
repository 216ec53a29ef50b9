"""Numbers of things in words that fit them: 1 file, 2 files."""

from __future__ import annotations


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number of things: `counted(1, "row")` is `1 row`, `counted(1000, "row")` is `1,000 rows`.

    `several`: what they are called if not with an s.
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
