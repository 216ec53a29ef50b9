"""Language modelling tasks: every token predicts the next one.

    loss = - sum over the counted tokens of log p(next token) / their number

`lm` counts all tokens of plain text, `sft` (supervised fine-tuning) those of the responses alone. Texts share batch rows as in
every task, each attending to its own tokens (`data/batches.py`). `seq2seq` is for encoder-decoders: the encoder reads the
source, the decoder a start token and the target, all of whose tokens count; each pair has a batch row of its own. An adapter
for these tasks has no head: the backbone has one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ..adapters.task_words import words_for
from ..data.chats import Chat, chat_of, is_chat, is_learnt, turns_of
from ..data.columns import Columns, Field, read_fields
from ..data.examples import Examples
from ..data.prepared import Prepared
from ..data.sources import Source
from ..data.text_files import read_text
from ..data.values import text_of
from ..errors import GraftaxError
from ..models.tokens import Tokenizer, Tokens
from ..shapes import AnyArray, Float, Int, shaped
from .main_metrics import main_metric_of
from .outputs import IGNORE, NextToken, OfTarget
from .task import Answer, Settings, Task

_PROMPT, _COMPLETION = Field("prompt", text_of), Field("completion", text_of)
_MESSAGES = Field("messages", chat_of, read="found")


class LanguageModel(Task):
    """Causal language modelling: every text ends with the token that ends texts, and a long one is cut into pieces."""

    name = "lm"
    words = words_for(name)
    output = NextToken()
    main_metric, lower_is_better = main_metric_of(name)
    about = "text"

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (Field("text", text_of),)

    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        return Examples(read_fields(source, columns, self.fields(processor)), None, source.name)

    def read_directly(self, data: Any) -> Examples | None:
        """A file of plain text is one text; other tasks on texts have no use for one."""
        plain = type(self) is LanguageModel and isinstance(data, str | Path) and Path(data).suffix == ".txt"
        return Examples({"text": (read_text(Path(data)),)}, None, str(data)) if plain else None

    def label_names(self, examples: Examples) -> tuple[str, ...]:
        return ()

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Tokenizer, max_length: int, truncate: bool = False
    ) -> Prepared:
        """Each text's tokens in pieces of at most `max_length`; a piece begins with the last token of the one before.

        A piece is an example of its own, so that of a single long text, too, some may be held out.
        """
        tokens, labels, owner = [], [], []
        for i, ids in enumerate(processor.ids(examples.fields["text"])):
            ids = processor.ended(ids)
            for begin in range(0, max(1, len(ids) - 1), max_length - 1):
                own = ids[begin : begin + max_length]
                tokens.append(Tokens(own, np.zeros_like(own), None))
                labels.append(successors(own))
                owner.append(i)
        if not any(len(piece) > 1 for piece in tokens):
            raise GraftaxError(f"{examples.source}: no text in it has two tokens.")
        return Prepared(examples.take(owner), tokens, labels)

    @shaped
    def loss(
        self,
        outputs: Float[Array, "rows length 3"],
        labels: Int[AnyArray, "rows length"],
        settings: Settings,
        weight: Float[Array, " items"],
    ) -> Float[Array, ""]:
        return -outputs[..., 0].sum() / jnp.maximum(outputs[..., 2].sum(), 1.0)

    def answer(self, outputs: np.ndarray, names: Sequence[str], item: Any) -> Answer:
        return Answer(None, tuple(outputs.astype(np.float64).sum(0).tolist()))

    def whole(self, answers: Sequence[Answer]) -> Answer:
        return Answer(None, tuple(np.sum([a.score for a in answers], axis=0).tolist()))

    def score(self, examples: Examples, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
        """Perplexity and accuracy over all counted tokens."""
        total, hits, count = np.sum([a.score for a in answers], axis=0)
        return {"perplexity": math.exp(min(-total / count, 700.0)), "token_accuracy": float(hits / count)}

    mistaken_by = "nats per token, of which unlikely texts have many"

    def mistake(self, label: Any, answer: Answer) -> float | None:
        total, _, count = answer.score
        return -total / count if count else None


class SupervisedFineTuning(LanguageModel):
    """Prompts and responses, or chats: the loss is on the responses alone."""

    name = "sft"
    words = words_for(name)

    last_turn_alone = False  # of a chat that has an item for every turn, the last one's is all

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (_PROMPT, _COMPLETION, _MESSAGES)

    def read(self, source: Source, columns: Columns, processor: Any, names: Sequence[str] = ()) -> Examples:
        """Chats, or prompts with completions; where either is a list of messages, both become such lists."""
        if columns["messages"] in source.rows[0]:
            return Examples({"messages": source.column(columns["messages"], chat_of)}, None, source.name)
        prompt, completion = columns["prompt"], columns["completion"]
        source.require(prompt, completion)
        if not any(is_chat(row.get(column)) for row in source.rows for column in (prompt, completion)):
            return Examples(read_fields(source, columns, (_PROMPT, _COMPLETION)), None, source.name)
        prompts = source.column(prompt, partial(turns_of, role="user"))
        completions = source.column(completion, partial(turns_of, role="assistant"))
        return Examples({"prompt": prompts, "completion": completions}, None, source.name)

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Tokenizer, max_length: int, truncate: bool = False
    ) -> Prepared:
        made = self._chats(examples, processor) if holds_chats(examples) else self._pairs(examples, processor)
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
        return Prepared(examples, tokens, labels, owners=owners)

    @staticmethod
    def _pairs(examples: Examples, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Index, ids of prompt and response, and the tokens whose successor belongs to the response (or ends it)."""
        asked, responses = examples.fields["prompt"], examples.fields["completion"]
        prompts = tokenizer.prompts(asked)
        both = tokenizer.prompts([prompt + response for prompt, response in zip(asked, responses, strict=True)])
        alone = tokenizer.ids(responses, special=False)
        for i, (prompt, joined, response) in enumerate(zip(prompts, both, alone, strict=True)):
            # a prompt is tokenized by itself when it is answered: its last token must not have grown together with the response
            ids = tokenizer.ended(joined if _begins(joined, prompt) else np.concatenate([prompt, response]))
            yield i, ids, np.arange(len(ids)) >= len(prompt) - 1

    def _chats(self, examples: Examples, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Index, ids of a chat by the template, and the tokens whose successor the assistant says; in a prompt, none.

        Some templates write earlier turns in another way than the last one, and drop the assistant's thoughts there: then no
        text holds all turns as they were said, and every turn of the assistant has an item of its own, behind the chat as it
        was written when the assistant spoke.
        """
        for i, (messages, asked) in enumerate(chats_in(examples)):
            where = f"{examples.source}: row {i + 1}"
            turns = [turn for turn in range(asked, len(messages)) if is_learnt(messages[turn])]
            if not turns:
                weighed = any("weight" in message for message in messages)
                raise GraftaxError(f"{where} has no message of the assistant{' that has a weight of 1' if weighed else ''}.")
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
    words = words_for(name)
    output = OfTarget()

    def fields(self, processor: Any) -> tuple[Field, ...]:
        return (_PROMPT, _COMPLETION)

    def prepare(
        self, examples: Examples, names: Sequence[str], processor: Tokenizer, max_length: int, truncate: bool = False
    ) -> Prepared:
        tokens, labels = [], []
        both = processor.ids(examples.fields["prompt"]), processor.ids(examples.fields["completion"], written=True)
        for i, (source, target) in enumerate(zip(*both, strict=True)):
            target = processor.ended(target)
            for ids, which in ((source, "source"), (target, "target")):
                if len(ids) > max_length and not truncate:
                    much = f"the {which} of row {i + 1} has {len(ids)} tokens, more than the {max_length} of max_length"
                    raise GraftaxError(f"{examples.source}: {much}; raise that, or truncate rows.")
            cut = max(len(source), len(target)) > max_length
            source, target = source[:max_length], target[:max_length]
            read = np.insert(target[:-1], 0, processor.start_id).astype(np.int32)
            tokens.append(Tokens(source, np.zeros_like(source), None, read, cut=cut))
            labels.append(target)
        return Prepared(examples, tokens, labels)


def successors(ids: np.ndarray) -> np.ndarray:
    """Each token's next one; none behind the last."""
    return np.append(ids[1:], IGNORE).astype(np.int32)


def holds_chats(examples: Examples) -> bool:
    """Whether what is read and answered are messages."""
    first = next(iter(examples.fields.values()))
    return len(first) > 0 and not isinstance(first[0], str)


def chats_in(examples: Examples) -> Iterator[tuple[Chat, int]]:
    """The messages of each example that holds a chat, and how many of them are its prompt."""
    if "messages" in examples.fields:
        yield from ((messages, 0) for messages in examples.fields["messages"])
        return
    for prompt, completion in zip(examples.fields["prompt"], examples.fields["completion"], strict=True):
        yield prompt + completion, len(prompt)
