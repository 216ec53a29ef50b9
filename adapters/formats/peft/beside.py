"""What PEFT's options train beside an adapter's method, and save with it: whole copies of frozen weights.

A directory of PEFT's names one method, its `peft_type`. Options add to it, and each is a method here:

    modules_to_save=["lm_head", ...]     path.weight, path.bias                        `Full` at those modules
    resized or saved embeddings          path.weight, path.base_layer.weight           the same, where not the backbone's own
    bias="all", bias="lora_only"         path.bias, path.base_layer.bias               `BitFit`
    trainable_token_indices=[...]        path.token_adapter.trainable_tokens_delta     `TrainableTokens`

So a LoRA with these beside it is written as PEFT's LoRA, too. PEFT's file holds the new weights W', `Full` and `BitFit` the
change D = W' - W; `Copies` goes between the two. The tensors say what was saved. Among them are weights that nobody trained
(PEFT saves an embedding that its method acts on), which are left out where they are the backbone's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np

from ....errors import GraftaxError
from ...directory import Codec
from ...method import Leaves, Method
from ...methods.adabn import AdaBN
from ...methods.bitfit import BitFit
from ...methods.dora import DoRA
from ...methods.full import Full
from ...methods.head import Head
from ...methods.lora import LoRA
from ...methods.trainable_tokens import TrainableTokens
from ...patterns import matches
from ...sites import ARRAYS, LM_HEAD, STATISTICS, WEIGHTS, Site
from .dialect import MODEL_PREFIX, file_key
from .dialect_table import dialect_of
from .in_place import ROWS
from .shared_keys import read_targets

if TYPE_CHECKING:
    from ....models.backbone import Backbone

Tensors = dict[str, np.ndarray]

_SUFFIX = {"kernel": "weight", "scale": "weight", "table": "weight", "bias": "bias"}  # by the field of a site's weights
WRAPPED = "base_layer"  # what PEFT calls the module itself where its method acts on it
ADAPTER = "token_adapter"  # what it calls trained rows beside another method
_INSERTED = frozenset((WRAPPED, ADAPTER))
_COPY = ".modules_to_save."  # what it calls a module's trained copy, which a file has under the module's own name
TRAINED = "num_batches_tracked"  # of a batch norm: the number of batches that its statistics were taken of
_TUNED = "ln_tuning_layers"  # what it calls the trained copy of a norm
_REPLACED = "original_module"  # and the module in whose place that answers


# -- a weight and its copy --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copies:
    """`Full` or `BitFit` in the words of PEFT's files: whole new weights under their modules' names."""

    method: Method

    def export(self, states: Mapping[Site, Leaves]) -> Tensors:
        return {
            file_key(site, _SUFFIX[field]): _saved(site, field, np.asarray(change))
            for site, leaves in states.items()
            for field, change in leaves.items()
        }

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        return {
            site: {field: _change(site, field, tensors[file_key(site, _SUFFIX[field])]) for field in leaves}
            for site, leaves in like.items()
        }


def codecs_of(methods: Sequence[Method]) -> dict[str, Codec]:
    """By method key, what exports and restores a method's leaves in a file of PEFT's."""
    return {m.key: Copies(m) if isinstance(m, Full | BitFit) else dialect_of(m) for m in methods}


def _saved(site: Site, field: str, change: Any = np.float32(0.0)) -> np.ndarray:
    """A weight of a site as torch has it, changed."""
    weight = getattr(site.weights(), field) + change
    return np.ascontiguousarray(site.as_stored(weight) if field == "kernel" else weight)


def _change(site: Site, field: str, saved: np.ndarray) -> np.ndarray:
    own = saved.transpose(site.axes) if field == "kernel" else saved
    return np.ascontiguousarray(own - getattr(site.weights(), field))


def copies(method: Method) -> bool:
    """Whether PEFT keeps a copy of the whole module where this one acts beside another (`modules_to_save`)."""
    return isinstance(method, Full | AdaBN)


def copies_of(sites: Iterable[Site]) -> Tensors:
    """Of the batch norms among sites what a file of PEFT's has, be it new or not: all that such a module holds, here frozen."""
    found: Tensors = {}
    for site in (site for site in sites if site.statistics):
        frozen, keys = site.weights(), _keys(site) | _statistics_keys(site)
        found |= {key: getattr(frozen, name) for name, key in keys.items()} | {file_key(site, TRAINED): np.array(0)}
    return found


def without_copies(methods: Sequence[Method], tensors: Tensors, sites: Sequence[Site]) -> Tensors:
    """The tensors of a file that was written here, less what `copies_of` put into it that none of its methods holds."""
    beside = {key for method in methods if copies(method) for key in copies_of(method.select(sites))}
    codecs = codecs_of(methods)
    held = {key for m in methods for key in codecs[m.key].export({site: m.held(site) for site in m.select(sites)})}
    return {key: tensor for key, tensor in tensors.items() if key in held or key not in beside}


def _statistics_keys(site: Site) -> dict[str, str]:
    return {name: file_key(site, f"running_{name}") for name in STATISTICS}


def _keys(site: Site) -> dict[str, str]:
    """The key of each of a site's weights, by its field."""
    fields = [field for field in ARRAYS[site.kind] if field != "bias" or site.biased]
    return {field: file_key(site, _SUFFIX[field]) for field in fields}


# -- reading ----------------------------------------------------------------------------------------------------------


class Options(NamedTuple):
    """What an `adapter_config.json` says of the weights beside its method."""

    bias: str
    modules: tuple[str, ...]  # PEFT saves every module whose path ends in one of these
    tokens: Any  # ids, or ids by module

    @classmethod
    def pop(cls, config: dict[str, Any]) -> Options:
        bias, modules = config.pop("bias", None) or "none", config.pop("modules_to_save", None) or ()
        if not isinstance(bias, str):
            raise TypeError(f"bias={bias!r}")
        if not isinstance(modules, list | tuple) or not all(isinstance(name, str) for name in modules):
            raise TypeError(f"modules_to_save={modules!r}")
        return cls(bias, tuple(modules), config.pop("trainable_token_indices", None))

    def saves(self, path: str) -> str | None:
        """The name among `modules` by which PEFT saves the module at a path, itself or in a larger one."""
        parts = path.split(".")
        ends = [".".join(parts[: i + 1]) for i in range(len(parts))]
        return next((name for name in self.modules if any(end.endswith(name) for end in ends)), None)


def target_tied(config: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Pop `ensure_weight_tying`: the method acts on the projection, too, where the file has its factors there."""
    said, targets = f"{MODEL_PREFIX}{LM_HEAD}.", config.get("target_modules")
    acts = any(key.startswith(said) and key.removeprefix(said) not in (*_SUFFIX.values(), ROWS) for key in tensors)
    if config.pop("ensure_weight_tying", False) and acts:
        config["target_modules"] = f"(?:{targets})|{LM_HEAD}" if isinstance(targets, str) else [*(targets or ()), LM_HEAD]


def spared(config: Mapping[str, Any], options: Options, sites: Sequence[Site]) -> dict[str, Any]:
    """The config with targets outside of the modules that are saved whole, where PEFT's method never acts."""
    if not options.modules or not config.get("target_modules"):
        return dict(config)
    rest = dict(config)
    targets = read_targets(rest, sites)
    chosen = [site.path for site in sites if targets and matches(targets, *site.paths)]
    outside = [path for path in chosen if not any(f".{name}." in f".{path}." for name in options.modules)]
    return dict(config) if outside == chosen else rest | {"target_modules": outside}


def plain(tensors: Mapping[str, np.ndarray], backbone: Backbone) -> Tensors:
    """The tensors of a file of PEFT's under the names that modules have in the base model.

    Of a table that also projects to the vocabulary, a file may hold one copy that stands for both places (a `base_layer`), or
    trained rows twice: here each place has its copy, and the rows are there once. Statistics of a batch norm have their names
    in the base model, wherever the file has a copy.
    """
    found = {}
    for key, tensor in tensors.items():
        parts = key.split(".")
        if parts[-1] == TRAINED:
            continue
        if parts[-1].removeprefix("running_") in STATISTICS:
            key = ".".join(part for part in parts if part not in (WRAPPED, _TUNED))
        if _REPLACED not in parts and not _is_repeated(key, tensor, tensors):
            found[key if _INSERTED.isdisjoint(parts) else ".".join(p for p in parts if p not in _INSERTED)] = tensor
    heads = [f"{MODEL_PREFIX}{module}.weight" for module in (*backbone.family.head.modules, backbone.family.head.tokens)]
    if not backbone.config.projecting_table or any(key in found for key in heads):  # beside a head there is no projection
        return found
    said = f"{MODEL_PREFIX}{LM_HEAD}"
    for read in (file_key(site, "")[:-1] for site in backbone.sites if site.role == "word_embeddings"):
        both = tensors.get(f"{read}.{WRAPPED}.weight", tensors.get(f"{said}.{WRAPPED}.weight"))
        if both is not None:
            found |= {f"{read}.weight": both, f"{said}.weight": both}
        if f"{read}.{ROWS}" in found:
            found.pop(f"{said}.{ROWS}", None)
    return found


def _is_repeated(key: str, tensor: np.ndarray, tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a tensor of a trained copy is in the file under its module's own name as well, as `bias="all"` has it.

    Where a saved module is within another one it is not, and what is under its own name there is nobody's.
    """
    module, copied, inner = key.partition(_COPY)
    own = (f"{module}.{name}" for name in (inner, inner.partition(".")[2]))  # the adapter's name stands in between, or does not
    return bool(copied) and any(name in tensors and np.array_equal(tensors[name], tensor) for name in own)


def read(
    options: Options, tensors: Tensors, backbone: Backbone, head: Head | None, body: Method
) -> tuple[tuple[Method, ...], Tensors]:
    """The methods beside `body`; and the tensors, which `plain` gave, without copies of what the backbone has itself.

    Raises GraftaxError, which names the option: weights that are missing, of another shape, or of no module here.
    """
    sites = [site for site in backbone.sites_for(head) if site.kind in WEIGHTS]
    _need(options, tensors, sites, body)
    renewed = [site for site in sites if site.statistics and _is_renewed(site, tensors, backbone.dtype)]
    rest = _without_constants(options, tensors, backbone, renewed)
    whole, biased = [], []
    for site in sites:
        saved = {field: rest.pop(key) for field, key in _keys(site).items() if key in rest}
        _check_shapes(site, saved)
        if all(_same(tensor, _saved(site, field), backbone.dtype) for field, tensor in saved.items()):
            continue
        if saved.keys() == {"bias"}:
            biased.append(site)
        else:
            whole.append(site)
            saved |= {field: _saved(site, field) for field in _keys(site) if field not in saved}
        rest |= {_keys(site)[field]: tensor for field, tensor in saved.items()}
    _refuse_unknown(options, rest, sites, head)
    methods: list[Method] = []
    if renewed:
        methods.append(AdaBN(targets=tuple(site.path for site in renewed)))
    if whole:
        methods.append(Full(targets=tuple(site.path for site in whole)))
    if biased:
        methods.append(BitFit(targets=tuple(site.path for site in biased)))
    if options.tokens:
        methods.append(_rows(options.tokens))
    _refuse_together(methods, body, sites)
    return tuple(methods), rest


def _need(options: Options, tensors: Tensors, sites: Sequence[Site], body: Method) -> None:
    """An error where an option says that a weight was saved which is not in the file."""
    saved = {site: options.saves(site.path) for site in sites}
    wanted = {key: f"modules_to_save={name!r}" for site, name in saved.items() if name for key in _keys(site).values()}
    if options.bias != "none":
        trained = sites if options.bias == "all" else body.select(sites)
        said = f"bias={options.bias!r}"
        wanted |= {file_key(site, "bias"): said for site in trained if site.biased and site.kind in BitFit.acts_on}
    missing = [f"{said} but no tensor {key}" for key, said in wanted.items() if key not in tensors]
    if missing:
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise GraftaxError(f"{'; '.join(missing[:3])}{more}.")


def _is_renewed(site: Site, tensors: Tensors, dtype: Any) -> bool:
    """Whether a file holds other statistics of a batch norm than the backbone does: PEFT trains with them in motion."""
    keys = _statistics_keys(site)
    saved = {name: tensors[key] for name, key in keys.items() if key in tensors}
    frozen = site.weights()
    for name, tensor in saved.items():
        if tensor.shape != site.shape:
            raise GraftaxError(f"{keys[name]} has shape {tensor.shape}; this backbone's has {site.shape}.")
    if all(_same(tensor, getattr(frozen, name), dtype) for name, tensor in saved.items()):
        return False
    if missing := [key for name, key in keys.items() if name not in saved]:
        raise GraftaxError(f"{site.path} has new statistics but no tensor {missing[0]}.")
    return True


def _without_constants(options: Options, tensors: Tensors, backbone: Backbone, renewed: Sequence[Site]) -> Tensors:
    """Less the weights of the base model at which no method acts (a table that both towers use): they must be this one's.

    `renewed`: batch norms whose statistics are not.
    """
    at_sites = {key for site in backbone.sites if site.kind in WEIGHTS for key in _keys(site).values()}
    at_sites |= {key for site in renewed for key in _statistics_keys(site).values()}
    kept = dict(tensors)
    for weight in backbone.weights:
        key = MODEL_PREFIX + (weight.key if weight.task else backbone.family.task_path(weight.key))
        if key in at_sites:
            continue
        module, _, suffix = key.removeprefix(MODEL_PREFIX).rpartition(".")
        acted = [own for own in kept if own.startswith(f"{MODEL_PREFIX}{module}.") and own != key and suffix == "weight"]
        if acted:
            raise GraftaxError(f"{module} is a table that both towers read, where no method acts: it has {min(acted)}.")
        if key not in kept:
            continue
        saved, own = kept.pop(key), backbone.float32(weight.name, weight.layer)
        if saved.shape != own.shape or not _same(saved, own, backbone.dtype):
            name = options.saves(module)
            said = f"modules_to_save={name!r}: " if name else ""
            raise GraftaxError(f"{said}{key} is not this backbone's weight, and no adapter can replace it. {_RESIZED}")
    return kept


_RESIZED = "An adapter of a resized vocabulary needs the backbone resized in the same way (docs/training.md)."


def _check_shapes(site: Site, saved: Mapping[str, np.ndarray]) -> None:
    for field, tensor in saved.items():
        shape = site.shape[-1:] if field == "bias" else site.shape
        if field == "kernel":
            shape = tuple(shape[axis] for axis in np.argsort(site.axes))
        if tensor.shape == shape:
            continue
        table = site.kind == "embedding" or site.name == LM_HEAD
        if table and tensor.ndim == 2 and tensor.shape[1:] == shape[1:]:
            counts = f"{site.path} has {len(tensor)} rows, and this backbone's has {shape[0]}"
            raise GraftaxError(f"made for another vocabulary: {counts}. {_RESIZED}")
        raise GraftaxError(f"holds {site.path} whole, with shape {tensor.shape}; this backbone's has {shape}.")


def _same(saved: np.ndarray, frozen: np.ndarray, dtype: Any) -> bool:
    """Whether a copy is the backbone's weight, as far as the precision of the file or that of the backbone tells."""
    with np.errstate(over="ignore"):
        for precision in (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)):
            rounded = saved.astype(precision)
            of_file = np.array_equal(rounded.astype(np.float32), saved)
            if (of_file or precision == dtype) and np.array_equal(rounded, frozen.astype(precision)):
                return True
    return False


def _rows(tokens: Any) -> TrainableTokens:
    by_module = tokens if isinstance(tokens, dict) else {None: tokens}
    lists = list(by_module.values())
    if not isinstance(lists[0], list):
        raise GraftaxError(f"trainable_token_indices={tokens!r} is no list of token ids.")
    if any(ids != lists[0] for ids in lists):
        raise GraftaxError(f"trainable_token_indices={tokens!r}: every module must have the same tokens.")
    targets = None if None in by_module else tuple(by_module)
    return TrainableTokens(ids=tuple(lists[0]), targets=targets)


def _refuse_unknown(options: Options, tensors: Tensors, sites: Sequence[Site], head: Head | None) -> None:
    """An error for tensors of modules that were saved whole and are neither here nor of a head that graftax has."""
    known = {key for site in sites for key in (*_keys(site).values(), *_statistics_keys(site).values())}
    heads = {f"{MODEL_PREFIX}{module}.{suffix}" for module in (head.modules if head else ()) for suffix in ("weight", "bias")}
    for key in sorted(tensors.keys() - known - heads):
        name = options.saves(key.removeprefix(MODEL_PREFIX).rpartition(".")[0])
        if name:
            raise GraftaxError(f"modules_to_save={name!r}: {key} is of no module of this backbone or its heads.")


def _refuse_together(methods: Sequence[Method], body: Method, sites: Sequence[Site]) -> None:
    """An error where a method would see the weights before they were changed, and PEFT's sees them afterwards."""
    for method in methods:
        if isinstance(method, BitFit) and isinstance(body, DoRA):
            raise GraftaxError(f"a trained bias beside {body.name} is not supported.")
        if isinstance(method, BitFit) or body.targets is None:
            continue
        both = set(method.select(sites)) & set(body.select(sites))
        if both and (type(body) is not LoRA or isinstance(method, TrainableTokens)):
            named = ", ".join(sorted(site.path for site in both))
            raise GraftaxError(f"{named}: new weights under {body.name} are not supported.")
