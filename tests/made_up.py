"""A benchmark's directory with made-up results, for what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from graftax.benchmarks import results
from graftax.benchmarks.results import Predictions, Record
from graftax.benchmarks.scores import METRICS


def classified(right: np.ndarray) -> Predictions:
    gold = np.arange(len(right), dtype=np.int32) % 2
    said = np.where(right, gold, 1 - gold).astype(np.int32)
    return Predictions(right.astype(float), np.ones(len(right)), gold, said, np.full(len(right), 0.9, np.float32))


def write_results(
    folder: Path,
    tasks: dict[str, str],
    methods: dict[str, float],
    seeds: int = 3,
    examples: int = 200,
    sizes: tuple[int | None, ...] = (None,),
    **changes: Any,
) -> None:
    """A benchmark's directory. `tasks`: their metrics; `methods`: how strong each is, on a scale where 2 is about 88% right."""
    for task, metric in tasks.items():
        for size in sizes:
            generator = np.random.default_rng(len(task) + (size or 0))
            hardness = generator.normal(0, 1, examples)
            for i, (method, strength) in enumerate(methods.items()):
                for seed in range(seeds):
                    luck = strength + 0.3 * np.log10(size or 1000) + generator.normal(0, 0.1) - hardness
                    noise = generator.logistic(size=examples)
                    if metric == "perplexity":
                        predictions = Predictions(4.0 - 0.2 * luck + 0.1 * noise, np.ones(examples))
                    else:
                        predictions = classified(luck + noise > 0)
                    file = f"predictions/{task}-{i}-{size}-{seed}.npz"
                    predictions.save(folder / file)
                    value = float(METRICS[metric](predictions)[0])
                    costs: dict[str, Any] = {
                        "rows": size or 1000,
                        "steps": 100,
                        "parameters": 1000 * (i + 1),
                        "head_parameters": 100,
                        "file_bytes": 5000 * (i + 1),
                        "seconds": 10.0 + i,
                        "step_seconds": 0.1 + i / 100,
                        "other_cores": 0.0,
                        "compile_seconds": 2.0,
                        "memory_bytes": 10**8 * (i + 1),
                        "flops": 1e12,
                        "energy_joules": 50.0,
                        "energy_source": "flops",
                    }
                    checks: dict[str, Any] = {"ece": 0.05, "worst_slice": value / 2, "forgetting": -0.01 * i}
                    where = {"commit": "abc", "device": "cpu", "date": "2026-01-01", "versions": {"jax": "1"}, "data": "d" * 64}
                    known = {
                        "metric": metric,
                        "value": value,
                        "metrics": {metric: value},
                        "converged": True,
                        "predictions": file,
                    }
                    record = Record(
                        *("minilm", task, method, size, 1e-3, "linear", 4, seed),
                        **{"suite": "made-up", "worst_slice_name": "long", **known, **costs, **checks, **where, **changes},
                    )
                    results.append(folder, record)
