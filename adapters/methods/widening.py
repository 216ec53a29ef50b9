"""What is narrow, widened by a matrix: a product whose derivative is written by hand.

LoRA's B is such a matrix, the way up of a bottleneck or of Convpass, FacT's V.

    y = h B          h [..., r], B [r, out]: r is small, and out is not
    dh = dy B^T      dB = h^T dy

JAX derives dB as (dy^T h)^T, which is the same number and another program: a product on a CPU has the summed axis of its first
factor last, so that the whole of dy is written once more, turned around. With h in front it is the thin matrix that is turned.
A training step of LoRA on the convolutions of a MobileNetV2 so takes four fifths of the time (`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

import jax


@jax.custom_vjp
def widened(h: jax.Array, b: jax.Array) -> jax.Array:
    """`h [..., r]` by `b [r, out]`: `[..., out]`."""
    return h @ b


def _kept(h: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return h @ b, (h, b)


def _cotangents(kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    h, b = kept
    return dy @ b.T, h.reshape(-1, h.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])


widened.defvjp(_kept, _cotangents)
