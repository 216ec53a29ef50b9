"""Convpass against its formula in torch, on tokens of which the last are patches and on feature maps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import GetBackbone

from graftax import Convpass, GraftaxError
from graftax.adapters.graft import SiteCalls
from graftax.adapters.sites import Site
from graftax.models.layers import Norm

D, WIDTH, GRID, LEADING = 6, 5, (3, 4), 2


def leaves_of(method: Convpass) -> dict[str, Any]:
    random, site = np.random.default_rng(0), Site("layers.ffn_branch", "branch", "", (D,))
    made = {name: random.standard_normal(np.shape(leaf)).astype(np.float32) for name, leaf in method.blank(site).items()}
    return made | method.fixed(site)


def in_torch(leaves: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    """What is added to the branch of tokens x that are normed, the first of which are no patches."""
    there = {name: torch.tensor(np.asarray(leaf)) for name, leaf in leaves.items()}

    def gelu(h: torch.Tensor) -> torch.Tensor:
        return h * torch.sigmoid(1.702 * h)

    def convolved(map_: torch.Tensor) -> torch.Tensor:
        kernel = there["conv"].permute(3, 2, 0, 1)
        made = torch.nn.functional.conv2d(map_.permute(0, 3, 1, 2), kernel, there["conv_bias"], padding=1)
        return made.permute(0, 2, 3, 1)

    low = gelu(x @ there["down"] + there["down_bias"])
    alone = [convolved(low[:, i : i + 1, None])[:, :, 0] for i in range(LEADING)]
    patches = convolved(low[:, LEADING:].reshape(len(x), *GRID, WIDTH)).reshape(len(x), -1, WIDTH)
    return there["scale"] * (gelu(torch.cat([*alone, patches], dim=1)) @ there["up"] + there["up_bias"])


def test_the_bypass_is_the_papers_in_torch() -> None:
    method, random = Convpass(width=WIDTH, scale=0.7), np.random.default_rng(1)
    leaves = leaves_of(method)
    x, y = (random.standard_normal((2, LEADING + 12, D)).astype(np.float32) for _ in range(2))
    scale, bias = random.standard_normal((2, D)).astype(np.float32)
    norm = Norm({"n.scale": jnp.asarray(scale), "n.bias": jnp.asarray(bias)}, "n", 1e-5)

    def ours(x: Any, y: Any, grid: Any, mixed: bool = False, held: Any = leaves) -> np.ndarray:
        def called(held: Any, x: Any, y: Any) -> jax.Array:
            calls = SiteCalls({"b": {"convpass": held}}, mixed=mixed)
            return calls.branch("b", x, y, before=norm, grid=grid)

        return np.asarray(jax.jit(called)(held, x, y))

    normed = torch.nn.functional.layer_norm(torch.tensor(x), (D,), torch.tensor(scale), torch.tensor(bias), 1e-5)
    wanted = y + in_torch(leaves, normed).numpy()
    np.testing.assert_allclose(ours(x, y, GRID), wanted, atol=1e-4)
    pooled = ours(x[:, :1], y[:, :1], GRID)  # in the last layer the class token alone may be computed
    np.testing.assert_allclose(pooled, wanted[:, :1], atol=1e-4)
    maps = [array[:, LEADING:].reshape(2, *GRID, D) for array in (x, y)]
    np.testing.assert_allclose(ours(*maps, None).reshape(2, -1, D), wanted[:, LEADING:], atol=1e-4)
    each = jax.tree.map(lambda leaf: np.stack([leaf, 0.5 * leaf]), leaves)  # of a mixed batch
    np.testing.assert_allclose(ours(x, y, GRID, mixed=True, held=each)[0], wanted[0], atol=1e-4)


def test_feature_maps_of_convolutions_have_their_own(backbone_of: GetBackbone) -> None:
    for family in ("bert", "cifar_resnet"):
        with pytest.raises(GraftaxError, match="convolves over the patches of a Transformer of pictures"):
            Convpass().select(backbone_of(family).sites)
    assert {site.role for site in Convpass().select(backbone_of("vit").sites)} == {"attention_branch", "ffn_branch"}
