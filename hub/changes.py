"""What an adapter holds at each module: as the change that it makes to the weights there, or as its own arrays.

Two low-rank updates can have unlike factors and be alike, for B A = (B Q)(Q^-1 A), and those of two ranks have no factors to
compare. So the change itself is compared, W' - W, wherever a method can be merged. That asks for W, and with it for a backbone;
but what LoRA and AdaLoRA add does not depend on W, and their files alone say it. Of other methods the arrays are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.directory import CONFIG, HUB_WEIGHTS, WEIGHTS, from_hub, parse_tensors, read_directory
from ..adapters.facts import Facts
from ..adapters.files import config_is_ours, own_methods
from ..adapters.formats.peft.dialect import MODEL_PREFIX
from ..adapters.formats.peft.dialect_table import dialect_for, dialect_of
from ..adapters.formats.peft.shared_keys import check_config
from ..adapters.method import Leaves, Method
from ..adapters.methods.adalora import AdaLoRA
from ..adapters.methods.lora import LoRA
from ..adapters.methods.lora_fa import LoRAFA
from ..adapters.sites import ARRAYS, Site, weights_of
from ..errors import GraftaxError

#: methods that add to the weights what does not depend on them, and the leaves of which it is the product, by the scale
_ADDING: dict[type[Method], tuple[str, ...]] = {LoRA: ("a", "b"), LoRAFA: ("a", "b"), AdaLoRA: ("q", "p", "e")}
_CHUNK = 1 << 20  # numbers at a time
_FLAT = ("linear", "embedding")  # kinds of site whose weights have a shape that factors tell


@dataclass(frozen=True)
class Change:
    """What there is at a module. Changes of one kind and layout can be compared."""

    of: Literal["weights", "arrays"]
    layout: tuple[Any, ...]  # of the numbers: what they are and in which shapes
    numbers: Callable[[], np.ndarray]  # float32, one behind another; made when they are asked for, for they may be large
    factors: tuple[np.ndarray, np.ndarray] | None = None  # A [r, in] and B [r, out], where the numbers are those of A^T B


def products(one: Change, other: Change) -> tuple[float, float, float]:
    """The inner products of one change with itself, of another with itself, and of both.

    Of A^T B and C^T D it is the sum over all entries of A C^T times B D^T, which are as small as the ranks.
    """
    if one.factors is not None and other.factors is not None:
        pairs = (one.factors, one.factors), (other.factors, other.factors), (one.factors, other.factors)
        first, second, both = (_of_factors(*pair) for pair in pairs)
        return first, second, both
    numbers, others = one.numbers(), other.numbers()
    return _dot(numbers, numbers), _dot(others, others), _dot(numbers, others)


def square(one: Change) -> float:
    """The inner product of a change with itself."""
    return products(one, one)[0]


def _of_factors(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    (a, b), (c, d) = ([factor.astype(np.float64) for factor in factors] for factors in (one, other))
    return float(np.sum((a @ c.T) * (b @ d.T)))


def _dot(one: np.ndarray, other: np.ndarray) -> float:
    """Summed in float64."""
    chunks = ((one[i : i + _CHUNK], other[i : i + _CHUNK]) for i in range(0, len(one), _CHUNK))
    return sum(float(first.astype(np.float64) @ second.astype(np.float64)) for first, second in chunks)


def changes_of(adapter: Adapter) -> dict[str, Change]:
    """By module path, of an adapter whose sites are a backbone's."""
    at_sites: dict[Site, list[tuple[Method, Leaves, Leaves]]] = {}
    for method in adapter.methods:
        for site, (trainable, fixed) in adapter.states[method.key].items():
            at_sites.setdefault(site, []).append((method, trainable, fixed))
    return {site.path or site.name: _at_site(site, held) for site, held in at_sites.items()}


def _at_site(site: Site, held: Sequence[tuple[Method, Leaves, Leaves]]) -> Change:
    methods = [method for method, _, _ in held]
    states = [{**trainable, **fixed} for _, trainable, fixed in held]
    if site.kind in ARRAYS and all(method.mergeable for method in methods) and _can_merge(site, methods, states):
        if site.kind in _FLAT and len(methods) == 1 and type(methods[0]) in _ADDING:
            return _added(site, methods[0], states[0])
        return Change("weights", (site.kind, site.shape), partial(_change, site.weights, methods, states))
    return _arrays({f"{method.name}.{name}": leaf for method, trainable, _ in held for name, leaf in trainable.items()})


def _added(site: Site, method: Method, state: Leaves) -> Change:
    """What a method adds, to whatever weights: to zeros, where nothing is rounded off."""
    numbers, factors = partial(_change, partial(_blank, site), [method], [state]), None
    if "bias" not in state:
        one, other, *strengths = (np.asarray(state[name]) for name in _ADDING[type(method)])
        factors = (one * math.prod((state["scale"], *(strength[:, None] for strength in strengths))), other)
    return Change("weights", (site.kind, site.shape), numbers, factors)


def _can_merge(site: Site, methods: Sequence[Method], states: Sequence[Leaves]) -> bool:
    """Whether the methods can be merged here; some cannot into a convolution of groups."""
    try:
        jax.eval_shape(partial(_merged, methods), site.weights(), states)
    except GraftaxError:
        return False
    return True


def _change(weights: Callable[[], Any], methods: Sequence[Method], states: Sequence[Leaves]) -> np.ndarray:
    """The merged weights less the weights, all arrays behind one another."""
    before = weights()
    after = _merged(methods, before, states)
    names = [name for name in before._fields if name != "geometry"]
    return np.concatenate([np.ravel(np.asarray(getattr(after, name)) - getattr(before, name)) for name in names])


def _merged(methods: Sequence[Method], frozen: Any, states: Sequence[Leaves]) -> Any:
    for method, state in zip(methods, states, strict=True):
        frozen = method.merge(frozen, state)
    return frozen


def _arrays(arrays: Mapping[str, np.ndarray]) -> Change:
    ordered = dict(sorted(arrays.items()))
    layout = tuple((name, np.shape(array)) for name, array in ordered.items())
    return Change("arrays", layout, lambda: np.concatenate([np.ravel(array).astype(np.float32) for array in ordered.values()]))


# -- of files alone ------------------------------------------------------------------------------------------------------


def changes_in(directory: Path) -> dict[str, Change]:
    """By module path, of a directory, without a backbone."""
    config, facts, data = read_directory(directory)
    tensors = parse_tensors(data, directory / (HUB_WEIGHTS if from_hub(config) else WEIGHTS))
    methods = methods_in(config, facts or Facts(), directory)
    adding = [method for method in methods if type(method) in _ADDING]
    suffixes = {name for method in (*adding, LoRA()) for names in _names(method).values() for name in names}
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        path, name = _parted(key.removeprefix(MODEL_PREFIX), suffixes)
        grouped.setdefault(path or name, {})[name] = tensor
    return {path: _of_tensors(path, held, adding) for path, held in sorted(grouped.items())}


def methods_in(config: Mapping[str, Any], facts: Facts, directory: Path) -> tuple[Method, ...]:
    """The methods of a directory that can be known without a backbone; none where they cannot."""
    own = None if from_hub(config) else own_methods(config, facts, directory, config_is_ours(facts, directory))
    if own is not None:
        return own
    try:
        check_config(config, f"{directory / CONFIG}")
        return (dialect_for(config).from_config(dict(config), ()),)
    except GraftaxError:  # PEFT's words, which mean something on a backbone alone, or nothing to graftax
        return ()


def _parted(key: str, suffixes: Collection[str]) -> tuple[str, str]:
    """A tensor's key as the path of a module and the tensor's name there: one of those known, or the last part."""
    path, _, name = key.rpartition(".")
    above, _, last = path.rpartition(".")
    return (above, f"{last}.{name}") if f"{last}.{name}" in suffixes else (path, name)


def _names(method: Method) -> dict[str, tuple[str, ...]]:
    """What files call the tensors of a method at sites of some kinds, the two factors first."""
    sites = [Site("", kind, "", (1, 1)) for kind in _FLAT if kind in method.acts_on]
    return {site.kind: tuple(dialect_of(method).tensors(site, method.held(site))) for site in sites}


def _of_tensors(path: str, tensors: Mapping[str, np.ndarray], adding: Sequence[Method]) -> Change:
    for method in adding:
        for kind, names in _names(method).items():
            if {*names} == tensors.keys() and all(tensors[name].ndim == 2 for name in names[:2]):
                first, second = tensors[names[0]], tensors[names[1]]
                site, dialect = Site(path, kind, path, (first.shape[1], second.shape[0])), dialect_of(method)
                expected = dialect.tensors(site, method.held(site))
                if all(np.shape(tensors[name]) == np.shape(like) for name, like in expected.items()):
                    state = {**dialect.leaves(site, tensors), **method.fixed(site)}
                    return _added(site, method, state)
    return _arrays(tensors)


def _blank(site: Site) -> Any:
    """Weights of zeros: what is added to them is the same as to any."""
    return weights_of(site.kind, {ARRAYS[site.kind][0]: np.zeros(site.shape, np.float32)})
