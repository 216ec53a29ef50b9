"""What the endpoints of Tinker's API share: the server's service, the loops, and what clients hold of both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.responses import Response

from ...errors import GraftaxError
from ...serve.generator import Generator
from ...serve.handles import Handle
from ...serve.http.complaints import Refused, as_json
from ...serve.http.service import Service
from ...serve.turns import TENANT
from ..loops.loops import Loops
from .accounts import Accounts
from .call_order import Alone, Asked, CallOrder
from .kept_models import KeptModels
from .promises import Failure, Promise, Promises, Result
from .sampling_desk import SamplingDesk
from .sessions import Model, Session, Sessions
from .tickets import Tickets

Turn = Callable[[], AbstractContextManager[Any]]
_LOOKS = 15.0  # seconds between two looks for sessions that have fallen silent


@dataclass(eq=False)
class TinkerService:
    """Everything that an endpoint may need. Belongs to the server's event loop."""

    service: Service
    generator: Generator
    loops: Loops
    calls: CallOrder
    accounts: Accounts
    promises: Promises
    kept: KeptModels
    desk: SamplingDesk
    tickets: Tickets = field(default_factory=Tickets)
    sessions: Sessions = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _task: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self._let_go)

    @property
    def tenant(self) -> str | None:
        """Who asks, in the task of a request."""
        return TENANT.get()

    def base_named(self, name: str, param: str = "base_model") -> str:
        """A name under which the served model is asked for; Refused where it means another."""
        if name not in (self.service.name, self.service.backbone.name):
            said = f"{param}: this server has {self.service.name!r}, and no {name!r}."
            raise Refused(400, said, param=param, code="model_not_found")
        return name

    # -- calls ------------------------------------------------------------------------------------------------------------

    def promised(
        self,
        model: str,
        number: int | None,
        asked: Callable[[], Asked],
        header: str | None,
        after: Callable[[Result], None] = lambda result: None,
        size: int = 0,
    ) -> Response:
        """Answer a call by a promise; one that was there before by the same promise.

        Args:
            model: that the call is for.
            number: the call's among all of its model; None: it has none.
            asked: makes what is to be done, of a new call alone. Where that is a GraftaxError, it is what comes of the call, in
                its turn: its number has been, and those behind it do not wait for it.
            header: by which a call without a number is known.
            after: hears the result, in the event loop.
            size: bytes that it holds until it is done.
        """
        promise, is_new = self.promises.make(self.tenant, self.key_of(model, number, header), model, size)
        if is_new:
            try:
                self.calls.add(model, number, _made(asked), self.telling(promise, after))
            except BaseException:
                self.promises.forget(promise)
                raise
        return as_json(promise.answer)

    def pass_over(self, model: Any, number: Any) -> None:
        """Let the number of a call that was refused have been, where it is one of a tenant's model."""
        if isinstance(model, str) and type(number) is int:
            with suppress(Refused):
                self.calls.add(self.sessions.model(self.tenant, model).id, number, Alone(lambda: {}), lambda result: None)

    @staticmethod
    def key_of(model: str, number: int | None, header: str | None) -> Hashable:
        """By what a call is known when it comes again."""
        return (model, number) if number is not None else (model, header if header is not None else object())

    def telling(self, promise: Promise, after: Callable[[Result], None] = lambda result: None) -> Callable[[Result], None]:
        """What settles a promise, from any thread."""

        def settled(result: Result) -> None:
            self.promises.settle(promise, result)
            after(result)

        def tell(result: Result) -> None:
            self._loop.call_soon_threadsafe(settled, result)

        return tell

    def from_thread(self, call: Callable[..., Any], *args: Any) -> None:
        """Have something done in the event loop, before what is told after it is heard there."""
        self._loop.call_soon_threadsafe(call, *args)

    def handle_of(self, name: str, directory: Path) -> Handle:
        """The adapter in a directory, to be sampled with; it is read again from there whenever it is in no memory."""
        handle, _ = self.service.residents.handle(name, directory)
        _ = handle.digest  # computed now, so that the adapter is not held for it
        return handle

    # -- what begins and ends with the server -----------------------------------------------------------------------------

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.calls.start()
        self.desk.start()
        self._task = self._loop.create_task(self._look())

    def stop(self) -> None:
        self._task.cancel()
        self.desk.stop()
        self.calls.stop()
        self.accounts.write()
        self.kept.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOKS)
            self.sessions.close_silent()

    def _let_go(self, session: Session) -> None:
        """What a session held, of which nothing is asked any more."""
        for model in session.models.values():
            self.let_go_of_model(model, "its session has ended.")

    def let_go_of_model(self, model: Model, why: str) -> None:
        """Free the room of a model, behind what is being done for it."""
        self.calls.close(model.id, why)
        self.calls.afterwards(lambda: self._forget(model))

    def _forget(self, model: Model) -> None:
        """In the thread of the calls."""
        try:
            if model.id in self.loops.names:
                self.loops.forget(model.id)
            self.accounts.close(model.id)
            self.kept.forget_unnamed(model.id)
        except GraftaxError:
            logging.getLogger("graftax").exception("a model was not let go")


def _made(asked: Callable[[], Asked]) -> Asked:
    """What is to be done; where that cannot be, saying why."""
    try:
        return asked()
    except GraftaxError as error:
        failure = Failure(str(error))
        return Alone(lambda: failure)


def make_tinker(service: Service, directory: Path, accounts: Accounts, turn: Turn = nullcontext) -> TinkerService:
    """Tinker's API on a server.

    Args:
        service: of a decoder.
        directory: where checkpoints are kept.
        accounts: of what loops cost.
        turn: entered around each call of a program that trains.
    """
    if service.generator is None:
        raise GraftaxError(f"{service.name} is no language model: training loops are written for one.")
    loops = Loops(service.backbone, turn, max_lora_rank=service.limits.max_lora_rank)
    return TinkerService(
        service,
        service.generator,
        loops,
        CallOrder(loops, accounts),
        accounts,
        Promises(),
        KeptModels(directory, service.backbone),
        SamplingDesk(service, service.generator),
    )
