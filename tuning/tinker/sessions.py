"""Sessions of clients, and the models and samplers that they hold: whose each is, and when it ends.

A client opens a session, says every ten seconds that it is there, and closes it. One that is not heard for a time has ended,
and what it held is let go: its models' room, its samplers' files. What a tenant has not, he is told is not there. All of it
belongs to the server's event loop.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...serve.handles import Handle
from ...serve.http.complaints import Refused
from .kept_models import Kept

_MOST_REMEMBERED = 10_000  # sessions that have ended


@dataclass(eq=False)
class Model:
    """A model of a session: a loop by its name."""

    id: str
    session: str
    kept: Kept
    asked: float = field(default_factory=time.time)  # when it was asked something last
    described: bool = False  # whether a checkpoint of it was kept


@dataclass(eq=False)
class Sampler:
    """What texts are sampled with: an adapter, or the base alone."""

    id: str
    session: str
    base_model: str  # as it was asked for
    handle: Handle | None = None  # None: no adapter
    path: str | None = None  # of the checkpoint that it was made of


@dataclass(eq=False)
class Session:
    """A client."""

    tenant: str | None
    user_metadata: Mapping[str, Any]
    display_name: str | None
    heard: float
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    models: dict[str, Model] = field(default_factory=dict)
    samplers: dict[str, Sampler] = field(default_factory=dict)


@dataclass(frozen=True)
class Most:
    """How much a tenant may hold, and how long a client may be silent."""

    sessions: int = 256
    models: int = 64  # of a session
    samplers: int = 4096
    silence: float = 900.0  # seconds


class Sessions:
    """The sessions of all tenants."""

    def __init__(self, let_go: Callable[[Session], None], most: Most = Most(), clock: Callable[[], float] = time.monotonic):
        """`let_go` is told of every session that ends."""
        self._let_go, self.most, self._clock = let_go, most, clock
        self._open: dict[str, Session] = {}
        self._over: OrderedDict[str, str | None] = OrderedDict()  # by id: whose they were

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open.values()))

    def of(self, tenant: str | None) -> list[Session]:
        """A tenant's, the newest first."""
        return [session for session in reversed(self._open.values()) if session.tenant == tenant]

    def open(self, tenant: str | None, user_metadata: Mapping[str, Any], display_name: str | None) -> Session:
        if len(self.of(tenant)) >= self.most.sessions:
            said = f"{self.most.sessions} sessions are open already; close one, or wait until the server has missed it."
            raise Refused(429, said, code="too_many_sessions", headers={"Retry-After": "30"})
        session = Session(tenant, user_metadata, display_name, self._clock())
        self._open[session.id] = session
        return session

    def find(self, tenant: str | None, name: str) -> Session:
        """A tenant's session; Refused (404) where there is none, or (410) it has ended. It was heard."""
        session = self._open.get(name)
        if session is not None and session.tenant == tenant:
            session.heard = self._clock()
            return session
        if name in self._over and self._over[name] == tenant:
            raise Refused(410, f"session {name!r} has ended.", param="session_id", code="session_ended")
        said = f"there is no session {name!r}; where the server was started anew, so must the client be."
        raise Refused(404, said, param="session_id", code="session_not_found")

    def model(self, tenant: str | None, name: str) -> Model:
        """A tenant's model; Refused where there is none."""
        session = self._open.get(name.partition(":")[0])
        model = None if session is None or session.tenant != tenant else session.models.get(name)
        if session is None or model is None:
            said = f"there is no model {name!r}; it was unloaded, its session has ended, or the server was started anew"
            raise Refused(404, f"{said}: go on from a checkpoint of it.", param="model_id", code="model_not_found")
        model.asked, session.heard = time.time(), self._clock()
        return model

    def sampler(self, tenant: str | None, name: str) -> Sampler:
        """A tenant's sampler; Refused where there is none."""
        session = self._open.get(name.partition(":")[0])
        sampler = None if session is None or session.tenant != tenant else session.samplers.get(name)
        if session is None or sampler is None:
            said = f"there is no sampler {name!r}; its session has ended, or the server was started anew."
            raise Refused(404, said, param="sampling_session_id", code="sampler_not_found")
        session.heard = self._clock()
        return sampler

    def add_model(self, session: Session, number: int, kept: Kept) -> Model:
        """A further model of a session. Refused where there was one of its number, or there are too many."""
        name = f"{session.id}:train:{number}"
        if name in session.models:
            raise Refused(410, f"model {name!r} was made before, and what came of that was given up.", code="gone")
        if len(session.models) >= self.most.models:
            raise Refused(429, f"the session holds {self.most.models} models already; unload one.", code="too_many_models")
        model = Model(name, session.id, kept)
        session.models[model.id] = model
        return model

    def refuse_too_many_samplers(self, session: Session) -> None:
        if len(session.samplers) >= self.most.samplers:
            raise Refused(429, f"the session has {self.most.samplers} samplers already.", code="too_many_samplers")

    def add_sampler(self, session: Session, number: int, base: str, handle: Handle | None, path: str | None) -> Sampler:
        """A further sampler of a session; the same one, where its number was there before."""
        name = f"{session.id}:sample:{number}"
        return session.samplers.setdefault(name, Sampler(name, session.id, base, handle, path))

    def close(self, session: Session) -> None:
        """End a session."""
        if self._open.pop(session.id, None) is not None:
            self._over[session.id] = session.tenant
            if len(self._over) > _MOST_REMEMBERED:
                self._over.popitem(last=False)
            self._let_go(session)

    def close_silent(self) -> None:
        """End those that were not heard for too long."""
        for session in self:
            if session.heard + self.most.silence < self._clock():
                self.close(session)
