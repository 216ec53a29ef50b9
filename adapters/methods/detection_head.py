"""A head that finds objects: a small decoder in which questions look at a picture's feature maps, as DETR's does.

    z_0 = 0                                       a vector for each question, [queries, width]
    z   = norm(z + attention of z + e to z + e)   questions look at each other: two do not answer with one object
    z   = norm(z + attention of z + e to m + p)   and at the picture
    z   = norm(z + relu(z U + u) D + d)           these three lines once for each layer
    box = mlp(norm(z)) + c [queries, 4],  logits = norm(z) W^T + b [queries, 1 + labels]

(Carion et al., 2020, arXiv:2005.12872.) e [queries, width] is learnt: what a question asks for, and where. m are the positions
of the maps, x_i V_i + v_i of each map x_i [h, w, d_i], normed, and p where each of them lies in the picture: sines and cosines
of its height and width. A box is cx, cy, w, h as shares of the picture, once a sigmoid is taken of it; the first of the logits
says that there is no object. Values have no p in them, nor e.

DETR's questions begin at random, and were trained for 300 epochs of COCO's 118,000 pictures and more. Here they begin spread
over the picture, a point of a grid for each: e as p is there, c as a box around it (as in Conditional and Anchor DETR: Meng et
al., 2021, arXiv:2108.06152; Wang et al., 2022, arXiv:2109.07107). And the products by which positions are sought begin as one
rotation, so that e to p is largest where both are of one place. All of that is trained, e and c too.

DETR has an encoder over m before that, and six layers here. A frozen backbone has looked at the whole picture already, so this
is light: two layers of width 128 are 0.7 million numbers on a ViT-B. `site` says which maps are read, the last or several.

What `apply` gives are numbers in a row for each question: 1 for a question that there is, its box (without the sigmoid), its
logits. An empty slot says nothing but zeros, so that heads of several kinds can be added up in a batch (`head.py`), and where
another one there has more questions, those that are filled up have a 0 in front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ...errors import GraftaxError
from ...shapes import Float, shaped
from ...typed import Within
from ..method import Leaves, scalar, zeros
from ..sites import Site, split_attention_heads
from .dropout import dropout
from .head import OBJECTS, OBJECTS_OF_MAPS, Head

ASKED, BOX, LOGITS = 0, slice(1, 5), 5  # where in what is said of a question stands that there is one, its box, its logits
BEFORE = 6  # numbers of a question before the logits of classes
_TEMPERATURE = 20.0  # the longest of the wave lengths of positions, in pictures; DETR's is 10,000
_SIDE = 0.25  # of a box at the start, as a share of the picture's
_SHARP, _QUIET = 4.0, 0.3  # at the start: how much places count in where a question looks; and how much all else
_EPS = 1e-5
_ATTENTIONS = ("own", "seen")  # to the other questions, to the picture
_NORMS = 3  # in a layer


@dataclass(frozen=True)
class DetectionHead(Head):
    """Objects in a picture, by questions to its feature maps."""

    name: ClassVar[str] = "detection_head"
    summary: ClassVar[str] = "objects in a picture, by questions to its feature maps (DETR's decoder)"
    count: ClassVar[str] = "width (d + queries + labels) + (16 layers + 2) width^2"
    traced: ClassVar[tuple[str, ...]] = ("queries", "layers", "width", "attention_heads")
    at: ClassVar[tuple[str, ...]] = (OBJECTS, OBJECTS_OF_MAPS)

    site: str = OBJECTS  # or OBJECTS_OF_MAPS
    queries: Annotated[int, Within(1, most=1000)] = 50  # questions: a picture has no more objects than that
    layers: Annotated[int, Within(1, most=6)] = 2  # of the decoder
    width: Annotated[int, Within(4, most=1024)] = 128  # channels of a question
    attention_heads: Annotated[int, Within(1, most=64)] = 8  # of each attention, which share the width

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden != "none" or not self.biased:
            raise GraftaxError(f"{self.name}: it is a decoder with biases, and takes neither `hidden` nor `biased`.")
        if self.width % (2 * self.attention_heads) or self.width % 4:
            wanted = "a multiple of 4 and of twice its attention heads"
            raise GraftaxError(f"{self.name}: width {self.width} must be {wanted} ({self.attention_heads}).")

    def init(self, key: jax.Array, site: Site) -> Leaves:
        blank, _ = self.identity(site, self.labels)
        leaves = dict(blank)
        for name, one in zip(sorted(blank), jax.random.split(key, len(blank)), strict=True):
            if name.endswith("scale"):
                leaves[name] = np.ones_like(blank[name])
            elif blank[name].ndim > 1 and not name.endswith("bias"):
                *_, a, b = blank[name].shape
                reach = math.sqrt(6.0 / (a + b))  # Glorot and Bengio's
                leaves[name] = jax.random.uniform(one, blank[name].shape, minval=-reach, maxval=reach)
        points = _grid(self.queries)
        sides = np.full_like(points, _SIDE)
        boxes = np.concatenate([points[:, ::-1], sides], axis=1)  # cx, cy, width, height
        turned = _SHARP * jax.random.orthogonal(key, self.width, (self.layers, 1))
        return leaves | {
            "queries": _sines(points, self.width),
            "begin": np.log(boxes / (1.0 - boxes)).astype(np.float32),
            "seen": leaves["seen"].at[:, :2].set(turned),
            "map_norm_scale": _QUIET * leaves["map_norm_scale"],
            "norm_scale": leaves["norm_scale"] * np.array([[_QUIET], [1.0], [1.0]], np.float32),
        }

    def fixed(self, site: Site) -> Leaves:
        return {"dropout": scalar(self.dropout), "present": scalar(1.0)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        width, layers, wide = self.width, self.layers, 4 * self.width
        leaves: Leaves = {
            **{"map": zeros(sum(site.shape), width), "map_bias": zeros(len(site.shape), width)},
            **{"map_norm_scale": zeros(width), "map_norm_bias": zeros(width), "queries": zeros(self.queries, width)},
            "begin": zeros(self.queries, 4),
            # of queries, keys, values and what leaves an attention
            **{name: zeros(layers, 4, width, width) for name in _ATTENTIONS},
            **{f"{name}_bias": zeros(layers, 4, width) for name in _ATTENTIONS},
            **{"up": zeros(layers, width, wide), "up_bias": zeros(layers, wide)},
            **{"down": zeros(layers, wide, width), "down_bias": zeros(layers, width)},
            **{"norm_scale": zeros(layers, _NORMS, width), "norm_bias": zeros(layers, _NORMS, width)},
            **{"last_scale": zeros(width), "last_bias": zeros(width)},
            **{"kernel": zeros(size, width), "bias": zeros(size), "nothing": zeros(1, width), "nothing_bias": zeros(1)},
            **{"box_hidden": zeros(2, width, width), "box_hidden_bias": zeros(2, width)},
            **{"box": zeros(width, 4), "box_bias": zeros(4)},
        }
        return leaves, {"dropout": scalar(0.0), "present": scalar(0.0)}

    def apply(self, state: Leaves, x: Any, y: jax.Array | None, frozen: None, key: jax.Array | None) -> jax.Array:
        """Of maps `[..., h, w, d]` what is said of each question, `[..., queries, 6 + labels]`; y: what other heads say."""
        said = self._said(state, tuple(one.astype(jnp.float32) for one in x), key)
        return said if y is None else _together(y, said)

    def _said(self, state: Leaves, maps: Sequence[jax.Array], key: jax.Array | None) -> jax.Array:
        seen, places = self._seen(state, maps)
        asked = state["queries"]
        z = jnp.zeros((*seen.shape[:-2], *asked.shape), jnp.float32)
        for layer in range(self.layers):
            own, of_map = (partial(self._attention, state[name][layer], state[f"{name}_bias"][layer]) for name in _ATTENTIONS)
            added = partial(_added, state, layer, key)
            z = added(0, z, own(z + asked, z + asked, z))
            z = added(1, z, of_map(z + asked, seen + places, seen))
            z = added(2, z, _forward(state, layer, z))
        z = _normed(z, state["last_scale"], state["last_bias"])
        box = z
        for kernel, bias in zip(state["box_hidden"], state["box_hidden_bias"], strict=True):
            box = jax.nn.relu(box @ kernel + bias)
        nothing = z @ state["nothing"].T + state["nothing_bias"]
        asked_at_all = jnp.broadcast_to(state["present"], nothing.shape)
        box = box @ state["box"] + state["box_bias"] + state["begin"]
        return jnp.concatenate([asked_at_all, box, nothing, self.logits(state, z)], axis=-1)

    def _seen(self, state: Leaves, maps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """What there is to be seen, `[..., positions of all maps, width]`, and where that lies, `[positions, width]`."""
        seen, places, begin = [], [], 0
        for index, x in enumerate(maps):
            high, wide, channels = x.shape[-3:]
            own = x.reshape(*x.shape[:-3], high * wide, channels) @ state["map"][begin : begin + channels]
            seen.append(own + state["map_bias"][index])
            places.append(positions(high, wide, self.width))
            begin += channels
        normed = _normed(jnp.concatenate(seen, axis=-2), state["map_norm_scale"], state["map_norm_bias"])
        return normed, jnp.concatenate(places)

    def _attention(self, kernels: Array, biases: Array, queries: Array, keys: Array, values: Array) -> Array:
        """Attention `[..., queries, width]` of several heads; `kernels [4, width, width]`: those of its four products."""
        each = zip((queries, keys, values), kernels[:3], biases[:3], strict=True)
        q, k, v = (split_attention_heads(x @ kernel + bias, self.attention_heads) for x, kernel, bias in each)
        weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(q.shape[-1])), axis=-1)
        together = (weights @ v).swapaxes(-2, -3)
        return together.reshape(*together.shape[:-2], self.width) @ kernels[3] + biases[3]


@shaped
def positions(high: int, wide: int, width: int) -> Float[Array, "places {width}"]:
    """Where the positions of a map lie, row by row: sines and cosines of how far down and how far across their middles are."""
    down, across = np.mgrid[0:high, 0:wide].reshape(2, -1)
    return jnp.asarray(_sines(np.stack([(down + 0.5) / high, (across + 0.5) / wide], axis=1), width))


def _sines(points: np.ndarray, width: int) -> np.ndarray:
    """Of points `[points, 2]`, how far down and how far across they are, `[points, width]`."""
    lengths = _TEMPERATURE ** (np.arange(width // 4) / (width // 4))
    angles = 2 * math.pi * points[..., None] / lengths
    each = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    return each.reshape(len(points), width).astype(np.float32)


def _grid(count: int) -> np.ndarray:
    """So many points `[count, 2]` spread over a picture, row by row, down and across."""
    high = round(math.sqrt(count))
    wide = -(-count // high)
    down, across = np.divmod(np.arange(count), wide)
    return np.stack([(down + 0.5) / high, (across + 0.5) / wide], axis=1)


def _added(state: Leaves, layer: int, key: jax.Array | None, index: int, z: jax.Array, change: jax.Array) -> jax.Array:
    """z with what one of a layer's parts makes of it, normed; `index`: which part."""
    own = None if key is None else jax.random.fold_in(key, _NORMS * layer + index)
    z = z + dropout(change, state["dropout"], own)
    return _normed(z, state["norm_scale"][layer, index], state["norm_bias"][layer, index])


def _forward(state: Leaves, layer: int, z: jax.Array) -> jax.Array:
    return jax.nn.relu(z @ state["up"][layer] + state["up_bias"][layer]) @ state["down"][layer] + state["down_bias"][layer]


def _normed(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    apart = x - x.mean(-1, keepdims=True)
    return apart * jax.lax.rsqrt(jnp.square(apart).mean(-1, keepdims=True) + _EPS) * scale + bias


def _together(said: jax.Array, own: jax.Array) -> jax.Array:
    """What two heads say, of which one at least is idle and says nothing but zeros."""
    count, wide = (max(sizes) for sizes in zip(said.shape[-2:], own.shape[-2:], strict=True))
    return _filled(said, count, wide) + _filled(own, count, wide)


def _filled(said: jax.Array, count: int, wide: int) -> jax.Array:
    lead = [(0, 0)] * (said.ndim - 2)
    return jnp.pad(said, [*lead, (0, count - said.shape[-2]), (0, wide - said.shape[-1])])
