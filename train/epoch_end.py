"""The end of an epoch of the job in a slot: what it has come to, whether it is the best so far, and whether it is the last.

With validation examples the adapter of the best epoch is kept, and a recipe's `patience` may end the job before its last epoch;
without, the adapter of the last epoch is what becomes of the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..adapters.adapter import Adapter
from ..processes import words
from .pack import Pack


class EpochEnd(NamedTuple):
    """What an epoch has come to."""

    numbers: dict[str, float]  # `loss`, and of the validation examples `val_loss` and their metrics as `val_...`
    is_last: bool  # whether the job ends with it


def end_epoch(pack: Pack, slot: int) -> EpochEnd | None:
    """End the epoch of which a slot has taken all steps. None where its loss, or an output, is not finite."""
    bookmark, job = pack.occupant(slot)
    loss, failed = pack.take_loss(slot)
    scores = pack.evaluate(slot) if job.val is not None and not failed else {}
    scores = words(f"the validation of {job.name}", scores)[0]  # of several processes, which might round unlike, the first's
    if failed or scores is None:
        return None
    if job.val is not None:
        _compare(pack, slot, scores)
    bookmark.epoch, bookmark.position = bookmark.epoch + 1, 0
    patience = job.recipe.patience
    is_last = bookmark.epoch == job.recipe.epochs or (patience is not None and bookmark.waited >= patience)
    return EpochEnd({"loss": loss, **{f"val_{name}": value for name, value in scores.items()}}, is_last)


def _compare(pack: Pack, slot: int, scores: Mapping[str, float]) -> None:
    """Keep the epoch that ends if it is the best so far; else count one more epoch since the best."""
    bookmark, _ = pack.occupant(slot)
    main = scores[pack.task.main_metric] * (-1.0 if pack.task.lower_is_better else 1.0)
    reached = [main, -scores["loss"]]  # where the main metric ties, the loss decides
    if bookmark.best is None or reached > bookmark.best:
        bookmark.best, bookmark.best_epoch, bookmark.waited = reached, bookmark.epoch + 1, 0
        pack.keep_best(slot)
    else:
        bookmark.waited += 1


def outcome(pack: Pack, slot: int, history: Sequence[Mapping[str, Any]]) -> tuple[Adapter, dict[str, float]]:
    """What has become of a job whose last epoch has ended: the adapter that is kept, and the numbers of its epoch.

    `history`: a line for each epoch, with the numbers of its `EpochEnd`.
    """
    bookmark, job = pack.occupant(slot)
    kept = bookmark.best_epoch if job.val is not None else bookmark.epoch
    numbers = {name: value for name, value in history[kept - 1].items() if isinstance(value, float)}
    return pack.result(slot, {**numbers, "epoch": kept}), numbers
