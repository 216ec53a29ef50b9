"""Classes that stay as their names have them, beside what is learnt of a few pictures: what two kinds of head share.

    logits = v W^T + b        v [width]: a picture's vector at length 1; W [labels, width]: the classes, by their names

W and b are those of a classifier by names (`serve/named_classes.py`), scaled as its pair of towers scales. Where an adapter has
joined the towers, v is V x at length 1, x being the features of a picture (`joint_head.py`). W, b and V are frozen here, and in
the adapter's file: it needs no tower of texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Within
from ..method import Leaves, scalar, zeros
from ..sites import Site
from .dropout import dropout
from .joint import unit
from .joint_head import JointHead


@dataclass(frozen=True)
class Prototypes(JointHead):
    """Base of heads on frozen classes; their functions make them of a classifier by names (`serve/few_pictures.py`)."""

    width: Annotated[int, Within(0, below=1 << 16)] = 0  # of a joint space; 0: the tower says vectors itself, nothing projects

    def init(self, key: jax.Array, site: Site) -> Leaves:
        raise GraftaxError(f"{self.name}: is made of classes by their names: graftax.{self.name}(pictures, named, ...).")

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        frozen: Leaves = {"kernel": zeros(size, self.room(site)), "bias": zeros(size), "dropout": scalar(0.0)}
        return {}, frozen | ({"projection": zeros(self.width, *site.shape)} if self.width else {})

    def room(self, site: Site) -> int:
        """Numbers in a vector that is compared."""
        return self.width or site.shape[0]

    def buffers(self, site: Site) -> tuple[str, ...]:
        return ("kernel", "bias", "projection") if self.width else ("kernel", "bias")

    def classified(self, state: Leaves, x: jax.Array, key: jax.Array | None) -> jax.Array:
        x = dropout(x, state["dropout"], key)
        return unit(x @ state["projection"].T) if self.width else x

    def vectors(self, features: np.ndarray, frozen: Leaves) -> np.ndarray:
        """What is compared of the features `[pictures, d]` of pictures, which a predictor has embedded."""
        return np.asarray(unit(jnp.asarray(features @ frozen["projection"].T if self.width else features)))
