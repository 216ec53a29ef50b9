"""The adapters that a fleet is asked for, and how the queue of them is cut into shards: what one machine is given at a time.

A shard is a call of `train_many` on one machine: its adapters flow through the slots of a pack. How long each trains is known
before it begins, for the number of its steps follows from its rows. So the longest go first, those of like length together, and
a shard ends at so many adapters or at so much work, whichever comes first: with numbers alone the shard of the longest adapters
would be the longest by far, and all would wait for it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Workload:
    """Adapters of one kind on one backbone."""

    backbone: str  # as in compiled.json
    called: str
    title: str
    base_bytes: float  # that a machine reads before it can train
    adapter_bytes: float  # of a finished adapter's files
    median_steps: float  # of an adapter; their logarithms are normal,
    spread: float  # with this standard deviation,
    shortest: int  # cut off below
    longest: int  # and above
    rows_of_a_step: int
    row_tokens: float


def lora_bytes(rank: int, widths: Sequence[tuple[int, int]], layers: int, head: int = 0) -> int:
    """Of LoRA's factors `[rank, in]` and `[out, rank]` in float32 at sites of such widths in each layer, and of a head."""
    return _FLOAT * (layers * sum(rank * (given + made) for given, made in widths) + head)


CLASSIFIERS = Workload(
    "classifier",
    "classifiers",
    "BERT-base, LoRA of rank 16 at queries and values with a head, batches of 32 short texts",
    base_bytes=2 * 110e6,
    adapter_bytes=lora_bytes(16, [(768, 768)] * 2, 12, 8 * 769),
    median_steps=48,
    spread=1.0,
    shortest=6,
    longest=2000,
    rows_of_a_step=32,
    row_tokens=16,
)
CHATS = Workload(
    "decoder",
    "chats",
    "Llama-3.2-1B, LoRA of rank 16 at queries and values, batches of 4 x 1,024 tokens",
    base_bytes=2 * 1.236e9,
    adapter_bytes=lora_bytes(16, [(2048, 2048), (2048, 512)], 16),
    median_steps=150,
    spread=0.8,
    shortest=10,
    longest=3000,
    rows_of_a_step=8,
    row_tokens=512,
)


def steps_of(workload: Workload, count: int, seed: int) -> np.ndarray:
    """How many steps each of so many adapters trains, drawn."""
    drawn = np.random.default_rng(seed).lognormal(np.log(workload.median_steps), workload.spread, count)
    return np.clip(drawn, workload.shortest, workload.longest).astype(np.int64)


@dataclass(frozen=True)
class Part:
    """Of an adapter, what is still to be trained of it."""

    adapter: int
    steps: int
    whole: int  # steps of its whole training, which its rows follow from


Shard = tuple[Part, ...]


@dataclass(frozen=True)
class Work:
    """How long a machine is busy with an adapter, in seconds."""

    step: float  # one of its steps, in a pack that is full
    prepare: float  # its rows prepared, beside
    prepare_step: float  # those of each step

    def of(self, part: Part) -> float:
        return part.steps * self.step + self.prepares(part)

    def prepares(self, part: Part) -> float:
        return self.prepare + part.whole * self.prepare_step


def cut(steps: Sequence[int], work: Work, most: int, seconds: float = math.inf, longest_first: bool = True) -> list[Shard]:
    """Shards of up to `most` adapters and no more than so many seconds of a machine; an adapter alone may take longer."""
    parts = [Part(adapter, count, count) for adapter, count in enumerate(steps)]
    if longest_first:
        parts.sort(key=lambda part: (-part.steps, part.adapter))
    shards, begun, total = list[Shard](), list[Part](), 0.0
    for part in parts:
        own = work.of(part)
        if begun and (len(begun) == most or total + own > seconds):
            shards.append(tuple(begun))
            begun, total = [], 0.0
        begun.append(part)
        total += own
    return [*shards, tuple(begun)] if begun else shards


def ticks_of(shard: Shard, slots: int) -> list[tuple[int, int]]:
    """At which ticks of a pack each of a shard's adapters begins and has ended: the next one takes the slot that is free."""
    free, spans = [0] * slots, list[tuple[int, int]]()
    for part in shard:
        begins = heapq.heappop(free)
        spans.append((begins, begins + part.steps))
        heapq.heappush(free, begins + part.steps)
    return spans
