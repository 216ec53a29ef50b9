"""Prediction with many adapters resident: a different adapter, method and label set in every row of a batch.

    predictor = Predictor(backbone)
    predictor.load("bank", "adapters/bank")
    predictor.predict(["my card is gone", "hello"], ["bank", None])

One compiled call answers a batch, whatever mixture of adapters its rows name. Programs are compiled per padded length, per
number of rows (a power of two up to 64) and when the bank grows; a swap compiles nothing. `compilations` counts them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.files import load_adapter
from ..adapters.head import Head
from ..errors import GraftaxError
from ..models.backbone import TOKENS, Backbone, Logits
from ..models.encoder import Inputs
from ..models.tokens import Tokenizer, Tokens, rung
from ..train.tasks import Answer, Task, task_named
from .bank import Bank

MOST_ROWS = 64  # per call


@dataclass(frozen=True)
class Prediction:
    """What is said about one row; label and score are None for a row without an adapter or an adapter without a head."""

    adapter: str | None
    label: Any
    score: Any


@dataclass(frozen=True)
class _Loaded:
    task: Task
    labels: tuple[str, ...]
    max_length: int


class Predictor:
    """A frozen backbone and a bank of adapters over it. Calls may come from several threads."""

    def __init__(self, backbone: Backbone, *, max_length: int = 128):
        self.backbone = backbone
        self.bank = Bank(backbone)
        self.tokenizer = Tokenizer.of(backbone)
        self.max_length = min(max_length, backbone.config.max_tokens)
        self.compilations = 0
        self._loaded: dict[str, _Loaded] = {}
        self._lock = threading.Lock()
        self._forward = jax.jit(self._traced)

    def _traced(self, params: Any, state: Any, inputs: Inputs, slots: jax.Array) -> Logits:
        self.compilations += 1  # runs when the function is traced, not when it is called
        return self.backbone.forward(params, state, inputs, slots)

    def load(
        self, name: str, adapter: str | Path | Adapter, *, labels: Sequence[str] | None = None, any_backbone: bool = False
    ) -> None:
        """Make an adapter resident under a name, replacing one of that name.

        `labels` names the classes of a PEFT directory, which says only how many there are.
        """
        if not isinstance(adapter, Adapter):
            adapter = load_adapter(adapter, self.backbone, any_backbone=any_backbone)
        head = next((m for m in adapter.methods if isinstance(m, Head)), None)
        count = head.labels if head else 0
        names = tuple(labels or adapter.labels or (f"LABEL_{i}" for i in range(count)))
        if len(names) != count:
            raise GraftaxError(f"{name}: {len(names)} label names for a head of {count} classes.")
        virtual = sum(method.virtual_tokens for method in adapter.methods)
        length = min(adapter.recipe.get("max_length", self.max_length), self.backbone.config.max_tokens - virtual)
        loaded = _Loaded(task_named(adapter.task), names, length)
        with self._lock:
            self.bank.add(name, adapter)
            self._loaded[name] = loaded

    def unload(self, name: str) -> None:
        with self._lock:
            self.bank.remove(name)
            del self._loaded[name]

    def labels(self, name: str) -> tuple[str, ...]:
        """Label names of a loaded adapter; empty where it has no head."""
        self.bank.slot(name)
        return self._loaded[name].labels

    def task(self, name: str) -> Task:
        """Task of a loaded adapter."""
        self.bank.slot(name)
        return self._loaded[name].task

    def predict(self, rows: Sequence[Any], adapters: Sequence[str | None] | str | None = None) -> list[Prediction]:
        """Answers for rows, in their order.

        Args:
            rows: a text each, a pair of texts (a tuple), or for a tagging adapter a text or list of words.
            adapters: the adapter of each row, or one name for all; None: no adapter.

        Raises GraftaxError for a name that is not loaded or a row that is empty.
        """
        names = [adapters] * len(rows) if adapters is None or isinstance(adapters, str) else list(adapters)
        if len(names) != len(rows):
            raise GraftaxError(f"{len(rows)} rows but {len(names)} adapters.")
        with self._lock:
            slots = np.array([self.bank.slot(name) for name in names], np.int32)
            tokens = [self._tokens(row, name, i) for i, (row, name) in enumerate(zip(rows, names, strict=True))]
            order = sorted(range(len(rows)), key=lambda i: len(tokens[i]))
            answers: list[Answer | None] = [None] * len(rows)
            for begin in range(0, len(order), MOST_ROWS):
                chunk = order[begin : begin + MOST_ROWS]
                for i, answer in zip(chunk, self._batch(chunk, tokens, slots, names), strict=True):
                    answers[i] = answer
        return [
            Prediction(name, answer.label, answer.score) if answer else Prediction(name, None, None)
            for name, answer in zip(names, answers, strict=True)
        ]

    def _tokens(self, row: Any, name: str | None, index: int) -> Tokens:
        loaded = self._loaded.get(name) if name is not None else None
        length = loaded.max_length if loaded else self.max_length
        words = bool(loaded and loaded.task.tokens)
        if words:
            row = row.split() if isinstance(row, str) else list(row)
        elif isinstance(row, list) and name is not None:
            raise GraftaxError(f"row {index + 1} is a list of words, but adapter {name!r} takes a text.")
        elif isinstance(row, list):
            row = " ".join(row)
        pair = isinstance(row, tuple)
        if not row or any(not text.strip() for text in (row if pair else [row] if isinstance(row, str) else [])):
            raise GraftaxError(f"row {index + 1} is empty.")
        return self.tokenizer([row[0]] if pair else [row], [row[1]] if pair else None, length, words=words)[0]

    def _batch(self, chunk: list[int], tokens: list[Tokens], slots: np.ndarray, names: list[str | None]) -> list[Answer | None]:
        count = 1 << (len(chunk) - 1).bit_length()
        length = rung(max(len(tokens[i]) for i in chunk), self.backbone.config.max_tokens)
        inputs = self.tokenizer.pad([tokens[i] for i in chunk], count, length)
        rows = np.zeros(count, np.int32)
        rows[: len(chunk)] = slots[chunk]
        loaded = [self._loaded[name] if (name := names[i]) is not None else None for i in chunk]
        state = self.bank.state
        if not any(one and one.task.tokens for one in loaded):
            state = {name: tree for name, tree in state.items() if name != TOKENS}  # then only pooled positions are computed
        logits = jax.device_get(self._forward(self.backbone.params, state, inputs, rows))
        answers: list[Answer | None] = []
        for r, (i, one) in enumerate(zip(chunk, loaded, strict=True)):
            if one is None or not one.labels:
                answers.append(None)
                continue
            mine = logits.tokens[r] if one.task.tokens else logits.pooled[r]
            answers.append(one.task.answer(mine[..., : len(one.labels)], one.labels, tokens[i]))
        return answers
