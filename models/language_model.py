"""A language model, which says how likely each next token is: what decoders and encoder-decoders have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import jax
from flax import nnx

from ..adapters.graft import SiteCalls
from ..adapters.sites import LM_HEAD
from .cross_entropy import likelihood
from .layers import Embedding, Linear, Transposed
from .network import Network


class LanguageModel(Network):
    """A network with a projection to the vocabulary, frozen as the rest."""

    generates: ClassVar[bool] = True

    table = "word_embeddings"  # the site of the table that projects, where one does

    @property
    @abstractmethod
    def language_head(self) -> Any:
        """All frozen weights between hidden states and logits: those of `projection`, and what else there is."""

    @property
    @abstractmethod
    def projection(self) -> Linear | Embedding:
        """What projects to the vocabulary: a layer of its own, or the table of the words."""

    @property
    def lm_head(self) -> Linear | Transposed:
        """The same as the linear layer that methods see at the site of this name."""
        return _as_linear(self.projection)

    @abstractmethod
    def logits(self, hidden: jax.Array, calls: SiteCalls, language_head: Any = None) -> jax.Array:
        """Logits of the next token, `[..., vocabulary]`, float32, from hidden states `[rows, tokens, hidden]`.

        `language_head`: weights in place of its own.
        """

    def likelihood(self, hidden: jax.Array, targets: jax.Array, calls: SiteCalls) -> tuple[jax.Array, jax.Array]:
        """Log-likelihood of each token's successor `targets [rows, tokens]`, and whether it was the likeliest."""
        graphdef, weights = nnx.split(self.language_head)

        def project(weights: Any, hidden: jax.Array) -> jax.Array:
            return self.logits(hidden, calls, nnx.merge(graphdef, weights))

        acted_on = calls.held(LM_HEAD) or (isinstance(self.projection, Embedding) and calls.projects(self.table))
        return likelihood(project, weights, hidden, targets, frozen=not acted_on)

    def projected(self, hidden: jax.Array, calls: SiteCalls, projection: Linear | Embedding) -> jax.Array:
        """`hidden` times what projects to the vocabulary, with what adapters change there."""
        out = calls.linear(LM_HEAD, hidden, _as_linear(projection))
        return calls.projection(self.table, hidden, out, projection) if isinstance(projection, Embedding) else out


def _as_linear(projection: Linear | Embedding) -> Linear | Transposed:
    return Transposed(projection) if isinstance(projection, Embedding) else projection
