"""A GGUF file, as llama.cpp has models: metadata by key, and tensors whose numbers lie in blocks of a few bits each.

    "GGUF" version, how many tensors, how many keys | key, type, value ... | name, shape, type, offset ... | the tensors

What the types of blocks mean is the `gguf` package's affair (`dequantize`). What stands before the tensors is read here: that
package's own reader makes two arrays of every token, which takes seconds, and believes whatever a damaged file says of lengths.

A tensor is unpacked when its rows are wanted, and these alone: no array of float32 of a whole tensor is ever made on the way to
a smaller type. A file may be split into parts (`NAME-00001-of-00003.gguf`); the first names all of the metadata.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GraftaxError
from ..json_files import refuse_pointer
from ..paths import expect_file

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")  # of a string
_MOST_VALUES = 1 << 24  # in an array, or of tensors: more than any vocabulary has
_MOST_AXES = 4
_PART = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_AT_ONCE = 1 << 17  # numbers that are unpacked together: they fit a core's cache, which is ten times faster than whole rows


@dataclass(frozen=True, eq=False)
class GgufTensor:
    """A tensor in a file, whose rows are unpacked when they are wanted, in another order than the file's where one is given."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: Any  # gguf.GGMLQuantizationType
    offset: int  # in the file
    order: np.ndarray | None = None  # which of the file's rows each row is; None: they are as in the file
    added: float = 0.0  # what the file's numbers have been raised by

    dtype = np.dtype(np.float32)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """These rows, float32."""
        packed = self._packed()
        wanted = packed[rows] if self.order is None else packed[self.order[rows]]
        numbers = np.empty((len(wanted), *self.shape[1:]), np.float32)
        _unpack(np.ascontiguousarray(wanted).reshape(-1), self.kind, numbers.reshape(-1))
        return numbers - np.float32(self.added) if self.added else numbers

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        numbers = self[:]
        return numbers if dtype is None else numbers.astype(dtype, copy=False)

    def _packed(self) -> np.ndarray:
        """The bytes of each row `[rows, bytes]`; of one axis, each number is a row of its own."""
        row = _bytes_of(self.kind, self.size) // len(self)
        try:
            return np.memmap(self.file, np.uint8, "r", self.offset, (len(self), row))
        except (OSError, ValueError) as error:
            raise GraftaxError(f"{self.file}: cannot be read ({error}).") from error


@dataclass(frozen=True, eq=False)
class Turned:
    """A matrix that a file holds turned: read as a whole."""

    tensor: GgufTensor

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape[::-1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.tensor, dtype).T


@dataclass(frozen=True)
class Gguf:
    """What a file says, and what it holds."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


def is_later_part(path: Path) -> bool:
    """Whether the name is that of a second or later part of a split file."""
    part = _PART.fullmatch(path.name)
    return part is not None and int(part["number"]) > 1


def read_gguf(path: Path) -> Gguf:
    """A GGUF file with all its parts, no tensor of it read yet.

    Raises GraftaxError for what is no such file, is truncated or damaged, of a version, byte order or type of numbers that is
    not read, or lacks a part.
    """
    metadata, tensors = _read_part(path)
    count, first = metadata.get("split.count", 1), metadata.get("split.no", 0)
    if count in (0, 1):
        return Gguf(path, metadata, tensors)
    part = _PART.fullmatch(path.name)
    if first != 0 or part is None or int(part["count"]) != count:
        raise GraftaxError(f"{path}: one of {count!r} parts; name the first, NAME-00001-of-NNNNN.gguf, the others beside it.")
    for number in range(1, count):
        other = path.with_name(f"{part['name']}-{number + 1:05}-of-{count:05}.gguf")
        said, more = _read_part(other)
        if (said.get("split.no"), said.get("split.count")) != (number, count) or more.keys() & tensors.keys():
            raise GraftaxError(f"{other}: not part {number} (from 0) of {path.name}.")
        tensors |= more
    if metadata.get("split.tensors.count", len(tensors)) != len(tensors):
        raise GraftaxError(f"{path}: {len(tensors)} tensors in its parts, of {metadata['split.tensors.count']!r}.")
    return Gguf(path, metadata, tensors)


def _read_part(path: Path) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    """The metadata and the tensors of one file."""
    expect_file(path)
    refuse_pointer(path)
    try:
        with path.open("rb") as file:
            begins = file.read(len(_MAGIC))
            if begins != _MAGIC:
                raise GraftaxError(f"{path}: no GGUF file, it begins with {begins!r}; one, or a directory is wanted here.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(_Cursor(data, path))
    except struct.error as error:
        raise GraftaxError(f"{path}: truncated, or damaged: its list of keys and tensors goes beyond its end.") from error
    except UnicodeDecodeError as error:
        raise GraftaxError(f"{path}: damaged: a text in it is not UTF-8 ({error.reason}).") from error
    except OSError as error:
        raise GraftaxError(f"{path}: cannot be read ({error}).") from error


class _Cursor:
    """Where one is in the bytes of a file; struct.error beyond their end."""

    def __init__(self, data: mmap.mmap, path: Path):
        self.data, self.path, self.at = data, path, 0

    def take(self, kinds: str) -> tuple[Any, ...]:
        """Numbers, of the kinds that `struct` calls so."""
        layout = struct.Struct(f"<{kinds}")
        found = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return found

    def text(self) -> str:
        return self.texts(1)[0]

    def texts(self, count: int) -> list[str]:
        """So many, one behind another: a vocabulary has hundreds of thousands."""
        data, at, last, found = self.data, self.at, len(self.data), []
        for _ in range(count):
            begin = at + _LENGTH.size
            at = begin + _LENGTH.unpack_from(data, at)[0]
            if at > last:
                raise struct.error
            found.append(data[begin:at].decode())
        self.at = at
        return found

    def value(self, kind: int) -> Any:
        """A value of the metadata."""
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])[0]
        if kind != _ARRAY:
            raise GraftaxError(f"{self.path}: damaged: a value of type {kind}, which there is not.")
        inner, count = self.take("IQ")
        if count > _MOST_VALUES or (inner not in _SCALARS and inner != _STRING):
            raise GraftaxError(f"{self.path}: damaged: a list of {count:,} values of type {inner}.")
        return self.texts(count) if inner == _STRING else list(self.take(f"{count}{_SCALARS[inner]}"))


def _parse(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    path = cursor.path
    cursor.at = len(_MAGIC)
    (version,) = cursor.take("I")
    if version not in _VERSIONS:
        kind = "big-endian" if version & 0xFFFF == 0 and version else f"of version {version}"
        raise GraftaxError(f"{path}: a GGUF file {kind}; versions 2 and 3, little-endian, are read: convert it with llama.cpp.")
    tensors, keys = cursor.take("QQ")
    metadata: dict[str, Any] = {}
    for _ in range(keys):
        key = cursor.text()
        if key in metadata:
            raise GraftaxError(f"{path}: damaged: the key {key!r} is there twice.")
        metadata[key] = cursor.value(*cursor.take("I"))
    infos = [_tensor_info(cursor) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise GraftaxError(f"{path}: general.alignment is {alignment!r}, no power of two.")
    begin = -(-cursor.at // alignment) * alignment
    found: dict[str, GgufTensor] = {}
    for name, shape, number, offset in infos:
        if name in found:
            raise GraftaxError(f"{path}: damaged: the tensor {name} is there twice.")
        kind = _kind_of(number, f"{path}: {name}")
        end = begin + offset + _checked_size(kind, shape, f"{path}: {name}")
        if end > len(cursor.data):
            raise GraftaxError(f"{path}: truncated: {name} ends at byte {end:,} of {len(cursor.data):,}.")
        found[name] = GgufTensor(path, name, shape, kind, begin + offset)
    return metadata, found


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape as NumPy has it (the file says the axis that lies together first), number of the type, offset."""
    name = cursor.text()
    (axes,) = cursor.take("I")
    if not 1 <= axes <= _MOST_AXES:
        raise GraftaxError(f"{cursor.path}: damaged: {name} has {axes} axes.")
    shape = cursor.take(f"{axes}Q")[::-1]
    kind, offset = cursor.take("IQ")
    return name, shape, kind, offset


def _kind_of(number: int, where: str) -> Any:
    """gguf's type by its number; GraftaxError, which begins with `where`, for one that it cannot unpack."""
    from gguf import GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(number)
    except ValueError as error:
        raise GraftaxError(f"{where} is of a type with number {number}, which the gguf package does not know.") from error
    if not _can_unpack(kind):
        raise GraftaxError(f"{where} is of type {kind.name}, which the gguf package does not unpack.")
    return kind


@cache
def _can_unpack(kind: Any) -> bool:
    from gguf import GGML_QUANT_SIZES, dequantize

    try:
        dequantize(np.zeros(GGML_QUANT_SIZES[kind][1], np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _checked_size(kind: Any, shape: tuple[int, ...], where: str) -> int:
    """Bytes of a tensor; GraftaxError, which begins with `where`, for a shape that cannot be."""
    from gguf import GGML_QUANT_SIZES

    block = GGML_QUANT_SIZES[kind][0]
    if not all(shape) or shape[-1] % block or (len(shape) == 1 and block > 1):
        raise GraftaxError(f"{where} has shape {shape}, in rows of blocks of {block} ({kind.name}).")
    return _bytes_of(kind, math.prod(shape))


def _bytes_of(kind: Any, numbers: int) -> int:
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[kind]
    return numbers // block * size


def _unpack(packed: np.ndarray, kind: Any, numbers: np.ndarray) -> None:
    """Write the numbers in blocks `[bytes]` into `[numbers]`."""
    from gguf import GGML_QUANT_SIZES, dequantize

    block, size = GGML_QUANT_SIZES[kind]
    blocks = max(1, _AT_ONCE // block)
    for begin in range(0, len(packed) // size, blocks):
        piece = packed[begin * size : (begin + blocks) * size]
        numbers[begin * block : (begin + blocks) * block] = dequantize(piece, kind)
