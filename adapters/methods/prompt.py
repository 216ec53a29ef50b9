"""Prompt tuning: trained vectors in front of the text's word embeddings (Lester et al., 2021, arXiv:2104.08691).

    embeddings [P; E]        P [n, e] trained, E [tokens, e] the text's; e is the width of the word embeddings

As in PEFT positions count from the prompt's first vector, the prompt's token type is 0, and what is pooled is position 0:
the prompt's first vector. Logits of tokens are those of the text's own tokens; the encoder drops the prompt's.

In a layout with room for more vectors than an adapter has, or for one without a prompt, the room left over lies between prompt
and text: masked off, and taking no position. A text with a prompt needs a batch row of its own, in training too
(`adds_tokens`).

With `post` the vectors come behind the norm of the embeddings instead, without position and type, and the text's positions stay
as they are: so the library `adapters` has it on these encoders. In an adapter's layout they are then held at that norm.

A fresh prompt changes the output. It starts normal with deviation 0.02, as word embeddings are; PEFT's starts with 1.
Trainable parameters: n e.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Size
from ..method import Leaves, Method, zeros
from ..sites import Entry, Site, in_front


@dataclass(frozen=True)
class PromptTuning(Method):
    """Virtual tokens in front of the text."""

    name: ClassVar[str] = "prompt"
    summary: ClassVar[str] = "trained word embeddings in front of the text"
    count: ClassVar[str] = "n e"
    acts_on: ClassVar[tuple[str, ...]] = ("input", "norm")
    padded: ClassVar[dict[str, int]] = {"prompt": 0, "mask": 0}
    fresh_within: ClassVar[float | None] = None
    traced: ClassVar[tuple[str, ...]] = ("post",)
    adds_tokens: ClassVar[bool] = True
    virtual: ClassVar[bool] = True

    tokens: Size = 16  # n
    post: bool = False  # the vectors come behind the norm of the embeddings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets is not None:
            raise GraftaxError(f"{self.name}: acts on the input and takes no targets.")

    @property
    def virtual_tokens(self) -> int:
        return 0 if self.post else self.tokens

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        names = ("input", "embedding_norm") if self.post else ("input",)
        towers = {site.tower for site in sites if site.kind == "input"}  # what is read has room for the prompt
        if not towers:
            raise GraftaxError(f"{self.name} puts tokens in front of a text, and this backbone reads none.")
        return [site for site in sites if site.role in names and not site.stack and site.tower in towers]

    def select(self, sites: Sequence[Site]) -> list[Site]:
        chosen = super().select(sites)
        if not any(self.holds(site) for site in chosen):
            raise GraftaxError(f"{self.name}: post puts rows behind the embeddings' norm, and this backbone has none there.")
        return chosen

    def holds(self, site: Site) -> bool:
        """Whether the prompt is held at this site; at the other one only room is made for it."""
        return self.post == (site.kind == "norm")

    def size(self, site: Site) -> int:
        return self.tokens

    def init(self, key: jax.Array, site: Site) -> Leaves:
        return {"prompt": 0.02 * jax.random.normal(key, (self.tokens, *site.shape))} if self.holds(site) else {}

    def fixed(self, site: Site) -> Leaves:
        return {"mask": np.ones(self.tokens, bool)}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"prompt": zeros(size, *site.shape)} if self.holds(site) else {}, {"mask": np.zeros(size, bool)}

    def vectors(self, state: Leaves) -> Any:
        """The prompt [n, e]."""
        return state["prompt"]

    def apply(self, state: Leaves, x: Any, y: Any, frozen: Any, key: jax.Array | None) -> Any:
        own, room = state["mask"], state["mask"].shape[-1]
        if not isinstance(y, Entry):  # the room is in front: of all methods' keys that make some, this one's is the last
            vectors = jnp.where(own[:, None], self.vectors(state), y[..., :room, :])
            return jnp.concatenate([vectors, y[..., room:, :]], axis=-2)
        count = own.sum(dtype=jnp.int32)

        vectors = jnp.zeros((room, y.embeddings.shape[-1]), y.embeddings.dtype) if self.post else self.vectors(state)
        own_positions = y.positions[..., :1] + jnp.arange(room, dtype=jnp.int32)
        return Entry(
            embeddings=in_front(vectors, y.embeddings, -2),
            types=in_front(jnp.zeros(room, y.types.dtype), y.types, -1),
            positions=jnp.concatenate([own_positions, self._behind(y, count)], axis=-1),
            mask=in_front(own, y.mask, -1),
            pool=None if y.pool is None else jnp.where(count > 0, 0, y.pool + room),
            counted=None if y.counted is None else in_front(jnp.ones(room, y.counted.dtype), y.counted, -1),
        )

    def _behind(self, y: Entry, count: jax.Array) -> jax.Array:
        """Positions of the text's own tokens behind a prompt of `count` vectors."""
        if self.post:
            return y.positions
        if y.counted is None:
            return y.positions + count
        # Where padding takes no position: transformers sees no ids beside a prompt, and counts it as any other token.
        straight = y.positions[..., :1] + count + jnp.arange(y.positions.shape[-1], dtype=jnp.int32)
        return jnp.where(count > 0, straight, y.positions)
