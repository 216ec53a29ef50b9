"""What leaves the blocks of a backbone of convolutions, here and in torch, where its modules are called as the checkpoint's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import torch
from feature_maps import from_torch, to_torch
from flax import nnx
from parity import assert_parity

from graftax.adapters.graft import Grafts
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs
from graftax.models.stack import Seen


def stages(backbone: Backbone, x: np.ndarray) -> dict[int, np.ndarray]:
    """What leaves every stage, by the number of blocks that it and those before it have."""

    def run(params: Any, x: jax.Array) -> dict[int, Any]:
        network, h = nnx.merge(backbone.graphdef, params), ImageInputs(x)
        found, blocks = {}, 0
        for index, stack in enumerate(network.stacks):
            h = stack.run_layers(network.enter(index, h, Grafts.bare()), Seen(), Grafts({}))[0]
            blocks += stack.count
            found[blocks] = h
        return found

    return {blocks: np.asarray(map_) for blocks, map_ in jax.jit(run)(backbone.params, x).items()}


def features(backbone: Backbone, x: np.ndarray) -> np.ndarray:
    pooled = jax.jit(lambda params, x: backbone.encode(params, {}, ImageInputs(x)).pooled)(backbone.params, x)
    return np.asarray(pooled)


def assert_same(backbone: Backbone, blocks: list[torch.Tensor], pooled: torch.Tensor, x: np.ndarray) -> None:
    """Every stage's output, and the features that heads read."""
    found = stages(backbone, x)
    assert max(found) == len(blocks)
    for block, map_ in found.items():
        assert_parity(backbone, map_, from_torch(blocks[block - 1]), where=f"block {block}")
    assert pooled.abs().max() > 1e-2
    assert_parity(backbone, features(backbone, x), pooled)


@torch.no_grad()
def blocks_of(paths: Iterable[str], model: torch.nn.Module, x: np.ndarray) -> tuple[list[torch.Tensor], Any]:
    """What leaves torch's modules at these paths, one for each block, and what the model says."""
    found: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, given: Any, made: Any) -> None:
        found.append(made if isinstance(made, torch.Tensor) else made.last_hidden_state)

    hooks = [model.get_submodule(path).register_forward_hook(keep) for path in paths]
    said = model(to_torch(x))
    for hook in hooks:
        hook.remove()
    return found, said
