"""LoRA and IA3 in the words of AdapterHub's `adapters`: there they are one method with two ways to compose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...method import Leaves
from ...methods.ia3 import IA3
from ...methods.lora import LoRA
from ...sites import Site
from .dialect import Context, Dialect, ModuleDialect, Tensors

_MATRICES = {"q": "query", "k": "key", "v": "value"}
_FEED_FORWARD = {"intermediate_lora": "ffn_in", "output_lora": "ffn_out"}


class LoRADialect(ModuleDialect):
    there = "lora"
    part = "loras"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        ranks = {(self.method.size(s), self.method.scale(s)) for s in chosen}
        if len(ranks) > 1:
            raise self.context.refuse("a LoRA has one rank and one alpha there")
        if self.method.bias:
            raise self.context.refuse("a LoRA has no bias there")
        ((r, scale),) = ranks
        how = {"composition_mode": "add", "r": r, "alpha": scale * r, "dropout": self.method.dropout, "init_weights": "lora"}
        return self.where(chosen) | how

    def where(self, chosen: Sequence[Site]) -> dict[str, Any]:
        roles, left_out = self.context.spread(chosen)
        if others := roles - {*_MATRICES.values(), *_FEED_FORWARD.values()}:
            raise self.context.refuse(f"there is no LoRA or IA3 there at {', '.join(sorted(others))}")
        attention = [letter for letter, role in _MATRICES.items() if role in roles]
        return {
            "architecture": "lora",
            "selfattn_lora": bool(attention),
            "attn_matrices": attention,
            **{key: role in roles for key, role in _FEED_FORWARD.items()},
            "leave_out": left_out,
        }

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {"lora_A": np.asarray(leaves["a"]), "lora_B": np.asarray(leaves["b"]).T}

    def leaves(self, site: Site, tensors: Tensors) -> Leaves:
        return {"a": tensors["lora_A"], "b": tensors["lora_B"].T}


class IA3Dialect(LoRADialect):
    there = "ia3"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        if any(self.method.scales_input(s) for s in chosen):
            raise self.context.refuse(
                "IA3 scales what matrices put out there; this one scales what enters the feed-forward's second"
            )
        return self.where(chosen) | {"composition_mode": "scale", "r": 1, "alpha": 1, "init_weights": "ia3"}

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {"lora_B": np.asarray(leaves["l_out"])[:, None]}

    def leaves(self, site: Site, tensors: Tensors) -> Leaves:
        return {"l_out": tensors["lora_B"].reshape(-1)}


def read_lora(config: dict[str, Any], context: Context) -> Dialect:
    matrices = config.pop("attn_matrices", ["q", "v"])
    attention = [_MATRICES.get(m, m) for m in matrices] if config.pop("selfattn_lora", True) else []
    roles = [*attention, *(role for key, role in _FEED_FORWARD.items() if config.pop(key, False))]
    if unknown := [m for m in matrices if m not in _MATRICES]:
        raise context.refuse(f"not supported: attn_matrices={unknown!r}")
    chosen = context.chosen(roles, config.pop("leave_out", None), "linear")
    r, alpha, mode = config.pop("r", 8), config.pop("alpha", 8), config.pop("composition_mode", "add")
    vera = [f"{key}={config.pop(key)!r}" for key in ("vera_d", "vera_b") if config.get(key) is not None]  # zero is on, too
    if vera or mode not in ("add", "scale") or (mode == "scale" and (r, alpha) != (1, 1)):
        said = ", ".join([*vera, f"composition_mode={mode!r}, r={r}, alpha={alpha}"])
        raise context.refuse(f"not supported: {said}")
    rate = config.pop("dropout", 0.0)
    if mode == "scale":
        ia3 = IA3(feedforward=())
        return IA3Dialect(replace(ia3, targets=context.targets(ia3, chosen)), context)
    lora = LoRA(r=r, alpha=alpha, dropout=rate)
    return LoRADialect(replace(lora, targets=context.targets(lora, chosen)), context)
