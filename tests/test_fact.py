"""FacT: factors that all sites share, against its formula in torch and against training them as the one array that they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from cases import random_adapter
from conftest import PICTURES, GetBackbone
from contract import a_learner
from safetensors.numpy import load_file

from graftax import Adapter, FacT, GraftaxError, Recipe, merge, save_adapter
from graftax.adapters.adapter import Layout
from graftax.models.random import random_backbone
from graftax.tasks.task_registry import task_named
from graftax.train.optimizer import rates
from graftax.train.step import Programs

D = 32  # the width of the tiny backbones


@pytest.mark.parametrize("form", ["tt", "tk"])
def test_the_change_is_the_papers_in_torch(form: str, backbone_of: GetBackbone) -> None:
    """Matrix by matrix: sum_ij U_i C_ij V_j, in tk with C = sum_k p_k G_k."""
    backbone = backbone_of("vit")
    adapter = random_adapter(backbone, (FacT(r=3, form=form, scale=0.7),))
    merged = merge(backbone, adapter)[0]
    for site, (own, _) in adapter.states["fact"].items():
        there = {name: torch.tensor(np.asarray(leaf)) for name, leaf in own.items()}
        before = torch.tensor(site.weights().kernel)
        after = torch.tensor(next(s for s in merged.sites if s == site).weights().kernel)
        for a in range(site.shape[0] // D):
            for b in range(site.shape[1] // D):
                c = there["cores"][a, b] if form == "tt" else torch.zeros(3, 3)
                for k in range(3 if form == "tk" else 0):
                    c = c + there["mix"][a, b, k] * there["core"][k]
                block = (slice(a * D, (a + 1) * D), slice(b * D, (b + 1) * D))
                wanted = before[block] + 0.7 * there["left"] @ c @ there["right"]
                np.testing.assert_allclose(after[block], wanted, atol=1e-5)


def test_what_is_shared_trains_as_one_array() -> None:
    """Three steps of AdamW on U, V and G as one array each, which count once in the norm; under layers of unlike rates."""
    backbone = random_backbone(PICTURES["vit"] | {"num_hidden_layers": 2}, seed=7)
    method = FacT(r=3, form="tk", targets=("q_proj", "fc1"))
    layers = backbone.layers
    adapter = random_adapter(backbone, (method,))
    layout = Layout.of([adapter], backbone.sites, bucket=True)
    learner, batch = a_learner(backbone, adapter, layout)
    stacked = layout.stack(adapter, backbone.sites)
    speeds = rates(Recipe(layer_decay=0.5), stacked, backbone.sites, 1)
    learner = learner._replace(rate=speeds[0], begins=speeds[1], hyper=learner.hyper._replace(clip=np.float32(0.05)))
    learner, batch = jax.tree.map(jnp.asarray, (learner, batch))
    programs = Programs(backbone, task_named(adapter.task), slots=1)

    def is_shared(path: Any) -> bool:
        return path[1].key == "fact" and path[-1].key in method.shared

    def apart(tree: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is shared, of one site and layer; and the rest, by its whole name."""
        found = jax.tree_util.tree_leaves_with_path(tree)
        one = {path[-1].key: leaf[0] for path, leaf in found if is_shared(path)}
        return one, {jax.tree_util.keystr(path): leaf for path, leaf in found if not is_shared(path)}

    def whole(one: dict[str, Any], rest: dict[str, Any]) -> Any:
        def leaf(path: Any, like: Any) -> Any:
            return jnp.broadcast_to(one[path[-1].key], like.shape) if is_shared(path) else rest[jax.tree_util.keystr(path)]

        return jax.tree_util.tree_map_with_path(leaf, learner.trainable)

    @jax.jit
    @jax.grad
    def gradient(parts: Any) -> jax.Array:
        return programs.loss(whole(*parts), backbone.params, layers, learner, batch)

    speed = apart(learner.rate)
    parts, optimizer = apart(learner.trainable), optax.adamw(1.0, weight_decay=0.0)
    with jax.numpy_dtype_promotion("standard"):
        moments = optimizer.init(parts)
        for _ in range(3):
            grads = jax.tree.map(lambda g, rate: jnp.where(rate > 0, g, 0.0), gradient(parts), speed)
            grads = jax.tree.map(lambda g, norm=optax.tree.norm(grads): g * jnp.minimum(1.0, 0.05 / norm), grads)
            updates, moments = optimizer.update(grads, moments, parts)
            parts = jax.tree.map(lambda p, u, rate: p + 1e-2 * rate * jnp.where(rate > 0, u, 0.0), parts, updates, speed)
    pack, batches = jax.tree.map(lambda leaf: leaf[None], (learner, batch))
    for _ in range(3):
        pack = programs.step(backbone.params, layers, pack, batches)
    found = jax.tree.map(lambda leaf: leaf[0], pack.trainable)
    for (path, mine), wanted in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(whole(*parts)), strict=True):
        if is_shared(path):
            first = apart(found)[0][path[-1].key]
            np.testing.assert_array_equal(mine, np.broadcast_to(first, mine.shape))  # copies of one another, to the bit
        np.testing.assert_allclose(mine, wanted, atol=2e-4, err_msg=jax.tree_util.keystr(path))


def test_files_have_once_what_is_shared(backbone_of: GetBackbone, tmp_path: Path) -> None:
    backbone = backbone_of("vit")
    adapter = Adapter.create((FacT(r=3, form="tk"),), backbone.sites)
    tensors = load_file(save_adapter(adapter, tmp_path / "a", backbone) / "adapter_model.safetensors")
    shared = {"fact_left.32x3", "fact_right.3x32", "fact_core.3x3x3"}
    assert {key.removeprefix("base_model.model.") for key in tensors if "vit" not in key} == shared
    assert sum(tensor.size for tensor in tensors.values()) == adapter.parameters == 3 * 8 * 3 + 3**3 + 2 * D * 3


def test_matrices_as_wide_as_the_stream(backbone_of: GetBackbone) -> None:
    """Keys that several queries share are narrower: left out by default, and refused where they are asked for."""
    backbone = backbone_of("llama")
    chosen = {site.role for site in FacT().select(backbone.sites)}
    assert chosen == {"query", "attention_out", "ffn_gate", "ffn_in", "ffn_out"}
    with pytest.raises(GraftaxError, match=r"k_proj is 32 x 16, which cannot be cut into matrices of 32 x 32"):
        FacT(targets=("k_proj",)).select(backbone.sites)
    with pytest.raises(GraftaxError, match="form 'cp' is none of tt, tk"):
        dataclasses.replace(FacT(), form="cp")
