"""Adapter files: a directory that Hugging Face PEFT loads as it is, wherever PEFT has the method.

    adapter_config.json        PEFT's config; `"peft_type": "GRAFTAX"` with the methods' own fields where PEFT has no words
    adapter_model.safetensors  the trained tensors, at true size, under PEFT's keys
    graftax.json               what PEFT's files lack: task, label names, backbone fingerprint, metrics, recipe, checksum

A directory without graftax.json is read as PEFT's own (`formats/peft/`), or as AdapterHub's (`formats/adapterhub/`). Reading is
strict: a missing, extra or misshapen tensor, a config key that would change the result, another backbone's fingerprint or a
wrong checksum is an error that names it. Nothing is ever unpickled, and no name found in a file is imported or evaluated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import disk
from ..errors import GraftaxError
from ..notes import note
from ..typed import Location, Name, checked, held
from .adapter import Adapter
from .directory import CONFIG, HUB_WEIGHTS, MARKS, WEIGHTS, Codec, from_hub, is_fusion, parse_tensors, read_directory, states_of
from .facts import EXTRA, Facts, TrainedOn, dumped, written
from .fitting import length_for, refuse_task, refuse_unfit
from .formats import adapterhub
from .formats.peft import beside as peft_beside
from .formats.peft import reading as peft_reading
from .formats.peft import writing as peft_writing
from .formats.peft.dialect_table import dialect_of
from .formats.peft.shared_keys import check_config
from .located import locate
from .method import Method
from .methods.head import Head
from .methods.named import method_from
from .task_words import words_for

if TYPE_CHECKING:
    from ..models.backbone import Backbone


@held
def save_adapter(adapter: Adapter | Location, directory: Location, backbone: Backbone, *, overwrite: bool = False) -> Path:
    """Write an adapter, whole or not at all, and return its directory.

    Args:
        adapter: of any methods, in memory or its directory; where PEFT has the method the files are PEFT's (docs/files.md).
        directory: to be made; its parents too.
        backbone: the one it was trained on, whose name and fingerprint are noted.
        overwrite: replace the directory if it exists.

    Raises:
        GraftaxError: an adapter that is not this backbone's or not finite; the directory exists and `overwrite` is not given;
            the disk is full.
    """
    from safetensors.numpy import save

    adapter = adapter_for(backbone, adapter, name=f"{directory}: not saved")
    adapter = adapter.finished()
    config = peft_writing.config_of(adapter, backbone)
    tensors = _own_tensors(adapter) if config is None else peft_writing.tensors_of(adapter, backbone)
    config = config or _own_config(adapter)
    data = save(tensors, metadata={"format": "pt"})
    facts = Facts(
        task=adapter.task,
        labels=tuple(adapter.labels),
        backbone=TrainedOn(backbone.name, backbone.family.model_types[0], adapter.fingerprint),
        parameters=adapter.parameters,
        metrics=dict(adapter.metrics),
        recipe=dict(adapter.recipe),
        data=adapter.data,
        parents=adapter.parents,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    if config["peft_type"] != "GRAFTAX":  # PEFT's words say less than our fields; ours hold while its file is as written here
        own, digest = tuple(_written(adapter.methods)), hashlib.sha256(dumped(config).encode()).hexdigest()
        facts = dataclasses.replace(facts, methods=own, config_sha256=digest)
    texts = {CONFIG: dumped(config), EXTRA: written(facts)}
    with disk.new_directory(Path(directory), overwrite, MARKS) as draft:
        (draft / WEIGHTS).write_bytes(data)
        for name, text in texts.items():
            (draft / name).write_text(text, "utf-8")
    return Path(directory)


@held
def export_adapter(
    adapter: Adapter | Location, directory: Location, backbone: Backbone, *, name: Name | None = None, overwrite: bool = False
) -> Path:
    """Write an adapter as AdapterHub's `adapters` saves it, whole or not at all, and return its directory.

    Those files have no place for the length at which texts are cut; a note says it.

    Args:
        adapter: in memory or its directory; of methods that library has, as docs/files.md lists them.
        directory: to be made.
        backbone: BERT, RoBERTa or XLM-R.
        name: the adapter's there; default the directory's.
        overwrite: replace the directory if it exists.

    Raises:
        GraftaxError: what that library cannot say; the directory exists and `overwrite` is not given.
    """
    adapter = adapter_for(backbone, adapter, name=f"{directory}: not saved")
    directory = Path(directory)
    files = adapterhub.files_of(adapter, name or directory.name, backbone)
    with disk.new_directory(directory, overwrite, MARKS) as draft:
        for file, content in files.items():
            (draft / file).parent.mkdir(exist_ok=True)
            (draft / file).write_bytes(content)
    most = backbone.config.max_tokens
    if "max_length" in adapter.recipe and (length := length_for(adapter, backbone, most)) < most:
        note(f"{directory}: no file there says that it reads {length} tokens of a text; cut them there (max_length).")
    return directory


@held
def load_adapter(directory: Location, backbone: Backbone, *, revision: str = "main", any_backbone: bool = False) -> Adapter:
    """Read an adapter for a backbone, strictly (see the module's docstring); its arrays are float32 NumPy arrays on the host.

    Args:
        directory: graftax's, PEFT's or AdapterHub's, or as a text a Hub id ("user/adapter").
        backbone: the one it is for.
        revision: of the Hub repository: a branch, a tag, or (pinned) a commit.
        any_backbone: do not compare fingerprints; names and shapes must fit all the same. Of one that was made for another
            backbone the fingerprint is forgotten: it is this one's from here on.

    Raises:
        GraftaxError: no adapter there, weights that are a pickle, damaged or unfit, a setting that graftax does not know.
    """
    located = locate(directory, revision)
    with located.named():
        return _load(located.directory, backbone, any_backbone)


def _load(directory: Path, backbone: Backbone, any_backbone: bool) -> Adapter:
    """As `load_adapter`, of a directory on this machine."""
    if is_fusion(directory):
        return _fitting(adapterhub.read_fusion(directory, backbone, load_adapter), backbone, directory)
    config, found, data = read_directory(directory)
    if from_hub(config):
        read = adapterhub.read_adapter(config, parse_tensors(data, directory / HUB_WEIGHTS), directory, backbone)
        return _fitting(read, backbone, directory)
    facts = found or Facts()
    ours = config_is_ours(facts, directory)
    if not ours:
        check_config(config, f"{directory / CONFIG}")
    fingerprint = facts.backbone.fingerprint
    if not any_backbone and fingerprint not in (None, backbone.fingerprint):
        raise GraftaxError(
            f"{directory}: made for another backbone ({facts.backbone.name}, fingerprint "
            f"{str(fingerprint)[:12]}; this one is {backbone.name}, {backbone.fingerprint[:12]})."
        )
    tensors = parse_tensors(data, directory / WEIGHTS)
    where, peft = str(directory), config.get("peft_type") != "GRAFTAX"
    if peft:
        tensors = peft_reading.plain(config, tensors, backbone)
    own = own_methods(config, facts, directory, ours)
    if own is not None:
        methods = own
        if peft and any(map(peft_beside.copies, methods)):
            tensors = peft_beside.without_copies(methods, tensors, backbone.sites_for(_head_of(methods)))
    else:
        where = peft_reading.made_for(config, backbone, directory)
        methods, tensors = peft_reading.read(config, tensors, backbone, where)
    head = _head_of(methods)
    task = facts.task or peft_reading.task_of(config, backbone, head)
    refuse_task(task, facts.labels, head, str(directory))
    codecs = peft_beside.codecs_of(methods) if peft else _own_codecs(methods)
    adapter = Adapter(
        methods=methods,
        states=states_of(methods, tensors, backbone.sites_for(head), where, codecs, buffers=not peft),
        task=task,
        labels=facts.labels,
        fingerprint=fingerprint if fingerprint == backbone.fingerprint else None,
        metrics={name: math.nan if value is None else value for name, value in facts.metrics.items()},
        recipe=dict(facts.recipe),
        data=facts.data,
        parents=facts.parents,
        source=facts.sha256,
    )
    return adapter.finished()


def own_methods(config: Mapping[str, Any], facts: Facts, directory: Path, ours: bool) -> tuple[Method, ...] | None:
    """The methods of a directory, where they are said in graftax's words; None where PEFT's are all there is.

    `ours`: as of `config_is_ours`.
    """
    if facts.methods and ours:
        return _methods_of(facts.methods, directory / EXTRA)
    if config.get("peft_type") == "GRAFTAX":
        return _methods_of(config.get("methods"), directory / CONFIG)
    return None


def config_is_ours(facts: Facts, directory: Path) -> bool:
    """Whether PEFT's config is the one beside which the facts were written."""
    return facts.config_sha256 == hashlib.sha256((directory / CONFIG).read_bytes()).hexdigest()


def _fitting(adapter: Adapter, backbone: Backbone, directory: Path) -> Adapter:
    """An adapter of AdapterHub's that was checked for the backbone; the checks of other files are those of their own facts."""
    refuse_unfit(adapter, backbone, name=str(directory))
    return adapter


def adapter_for(
    backbone: Backbone, adapter: str | Path | Adapter, *, any_backbone: bool = False, name: str = "the adapter"
) -> Adapter:
    """The adapter that a caller means, checked for a backbone: one in memory, or the one in a directory or of a Hub id.

    Raises GraftaxError: as of `load_adapter`, and for one in memory that does not fit (`refuse_unfit`), which `name` begins.
    """
    if isinstance(adapter, str | Path):
        return load_adapter(adapter, backbone, any_backbone=any_backbone)
    refuse_unfit(adapter, backbone, any_backbone=any_backbone, name=name)
    return adapter


# -- writing ----------------------------------------------------------------------------------------------------------


def _own_config(adapter: Adapter) -> dict[str, Any]:
    return {"peft_type": "GRAFTAX", "task_type": words_for(adapter.task).peft, "methods": _written(adapter.methods)}


def _written(methods: Sequence[Method]) -> list[dict[str, Any]]:
    return [{"method": m.name, **_fields(m)} for m in methods]


def _fields(method: Method) -> dict[str, Any]:
    return {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}


def _own_tensors(adapter: Adapter) -> dict[str, np.ndarray]:
    codecs, tensors = _own_codecs(adapter.methods), dict[str, np.ndarray]()
    for method in adapter.methods:
        tensors |= codecs[method.key].export(adapter.held(method))
    return tensors


# -- reading ----------------------------------------------------------------------------------------------------------


def _own_codecs(methods: Sequence[Method]) -> dict[str, Codec]:
    """By method key, what makes tensors of leaves, and leaves of tensors, in graftax's own files."""
    return {method.key: dialect_of(method) for method in methods}


def _head_of(methods: Sequence[Method]) -> Head | None:
    return next((m for m in methods if isinstance(m, Head)), None)


def _methods_of(fields: Any, file: Path) -> tuple[Method, ...]:
    """The methods whose fields a file lists."""
    methods = tuple(_method_of(own, file) for own in checked(fields, tuple[Mapping[str, Any], ...], f"{file}: methods"))
    keys = [method.key for method in methods]
    if not keys or len(set(keys)) < len(keys):
        raise GraftaxError(f"{file}: an adapter has methods, each once: {', '.join(keys) or 'none'}.")
    return methods


def _method_of(fields: Mapping[str, Any], file: Path) -> Method:
    where = f"{file}: methods"
    name = checked(fields.get("method"), str, f"{where}: method")
    return method_from(name, {field: value for field, value in fields.items() if field != "method"}, where)
