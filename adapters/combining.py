"""Combining adapters of one backbone into one, and turning any change of kernels into a LoRA.

Every adapter that can be merged changes a kernel by some D_i = merge(W) - W, a matrix [in, out]; of a convolution, where in is
all that the kernel lies over, as LoRA sees it there (`methods/patches.py`). A combination is taken of these
changes and not of the factors that make them (the sum of two products is not the product of the sums), with weights w_i:

    linear, cat      sum w_i D_i; of LoRAs exactly, by laying their factors side by side: ranks add
    svd              the same, cut to a rank or to a share of its energy (the squared singular values)
    ties             trim each D_i to its largest entries, elect a sign for each entry by their sum, and average the w_i D_i
                     that agree with it (Yadav et al., 2023, arXiv:2306.01708)
    dare_linear      drop entries at random and divide the rest by the share kept, then sum w_i D_i (Yu et al., 2023,
                     arXiv:2311.03099); dare_ties: then elect and average as in ties
    magnitude_prune  trim as in ties, then sum w_i D_i

A weight may be negative (task arithmetic, Ilharco et al., 2022, arXiv:2212.04089). Whatever is no plain sum is written down as
a LoRA by a singular value decomposition: the best of its rank (Eckart & Young, 1936), of full rank exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from ..counted import counted
from ..errors import GraftaxError
from ..notes import note
from ..typed import Seed, Share, Size, held
from .adapter import Adapter
from .fitting import is_finite, refuse_unsound
from .method import Method, zeros
from .methods.head import Head
from .methods.lora import LoRA
from .methods.patches import factor_sizes
from .sites import Site

COMBINATIONS = ("linear", "cat", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune")
_TRIMMED = ("ties", "magnitude_prune")  # to their largest entries
_THINNED = ("dare_linear", "dare_ties")  # at random
_ELECTED = ("ties", "dare_ties")  # entries whose sign the others do not share are left out
Deltas = dict[Site, np.ndarray]  # site -> change of its kernel [in, out], float32


@held
def combine(
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    how: str = "linear",
    *,
    rank: Size | None = None,
    energy: Share | None = None,
    density: Share | None = None,
    seed: Seed = 0,
    head: int | None = 0,
) -> Adapter:
    """One LoRA that does what a weighted combination of adapters of one backbone would.

    Args:
        adapters: in memory, as `load_adapter` reads them for their backbone; of methods that can be merged and change the
            kernels of linear layers, or of convolutions that are in no groups, alone.
        weights: one for each; may be negative.
        how: one of COMBINATIONS.
        rank: where the result is cut; None, and no `energy`: nothing is cut.
        energy: instead of a rank, the share of the energy of every site's change that the least sufficient rank keeps.
        density: share of the entries that ties, dare_* and magnitude_prune keep.
        seed: of the entries that dare_* drops.
        head: the number of the adapter whose task, head and labels the result has; None: no head, and the first one's task.
            Where the adapters differ in these, a note says which are kept.

    Raises:
        GraftaxError: adapters of different backbones, methods that cannot be expressed as a change of kernels, settings out of
            range.
    """
    if how not in COMBINATIONS:
        raise GraftaxError(f"combination {how!r} is none of {', '.join(COMBINATIONS)}.")
    if not adapters or len(adapters) != len(weights):
        raise GraftaxError(f"{counted(len(adapters), 'adapter')} but {counted(len(weights), 'weight')}.")
    for adapter in adapters:
        refuse_unsound(adapter)
    if (how in (*_TRIMMED, *_THINNED)) != (density is not None):
        raise GraftaxError(f"{how} {'needs' if how in (*_TRIMMED, *_THINNED) else 'takes no'} density.")
    if head is not None and head not in range(len(adapters)):
        raise GraftaxError(f"head {head} is the number of none of {counted(len(adapters), 'adapter')}, counted from 0.")
    prints = {adapter.fingerprint for adapter in adapters} - {None}
    shapes = {(site.path, site.shape) for adapter in adapters for states in adapter.states.values() for site in states}
    if len(prints) > 1 or len({path for path, _ in shapes}) < len(shapes):
        raise GraftaxError("the adapters were made for different backbones.")
    bodies = [_body(adapter) for adapter in adapters]
    kept = adapters[head] if head is not None else dataclasses.replace(adapters[0], methods=(), states={}, labels=())
    plain = all(type(m) is LoRA and not m.bias for body in bodies for m in body.methods)
    if how in ("linear", "cat") and rank is energy is None and plain:
        made = _as_lora(_side_by_side(bodies, weights), kept)
    else:
        merged = _merge([deltas(body) for body in bodies], weights, how, density or 1.0, np.random.default_rng(seed))
        if infinite := next((site.path for site, change in merged.items() if not is_finite(change)), None):
            raise GraftaxError(f"the combination is not finite at {infinite}.")
        made = _as_lora(factors(merged, rank, energy), kept)
    made = dataclasses.replace(made, data=None, parents=tuple(adapter.source for adapter in adapters if adapter.source))
    refuse_unsound(made, "the combination")
    if len({(adapter.task, adapter.labels if head is not None else ()) for adapter in adapters}) > 1:
        what = f"{made.task} ({', '.join(made.labels)})" if made.labels else made.task
        note(f"these adapters are for different things; combined they are for {what}, as adapter {(head or 0) + 1} is.")
    return made


@held
def to_lora(adapter: Adapter, *, rank: Size | None = None, energy: Share | None = None) -> Adapter:
    """Any change of kernels as a LoRA of a rank, or of the least ranks that keep a share of its energy.

    `adapter`: in memory, as of `combine`.
    """
    return combine([adapter], [1.0], "svd", rank=rank, energy=energy, head=0)


def deltas(adapter: Adapter) -> Deltas:
    """The change of every kernel, W' - W, that merging the adapter (without its head) would make."""
    found: Deltas = {}
    for method in adapter.methods:
        if not method.mergeable:
            raise GraftaxError(f"{method.name} cannot be combined: it is no change of the weights.")
        for site, (trainable, fixed) in adapter.states[method.key].items():
            _refuse_other(method, site)
            frozen = site.weights()
            already = found.get(site, zeros(*factor_sizes(site)))
            before = frozen._replace(kernel=frozen.kernel + already.reshape(frozen.kernel.shape))
            after = jax.tree.map(np.asarray, method.merge(before, {**trainable, **fixed}))
            if not np.array_equal(after.bias, frozen.bias):
                raise GraftaxError(f"{method.name} cannot be combined: it changes biases, which no LoRA can express.")
            found[site] = (after.kernel - frozen.kernel).reshape(already.shape)
    return found


def _refuse_other(method: Method, site: Site) -> None:
    """An error where the method changes something else than a kernel that a LoRA can change in the same way."""
    if site.kind not in ("linear", "conv"):
        raise GraftaxError(
            f"{method.name} cannot be combined: it changes {site.path}, which is no linear layer and no convolution."
        )
    if site.geometry is not None and site.geometry.groups > 1:
        raise GraftaxError(
            f"{method.name} cannot be combined: it changes {site.path}, a convolution of {site.geometry.groups} groups, "
            "where a LoRA changes more than the kernel."
        )


def factors(changes: Deltas, rank: int | None = None, energy: float | None = None) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
    """LoRA factors A [r, in] and B [r, out] of every change, by singular values: A^T B is the best of its rank."""
    found = {}
    for site, change in changes.items():
        u, s, vt = np.linalg.svd(change.astype(np.float64), full_matrices=False)
        least = 1
        if energy is not None:
            shares = np.cumsum(s**2) / max(float((s**2).sum()), 1e-300)
            least = 1 + int(np.searchsorted(shares, energy - 1e-12))
        r = min(rank or len(s), len(s), least if energy is not None else len(s))
        root = np.sqrt(s[:r])[:, None]
        found[site] = ((root * u.T[:r]).astype(np.float32), (root * vt[:r]).astype(np.float32))
    return found


# -- the combinations ----------------------------------------------------------------------------------------------------


def _merge(
    changes: Sequence[Deltas], weights: Sequence[float], how: str, density: float, random: np.random.Generator
) -> Deltas:
    sites = sorted({site for change in changes for site in change}, key=lambda site: site.path)
    merged = {}
    for site in sites:
        each = np.stack([change.get(site, zeros(*factor_sizes(site))) for change in changes])
        if how in _TRIMMED:
            each = np.stack([trim(one, density) for one in each])
        elif how in _THINNED:
            each = np.where(random.random(each.shape) < density, each / np.float32(density), np.float32(0.0))
        weighted = each * np.asarray(weights, np.float32)[:, None, None]
        merged[site] = _agreeing(each, weighted) if how in _ELECTED else weighted.sum(0)
    return merged


def trim(change: np.ndarray, density: float) -> np.ndarray:
    """The entries of largest magnitude, round(density * size) of them, and zeros."""
    count = round(density * change.size)
    out = np.zeros_like(change)
    if not count:
        return out
    largest = np.argpartition(-np.abs(change), count - 1, axis=None)[:count]
    out.flat[largest] = change.flat[largest]
    return out


def _agreeing(each: np.ndarray, weighted: np.ndarray) -> np.ndarray:
    """Mean over the changes whose entry has the sign of the entries' sum; zero entries have no say."""
    agree = (np.sign(each) == np.sign(each.sum(0))) & (each != 0)
    return (weighted * agree).sum(0) / np.maximum(agree.sum(0), 1)


def _side_by_side(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
    """Factors of sum w_i s_i A_i^T B_i."""
    found: dict[Site, tuple[np.ndarray, np.ndarray]] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for method in adapter.methods:
            for site, (leaves, fixed) in adapter.states[method.key].items():
                _refuse_other(method, site)
                mine = (leaves["a"], np.float32(weight) * fixed["scale"] * leaves["b"])
                there = found.get(site, (mine[0][:0], mine[1][:0]))
                found[site] = (np.concatenate([there[0], mine[0]]), np.concatenate([there[1], mine[1]]))
    return found


# -- the result ----------------------------------------------------------------------------------------------------------


def _body(adapter: Adapter) -> Adapter:
    return dataclasses.replace(adapter, methods=tuple(m for m in adapter.methods if not isinstance(m, Head)))


_OF_TEXTS = ("max_length", "chat_template")  # of a recipe: how texts were read in training, and are to be read


def _as_lora(made: dict[Site, tuple[np.ndarray, np.ndarray]], like: Adapter) -> Adapter:
    """A LoRA of one rank, the largest; smaller factors are filled with zeros, which changes nothing."""
    if not made:
        raise GraftaxError("the adapters change no linear layer and no convolution.")
    rank = max(len(a) for a, _ in made.values())
    method = LoRA(r=rank, alpha=float(rank), targets=tuple(site.path for site in made))
    states = {
        site: ({leaf: np.pad(x, ((0, rank - len(x)), (0, 0))) for leaf, x in zip("ab", pair, strict=True)}, method.fixed(site))
        for site, pair in made.items()
    }
    heads = tuple(m for m in like.methods if isinstance(m, Head))
    return dataclasses.replace(
        like,
        methods=(method, *heads),
        states={method.key: states, **{m.key: like.states[m.key] for m in heads}},
        metrics={},
        recipe={"method": "combined", **{key: like.recipe[key] for key in _OF_TEXTS if key in like.recipe}},
    )
