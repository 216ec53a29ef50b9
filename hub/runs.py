"""The adapters of a run, put on a hub under names that begin alike: all of a finished one, or each as it finishes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.directory import MARKS
from ..counted import counted
from ..errors import GraftaxError
from ..notes import note
from ..store.names import check_name, check_tag
from ..store.signing import Signer
from ..store.version import Version

if TYPE_CHECKING:
    from .hub import Hub


@dataclass(frozen=True)
class Under:
    """Names on a hub that begin with a prefix: a shelf (`train/shelf.py`), which `train_many(push=...)` takes."""

    hub: Hub
    prefix: str  # of bank/NAME, bank; may be empty
    tags: Sequence[str] = ()  # that are to point to each version
    sign: str | Path | None = None  # as of `Hub.push`

    def __post_init__(self) -> None:
        """What is wrong for every adapter is an error once, and before anything is trained."""
        if self.prefix:
            check_name(self.prefix)
        for tag in self.tags:
            check_tag(tag)
        if self.sign is not None:
            Signer(Path(self.sign))

    def name(self, adapter: str) -> str:
        """What an adapter of a run is called there."""
        return f"{self.prefix}/{adapter}" if self.prefix else adapter

    def expect(self, names: Sequence[str]) -> None:
        """GraftaxError where adapters cannot have these names there, or the hub cannot be reached."""
        for name in names:
            check_name(self.name(name))
        self.hub.store.exists()

    def put(self, name: str, directory: Path) -> str:
        """Push one adapter; returns its version."""
        return str(self._push(name, directory))

    def later(self, out: Path) -> str:
        """The command that does it for a run's directory."""
        return shlex.join(["graftax", "hub", "push", self.prefix, str(out), "--hub", self.hub.store.url])

    def push_each(self, directory: Path) -> Iterator[Version]:
        """Push every adapter of a run's directory. One that cannot be pushed is a note and holds up no other.

        Raises GraftaxError: at once, where there is none or the hub cannot be reached; at the end, with the names of those that
        were not pushed.
        """
        folders, failed = adapters_in(directory), []
        if not folders:
            raise GraftaxError(f"{directory}: there is no adapter in it.")
        self.expect([])
        for folder in folders:
            try:
                yield self._push(folder.name, folder)
            except GraftaxError as error:
                note(str(error))
                failed.append(folder.name)
        if failed:
            raise GraftaxError(
                f"{directory}: {len(failed)} of {counted(len(folders), 'adapter')} not pushed: {', '.join(failed)}."
            )

    def _push(self, name: str, directory: Path) -> Version:
        return self.hub.push(self.name(name), directory, tags=self.tags, sign=self.sign)


def is_run(directory: Path) -> bool:
    """Whether a directory is no adapter's itself, and holds some."""
    return directory.is_dir() and not any((directory / mark).exists() for mark in MARKS) and bool(adapters_in(directory))


def adapters_in(directory: Path) -> Sequence[Path]:
    """The directories of adapters in a directory, such as a run's."""
    if not directory.is_dir():
        raise GraftaxError(f"{directory}: no such directory.")
    return sorted(path for path in directory.iterdir() if path.is_dir() and any((path / mark).is_file() for mark in MARKS))
