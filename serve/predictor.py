"""Answers with many adapters resident: every row of a call may name another adapter, of another method, with other labels.

    predictor = Predictor(backbone)
    predictor.load("bank", "adapters/bank")
    predictor.predict(["my card is gone", "hello"], ["bank", None])
    predictor.predict(["refund my flight"], [Average("bank", "airline", weights=(0.3, 0.7))])
    predictor.embed(["my card is gone", "hello"])

One call of a compiled program answers a batch, whatever adapters its rows name: every batch row picks its own out of the bank
(`bank.py`). A program is compiled for each padded length, for each number of batch rows (a power of two up to 64), and when
the bank grows. Replacing an adapter compiles nothing. Batches in which a row uses several adapters (`composition.py`) have
programs of their own. `Predictor.compilations` counts them all.

How a call goes: each row becomes one item, or several where its task reads it in pieces (`_Asked`); items of like length are
laid in a batch, 64 at most; the program gives logits for all of them; and each item's logits become an answer by the task of
the adapter that answers it. The answers to the pieces of a row become one (`Task.whole`).
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

MOST_ROWS = 64  # batch rows of one call of a program
_OWN = "the checkpoint's own head"  # under this name the head that the checkpoint brings is resident

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What is answered to one row.

    | task | `label` | `score` |
    |---|---|---|
    | "classify", "image-classify" | the name of the likeliest class | its probability |
    | "multilabel" | the names of all classes with a probability above a half | their probabilities |
    | "regress" | the number | None |
    | "tag" | a name for every word, "O" for one that the tokenizer makes nothing of | a probability for every word, or None |

    Both are None where nothing can answer: the adapter has no head, or no adapter is named and the backbone's checkpoint
    brings no head of its own.
    """

    adapter: str | None  # a composition as it prints
    label: Any  # by task, see above
    score: Any  # likewise
    #: of tasks with classes: name -> probability, the likeliest first; all of them, or the `top_k` that were asked for
    probabilities: Mapping[str, float] | None = field(default=None, hash=False, repr=False)
    #: whether the row is longer than the adapter reads, so that its end has no part in the answer
    cut: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class _Loaded:
    """What a predictor knows of a resident adapter."""

    task: Task
    labels: tuple[str, ...]  # none where the adapter has no head
    max_length: int  # positions of an item that it reads


@dataclass(frozen=True)
class _Asked:
    """An item to be answered: a whole row, or a piece of one."""

    what: str | None  # the adapter or composition that the row names, as it prints
    plan: Plan
    answering: str | None  # the adapter whose head answers; None where none has a head
    item: Item


class Predictor(Shown):
    """A frozen backbone, and a bank of adapters that answer with it. Calls may come from several threads."""

    @held
    def __init__(self, backbone: Backbone, *, max_length: Some | None = None):
        """A predictor without adapters, beside the head that the backbone's checkpoint may bring.

        Args:
            backbone: frozen; not changed.
            max_length: how many tokens of a text are read where no adapter says how many it reads. By default as many as the
                backbone takes; for the checkpoint's own head as many as its tokenizer's config says; for vectors as many as a
                directory of sentence-transformers says.
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
            self.load(_OWN, own if max_length is None else replace(own, recipe={}))  # `max_length` goes before its own length

    def _traced(self, params: Any, state: Any, inputs: Inputs, slots: jax.Array | Mix) -> Logits:
        """The logits of a batch; jitted, so this code runs when a program is traced, and not when it is called."""
        self.compilations += 1
        return self.backbone.forward(params, state, inputs, slots)

    def _traced_vectors(self, params: Any, state: Any, inputs: Inputs, slots: jax.Array | Mix) -> jax.Array:
        """The vectors of a batch, `[rows, size]`; jitted likewise."""
        self.compilations += 1
        return self.processor.vector_of(self.backbone.encode(params, state, inputs, slots), inputs)

    def facts(self) -> dict[str, Any]:
        return {"backbone": self.backbone.name, "adapters": list(self.bank.adapters), "max_length": self.max_length}

    @held
    def load(
        self, name: Name, adapter: Adapter | Location, *, labels: Sequence[str] | None = None, any_backbone: bool = False
    ) -> None:
        """Make an adapter resident under a name, in place of one that has that name.

        Args:
            name: by which rows ask for it.
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
        """Forget an adapter."""
        with self._lock:
            self.bank.remove(name)
            del self._loaded[name]

    @held
    def labels(self, name: str | None) -> tuple[str, ...]:
        """The names of an adapter's classes; of the checkpoint's own head for None. Empty for an adapter without a head."""
        return self._known(name).labels

    @held
    def task(self, name: str | None) -> Task:
        """The task of an adapter; of the checkpoint's own head for None."""
        return self._known(name).task

    def _known(self, name: str | None) -> _Loaded:
        """What is known of an adapter, or (None) of the checkpoint's own head; GraftaxError where there is no such."""
        if name is None and self.backbone.own_head is None:
            raise GraftaxError(f"{self.backbone.name} brings no head of its own: name an adapter.")
        name = _OWN if name is None else name
        with self._lock:  # so that both lines mean the same adapter of that name
            self.bank.slot(name)
            return self._loaded[name]

    def predict(
        self,
        rows: Sequence[Any],
        adapters: Sequence[str | Composition | None] | str | Composition | None = None,
        *,
        top_k: int | None = None,
    ) -> list[Prediction]:
        """The answers to rows, in their order.

        A tagging adapter reads a text that is longer than it has room for in pieces. Other adapters read the beginning of it: a
        note says how many rows were cut, and `Prediction.cut` says which.

        Args:
            rows: what the backbone reads of each: a text, or a pair of texts (a tuple); for a tagging adapter a text or a list
                of words; of a backbone of pictures a picture.
            adapters: the adapter or composition of each row, or one for all rows. For None the backbone answers alone, with the
                head that its checkpoint brings, if any (`Backbone.own_head`). Of a composition one adapter's head answers, by
                its task and with its labels: the last in a `Stack` that has a head, the first in an `Average` or a `Split`.
                A row with `Parallel` has several answers, one for each part, where others have one.
            top_k: how many of the likeliest labels are told with their probabilities; None for all.

        Raises:
            GraftaxError: a name that is not loaded, a row that is empty or cannot be read, a composition that cannot be
                computed, an adapter of a language model's task, which has no head.
        """
        checked(top_k, Some | None, "top_k")
        return [
            self._prediction(asked, answers, top_k)
            for asked, answers in self._each(rows, adapters, self._answers, self.max_length)
        ]

    def _prediction(self, asked: _Asked, answers: Sequence[Answer | None], top_k: int | None) -> Prediction:
        """The answer to a row, of the answers to its pieces; it says nothing where there are none."""
        known = [answer for answer in answers if answer is not None]
        if not known or asked.answering is None:
            return Prediction(asked.what, None, None)
        answer = known[0] if len(known) == 1 else self._loaded[asked.answering].task.whole(known)
        likeliest = _likeliest(answer.probabilities, top_k)
        return Prediction(asked.what, answer.label, answer.score, likeliest, asked.item.cut)

    def embed(
        self, rows: Sequence[Any], adapters: Sequence[str | Composition | None] | str | Composition | None = None
    ) -> Float[np.ndarray, "rows size"]:
        """A vector for each row, float32, in their order: what leaves the backbone's last layer, pooled over the tokens.

        Pooled is by the mean, or by what a directory of sentence-transformers says (`models/pooling.py`). An adapter changes
        what the layers make of a row; its head has no part in this.

        Args:
            rows: as of `predict`.
            adapters: as of `predict`. A row with `Parallel` has several vectors, one for each part.

        Raises:
            GraftaxError: as of `predict`; and for a pooling that is not supported, and an encoder-decoder.
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
        """For every row, or every part of one that names `Parallel`: the first of its pieces, and what each piece becomes.

        `compute` is called with at most `MOST_ROWS` pieces at a time, which are of like length. For instance, of a text in two
        pieces and a short text, which are three pieces p, q and r, the result is `[(p, [made of p, made of q]), (r, [made of
        r])]`. `max_length`: how many positions are read of rows without an adapter.
        """
        given = listed(rows)
        wanted = named(adapters, len(given))
        with self._lock:  # the bank must not change between the plan of a row and its answer
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
        """A note for each adapter that does not read all of some rows, which says how many."""
        longest = {one.what: len(one.item) for one in asked if one.item.cut}
        if longest:
            every, cut = Counter(one.what for one in asked), Counter(one.what for one in asked if one.item.cut)
            for what, length in longest.items():
                note_cut(what or self.backbone.name, cut[what], every[what], length)

    def _asked(self, row: Any, what: str | Composition | None, index: int, max_length: int) -> list[_Asked]:
        """A row as items for the adapter that answers it: in as many pieces as its task needs."""
        plan = plan_of(_OWN if what is None and self.backbone.own_head is not None else what)
        for stage in plan:
            for term in stage:
                refuse_tokens(what, plan, term.name, self.bank)
        with_head = [term.name for stage in reversed(plan) for term in stage if self._loaded[term.name].labels]
        answering = with_head[0] if with_head else None
        known = [self._loaded[term.name].max_length for stage in plan for term in stage]
        length = self._loaded[answering].max_length if answering else min(known, default=max_length)
        ask = self._loaded[answering].task.ask if answering else items_asked
        called = None if what is None else str(what)
        return [_Asked(called, plan, answering, item) for item in ask(self.processor, row, f"row {index + 1}", called, length)]

    def _laid(self, asked: list[_Asked]) -> tuple[Inputs, Any]:
        """The inputs of a batch with a batch row for each item, and the slots that these use.

        The number of batch rows is the next power of two, so that few programs are compiled; those beyond the items use slot 0.
        """
        items, count = [one.item for one in asked], 1 << (len(asked) - 1).bit_length()
        shape = self.processor.shape_to_ask(items, count)
        inputs = self.processor.lay(items, [(batch_row, 0) for batch_row in range(len(items))], shape)
        plans, answering = [one.plan for one in asked], [one.answering for one in asked]
        return inputs, laid(plans, answering, self.bank.slot, count, shape.length)

    def _answers(self, asked: list[_Asked]) -> list[Answer | None]:
        """The answer to each item, None where nothing answers it; one call of a compiled program."""
        self._refuse_headless(asked)
        inputs, slots = self._laid(asked)
        answering = [self._loaded[one.answering] if one.answering is not None else None for one in asked]
        state = self.bank.state
        if not any(one and one.task.output.by_position for one in answering):
            # without heads that read all positions the last layer computes the pooled ones alone
            state = {name: tree for name, tree in state.items() if name != TOKENS}
        logits = jax.device_get(self._forward(self.backbone.params, state, inputs, slots))
        answers: list[Answer | None] = []
        for batch_row, (one, adapter) in enumerate(zip(asked, answering, strict=True)):
            if adapter is None:
                answers.append(None)
                continue
            mine = (logits.tokens if adapter.task.output.by_position else logits.pooled)[batch_row]
            answers.append(adapter.task.answer(mine[..., : len(adapter.labels)], adapter.labels, one.item))
        return answers

    def _refuse_headless(self, asked: list[_Asked]) -> None:
        """An error where an adapter is asked for an answer whose task is a language model's, and needs no head."""
        for name in (term.name for one in asked if one.answering is None for stage in one.plan for term in stage):
            if not (task := self._loaded[name].task).output.headed:
                advice = "a Generator continues texts with it, embed makes vectors"
                raise GraftaxError(f"{name}: an adapter of task {task.name!r} has no head that could answer; {advice}.")

    def _vectors(self, asked: list[_Asked]) -> list[np.ndarray]:
        """The vector of each item; one call of a compiled program."""
        inputs, slots = self._laid(asked)
        state = {name: tree for name, tree in self.bank.state.items() if name not in HEADS}
        return list(np.asarray(self._embed(self.backbone.params, state, inputs, slots))[: len(asked)])


def _likeliest(probabilities: Mapping[str, float] | None, count: int | None) -> dict[str, float] | None:
    """The `count` likeliest labels with their probabilities, the likeliest first; all of them for None."""
    if probabilities is None:
        return None
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    return dict(ordered[:count])
