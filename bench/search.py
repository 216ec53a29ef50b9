"""The search for a method's setting: successive halving (Jamieson & Talwalkar, arXiv:1502.07943).

All settings of the grid are trained for a short run, the better part (`keep`) of them again for a longer one, and so on; the
last round has full length. A run of each round is complete, with a learning rate that falls to zero at its own end: settings
are compared at the end of a schedule and never in the middle of one. What is kept depends on the validation rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .metrics import metric_named
from .results import Record
from .suite import Suite


def rounds(suite: Suite, label: str) -> list[tuple[int, int]]:
    """(settings, epochs) of each round; one setting needs none, and no round is shorter than an epoch."""
    counts = [len(suite.settings(label))]
    while (kept := max(1, math.ceil(counts[-1] * suite.keep))) > 1 and kept < counts[-1]:
        counts.append(kept)
    if counts == [1]:
        return []
    lengths = [max(1, round(suite.epochs * suite.keep**k)) for k in reversed(range(len(counts)))]
    return list(zip(counts, lengths, strict=True))


def best(records: Sequence[Record]) -> list[tuple[float, str]]:
    """Settings (learning rate, schedule), the best on the validation rows first, by likelihood where values tie.

    Those that failed are left out.
    """

    def merit(record: Record) -> tuple[float, float, float]:
        assert record.value is not None
        return (-metric_named(record.metric).better * record.value, record.metrics.get("nll", 0.0), record.lr)

    ranked = sorted((record for record in records if record.error is None), key=merit)
    return [(record.lr, record.schedule) for record in ranked]
