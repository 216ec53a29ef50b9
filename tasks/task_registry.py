"""The tasks there are, by name. A new one is a file and a line here, or comes with another package (`graftax/plugins.py`)."""

from __future__ import annotations

from typing import Any

from .. import plugins
from ..adapters.task_words import add_words
from ..errors import GraftaxError
from ..typed import shown
from .by_names import ByNames
from .contrastive import Contrastive, SigmoidContrastive
from .detection import ImageDetect
from .generative import LanguageModel, SequenceToSequence, SupervisedFineTuning
from .labelled import Classify, MultiLabel, Regress, Tag
from .labelled_pictures import ImageClassify
from .main_metrics import MainMetric, add_main_metric
from .preference import DirectPreference
from .segmentation import ImageSegment
from .task import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(Classify(), MultiLabel(), Regress(), Tag()),
        *(LanguageModel(), SupervisedFineTuning(), SequenceToSequence(), DirectPreference()),
        *(ImageClassify(), ImageSegment(), ImageDetect(), Contrastive(), SigmoidContrastive(), ByNames()),
    )
}


def task_named(name: str) -> Task:
    """The task of that name; an unknown one is an error that names all there are."""
    if name not in TASKS:
        for plugin in plugins.found("graftax.tasks").values():
            add_task(plugin() if isinstance(plugin, type) else plugin)
    if name not in TASKS:
        raise GraftaxError(f"unknown task {name!r}; there are {', '.join(TASKS)}.")
    return TASKS[name]


def add_task(task: Task) -> Task:
    """A task of somebody else's, so that its name is known to adapters' files, predictors and commands from now on.

    Raises GraftaxError for what is no task, and for one whose name another has.
    """
    if not isinstance(task, Task):
        raise GraftaxError(f"expected a task, got {shown(task)}.")
    known = TASKS.setdefault(task.name, task)
    if type(known) is not type(task):
        raise GraftaxError(f"there is a task {task.name!r} already: {type(known).__module__}.{type(known).__qualname__}.")
    add_words(task.name, task.words)
    add_main_metric(task.name, MainMetric(task.main_metric, task.lower_is_better))
    return known


def the_task(task: Any) -> Task:
    """A task as callers give it: by its name, or itself."""
    return task_named(task) if isinstance(task, str) else add_task(task)
