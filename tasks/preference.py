"""Preference tuning: of two responses to a prompt, one is better.

    loss = - log sigmoid(beta * (r(chosen) - r(rejected))),    r(y) = log p(y | prompt) - log p0(y | prompt)

p is the language model with the adapter, p0 without it (DPO: Rafailov et al., 2023, arXiv:2305.18290); log p(y) is the sum
over the response's tokens. An example has two texts, the prompt with either response: they are in one batch, behind one
another. p0 is computed beside p in every step, on the same tokens, and nothing of it is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data.batches import Planned
from ..data.examples import Examples
from ..data.rows import Rows
from ..models.tokens import Tokenizer, Tokens
from .language import SupervisedFineTuning
from .task import IGNORE, Answer, mean_of

if TYPE_CHECKING:
    from ..train.step import Hyper


class DirectPreference(SupervisedFineTuning):
    """DPO on prompts with two responses, or on pairs of chats."""

    name = "dpo"
    compares = True
    main_metric = "reward_accuracy"
    lower_is_better = False
    last_turn_alone = True

    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        """Text 2 i is that of example i's chosen response, text 2 i + 1 of the rejected one."""
        chosen = super().rows(_side(examples, 0), names, tokenizer, max_length, truncate)
        rejected = super().rows(_side(examples, 1), names, tokenizer, max_length, truncate)
        tokens = [own for pair in zip(chosen.tokens, rejected.tokens, strict=True) for own in pair]
        labels = [own for pair in zip(chosen.labels, rejected.labels, strict=True) for own in pair]
        return Rows(examples, tokens, labels, together=2)

    def outputs(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        """`[texts, 2]`: the log-likelihood of each text's response with the adapter, and without it."""
        targets, counts = jnp.maximum(labels, 0), labels != IGNORE
        found, _ = backbone.likelihood(params, state, inputs, targets, key=key, layers=layers)
        before, _ = backbone.likelihood(params, {}, inputs, targets)
        both = jnp.where(counts[..., None], jnp.stack([found, jax.lax.stop_gradient(before)], axis=-1), 0.0)
        if inputs.texts is None:
            return both.sum(1)
        texts = jnp.arange(1, len(inputs.texts.first) + 1, dtype=jnp.int32)
        mine = inputs.texts.segments[..., None] == texts  # [rows, tokens, texts]
        return jnp.sum(jnp.where(mine[..., None], both[:, :, None], 0.0), axis=(0, 1))

    def loss(self, outputs: jax.Array, labels: jax.Array, hyper: Hyper, weight: jax.Array) -> jax.Array:
        rewards = outputs[:, 0] - outputs[:, 1]
        return mean_of(-jax.nn.log_sigmoid(hyper.beta * (rewards[::2] - rewards[1::2])), weight[::2])

    def each(self, outputs: np.ndarray, rows: Rows, planned: Planned) -> Iterator[tuple[int, np.ndarray]]:
        return zip(planned.texts, outputs, strict=False)  # fewer texts than there is room for

    def answer(self, outputs: np.ndarray, names: Sequence[str], row: Tokens) -> Answer:
        return Answer(None, float(outputs[0]) - float(outputs[1]))

    def whole(self, answers: Sequence[Answer]) -> Answer:
        return Answer(None, tuple(answer.score for answer in answers))

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Share of the pairs in which r(chosen) is the larger, and the mean of r(chosen) - r(rejected)."""
        chosen, rejected = np.array([answer.score for answer in answers]).T
        margins = chosen - rejected
        return {"reward_accuracy": float((margins > 0).mean()), "margin": float(margins.mean())}


def _side(examples: Examples, side: int) -> Examples:
    """Rows of one response each: the chosen ones (0), or the rejected."""
    if examples.pairs is None:
        return replace(examples, texts=tuple(chats[side] for chats in examples.texts))
    return replace(examples, pairs=tuple(responses[side] for responses in examples.pairs))
