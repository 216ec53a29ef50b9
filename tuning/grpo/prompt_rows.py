"""The rows that GRPO reads: a prompt, a text or a chat; an answer, where there is one; and whatever else rewards ask for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...data.chats import chat_of, is_chat, turns_of
from ...data.columns import Columns, Field
from ...data.examples import Examples
from ...data.sources import source_of
from ...data.values import plain, text_of
from ...errors import GraftaxError
from ...models.tokens import Tokenizer
from ...store.manifest import DataFacts

_FIELDS = (Field("prompt", text_of), Field("answer", text_of, read="found"))


@dataclass(frozen=True)
class PromptRows:
    """Prompts, and what is known of each."""

    source: str  # for errors
    prompts: tuple[Any, ...]  # texts, or all of them chats
    answers: tuple[str, ...] | None  # None where there is no such column
    answer_column: str
    columns: Mapping[str, tuple[Any, ...]]  # all but that of the prompts, as they stand in the rows
    names: tuple[str, ...]  # of all columns

    def __len__(self) -> int:
        return len(self.prompts)

    def row_name(self, row: int) -> str:
        return f"{self.source}: row {row + 1}"

    def digest(self) -> str:
        """Changes with whatever stands in them, and with their order."""
        content = json.dumps([self.prompts, self.answers, dict(self.columns)], default=repr, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def known(self) -> DataFacts:
        return Examples({"prompt": self.prompts, **self.columns}, None, self.source).known()


def read_prompts(data: Any, columns: Columns, called: str) -> PromptRows:
    """Rows of any form that training takes; `called`: what errors call those that have no path."""
    columns.check(_FIELDS, "task 'grpo'")
    source = source_of(data, called)
    prompt, answer = columns["prompt"], columns["answer"]
    source.require(prompt, *([answer] if "answer" in columns.named else []))
    chats = any(is_chat(row.get(prompt)) for row in source.rows)
    prompts: tuple[Any, ...]
    if chats:
        prompts = tuple([dict(turn) for turn in chat] for chat in source.column(prompt, partial(turns_of, role="user")))
    else:
        prompts = source.column(prompt, text_of, blank=True)
    names = tuple(dict.fromkeys(str(name) for row in source.rows for name in row))
    return PromptRows(
        source.name,
        prompts,
        source.column(answer, text_of) if answer in source.rows[0] else None,
        answer,
        {name: tuple(plain(row.get(name)) for row in source.rows) for name in names if name != prompt},
        names,
    )


def tokens_of(rows: PromptRows, tokenizer: Tokenizer, new: int, room: int) -> list[np.ndarray]:
    """The tokens of every prompt, int32; a GraftaxError where one leaves no room for `new` more in `room`."""
    texts = [isinstance(prompt, str) for prompt in rows.prompts]
    if all(texts):
        every: Sequence[np.ndarray] = tokenizer.prompts(rows.prompts)
    else:
        every = [tokenizer.chat(chat_of(p), rows.row_name(i), answer=True) for i, p in enumerate(rows.prompts)]
    for row, ids in enumerate(every):
        if not len(ids):
            raise GraftaxError(f"{rows.row_name(row)}: the tokenizer leaves no token of its prompt.")
        if len(ids) + new > room:
            raise GraftaxError(
                f"{rows.row_name(row)}: a prompt of {len(ids)} tokens and {new} new ones are more than the {room} that there "
                "is room for."
            )
    return list(every)
