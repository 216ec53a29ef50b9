"""VeRA: frozen random projections, shared by all sites, and two trained vectors (Kopiczko et al., 2024, arXiv:2310.11454).

    y = x W + b + ((x A^T) * d) B * l      A [r, in], B [r, out] drawn and frozen, d [r], l [out]

d starts at `d_initial`, l at zero, so a fresh adapter changes nothing. Trainable parameters at a site: r + out.

A file holds one A and one B, as wide as the widest site; a site uses as much of them as it is wide. PEFT's files bring their
own, drawn by torch, so they are read and kept; a file without them (`save_projection=false`) is refused, because torch's
generator cannot be reproduced. Drawn here, both are uniform up to sqrt(6 / n), as in PEFT: n = r for B, and for A, where PEFT
takes the widest input, which a site does not know, BERT's 768. In memory each site holds its part: r (in + out) numbers that
are not trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import numpy as np

from ...typed import Rate, Seed, Size
from ..formats.peft import words as peft
from ..method import QUERY_VALUE, Leaves, Method, scalar, zeros
from ..sites import LinearWeights, Site
from .dropout import dropout

_SHARED = {"a": "base_model.vera_A", "b": "base_model.vera_B"}
_WIDTH = 768


@dataclass(frozen=True)
class VeRA(Method):
    """Random projections and trained vectors at `linear` sites; queries and values unless `targets` says otherwise."""

    name: ClassVar[str] = "vera"
    summary: ClassVar[str] = "shared random projections, of which two vectors a site are trained"
    count: ClassVar[str] = "r + out"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    padded: ClassVar[dict[str, int]] = {"lambda_d": 0, "a": 0, "b": 0}
    mergeable: ClassVar[bool] = True
    peft_type: ClassVar[str] = "VERA"

    r: Size = 256  # rank of the projections
    d_initial: float = 0.1  # where d starts
    dropout: Rate = 0.0  # of x, in training
    projection_prng_key: Seed = 0  # what A and B are drawn from

    def size(self, site: Site) -> int:
        return self.r

    def init(self, key: jax.Array, site: Site) -> Leaves:
        return self.blank(site) | {"lambda_d": np.full(self.r, self.d_initial, np.float32)}

    def fixed(self, site: Site) -> Leaves:
        (width, out), seed = site.shape, self.projection_prng_key
        drawn = {"a": _drawn((seed, 0), width, self.r, _WIDTH), "b": _drawn((seed, 1), out, self.r, self.r)}
        return drawn | {"dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        width, out = site.shape
        fixed = {"a": zeros(size, width), "b": zeros(size, out), "dropout": scalar(0.0)}
        return {"lambda_b": zeros(out), "lambda_d": zeros(size)}, fixed

    def buffers(self, site: Site) -> tuple[str, ...]:
        return tuple(_SHARED)

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        low = dropout(x, state["dropout"], key) @ state["a"].T * state["lambda_d"]
        return y + low @ state["b"] * state["lambda_b"]

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        change = state["a"].T * state["lambda_d"] @ state["b"] * state["lambda_b"]
        return frozen._replace(kernel=frozen.kernel + change)

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {f"vera_{name}": np.asarray(leaf) for name, leaf in leaves.items() if name not in _SHARED}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {suffix.removeprefix("vera_"): tensor for suffix, tensor in tensors.items()}

    # One A [r, in] and one B [out, r] in a file: the widest site's, of which the others' are the beginning.

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        a, b = (max((np.asarray(at[name]) for at in states.values()), key=lambda t: t.shape[1]) for name in _SHARED)
        return super().export(states) | {_SHARED["a"]: np.asarray(a, order="C"), _SHARED["b"]: np.asarray(b.T, order="C")}

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        a, b = tensors[_SHARED["a"]], tensors[_SHARED["b"]].T
        states = super().restore(like, tensors)
        return {site: own | {"a": a[:, : site.shape[0]], "b": b[:, : site.shape[1]]} for site, own in states.items()}

    def to_peft(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "r": self.r,
            "d_initial": self.d_initial,
            "vera_dropout": self.dropout,
            "projection_prng_key": self.projection_prng_key,
            "save_projection": True,
            "target_modules": peft.targets_of(self.targets, chosen, sites),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_weights": True,
        }

    @classmethod
    def from_peft(cls, config: dict[str, Any], sites: Sequence[Site]) -> Self:
        config.pop("init_weights", None)  # how the weights began, not what they do
        peft.need_drawn(config, "vera")
        return cls(
            r=config.pop("r", 256),
            d_initial=config.pop("d_initial", 0.1),
            dropout=config.pop("vera_dropout", 0.0),
            projection_prng_key=config.pop("projection_prng_key", 0),
            targets=peft.read_targets(config, sites),
        )


def _drawn(seed: tuple[int, int], width: int, r: int, fan_in: int) -> np.ndarray:
    """[r, width], drawn column by column: narrower ones are the beginning of wider ones."""
    bound = math.sqrt(6.0 / fan_in)
    return np.asarray((2.0 * np.random.default_rng(seed).random((width, r), np.float32).T - 1.0) * bound, np.float32)
