"""A checkpoint as Hugging Face lays it out: a directory or a Hub id, its `config.json`, its safetensors, single or sharded.

A tensor is read when it is wanted, whole or in part, and its file closed behind it: what has been read of a mapped file would
count as memory until then. A file that has changed since its tensors were listed is refused. So are weights only as a pickle
(`pytorch_model.bin`): a pickle can run code, and converting is one line with transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import GraftaxError
from ..fetch import snapshot
from ..json_files import read_object, refuse_pointer
from ..notes import note
from ..paths import expect_directory, expect_file
from ..typed import shown
from .gguf_file import is_later_part

_CONVERT = (
    "{0} holds its weights only as pytorch_model.bin, a pickle, which graftax never reads. Convert it once, with torch and "
    "transformers installed: python -c \"from transformers import AutoModel; AutoModel.from_pretrained('{0}')"
    ".save_pretrained('converted')\""
)
_CONVERT_OPEN_CLIP = (
    "{0} holds its weights only as open_clip_pytorch_model.bin, a pickle, which graftax never reads. Convert it once, with "
    'torch and safetensors installed, in that directory: python -c "import torch; from safetensors.torch import save_file; '
    "save_file({{k: t.contiguous() for k, t in torch.load('open_clip_pytorch_model.bin', weights_only=True).items()}}, "
    "'open_clip_model.safetensors')\""
)
OPEN_CLIP_CONFIG = "open_clip_config.json"  # in place of a `config.json` (`open_clip_config.py`)
#: Files that say how inputs are read: texts (a tokenizer's, and what else is said of them) or pictures. As patterns of `glob`,
#: which huggingface_hub reads alike.
INPUT_FILES = (
    "tokenizer*",
    "vocab*",
    "*.model",
    "*.tiktoken",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "chat_templates/*",
    "additional_chat_templates/*",
    "generation_config.json",
    "preprocessor_config.json",
)
#: What sentence-transformers says of its models.
_VECTOR_FILES = ("modules.json", "*_Pooling/config.json", "sentence_bert_config.json")
_FILES = ("config.json", OPEN_CLIP_CONFIG, "*.safetensors", "*.safetensors.index.json", *_VECTOR_FILES, *INPUT_FILES)

#: safetensors' names of types, but for those that no backbone is stored in.
_DTYPES: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_DTYPES |= {"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}


def config_file(directory: Path) -> Path:
    """The file that says what a checkpoint is: `config.json`, where it is there."""
    usual, of_open_clip = directory / "config.json", directory / OPEN_CLIP_CONFIG
    return of_open_clip if of_open_clip.is_file() and not usual.is_file() else usual


def find_backbone(path_or_hub_id: str | Path, revision: str = "main") -> Path:
    """The local directory of a backbone, fetched from the Hub (or found in its cache) for an id of it; or its GGUF file."""
    if not isinstance(path_or_hub_id, str | Path) or not str(path_or_hub_id).strip():
        raise GraftaxError(f"a backbone is named by its directory or Hub id, got {shown(path_or_hub_id)}.")
    try:
        path = Path(path_or_hub_id).expanduser()
    except RuntimeError as error:  # ~somebody, whom this machine does not know
        raise GraftaxError(f"{path_or_hub_id}: {error}") from error
    text = str(path_or_hub_id)
    if path.exists() or text.count("/") > 1 or text.startswith((".", "/", "~")):
        return path if path.is_file() else _of_directory(path, text)
    return snapshot(text, revision, _FILES)


def _of_directory(directory: Path, name: str) -> Path:
    """The directory, or the one GGUF file that it has where it has no safetensors."""
    expect_directory(directory, f"{name}: no such directory, and no GGUF file.")
    files = [] if any(directory.glob("*.safetensors")) else [f for f in directory.glob("*.gguf") if not is_later_part(f)]
    if len(files) > 1:
        raise GraftaxError(f"{name} has several GGUF files, name one: {', '.join(sorted(file.name for file in files))}.")
    if files and (directory / "config.json").is_file():
        note(f"{files[0]}: read as it says itself; the config.json beside it is not read.")
    return files[0] if files else directory


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file, which is read when an array is made of it, or of a part of it."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    known_by: tuple[int, int]  # the file as it was listed (`_known_by`)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | tuple[slice, ...]) -> np.ndarray:
        """What lies in these slices of its first axes; nothing else is read."""
        slices = index if isinstance(index, tuple) else (index,)
        within = tuple(slice(*one.indices(size)[:2]) for one, size in zip(slices, self.shape, strict=False))
        return self._read(lambda file: file.get_slice(self.key)[within])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        tensor = self._read(lambda file: file.get_tensor(self.key))
        return tensor if dtype is None else tensor.astype(dtype, copy=False)

    def _read(self, read: Callable[[Any], np.ndarray]) -> np.ndarray:
        self._expect_unchanged()
        with _opened(self.file) as file:
            found = read(file)
        self._expect_unchanged()  # meanwhile
        return found

    def _expect_unchanged(self) -> None:
        expect_file(self.file)
        if _known_by(self.file) != self.known_by:
            raise GraftaxError(f"{self.file} was changed while the backbone was read from it; start again.")


def stored_tensors(directory: Path) -> dict[str, Stored]:
    """Every tensor of a single or sharded safetensors checkpoint; any fault in its files is one clear error."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
            raise GraftaxError(f"{index}: its weight_map names no files.")
        files = [directory / name for name in sorted(set(shards.values()))]
        if any(file.parent != directory for file in files):
            raise GraftaxError(f"{index}: names a file outside its directory.")
    else:
        names = ("model.safetensors", "open_clip_model.safetensors")
        files = [next((directory / name for name in names if (directory / name).is_file()), directory / names[0])]
    if not files[0].is_file():
        for name, convert in (("open_clip_pytorch_model.bin", _CONVERT_OPEN_CLIP), ("pytorch_model*.bin", _CONVERT)):
            if next(directory.glob(name), None):
                raise GraftaxError(convert.format(directory))
    tensors: dict[str, Stored] = {}
    for path in files:
        with _opened(path) as file:
            known_by = _known_by(path)
            for key in file.offset_keys():
                there = file.get_slice(key)
                dtype = np.dtype(_DTYPES.get(there.get_dtype(), object))
                tensors[key] = Stored(path, key, tuple(there.get_shape()), dtype, known_by)
    return tensors


def _known_by(path: Path) -> tuple[int, int]:
    """By what it is seen that a file is no more what it was."""
    there = path.stat()
    return there.st_size, there.st_mtime_ns


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    expect_file(path)
    refuse_pointer(path)
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise GraftaxError(f"{path}: corrupt or truncated safetensors file ({error}).") from error
