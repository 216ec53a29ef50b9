"""What is kept of models on the disk: checkpoints that name themselves, so that a folder of them is the whole table.

    DIRECTORY/RUN/run.json                         whose model it is, and of what kind
    DIRECTORY/RUN/weights/NAME/checkpoint.json     when it was saved, how long it is kept, what was noted
                              /adapter/            a directory of adapter files, as PEFT reads them
                              /moments.safetensors what the optimizer remembers
    DIRECTORY/RUN/sampler_weights/NAME/...         the same without moments, as in external_weights/
    DIRECTORY/RUN/samplers/NUMBER/...              of samplers that have no name; gone with the process

    tinker://RUN/weights/NAME                      what a checkpoint is called by clients

Each is put in its place in one rename, so a kill leaves the old one or the new. One whose time is over is removed when somebody
looks. Whoever asks sees his own alone: of another's there is nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import disk
from ...adapters.adapter import Adapter
from ...adapters.files import load_adapter, save_adapter
from ...errors import GraftaxError
from ...json_files import read_object
from ...models.backbone import Backbone
from ...typed import read
from ..loops.calls import Moments
from .asked_methods import LoraConfig

#: of checkpoints: the folder, and what clients call them; external ones are there to be fetched
KINDS = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_RUN = re.compile(r"[A-Za-z0-9_-]{1,64}:train:[0-9]{1,9}")
_SCHEME = "tinker://"
_ADAPTER, _MOMENTS, _FACTS, _RUN_FACTS = "adapter", "moments.safetensors", "checkpoint.json", "run.json"
_UNNAMED = "samplers"
_SHORTEST, _LONGEST = 3600, 10 * 366 * 24 * 3600  # seconds that a checkpoint is kept, if not for ever


@dataclass(frozen=True)
class Kept:
    """What is known of a model whose checkpoints are kept."""

    tenant: str | None
    base_model: str  # as it was asked for
    lora: LoraConfig
    user_metadata: Mapping[str, str] = field(default_factory=dict)
    created: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Where:
    """Which checkpoint."""

    run: str
    folder: str  # of `KINDS`
    name: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.run}/{self.folder}/{self.name}"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: `checkpoint.json` has the fields behind the first."""

    where: Where
    saved: float  # seconds since 1970
    expires: float | None = None
    user_metadata: Mapping[str, str] | None = None
    bytes: int = 0

    @property
    def told(self) -> dict[str, Any]:
        """As clients are told of it."""
        return {
            "checkpoint_id": f"{self.where.folder}/{self.where.name}",
            "checkpoint_type": KINDS[self.where.folder],
            "time": at(self.saved),
            "tinker_path": str(self.where),
            "size_bytes": self.bytes,
            "public": False,
            "user_metadata": self.user_metadata,
            "expires_at": None if self.expires is None else at(self.expires),
        }


def at(seconds: float) -> str:
    """A moment, as clients read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def where_of(path: str) -> Where:
    """What an address of a checkpoint means; GraftaxError where it is none."""
    run, folder, name = ([*path.removeprefix(_SCHEME).split("/"), "", ""])[:3]
    where = Where(run, folder, name)
    if str(where) != path or not _RUN.fullmatch(run) or folder not in KINDS or not _NAME.fullmatch(name):
        raise GraftaxError(f"{path!r} is no checkpoint's address, such as {_SCHEME}RUN/weights/NAME.")
    return where


def expiry(ttl: int | None, now: float) -> float | None:
    """When a checkpoint is given up that is to be kept so many seconds; None: never."""
    if ttl is None:
        return None
    if not _SHORTEST <= ttl <= _LONGEST:
        raise GraftaxError(f"ttl_seconds must be from {_SHORTEST:,} (an hour) to {_LONGEST:,} (ten years), got {ttl:,}.")
    return now + ttl


class KeptModels:
    """The checkpoints of all models below a directory, which is this process's alone. Calls may come from several threads."""

    def __init__(self, directory: Path, backbone: Backbone, clock: Callable[[], float] = time.time):
        """GraftaxError where another process has the directory, or it cannot be written."""
        self._directory, self._backbone, self._clock = directory, backbone, clock
        self._held = ExitStack()
        self._held.enter_context(disk.locked(directory))
        for run in directory.iterdir():  # what an earlier process has left: drafts, and samplers that ended with it
            for folder in KINDS:
                disk.sweep(run / folder)
            if (left := run / _UNNAMED).is_dir():
                disk.remove_directory(left)

    def close(self) -> None:
        """Leave the directory to others."""
        self._held.close()

    # -- models -----------------------------------------------------------------------------------------------------------

    def describe(self, run: str, kept: Kept) -> None:
        """Note what kind of model one is that is about to be saved."""
        disk.write_json(self._directory / run / _RUN_FACTS, asdict(kept))

    def of_run(self, tenant: str | None, run: str) -> Kept:
        """What is known of a tenant's model; GraftaxError where there is none."""
        file = self._directory / run / _RUN_FACTS
        if _RUN.fullmatch(run) and file.is_file():
            kept = read(Kept, read_object(file), str(file))
            if kept.tenant == tenant:
                return kept
        raise GraftaxError(f"there is no training run {run!r} of which a checkpoint is kept.")

    def runs(self, tenant: str | None) -> dict[str, Kept]:
        """A tenant's models."""
        found = {}
        for path in self._directory.glob(f"*/{_RUN_FACTS}"):
            kept = read(Kept, read_object(path), str(path))
            if kept.tenant == tenant:
                found[path.parent.name] = kept
        return found

    # -- checkpoints ------------------------------------------------------------------------------------------------------

    def save(
        self,
        where: Where,
        adapter: Adapter,
        moments: Moments | None,
        *,
        ttl: int | None = None,
        user_metadata: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> Checkpoint:
        """Keep an adapter, and what its optimizer remembers. GraftaxError where there is one of the name, or no room."""
        now = self._clock()
        checkpoint = Checkpoint(where, now, expiry(ttl, now), user_metadata)
        path = self._path(where)
        if path.exists() and not overwrite:
            raise GraftaxError(f"{where} exists already; choose another name, or overwrite it.")
        with disk.new_directory(path, overwrite, (_FACTS,)) as draft:
            save_adapter(adapter, draft / _ADAPTER, self._backbone)
            if moments is not None:
                _write_moments(draft / _MOMENTS, moments)
            checkpoint = replace(checkpoint, bytes=sum(file.stat().st_size for file in draft.rglob("*") if file.is_file()))
            disk.write_json(draft / _FACTS, _facts_of(checkpoint))
        return checkpoint

    def save_unnamed(self, run: str, number: int, adapter: Adapter) -> Path:
        """Keep a sampler's adapter as long as the process lives; the directory of its files."""
        path = self._directory / run / _UNNAMED / str(number)
        return save_adapter(adapter, path, self._backbone, overwrite=True)

    def forget_unnamed(self, run: str) -> None:
        """Remove the adapters of a model's samplers that have no name; and its folder, if nothing else is kept of it."""
        if (path := self._directory / run / _UNNAMED).is_dir():
            disk.remove_directory(path)
        with suppress(OSError):
            (self._directory / run).rmdir()

    def find(self, tenant: str | None, path: str) -> Checkpoint:
        """A tenant's checkpoint by its address; GraftaxError where there is none, or none any longer."""
        return self.at(tenant, where_of(path))

    def at(self, tenant: str | None, where: Where) -> Checkpoint:
        """As `find`."""
        self.of_run(tenant, where.run)
        if (found := self._read(where)) is None:
            raise GraftaxError(f"there is no checkpoint {where}, or its time is over.")
        return found

    def list(self, tenant: str | None, run: str | None = None) -> list[Checkpoint]:
        """A tenant's checkpoints, or those of one of his models; the newest first."""
        runs = self.runs(tenant) if run is None else [run] if self.of_run(tenant, run) else []
        return sorted((one for name in runs for one in self._of_run(name)), key=lambda one: -one.saved)

    def change_expiry(self, checkpoint: Checkpoint, ttl: int | None) -> None:
        """Keep a checkpoint so many seconds from now; None: for ever."""
        changed = replace(checkpoint, expires=expiry(ttl, self._clock()))
        disk.write_json(self._path(checkpoint.where) / _FACTS, _facts_of(changed))

    def delete(self, where: Where) -> None:
        disk.remove_directory(self._path(where))

    def directory(self, where: Where) -> Path:
        """Of a checkpoint's adapter files."""
        return self._path(where) / _ADAPTER

    def adapter(self, where: Where) -> Adapter:
        return load_adapter(self.directory(where), self._backbone)

    def moments(self, where: Where) -> Moments:
        """What the optimizer remembered; GraftaxError where that was not kept."""
        file = self._path(where) / _MOMENTS
        if not file.is_file():
            raise GraftaxError(f"{where} has no state of an optimizer; load its weights alone, or one of .../weights/.")
        return _read_moments(file)

    def _path(self, where: Where) -> Path:
        return self._directory / where.run / where.folder / where.name

    def _of_run(self, run: str) -> Iterator[Checkpoint]:
        for folder in KINDS:
            for path in (self._directory / run / folder).glob("*"):
                if _NAME.fullmatch(path.name) and (found := self._read(Where(run, folder, path.name))) is not None:
                    yield found

    def _read(self, where: Where) -> Checkpoint | None:
        """A checkpoint, if it is there; one whose time is over is removed."""
        file = self._path(where) / _FACTS
        if not file.is_file():
            return None
        facts = read_object(file)
        found = Checkpoint(where, facts["saved"], facts["expires"], facts["user_metadata"], facts["bytes"])
        if found.expires is not None and found.expires <= self._clock():
            self.delete(where)
            return None
        return found


def _facts_of(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: value for name, value in asdict(checkpoint).items() if name != "where"}


def _write_moments(file: Path, moments: Moments) -> None:
    from safetensors.numpy import save

    arrays = {f"first/{name}": array for name, array in moments.first.items()}
    arrays |= {f"second/{name}": array for name, array in moments.second.items()}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    file.write_bytes(save(arrays, metadata={"steps": str(moments.steps)}))


def _read_moments(file: Path) -> Moments:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as there:
            arrays = {name: there.get_tensor(name) for name in there.keys()}  # noqa: SIM118 (it has no iterator)
            steps = int(there.metadata()["steps"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise GraftaxError(f"{file} is damaged ({error}).") from None
    first, second = (
        {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}
        for part in ("first/", "second/")
    )
    return Moments(steps, first, second)
