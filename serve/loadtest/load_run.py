"""A server under a workload: requests at their moments, or as many at once as a client has, and what became of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ...errors import GraftaxError
from .arrivals import Planned, planned, until
from .light_client import LightClient
from .meanings import Meanings
from .questions import Outcome, ask
from .workload import Workload

_SHARE = 1 / 3  # of a run's seconds: for how long capacity is measured, and for how long is asked before anything is
_SEED_BEFORE = 2**32  # of these requests, so that they are no run's


@dataclass(frozen=True)
class Rate:
    """How many requests come in a second."""

    number: float  # of requests, or of shares of the base's capacity
    of_capacity: bool = False

    @classmethod
    def read(cls, text: str) -> Rate | None:
        """Of `2.5`, `0.5x`, or `max`, which is None; GraftaxError for anything else."""
        if text == "max":
            return None
        try:
            number = float(text.removesuffix("x"))
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            said = "requests in a second, such as 2.5; a share of the capacity of the base, such as 0.5x; or max."
            raise GraftaxError(f"--rate {text}: {said}")
        return cls(number, text.endswith("x"))


@dataclass(frozen=True)
class Run:
    """What became of the requests of one seed."""

    seed: int
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Measured:
    """All that was measured."""

    models: Sequence[str]
    capacity: float | None  # requests in a second, if that was measured
    rate: float | None  # None: as many at once as there are callers
    runs: Sequence[Run]


@dataclass(frozen=True)
class Settings:
    """What is to be measured."""

    models: Sequence[str]  # the one that is asked most first; none: all that the server lists
    most: int | None  # of these only so many
    kinds: Sequence[str]
    workload: Workload
    rate: Rate | None  # None: every caller asks again as soon as it has its answer
    seconds: float  # of each run
    seeds: int
    callers: int  # at once, where the rate is None and where capacity is measured
    timeout: float  # of a request
    first_seed: int = 0


async def measure(client: LightClient, settings: Settings, say: Callable[[str], None]) -> Measured:
    """Measure a server; `say` is told what is being done. GraftaxError where it cannot be asked this."""
    meanings = Meanings(client)
    await meanings.read()
    for name in dict.fromkeys(settings.models):
        if name not in meanings.listed and name != meanings.base:
            await meanings.look(name)
    models = list(settings.models or meanings.listed or [meanings.base])[: settings.most]
    return await _Asking(client, meanings, settings, models).measured(say)


@dataclass(frozen=True)
class _Asking:
    """A server, and what it is asked."""

    client: LightClient
    meanings: Meanings
    settings: Settings
    models: Sequence[str]

    async def measured(self, say: Callable[[str], None]) -> Measured:
        settings, capacity, rate = self.settings, None, None
        for kind in settings.kinds:
            await self._refuse(kind)
        seconds = settings.seconds * _SHARE
        say(f"asking for {seconds:.0f} s, which counts for nothing")
        await self._all_callers(self.models, _SEED_BEFORE, seconds)
        if settings.rate is not None:
            rate = settings.rate.number
            if settings.rate.of_capacity:
                say(f"measuring the capacity of the base for {seconds:.0f} s")
                capacity = await self._capacity(seconds)
                rate *= capacity
        runs = []
        for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
            say(f"measuring for {settings.seconds:.0f} s with seed {seed}")
            if rate is None:
                outcomes = await self._all_callers(self.models, seed, settings.seconds)
            else:
                outcomes = await self._at_moments(rate, seed)
            runs.append(Run(seed, outcomes))
        return Measured(self.models, capacity, rate, runs)

    async def _refuse(self, kind: str) -> None:
        """GraftaxError where a request of a kind is not answered."""
        outcome = await self._ask(self._one(self.models[0], kind), time.perf_counter())
        if outcome.error is not None:
            raise GraftaxError(f"{kind} of {self.models[0]}: {outcome.error}: {outcome.complaint}")

    async def _capacity(self, seconds: float) -> float:
        """Requests that the base answers in a second; the first adapter, where the base has no head to answer with."""
        trials = [await self._ask(self._one(self.meanings.base, kind), time.perf_counter()) for kind in self.settings.kinds]
        able = all(one.error is None for one in trials)
        outcomes = await self._all_callers([self.meanings.base if able else self.models[0]], _SEED_BEFORE, seconds)
        ended = [one.ended for one in outcomes if one.error is None]
        if not ended:
            raise GraftaxError(f"no request was answered, so that no capacity is known: {outcomes[0].complaint}")
        return len(ended) / max(ended)

    async def _at_moments(self, rate: float, seed: int) -> list[Outcome]:
        """Ask whenever a request comes, however many are waiting."""
        requests = planned(self.settings.workload, self.models, self.settings.kinds, rate, seed)
        start, asking = time.perf_counter(), []
        for one in until(requests, self.settings.seconds):
            await asyncio.sleep(max(0.0, start + one.at - time.perf_counter()))
            asking.append(asyncio.create_task(self._ask(one, start)))
        return await asyncio.gather(*asking)

    async def _all_callers(self, models: Sequence[str], seed: int, seconds: float) -> list[Outcome]:
        """As many at once as there are callers, for so many seconds."""
        requests = planned(self.settings.workload, models, self.settings.kinds, 1.0, seed)
        start = time.perf_counter()
        heard = await asyncio.gather(*(self._calls(requests, start, seconds) for _ in range(self.settings.callers)))
        return [outcome for own in heard for outcome in own]

    async def _calls(self, requests: Iterator[Planned], start: float, seconds: float) -> list[Outcome]:
        """What one caller hears, who asks again as soon as it is answered."""
        outcomes = []
        while time.perf_counter() - start < seconds:
            outcomes.append(await self._ask(next(requests), start))
        return outcomes

    async def _ask(self, request: Planned, start: float) -> Outcome:
        return await ask(self.client, self.meanings, request, self.settings.timeout, start)

    def _one(self, model: str, kind: str) -> Planned:
        return next(planned(self.settings.workload, [model], [kind], 1.0, 0))
