"""VPT: trained vectors beside a picture's patches (Jia et al., 2022, arXiv:2203.12119).

    layer 1 reads [P_1; class token; patches]               P_i [n, d] trained
    layer i reads [P_i; what layer i - 1 made of the rest]  deep; shallow: of all, P_1's outputs too

The vectors have no position, and the class token is pooled wherever it lies, so it does not matter that the paper puts them
behind it. Deep, what a layer has made of its vectors is dropped, and the next layer has its own: the last layer's nobody reads.
Or so do the `first` layers alone, and the others read what becomes of the last of these, as all do where it is shallow.

Where a layout has room for more vectors than an adapter has, the room left over lies between them and the rest, and is masked
off. Vectors start uniform within sqrt(3 / d), as the paper's do on a ViT-B/16, so a fresh adapter changes the output. Trainable
parameters: n d for each layer, or n d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Size
from ..method import Leaves, Method, zeros
from ..sites import IMAGE, Entry, Site, in_front, of_texts


@dataclass(frozen=True)
class VPT(Method):
    """Visual prompt tuning: virtual tokens beside the patches, of every layer or of the first."""

    name: ClassVar[str] = "vpt"
    summary: ClassVar[str] = "trained vectors beside a picture's patches, in every layer or the first"
    count: ClassVar[str] = "n d"
    acts_on: ClassVar[tuple[str, ...]] = ("input", "stream")
    padded: ClassVar[dict[str, int]] = {"prompt": 0, "mask": 0}
    fresh_within: ClassVar[float | None] = None
    adds_tokens: ClassVar[bool] = True

    tokens: Size = 16  # n
    deep: bool = True  # every layer has its own
    first: Size | None = None  # or so many of the first; behind these, what the layers have made of them goes on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets is not None:
            raise GraftaxError(f"{self.name}: acts on what enters the layers and takes no targets.")
        if self.first is not None and not self.deep:
            raise GraftaxError(f"{self.name}: of first={self.first} layers each has its own, with deep=false the first alone.")

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        last = max((site.layer for site in sites if site.layer is not None), default=0)
        found = [site for site in sites if site.kind == "input"]
        if not found or of_texts(sites):
            raise GraftaxError(f"{self.name} puts vectors beside a picture's patches, {_why_not(sites)}.")
        deep = [site for site in sites if self.deep and site.kind == "stream" and site.layer not in (None, last)]
        return found + [site for site in deep if self.first is None or (site.layer or 0) + 1 < self.first]

    def size(self, site: Site) -> int:
        return self.tokens

    def init(self, key: jax.Array, site: Site) -> Leaves:
        bound = math.sqrt(3.0 / site.shape[0])
        return {"prompt": jax.random.uniform(key, (self.tokens, *site.shape), minval=-bound, maxval=bound)}

    def fixed(self, site: Site) -> Leaves:
        return {"mask": np.ones(self.tokens, bool)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"prompt": zeros(size, *site.shape)}, {"mask": np.zeros(size, bool)}

    def apply(self, state: Leaves, x: Any, y: Any, frozen: Any, key: jax.Array | None) -> Any:
        return beside_patches(state["prompt"], state["mask"], y)


def beside_patches(prompt: jax.Array, own: jax.Array, y: Any) -> Any:
    """What enters the first layer, or leaves one, y, with vectors `prompt [room, d]`; `own [room]`: which are no filling."""
    room = own.shape[-1]
    if isinstance(y, Entry):
        nothing = jnp.zeros(room, jnp.int32)
        return y._replace(
            embeddings=in_front(prompt, y.embeddings, -2),
            types=in_front(nothing, y.types, -1),
            positions=in_front(nothing, y.positions, -1),
            mask=in_front(own, y.mask, -1),
        )
    if y.shape[-2] <= room:  # the pooled token alone was computed
        return y
    # the room is in front: of the keys of all methods that make some on one backbone, that of whoever calls this is the last
    return jnp.concatenate([jnp.where(own[:, None], prompt, y[..., :room, :]), y[..., room:, :]], axis=-2)


def _why_not(sites: Sequence[Site]) -> str:
    """Why a backbone has no place for them, in words."""
    if any(site.tower == IMAGE for site in sites):
        return "and a pair has texts, too: train its tower of pictures by itself, or take maple, which prompts both"
    if of_texts(sites):
        return "and this backbone reads texts"
    if any(site.kind == "attention" for site in sites):
        return "and in this backbone patches attend to those of their window alone; prefix adds to what each window attends to"
    return "and this backbone, of convolutions, has none"
