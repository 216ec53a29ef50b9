"""A version in a store, and how it did, as the index tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Version:
    """A version as the index knows it."""

    name: str
    version: int
    digest: str  # sha256 of its manifest
    event: int  # the ledger's number of its push
    backbone: str | None
    model_type: str | None
    fingerprint: str | None
    methods: tuple[str, ...]
    task: str | None
    labels: tuple[str, ...]
    parameters: int
    size: int  # bytes
    description: str
    parents: tuple[str, ...]
    pushed: str
    expires: str | None
    signer: str | None
    yanked: str | None  # why it was withdrawn
    tags: Mapping[str, float] = field(default_factory=dict)  # that point here, with the share that each gives
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True)
class Score:
    """How a version did by one metric on one set of rows."""

    version: Version
    task: str
    data: str  # sha256 of the rows
    data_name: str | None
    rows: int  # how many
    metric: str
    value: float
    low: float | None
    high: float | None
