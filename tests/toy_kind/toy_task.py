"""Regression by the absolute error, in the column `amount`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from graftax.adapters.task_words import TaskWords
from graftax.tasks.labelled import Regress
from graftax.tasks.task import Settings, mean_of


class Amount(Regress):
    name = "toy-amount"
    words = TaskWords(head="item", outputs=1)

    def loss(self, outputs: jax.Array, labels: Any, settings: Settings, weight: jax.Array) -> jax.Array:
        return mean_of(jnp.abs(outputs[:, 0] - labels), weight)
