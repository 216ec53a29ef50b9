"""LoRA: a low-rank update of a frozen weight (Hu et al., 2021, arXiv:2106.09685).

    y = x W + b + s (x A^T) B          A [r, in], B [r, out], s = alpha / r, or alpha / sqrt(r) with rsLoRA

A starts uniform (Kaiming with a = sqrt(5), as in PEFT and torch's Linear), B at zero, so a fresh adapter changes nothing.
rsLoRA's scale (Kalajdzievski, 2023, arXiv:2312.03732) keeps the size of the update independent of the rank. On an embedding,
y = W[ids] + s A^T[ids] B with A starting at zero and B normal, as in PEFT. `start` names other beginnings; `starts.py` says
what they are. With `bias` a site has a change of its bias, too: y = x W + b + s ((x A^T) B + d), d [out] from zero. At a
convolution x is a patch of the feature map (`patches.py`).

Both factors keep the rank first: dA = (dy B^T)^T x then transposes the thin matrix and not x, and a rank is padded
by rows of zeros in *both* (with zeros in B alone the pad would start to train, and the rank would silently grow).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Rate, Size
from ..method import CONVOLUTIONS, QUERY_VALUE, Begun, Keys, Leaves, Method, States, scalar, zeros
from ..patterns import pattern_value
from ..products import narrowed, widened
from ..sites import ConvWeights, Site, TableWeights
from . import patches, starts
from .dropout import dropout

_DAMPING = 1e-6  # keeps a Gram matrix invertible: B starts at zero


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank adaptation of weights: queries and values, and convolutions in blocks, unless `targets` says otherwise."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "low-rank update of the weights, y += s x A^T B"
    count: ClassVar[str] = "r (in + out)"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "conv", "embedding")
    roles: ClassVar[tuple[str, ...] | None] = (*QUERY_VALUE, *CONVOLUTIONS)
    padded: ClassVar[dict[str, int]] = {"a": 0, "b": 0}
    axes: ClassVar[dict[str, tuple[str, ...]]] = {"a": ("rank", "in"), "b": ("rank", "out")}
    fast: ClassVar[tuple[str, ...]] = ("b",)
    mergeable: ClassVar[bool] = True
    allowed: ClassVar[tuple[str, ...]] = starts.STARTS  # values of `start`

    r: Size = 8  # rank
    alpha: float = 16.0  # the update is scaled by alpha / r
    dropout: Rate = 0.0  # of x, on its way into A, in training
    rslora: bool = False  # scale by alpha / sqrt(r) instead
    rank_pattern: Mapping[str, Size] = field(default_factory=dict)  # regex of a module path's end -> its rank
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)  # likewise, its alpha
    start: str = "default"  # of the factors (`adapters/methods/starts.py`)
    bias: bool = False  # B has a bias [out], as with PEFT's `lora_bias`; not at embeddings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias and (type(self) is not LoRA or self.start in starts.ON_RESIDUAL):
            raise GraftaxError(f"{self.name}: a bias is for plain LoRA, whose factors start beside the weights.")
        if self.start not in self.allowed:
            raise GraftaxError(f"{self.name}: start {self.start!r} is none of {', '.join(self.allowed)}.")
        for rank in (self.r, *self.rank_pattern.values()):
            if rank % 2 and self.start == "orthogonal":
                raise GraftaxError(f"{self.name}: an orthogonal start takes even ranks, got {rank}.")
        if self.start in starts.ON_RESIDUAL and min(self.alpha, *self.alpha_pattern.values(), math.inf) <= 0:
            raise GraftaxError(f"{self.name}: start {self.start!r} divides by alpha, which must be positive.")

    def size(self, site: Site) -> int:
        return pattern_value(self.rank_pattern, self.r, *site.paths)

    def alpha_at(self, site: Site) -> float:
        return pattern_value(self.alpha_pattern, self.alpha, *site.paths)

    def scale(self, site: Site) -> float:
        alpha, r = self.alpha_at(site), self.size(site)
        return alpha / math.sqrt(r) if self.rslora else alpha / r

    def init(self, key: jax.Array, site: Site) -> Leaves:
        if site.kind == "embedding":
            (inputs, out), r = site.shape, self.size(site)
            return {"a": zeros(r, inputs), "b": jax.random.normal(key, (r, out))}
        return self._factors(key, site) | ({"bias": zeros(site.shape[-1])} if self.bias else {})

    def _factors(self, key: jax.Array, site: Site) -> Leaves:
        """Of a linear layer or a convolution, at the start."""
        (inputs, out), r = patches.factor_sizes(site), self.size(site)
        if self.start == "gaussian":
            return {"a": jax.random.normal(key, (r, inputs)) / r, "b": zeros(r, out)}
        if self.start == "orthogonal":
            return dict(zip("ab", starts.orthogonal(key, site.shape, r), strict=True))
        bound = 1.0 / math.sqrt(inputs)
        return {"a": jax.random.uniform(key, (r, inputs), minval=-bound, maxval=bound), "b": zeros(r, out)}

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        tables = ", ".join(site.path for site in chosen if site.kind == "embedding")
        if self.bias and tables:
            raise GraftaxError(f"{self.name}: an embedding has no bias; leave {tables} out of its targets.")
        for site in chosen:
            self._fits(site)
        return chosen

    def _fits(self, site: Site) -> None:
        """An error where a convolution does not take this rank or start."""
        if site.geometry is None:
            return
        if self.start not in ("default", "gaussian"):
            raise GraftaxError(
                f"{self.name}: start {self.start!r} is for linear layers; {site.path} is a convolution, "
                "which starts as default or gaussian."
            )
        if self.size(site) % site.geometry.groups:
            raise GraftaxError(
                f"{self.name}: {site.path} is a convolution of {site.geometry.groups} groups, which share the ranks: "
                f"its rank must be a multiple of {site.geometry.groups}, got {self.size(site)}."
            )

    def begin(self, sites: Sequence[Site], key: Keys, data: starts.TrainingData | None = None) -> Begun:
        if self.start in starts.FROM_DATA and data is None:
            raise GraftaxError(
                f"{self.name}: start {self.start!r} is made of the rows to be trained on: it needs `train_many`."
            )
        if self.start == "eva" and data is not None:
            return self._explaining(sites, key, data)
        if self.start in starts.ON_RESIDUAL:
            return OnResidual(**{f.name: getattr(self, f.name) for f in fields(self)}).begin(sites, key, data)
        return super().begin(sites, key)

    def _explaining(self, sites: Sequence[Site], key: Keys, data: starts.TrainingData) -> Begun:
        """EVA: sites share out the sum of their ranks; alpha follows the rank, as in PEFT, so without rsLoRA scales stay."""
        ranks = {site: self.size(site) for site in self.select(sites) if site.kind == "linear"}
        axes = starts.eva(data.moments(list(ranks), unit=False), ranks)
        other = {site.path: len(axes[site]) for site in ranks if len(axes[site]) not in (0, ranks[site])}
        alphas = {s.path: self.alpha_at(s) * other[s.path] / ranks[s] for s in ranks if s.path in other}
        bare = {site for site in ranks if not len(axes[site])}
        method = replace(
            self,
            rank_pattern=other | dict(self.rank_pattern),
            alpha_pattern=alphas | dict(self.alpha_pattern),
            targets=tuple(s.path for s in self.select(sites) if s not in bare) if bare else self.targets,
        )
        _, states = Method.begin(method, sites, key)
        return method, {s: ({**own, "a": axes[s]} if s in axes else own, fixed) for s, (own, fixed) in states.items()}

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(self.scale(site)), "dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        inputs, out = patches.factor_sizes(site)
        leaves = {"a": zeros(size, inputs), "b": zeros(size, out), "bias": zeros(site.shape[-1])}
        return leaves, {"scale": scalar(0.0), "dropout": scalar(0.0)}

    def trainable(self, site: Site) -> tuple[str, ...]:
        return tuple(name for name in super().trainable(site) if self.bias or name != "bias")

    def update(self, state: Leaves, x: Any, frozen: Any, key: jax.Array | None) -> jax.Array:
        """x times the change of the weights, through the rank."""
        if isinstance(frozen, TableWeights):
            change = jnp.take(state["a"].T, x, axis=0, mode="clip") @ state["b"]
        elif isinstance(frozen, ConvWeights):
            change = patches.through_rank(dropout(x, state["dropout"], key), state["a"], state["b"], frozen)
        else:
            change = widened(narrowed(dropout(x, state["dropout"], key), state["a"].T), state["b"])
        return state["scale"] * (change + state["bias"] if "bias" in state else change)

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return y + self.update(state, x, frozen, key)

    def merge(self, frozen: Any, state: Leaves) -> Any:
        weight, *rest = frozen
        if "bias" in state:
            rest[0] = rest[0] + state["scale"] * state["bias"]
        if isinstance(frozen, ConvWeights):
            patches.refuse_groups(self.name, frozen)
        change = (state["a"].T @ state["b"]).reshape(weight.shape)
        return type(frozen)(weight + state["scale"] * change, *rest)

    def precondition(self, leaves: Leaves, grads: Leaves) -> Leaves:
        """Each factor's gradient by the other's inverse Gram matrix (Zhang & Pilanci, 2024, arXiv:2402.02347, eq. 3)."""

        def scaled(other: jax.Array, grad: jax.Array) -> jax.Array:
            gram = other @ other.T + _DAMPING * jnp.eye(len(other))
            return jnp.linalg.solve(gram, grad)

        return {**grads, "a": scaled(leaves["b"], grads["a"]), "b": scaled(leaves["a"], grads["b"])}


@dataclass(frozen=True)
class OnResidual(LoRA):
    """LoRA from a start that changes the frozen weights, while it is trained.

        y = x (W - s A0^T B0) + b + s (x A^T) B         A0, B0 what A and B started from, fixed

    The frozen weights are shared by all adapters, so A0^T B0 is subtracted as A^T B is added. What is saved is plain LoRA on
    the untouched weights, of rank 2r: A and A0, B and -B0 behind one another (`finished`).
    """

    name: ClassVar[str] = "lora_on_residual"
    fresh_within: ClassVar[float | None] = 1e-5  # it adds and subtracts the same
    allowed: ClassVar[tuple[str, ...]] = ("default", *starts.ON_RESIDUAL)  # default: what a key makes (`from_key`)

    def begin(self, sites: Sequence[Site], key: Keys, data: starts.TrainingData | None = None) -> Begun:
        chosen = self.select(sites)
        linear = [site for site in chosen if site.kind == "linear"]
        if self.start == "corda" and data is not None:
            moments = data.moments(linear, unit=True)
            found = {site: starts.corda(site, moments[site], self.size(site), self.scale(site)) for site in linear}
        elif self.start == "lora_ga" and data is not None:
            gradients = data.gradients(linear)
            found = {site: starts.lora_ga(site, gradients[site], self.size(site)) for site in linear}
        else:
            found = {site: self.began(site) for site in linear}
        states: States = {}
        for site in chosen:
            a0, b0 = found[site] if site in found else self.began(site)
            own = {"a": a0, "b": b0} if site in found else jax.tree.map(np.asarray, self.init(key(site), site))
            states[site] = (own, self._beside(site, a0, b0))
        return self, states

    def began(self, site: Site) -> starts.Factors:
        """A0 and B0, where they follow from the weights; at embeddings the start is the default one, and they are zero."""
        r, (inputs, out) = self.size(site), site.shape
        if site.kind == "embedding":
            return zeros(r, inputs), zeros(r, out)
        return starts.from_weights(self.start, site, r, self.scale(site))

    def fixed(self, site: Site) -> Leaves:
        return self._beside(site, *self.began(site))

    def _beside(self, site: Site, a0: np.ndarray, b0: np.ndarray) -> Leaves:
        return super().fixed(site) | {"a0": a0, "b0": b0}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        trainable, fixed = super().identity(site, size)
        return trainable, fixed | {"a0": trainable["a"], "b0": trainable["b"]}

    def update(self, state: Leaves, x: Any, frozen: Any, key: jax.Array | None) -> jax.Array:
        return super().update(state, x, frozen, key) - super().update(_at_start(state), x, frozen, None)

    def merge(self, frozen: Any, state: Leaves) -> Any:
        weight, *rest = super().merge(frozen, state)
        return type(frozen)(weight - state["scale"] * (state["a0"].T @ state["b0"]), *rest)

    def finished(self, states: States) -> Begun:
        more = math.sqrt(2.0) if self.rslora else 2.0  # alpha, so that the scale stays
        method = LoRA(
            r=2 * self.r,
            alpha=more * self.alpha,
            dropout=self.dropout,
            rslora=self.rslora,
            rank_pattern={path: 2 * rank for path, rank in self.rank_pattern.items()},
            alpha_pattern={path: more * alpha for path, alpha in self.alpha_pattern.items()},
            targets=self.targets,
        )
        plain: States = {}
        for site, (own, fixed) in states.items():
            a, b = np.concatenate([own["a"], fixed["a0"]]), np.concatenate([own["b"], -fixed["b0"]])
            plain[site] = ({"a": a, "b": b}, method.fixed(site))
        return method, plain


def _at_start(state: Leaves) -> Leaves:
    return {**state, "a": state["a0"], "b": state["b0"]}
