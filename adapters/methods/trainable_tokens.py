"""Trainable tokens: the rows of the words' table for a few tokens are trained, for tokens that the backbone hardly knows.

    W' = W with the rows at the given ids replaced           [n, d], trained from what they are

So a token that was kept in reserve (BERT's `[unused1]`, Llama's `<|reserved_special_token_0|>`), or one added to a tokenizer
whose table has rows to spare, gets a meaning of its own. y = W'[ids]; where the table projects to the vocabulary too,
logits = h W'^T, so the tokens are also said. A projection with weights of its own is a second target, "lm_head".

The method is PEFT's (`TrainableTokensConfig`), and files hold those rows themselves, as there. Trainable parameters: n d.
The ids are data, plus 1, and zeros as filling: adapters with other ids, or more of them, share a program.
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
from ..method import Leaves, Method, zeros
from ..sites import LM_HEAD, Site, TableWeights
from .sparse import counted_from_one


@dataclass(frozen=True)
class TrainableTokens(Method):
    """Trained rows of the words' table, in an encoder-decoder of each tower's; `targets` may name "lm_head" besides."""

    name: ClassVar[str] = "trainable_tokens"
    summary: ClassVar[str] = "trains the embeddings of a few tokens"
    count: ClassVar[str] = "ids times d"
    acts_on: ClassVar[tuple[str, ...]] = ("embedding", "linear")
    roles: ClassVar[tuple[str, ...] | None] = ("word_embeddings",)
    padded: ClassVar[dict[str, int]] = {"rows": 0, "ids": 0}
    projects: ClassVar[bool] = True
    mergeable: ClassVar[bool] = True

    ids: tuple[Count, ...] = ()  # of the tokens; there must be some

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.ids)) < len(self.ids):
            raise GraftaxError(f"trainable_tokens: an id is named twice in {list(self.ids)}.")

    def candidates(self, sites: Sequence[Site]) -> list[Site]:
        return [site for site in sites if site.kind == "embedding" or (site.name == LM_HEAD and not site.tied)]

    def select(self, sites: Sequence[Site]) -> list[Site]:
        if not self.ids:
            raise GraftaxError("trainable_tokens: no tokens. Give their ids, as in ids=[5, 6].")
        chosen = super().select(sites)
        for site in chosen:
            count, _ = _shape(site)
            if max(self.ids) >= count:
                raise GraftaxError(
                    f"trainable_tokens: {site.path} has {count} rows and none for id {max(self.ids)}. "
                    "An adapter adds no rows: name tokens kept in reserve, or resize the backbone (docs/training.md)."
                )
        return chosen

    def size(self, site: Site) -> int:
        return len(self.ids)

    def init(self, key: jax.Array, site: Site) -> Leaves:
        return {"rows": _table(site.weights())[np.array(self.ids)]}

    def fixed(self, site: Site) -> Leaves:
        return {"ids": counted_from_one(np.array(self.ids))}

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        return {"rows": zeros(size, _shape(site)[1])}, {"ids": np.zeros(size, np.int32)}

    def apply(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        if not isinstance(frozen, TableWeights):
            return self.project(state, x, y, frozen, key)
        hit = x[..., None] + 1 == state["ids"]
        return jnp.where(hit.any(-1)[..., None], state["rows"][jnp.argmax(hit, axis=-1)], y)

    def project(self, state: Leaves, x: Any, y: jax.Array, frozen: Any, key: jax.Array | None) -> jax.Array:
        table = _table(frozen)
        change = state["rows"] - jnp.take(table, state["ids"] - 1, axis=0, mode="clip")  # a filling row goes nowhere
        return y.at[..., _index(state, table)].add(x @ change.T, mode="drop")

    def merge(self, frozen: Any, state: Leaves) -> Any:
        table = jnp.asarray(_table(frozen))
        merged = table.at[_index(state, table)].set(state["rows"], mode="drop")
        return TableWeights(merged) if isinstance(frozen, TableWeights) else frozen._replace(kernel=merged.T)


def _shape(site: Site) -> tuple[int, int]:
    """Tokens and channels."""
    first, second = site.shape
    return (first, second) if site.kind == "embedding" else (second, first)


def _table(weights: Any) -> Any:
    """A row for each token: of a table its own, of a projection its columns."""
    return weights.table if isinstance(weights, TableWeights) else weights.kernel.T


def _index(state: Leaves, table: jax.Array) -> jax.Array:
    """The row of each id; of filling, one behind the last."""
    return jnp.where(state["ids"] == 0, len(table), state["ids"] - 1)
