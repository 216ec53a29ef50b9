"""A method that changes nothing: the "gradient" of its leaves is what it has seen of a layer's inputs.

Starts that follow from inputs (`starts.py`) need their moments at every site, and a backbone has no hooks. Here the layer's
output passes through a function whose derivative is written by hand, and is the moments:

    gram [in, in]: sum of m x^T x        total [in]: sum of m x        count []: sum of m

over the tokens, where the fixed leaf m `[rows, tokens]`, put beside the others for each batch, is 1 on the tokens of texts and
0 on padding. `unit` divides x by its largest entry and counts batches instead of tokens, as CorDA does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..method import Leaves, Method, scalar, zeros
from ..sites import Site


@dataclass(frozen=True)
class Observer(Method):
    """Sees what enters `linear` sites."""

    name: ClassVar[str] = "observer"
    summary: ClassVar[str] = "changes nothing; its gradient is the moments of a layer's inputs"
    count: ClassVar[str] = "none"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    traced: ClassVar[tuple[str, ...]] = ("unit",)

    unit: bool = False

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        width = site.shape[0]
        return {"gram": zeros(width, width), "total": zeros(width), "count": scalar(0.0)}, {}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        mask = state["mask"]
        kept = jnp.where(mask[..., None] > 0, x, 0.0).reshape(-1, x.shape[-1])
        count = jnp.sum(mask)
        if self.unit:
            kept, count = kept / jnp.abs(jnp.max(jnp.where(mask[..., None] > 0, x, -jnp.inf))), jnp.ones_like(count)
        seen = {"gram": kept.T @ kept, "total": jnp.sum(kept, axis=0), "count": count}
        return told({name: state[name] for name in seen}, jax.lax.stop_gradient(seen), y)


@jax.custom_vjp
def told(leaves: Leaves, seen: Leaves, y: jax.Array) -> jax.Array:
    """y, as it is; the "gradient" of the leaves is what was seen, a leaf for each of them."""
    return y


def _forward(leaves: Leaves, seen: Leaves, y: jax.Array) -> tuple[jax.Array, Leaves]:
    return y, seen


def _backward(seen: Leaves, dy: jax.Array) -> tuple[Leaves, None, jax.Array]:
    return seen, None, dy


told.defvjp(_forward, _backward)
