"""A module that says how likely each next token is: what decoders and encoder-decoders have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import jax
from flax import nnx

from ..adapters.graft import SiteCalls
from ..adapters.sites import LM_HEAD
from .vocabulary import likelihood


class Speaker(nnx.Module):
    """A module with a projection to the vocabulary."""

    lm_head: Any  # the projection where it has weights of its own, else None
    table = "word_embeddings"  # the site of the table that projects where it has none

    @property
    @abstractmethod
    def head(self) -> Any:
        """What projects to the vocabulary, all its weights: a layer of its own, or the table of the words."""

    @abstractmethod
    def logits(self, hidden: jax.Array, at: SiteCalls, head: Any = None) -> jax.Array:
        """Of the next token, `[..., vocabulary]`, float32, from `hidden [rows, tokens, hidden]`; `head`: for its own."""

    def likelihood(self, hidden: jax.Array, targets: jax.Array, at: SiteCalls) -> tuple[jax.Array, jax.Array]:
        """Log-likelihood of each token's successor `targets [rows, tokens]`, and whether it was the likeliest."""
        graphdef, weights = nnx.split(self.head)

        def project(weights: Any, hidden: jax.Array) -> jax.Array:
            return self.logits(hidden, at, nnx.merge(graphdef, weights))

        acted_on = at.projects(self.table) if self.lm_head is None else LM_HEAD in at.state
        return likelihood(project, weights, hidden, targets, frozen=not acted_on)
