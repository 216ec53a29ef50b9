"""Convolutions of every geometry, small, beside torch's: what the tests of convolutions are run with."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from graftax.adapters.geometry import Geometry
from graftax.adapters.sites import ConvWeights, Site

#: By name: channels in and out, the kernel's height and width, and the geometry, of torch's kinds.
CASES: dict[str, tuple[tuple[int, int, int, int], Geometry]] = {
    "plain": ((4, 6, 3, 3), Geometry(padding=((1, 1), (1, 1)))),
    "pointwise": ((4, 6, 1, 1), Geometry()),
    "strided": ((4, 6, 3, 3), Geometry(stride=(2, 2), padding=((1, 1), (1, 1)))),
    "dilated": ((4, 6, 3, 3), Geometry(dilation=(2, 2), padding=((2, 2), (2, 2)))),
    "grouped": ((4, 6, 3, 3), Geometry(padding=((1, 1), (1, 1)), groups=2)),
    "depthwise": ((4, 4, 3, 3), Geometry(stride=(2, 2), padding=((1, 1), (1, 1)), groups=4)),
    "oblong": ((4, 6, 5, 3), Geometry(stride=(3, 1), padding=((2, 2), (0, 0)), dilation=(1, 2))),
}
HEIGHT, WIDTH = 9, 8


def site_of(case: str) -> Site:
    (channels, out, height, width), geometry = CASES[case]
    shape = (height, width, channels // geometry.groups, out)
    return Site("conv_in", "conv", "block.conv", shape, "conv_in", geometry=geometry, hidden=out, within="block.conv")


def weights_of(case: str, seed: int = 0) -> ConvWeights:
    site, random = site_of(case), np.random.default_rng(seed)
    assert site.geometry is not None
    kernel, bias = random.standard_normal(site.shape, np.float32), random.standard_normal(site.shape[-1], np.float32)
    return ConvWeights(jnp.asarray(kernel), jnp.asarray(bias), site.geometry)


def picture(case: str, *lead: int, seed: int = 1) -> jax.Array:
    channels = CASES[case][0][0]
    return jnp.asarray(np.random.default_rng(seed).standard_normal((*lead, HEIGHT, WIDTH, channels), np.float32))


def torch_layer(weights: ConvWeights) -> torch.nn.Conv2d:
    """torch's module with these weights."""
    geometry = weights.geometry
    height, width, channels, out = weights.kernel.shape
    assert geometry.padding is not None
    (top, bottom), (left, right) = geometry.padding
    assert (top, left) == (bottom, right)
    layer: Any = torch.nn.Conv2d(
        channels * geometry.groups, out, (height, width), geometry.stride, (top, left), geometry.dilation, geometry.groups
    )
    layer.weight.data = torch.tensor(np.asarray(weights.kernel).transpose(3, 2, 0, 1)).contiguous()
    layer.bias.data = torch.tensor(np.asarray(weights.bias))
    return layer


def to_torch(x: Any) -> torch.Tensor:
    """`[rows, height, width, channels]` as torch has it, channels first."""
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))


def from_torch(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)
