"""The head of a task: features to logits. It belongs to the adapter, because label sets differ from adapter to adapter.

    logits = g(x W_h + b_h) W^T + b        W [labels, d]; the hidden layer only where the backbone's task model has one

Hugging Face's models differ here (RoBERTa: dense, tanh, out_proj; DistilBERT: pre_classifier, ReLU, classifier; BERT and
ALBERT: the pretrained pooler, then classifier), so the backbone says which features are read, which hidden layer there is,
and what the modules are called (`Backbone.head`). A head at VECTOR reads what a tower says of an item, at length 1;
one at FIRST the first position as it leaves the last layer, even where that model reads the pooler, as AdapterHub's do.

A head over a picture's feature map (MAP) makes logits of every position, a 1x1 convolution. One over several maps (MAPS) makes
them of what all have at a position, side by side, as DINOv2's does (Oquab et al., 2023, arXiv:2304.07193); smaller maps are
resized to the largest:

    logits = sum_i resized(x_i W_i^T) + b          x_i [h_i, w_i, d_i], W = [W_1 ... W_n] [labels, d_1 + ... + d_n]

The products come first: resized to one size, maps of 1,400 channels would be a hundred times as large as logits of ten classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from ...counted import counted
from ...errors import GraftaxError
from ...typed import Rate, Within
from ..bilinear import resized
from ..method import Leaves, Method, scalar, zeros
from ..sites import Site
from .dropout import dropout

POOLED, FIRST, TOKENS, VECTOR = "head.pooled", "head.first", "head.tokens", "head.vector"
MAP, MAPS = "head.map", "head.maps"  # the last feature map of a picture; several, whose channels are the numbers in the shape
OBJECTS, OBJECTS_OF_MAPS = "head.objects", "head.objects_of_maps"  # of the same maps, for objects in them (`detection_head.py`)
HEADS = (POOLED, FIRST, TOKENS, VECTOR, MAP, MAPS, OBJECTS, OBJECTS_OF_MAPS)  # names of the sites of heads
OF_MAPS = (MAPS, OBJECTS_OF_MAPS)  # those that read several feature maps
OVER_MAPS = (MAP, MAPS, OBJECTS, OBJECTS_OF_MAPS)  # those that read feature maps at all
OF_POSITIONS = (TOKENS, *OVER_MAPS)  # those at which a backbone computes every position, and not what is pooled alone
_ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


@dataclass(frozen=True)
class Head(Method):
    """A classifier over pooled features, over every token or over every position of feature maps."""

    name: ClassVar[str] = "head"
    summary: ClassVar[str] = "classifier alone over frozen features (linear probe)"
    count: ClassVar[str] = "labels (d + 1)"
    acts_on: ClassVar[tuple[str, ...]] = ("head",)
    padded: ClassVar[dict[str, int]] = {"kernel": 0, "bias": 0}
    traced: ClassVar[tuple[str, ...]] = ("hidden",)
    at: ClassVar[tuple[str, ...]] = (POOLED, FIRST, TOKENS, VECTOR, MAP, MAPS)  # the sites where it can be

    site: str = POOLED  # or another of those
    labels: Annotated[int, Within(1, below=1 << 20)] = 2  # classes
    hidden: str = "none"  # activation of a hidden layer before the classifier: none, tanh or relu
    modules: tuple[str, ...] = ("classifier",)  # paths in the task model: (hidden layer's,) classifier's
    dropout: Rate = 0.0  # of the features, in training
    biased: bool = True  # whether the classifier has a bias

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.site not in self.at:
            raise GraftaxError(f"{self.name}: site {self.site!r} is none of {', '.join(self.at)}.")
        if self.hidden not in ("none", *_ACTIVATIONS):
            raise GraftaxError(f"head: hidden {self.hidden!r} is none of none, {', '.join(_ACTIVATIONS)}.")

    def select(self, sites: Sequence[Site]) -> list[Site]:
        if len(self.modules) != 1 + (self.hidden != "none"):
            raise GraftaxError(f"head: {counted(len(self.modules), 'module')} for a head with hidden {self.hidden!r}.")
        return [site for site in sites if site.name == self.site]

    def size(self, site: Site) -> int:
        return self.labels

    def trainable(self, site: Site) -> tuple[str, ...]:
        return tuple(name for name in super().trainable(site) if self.biased or name != "bias")

    def init(self, key: jax.Array, site: Site) -> Leaves:
        dim, (k1, k2) = sum(site.shape), jax.random.split(key)
        leaves: Leaves = {"kernel": 0.02 * jax.random.normal(k1, (self.labels, dim))}
        if self.biased:
            leaves["bias"] = zeros(self.labels)
        if self.hidden != "none":
            leaves |= {"hidden": jax.random.normal(k2, (dim, dim)) / math.sqrt(dim), "hidden_bias": zeros(dim)}
        return leaves

    def fixed(self, site: Site) -> Leaves:
        return {"dropout": scalar(self.dropout)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        dim = sum(site.shape)
        leaves = {"kernel": zeros(size, dim), "bias": zeros(size)}
        if self.hidden != "none":
            leaves |= {"hidden": zeros(dim, dim), "hidden_bias": zeros(dim)}
        return leaves, {"dropout": scalar(0.0)}

    def apply(self, state: Leaves, x: Any, y: jax.Array | None, frozen: None, key: jax.Array | None) -> jax.Array:
        if isinstance(x, tuple):
            logits = self._of_maps(state, x, key)
        else:
            logits = self.logits(state, self.classified(state, x.astype(jnp.float32), key))
        return logits if y is None else _together(y, logits)  # of another kind of head, which a bank may hold, too

    def logits(self, state: Leaves, x: jax.Array) -> jax.Array:
        """Of what the classifier reads."""
        logits = x @ state["kernel"].T
        return logits + state["bias"] if "bias" in state else logits

    def _of_maps(self, state: Leaves, maps: tuple[jax.Array, ...], key: jax.Array | None) -> jax.Array:
        """The products with several feature maps, at the size of the largest, in sum."""
        largest, begin, logits = max(x.shape[-3:-1] for x in maps), 0, jnp.zeros((), jnp.float32)
        for index, x in enumerate(maps):
            own = None if key is None else jax.random.fold_in(key, index)
            end = begin + x.shape[-1]
            kernel, begin = state["kernel"][:, begin:end], end
            logits = logits + resized(self.classified(state, x.astype(jnp.float32), own) @ kernel.T, largest)
        return logits + state["bias"] if "bias" in state else logits

    def classified(self, state: Leaves, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """What the classifier reads, of features."""
        keys = (None, None) if key is None else jax.random.split(key)
        x = dropout(x, state["dropout"], keys[0])
        if self.hidden == "none":
            return x
        return dropout(_ACTIVATIONS[self.hidden](x @ state["hidden"] + state["hidden_bias"]), state["dropout"], keys[1])


def of_either(a: jax.Array | None, b: jax.Array | None) -> jax.Array | None:
    """The logits `[..., classes]` of heads of two kinds, of which each item has at most one.

    Those of the other, whose slot is empty, are zero. None: there is no head of a kind.
    """
    if a is None or b is None:
        return a if b is None else b
    return _together(a, b)


def _together(a: jax.Array, b: jax.Array) -> jax.Array:
    wide = max(a.shape[-1], b.shape[-1])
    a, b = (jnp.pad(one, [*[(0, 0)] * (one.ndim - 1), (0, wide - one.shape[-1])]) for one in (a, b))
    return a + b
