"""AdaLoRA's parametrisation: an update by singular vectors and values (Zhang et al., 2023, arXiv:2303.10512).

    y = x W + b + s (x Q^T * e) P          Q [r, in], e [r], P [r, out], s = alpha / (init_r + 1e-5)

e starts at zero, P and Q normal (0.02), so a fresh adapter changes nothing. Trainable parameters at a site: r (in + 1 + out).

What is here is the file format and the method **at fixed ranks**. What gives AdaLoRA its name is not: no budget is moved
between sites in training, and nothing pulls P and Q towards orthogonality. A file that PEFT's schedule has pruned is read:
its `rank_pattern` says which singular values each site has kept, and s is still that of `init_r`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import jax
import numpy as np

from ..errors import GraftaxError
from . import peft
from .dropout import dropout
from .method import QUERY_VALUE, Leaves, Method, scalar, zeros
from .sites import LinearWeights, Site

#: How PEFT's schedule went, which the tensors and `rank_pattern` show; `r` is not read there.
_SCHEDULE = ("r", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step")


@dataclass(frozen=True)
class AdaLoRA(Method):
    """An update by singular vectors and values, at fixed ranks; queries and values unless `targets` says otherwise."""

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "update by singular vectors and values, at fixed ranks"
    count: ClassVar[str] = "r (in + out + 1)"
    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    padded: ClassVar[dict[str, int]] = {"p": 0, "e": 0, "q": 0}
    mergeable: ClassVar[bool] = True
    peft_type: ClassVar[str] = "ADALORA"

    init_r: int = 12  # rank at the start of PEFT's schedule; here, the rank
    alpha: float = 8.0  # the update is scaled by alpha / init_r
    dropout: float = 0.0  # of x, in training
    rank_pattern: Mapping[str, Sequence[bool]] = field(default_factory=dict)  # PEFT's: "<module path>.lora_E" -> which are left

    def __post_init__(self) -> None:
        if self.init_r < 1:
            raise GraftaxError(f"adalora: init_r must be at least 1, got {self.init_r}.")
        if self.alpha <= 0.0:
            raise GraftaxError(f"adalora: alpha must be positive, got {self.alpha}.")
        if not 0.0 <= self.dropout < 1.0:
            raise GraftaxError(f"adalora: dropout must be in [0, 1), got {self.dropout}.")

    def size(self, site: Site) -> int:
        left = self.rank_pattern.get(f"{site.path}.lora_E")
        return self.init_r if left is None else sum(map(bool, left))

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank = self.blank(site)
        one, two = jax.random.split(key)
        normal = {name: 0.02 * jax.random.normal(k, blank[name].shape) for name, k in (("p", one), ("q", two))}
        return blank | normal

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(self.alpha / (self.init_r + 1e-5)), "dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        width, out = site.shape
        trainable = {"p": zeros(size, out), "e": zeros(size), "q": zeros(size, width)}
        return trainable, {"scale": scalar(0.0), "dropout": scalar(0.0)}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        low = dropout(x, state["dropout"], key) @ state["q"].T * state["e"]
        return y + state["scale"] * (low @ state["p"])

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        change = state["scale"] * (state["q"].T * state["e"] @ state["p"])
        return frozen._replace(kernel=frozen.kernel + change)

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {
            "lora_A": np.asarray(leaves["q"]),
            "lora_B": np.asarray(leaves["p"]).T,
            "lora_E": np.asarray(leaves["e"])[:, None],
        }

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {"q": tensors["lora_A"], "p": tensors["lora_B"].T, "e": tensors["lora_E"][:, 0]}

    def to_peft(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "init_r": self.init_r,
            "target_r": self.init_r,
            "total_step": 1,  # PEFT wants a schedule, also of an adapter that is done
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "rank_pattern": {key: list(left) for key, left in self.rank_pattern.items()} or None,
            "target_modules": peft.targets_of(self.targets, chosen, sites),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
        }

    @classmethod
    def from_peft(cls, config: dict[str, Any], sites: Sequence[Site]) -> Self:
        for only_training in ("init_lora_weights", *_SCHEDULE):
            config.pop(only_training, None)
        return cls(
            init_r=config.pop("init_r", 12),
            alpha=config.pop("lora_alpha", 8),
            dropout=config.pop("lora_dropout", 0.0),
            rank_pattern=config.pop("rank_pattern", None) or {},
            targets=peft.read_targets(config, sites),
        )
