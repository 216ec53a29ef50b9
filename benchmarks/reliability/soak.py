"""Half an hour under load, swaps and kills: nothing acknowledged is lost, every answer is right, and memory stays flat.

    python benchmarks/reliability/soak.py [--minutes M]

The servers, swaps and answers are those of million.py. Besides, in the first third of the time a server is killed (SIGKILL) and
begun again every minute, the encoder's and the decoder's by turns; all the time

- a process pushes adapters to the hub, is killed in the midst of it and begun again; some of what it pushed is asked at once,
- the hub's folder is away for some seconds, and what lies in its place is no folder, while servers, swaps and pushes go on,
- of ten texts that a client wants written in pieces one is given up at once.

What fails may only be what such an event explains: no answer while a server is down, 503 or a push that is refused while the
hub is away. At the end every push that was acknowledged must be on the hub with its digest, and undamaged. Of memory the
resident set of each server in the middle of the time, five minutes behind the last kill, and at its end are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checked_traffic import NAMES, Traffic
from million import ADAPTERS, CALLERS, HUB_NAMES, SLOTS, counted, failures
from moments import now
from server_process import ServerProcess
from tiny_world import ROOT, Side, made

from graftax import GraftaxError, Hub
from graftax.store.store import Store

GROWTH = 0.02  # of memory, at most; of runs that are long enough to know
_SWAP_PAUSE, _SAMPLE_PAUSE = 0.1, 5.0
_SHARE_GIVEN_UP = 0.1
_LATER = 20.0  # seconds behind an outage of the hub in which a server may still say that it is away


@dataclass
class Outages:
    """When something was down, and until when that may be felt."""

    spans: list[list[float]] = field(default_factory=list)

    def begin(self) -> None:
        self.spans.append([now(), float("inf")])

    def end(self, later: float = 0.0) -> None:
        self.spans[-1][1] = now() + later

    def touch(self, began: float) -> bool:
        """Whether one lies between then and now."""
        return any(since <= now() and began <= until for since, until in self.spans)


@dataclass
class Stand:
    """A side under load, with all that happens to it."""

    side: Side
    server: ServerProcess
    seed: int
    down: Outages = field(default_factory=Outages)  # of the server,
    away: Outages = field(default_factory=Outages)  # of the hub
    pushed: list[tuple[str, int, str]] = field(default_factory=list)  # name, version and digest, as acknowledged
    memory: list[tuple[float, float]] = field(default_factory=list)  # moments, and megabytes
    refused: int = 0  # swaps that the hub refused while it was away

    def __post_init__(self) -> None:
        self.traffic = Traffic(self.side, self.server.url, self.seed, self._excused)
        self.random = random.Random(self.seed)

    def _excused(self, error: str, began: float) -> bool:
        return (error == "no answer" and self.down.touch(began)) or (error == "503" and self.away.touch(began))

    # -- what goes on all the time, until an end ----------------------------------------------------------------------------

    async def ask(self, end: float) -> None:
        while time.monotonic() < end:
            given_up = self.side.kind == "completions" and self.random.random() < _SHARE_GIVEN_UP
            await self.traffic.ask(given_up)
            if self.down.touch(now()):
                await asyncio.sleep(0.2)

    async def swap(self, end: float) -> None:
        hub = Hub(self.side.hub)
        while time.monotonic() < end:
            began = now()
            try:
                await self.traffic.swap(hub)
            except GraftaxError as error:
                self.refused += 1
                if not self.away.touch(began):
                    self.traffic.fault(f"a tag could not be moved: {error}")
            await asyncio.sleep(_SWAP_PAUSE)

    async def push(self, end: float, pause: float, life: float) -> None:
        """A process that pushes, killed every so many seconds."""
        lives = 0
        while time.monotonic() < end:
            lives += 1
            command = [sys.executable, str(Path(__file__).with_name("pusher.py")), str(self.side.hub), str(self.side.folder)]
            process = await asyncio.create_subprocess_exec(
                *command,
                str(pause),
                f"{self.seed}.{lives}",
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            hearing = asyncio.create_task(self._hear(process))
            await asyncio.sleep(max(0.1, min(life * self.random.uniform(0.5, 1.5), end - time.monotonic())))
            process.kill()
            await hearing
            await process.wait()

    async def _hear(self, process: Any) -> None:
        """Keep what a pushing process says that the hub has acknowledged; ask some of it."""
        while line := (await process.stdout.readline()).decode().split():
            name, version, digest, adapter = line
            self.pushed.append((name, int(version), digest))
            self.side.answers[digest] = self.side.answers[self.side.digests[int(adapter)]]
            if len(self.pushed) % 5 == 0:
                self.traffic.moments.begin(f"{name}:{version}", digest)
                await self.traffic.ask(model=f"{name}:{version}")

    async def sample(self, end: float) -> None:
        while time.monotonic() < end:
            if not self.down.touch(now()):
                self.memory.append((time.monotonic(), self.server.resident_mb()))
            await asyncio.sleep(_SAMPLE_PAUSE)

    # -- what happens -------------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        """SIGKILL, a new server at the same port, and its adapters loaded again."""
        for number in range(NAMES):
            self.traffic.forget(f"n{number}")
        self.down.begin()
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.begin)
        self.down.end()
        for number in range(NAMES):
            await self.traffic.load(f"n{number}")

    async def hide_hub(self, seconds: float) -> None:
        """Put a file in the place of the hub's folder, as a disk that is away refuses to be read and written; and back."""
        file = self.side.hub.with_name("file")
        file.touch()
        self.away.begin()
        exchange(file, self.side.hub)
        await asyncio.sleep(seconds)
        exchange(file, self.side.hub)
        self.away.end(later=_LATER)

    # -- at the end ---------------------------------------------------------------------------------------------------------

    def lost(self) -> list[str]:
        """What was acknowledged and is not there, or is damaged."""
        store = Store(self.side.hub)
        faults = [f"{damage}" for damage in store.verify()]
        for name, version, digest in self.pushed:
            found = store.find(f"{name}:{version}")
            if found is None or found.digest != digest:
                faults.append(f"{name}:{version} was acknowledged as {digest}, and is {found}")
        return faults

    def growth(self, middle: float) -> tuple[float, float]:
        """Megabytes around a moment and at the end: medians of a minute."""
        around = [mb for moment, mb in self.memory if abs(moment - middle) <= 30] or [self.memory[0][1]]
        last = [mb for moment, mb in self.memory if moment >= self.memory[-1][0] - 60]
        return statistics.median(around), statistics.median(last)


def exchange(one: Path, other: Path) -> None:
    """Let each of two paths lead to what the other one led to, at one moment (Linux alone can)."""
    here, exchanged = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if ctypes.CDLL(None, use_errno=True).renameat2(here, os.fsencode(one), here, os.fsencode(other), exchanged):
        raise OSError(ctypes.get_errno(), f"{one} and {other} cannot be exchanged")


async def every(seconds: float, end: float, happens: Callable[[int], Any]) -> int:
    """Let something happen again and again, and wait for it; how often it did."""
    count = 0
    while time.monotonic() + seconds < end:
        await asyncio.sleep(seconds)
        await happens(count)
        count += 1
    return count


async def run(stands: list[Stand], seconds: float) -> tuple[int, int]:
    """All of it, for so long; how often a server was killed, and how often the hubs were away."""
    begun = time.monotonic()
    end = begun + seconds
    for stand in stands:
        for number in range(NAMES):
            await stand.traffic.load(f"n{number}")
    going = [stand.ask(end) for stand in stands for _ in range(CALLERS[stand.side.kind])]
    going += [task for stand in stands for task in (stand.swap(end), stand.sample(end))]
    going += [stand.push(end, seconds / 360, max(15.0, seconds / 60)) for stand in stands]
    tasks = [asyncio.create_task(one) for one in (*going, _told(stands, begun, end))]
    killing = every(max(3.0, seconds / 30), begun + seconds / 3, lambda count: stands[count % 2].kill())
    hiding = every(max(5.0, seconds / 20), end, lambda count: asyncio.gather(*(one.hide_hub(seconds / 200) for one in stands)))
    kills, outages = await asyncio.gather(killing, hiding)
    await asyncio.gather(*tasks)
    return kills, outages


async def _told(stands: list[Stand], begun: float, end: float) -> None:
    while time.monotonic() < end:
        memory = ", ".join(f"{stand.memory[-1][1]:.1f} MB" for stand in stands if stand.memory)
        said = counted([one.traffic for one in stands])
        print(f"{time.monotonic() - begun:7.0f} s  {said}; {memory}", flush=True)
        await asyncio.sleep(min(30.0, max(0.0, end - time.monotonic())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    seconds = parser.parse_args().minutes * 60
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        sides = [made(Path(folder) / kind, kind, ADAPTERS, HUB_NAMES) for kind in CALLERS]
        stands = [Stand(side, ServerProcess(side, Path(folder), SLOTS), seed) for seed, side in enumerate(sides)]
        middle = time.monotonic() + seconds / 2
        try:
            kills, outages = asyncio.run(run(stands, seconds))
        finally:
            codes = [stand.server.end() for stand in stands]
        faults = [fault for stand in stands for fault in (*stand.traffic.faults, *stand.lost())]
        faults += [failure for stand in stands for failure in failures(stand.server)]
        grown = [stand.growth(middle) for stand in stands]
    pushed = sum(len(stand.pushed) for stand in stands)
    print(f"{counted([stand.traffic for stand in stands])}; {kills} kills, {outages} outages of the hub, {pushed} pushes")
    print(f"the servers ended with {codes}; memory, in the middle and at the end:")
    for stand, (before, after) in zip(stands, grown, strict=True):
        print(f"  {stand.side.kind}: {before:.1f} and {after:.1f} MB, {100 * (after / before - 1):+.2f}%")
    faults += [f"memory has grown from {a:.1f} to {b:.1f} MB" for a, b in grown if b > a * (1 + GROWTH) and seconds >= 1200]
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
