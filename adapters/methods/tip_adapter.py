"""Tip-Adapter: a few labelled pictures, kept, beside the names of classes (Zhang et al., 2022, arXiv:2207.09519).

    logits_c = v W_c + b_c + alpha sum_s exp(-beta (1 - v . k_cs))     k_cs [w]: the vector of picture s of class c, of length 1

W and b are the classes by their names, frozen (`prototypes.py`). Nothing need be trained: the vectors of the pictures are the
adapter. Trained on (Tip-Adapter-F), the keys k_cs change, and nothing else does; they are not held at length 1 then.

The paper has the keys of all classes in one matrix, and beside it one of their labels, one-hot. Here each class has a row of
keys, so a label needs no array, and a head with more classes is filled up as any other. `held` is 1 where there is a picture:
classes may have unlike numbers of them. Trainable parameters: labels shots w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from ...typed import Positive, Size
from ..method import Leaves, scalar, zeros
from ..sites import Site
from .prototypes import Prototypes


@dataclass(frozen=True)
class TipAdapter(Prototypes):
    """Vectors of a few pictures of each class, beside classes by their names."""

    name: ClassVar[str] = "tip_adapter"
    summary: ClassVar[str] = "the vectors of a few pictures of each class, beside classes by their names"
    count: ClassVar[str] = "labels shots d"
    traced: ClassVar[tuple[str, ...]] = ("width", "shots")
    padded: ClassVar[dict[str, int]] = {"kernel": 0, "bias": 0, "keys": 0, "held": 0}

    shots: Size = 16  # pictures of a class at most
    alpha: Positive = 1.0  # how much the pictures count beside the names
    beta: Positive = 5.5  # how near a picture must be to count

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        frozen = super().identity(site, size)[1]
        frozen |= {"held": zeros(size, self.shots), "alpha": scalar(0.0), "beta": scalar(0.0)}
        return {"keys": zeros(size, self.shots, self.room(site))}, frozen

    def buffers(self, site: Site) -> tuple[str, ...]:
        return (*super().buffers(site), "held")

    def fixed(self, site: Site) -> Leaves:
        return {"dropout": scalar(self.dropout), "alpha": scalar(self.alpha), "beta": scalar(self.beta)}

    def logits(self, state: Leaves, x: jax.Array) -> jax.Array:
        near = jnp.exp(state["beta"] * (jnp.einsum("...d,csd->...cs", x, state["keys"]) - 1.0))
        return super().logits(state, x) + state["alpha"] * jnp.sum(near * state["held"], axis=-1)
