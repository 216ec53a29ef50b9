"""A manifest: what one version in a store consists of, and what is known of it.

A manifest is JSON of one form, so that equal manifests are equal bytes; sha256 of these is the version's digest. The digest
thus vouches for every file, for each is named with a digest of its own, and a signature over it vouches for all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any
from unicodedata import normalize

from ..errors import GraftaxError
from ..json_files import parse_json
from ..typed import Settled, Such, Within, read, settle, shown
from .damage import NewerSchema

SCHEMA = 2  # the newest; 2 has `imported_from`, and what does not need it is written as 1
_LONGEST_PATH = 200  # bytes of a file's path: there is room for it in whatever directory it is pulled into


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _is_file(path: str) -> bool:
    """Whether a text can be the path of a file within a directory, on any machine."""
    parts = path.split("/")
    odd = any(not part or part.endswith((" ", ".")) for part in parts)  # as ".." does, which leads out of it
    return not odd and path.isprintable() and not set(path) & set('\\:*?"<>|') and len(path.encode()) <= _LONGEST_PATH


Digest = Annotated[str, Such("64 hexadecimal digits", _is_digest)]
FilePath = Annotated[str, Such("a path within the directory that every machine can have", _is_file)]
Bytes = Annotated[int, Within(0, below=1 << 50)]


@dataclass(frozen=True)
class File:
    """A file of a version."""

    sha256: Digest
    size: Bytes


@dataclass(frozen=True)
class DataFacts:
    """What is known of the rows that an adapter was trained or measured on."""

    sha256: str | None = None  # of what they hold, in any order (`Examples.digest`)
    rows: int | None = None  # how many
    name: str | None = None  # for people


@dataclass(frozen=True)
class Manifest(Settled):
    """What a version is. Everything but the files may be unknown; a text is for people where nothing else is said."""

    files: Mapping[FilePath, File]
    schema: int = 1
    backbone: str | None = None  # its name
    model_type: str | None = None
    fingerprint: str | None = None  # of its weights: whether the adapter fits is decided by this
    methods: tuple[str, ...] = ()
    task: str | None = None
    labels: tuple[str, ...] = ()
    parameters: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: DataFacts = DataFacts()
    metrics: Mapping[str, float | None] = field(default_factory=dict)  # as training ended, of its validation rows
    parents: tuple[str, ...] = ()  # sha256 of the weights' files of the adapters that it was made from
    description: str = ""  # a line or two
    keywords: tuple[str, ...] = ()
    license: str | None = None
    graftax: str | None = None  # the version that wrote the adapter
    imported_from: str | None = None  # where else it was found, such as hf://user/adapter@COMMIT

    def __post_init__(self) -> None:
        settle(self)
        if len({normalize("NFC", path).casefold() for path in self.files}) < len(self.files):
            raise GraftaxError(f"files: {shown(sorted(self.files))}: two of these are one file on some machines.")

    def found(self, place: str) -> Manifest:
        """The manifest of what was found somewhere else."""
        return replace(self, imported_from=place, schema=2)

    def text(self) -> str:
        """The one form of it; GraftaxError where the recipe holds something that JSON has no form for."""
        try:
            content = asdict(self)
            if self.imported_from is None:  # no manifest of schema 1 has the key, and none may become another text
                del content["imported_from"]
            text = as_text(content)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise GraftaxError(f"a manifest cannot be written as JSON: {error}") from error
        return text

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def as_text(content: Mapping[str, Any]) -> str:
    """What a manifest says, in its one form."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def parse_manifest(text: str, source: str) -> Manifest:
    """The manifest that a text is; GraftaxError, which names `source`, where it is none or of a newer schema."""
    content = parse_json(text, source)
    if not isinstance(content, dict):
        raise GraftaxError(f"{source}: a manifest is a JSON object.")
    refuse_newer(content.get("schema"), SCHEMA, source)
    return read(Manifest, content, source)


def refuse_newer(schema: Any, known: int, source: str) -> None:
    """NewerSchema where something was written by a later graftax; GraftaxError where it has no schema at all."""
    if not isinstance(schema, int) or schema < 1:
        raise GraftaxError(f"{source}: no schema is said, a whole number.")
    if schema > known:
        raise NewerSchema(f"{source}: schema {schema} is newer than this graftax, which knows {known}; update graftax.")
