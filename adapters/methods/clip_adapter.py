"""CLIP-Adapter: a bottleneck on a picture's vector, before it is compared with classes (Gao et al., 2021, arXiv:2110.04544).

    f = (1 - a) v + a relu(v D^T) U^T        v [w], D [w / reduction, w] and U [w, w / reduction] trained
    logits = (f / |f|) W^T + b               W, b: the classes by their names, frozen (`prototypes.py`)

a is the `ratio`: how much of the answer is learnt of pictures. The paper changes a vector before it has length 1. That is the
same: what is added grows as v does, and the sum is brought to length 1. U starts at zero, so a fresh adapter answers as names
alone do. (In the paper both start at random.) Trainable parameters: 2 w^2 / reduction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import numpy as np

from ...typed import Size, Within
from ..method import Leaves, scalar, zeros
from ..sites import Site
from .joint import unit
from .prototypes import Prototypes


@dataclass(frozen=True)
class ClipAdapter(Prototypes):
    """Vectors of pictures changed by a bottleneck, before classes by their names."""

    name: ClassVar[str] = "clip_adapter"
    summary: ClassVar[str] = "a bottleneck on a picture's vector, before classes by their names"
    count: ClassVar[str] = "2 d^2 / reduction"
    traced: ClassVar[tuple[str, ...]] = ("width", "reduction")

    reduction: Size = 4  # how many times narrower than the vector the bottleneck is
    ratio: Annotated[float, Within(0.0, most=1.0)] = 0.2  # a

    def init(self, key: jax.Array, site: Site) -> Leaves:
        size = self.room(site)
        down = jax.random.normal(key, (self._narrow(site), size)) * np.float32(math.sqrt(2.0 / size))
        return {"down": down, "up": zeros(size, self._narrow(site))}

    def _narrow(self, site: Site) -> int:
        return max(1, self.room(site) // self.reduction)

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        frozen, room, narrow = super().identity(site, size)[1], self.room(site), self._narrow(site)
        return {"down": zeros(narrow, room), "up": zeros(room, narrow)}, frozen | {"ratio": scalar(0.0)}

    def fixed(self, site: Site) -> Leaves:
        return {"dropout": scalar(self.dropout), "ratio": scalar(self.ratio)}

    def classified(self, state: Leaves, x: jax.Array, key: jax.Array | None) -> jax.Array:
        v = super().classified(state, x, key)
        learnt = jax.nn.relu(v @ state["down"].T) @ state["up"].T
        return unit((1.0 - state["ratio"]) * v + state["ratio"] * learnt)
