"""An adapter's directory of PEFT's own: which methods it holds, what it is for, and whom.

`shared_keys.py` has the rule for reading its config; what becomes a method's fields is read by the method's dialect
(`dialect.py`). What PEFT's options train beside the method is read by `beside.py`, and an adapter of a bare model by `bare.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ....errors import GraftaxError
from ...directory import CONFIG
from ...method import Method
from ...methods.head import Head
from ...task_words import task_in_peft
from . import bare as peft_bare
from . import beside as peft_beside
from .dialect import MODEL_PREFIX
from .dialect_table import dialect_for
from .shared_keys import PROMPT_TYPES, refuse_leftovers

if TYPE_CHECKING:
    from ....models.backbone import Backbone

_TASK_OF_CLASS = {"SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS"}  # by what follows "For"


def plain(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], backbone: Backbone) -> dict[str, np.ndarray]:
    """The tensors of a file under the names that every method knows: the task model's modules, behind one prefix."""
    if config.get("peft_type") in PROMPT_TYPES:  # a head's prefix is shorter there
        heads = {key for key in tensors if key.startswith("base_model.")}
        tensors = {key.replace("base_model.", MODEL_PREFIX, 1) if key in heads else key: t for key, t in tensors.items()}
    tensors = {backbone.family.called(key): tensor for key, tensor in tensors.items()}
    return peft_beside.plain(tensors, backbone)


def made_for(config: Mapping[str, Any], backbone: Backbone, directory: Path) -> str:
    """The directory, for errors, and both backbones: the one that PEFT's config says it is for, and this one."""
    base = config.get("base_model_name_or_path")
    return f"{directory} (made for {base or 'a model that it does not name'}, read for {backbone.name})"


def task_of(config: Mapping[str, Any], backbone: Backbone, head: Head | None) -> str:
    """What a directory of PEFT's is for: what its head does; without one, what the backbone does."""
    if head is not None:
        return "tag" if _task_type(config) == "TOKEN_CLS" else backbone.family.task
    if backbone.generates:
        return "seq2seq" if backbone.family.encodes else "lm"
    return task_in_peft(config.get("task_type")) or ("classify" if backbone.family.head.sites else backbone.family.task)


def _task_type(config: Mapping[str, Any]) -> str | None:
    """PEFT's `task_type`; where it names no task, that of the class of the model it was trained on."""
    mapping = config.get("auto_mapping")
    if config.get("task_type") in (None, "FEATURE_EXTRACTION") and isinstance(mapping, dict):
        return _TASK_OF_CLASS.get(str(mapping.get("base_model_class")).rpartition("For")[2])
    return config.get("task_type")


def read(
    config: dict[str, Any], tensors: dict[str, np.ndarray], backbone: Backbone, where: str
) -> tuple[tuple[Method, ...], dict[str, np.ndarray]]:
    """The methods of a directory of PEFT's, and its tensors as these have them; errors begin with `where`."""
    try:
        return _read(dict(config), tensors, backbone)
    except GraftaxError as error:
        raise GraftaxError(f"{where}: {error}") from error


def _read(
    config: dict[str, Any], tensors: dict[str, np.ndarray], backbone: Backbone
) -> tuple[tuple[Method, ...], dict[str, np.ndarray]]:
    dialect = dialect_for(config)
    head = _head(config, tensors, backbone)
    every = backbone.sites_for(*head)
    sites = [site for site in every if site.kind in dialect.of.acts_on]
    if isinstance(ranks := config.get("rank_pattern"), dict):  # by whole names in some
        config["rank_pattern"] = {backbone.family.called(key): rank for key, rank in ranks.items()}
    try:
        if peft_bare.is_bare(tensors, backbone):
            config, tensors = peft_bare.in_task_model(config, tensors, backbone)
        peft_beside.target_tied(config, tensors)
        options = peft_beside.Options.pop(config)
        config = peft_beside.spared(config, options, sites)
        body = dialect.from_config(config, sites)
    except (TypeError, ValueError, AttributeError) as error:  # values of a type that PEFT never writes
        raise GraftaxError(f"{CONFIG} is not a sound config: {error}.") from error
    refuse_leftovers(config, CONFIG)
    body.select(every)  # an error where there is no such site
    beside, tensors = peft_beside.read(options, tensors, backbone, head[0] if head else None, body)
    return (body, *beside, *head), tensors


def _head(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], backbone: Backbone) -> tuple[Head, ...]:
    """The head of a PEFT directory, sized by its classifier; none where the file has no classifier."""
    task_type = config.get("task_type")
    needed = task_type in ("SEQ_CLS", "TOKEN_CLS")
    if not backbone.family.head.modules and not needed:
        return ()
    head = backbone.head(labels=1, tokens=_task_type(config) == "TOKEN_CLS")
    kernel = tensors.get(f"{MODEL_PREFIX}{head.modules[-1]}.weight")
    if kernel is None:
        if needed:
            raise GraftaxError(f"task {task_type} but no tensor {head.modules[-1]}.weight; a head is needed.")
        return ()
    return (dataclasses.replace(head, labels=len(kernel) if kernel.ndim else 1),)
