"""`run.json`: what an unfinished run was begun with, and whether a call goes on with it or must not.

The digest covers whatever changes the result: rows, tokens, labels, recipes, methods, task, backbone. The versions that compute
it stand beside it, because what is to be done about another version is another thing to say.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax

from .. import __version__, disk, typed
from ..errors import GraftaxError
from ..json_files import read_object
from ..models.backbone import Backbone
from ..tasks.task import Task
from .job import Job


def versions() -> dict[str, str]:
    """Of what computes the bits of a run."""
    return {"graftax": __version__, "JAX": jax.__version__}


def machine(devices: int = 1) -> dict[str, Any]:
    """What the last bits of a run depend on, beside its settings and versions; `devices`: that the slots are spread over."""
    facts: dict[str, Any] = {"cores": os.cpu_count(), "device": jax.devices()[0].device_kind}
    return facts if devices == 1 else {**facts, "devices": devices}


@dataclass(frozen=True)
class Begun:
    """The content of `run.json`."""

    digest: str
    pack_sizes: Sequence[typed.Some]  # of each cohort
    jobs: Sequence[str]
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    by_fleet: bool = False  # whether its jobs are trained by a fleet, which keeps other states of them on the disk

    def write(self, file: Path) -> None:
        disk.write_json(file, asdict(self))

    @classmethod
    def read(cls, file: Path) -> Begun:
        """The content of a file; GraftaxError where it cannot be read, or is another version's."""
        facts = read_object(file)
        facts.setdefault("versions", {})  # older files have none
        try:
            return typed.read(cls, facts, str(file))
        except GraftaxError as error:
            raise GraftaxError(
                f"{file}: damaged, or of another version of graftax; go on with that version, or pass --overwrite."
            ) from error

    def check(self, digest: str, cohorts: int, pack_size: int | None, out: Path, by_fleet: bool = False) -> None:
        """Refuse to go on where another call, or another version, would end with other adapters."""
        for name, here in versions().items():
            if (there := self.versions.get(name)) != here:
                raise GraftaxError(
                    f"{out} holds an unfinished run that {name} {there or 'of another version'} began, and this is {here}; "
                    "go on with that version, choose another directory, or pass --overwrite."
                )
        if self.by_fleet != by_fleet:
            how = "over a cluster; go on with --ray" if self.by_fleet else "that is not over a cluster; go on without --ray"
            raise GraftaxError(f"{out} holds an unfinished run {how}, choose another directory, or pass --overwrite.")
        if self.digest != digest or len(self.pack_sizes) != cohorts or pack_size not in (None, *self.pack_sizes):
            raise GraftaxError(
                f"{out} holds an unfinished run with other settings or data; repeat its command to resume it, choose another "
                "directory, or pass --overwrite."
            )


def digest_of(backbone: Backbone, task: Task, jobs: Sequence[Job]) -> str:
    """Changes with whatever changes the result of a run. (A fingerprint leaves out what the weights are held as.)"""
    held = f"{backbone.dtype.name} {backbone.quantize}"
    facts = [backbone.fingerprint, held, task.name, *(job.digest() for job in jobs)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
