"""Endpoints that somebody above the server brings, beside its own: they are guarded, marked and counted as all others are.

The server itself only answers. What else may be done with the frozen weights that it holds, such as training adapters for them
(`graftax/tuning`), is no matter of its own: whoever starts a server hands `make_app` what else it is to answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.routing import Route

#: What a path is asked with: an object of JSON that `parameters_of` holds to a dataclass, or such dataclasses and JSON schemas
#: by media types.
Body = type | Mapping[str, type | Mapping[str, Any]]


class Poll(Route):
    """A path that is asked by POST whether something has come, or that a client is there: no work is asked for.

    So it is counted in no quota, and how long it was held is no latency.
    """


class Unguarded(Route):
    """A path that is answered to everybody: whoever may ask there is told its address, which nobody could guess."""


class Further(Protocol):
    """Further endpoints, and what works for them while the server runs."""

    @property
    def routes(self) -> Sequence[Route]:
        """Their paths, and what answers there. A `Refused` or GraftaxError of theirs is said as `complaints.py` does."""
        ...

    @property
    def bodies(self) -> Mapping[str, Body]:
        """What paths are asked with by POST or PUT, for the server's description (`openapi.py`)."""
        ...

    def start(self) -> None:
        """The server begins: called in its loop, when the engine's rounds have begun and before any request has come."""
        ...

    def stop(self) -> None:
        """The server has answered its last request: called in its loop, as long as the engine's rounds go on."""
        ...
