"""Names of classes that rows give by number, as masks do, from a file beside the rows.

Two forms are known: `id2label.json`, as Hugging Face's data sets have it, `{"0": "background", "1": "hole"}`; and
`classes.txt`, a name in each line, the first that of class 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import GraftaxError
from ..json_files import read_object
from ..notes import note
from ..paths import is_directory
from .text_files import read_text

ID2LABEL, CLASSES = "id2label.json", "classes.txt"
NAMES = (ID2LABEL, CLASSES)  # of such files


def file_beside(rows: str) -> Path | None:
    """The file of names beside rows that lie there, a file or folder; for a folder also beside it, where its splits lie."""
    place = Path(rows)
    folders = (place, place.parent) if is_directory(place) else (place.parent,) if place.is_file() else ()
    found = [folder / name for folder in folders for name in NAMES if (folder / name).is_file()]
    if len(found) > 1 and found[0].parent == found[1].parent:
        raise GraftaxError(f"{found[0].parent}: both {' and '.join(NAMES)} name the classes; remove one of them.")
    return found[0] if found else None


def names_beside(rows: str) -> tuple[str, ...]:
    """The names that such a file has, and a note that says so; none where there is no such file."""
    if (file := file_beside(rows)) is None:
        return ()
    note(f"{rows}: its classes are named by {file}.")
    return read_names(file)


def read_names(file: Path) -> tuple[str, ...]:
    """The names of all classes, in the order of their numbers."""
    if file.name == ID2LABEL:
        said = read_object(file)
        if {*said} != {str(number) for number in range(len(said))}:
            raise GraftaxError(f"{file}: it must name classes from 0 on, each by its number; it names {_some(said)}.")
        names = [str(said[str(number)]).strip() for number in range(len(said))]
    else:
        names = [line.strip() for line in read_text(file).strip().splitlines()]
    if not names or not all(names):
        raise GraftaxError(f"{file}: class {names.index('') if names else 0} has no name.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise GraftaxError(f"{file}: two classes are called {twice[0]!r}.")
    return tuple(names)


def _some(names: Iterable[str]) -> str:
    several = [*names]
    return ", ".join(several[:10]) + (", ..." if len(several) > 10 else "")
