"""A head in the joint space of two towers (`joint.py`), on one of them: what is left of a pair where classes have names.

    logits = (V x / |V x|) W^T + b        V [width, d]: the tower's projection; W [labels, width]: the classes in that space

It is made of a trained pair (`serve/named_classes.py`), and can be trained on with labels as any head can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import numpy as np

from ...errors import GraftaxError
from ...typed import Within
from ..method import Leaves, scalar, zeros
from ..sites import Site
from .dropout import dropout
from .head import Head
from .joint import unit


@dataclass(frozen=True)
class JointHead(Head):
    """A classifier in a joint space."""

    name: ClassVar[str] = "joint_head"
    summary: ClassVar[str] = "classes by their names in the joint space of a pair of towers"
    count: ClassVar[str] = "width d + labels (width + 1)"
    traced: ClassVar[tuple[str, ...]] = ("width",)

    width: Annotated[int, Within(1, below=1 << 16)] = 256  # numbers in a vector of the joint space

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden != "none":
            raise GraftaxError(f"{self.name}: its hidden layer is a projection, and takes no activation.")

    def init(self, key: jax.Array, site: Site) -> Leaves:
        first, second = jax.random.split(key)
        (dim,) = site.shape
        projection = jax.random.normal(first, (self.width, dim)) / np.float32(math.sqrt(dim))
        kernel = 0.02 * jax.random.normal(second, (self.labels, self.width))
        return {"projection": projection, "kernel": kernel, "bias": zeros(self.labels)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        leaves = {"projection": zeros(self.width, *site.shape), "kernel": zeros(size, self.width), "bias": zeros(size)}
        return leaves, {"dropout": scalar(0.0)}

    def classified(self, state: Leaves, x: jax.Array, key: jax.Array | None) -> jax.Array:
        return unit(dropout(x, state["dropout"], key) @ state["projection"].T)
