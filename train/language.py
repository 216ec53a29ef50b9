"""Language modelling tasks: every token predicts the next one.

    loss = - sum over the counted tokens of log p(next token) / their number

`lm` counts all tokens of plain text, `sft` (supervised fine-tuning) those of the responses alone. Texts share rows as in every
task, each attending to its own tokens (`train/batches.py`). `seq2seq` is for encoder-decoders: the encoder reads the source,
the decoder a start token and the target, all of whose tokens count; each pair has a row of its own. An adapter for these tasks
has no head: the backbone has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import GraftaxError
from ..models.tokens import Tokenizer, Tokens
from .batches import Shape
from .data import Examples
from .rows import Rows
from .task import IGNORE, Answer, Task

if TYPE_CHECKING:
    from .step import Hyper


class LanguageModel(Task):
    """Causal language modelling: every text ends with the token that ends texts, and a long one is cut into rows."""

    name = "lm"
    tokens = True
    headless = True
    main_metric = "perplexity"
    lower_is_better = True

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        return ()

    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        """Each text's tokens in rows of at most `max_length`; a row begins with the last token of the one before."""
        tokens, labels, owner = [], [], []
        for i, ids in enumerate(tokenizer.ids(examples.texts)):
            ids = np.append(ids, tokenizer.eos_id).astype(np.int32) if tokenizer.eos_id is not None else ids
            for begin in range(0, max(1, len(ids) - 1), max_length - 1):
                own = ids[begin : begin + max_length]
                tokens.append(Tokens(own, np.zeros_like(own), None))
                labels.append(successors(own))
                owner.append(i)
        if not any(len(row) > 1 for row in tokens):
            raise GraftaxError(f"{examples.source}: no text in it has two tokens.")
        return Rows(examples.take(owner), tokens, labels)

    def outputs(
        self, backbone: Any, params: Any, state: Any, inputs: Any, labels: jax.Array, key: Any = None, layers: Any = None
    ) -> jax.Array:
        """`[rows, tokens, 3]`: the next token's log-likelihood, whether it was the likeliest, whether it counts."""
        found, hit = backbone.likelihood(params, state, inputs, jnp.maximum(labels, 0), key=key, layers=layers)
        counts = labels != IGNORE
        return jnp.where(counts[..., None], jnp.stack([found, hit, counts.astype(found.dtype)], axis=-1), 0.0)

    def loss(self, outputs: jax.Array, labels: jax.Array, hyper: Hyper, weight: jax.Array) -> jax.Array:
        return -outputs[..., 0].sum() / jnp.maximum(outputs[..., 2].sum(), 1.0)

    def answer(self, outputs: np.ndarray, names: Sequence[str], row: Tokens) -> Answer:
        return Answer(None, tuple(outputs.astype(np.float64).sum(0).tolist()))

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Perplexity and accuracy over all counted tokens."""
        total, hits, count = np.sum([a.score for a in answers], axis=0)
        return {"perplexity": math.exp(min(-total / count, 700.0)), "token_accuracy": float(hits / count)}

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        return np.full((shape.rows, shape.tokens), IGNORE, np.int32)


class SupervisedFineTuning(LanguageModel):
    """Prompts and responses, or chats: the loss is on the responses alone."""

    name = "sft"

    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        made = self._chats(examples, tokenizer) if examples.hold_chats else self._pairs(examples, tokenizer)
        tokens, labels = [], []
        for i, (ids, counted) in enumerate(made):
            if len(ids) > max_length and not truncate:
                much = f"row {i + 1} has {len(ids)} tokens, more than the {max_length} of max_length"
                raise GraftaxError(f"{examples.source}: {much}; raise that, or truncate rows.")
            ids, counted = ids[:max_length], counted[:max_length]
            if not counted[: len(ids) - 1].any():
                raise GraftaxError(f"{examples.source}: row {i + 1}: nothing of its response is within {max_length} tokens.")
            tokens.append(Tokens(ids, np.zeros_like(ids), None))
            labels.append(np.where(counted, successors(ids), IGNORE).astype(np.int32))
        return Rows(examples, tokens, labels)

    @staticmethod
    def _pairs(examples: Examples, tokenizer: Tokenizer) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids of prompt and response, and the tokens whose successor belongs to the response (or ends it)."""
        assert examples.pairs is not None
        prompts = tokenizer.ids(examples.texts)
        both = tokenizer.ids([text + response for text, response in zip(examples.texts, examples.pairs, strict=True)])
        alone = tokenizer.ids(examples.pairs, special=False)
        made = []
        for prompt, joined, response in zip(prompts, both, alone, strict=True):
            # a prompt is tokenized by itself when it is answered: its last token must not have grown together with the response
            ids = joined if np.array_equal(joined[: len(prompt)], prompt) else np.concatenate([prompt, response])
            ids = np.append(ids, tokenizer.eos_id).astype(np.int32) if tokenizer.eos_id is not None else ids
            made.append((ids, np.arange(len(ids)) >= len(prompt) - 1))
        return made

    @staticmethod
    def _chats(examples: Examples, tokenizer: Tokenizer) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids of a chat by the tokenizer's template, and the tokens whose successor the assistant says; in a prompt, none."""
        made = []
        for i, prompt in enumerate(examples.texts):
            messages, asked = (prompt, 0) if examples.pairs is None else (prompt + examples.pairs[i], len(prompt))
            ids = tokenizer.chat(messages)
            counted = np.zeros(len(ids), bool)
            for turn, message in enumerate(messages):
                if turn < asked or message.get("role") != "assistant":
                    continue
                begin, end = tokenizer.chat(messages[:turn], answer=True), tokenizer.chat(messages[: turn + 1])
                if not np.array_equal(ids[: len(begin)], begin) or not np.array_equal(ids[: len(end)], end):
                    raise GraftaxError(
                        f"{examples.source}: row {i + 1}: the chat template rewrites what it said of earlier turns."
                    )
                counted[len(begin) - 1 : len(end) - 1] = True
            if not counted.any():
                raise GraftaxError(f"{examples.source}: row {i + 1} has no message of the assistant.")
            made.append((ids, counted))
        return made


class SequenceToSequence(LanguageModel):
    """Sources and targets, for encoder-decoders."""

    name = "seq2seq"
    targets = True

    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        assert examples.pairs is not None
        tokens, labels = [], []
        both = tokenizer.ids(examples.texts), tokenizer.ids(examples.pairs, written=True)
        for i, (source, target) in enumerate(zip(*both, strict=True)):
            if tokenizer.eos_id is not None and (not len(target) or target[-1] != tokenizer.eos_id):
                target = np.append(target, tokenizer.eos_id).astype(np.int32)
            for ids, which in ((source, "source"), (target, "target")):
                if len(ids) > max_length and not truncate:
                    much = f"the {which} of row {i + 1} has {len(ids)} tokens, more than the {max_length} of max_length"
                    raise GraftaxError(f"{examples.source}: {much}; raise that, or truncate rows.")
            source, target = source[:max_length], target[:max_length]
            read = np.insert(target[:-1], 0, tokenizer.start_id).astype(np.int32)
            tokens.append(Tokens(source, np.zeros_like(source), None, read))
            labels.append(target)
        return Rows(examples, tokens, labels)

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        return np.full((shape.rows, shape.target), IGNORE, np.int32)


def successors(ids: np.ndarray) -> np.ndarray:
    """Each token's next one; none behind the last."""
    return np.append(ids[1:], IGNORE).astype(np.int32)
