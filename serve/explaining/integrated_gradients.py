"""Integrated gradients (Sundararajan et al., 2017, arXiv:1703.01365): the derivative along a line from the blank input.

    attribution_i = (x_i - b_i) * integral over a in [0, 1] of d f / d x_i at b + a (x - b)

f is the evidence for a label, x the input and b the blank one (`fragments.py`). They add up to f(x) - f(b), which is what makes
them shares: how far a sum is off says how well the integral was taken. It is taken by Gauss and Legendre's rule, at `steps`
points.

Of pictures x is the pixels, as the network is given them. A text's tokens cannot be half there, so x is the vectors that the
table of words has for them; positions stay as they are. These enter through a lens (`adapters/methods/lenses.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...adapters.graft import State
from ...adapters.methods.lenses import Shift
from ...models.backbone import Backbone
from ...models.inputs import ImageInputs, TextInputs
from .attribution import Attributed, Way
from .question import Question

_TABLE = "word_embeddings"  # the role of the table of words, of every family


@dataclass(frozen=True)
class IntegratedGradients(Way):
    name = "integrated-gradients"
    said = "how much each fragment adds to the log-odds of the label, or takes from them, against a blank input; they add up"
    signed = True

    steps: int = 32

    def unfit(self, backbone: Backbone) -> str | None:
        return None

    def attribute(
        self, question: Question, params: Any, state: State, inputs: Any, blank: Any, labels: jax.Array
    ) -> Attributed:
        if isinstance(inputs, TextInputs):
            return self._of_vectors(question, params, state, inputs, blank, labels)

        def score(pixels: jax.Array) -> jax.Array:
            return question.evidence(params, state, ImageInputs(pixels), labels)

        return self._integrated(score, inputs.pixels, blank.pixels)

    def _of_vectors(
        self, question: Question, params: Any, state: State, inputs: TextInputs, blank: TextInputs, labels: jax.Array
    ) -> Attributed:
        table = next(site for site in question.backbone.sites if site.role == _TABLE)
        none = jnp.zeros((*inputs.ids.shape, table.shape[1]), jnp.float32)

        def shifted(of: TextInputs, seen: jax.Array, shift: jax.Array) -> jax.Array:
            there = {**state.get(table.name, {}), Shift().key: {"seen": seen, "shift": shift}}
            return question.evidence(params, {**state, table.name: there}, of, labels)

        vectors, empty = (jax.grad(lambda seen, of=of: shifted(of, seen, none).sum())(none) for of in (inputs, blank))
        return self._integrated(lambda x: shifted(inputs, none, x - vectors), vectors, empty)

    def _integrated(self, score: Callable[[jax.Array], jax.Array], x: jax.Array, blank: jax.Array) -> Attributed:
        """`score`: of each row, of x `[rows, *positions, channels]`."""
        points, weights = (jnp.asarray(numbers / 2, jnp.float32) for numbers in np.polynomial.legendre.leggauss(self.steps))
        gradient = jax.grad(lambda x: score(x).sum())

        def step(total: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            share, weight = at
            return total + weight * gradient(blank + share * (x - blank)), None

        mean, _ = jax.lax.scan(step, jnp.zeros_like(x), (points + 0.5, weights))
        return Attributed(((x - blank) * mean).sum(-1), score(x) - score(blank))
