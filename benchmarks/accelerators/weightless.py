"""Backbones without weights: a shape and a dtype in place of each array, so that programs of any size can be compiled.

A program depends on the shapes of a backbone's weights, and not on what they are. They are held by layer, as off a CPU
(`models/by_layer.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ...models.backbone import Backbone
from ...models.by_layer import ByLayer
from ...models.family_registry import family_of
from ...models.fingerprint import by_name
from ...models.quantised import quantiser
from ...models.tensor_parallel import refuse_uncut, shared
from .several_devices import shape_there


def weightless_backbone(
    config: Mapping[str, Any],
    dtype: str = "bfloat16",
    remat: str = "none",
    quantize: str | None = None,
    mesh: Mesh | None = None,
) -> Backbone:
    """A backbone of a Hugging Face config; `dtype`, `remat` and `quantize` as of `load_backbone`.

    `mesh`: devices that share its weights, which need not be there (`models/tensor_parallel.py`).
    """
    family = family_of(config.get("model_type"))
    typed = family.configure(config)
    weights = [weight for part in family.parts(typed) for weight in part.weights(family.layer_paths(typed))]
    held: dict[str, Any] = {}
    for name, group in by_name(weights):
        one: Any = jax.ShapeDtypeStruct(group[0].shape, jnp.dtype(dtype))
        if group[0].layer is not None:
            if quantize is not None and group[0].leaf == "kernel":
                one = jax.eval_shape(quantiser(quantize, jnp.dtype(dtype)), one)
            one = jax.tree.map(lambda leaf, layers=len(group): ByLayer((leaf,) * layers), one)
        held[name] = one
    known: dict[str, Any] = {"fingerprint": "", "name": f"{config['model_type']} without weights", "hf_config": dict(config)}
    if mesh is not None:
        held = shared(mesh, family.parts(typed), held, put=shape_there)
        refuse_uncut(mesh, typed.attention_heads, held, known["name"])
    return Backbone.around(family, typed, held, remat=remat, quantize=quantize, mesh=mesh, **known)
