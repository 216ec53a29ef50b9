"""LoRA: a low-rank update of a frozen weight (Hu et al., 2021, arXiv:2106.09685).

    y = x W + b + s (x A^T) B          A [r, in], B [r, out], s = alpha / r, or alpha / sqrt(r) with rsLoRA

A starts uniform (Kaiming with a = sqrt(5), as in PEFT and torch's Linear), B at zero, so a fresh adapter changes nothing.
rsLoRA's scale (Kalajdzievski, 2023, arXiv:2312.03732) keeps the size of the update independent of the rank. On an embedding,
y = W[ids] + s A^T[ids] B with A starting at zero and B normal, as in PEFT.

Both factors keep the rank first: dA = (dy B^T)^T x then transposes the thin matrix and not x, and a rank is padded
by rows of zeros in *both* (with zeros in B alone the pad would start to train, and the rank would silently grow).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import GraftaxError
from . import peft
from .dropout import dropout
from .method import Leaves, Method, pattern_value, scalar, zeros
from .sites import Site, TableWeights

_DAMPING = 1e-6  # keeps a Gram matrix invertible: B starts at zero


@dataclass(frozen=True)
class LoRA(Method):
    """Low-rank adaptation of `linear` and `embedding` sites; query and value projections unless `targets` says otherwise."""

    name: ClassVar[str] = "lora"
    summary: ClassVar[str] = "low-rank update of the weights, y += s x A^T B"
    count: ClassVar[str] = "r (in + out)"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "embedding")
    roles: ClassVar[tuple[str, ...] | None] = ("query", "value")
    padded: ClassVar[dict[str, int]] = {"a": 0, "b": 0}
    fast: ClassVar[tuple[str, ...]] = ("b",)
    mergeable: ClassVar[bool] = True
    peft_type: ClassVar[str] = "LORA"

    r: int = 8  # rank
    alpha: float = 16.0  # the update is scaled by alpha / r
    dropout: float = 0.0  # of x, on its way into A, in training
    rslora: bool = False  # scale by alpha / sqrt(r) instead
    rank_pattern: Mapping[str, int] = field(default_factory=dict)  # regex of a module path's end -> its rank
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)  # likewise, its alpha

    def __post_init__(self) -> None:
        for rank in (self.r, *self.rank_pattern.values()):
            if rank < 1:
                raise GraftaxError(f"{self.name}: rank must be at least 1, got {rank}.")
        if not 0.0 <= self.dropout < 1.0:
            raise GraftaxError(f"{self.name}: dropout must be in [0, 1), got {self.dropout}.")

    def size(self, site: Site) -> int:
        return pattern_value(self.rank_pattern, site.path, self.r)

    def scale(self, site: Site) -> float:
        alpha, r = pattern_value(self.alpha_pattern, site.path, self.alpha), self.size(site)
        return alpha / math.sqrt(r) if self.rslora else alpha / r

    def init(self, key: jax.Array, site: Site) -> Leaves:
        (rows, out), r = site.shape, self.size(site)
        if site.kind == "embedding":
            return {"a": zeros(r, rows), "b": jax.random.normal(key, (r, out))}
        bound = 1.0 / math.sqrt(rows)
        return {"a": jax.random.uniform(key, (r, rows), minval=-bound, maxval=bound), "b": zeros(r, out)}

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(self.scale(site)), "dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        rows, out = site.shape
        return {"a": zeros(size, rows), "b": zeros(size, out)}, {"scale": scalar(0.0), "dropout": scalar(0.0)}

    def update(self, state: Leaves, x: Any, frozen: Any, key: jax.Array | None) -> jax.Array:
        """x times the change of the weights, through the rank."""
        if isinstance(frozen, TableWeights):
            low = jnp.take(state["a"].T, x, axis=0, mode="clip")
        else:
            low = dropout(x, state["dropout"], key) @ state["a"].T
        return state["scale"] * (low @ state["b"])

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        return y + self.update(state, x, frozen, key)

    def merge(self, frozen: Any, state: Leaves) -> Any:
        weight, *bias = frozen
        return type(frozen)(weight + state["scale"] * (state["a"].T @ state["b"]), *bias)

    def precondition(self, leaves: Leaves, grads: Leaves) -> Leaves:
        """Each factor's gradient by the other's inverse Gram matrix (Zhang & Pilanci, 2024, arXiv:2402.02347, eq. 3)."""

        def scaled(other: jax.Array, grad: jax.Array) -> jax.Array:
            gram = other @ other.T + _DAMPING * jnp.eye(len(other))
            return jnp.linalg.solve(gram, grad)

        return {**grads, "a": scaled(leaves["b"], grads["a"]), "b": scaled(leaves["a"], grads["b"])}

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        a, b = _SUFFIXES[site.kind]
        return {a: np.asarray(leaves["a"]), b: np.asarray(leaves["b"]).T}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        a, b = _SUFFIXES[site.kind]
        return {"a": tensors[a], "b": tensors[b].T}

    def to_peft(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "r": self.r,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "rank_pattern": dict(self.rank_pattern),
            "alpha_pattern": dict(self.alpha_pattern),
            "target_modules": peft.targets_of(self.targets, chosen, sites),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
        }

    @classmethod
    def reads(cls, config: Mapping[str, Any]) -> bool:
        return super().reads(config) and not config.get("use_dora")

    @classmethod
    def from_peft(cls, config: dict[str, Any], sites: Sequence[Site]) -> Self:
        config.pop("init_lora_weights", None)  # how the weights began, not what they do
        return cls(
            r=config.pop("r", 8),
            alpha=config.pop("lora_alpha", 8),
            dropout=config.pop("lora_dropout", 0.0),
            rslora=config.pop("use_rslora", False),
            rank_pattern=config.pop("rank_pattern", None) or {},
            alpha_pattern=config.pop("alpha_pattern", None) or {},
            targets=peft.read_targets(config, sites),
        )


_SUFFIXES = {
    "linear": ("lora_A.weight", "lora_B.weight"),
    "embedding": ("lora_embedding_A", "lora_embedding_B"),
}
