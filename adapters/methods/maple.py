"""MaPLe: prompts of both towers of a pair, those of pictures made of those of texts (Khattak et al., 2023, arXiv:2210.03117).

    layer i of the texts reads     [start; P_i; rest of the text]              P_i [n, d_t] trained, i = 1 to J
    layer i of the pictures reads  [P_i W_i + b_i; class token; patches]       W_i [d_t, d_p] and b_i trained
    behind layer J                 what the layers have made of them goes on

In a text P_i takes the place of the n tokens behind the one that begins it: of "a photo of a cat.", with n = 2, that of "a
photo". P_1 starts as the embeddings of the words that it replaces, as in the paper; the others with a deviation of 0.02, W
and b as torch's linear layers. Beside a picture the vectors lie as VPT's do (`vpt.py`).

One site does not know of another, and yet the sites of both towers act by the same P: all of them hold it whole, and it is
trained by what all have to say of it (`Method.shared`), as FacT's factors are. Which P_i is a site's own is a fixed leaf. In
pictures' tower alone, for which an adapter by names is made (`adapters/halves.py`), what W and b make of P is all that matters:
there it is VPT. Trainable parameters: J n d_t, and J (d_t + 1) d_p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Size, SizeOrZero
from ..method import Begun, Keys, Leaves, Method, States, zeros
from ..sites import IMAGE, TEXT, Entry, Site
from .vpt import VPT, beside_patches

if TYPE_CHECKING:
    from .starts import TrainingData

_SPREAD = 0.02  # of what starts at random


@dataclass(frozen=True)
class MaPLe(Method):
    """Multi-modal prompt learning: prompts in the first layers of a pair's texts, coupled to prompts of its pictures."""

    name: ClassVar[str] = "maple"
    summary: ClassVar[str] = "prompts of a pair's texts, and of its pictures made of them, in the first layers"
    count: ClassVar[str] = "n d of texts for all sites, and (d of texts + 1) d of pictures at each of theirs"
    acts_on: ClassVar[tuple[str, ...]] = ("input", "stream")
    padded: ClassVar[dict[str, int]] = {"prompts": 1, "mask": 0}
    shared: ClassVar[tuple[str, ...]] = ("prompts",)
    traced: ClassVar[tuple[str, ...]] = ("depth", "width")
    fresh_within: ClassVar[float | None] = None
    adds_tokens: ClassVar[bool] = True
    reads_positions: ClassVar[bool] = True

    tokens: Size = 2  # n
    depth: Size = 9  # J: how many layers of either tower have their own, the first ones
    width: SizeOrZero = 0  # d_t; 0: that of the tower of texts, which training finds

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets is not None:
            raise GraftaxError(f"{self.name}: acts on what enters the layers and takes no targets.")

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        within = {tower: [s for s in sites if s.tower == tower and s.kind in self.acts_on] for tower in (TEXT, IMAGE)}
        if not all(any(site.kind == "input" for site in own) for own in within.values()):
            raise GraftaxError(f"{self.name} couples the prompts of a pair's texts and pictures, of Transformers both.")
        for tower, own in within.items():
            if self.depth > (layers := sum(site.kind == "stream" for site in own)):
                raise GraftaxError(f"{self.name}: depth {self.depth}, and the tower of {tower}s has {layers} layers.")
        found = [site for own in within.values() for site in own if _number(site) < self.depth]
        if len(widths := {site.shape for site in found if site.tower == TEXT}) > 1:
            raise GraftaxError(f"{self.name}: what enters the layers of the texts is of unlike widths, {sorted(widths)}.")
        return found

    def size(self, site: Site) -> int:
        return self.tokens

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        """With the width of the texts' tower, and prompts that are one array for all sites."""
        chosen = self.select(sites)
        first = next(site for site in chosen if site.tower == TEXT)
        method = replace(self, width=first.shape[0])
        prompts = method._prompts(key(first), sites, data)
        states: States = {}
        for site in chosen:
            own = {"prompts": prompts}
            if site.tower == IMAGE:
                bound, keys = 1.0 / math.sqrt(method.width), jax.random.split(key(site))
                shapes = {"kernel": (method.width, *site.shape), "bias": site.shape}
                for one, (name, shape) in zip(keys, shapes.items(), strict=True):
                    own[name] = np.asarray(jax.random.uniform(one, shape, minval=-bound, maxval=bound))
            states[site] = (own, method.fixed(site))
        return method, states

    def _prompts(self, key: jax.Array, sites: Sequence[Site], data: TrainingData | None) -> np.ndarray:
        """P at the start: of the first layer what the texts to be trained on have there, where there are any."""
        prompts = np.array(_SPREAD * jax.random.normal(key, (self.depth, self.tokens, self.width)))
        if data is not None:
            if (shortest := min(map(len, data.ids))) < self.tokens + 3:
                raise GraftaxError(
                    f"{self.name}: a text of {shortest} tokens has no room for {self.tokens} that are learnt between its first "
                    "token and what is said: give texts with a prompt, such as 'a photo of a {label}.'."
                )
            table = next(s for s in sites if s.tower == TEXT and s.kind == "embedding" and s.role == "word_embeddings")
            prompts[0] = table.weights().table[np.stack([ids[1 : 1 + self.tokens] for ids in data.ids])].mean(0)
        return prompts.astype(np.float32)

    def fixed(self, site: Site) -> Leaves:
        return {"own": np.eye(self.depth, dtype=np.float32)[_number(site)], "mask": np.ones(self.tokens, bool)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        leaves = {"prompts": zeros(self.depth, size, self.width)}
        if site.tower == IMAGE:
            leaves |= {"kernel": zeros(self.width, *site.shape), "bias": zeros(*site.shape)}
        return leaves, {"own": zeros(self.depth), "mask": np.zeros(size, bool)}

    def half(self, states: States) -> Begun:
        """At the tower of pictures, VPT with the vectors that the couplings make."""
        if not all("kernel" in trainable for trainable, _ in states.values()):
            raise GraftaxError(f"{self.name}: the prompts of a pair's texts are no adapter of their tower alone.")
        method = VPT(tokens=self.tokens, first=self.depth)
        made = {site: {"prompt": np.asarray(_coupled(own | fixed))} for site, (own, fixed) in states.items()}
        return method, {site: (own, method.fixed(site)) for site, own in made.items()}

    def apply(self, state: Leaves, x: Any, y: Any, frozen: Any, key: jax.Array | None) -> Any:
        if "kernel" in state:
            return beside_patches(_coupled(state), state["mask"], y)
        prompt = _own(state)
        if not isinstance(y, Entry):
            return _in_texts(prompt, state["mask"], y, state["before"])
        before = jnp.where(y.mask, jnp.cumsum(y.mask, axis=-1) - 1, -1)  # tokens of the text, which has a batch row of its own
        return y._replace(embeddings=_in_texts(prompt, state["mask"], y.embeddings, before))


def _number(site: Site) -> int:
    """Which layer reads what is put there, from 0."""
    return 0 if site.layer is None else site.layer + 1


def _own(state: Leaves) -> jax.Array:
    """P_i of a site, `[n, d_t]`."""
    return jnp.einsum("j,jnd->nd", state["own"], state["prompts"])


def _coupled(state: Leaves) -> jax.Array:
    """What is beside a picture, `[n, d_p]`."""
    return _own(state) @ state["kernel"] + state["bias"]


def _in_texts(prompt: jax.Array, own: jax.Array, y: jax.Array, before: jax.Array) -> jax.Array:
    """`y [..., T, d]` with the prompt in place of the tokens behind the first; `before [..., T]`: how many lie before each."""
    index = jnp.clip(before - 1, 0, len(own) - 1)
    hit = (before >= 1) & (before <= len(own)) & own[index]
    return jnp.where(hit[..., None], prompt[index].astype(y.dtype), y)
