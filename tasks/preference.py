"""Preference tuning: of two responses to a prompt, one is better.

    loss = - log sigmoid(beta * (r(chosen) - r(rejected))),    r(y) = log p(y | prompt) - log p0(y | prompt)

p is the language model with the adapter, p0 without it (DPO: Rafailov et al., 2023, arXiv:2305.18290); log p(y) is the sum
over the response's tokens. An example has two texts, the prompt with either response: they are in one batch, behind one
another. p0 is computed beside p in every step, on the same tokens, and nothing of it is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from ..adapters.task_words import words_for
from ..data.chats import Chat, chat_of, is_chat, turns_of
from ..data.columns import Columns, Field, read_fields
from ..data.examples import Examples
from ..data.prepared import Prepared
from ..data.sources import Source
from ..data.values import text_of
from ..models.tokens import Tokenizer
from ..shapes import AnyArray, Float, Int, shaped
from .generative import SupervisedFineTuning
from .main_metrics import main_metric_of
from .outputs import Against
from .task import Answer, Settings, mean_of

_PROMPT, _CHOSEN, _REJECTED = (Field(name, text_of) for name in ("prompt", "chosen", "rejected"))


class DirectPreference(SupervisedFineTuning):
    """DPO on prompts with two responses, or on pairs of chats."""

    name = "dpo"
    words = words_for(name)
    output = Against()
    main_metric, lower_is_better = main_metric_of(name)
    last_turn_alone = True

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (_PROMPT, _CHOSEN, _REJECTED)

    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        """Prompts with two responses each, or, where those are lists of messages, pairs of chats."""
        both = columns["chosen"], columns["rejected"]
        source.require(*both)
        if not any(is_chat(row.get(column)) for row in source.rows for column in both):
            return Examples(read_fields(source, columns, (_CHOSEN, _REJECTED, _PROMPT)), None, source.name)
        sides = [tuple(_answered(source, columns, column, i) for i in range(len(source.rows))) for column in both]
        return Examples(dict(zip(("chosen", "rejected"), sides, strict=True)), None, source.name)

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Tokenizer, max_length: int, truncate: bool = False
    ) -> Prepared:
        """Item 2 i is example i's prompt with its chosen response, item 2 i + 1 with the rejected one."""
        chosen = super().prepare(_side(examples, "chosen"), names, processor, max_length, truncate)
        rejected = super().prepare(_side(examples, "rejected"), names, processor, max_length, truncate)
        items = [own for pair in zip(chosen.items, rejected.items, strict=True) for own in pair]
        labels = [own for pair in zip(chosen.labels, rejected.labels, strict=True) for own in pair]
        return Prepared(examples, items, labels, together=2)

    @shaped
    def loss(
        self,
        outputs: Float[Array, "items 2"],
        labels: Int[AnyArray, "rows length"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        rewards = outputs[:, 0] - outputs[:, 1]
        return mean_of(-jax.nn.log_sigmoid(settings.beta * (rewards[::2] - rewards[1::2])), weight[::2])

    def answer(self, outputs: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        return Answer(None, float(outputs[0]) - float(outputs[1]))

    def whole(self, answers: Sequence[Answer]) -> Answer:
        return Answer(None, tuple(answer.score for answer in answers))

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Share of the pairs in which r(chosen) is the larger, and the mean of r(chosen) - r(rejected)."""
        chosen, rejected = np.array([answer.score for answer in answers]).T
        margins = chosen - rejected
        return {"reward_accuracy": float((margins > 0).mean()), "margin": float(margins.mean())}

    mistaken_by = "how much more reward the rejected response has"

    def mistake(self, label: Any, answer: Answer) -> float | None:
        chosen, rejected = answer.score
        return float(rejected - chosen) if rejected > chosen else None


def _side(examples: Examples, side: str) -> Examples:
    """Examples of one response each: the "chosen" ones, or the "rejected"."""
    responses = examples.fields[side]
    if "prompt" in examples.fields:
        return Examples({"prompt": examples.fields["prompt"], "completion": responses}, None, examples.source)
    return Examples({"messages": responses}, None, examples.source)


def _answered(source: Source, columns: Columns, column: str, row: int) -> Chat:
    """A chat; where it begins with the assistant's answer, behind the prompt, which is a text or a list of messages."""
    chat = source.value(row, column, chat_of)
    prompt = partial(turns_of, role="user")
    return chat if chat[0]["role"] != "assistant" else source.value(row, columns["prompt"], prompt) + chat
