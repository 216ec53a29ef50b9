"""Prediction with many adapters resident: a different adapter, method and label set in every row of a batch.

    predictor = Predictor(backbone)
    predictor.load("bank", "adapters/bank")
    predictor.predict(["my card is gone", "hello"], ["bank", None])
    predictor.predict(["refund my flight"], [Average("bank", "airline", weights=(0.3, 0.7))])
    predictor.embed(["my card is gone", "hello"])

One compiled call answers a batch, whatever mixture of adapters its rows name. Programs are compiled per padded length, per
number of rows (a power of two up to 64) and when the bank grows; a swap compiles nothing. Batches in which a row uses several
adapters (`serve/composition.py`) have programs of their own. `compilations` counts them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, TypeVar

import jax
import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.files import adapter_for
from ..adapters.fitting import length_for, names_for
from ..adapters.graft import Mix
from ..adapters.methods.head import HEADS, TOKENS
from ..data.prepared import Item, note_cut
from ..errors import GraftaxError
from ..models.backbone import Backbone, Logits
from ..models.inputs import Inputs
from ..shapes import Float
from ..shown import Shown
from ..tasks.task import Answer, Task, items_asked
from ..tasks.task_registry import task_named
from ..typed import Location, Name, Some, checked, held
from .bank import Bank
from .composition import Composition, Parallel, Plan, laid, plan_of, refuse_tokens
from .requests import listed, named

MOST_ROWS = 64  # per call
_OWN = "the checkpoint's own head"  # name of the head that the checkpoint brings, which answers rows without an adapter

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What is said about one row; label and score are None for an adapter that lacks the head of its task, and for a row
    without an adapter where the backbone's checkpoint brings no head of its own.

    By task: "classify" a name and its probability; "multilabel" the names above a probability of a half, and these; "regress" a
    number and None; "tag" a name and a probability for every word ("O" and None for one that the tokenizer makes nothing of).
    """

    adapter: str | None  # a composition as it prints
    label: Any  # by task, see above
    score: Any  # likewise
    #: of "classify" and "multilabel": label -> probability, the likeliest first; all, or the `top_k` that were asked for
    probabilities: Mapping[str, float] | None = field(default=None, hash=False, repr=False)
    #: whether the text is longer than the adapter reads, so that its end has no part in the answer
    cut: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class _Loaded:
    task: Task
    labels: tuple[str, ...]
    max_length: int


@dataclass(frozen=True)
class _Asked:
    """An item to be answered: a row, or a piece of one."""

    what: str | None
    plan: Plan
    head: str | None  # the adapter whose head answers
    item: Item


class Predictor(Shown):
    """A frozen backbone and a bank of adapters over it. Calls may come from several threads."""

    @held
    def __init__(self, backbone: Backbone, *, max_length: Some | None = None):
        """`max_length`: tokens of a text that no adapter answers, or one that does not say how many; longer ones are cut.

        By default as many as the backbone takes; for the head that it brings as many as its tokenizer's config says, for
        vectors as many as a directory of sentence-transformers says.
        """
        self.backbone = backbone
        self.bank = Bank(backbone)
        self.processor = backbone.new_processor()
        self._asked_length = max_length
        self.max_length = min(max_length or self.processor.max_length, self.processor.max_length)
        self.compilations = 0
        self._loaded: dict[str, _Loaded] = {}
        self._lock = threading.Lock()
        self._forward = jax.jit(self._traced)
        self._embed = jax.jit(self._traced_vectors)
        if (own := backbone.own_head) is not None:
            self.load(_OWN, own if max_length is None else replace(own, recipe={}))  # its own length gives way to the one given

    def _traced(self, params: Any, state: Any, inputs: Inputs, slots: jax.Array | Mix) -> Logits:
        self.compilations += 1  # runs when the function is traced, not when it is called
        return self.backbone.forward(params, state, inputs, slots)

    def _traced_vectors(self, params: Any, state: Any, inputs: Inputs, slots: jax.Array | Mix) -> jax.Array:
        self.compilations += 1
        return self.processor.vector_of(self.backbone.encode(params, state, inputs, slots), inputs)

    def facts(self) -> dict[str, Any]:
        return {"backbone": self.backbone.name, "adapters": list(self.bank.adapters), "max_length": self.max_length}

    @held
    def load(
        self, name: Name, adapter: Adapter | Location, *, labels: Sequence[str] | None = None, any_backbone: bool = False
    ) -> None:
        """Make an adapter resident under a name, replacing one of that name.

        Args:
            name: what rows call it by.
            adapter: one in memory, its directory (graftax's, PEFT's or AdapterHub's) or Hub id.
            labels: names of the classes of an adapter that has none of its own, such as a PEFT directory.
            any_backbone: take one that was made for another backbone; names and shapes must fit all the same.

        Raises:
            GraftaxError: no adapter there, one that does not fit this backbone, another number of labels than classes, or other
                labels than the adapter's own.
        """
        adapter = adapter_for(self.backbone, adapter, any_backbone=any_backbone, name=name)
        names = names_for(adapter, labels, name)
        length = length_for(adapter, self.backbone, self.max_length)
        with self._lock:
            self.bank.put(name, adapter)
            self._loaded[name] = _Loaded(task_named(adapter.task), names, length)

    @held
    def unload(self, name: str) -> None:
        with self._lock:
            self.bank.remove(name)
            del self._loaded[name]

    @held
    def labels(self, name: str | None) -> tuple[str, ...]:
        """Label names of a loaded adapter, or (None) of the checkpoint's own head; empty where there is no head."""
        return self._known(name).labels

    @held
    def task(self, name: str | None) -> Task:
        """Task of a loaded adapter, or (None) of the checkpoint's own head."""
        return self._known(name).task

    def _known(self, name: str | None) -> _Loaded:
        if name is None and self.backbone.own_head is None:
            raise GraftaxError(f"{self.backbone.name} brings no head of its own: name an adapter.")
        name = _OWN if name is None else name
        with self._lock:  # what the name means at one moment
            self.bank.slot(name)
            return self._loaded[name]

    def predict(
        self,
        rows: Sequence[Any],
        adapters: Sequence[str | Composition | None] | str | Composition | None = None,
        *,
        top_k: int | None = None,
    ) -> list[Prediction]:
        """Answers for rows, in their order. What a tagging adapter has no room for at once it reads in pieces.

        Other texts that are longer than an adapter reads are cut: of how many is said in a note, of which in `Prediction.cut`.

        Args:
            rows: a text each, a pair of texts (a tuple), or for a tagging adapter a text or list of words.
            adapters: the adapter or composition of each row, or one for all; None: the backbone alone, which answers with the
                head that its checkpoint brings, if any (`Backbone.own_head`). The head, and with it the task
                and labels, is that of a stack's last part that has one, and of the first in an average or a split. A row with
                `Parallel` has an answer for each part, one after another in its place.
            top_k: of so many labels, the likeliest, the probabilities are told; None: of all.

        Raises:
            GraftaxError: a name that is not loaded, a row that is empty or no text, a composition that cannot be computed, an
                adapter of a language model, which has no head.
        """
        checked(top_k, Some | None, "top_k")
        return [
            self._prediction(asked, answers, top_k)
            for asked, answers in self._each(rows, adapters, self._answers, self.max_length)
        ]

    def _prediction(self, asked: _Asked, answers: Sequence[Answer | None], top_k: int | None) -> Prediction:
        """About a text, of the answers to its pieces; without any it says nothing."""
        known = [answer for answer in answers if answer is not None]
        if not known or asked.head is None:
            return Prediction(asked.what, None, None)
        answer = known[0] if len(known) == 1 else self._loaded[asked.head].task.whole(known)
        likeliest = _likeliest(answer.probabilities, top_k)
        return Prediction(asked.what, answer.label, answer.score, likeliest, asked.item.cut)

    def embed(
        self, rows: Sequence[Any], adapters: Sequence[str | Composition | None] | str | Composition | None = None
    ) -> Float[np.ndarray, "rows size"]:
        """Vectors of rows, float32, in their order: the backbone's last layer, pooled over the tokens.

        The mean, or what a directory of sentence-transformers says (`models/pooling.py`). An adapter changes the layers; its
        head is not asked.

        Args:
            rows: as of `predict`.
            adapters: as of `predict`. A row with `Parallel` has a vector for each part.

        Raises:
            GraftaxError: as of `predict`; a pooling that is not supported; an encoder-decoder.
        """
        if self.backbone.family.encodes:
            raise GraftaxError(f"{self.backbone.name} is an encoder-decoder, which has no layer that all of a text passes.")
        size = self.processor.vector_size(self.backbone.config.hidden_size)
        longest = self._asked_length or self.processor.vector_length or self.max_length
        vectors = [own[0] for _, own in self._each(rows, adapters, self._vectors, min(longest, self.max_length))]
        return np.stack(vectors) if vectors else np.zeros((0, size), np.float32)

    def _each(
        self, rows: Any, adapters: Any, compute: Callable[[list[_Asked]], Sequence[T]], max_length: int
    ) -> list[tuple[_Asked, list[T]]]:
        """What is asked (of a row in pieces its first one), and what `compute` makes of each piece.

        It is given items of like length, at most `MOST_ROWS`. `max_length`: of rows without an adapter.
        """
        given = listed(rows)
        wanted = named(adapters, len(given))
        with self._lock:
            pieces = [
                self._asked(row, part, i, max_length)
                for i, (row, what) in enumerate(zip(given, wanted, strict=True))
                for part in (what.parts if isinstance(what, Parallel) else (what,))
            ]
            asked = list(chain.from_iterable(pieces))
            order = sorted(range(len(asked)), key=lambda i: len(asked[i].item))
            made: dict[int, T] = {}
            for begin in range(0, len(order), MOST_ROWS):
                chunk = order[begin : begin + MOST_ROWS]
                made |= zip(chunk, compute([asked[i] for i in chunk]), strict=True)
        self._note_cut(asked)
        each = iter([made[i] for i in range(len(asked))])
        return [(own[0], list(islice(each, len(own)))) for own in pieces]

    def _note_cut(self, asked: Sequence[_Asked]) -> None:
        """A note for each adapter that does not read all of some rows."""
        longest = {row.what: len(row.item) for row in asked if row.item.cut}
        if longest:
            rows, cut = Counter(row.what for row in asked), Counter(row.what for row in asked if row.item.cut)
            for what, length in longest.items():
                note_cut(what or self.backbone.name, cut[what], rows[what], length)

    def _asked(self, row: Any, what: str | Composition | None, index: int, max_length: int) -> list[_Asked]:
        """A row prepared for the adapter that answers it, in as many pieces as its task needs."""
        plan = plan_of(_OWN if what is None and self.backbone.own_head is not None else what)
        for stage in plan:
            for term in stage:
                refuse_tokens(what, plan, term.name, self.bank)
        heads = [term.name for stage in reversed(plan) for term in stage if self._loaded[term.name].labels]
        head = heads[0] if heads else None
        known = [self._loaded[term.name].max_length for stage in plan for term in stage]
        length = self._loaded[head].max_length if head else min(known, default=max_length)
        ask = self._loaded[head].task.ask if head else items_asked
        called = None if what is None else str(what)
        return [_Asked(called, plan, head, item) for item in ask(self.processor, row, f"row {index + 1}", called, length)]

    def _laid(self, rows: list[_Asked]) -> tuple[Inputs, Any]:
        """A batch of rows, and the slots that they use."""
        items, count = [row.item for row in rows], 1 << (len(rows) - 1).bit_length()
        shape = self.processor.shape_to_ask(items, count)
        inputs = self.processor.lay(items, [(row, 0) for row in range(len(items))], shape)
        return inputs, laid([row.plan for row in rows], [row.head for row in rows], self.bank.slot, count, shape.length)

    def _answers(self, rows: list[_Asked]) -> list[Answer | None]:
        """In one compiled call."""
        self._refuse_headless(rows)
        inputs, slots = self._laid(rows)
        heads = [self._loaded[row.head] if row.head is not None else None for row in rows]
        state = self.bank.state
        if not any(head and head.task.output.by_position for head in heads):
            state = {name: tree for name, tree in state.items() if name != TOKENS}  # then only pooled positions are computed
        logits = jax.device_get(self._forward(self.backbone.params, state, inputs, slots))
        answers: list[Answer | None] = []
        for r, (row, head) in enumerate(zip(rows, heads, strict=True)):
            if head is None:
                answers.append(None)
                continue
            mine = logits.tokens[r] if head.task.output.by_position else logits.pooled[r]
            answers.append(head.task.answer(mine[..., : len(head.labels)], head.labels, row.item))
        return answers

    def _refuse_headless(self, rows: list[_Asked]) -> None:
        """An error where what is to answer a row is an adapter of a task that no head answers."""
        for name in (term.name for row in rows if row.head is None for stage in row.plan for term in stage):
            if not (task := self._loaded[name].task).output.headed:
                advice = "a Generator continues texts with it, embed makes vectors"
                raise GraftaxError(f"{name}: an adapter of task {task.name!r} has no head that could answer; {advice}.")

    def _vectors(self, rows: list[_Asked]) -> list[np.ndarray]:
        """In one compiled call."""
        inputs, slots = self._laid(rows)
        state = {name: tree for name, tree in self.bank.state.items() if name not in HEADS}
        return list(np.asarray(self._embed(self.backbone.params, state, inputs, slots))[: len(rows)])


def _likeliest(probabilities: Mapping[str, float] | None, count: int | None) -> dict[str, float] | None:
    """The first of them; all for None."""
    if probabilities is None:
        return None
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    return dict(ordered[:count])
