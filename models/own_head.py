"""The head that a checkpoint brings: of a fine-tuned classifier (`BertForSequenceClassification`) or tagger.

It becomes an adapter of a head alone, so what answers with it is the code that answers with adapters. Its kind is what
`architectures` in config.json says, its modules are those of the family's task model (`TaskHead`), its labels `id2label`.
It reads as many tokens of a text as the tokenizer's config says (`model_max_length`), as transformers does where it cuts texts.
A head that is not what its config says is left out, and a note says so: the backbone is a backbone all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.formats.peft.heads import HeadDialect
from ..adapters.task_words import task_in_transformers, words_for
from ..errors import GraftaxError
from ..notes import note
from .fingerprint import all_finite
from .tokenizer_files import text_length

if TYPE_CHECKING:
    from .backbone import Backbone

#: What transformers' task models with a head are called, behind the family's name and "For".
_MODELS = ("SequenceClassification", "TokenClassification", "ImageClassification")


class _Unfit(Exception):
    """Why a head is left out."""


def head_of(backbone: Backbone, raw: Mapping[str, Any], tensors: Mapping[str, Any]) -> Adapter | None:
    """The checkpoint's head, None where it has none; `raw`: its config.json.

    Raises GraftaxError where the head's weights are not finite.
    """
    try:
        return _found(backbone, raw, tensors)
    except _Unfit as why:
        note(f"{backbone.name}: read without its head: {why}.")
        return None


def _found(backbone: Backbone, raw: Mapping[str, Any], tensors: Mapping[str, Any]) -> Adapter | None:
    model = next((model for model in _MODELS if _is_for(raw, model)), None)
    if not backbone.family.task_model:  # transformers has no class of it that config.json could name
        model = words_for(backbone.family.task).model
    if not backbone.family.head.modules or model is None:
        return None
    tags = model == "TokenClassification"
    weight = f"{backbone.head(1, tokens=tags).modules[-1]}.weight"
    if weight not in tensors and not backbone.family.task_model:  # nor does anything say that it has a head
        return None
    if weight not in tensors or not tensors[weight].shape:
        raise _Unfit(f"it has no {weight}")
    classes = tensors[weight].shape[0]
    head = backbone.head(classes, tokens=tags)
    site = head.select(backbone.sites)[0]
    blank, fixed = head.identity(site, classes)
    wanted = {key: like.shape for key, like in HeadDialect(head).tensors(site, blank).items()}
    for key, shape in wanted.items():
        if key not in tensors or tensors[key].shape != shape:
            raise _Unfit(f"it has no {key} of shape {shape}")
    problem = None if tags or raw.get("problem_type") is None else str(raw["problem_type"])
    usual = task_in_transformers(model, "regression") if classes == 1 else None
    task = task_in_transformers(model, problem) or usual or backbone.family.task
    numbers = words_for(task).outputs == 1
    if numbers != (classes == 1) and task not in ("tag", "multilabel"):
        raise _Unfit(f"{problem or task} with {classes} classes is not supported")
    labels = _labels(raw, classes)
    read = {key: np.asarray(tensors[key]).astype(np.float32) for key in wanted}
    for key, tensor in read.items():
        if not all_finite(tensor):
            raise GraftaxError(f"the weights are damaged: {key} holds NaN or infinite numbers.")
    leaves = {leaf: np.ascontiguousarray(array) for leaf, array in HeadDialect(head).leaves(site, read).items()}
    states = {head.key: {site: (leaves, {leaf: np.asarray(array) for leaf, array in fixed.items()})}}
    length = text_length(Path(backbone.directory)) if backbone.directory else None
    recipe = {} if length is None else {"max_length": length}
    return Adapter((head,), states, task, () if numbers else labels, backbone.fingerprint, recipe=recipe)


def _is_for(raw: Mapping[str, Any], model: str) -> bool:
    """Whether config.json says that the checkpoint is of that task model."""
    said = raw.get("architectures")
    return isinstance(said, list) and any(isinstance(name, str) and name.endswith(f"For{model}") for name in said)


def _labels(raw: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """Names of the classes, by index; those that transformers gives where the config has none."""
    indices = [str(i) for i in range(classes)]
    named = raw.get("id2label")
    if named is None:
        return tuple(f"LABEL_{i}" for i in indices)
    if not isinstance(named, dict) or {*named} != {*indices}:
        raise _Unfit(f"id2label in config.json does not name its {classes} classes")
    names = [str(named[i]) for i in indices]
    # ImageNet has a bird and a machine called crane: classes of one name are told apart by their numbers
    return tuple(name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names))
