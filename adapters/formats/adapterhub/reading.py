"""Files of AdapterHub's library `adapters` (Poth et al., 2023, arXiv:2311.11077), read and written.

    adapter_config.json     {config: the method's settings, name, model_type, hidden_size, ...}
    adapter.safetensors     its tensors, the adapter's name in every key
    head_config.json        {config: {head_type, layers, use_pooler, label2id, ...}, ...}, where there is a head
    model_head.safetensors

`dialect_table.py` says what each method is called in that library; a fusion is several such directories (`fusions.py`). Reading
is as strict as with PEFT's files (`adapters/files.py`): a missing, extra or misshapen tensor, or a setting that would change
the result, is an error that names it. A head of another shape than this backbone's is left out, and a warning says so. Both
ways go for the model types in `FAMILIES`, whose modules have the names that transformers gives them there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ....errors import GraftaxError
from ....typed import checked
from ...adapter import Adapter
from ...directory import CONFIG, HUB_WEIGHTS, parse_tensors, read_json, states_of
from ...method import Leaves, Method, States
from ...methods.head import FIRST, TOKENS, Head
from ...sites import Site
from ..peft import heads as in_peft
from .dialect import Context, Dialect
from .dialect_table import dialect_of, read_methods

if TYPE_CHECKING:
    from ....models.backbone import Backbone

HEAD_CONFIG, HEAD_WEIGHTS = "head_config.json", "model_head.safetensors"
FAMILIES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta"}  # model type -> how its classes' names begin
VERSION = "adapters.1.3.0"  # the one whose source and files this was compared with
_TASKS = {"classification": "classify", "multilabel_classification": "multilabel", "tagging": "tag"}


# -- reading ----------------------------------------------------------------------------------------------------------


def read_adapter(config: Mapping[str, Any], tensors: dict[str, np.ndarray], directory: Path, backbone: Backbone) -> Adapter:
    """The adapter of a directory that `files.load_adapter` has opened."""
    where, settings, name = f"{directory / CONFIG}", config.get("config"), config.get("name")
    if not isinstance(settings, dict) or not isinstance(name, str):
        raise GraftaxError(f"{where}: expected the settings of an adapter under config, and its name.")
    check_backbone(config, backbone, where)
    tensors, found = of_task_model(tensors, backbone), read_head(directory, backbone)
    context = Context(backbone.sites_for(found.head if found else None), backbone.family.prefix, name, where)
    try:
        dialects = read_methods(dict(settings), context, _faulty_scale(config.get("version")))
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # values of a type that the library never writes
        raise GraftaxError(f"{where}: not a sound config: {error}.") from error
    for part in dialects:
        tensors = part.simplified(tensors)
    spoken: dict[str, Any] = {part.method.key: part for part in dialects}
    methods: tuple[Method, ...] = tuple(part.method for part in dialects)
    if len(spoken) < len(dialects):
        raise GraftaxError(f"{where}: two parts of a union are one method here ({', '.join(m.name for m in methods)}).")
    return with_head(methods, spoken, tensors, found, context.sites, directory)


def with_head(
    methods: tuple[Method, ...],
    spoken: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    found: FoundHead | None,
    sites: Sequence[Site],
    directory: Path,
) -> Adapter:
    """The adapter of these methods and the head that was found; `spoken`: their dialects by method key."""
    if found is None:
        return Adapter(methods, states_of(methods, tensors, sites, directory, spoken))
    spoken = {**spoken, found.head.key: HeadDialect(found.head, found.modules)}
    states = states_of((*methods, found.head), {**tensors, **found.tensors}, sites, directory, spoken)
    return Adapter((*methods, found.head), states, task=found.task, labels=found.labels)


def of_task_model(tensors: dict[str, np.ndarray], backbone: Backbone) -> dict[str, np.ndarray]:
    """Under the keys of a task model, also where the encoder alone was saved."""
    prefix = backbone.family.prefix + "."
    if any(key.startswith(prefix) for key in tensors):
        return tensors
    return {prefix + key: tensor for key, tensor in tensors.items()}


def check_backbone(config: Mapping[str, Any], backbone: Backbone, where: str) -> None:
    known(backbone)
    kind, size = config.get("model_type"), config.get("hidden_size")
    if kind not in backbone.family.model_types or size not in (None, backbone.config.hidden_size):
        own = f"{known(backbone)} of hidden size {backbone.config.hidden_size}"
        raise GraftaxError(f"{where}: made for {kind} of hidden size {size}; this backbone is {own}.")


def known(backbone: Backbone) -> str:
    """The backbone's model type; an error where its modules' names in that library are not known here."""
    kind = (backbone.hf_config or {}).get("model_type", backbone.family.model_types[0])
    if kind not in FAMILIES:
        raise GraftaxError(f"files of `adapters` are read and written for {', '.join(FAMILIES)}; this backbone is {kind}.")
    return kind


def _faulty_scale(version: Any) -> bool:
    """Whether a file's release, one before 1.1, trained LoRA at the scale 1 whatever its alpha."""
    number = version.removeprefix("adapters.").split(".") if isinstance(version, str) else []
    return len(number) > 1 and number[0].isdigit() and number[1].isdigit() and (int(number[0]), int(number[1])) < (1, 1)


class FoundHead(NamedTuple):
    """A head that is one of this backbone's."""

    head: Head
    modules: tuple[str, ...]  # what the file calls its matrices
    tensors: dict[str, np.ndarray]
    labels: tuple[str, ...]
    task: str


def read_head(directory: Path, backbone: Backbone) -> FoundHead | None:
    """The head, where there is one and it is one of this backbone's."""
    file = directory / HEAD_WEIGHTS
    if not os.path.lexists(directory / HEAD_CONFIG):
        return None
    if not file.is_file():
        _warn(directory, f"there is {HEAD_CONFIG} but no {HEAD_WEIGHTS}")
        return None
    envelope, tensors = read_json(directory / HEAD_CONFIG), parse_tensors(file.read_bytes(), file)
    where = f"{directory / HEAD_CONFIG}"
    settings = checked(envelope.get("config"), Mapping[str, Any] | None, f"{where}: config")
    if settings is None:  # of transformers' own task model, under its modules' names
        kind = "tagging" if str(envelope.get("model_class")).endswith("ForTokenClassification") else "classification"
        settings = {"label2id": envelope.get("label2id")}
        head = backbone.head(1, tokens=kind == "tagging")
        modules, fits = head.modules, {key.rpartition(".")[0] for key in tensors} == {*head.modules}
    else:
        kind = checked(settings.get("head_type"), str | None, f"{where}: head_type")
        fitting = [head for head in _heads(backbone, kind) if _shape(head, backbone).items() <= {**_SHAPE, **settings}.items()]
        fits, head = bool(fitting), fitting[0] if fitting else backbone.head(1)
        modules = _numbered(head, envelope.get("name"))
    if not fits:
        said = {key: settings[key] for key in sorted(settings.keys() - {"label2id", "dropout_prob"})} or sorted(tensors)
        _warn(directory, f"its head is none that graftax has on this backbone: {json.dumps(said)}")
        return None
    classes = len(tensors.get(f"{modules[-1]}.weight", ()))
    names = checked(settings.get("label2id"), Mapping[str, int] | None, f"{where}: label2id") or {}
    labels = tuple(sorted(names, key=names.__getitem__))
    task = "regress" if kind == "classification" and classes == 1 else _TASKS[kind]
    named = len(labels) == classes and task != "regress"
    return FoundHead(dataclasses.replace(head, labels=max(1, classes)), modules, tensors, labels if named else (), task)


def _warn(directory: Path, why: str) -> None:
    warnings.warn(f"{directory}: read without its head: {why}.", stacklevel=6)


def _numbered(head: Head, name: Any) -> tuple[str, ...]:
    """Modules of a head's matrices: their numbers in a sequence of dropout, matrix, activation, dropout, matrix."""
    return tuple(f"heads.{name}.{number}" for number in ((1,) if head.hidden == "none" else (1, 4)))


_SHAPE = {"layers": 2, "activation_function": "tanh", "use_pooler": False, "bias": True}  # where a config does not say


def _heads(backbone: Backbone, kind: Any) -> list[Head]:
    """The heads there are here: transformers', and where that one reads the pooler those that do not."""
    if kind not in _TASKS:
        return []
    own = backbone.head(1, tokens=kind == "tagging")
    if kind == "tagging" or own.hidden != "none":
        return [own]
    return [own, *(Head(site=FIRST, hidden=hidden, modules=modules) for hidden, modules in _FIRST_HEADS.items())]


_FIRST_HEADS = {"none": ("classifier",)} | dict.fromkeys(("tanh", "relu"), ("classifier.dense", "classifier.out_proj"))


def _shape(head: Head, backbone: Backbone) -> dict[str, Any]:
    """What a config says of such a head."""
    if head.site == TOKENS:
        return {"layers": 1}
    hidden = head.hidden != "none"
    pooled = backbone.family.head.features == "pooled" and not hidden and head.site != FIRST
    return {"layers": 1 + hidden, "use_pooler": pooled, "bias": True} | ({"activation_function": head.hidden} if hidden else {})


@dataclasses.dataclass(frozen=True)
class HeadDialect:
    """A head under the names of its modules there, which are the numbers of a sequence."""

    method: Head
    modules: tuple[str, ...]

    @property
    def renamed(self) -> in_peft.HeadDialect:
        return in_peft.HeadDialect(dataclasses.replace(self.method, modules=self.modules))

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        ((site, leaves),) = states.items()
        return {key: np.asarray(tensor, order="C") for key, tensor in self.renamed.tensors(site, leaves).items()}

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        return {site: self.renamed.leaves(site, tensors) for site in like}


# -- writing ----------------------------------------------------------------------------------------------------------


def method_files(parts: Sequence[tuple[Method, States]], name: str, backbone: Backbone) -> dict[str, bytes]:
    """The files of these methods as one adapter."""
    context = Context(backbone.sites, backbone.family.prefix, name, "`adapters`")
    dialects = [dialect_of(method, states, context) for method, states in parts]
    settings = _joined([(part, part.config(list(states))) for part, (_, states) in zip(dialects, parts, strict=True)])
    tensors: dict[str, np.ndarray] = {}
    for part, (_, states) in zip(dialects, parts, strict=True):
        tensors |= part.export(_trained(states))
    return {HUB_WEIGHTS: packed(tensors), CONFIG: dumped(envelope(name, backbone) | {"config": settings})}


def head_files(adapter: Adapter, head: Head, name: str, backbone: Backbone) -> dict[str, bytes]:
    exported = HeadDialect(head, _numbered(head, name)).export(_trained(adapter.states[head.key]))
    shape = _shape(head, backbone)
    head_type = {task: there for there, task in _TASKS.items()}.get(adapter.task, "classification")
    labels = adapter.labels if len(adapter.labels) == head.labels else tuple(f"LABEL_{i}" for i in range(head.labels))
    shape |= {"head_type": head_type, "num_labels": head.labels, "label2id": {label: i for i, label in enumerate(labels)}}
    settings = {"activation_function": "tanh", "dropout_prob": None, **shape}
    return {HEAD_WEIGHTS: packed(exported), HEAD_CONFIG: dumped(envelope(name, backbone) | {"config": settings})}


def envelope(name: str, backbone: Backbone) -> dict[str, Any]:
    """What that library writes around every config."""
    kind = known(backbone)
    return {
        "model_type": kind,
        "hidden_size": backbone.config.hidden_size,
        "model_name": backbone.name,
        "model_class": f"{FAMILIES[kind]}AdapterModel",
        "name": name,
        "version": VERSION,
    }


def _trained(states: States) -> dict[Site, Leaves]:
    return {site: own for site, (own, _) in states.items()}


def _joined(parts: list[tuple[Dialect, dict[str, Any]]]) -> dict[str, Any]:
    """One method's settings as they are, several as a union."""
    if not parts:
        raise GraftaxError("a head alone is no adapter there.")
    kinds = [settings.get("architecture") for _, settings in parts]
    if len(set(kinds)) < len(kinds):
        named = " and ".join(part.method.name for part, _ in parts)
        raise GraftaxError(f"`adapters` cannot hold {named} in one adapter: two of them are one architecture there.")
    return parts[0][1] if len(parts) == 1 else {"architecture": "union", "configs": [settings for _, settings in parts]}


def packed(tensors: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save(tensors, metadata={"format": "pt"})


def dumped(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
