"""Activated LoRA: a LoRA that a sequence of tokens calls (Greenewald et al., 2025, arXiv:2504.12397).

    y_t = x_t W + b + c_t s (x_t A^T) B          c_t = 1 where t >= t*, else 0;  A, B and s are LoRA's

t* is where the invocation (the ids of n tokens) begins in the text for the last time; a text without it is the base's. What a
causal model makes of the tokens before t* does not depend on the adapter: their keys and values are those of the base, and of
every other such adapter. Hence it cannot be merged. Trainable parameters at a site: r (in + out).

The invocation is data, at the site `text`: its ids plus 1, and zeros as filling, so that adapters with invocations of other
lengths share a program. c [..., T] is found once, before the layers, and comes to them as `TextPosition.called`. Where a batch
row holds several texts each has a t* of its own. In generation the prompt alone is searched: behind one that has called the
adapter it acts on every token, else on none, whatever is generated.

Files are PEFT's LoRA files with `alora_invocation_tokens`. PEFT looks for these in language models alone: for other tasks files
are graftax's own. A tokenizer may write the invocation otherwise in a text than by itself; special tokens stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ...typed import Count
from ..method import Begun, Keys, Leaves
from ..sites import FAR, Site, TextPosition, of_texts
from .lora import LoRA
from .starts import DRAWN, TrainingData


@dataclass(frozen=True)
class ALoRA(LoRA):
    """LoRA on the tokens from an invocation on, at `linear` sites within the layers; fields and default targets are LoRA's."""

    name: ClassVar[str] = "alora"
    summary: ClassVar[str] = "LoRA on the tokens from the text's last invocation on"
    acts_on: ClassVar[tuple[str, ...]] = ("linear", "text")
    padded: ClassVar[dict[str, int]] = {**LoRA.padded, "invocation": 0}
    reads_positions: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    allowed: ClassVar[tuple[str, ...]] = DRAWN

    invocation: tuple[Count, ...] = ()  # ids of the tokens that call it; there must be some

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        """Of a pair of towers those in the one that reads texts."""
        hearing = {site.tower for site in sites if site.kind == "text"}
        return [site for site in sites if site.kind == "linear" and (site.tower in hearing or not hearing)]

    def select(self, sites: Sequence[Site]) -> list[Site]:
        if not self.invocation:
            raise GraftaxError(
                "alora: no invocation. Give the ids of the tokens that call the adapter, as in invocation=[27, 81]."
            )
        chosen = super().select(sites)
        outside = ", ".join(site.path for site in chosen if site.layer is None)
        if outside:
            raise GraftaxError(f"alora acts within the layers, and cannot at {outside}: leave that out of its targets.")
        text = [site for site in sites if site.kind == "text"]
        if not text:
            read = "two" if of_texts(sites) else "none"
            raise GraftaxError(f"alora is called by the one text that a backbone reads, and this one reads {read}.")
        return [*chosen, *text]

    def size(self, site: Site) -> int:
        return len(self.invocation) if site.kind == "text" else super().size(site)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        return {} if site.kind == "text" else super().init(key, site)

    def begin(self, sites: Sequence[Site], key: Keys, data: TrainingData | None = None) -> Begun:
        if data is not None and not any(self.calls(ids) for ids in data.ids):
            raise GraftaxError(
                f"alora: the invocation {list(self.invocation)} is in none of the {len(data.ids)} texts to be trained on."
            )
        return super().begin(sites, key, data)

    def calls(self, ids: np.ndarray) -> bool:
        """Whether the invocation is in a text of these ids `[tokens]`."""
        first = np.flatnonzero(ids == self.invocation[0])
        return any(tuple(ids[i : i + len(self.invocation)]) == self.invocation for i in first)

    def fixed(self, site: Site) -> Leaves:
        if site.kind == "text":
            return {"invocation": np.asarray(self.invocation, np.int32) + np.int32(1)}
        return super().fixed(site)

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        if site.kind == "text":
            return {}, {"invocation": np.zeros(size, np.int32)}
        return super().identity(site, size)

    def apply(self, state: Leaves, x: Any, y: Any, frozen: Any, key: jax.Array | None) -> Any:
        if isinstance(y, TextPosition):
            return y._replace(called=called(state["invocation"], x, y))
        return y + jnp.where(state["called"][..., None], self.update(state, x, frozen, key), 0.0)


def called(invocation: jax.Array, ids: jax.Array, position: TextPosition) -> jax.Array:
    """Whether tokens are at or behind the beginning of their text's last invocation: bool `[..., T]`, False outside texts.

    `invocation` int32 [n]: ids plus 1, and zeros behind them, which stand for nothing; `ids` int32 `[..., T]`.
    """
    length = jnp.sum(invocation > 0, dtype=jnp.int32)
    begins = (length > 0) & (position.behind >= length - 1)
    for j, token in enumerate(invocation):
        begins &= (token == 0) | (jnp.roll(ids, -j, axis=-1) + 1 == token)
    tokens = ids.shape[-1]
    index = jnp.arange(tokens, dtype=jnp.int32)
    latest = jax.lax.cummax(jnp.where(begins, index, -1), axis=ids.ndim - 1)
    last = jnp.take_along_axis(latest, jnp.minimum(index + position.behind, tokens - 1), axis=-1)  # by the text's end
    return (position.before < FAR) & (index - position.before <= last) & (last <= index)
