"""How long a run of `train_many` takes on one machine, predicted from its constants: what the cost model is held against.

    seconds = start + load + train_many                         once for the process
            + shapes * (compile_shape or find_shape)            for each shape of batch
            + sum over jobs  prepare_job + rows * (prepare_row + tokens of a row * prepare_token) + save
            + sum over jobs  steps * (step + positions * step_position)

It is the arithmetic that `fleet.py` does for a device, with one slot and without anything that goes wrong.
"""

from __future__ import annotations

from .measured_costs import MeasuredCosts, MeasuredRun


def predicted_seconds(costs: MeasuredCosts, run: MeasuredRun) -> float:
    """From asking for the process to the last adapter's file."""
    shape = costs.compile_shape if run.cache == "empty" else costs.find_shape
    once = costs.start + costs.load + costs.train_many + run.shapes * shape
    row = costs.prepare_row + costs.row_tokens * costs.prepare_token
    jobs = sum(costs.prepare_job + rows * row + costs.save for rows in run.rows)
    return once + jobs + training_seconds(costs, run)


def training_seconds(costs: MeasuredCosts, run: MeasuredRun) -> float:
    """Of them those of the steps."""
    each = zip(run.steps, run.positions, strict=True)
    return sum(steps * (costs.step + positions * costs.step_position) for steps, positions in each)
