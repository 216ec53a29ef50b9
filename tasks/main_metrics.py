"""By which metric a task is judged: it picks the best epoch, and a leaderboard ranks by it.

It is known here without the task itself (`task.py`), which needs JAX; a task's class has its own from here. Those of other
packages bring theirs, by the entry points `graftax.tasks` (`graftax/plugins.py`) or when they are handed to `train_many`.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import plugins
from ..errors import GraftaxError


class MainMetric(NamedTuple):
    """A key of what `Task.score` returns, and whether less of it is better."""

    name: str
    lower_is_better: bool = False


_ACCURACY, _PERPLEXITY = MainMetric("accuracy"), MainMetric("perplexity", lower_is_better=True)
_TEXT_FOUND = MainMetric("image_to_text")
_MAIN = {
    "classify": _ACCURACY,
    "multilabel": MainMetric("macro_f1"),
    "regress": MainMetric("pearson"),
    "tag": MainMetric("f1"),
    "lm": _PERPLEXITY,
    "sft": _PERPLEXITY,
    "seq2seq": _PERPLEXITY,
    "dpo": MainMetric("reward_accuracy"),
    "image-classify": _ACCURACY,
    "image-segment": MainMetric("mean_iou"),
    "image-detect": MainMetric("map"),
    "contrastive": _TEXT_FOUND,
    "contrastive-sigmoid": _TEXT_FOUND,
    "contrastive-names": _TEXT_FOUND,
}


def main_metric_of(task: str) -> MainMetric:
    """That of a task by its name; an unknown one is an error that names all there are."""
    if task not in _MAIN:
        for plugin in plugins.found("graftax.tasks").values():
            add_main_metric(plugin.name, MainMetric(plugin.main_metric, plugin.lower_is_better))
    if task not in _MAIN:
        raise GraftaxError(f"unknown task {task!r}; there are {', '.join(_MAIN)}.")
    return _MAIN[task]


def add_main_metric(task: str, metric: MainMetric) -> None:
    """That of a task of somebody else's."""
    _MAIN.setdefault(task, metric)
