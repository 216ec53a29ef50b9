"""Convpass: a convolution over a picture's patches, beside attention and feed-forward (Jie & Deng, 2022, arXiv:2207.07039).

    h = h + F(N(h)) + s g(C(g(N(h) D + d)) + c) U + s u          F attention or feed-forward, N the norm before it

D [d, m] and U [m, d] are linear layers, C a convolution [3, 3, m, m] over the grid in which the patches lie, and
g(x) = x sigmoid(1.702 x). The class token, and whatever else is no patch, is convolved by itself, as a picture of one position.
Of Swin, whose stages are feature maps, all positions are patches.

D starts uniform (Xavier), C as the identity, the rest at zero, so a fresh adapter changes nothing. N is the frozen norm, also
where another method of the adapter changes that. The paper chooses s for each task, from 0.01 to 100. Trainable parameters at a
site: 2dm + 9m^2 + 2m + d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Rate, Size
from ..geometry import Geometry, convolve
from ..method import Leaves, Method, scalar, zeros
from ..products import narrowed, widened
from ..sites import Branch, Site, of_texts
from .dropout import dropout

_AROUND = Geometry(padding=((1, 1), (1, 1)))


@dataclass(frozen=True)
class Convpass(Method):
    """A convolutional bypass of attention and feed-forward, in Transformers of patches."""

    name: ClassVar[str] = "convpass"
    summary: ClassVar[str] = "small convolution over a picture's patches, beside attention and feed-forward"
    count: ClassVar[str] = "2dm + 9m^2 + 2m + d"
    acts_on: ClassVar[tuple[str, ...]] = ("branch",)
    roles: ClassVar[tuple[str, ...] | None] = ("attention_branch", "ffn_branch")
    # g(0) = 0, and U's rows are zero in the pad; the kernel is padded on both axes of channels
    padded: ClassVar[dict[str, int]] = {"down": 1, "down_bias": 0, "conv": 3, "conv_bias": 0, "up": 0}

    width: Size = 8  # m
    scale: float = 1.0  # s
    dropout: Rate = 0.0  # of what comes out of C, in training; the paper drops a tenth

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        if of_texts(sites) or not any(site.role == "attention_branch" for site in sites):
            raise GraftaxError(
                f"{self.name} convolves over the patches of a Transformer of pictures, and this backbone is none."
            )
        return super().candidates(sites)

    def size(self, site: Site) -> int:
        return self.width

    def init(self, key: jax.Array, site: Site) -> Leaves:
        leaves, bound = self.blank(site), math.sqrt(6.0 / (site.shape[0] + self.width))
        conv = np.zeros((3, 3, self.width, self.width), np.float32)
        conv[1, 1] = np.eye(self.width)
        return {**leaves, "conv": conv, "down": jax.random.uniform(key, leaves["down"].shape, minval=-bound, maxval=bound)}

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(self.scale), "dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        (d,) = site.shape
        leaves = {"down": zeros(d, size), "down_bias": zeros(size), "up": zeros(size, d), "up_bias": zeros(d)}
        leaves |= {"conv": zeros(3, 3, size, size), "conv_bias": zeros(size)}
        return leaves, {"scale": scalar(0.0), "dropout": scalar(0.0)}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Branch, key: jax.Array | None) -> jax.Array:
        low = _gelu(narrowed(frozen.before(x), state["down"]) + state["down_bias"])
        low = _gelu(_convolved(low, state["conv"], frozen.grid) + state["conv_bias"])
        return y + state["scale"] * (widened(dropout(low, state["dropout"], key), state["up"]) + state["up_bias"])


def _convolved(low: jax.Array, kernel: jax.Array, grid: tuple[int, int] | None) -> jax.Array:
    """Of tokens `[..., T, m]` whose last lie in a grid, or of a feature map `[..., height, width, m]`."""
    if grid is None:
        return convolve(low, kernel, _AROUND)
    alone = low.shape[-2] - math.prod(grid)
    if alone < 0:  # where the pooled token alone is computed, no patch is there
        return low @ kernel[1, 1]
    patches = low[..., alone:, :]
    moved = convolve(patches.reshape(*low.shape[:-2], *grid, low.shape[-1]), kernel, _AROUND).reshape(patches.shape)
    return jnp.concatenate([low[..., :alone, :] @ kernel[1, 1], moved], axis=-2)


def _gelu(x: jax.Array) -> jax.Array:
    """OpenAI's approximation."""
    return x * jax.nn.sigmoid(1.702 * x)
