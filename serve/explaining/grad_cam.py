"""Grad-CAM (Selvaraju et al., 2016, arXiv:1610.02391): which positions of a late feature map speak for a label.

    map = relu(sum_c w_c A_c),  w_c the mean over all positions of d f / d A_c          f: the evidence for the label

A is the last feature map of more than one position that leaves a block. Of a Transformer of patches it is the patches as they
enter the last layer's attention, for a head that reads the class token alone feels no other token behind it. The map is
resized to the picture; a lens sees it (`adapters/methods/lenses.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...adapters.graft import State
from ...adapters.methods.lenses import ClassMap
from ...adapters.sites import Site
from ...models.backbone import Backbone
from .attribution import Attributed, Way
from .picture_tokens import grid_of, has_tokens
from .question import Question

_ENTERS = "attention_norm"  # the role of what a layer's attention reads


@dataclass(frozen=True)
class GradCAM(Way):
    name = "grad-cam"
    said = "how much each place in a late feature map speaks for the label"

    def unfit(self, backbone: Backbone) -> str | None:
        if backbone.family.processor.kind != "image":
            return "is for pictures, of which layers have maps; texts have integrated-gradients"
        return None

    def attribute(
        self, question: Question, params: Any, state: State, inputs: Any, blank: Any, labels: jax.Array
    ) -> Attributed:
        backbone, (rows, high, wide) = question.backbone, inputs.pixels.shape[:3]
        grid = grid_of(backbone, high, wide) if has_tokens(backbone) else (0, 0)
        lens = ClassMap(high=grid[0], wide=grid[1])
        seen = {
            site.name: {
                "map": jnp.zeros((backbone.structure.stacks[site.stack], rows, high, wide), jnp.float32),
                "positions": jnp.zeros(backbone.structure.stacks[site.stack], jnp.float32),
            }
            for site in _maps(backbone)
        }

        def score(seen: dict[str, Any]) -> jax.Array:
            looking = {name: {**state.get(name, {}), lens.key: leaves} for name, leaves in seen.items()}
            return question.evidence(params, {**state, **looking}, inputs, labels).sum()

        looked = jax.grad(score)(seen)
        first, *others = [
            jax.tree.map(lambda leaf: leaf[-1], looked[site.name]) for site in _maps(backbone)
        ]  # the last layers'
        values = first["map"]
        for each in others:
            values = jnp.where(each["positions"] > 1, each["map"], values)
        return Attributed(values)


def _maps(backbone: Backbone) -> list[Site]:
    """The sites where a map may be, one for each stack, the last behind the others."""
    role = _ENTERS if has_tokens(backbone) else None
    sites = [site for site in backbone.sites if site.stack and (site.role == role if role else site.kind == "stream")]
    return [*{site.stack: site for site in sites}.values()]
