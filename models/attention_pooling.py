"""Pooling by attention (Lee et al., 2019, arXiv:1810.00825; Zhai et al., 2022, arXiv:2106.04560), as SigLIP's pictures are.

    a = W_o attention(probe, h, h)              one trained query, which sees all tokens
    v = a + W_2 act(W_1 N(a))

Its attention is torch's, with one matrix for query, key and value. PEFT's adapters leave that as it is (what they put on its
`out_proj` is not run), so its matrices are constants here; norm and feed-forward are sites.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ..adapters.graft import SiteCalls
from ..adapters.sites import split_attention_heads
from ..shapes import Float, shaped
from .activations import ACTIVATIONS
from .layers import Arrays, Constant, Linear, Norm
from .ops import attention
from .parts import Part

if TYPE_CHECKING:
    from .picture_transformer import PictureTransformerConfig


class AttentionPooling(nnx.Module):
    """A vector of each picture's tokens."""

    def __init__(self, config: PictureTransformerConfig, arrays: Arrays):
        self.config = config
        self.probe = Constant(arrays, "pooling.probe")
        self.qkv, self.qkv_bias = Constant(arrays, "pooling.qkv"), Constant(arrays, "pooling.qkv_bias")
        self.out, self.out_bias = Constant(arrays, "pooling.out"), Constant(arrays, "pooling.out_bias")
        self.norm = Norm(arrays, "pooling.norm", config.norm_eps)
        self.ffn_in = Linear(arrays, "pooling.ffn_in")
        self.ffn_out = Linear(arrays, "pooling.ffn_out")

    @shaped
    def __call__(self, h: Float[Array, "rows tokens hidden"], calls: SiteCalls) -> Float[Array, "rows 1 hidden"]:
        rows, tokens, hidden = h.shape
        kernels = jnp.split(self.qkv.value[...].T, 3, axis=-1)
        biases = jnp.split(self.qkv_bias.value[...], 3)
        probe = jnp.broadcast_to(self.probe.value[...], (rows, 1, hidden)).astype(h.dtype)
        query, key, value = (
            split_attention_heads(x @ kernel + bias, self.config.num_heads)
            for x, kernel, bias in zip((probe, h, h), kernels, biases, strict=True)
        )
        mixed = attention(query, key, value, jnp.ones((rows, 1, tokens), bool))
        mixed = mixed @ self.out.value[...].T + self.out_bias.value[...]
        x = calls.norm("pooling.norm", mixed, self.norm)
        x = ACTIVATIONS[self.config.activation](calls.linear("pooling.ffn_in", x, self.ffn_in))
        return mixed + calls.linear("pooling.ffn_out", x, self.ffn_out)


def pooling_parts(c: PictureTransformerConfig, path: str, above: str) -> tuple[Part, ...]:
    """Its parts; `path`: what a checkpoint calls it."""
    d, wide = c.hidden_size, c.intermediate_size
    constants = {
        "probe": ("probe", (1, 1, d)),
        "qkv": ("attention.in_proj_weight", (3 * d, d)),
        "qkv_bias": ("attention.in_proj_bias", (3 * d,)),
        "out": ("attention.out_proj.weight", (d, d)),
        "out_bias": ("attention.out_proj.bias", (d,)),
    }
    return (
        *(Part("constant", f"pooling.{name}", f"{path}.{own}", shape, above=above) for name, (own, shape) in constants.items()),
        Part("norm", "pooling.norm", f"{path}.layernorm", (d,), above=above),
        Part("linear", "pooling.ffn_in", f"{path}.mlp.fc1", (d, wide), above=above),
        Part("linear", "pooling.ffn_out", f"{path}.mlp.fc2", (wide, d), above=above),
    )
