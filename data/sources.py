"""Where rows come from: files, folders of pictures, data sets of `datasets`, data frames, plain dicts. All become one dict per
row.

What the values in them mean is said in `values.py` and `picture_values.py`, which of them a task wants in `examples.py`.
"""

from __future__ import annotations

import csv
import io
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import GraftaxError
from ..json_files import parse_json, refuse_pointer
from ..notes import note
from ..paths import expect_file, is_directory
from ..typed import Location, checked
from .archives import read_archive
from .box_values import CATEGORIES
from .coco_boxes import METADATA, annotations_in, read_annotations, with_pictures
from .picture_folders import read_picture_folder
from .picture_values import SUFFIXES
from .splits import expect_split, place_and_split
from .tar_shards import read_shards, shards_in
from .text_files import read_as_is
from .values import Unreadable, is_missing, plain

T = TypeVar("T")

_CSV_LIMIT = threading.Lock()  # the csv module has one limit for the whole process
_BEGINNING = 1 << 16  # characters of a file, among which its header is
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class Source:
    """Rows, what they are called in error messages, and what the numbers in some columns stand for."""

    name: str
    rows: list[dict[str, Any]]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column -> names of its numbers, in their order
    folder: Path = Path()  # what relative paths in the rows are relative to

    def require(self, *columns: str) -> None:
        """An error that names those of the columns that are not there."""
        if missing := [column for column in columns if column not in self.rows[0]]:
            there = ", ".join(map(str, self.rows[0]))
            raise GraftaxError(f"{self.name}: no column {', '.join(map(repr, missing))}; it has {there}.")

    def column(self, column: str, meaning: Callable[[Any], T], blank: bool = False) -> tuple[T, ...]:
        """What the values of a column mean, none of them missing; `blank`: a text of white space is a value, too.

        Raises GraftaxError, which names the row, where `meaning` raises `Unreadable`.
        """
        self.require(column)
        return tuple(self.value(i, column, meaning, blank) for i in range(len(self.rows)))

    def located(self, column: str, meaning: Callable[..., T]) -> tuple[T, ...]:
        """The same of a meaning that is told where a value stands: the row, for errors, and the folder of relative paths."""
        self.require(column)
        return tuple(
            self.value(i, column, partial(meaning, where=self.row_name(i), folder=self.folder)) for i in range(len(self.rows))
        )

    def row_name(self, row: int) -> str:
        """What errors call a row."""
        return f"{self.name}: row {row + 1}"

    def value(self, row: int, column: str, meaning: Callable[[Any], T], blank: bool = False) -> T:
        """What one value means. An array stays one, for a picture may have a million pixels."""
        value = self.rows[row].get(column)
        if not (isinstance(value, np.ndarray) and value.ndim):
            value = plain(value)
        if is_missing(value) or (isinstance(value, str) and not value.strip() and not blank):
            raise GraftaxError(f"{self.row_name(row)} has nothing in column {column!r}.")
        try:
            return meaning(value)
        except Unreadable as error:
            raise GraftaxError(f"{self.row_name(row)}: {error} (column {column!r}).") from None


def source_of(data: Any, called: str = "") -> Source:
    """Rows of a file or folder, a `datasets` data set, a pandas DataFrame or an iterable of dicts; a source as it is.

    `called` names what has no path.

    Raises GraftaxError: none of these, no rows, a file that cannot be read, two columns of one name.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, str | Path):
        return read_file(checked(data, Location, called or "data"))
    name = f"{called} ({type(data).__name__})" if called else type(data).__name__
    if "pandas" in sys.modules and isinstance(data, sys.modules["pandas"].DataFrame):
        _refuse_twice(data.columns, name)
        rows: list[Any] = data.astype(object).where(data.notna(), None).to_dict("records")
    elif isinstance(data, Mapping):
        raise GraftaxError(
            f"{name}: its keys are {', '.join(map(str, data))}; rows are a list of dicts, or one split of a data set."
        )
    elif isinstance(data, Iterable):
        rows = list(_undecoded(data))
    else:
        raise GraftaxError(f"{name}: no rows; give a file, a data set, a data frame or a list of dicts.")
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise GraftaxError(f"{name}: row {i + 1} is of type {type(row).__name__}; it must be a dict.")
    features = getattr(getattr(data, "features", None), "to_dict", dict)  # of a data set
    return _some(Source(name, [dict(row) for row in rows], _classes(features())))


def read_file(path: str | Path) -> Source:
    """Rows of a .csv, .tsv, .jsonl, .parquet, .npz or .tar file, a folder of pictures or .tar files, a split of an archive or
    folder (`FILE.npz:train`), a .json of COCO's annotations, or one picture."""
    path = Path(path)
    place, split = place_and_split(path)
    if place.suffix.lower() == ".npz" and not is_directory(place):
        return _some(Source(str(path), *read_archive(place, split)))
    if split:
        expect_split(place, split)
        path = place / split
    if is_directory(path):
        return _some(_read_folder(path))
    expect_file(path)
    if path.suffix.lower() == ".json":
        return _some(Source(str(path), *read_annotations(path)))
    if path.suffix.lower() == ".tar":
        return _some(Source(str(path), read_shards([path])))
    if path.suffix.lower() in SUFFIXES:
        return Source(str(path), [{"image": path}])
    if path.suffix.lower() not in _READERS:
        raise GraftaxError(f"{path}: unknown kind of file; use .csv, .tsv, .jsonl, .parquet, .npz or .tar, or a picture.")
    try:
        return replace(_some(_READERS[path.suffix.lower()](path)), folder=path.parent)
    except (csv.Error, OSError, ValueError, NotImplementedError) as error:  # the last two are pyarrow's
        raise GraftaxError(f"{path}: cannot be read ({error}).") from error


def _read_folder(path: Path) -> Source:
    if shards := shards_in(path):
        return Source(str(path), read_shards(shards))
    if (file := annotations_in(path)) is not None:
        return Source(str(path), *read_annotations(file))
    if (file := path / METADATA).is_file():
        return Source(str(path), with_pictures(parse_json_lines(read_as_is(file), str(file)), path))
    return Source(str(path), read_picture_folder(path))


def expect_rows(path: Path) -> None:
    """An error unless there is a file or folder; what is in it is not looked at."""
    place, _ = place_and_split(path)
    if not is_directory(place):
        expect_file(place)


def name_of(path: Path) -> str:
    """What an adapter is called that learns from there: after a file, without its ending (and its split), or after a folder."""
    place, _ = place_and_split(path)
    return place.resolve().name if is_directory(place) else place.stem


def parse_json_lines(text: str, source: str) -> list[dict[str, Any]]:
    """One JSON object per line; blank lines are passed over."""
    if text.lstrip().startswith("["):
        raise GraftaxError(f"{source}: a JSON array; write one JSON object per line (JSON lines).")
    rows = []
    for i, line in enumerate(io.StringIO(text, newline=None)):
        if not line.strip():
            continue
        row = parse_json(line, f"{source}: line {i + 1}", not_numbers=True)
        if not isinstance(row, dict):
            raise GraftaxError(f"{source}: line {i + 1} is not a JSON object.")
        rows.append(row)
    return rows


def _read_csv(path: Path) -> Source:
    text = read_as_is(path)
    separator = _separator(text[:_BEGINNING])
    if separator != ",":
        note(f"{path}: its fields are read as separated by {_SEPARATORS[separator]}.")
    return _separated(text, separator, str(path))


def _read_tsv(path: Path) -> Source:
    return _separated(read_as_is(path), "\t", str(path))


def _separator(beginning: str) -> str:
    """What stands between the fields of a CSV file that begins so: a comma, unless one other sign alone parts its header."""
    parting = [separator for separator in _SEPARATORS if len(_header(beginning, separator)) > 1]
    return parting[0] if len(parting) == 1 else ","


def _header(beginning: str, separator: str) -> list[str]:
    return next(csv.reader(io.StringIO(beginning, newline=""), delimiter=separator), [])


def _separated(text: str, separator: str, name: str) -> Source:
    """Rows of a text, the first of which is the header."""
    with _fields_of_any_length(len(text)):
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        _refuse_twice([column for column in reader.fieldnames or () if column], name)  # spreadsheets leave blank ones
        rows: list[dict[str, Any]] = list(reader)
    for i, row in enumerate(rows):
        if None in row:
            signs = _SEPARATORS[separator]
            raise GraftaxError(f"{name}: row {i + 1} has more fields than the header; quote texts that hold {signs}.")
    return Source(name, rows)


@contextmanager
def _fields_of_any_length(size: int) -> Iterator[None]:
    """The csv module refuses fields of more than 131,072 characters, unless it is told otherwise."""
    with _CSV_LIMIT:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, size))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _read_json_lines(path: Path) -> Source:
    return Source(str(path), parse_json_lines(read_as_is(path), str(path)))


def _read_parquet(path: Path) -> Source:
    import pyarrow.parquet

    refuse_pointer(path)
    with pyarrow.parquet.ParquetFile(path) as file:
        _refuse_twice(file.schema_arrow.names, str(path))
        table = file.read()
    said = (table.schema.metadata or {}).get(b"huggingface", b"{}").decode()  # by `Dataset.to_parquet`
    info = parse_json(said, f"{path}: what it says of its features")
    return Source(str(path), table.to_pylist(), _classes(_within(_within(info, "info"), "features")))


_READERS: dict[str, Callable[[Path], Source]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}


def _within(content: Any, name: str) -> Any:
    return content.get(name) if isinstance(content, dict) else None


def _undecoded(data: Any) -> Any:
    """Rows as they are, but a data set of `datasets` with its pictures as the files that they were: decoded, all of them would
    lie in memory."""
    for column, feature in (getattr(data, "features", None) or {}).items():
        if getattr(feature, "_type", "") == "Image" and feature.decode and feature.mode is None:
            data = data.cast_column(column, replace(feature, decode=False))
    return data


def _classes(features: Any) -> dict[str, tuple[str, ...]]:
    """The names of each column of class numbers, or of lists of these, by the features of a data set as it writes them."""
    found = {}
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        feature = _inner(feature)
        if isinstance(feature, Mapping) and "bbox" in feature:  # of objects: the names of what is in a box
            feature = next((_inner(one) for key, one in feature.items() if key in CATEGORIES), feature)
        if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel" and feature.get("names"):
            found[column] = tuple(map(str, feature["names"]))
    return found


def _inner(feature: Any) -> Any:
    """What a list, or a list of lists, is of."""
    while isinstance(feature, list) or (isinstance(feature, Mapping) and "feature" in feature):
        feature = feature["feature"] if isinstance(feature, Mapping) else dict(enumerate(feature)).get(0)
    return feature


def _some(source: Source) -> Source:
    if not source.rows:
        raise GraftaxError(f"{source.name}: no rows in it.")
    return source


def _refuse_twice(columns: Iterable[Any], name: str) -> None:
    if twice := [column for column, count in Counter(columns).items() if count > 1]:
        raise GraftaxError(f"{name}: two columns are called {twice[0]!r}; which one is meant?")
