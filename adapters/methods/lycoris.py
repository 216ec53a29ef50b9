"""What LoHa and LoKr share: both come from LyCORIS (Yeh et al., 2024, arXiv:2309.14859), and PEFT words their configs alike.

Not here: PEFT's rank_dropout and module_dropout, which act in training alone. A file that was trained with them is read, and
gives what it gives there; training on goes without.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import jax

from ...typed import Size
from ..formats.peft import words as peft
from ..method import QUERY_VALUE, Leaves, Method, pattern_value, scalar
from ..sites import LinearWeights, Site


@dataclass(frozen=True)
class Lycoris(Method):
    """A change of `linear` sites, W + s D, by small factors of D; queries and values unless `targets` says otherwise."""

    acts_on: ClassVar[tuple[str, ...]] = ("linear",)
    roles: ClassVar[tuple[str, ...] | None] = QUERY_VALUE
    mergeable: ClassVar[bool] = True

    r: Size = 8  # rank
    alpha: float = 8.0  # the change is scaled by alpha / r
    rank_pattern: Mapping[str, Size] = field(default_factory=dict)  # regex of a module path's end -> its rank
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)  # likewise, its alpha

    def rank(self, site: Site) -> int:
        return pattern_value(self.rank_pattern, site.path, self.r)

    def fixed(self, site: Site) -> Leaves:
        return {"scale": scalar(pattern_value(self.alpha_pattern, site.path, self.alpha) / self.rank(site))}

    @abstractmethod
    def change(self, state: Leaves) -> jax.Array:
        """D, whole [in, out]."""

    def merge(self, frozen: LinearWeights, state: Leaves) -> LinearWeights:
        return frozen._replace(kernel=frozen.kernel + state["scale"] * self.change(state))

    def to_peft(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "r": self.r,
            "alpha": self.alpha,
            "rank_pattern": dict(self.rank_pattern),
            "alpha_pattern": dict(self.alpha_pattern),
            "target_modules": peft.targets_of(self.targets, chosen, sites),
            "init_weights": True,
        }

    @classmethod
    def from_peft(cls, config: dict[str, Any], sites: Sequence[Site], **more: Any) -> Self:
        for only_training in ("init_weights", "rank_dropout", "module_dropout"):
            config.pop(only_training, None)
        config.pop("use_effective_conv2d", None)  # of convolutions
        return cls(
            r=config.pop("r", 8),
            alpha=config.pop("alpha", 8),
            rank_pattern=config.pop("rank_pattern", None) or {},
            alpha_pattern=config.pop("alpha_pattern", None) or {},
            targets=peft.read_targets(config, sites),
            **more,
        )


def uniform(key: jax.Array, *shape: int) -> jax.Array:
    """PEFT's and torch's usual start of a matrix [.., in]: uniform up to 1 / sqrt(in)."""
    bound = 1.0 / math.sqrt(shape[-1])
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
