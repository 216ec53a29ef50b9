"""A million requests over hot swaps: each answer's digest and content checked, none from the wrong adapter.

    python benchmarks/reliability/million.py [--requests N]

Two servers, of a tiny encoder that classifies and a tiny decoder that writes, each with six slots for 24 adapters, are asked
over HTTP by 40 callers. Meanwhile names are loaded anew, unloaded and loaded, and tags on a hub are moved, some twenty times a
second, so that adapters come and go on the devices all the time. A request asks about one to three texts. It prints how far it
is, and ends with exit code 1 and the faults in words if there was any.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from checked_traffic import NAMES, Traffic
from server_process import ServerProcess
from tiny_world import made

from graftax import Hub

SLOTS, ADAPTERS, HUB_NAMES = 6, 24, 6
CALLERS = {"classify": 28, "completions": 12}
_PAUSE = 0.1  # seconds between two swaps of a server
_TELL = 30.0


async def asked(traffic: Traffic, left: list[int]) -> None:
    """One caller, until no requests are left."""
    while left[0] > 0:
        left[0] -= 1
        await traffic.ask()


async def swapped(traffic: Traffic, left: list[int]) -> None:
    hub = Hub(traffic.side.hub)
    while left[0] > 0:
        await traffic.swap(hub)
        await asyncio.sleep(_PAUSE)


async def told(traffics: list[Traffic], left: list[int], began: float) -> None:
    while left[0] > 0:
        await asyncio.sleep(_TELL)
        print(f"{time.monotonic() - began:7.0f} s  {counted(traffics)}", flush=True)


def counted(traffics: list[Traffic]) -> str:
    both = sum((one.counts for one in traffics), Counter())
    return ", ".join(f"{name} {count:,}" for name, count in sorted(both.items()))


def failures(server: ServerProcess) -> list[str]:
    """What a server has written into its log, if a traceback is among it."""
    said = server.complaints()
    return [said[-5000:]] if "Traceback" in said else []


async def run(traffics: list[Traffic], requests: int) -> float:
    """Ask so many in all; the seconds that it took."""
    left, began = [requests], time.monotonic()
    for traffic in traffics:
        for number in range(NAMES):
            await traffic.load(f"n{number}")
    callers = [asked(one, left) for one in traffics for _ in range(CALLERS[one.side.kind])]
    telling = asyncio.create_task(told(traffics, left, began))
    await asyncio.gather(*callers, *(swapped(one, left) for one in traffics))
    telling.cancel()
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides = [made(Path(folder) / kind, kind, ADAPTERS, HUB_NAMES) for kind in CALLERS]
        servers = [ServerProcess(side, Path(folder), SLOTS) for side in sides]
        traffics = [Traffic(side, server.url, seed) for seed, (side, server) in enumerate(zip(sides, servers, strict=True))]
        try:
            seconds = asyncio.run(run(traffics, chosen.requests))
        finally:
            codes = [server.end() for server in servers]
    print(f"{seconds:.0f} s  {counted(traffics)}; the servers ended with {codes}")
    faults = [fault for one in traffics for fault in one.faults]
    faults += [failure for server in servers for failure in failures(server)]
    print(*faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
