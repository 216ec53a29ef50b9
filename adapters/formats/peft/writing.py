"""An adapter as PEFT writes it: the config and the tensors, where PEFT can express the adapter.

PEFT names one method. What an adapter holds beside it is written in PEFT's options where these can say it (`beside.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapter import Adapter
from ...fitting import head_of
from ...method import Method
from ...methods.adabn import AdaBN
from ...methods.bitfit import BitFit
from ...methods.dora import DoRA
from ...methods.full import Full
from ...methods.head import FIRST, OVER_MAPS, VECTOR, Head
from ...methods.joint_head import JointHead
from ...methods.trainable_tokens import TrainableTokens
from ...sites import IN_OUT, LM_HEAD, Site, of_texts
from ...task_words import words_for
from .beside import ADAPTER, WRAPPED, codecs_of, copies, copies_of
from .dialect import MODEL_PREFIX, file_key
from .dialect_table import dialect_of
from .loras import LoRADialect
from .shared_keys import PROMPT_TYPES

if TYPE_CHECKING:
    from ....models.backbone import Backbone


def config_of(adapter: Adapter, backbone: Backbone) -> dict[str, Any] | None:
    """PEFT's config of an adapter; None where PEFT cannot express it."""
    body, beside = _body_and_beside(adapter.methods)
    head = head_of(adapter)
    if body is None or isinstance(head, JointHead) or (head is not None and head.site in (FIRST, VECTOR, *OVER_MAPS)):
        return None
    dialect, task = dialect_of(body), words_for(adapter.task)
    if dialect.peft_type is None or dialect.task_type not in (None, task.peft):
        return None
    if dialect.peft_type in PROMPT_TYPES and not of_texts(backbone.sites):
        return None  # PEFT puts them in front of texts
    if not all(site.module for states in adapter.states.values() for site in states):
        return None
    chosen = list(adapter.states[body.key])
    fields = dialect.to_config(chosen, backbone.sites)
    conv1d = any(site.kind == "linear" and site.axes == IN_OUT for site in chosen)
    if (conv1d and not dialect.conv1d) or not all(map(dialect.has, chosen)):
        return None
    options = _options(beside, adapter.states, body, backbone.sites_for(head))
    if fields is None or options is None or (dialect.past_key_values and not backbone.family.past_key_values):
        return None
    modules = [*options.pop("modules_to_save", []), *({_top(module) for module in head.modules} if head else ())]
    return {
        "peft_type": dialect.peft_type,
        "task_type": task.peft if head or task.head is None else "FEATURE_EXTRACTION",
        "base_model_name_or_path": backbone.name,
        "inference_mode": True,
        **({"modules_to_save": sorted(modules)} if modules else {}),
        **fields,
        **options,
        **({"fan_in_fan_out": True} if conv1d else {}),
    }


def tensors_of(adapter: Adapter, backbone: Backbone) -> dict[str, np.ndarray]:
    """The tensors of an adapter that PEFT can express, by key."""
    body, beside = _body_and_beside(adapter.methods)
    assert body is not None
    codecs = codecs_of(adapter.methods)
    tensors = copies_of(site for method in beside if copies(method) for site in adapter.states[method.key])
    for method in adapter.methods:
        exported = codecs[method.key].export(adapter.held(method))
        if method in beside:
            exported = {_file_name(key, method, adapter.states[body.key]): tensor for key, tensor in exported.items()}
        if isinstance(method, Head) and dialect_of(body).peft_type in PROMPT_TYPES:
            exported = {key.replace(MODEL_PREFIX, "base_model.", 1): tensor for key, tensor in exported.items()}
        tensors |= exported
    return tensors


def _top(module: str) -> str:
    """The module PEFT saves whole: "classifier" for RoBERTa's classifier.dense, bert.pooler for its dense layer."""
    first, *rest = module.split(".")
    return first if first in ("classifier", "pre_classifier") else ".".join([first, *rest[:1]])


def _body_and_beside(methods: Sequence[Method]) -> tuple[Method | None, tuple[Method, ...]]:
    """The one method that PEFT's `peft_type` can name, and those beside it; None where there is no such one."""
    body = [m for m in methods if not isinstance(m, Head)]
    if len(body) == 1:
        return body[0], ()
    loras = [m for m in body if dialect_of(m).peft_type == LoRADialect.peft_type]
    beside = tuple(m for m in body if m not in loras)
    if len(loras) != 1 or not all(isinstance(m, Full | AdaBN | BitFit | TrainableTokens) for m in beside):
        return None, ()
    return loras[0], beside


def _options(beside: Sequence[Method], states: Mapping[str, Collection[Site]], body: Method, sites: Sequence[Site]) -> Any:
    """PEFT's options for the methods beside a LoRA, by name; None where PEFT has none for one of them."""
    options: dict[str, Any] = {}
    under = set(states[body.key])
    whole = {site for method in beside if copies(method) for site in states[method.key]}
    renewed = {site for method in beside if isinstance(method, AdaBN) for site in states[method.key]}
    for method in beside:
        acted_on = set(states[method.key])
        if copies(method):
            if acted_on & under:
                return None
            options["modules_to_save"] = sorted({site.path for site in acted_on} | {*options.get("modules_to_save", ())})
        elif isinstance(method, BitFit):
            said = _bias(acted_on, under, whole, sites)
            if said is None or acted_on & renewed or isinstance(body, DoRA):
                return None
            options["bias"] = said
        elif isinstance(method, TrainableTokens) and len(acted_on) == 1 and not acted_on & under:
            ((site,), ids) = (acted_on, list(method.ids))
            options["trainable_token_indices"] = {site.path: ids} if site.name == LM_HEAD else ids
        else:
            return None
    return options


def _bias(acted_on: set[Site], under: set[Site], whole: set[Site], sites: Sequence[Site]) -> str | None:
    """PEFT's word for these places of trained biases, beside a method at the places `under` and `whole` modules with theirs."""
    there = {site for site in sites if site.biased and site.kind in BitFit.acts_on}
    if acted_on | whole >= there:
        return "all"
    return "lora_only" if acted_on == there & under else None


def _file_name(key: str, method: Method, under: Collection[Site]) -> str:
    """The key, in a file of PEFT's, of a tensor of a method beside one that acts at the sites `under`."""
    module, _, suffix = key.rpartition(".")
    if isinstance(method, TrainableTokens):
        return f"{module}.{ADAPTER}.{suffix}"
    wrapped = isinstance(method, BitFit) and module in {file_key(site, "")[:-1] for site in under}
    return f"{module}.{WRAPPED}.{suffix}" if wrapped else key
