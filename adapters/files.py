"""Adapter files: a directory that Hugging Face PEFT loads as it is, wherever PEFT has the method.

    adapter_config.json        PEFT's config; `"peft_type": "GRAFTAX"` with the methods' own fields where PEFT has no words
    adapter_model.safetensors  the trained tensors, at true size, under PEFT's keys
    graftax.json               what PEFT's files lack: task, label names, backbone fingerprint, metrics, recipe, checksum

A directory without graftax.json is read as PEFT's own, or as AdapterHub's (`hub/`). Reading is strict: a missing, extra or
misshapen tensor, a config key that would change the result, another backbone's fingerprint or a wrong checksum is an error that
names it. Nothing is ever unpickled, and no name found in a file is imported or evaluated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import disk
from ..errors import GraftaxError
from .adapter import Adapter, SiteStates
from .head import FIRST, Head
from .method import MODEL_PREFIX, Leaves, Method, file_key
from .peft import CONV1D_TYPES, PROMPT_TYPES, refuse_leftovers
from .registry import METHODS, method_class
from .sites import LM_HEAD, Site
from .trainable_tokens import ROWS

if TYPE_CHECKING:
    from ..models.backbone import Backbone

CONFIG, WEIGHTS, EXTRA = "adapter_config.json", "adapter_model.safetensors", "graftax.json"
HUB_WEIGHTS = "adapter.safetensors"  # of a directory of AdapterHub's (`hub/`), whose config has the same name
HUB_SETUP, HUB_FUSION = "adapter_setup.json", "adapter_fusion_config.json"  # of its fusions (`hub/fusion.py`)
SCHEMA = 1
_TASK_TYPES = {"classify": "SEQ_CLS", "multilabel": "SEQ_CLS", "regress": "SEQ_CLS", "tag": "TOKEN_CLS"}
_LANGUAGE = {"lm": "CAUSAL_LM", "sft": "CAUSAL_LM", "dpo": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}  # without a head
_TASK_TYPES |= _LANGUAGE
_TASKS = {"TOKEN_CLS": "tag", "CAUSAL_LM": "lm", "SEQ_2_SEQ_LM": "seq2seq"}  # what a PEFT directory is for; else classify


def save_adapter(adapter: Adapter, directory: str | Path, backbone: Backbone, *, overwrite: bool = False) -> Path:
    """Write an adapter atomically; an existing directory is an error unless `overwrite`."""
    from safetensors.numpy import save

    adapter = adapter.finished()
    config = _peft_config(adapter, backbone) or _own_config(adapter)
    data = save(_tensors(adapter, config["peft_type"]), metadata={"format": "pt"})
    extra = {
        "schema": SCHEMA,
        "task": adapter.task,
        "labels": list(adapter.labels),
        "backbone": {"name": backbone.name, "model_type": backbone.family.model_types[0], "fingerprint": adapter.fingerprint},
        "parameters": adapter.parameters,
        "metrics": dict(adapter.metrics),
        "recipe": dict(adapter.recipe),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    if config["peft_type"] != "GRAFTAX":  # PEFT's words say less than our fields; ours hold while its file is as written here
        extra |= {"methods": _written(adapter.methods), "config_sha256": hashlib.sha256(_dump(config).encode()).hexdigest()}
    with disk.new_directory(Path(directory), overwrite) as draft:
        (draft / WEIGHTS).write_bytes(data)
        (draft / CONFIG).write_text(_dump(config), "utf-8")
        (draft / EXTRA).write_text(_dump(extra), "utf-8")
    return Path(directory)


def load_adapter(directory: str | Path, backbone: Backbone, *, any_backbone: bool = False) -> Adapter:
    """Read an adapter for a backbone, strictly (see the module's docstring).

    `any_backbone=True` skips the fingerprint's comparison; names and shapes must fit all the same.
    """
    directory = Path(directory)
    if is_fusion(directory):
        from . import hub  # which is made of what is in this file

        return hub.read_fusion(directory, backbone)
    config, extra, data = read_directory(directory)
    if from_hub(config):
        from . import hub

        return hub.read_adapter(config, parse_tensors(data, directory / HUB_WEIGHTS), directory, backbone)
    trained_on = extra.get("backbone", {})
    if not any_backbone and trained_on.get("fingerprint") not in (None, backbone.fingerprint):
        raise GraftaxError(
            f"{directory}: made for another backbone ({trained_on.get('name')}, fingerprint "
            f"{trained_on['fingerprint'][:12]}; this one is {backbone.name}, {backbone.fingerprint[:12]})."
        )
    tensors = parse_tensors(data, directory / WEIGHTS)
    prompt = config.get("peft_type") in PROMPT_TYPES
    tensors = {_long_key(key) if prompt and key.startswith("base_model.") else key: t for key, t in tensors.items()}
    tensors = _without_base(tensors, backbone, directory)
    if extra.get("methods") and extra.get("config_sha256") == hashlib.sha256((directory / CONFIG).read_bytes()).hexdigest():
        methods = _own_methods(extra["methods"], directory)
    else:
        methods = _methods(config, tensors, backbone, directory)
    adapter = Adapter(
        methods=methods,
        states=states_of(methods, tensors, backbone.sites_for(_head_of(methods)), directory),
        task=extra.get("task") or _TASKS.get(str(config.get("task_type")), "classify"),
        labels=tuple(extra.get("labels", ())),
        fingerprint=trained_on.get("fingerprint"),
        metrics=extra.get("metrics", {}),
        recipe=extra.get("recipe", {}),
    )
    return adapter.finished()


def read_directory(directory: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Config, extra facts (empty for PEFT's own directories) and the bytes of the weights, checksum verified."""
    if not directory.is_dir():
        raise GraftaxError(f"{directory}: no such adapter directory.")
    config = read_json(directory / CONFIG)
    extra = read_json(directory / EXTRA) if (directory / EXTRA).exists() else {}
    if extra.get("schema", SCHEMA) != SCHEMA:
        raise GraftaxError(f"{directory / EXTRA}: schema {extra['schema']} was written by a newer graftax; update it.")
    weights, pickle, advice = WEIGHTS, "adapter_model.bin", ""
    if from_hub(config):
        weights, pickle, advice = HUB_WEIGHTS, "pytorch_adapter.bin", "; docs/files.md says how to convert it"
    if not (directory / weights).is_file():
        if (directory / pickle).exists():
            raise GraftaxError(f"{directory}: its weights are a pickle ({pickle}), which graftax never reads{advice}.")
        raise GraftaxError(f"{directory}: no {weights} there.")
    data = (directory / weights).read_bytes()
    if extra.get("sha256") not in (None, hashlib.sha256(data).hexdigest()):
        raise GraftaxError(f"{directory / WEIGHTS}: damaged, its checksum is not the one {EXTRA} records.")
    return config, extra, data


def is_fusion(directory: Path) -> bool:
    """Whether a directory is AdapterHub's AdapterFusion, or the setup of one."""
    return any((directory / name).is_file() for name in (HUB_SETUP, HUB_FUSION))


def from_hub(config: Mapping[str, Any]) -> bool:
    """Whether a config is one of AdapterHub's."""
    return "config" in config and "peft_type" not in config


# -- writing ----------------------------------------------------------------------------------------------------------


def _peft_config(adapter: Adapter, backbone: Backbone) -> dict[str, Any] | None:
    """PEFT's config, where PEFT can express the adapter."""
    body = [m for m in adapter.methods if not isinstance(m, Head)]
    head = _head_of(adapter.methods)
    if len(body) != 1 or body[0].peft_type is None or (head is not None and head.site == FIRST):
        return None
    chosen = list(adapter.states[body[0].key])
    kind = _TASK_TYPES[adapter.task]
    if body[0].peft_task not in (None, kind):
        return None
    fields, conv1d = body[0].to_peft(chosen, backbone.sites), any(site.conv1d for site in chosen)
    if conv1d and body[0].peft_type not in CONV1D_TYPES:
        return None
    if fields is None or (body[0].peft_type == "PREFIX_TUNING" and not backbone.family.past_key_values):
        return None
    return {
        "peft_type": body[0].peft_type,
        "task_type": kind if head or adapter.task in _LANGUAGE else "FEATURE_EXTRACTION",
        "base_model_name_or_path": backbone.name,
        "inference_mode": True,
        **({"modules_to_save": sorted({_top(module) for module in head.modules})} if head else {}),
        **fields,
        **({"fan_in_fan_out": True} if conv1d else {}),
    }


def _top(module: str) -> str:
    """The module PEFT saves whole: "classifier" for RoBERTa's classifier.dense, bert.pooler for its dense layer."""
    first, *rest = module.split(".")
    return first if first in ("classifier", "pre_classifier") else ".".join([first, *rest[:1]])


def _own_config(adapter: Adapter) -> dict[str, Any]:
    return {"peft_type": "GRAFTAX", "task_type": _TASK_TYPES[adapter.task], "methods": _written(adapter.methods)}


def _written(methods: Sequence[Method]) -> list[dict[str, Any]]:
    return [{"method": m.name, **_fields(m)} for m in methods]


def _fields(method: Method) -> dict[str, Any]:
    return {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}


def _tensors(adapter: Adapter, peft_type: str) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for method in adapter.methods:
        states = adapter.states[method.key].items()
        exported = method.export({s: own | {name: fixed[name] for name in method.buffers(s)} for s, (own, fixed) in states})
        if isinstance(method, Head) and peft_type in PROMPT_TYPES:
            exported = {key.replace(MODEL_PREFIX, "base_model.", 1): tensor for key, tensor in exported.items()}
        tensors |= exported
    return tensors


def _long_key(key: str) -> str:
    return key.replace("base_model.", MODEL_PREFIX, 1)


def _dump(content: Any) -> str:
    return json.dumps(dict(sorted(content.items())), indent=2) + "\n"  # not sort_keys: the first rank pattern that matches wins


# -- reading ----------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise GraftaxError(f"{path.parent}: no adapter there, it has no {path.name}.") from error
    except ValueError as error:
        raise GraftaxError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise GraftaxError(f"{path}: expected a JSON object.")
    return content


def parse_tensors(data: bytes, file: Path) -> dict[str, np.ndarray]:
    """The tensors in the bytes of a weights file; floats as float32."""
    import ml_dtypes
    from safetensors import SafetensorError, deserialize

    floats = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
    dtypes = floats | {"I32": np.int32, "I64": np.int64}
    try:
        views = dict(deserialize(data))  # not safetensors.numpy.load, which has no bfloat16
    except (SafetensorError, ValueError) as error:
        raise GraftaxError(f"{file}: corrupt or truncated safetensors file ({error}).") from error
    wrong = [f"{key} ({view['dtype']})" for key, view in views.items() if view["dtype"] not in dtypes]
    if wrong:
        raise GraftaxError(f"{file}: tensors that are neither floats nor integers: {', '.join(wrong)}.")
    tensors = {key: np.frombuffer(view["data"], dtypes[view["dtype"]]).reshape(view["shape"]) for key, view in views.items()}
    return {key: tensor.astype(np.float32) if views[key]["dtype"] in floats else tensor for key, tensor in tensors.items()}


def _without_base(tensors: dict[str, np.ndarray], backbone: Backbone, directory: Path) -> dict[str, np.ndarray]:
    """Less what PEFT saves beside an adapter of a language model's embeddings.

    That is the frozen weights, which must be this one's, and trained rows again at a projection that is the words' table.
    """
    kept = dict(tensors)
    if getattr(backbone.config, "tied", False):
        kept.pop(f"{MODEL_PREFIX}{LM_HEAD}.{ROWS}", None)
    for site in backbone.sites:
        key = file_key(site, "base_layer.weight")
        if key in kept and site.kind in ("linear", "embedding"):
            frozen, tensor = site.weights()[0], kept.pop(key)
            like = frozen.T if site.kind == "linear" and not site.conv1d else frozen
            if tensor.shape != like.shape or not np.allclose(tensor, like, rtol=2**-8, atol=1e-7):  # bfloat16 rounds by less
                raise GraftaxError(f"{directory}: {key} is not this backbone's weight: it was trained or resized.")
    return kept


def _methods(
    config: dict[str, Any], tensors: Mapping[str, np.ndarray], backbone: Backbone, directory: Path
) -> tuple[Method, ...]:
    config = dict(config)
    peft_type = config.get("peft_type")
    if peft_type == "GRAFTAX":
        return _own_methods(config.get("methods"), directory)
    readers = [m for m in METHODS.values() if m.reads(config)]
    if not readers:
        known = ", ".join(dict.fromkeys(m.peft_type for m in METHODS.values() if m.peft_type))
        raise GraftaxError(f"{directory}: peft_type {peft_type!r} is not supported; supported are {known}.")
    cls = max(readers, key=lambda m: len(m.__mro__))  # the most special: a DoRA's config is a LoRA's too
    config.pop("modules_to_save", None)  # the tensors say what was saved
    head = _peft_head(tensors, config.get("task_type"), backbone, directory)
    sites = [s for s in backbone.sites_for(*head) if s.kind in cls.acts_on]
    try:
        body = cls.from_peft(config, sites)
    except (TypeError, ValueError, AttributeError) as error:  # values of a type that PEFT never writes
        raise GraftaxError(f"{directory / CONFIG}: not a sound config: {error}.") from error
    refuse_leftovers(config, f"{directory / CONFIG}")
    return (body, *head)


def _head_of(methods: Sequence[Method]) -> Head | None:
    return next((m for m in methods if isinstance(m, Head)), None)


def _own_methods(written: Any, directory: Path) -> tuple[Method, ...]:
    if not isinstance(written, list) or not all(isinstance(fields, dict) for fields in written):
        raise GraftaxError(f"{directory / CONFIG}: its methods are no list of configs.")
    try:
        return tuple(_own_method(fields, directory) for fields in written)
    except TypeError as error:
        raise GraftaxError(f"{directory / CONFIG}: not a sound config: {error}.") from error


def _own_method(fields: dict[str, Any], directory: Path) -> Method:
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    cls = method_class(fields.pop("method", ""))
    unknown = fields.keys() - {field.name for field in dataclasses.fields(cls)}
    if unknown:
        raise GraftaxError(f"{directory / CONFIG}: {cls.name} has no field {', '.join(sorted(unknown))}.")
    return cls(**fields)


def _peft_head(
    tensors: Mapping[str, np.ndarray], task_type: str | None, backbone: Backbone, directory: Path
) -> tuple[Head, ...]:
    """The head of a PEFT directory, sized by its classifier; none where the file has no classifier."""
    if not backbone.family.head.modules and task_type not in ("SEQ_CLS", "TOKEN_CLS"):
        return ()
    head = backbone.head(labels=1, tokens=task_type == "TOKEN_CLS")
    kernel = tensors.get(f"{MODEL_PREFIX}{head.modules[-1]}.weight")
    if kernel is None:
        if task_type in ("SEQ_CLS", "TOKEN_CLS"):
            raise GraftaxError(f"{directory}: task {task_type} but no tensor {head.modules[-1]}.weight; a head is needed.")
        return ()
    return (dataclasses.replace(head, labels=kernel.shape[0]),)


def _kind(tensor: np.ndarray) -> str:
    """A dtype in the words of safetensors: F32, I32, I64."""
    return f"{tensor.dtype.kind.upper()}{8 * tensor.dtype.itemsize}"


def states_of(
    methods: Sequence[Method],
    tensors: Mapping[str, np.ndarray],
    sites: Sequence[Site],
    directory: Path,
    words: Mapping[str, Any] | None = None,
) -> SiteStates:
    """Leaves at every site; what is missing, extra or misshapen is named, all at once.

    `words`: by method key, what exports and restores in its place where the file is not in the method's own words.
    """
    words = words or {method.key: method for method in methods}
    blank = {method.key: {site: method.held(site) for site in method.select(sites)} for method in methods}
    expected: dict[str, np.ndarray] = {}
    for method in methods:
        expected |= words[method.key].export(blank[method.key])
    problems = [f"missing {key}" for key in sorted(expected.keys() - tensors.keys())]
    problems += [f"unexpected {key}" for key in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{key} has shape {tensors[key].shape}, expected {like.shape}"
        for key, like in expected.items()
        if key in tensors and tensors[key].shape != like.shape
    ]
    problems += [
        f"{key} ({_kind(tensors[key])}), expected {_kind(like)}"
        for key, like in expected.items()
        if key in tensors and tensors[key].dtype.kind != like.dtype.kind
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise GraftaxError(f"{directory}: tensors do not fit this backbone and config: {shown}.")
    states: SiteStates = {}
    for method in methods:
        restored: dict[Site, Leaves] = words[method.key].restore(blank[method.key], tensors)
        for site, leaves in restored.items():
            kept = method.buffers(site)
            trainable = {name: leaf for name, leaf in leaves.items() if name not in kept}
            fixed = method.fixed(site) | {name: leaves[name] for name in kept}
            states.setdefault(method.key, {})[site] = (trainable, fixed)
    return states
