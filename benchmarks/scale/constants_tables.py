"""What docs/scale.md rests on, as tables: what was measured, compiled and assumed; and a prediction held against a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..accelerators.accelerator_table import amount, figure
from .assumptions import Assumption, Assumptions, every_assumption
from .compiled_costs import compiled_costs, compiled_when
from .measured_costs import measured_costs, measured_runs, measured_when
from .one_machine import predicted_seconds, training_seconds
from .step_time import program_seconds


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def quantity(value: float, unit: str) -> str:
    """In the unit that suits it; of a `unit` such as "B/s a machine", its first word, and the rest is said elsewhere."""
    unit = unit.partition(" ")[0]
    if unit == "s" and value < 1:
        return f"{figure(value * 1e3)} ms" if value >= 1e-3 else f"{figure(value * 1e6)} µs"
    if unit.startswith("B"):
        return amount(round(value)) + unit[1:]
    return f"{figure(value)} {unit}" if unit in ("s", "files", "tokens") else figure(value)


def spread(one: Assumption) -> str:
    """The range of an assumption."""
    return f"{quantity(one.low, one.unit)} to {quantity(one.high, one.unit)}"


def measured() -> str:
    costs = measured_costs()
    rows = [
        [one.metadata["what"], quantity(getattr(costs, one.name), one.metadata["unit"])] for one in dataclasses.fields(costs)
    ]
    return f"{measured_when()}.\n\n{table(['what', 'measured'], rows)}"


def predicted() -> str:
    costs, rows = measured_costs(), list[list[str]]()
    for run in measured_runs():
        said = predicted_seconds(costs, run)
        rows.append(
            [
                f"{len(run.rows)} adapters, {sum(run.steps)} steps, {run.shapes} shapes, {run.cache} cache",
                f"{figure(training_seconds(costs, run))} s",
                f"{figure(said)} s",
                f"{figure(run.seconds)} s"
                + (f" ({figure(run.lowest)} to {figure(run.highest)})" if run.runs > 1 else ", one run"),
                f"{said / run.seconds - 1:+.0%}",
            ]
        )
    return table(["run", "of it steps (computed)", "predicted (computed)", "measured, median", "error"], rows)


def compiled() -> str:
    rows = []
    for name, cost in compiled_costs().items():
        least = program_seconds(cost, dataclasses.replace(Assumptions(), matmul_share=1.0, memory_share=1.0, launch=0.0))
        assumed = program_seconds(cost, Assumptions())
        own = [figure(cost.flops / 1e12), figure(cost.moved / 1e9), f"{cost.kernels:,}", amount(cost.temporaries)]
        rows.append([f"`{name}`", *own, f"{figure(cost.seconds_to_compile)} s", quantity(least, "s"), quantity(assumed, "s")])
    head = ["program", "TFLOP (compiled)", "GB moved (compiled)", "kernels (compiled)", "temporaries (compiled)"]
    head += ["to compile (measured)", "at least (computed)", "with the assumptions (computed)"]
    return f"{compiled_when()}.\n\n{table(head, rows)}"


def assumed() -> str:
    rows = [
        [f"`{one.name}`", quantity(one.value, one.unit), spread(one), one.unit, one.how, one.why] for one in every_assumption()
    ]
    return table(["assumption", "value", "range", "unit", "how", "what it is"], rows)
