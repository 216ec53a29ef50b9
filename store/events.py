"""Events: what can be done to a store, each one JSON object in its ledger.

Whatever is true of a store is what its events, read in their order, have made true. An event says what was done, never what is
now: `tagged bank/intent:prod -> version 3`. So any number of writers may add events, and every reader comes to the same result.
"""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from ..errors import GraftaxError
from ..json_files import parse_json
from ..typed import Settled, Some, Such, Within, read, settle
from .manifest import Digest, refuse_newer
from .names import LARGEST_VERSION, check_name, check_tag, parse_version

SCHEMA = 1


def _is_name(text: str) -> bool:
    return check_name(text) == text


def _is_tag(text: str) -> bool:
    return check_tag(text) == text


def _is_moment(text: str) -> bool:
    return _MOMENT.fullmatch(text) is not None


def _is_number(text: str) -> bool:
    return parse_version(text) is not None


Named = Annotated[str, Such("a name", _is_name)]
Tagged = Annotated[str, Such("a tag", _is_tag)]
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
Moment = Annotated[str, Such("a moment in UTC such as 2026-11-28T20:15:07Z", _is_moment)]  # order and alphabet agree
Number = Annotated[int, Within(1, LARGEST_VERSION)]  # of a version
Weight = Annotated[float, Within(above=0.0)]


def now() -> Moment:
    return moment(datetime.now(UTC))


def moment(time: datetime) -> Moment:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Event(Settled):
    """What every event says beside its own. `nonce` makes it unlike all others, by which a writer knows its own again."""

    what: ClassVar[str]
    at: Moment = field(default_factory=now, kw_only=True)
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex, kw_only=True)

    def __post_init__(self) -> None:
        settle(self)


@dataclass(frozen=True)
class Begun(Event):
    """The store was made: the first event of every ledger, whose nonce tells the store from others."""

    what = "begun"


@dataclass(frozen=True)
class Signature:
    """An Ed25519 signature of a version (`signing.py`)."""

    key: str  # the public key, as OpenSSH writes it
    value: str  # base64


@dataclass(frozen=True)
class Pushed(Event):
    """A version is there, and tags point to it."""

    what = "pushed"
    name: Named
    version: Number
    digest: Digest  # of the manifest
    manifest: str  # its text
    signature: Signature | None = None
    expires: Moment | None = None
    tags: tuple[Tagged, ...] = ()


@dataclass(frozen=True)
class Pointed(Event):
    """A tag points to versions, each of which has a share of what comes; to none: there is no such tag any more."""

    what = "pointed"
    name: Named
    tag: Tagged
    shares: Mapping[Annotated[str, Such("a version's number", _is_number)], Weight]


@dataclass(frozen=True)
class Yanked(Event):
    """A version is withdrawn (or, with no reason, is not any more): it is found by its digest, and with a warning by name."""

    what = "yanked"
    name: Named
    version: Number
    reason: str | None


@dataclass(frozen=True)
class Removed(Event):
    """A version is gone; its number is not given again."""

    what = "removed"
    name: Named
    version: Number


@dataclass(frozen=True)
class Measure:
    """A metric of an evaluation, with the bounds of its 95% interval where they are known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Evaluated(Event):
    """A version was measured on rows."""

    what = "evaluated"
    name: Named
    version: Number
    task: str
    data: Digest  # of the rows
    data_name: str | None
    rows: Some
    metrics: Mapping[str, Measure]


@dataclass(frozen=True)
class Collected(Event):
    """Blobs that no version refers to are given up: from here on they count as not there, be they deleted yet or not.

    A version whose time was over when this was written is gone for good, whatever the clocks of others say: its blobs may be
    among these.
    """

    what = "collected"
    blobs: tuple[Digest, ...]


_KINDS: dict[str, type[Event]] = {kind.what: kind for kind in (Begun, Pushed, Pointed, Yanked, Removed, Evaluated, Collected)}


def event_text(event: Event, previous: str) -> str:
    """An event as the ledger has it; `previous` is the sha256 of the event before it."""
    content = {"schema": SCHEMA, "what": event.what, "previous": previous, **dataclasses.asdict(event)}
    return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)


def parse_event(text: str, source: str) -> tuple[Event, str]:
    """An event, and the sha256 of the one before it; GraftaxError, which names `source`, where the text is none."""
    content: Any = parse_json(text, source)
    if not isinstance(content, dict):
        raise GraftaxError(f"{source}: an event is a JSON object.")
    refuse_newer(content.pop("schema", None), SCHEMA, source)
    previous, what = content.pop("previous", None), content.pop("what", None)
    if what not in _KINDS or not isinstance(previous, str):
        raise GraftaxError(f"{source}: not an event of a hub's ledger.")
    return read(_KINDS[what], content, source), previous
