"""Language modelling tasks: every token predicts the next one.

    loss = - sum over the counted tokens of log p(next token) / their number

`lm` counts all tokens of plain text, `sft` (supervised fine-tuning) those of the responses alone. Texts share rows as in every
task, each attending to its own tokens (`data/batches.py`). `seq2seq` is for encoder-decoders: the encoder reads the source,
the decoder a start token and the target, all of whose tokens count; each pair has a row of its own. An adapter for these tasks
has no head: the backbone has one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ..data.batches import Shape
from ..data.examples import Examples
from ..data.rows import Rows
from ..errors import GraftaxError
from ..models.tokens import Tokenizer, Tokens
from .task import IGNORE, Answer, Task

if TYPE_CHECKING:
    from ..train.step import Hyper


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
        """Each text's tokens in rows of at most `max_length`; a row begins with the last token of the one before.

        A row is an example of its own: of a single long text, too, some may be held out.
        """
        tokens, labels, owner = [], [], []
        for i, ids in enumerate(tokenizer.ids(examples.texts)):
            ids = tokenizer.ended(ids)
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

    def whole(self, answers: Sequence[Answer]) -> Answer:
        return Answer(None, tuple(np.sum([a.score for a in answers], axis=0).tolist()))

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Perplexity and accuracy over all counted tokens."""
        total, hits, count = np.sum([a.score for a in answers], axis=0)
        return {"perplexity": math.exp(min(-total / count, 700.0)), "token_accuracy": float(hits / count)}

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        return np.full((shape.rows, shape.tokens), IGNORE, np.int32)


class SupervisedFineTuning(LanguageModel):
    """Prompts and responses, or chats: the loss is on the responses alone."""

    name = "sft"

    last_turn_alone = False  # of a chat that has a row for every turn, the last one's is all

    def rows(
        self, examples: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: bool = False
    ) -> Rows:
        made = self._chats(examples, tokenizer) if examples.hold_chats else self._pairs(examples, tokenizer)
        tokens, labels, owners = list[Tokens](), [], list[int]()
        for owner, ids, counted in made:
            where = f"{examples.source}: row {owner + 1}"
            if len(ids) > max_length and not truncate:
                much = f"has {len(ids)} tokens, more than the {max_length} of max_length"
                raise GraftaxError(f"{where} {much}; raise that, or truncate rows.")
            cut = len(ids) > max_length
            ids, counted = ids[:max_length], counted[:max_length]
            if not counted[: len(ids) - 1].any():
                if owners and owners[-1] == owner:  # an earlier turn of the chat is there: this one is cut away
                    tokens[-1].cut = True
                    continue
                raise GraftaxError(f"{where}: nothing of its response is within {max_length} tokens.")
            tokens.append(Tokens(ids, np.zeros_like(ids), None, cut=cut))
            labels.append(np.where(counted, successors(ids), IGNORE).astype(np.int32))
            owners.append(owner)
        return Rows(examples, tokens, labels, owners=owners)

    @staticmethod
    def _pairs(examples: Examples, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Index, ids of prompt and response, and the tokens whose successor belongs to the response (or ends it)."""
        assert examples.pairs is not None
        prompts = tokenizer.prompts(examples.texts)
        both = tokenizer.prompts([text + response for text, response in zip(examples.texts, examples.pairs, strict=True)])
        alone = tokenizer.ids(examples.pairs, special=False)
        for i, (prompt, joined, response) in enumerate(zip(prompts, both, alone, strict=True)):
            # a prompt is tokenized by itself when it is answered: its last token must not have grown together with the response
            ids = tokenizer.ended(joined if _begins(joined, prompt) else np.concatenate([prompt, response]))
            yield i, ids, np.arange(len(ids)) >= len(prompt) - 1

    def _chats(self, examples: Examples, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Index, ids of a chat by the template, and the tokens whose successor the assistant says; in a prompt, none.

        Some templates write earlier turns in another way than the last one, and drop the assistant's thoughts there: then no
        row holds all turns as they were said, and every turn of the assistant has a row of its own, behind the chat as it was
        written when the assistant spoke.
        """
        for i, prompt in enumerate(examples.texts):
            where = f"{examples.source}: row {i + 1}"
            messages, asked = (prompt, 0) if examples.pairs is None else (prompt + examples.pairs[i], len(prompt))
            turns = [turn for turn in range(asked, len(messages)) if messages[turn]["role"] == "assistant"]
            if not turns:
                raise GraftaxError(f"{where} has no message of the assistant.")
            whole = tokenizer.chat(messages, where)
            said = [_turn(messages[: turn + 1], tokenizer, where) for turn in turns]
            if all(_begins(whole, ids) for ids, _ in said):
                every = np.zeros(len(whole), bool)
                for ids, own in said:
                    every[: len(ids)] |= own
                yield i, whole, every
                continue
            for ids, own in said[-1 if self.last_turn_alone else 0 :]:
                yield i, ids, own


def _turn(messages: Sequence[Any], tokenizer: Tokenizer, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a chat that ends with the assistant's turn, and the tokens whose successor the assistant says in it.

    It says what the template marks as said; where that marks nothing, all behind the prompt with which it is asked to answer.
    """
    found = tokenizer.marked_chat(messages, where)
    before = tokenizer.chat(messages[:-1], where, answer=found is None)
    ids = tokenizer.chat(messages, where) if found is None else found[0]
    if not _begins(ids, before):
        wrong = (
            "asks for an answer in another way than it writes one" if found is None else "rewrites a chat that it goes on with"
        )
        advice = (
            "give another, or mark in it what the assistant says ({% generation %}), or give prompts and completions as texts"
        )
        raise GraftaxError(f"{where}: the chat template {wrong}; {advice}.")
    said = np.ones(len(ids), bool) if found is None else found[1]
    said[: len(before)] = False
    if not said.any():
        raise GraftaxError(f"{where}: the chat template writes nothing that the assistant says.")
    return ids, np.append(said[1:], False)


def _begins(ids: np.ndarray, beginning: np.ndarray) -> bool:
    return np.array_equal(ids[: len(beginning)], beginning)


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
            target = tokenizer.ended(target)
            for ids, which in ((source, "source"), (target, "target")):
                if len(ids) > max_length and not truncate:
                    much = f"the {which} of row {i + 1} has {len(ids)} tokens, more than the {max_length} of max_length"
                    raise GraftaxError(f"{examples.source}: {much}; raise that, or truncate rows.")
            cut = max(len(source), len(target)) > max_length
            source, target = source[:max_length], target[:max_length]
            read = np.insert(target[:-1], 0, tokenizer.start_id).astype(np.int32)
            tokens.append(Tokens(source, np.zeros_like(source), None, read, cut=cut))
            labels.append(target)
        return Rows(examples, tokens, labels)

    def blank(self, shape: Shape, room: int) -> np.ndarray:
        return np.full((shape.rows, shape.target), IGNORE, np.int32)


def successors(ids: np.ndarray) -> np.ndarray:
    """Each token's next one; none behind the last."""
    return np.append(ids[1:], IGNORE).astype(np.int32)
