"""What tasks are called in other libraries' files, and what answers them: all that an adapter's files know of a task.

A task itself (`tasks/task.py`) lies above adapters and backbones, and has its words from here. Tasks of other packages bring
their own, by the entry points `graftax.tasks` (`graftax/plugins.py`) or when they are handed to `train_many`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .. import plugins
from ..errors import GraftaxError


@dataclass(frozen=True)
class TaskWords:
    """One task, in others' words."""

    #: where the adapter's head reads: the features of an item, those of every position, or a picture's feature maps, for every
    #: pixel or for objects; None: the backbone answers
    head: Literal["item", "position", "map", "objects"] | None = "item"
    peft: str | None = None  # PEFT's `task_type`; None: it has none for it
    model: str | None = None  # transformers' task models are called by the family and "For" + this
    problem: str | None = None  # transformers' `problem_type` in config.json
    outputs: int | None = None  # of its head, where that is the same for all adapters
    pipeline: str | None = None  # the Hub's `pipeline_tag`


_TEXTS = "SequenceClassification"
_LABELLING, _WRITING = "text-classification", "text-generation"
_WORDS = {
    "classify": TaskWords("item", "SEQ_CLS", _TEXTS, "single_label_classification", pipeline=_LABELLING),
    "multilabel": TaskWords("item", "SEQ_CLS", _TEXTS, "multi_label_classification", pipeline=_LABELLING),
    "regress": TaskWords("item", "SEQ_CLS", _TEXTS, "regression", outputs=1, pipeline=_LABELLING),
    "tag": TaskWords("position", "TOKEN_CLS", "TokenClassification", pipeline="token-classification"),
    "image-classify": TaskWords(
        "item", None, "ImageClassification", "single_label_classification", pipeline="image-classification"
    ),
    "image-segment": TaskWords("map", pipeline="image-segmentation"),
    "image-detect": TaskWords("objects", pipeline="object-detection"),
    "contrastive": TaskWords(None, None, None, pipeline="zero-shot-image-classification"),
    "contrastive-sigmoid": TaskWords(None, None, None, pipeline="zero-shot-image-classification"),
    "contrastive-names": TaskWords(None, None, None, pipeline="zero-shot-image-classification"),
    "lm": TaskWords(None, "CAUSAL_LM", "CausalLM", pipeline=_WRITING),
    "sft": TaskWords(None, "CAUSAL_LM", "CausalLM", pipeline=_WRITING),
    "dpo": TaskWords(None, "CAUSAL_LM", "CausalLM", pipeline=_WRITING),
    "seq2seq": TaskWords(None, "SEQ_2_SEQ_LM", "ConditionalGeneration", pipeline=_WRITING),
}


def words_for(task: str) -> TaskWords:
    """Those of a task by its name; an unknown one is an error that names all there are."""
    if task not in _WORDS:
        for plugin in plugins.found("graftax.tasks").values():
            add_words(plugin.name, plugin.words)
    if task not in _WORDS:
        raise GraftaxError(f"task {task!r} is none of {', '.join(_WORDS)}.")
    return _WORDS[task]


def add_words(task: str, words: TaskWords) -> None:
    """Those of a task of somebody else's."""
    if _WORDS.setdefault(task, words) != words:
        raise GraftaxError(f"there is a task {task!r} already, and it is called otherwise in other libraries' files.")


def task_in_peft(task_type: str | None) -> str | None:
    """The first task that PEFT calls so; None where there is none."""
    return next((task for task, words in _WORDS.items() if words.peft is not None and words.peft == task_type), None)


def task_in_transformers(model: str, problem: str | None) -> str | None:
    """The task that transformers has this kind of task model and `problem_type` for; None where there is none."""
    return next((task for task, words in _WORDS.items() if (words.model, words.problem) == (model, problem)), None)
