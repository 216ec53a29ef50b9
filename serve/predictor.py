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

How a call goes: each row becomes one item, or several where its task reads it in pieces (`_Asked`); all of them are a request
of the engine (`engine.py`), which reads items of like length in a batch, 64 at most, together with those that others ask for at
the same time; and what it makes of each item, logits or a vector, becomes an answer by the task of the adapter that answers it.
The answers to the pieces of a row become one (`Task.whole`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Annotated, Any, Generic, TypeVar

import numpy as np

from ..adapters.adapter import Adapter
from ..adapters.fitting import head_of, length_for, names_for
from ..adapters.methods.head import POOLED
from ..data.box_values import THRESHOLD
from ..data.prepared import Item, note_cut
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..shapes import Float
from ..shown import Shown
from ..tasks.task import Task, items_asked
from ..tasks.task_registry import task_named
from ..typed import Location, Name, Some, Within, checked, held
from .asked import What, listed, named, resolved
from .bank import Bank
from .composition import Composition, Parallel
from .engine import Engine
from .handles import Handle
from .read_request import Piece, Reading, Wanted
from .residents import Residents

_OWN = "the checkpoint's own head"  # what the head that the checkpoint brings is called among the adapters
_PAUSE = 0.001  # seconds until an adapter is asked for again that somebody else's request keeps from having a slot

T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """What is answered to one row.

    | task | `label` | `score` |
    |---|---|---|
    | "classify", "image-classify" | the name of the likeliest class | its probability |
    | "multilabel" | the names of all classes with a probability above a half | their probabilities |
    | "regress" | the number | None |
    | "image-segment" | a `Mask` of the picture's size, 255 where it was not seen | of each class in it the share of pixels |
    | "image-detect" | the objects that were found, the surest first (`Found`) | their probabilities |
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
class _Known:
    """What a predictor knows of an adapter."""

    task: Task
    labels: tuple[str, ...]  # none where the adapter has no head
    max_length: int  # positions of an item that it reads
    reads: str  # the site at which its head reads


@dataclass(frozen=True)
class _Asked:
    """An item to be answered: a whole row, or a piece of one."""

    what: str | None  # the adapter or composition that the row names, as it prints
    known: _Known | None  # of the adapter whose head answers; None where none has a head
    piece: Piece
    vector_size: int = 0  # numbers in its vector, where an adapter makes that (`Method.vector_size`)

    @property
    def item(self) -> Item:
        return self.piece.item


class Answers(Generic[T]):
    """Rows that are being answered; `T` is a row's answer. Made by `Predictor.begin` and `Predictor.begin_embedding`."""

    def __init__(self, rows: Sequence[Sequence[_Asked]], reading: Reading, answer: Callable[[Sequence[_Asked], list[Any]], T]):
        self.reading = reading
        self._rows, self._answer = rows, answer

    def result(self) -> list[T]:
        """The answer to each row, when `reading.future` is done; raises what that ended with."""
        each = iter(self.reading.future.result())
        return [self._answer(row, list(islice(each, len(row)))) for row in self._rows]

    def cancel(self) -> None:
        """Have nothing more answered."""
        self.reading.cancelled = True


class Predictor(Shown):
    """A frozen backbone, and a bank of adapters that answer with it. Calls may come from several threads."""

    @held
    def __init__(
        self,
        backbone: Backbone,
        *,
        max_length: Some | None = None,
        residents: Residents | None = None,
        engine: Engine | None = None,
    ):
        """A predictor without adapters, beside the head that the backbone's checkpoint may bring.

        Args:
            backbone: frozen; not changed.
            max_length: how many tokens of a text are read where no adapter says how many it reads. By default as many as the
                backbone takes; for the checkpoint's own head as many as its tokenizer's config says; for vectors as many as a
                directory of sentence-transformers says.
            residents: where its adapters are kept, which may look up names on a hub; None: it has adapters of its own.
            engine: one that has these residents, and that others ask too; None: it has an engine of its own.
        """
        self.backbone = backbone
        self.residents = Residents(backbone, apart=False) if residents is None else residents
        self.engine = Engine(backbone, self.residents) if engine is None else engine
        self.engine.refuse_others(backbone, self.residents)
        self.processor = backbone.new_processor()
        self._asked_length = max_length
        self.max_length = min(max_length or self.processor.max_length, self.processor.max_length)
        self._labels: dict[Handle, tuple[str, ...]] = {}  # that were given when an adapter was loaded
        self._processing = threading.Lock()  # the processor is for one thread at a time
        self._own: Handle | None = None
        if (own := backbone.own_head) is not None:
            # `max_length` goes before the head's own length
            self._own, _ = self.residents.handle(_OWN, own if max_length is None else replace(own, recipe={}))
            self.engine.place(self._own)

    @property
    def bank(self) -> Bank:
        """The adapters that are on the device."""
        return self.residents.bank

    @property
    def compilations(self) -> int:
        """How many programs were traced."""
        return self.engine.readings.compilations

    def facts(self) -> dict[str, Any]:
        return {
            "backbone": self.backbone.name,
            "adapters": list(self.residents.registered()),
            "max_length": self.max_length,
        }

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
        handle, read = self.residents.handle(name, adapter, any_backbone=any_backbone)
        names_for(read, labels, name)  # errors where it cannot answer,
        length_for(read, self.backbone, self.max_length)
        self.engine.place(handle)  # or be on the device
        if (before := self.residents.name(handle)) is not None:
            self._labels.pop(before, None)
        if labels is not None:
            self._labels[handle] = tuple(labels)

    @held
    def unload(self, name: str) -> None:
        """Forget an adapter."""
        self._labels.pop(self.residents.unregister(name), None)

    @held
    def labels(self, name: str | Handle | None) -> tuple[str, ...]:
        """The names of an adapter's classes; of the checkpoint's own head for None. Empty for an adapter without a head."""
        return self._named(name).labels

    @held
    def task(self, name: str | Handle | None) -> Task:
        """The task of an adapter; of the checkpoint's own head for None."""
        return self._named(name).task

    def _named(self, name: str | Handle | None) -> _Known:
        """What is known of an adapter, or (None) of the checkpoint's own head; GraftaxError where there is no such."""
        if name is None and self._own is None:
            raise GraftaxError(f"{self.backbone.name} brings no head of its own: name an adapter.")
        ((handle, adapter),) = resolved(self._own if name is None else name, self.residents)[1].items()
        return self._known(handle, adapter)

    def _known(self, handle: Handle, adapter: Adapter) -> _Known:
        names = names_for(adapter, self._labels.get(handle), handle.name)
        head, length = head_of(adapter), length_for(adapter, self.backbone, self.max_length)
        return _Known(task_named(adapter.task), names, length, head.site if head else POOLED)

    def predict(
        self,
        rows: Sequence[Any],
        adapters: Sequence[str | Composition | None] | str | Composition | None = None,
        *,
        top_k: int | None = None,
        threshold: float = THRESHOLD,
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
            threshold: of "image-detect", how sure an object must be to be told.

        Raises:
            GraftaxError: a name that is not loaded, a row that is empty or cannot be read, a composition that cannot be
                computed, an adapter of a language model's task, which has no head.
        """
        return self._answered(self._predictions(rows, adapters, top_k, threshold, alone=True))

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
        vectors = self._answered(self._vectors(rows, adapters, alone=True))
        size = self._vector_size
        return np.stack(vectors) if vectors else np.zeros((0, size), np.float32)

    def begin(
        self,
        rows: Sequence[Any],
        adapters: Sequence[What] | What = None,
        *,
        top_k: int | None = None,
        threshold: float = THRESHOLD,
    ) -> Answers[Prediction]:
        """Have rows answered in the rounds of the engine that somebody calls (`Engine.advance`); for servers.

        Arguments and errors are those of `predict`; an adapter may be a handle too.
        """
        return self._begun(self._predictions(rows, adapters, top_k, threshold, alone=False))

    def begin_embedding(self, rows: Sequence[Any], adapters: Sequence[What] | What = None) -> Answers[np.ndarray]:
        """As `begin`, of what `embed` answers: an array for each row, `[size]`, float32."""
        return self._begun(self._vectors(rows, adapters, alone=False))

    @property
    def _vector_size(self) -> int:
        """Numbers in a row's vector."""
        config = self.backbone.config
        return config.vector_size or self.processor.vector_size(config.features)

    def _predictions(self, rows: Any, adapters: Any, top_k: Any, threshold: Any, *, alone: bool) -> Answers[Prediction]:
        checked(top_k, Some | None, "top_k")
        threshold = checked(threshold, Annotated[float, Within(0.0, most=1.0)], "threshold")
        asked = self._asked(rows, adapters, self.max_length)
        for row in asked:
            self._refuse_headless(row)
        reading = Reading([one.piece for row in asked for one in row], Wanted.LOGITS, alone=alone)
        return Answers(asked, reading, partial(self._prediction, top_k, threshold))

    def _vectors(self, rows: Any, adapters: Any, *, alone: bool) -> Answers[np.ndarray]:
        if self.backbone.family.encodes:
            raise GraftaxError(f"{self.backbone.name} is an encoder-decoder, which has no layer that all of a text passes.")
        _ = self._vector_size  # an error where the pooling is not supported
        longest = self._asked_length or self.processor.vector_length or self.max_length
        asked = self._asked(rows, adapters, min(longest, self.max_length))
        if self.backbone.config.joined:
            return Answers(asked, self._reading_vectors(asked, alone), lambda row, vectors: vectors[0])
        for one in (one for row in asked for one in row):
            if not one.vector_size or len(one.piece.handles) > 1:
                who = "no adapter" if one.what is None else one.what
                raise GraftaxError(
                    f"{self.backbone.name} are joined by one adapter of task contrastive, and a row names {who}."
                )
        # others in the bank may have longer vectors, to whose length these are filled up
        return Answers(asked, self._reading_vectors(asked, alone), lambda row, vectors: vectors[0][: row[0].vector_size])

    def _reading_vectors(self, asked: Sequence[Sequence[_Asked]], alone: bool) -> Reading:
        return Reading([one.piece for row in asked for one in row], Wanted.VECTORS, alone=alone)

    def _begun(self, answers: Answers[T]) -> Answers[T]:
        self.engine.read(answers.reading)
        return answers

    def _answered(self, answers: Answers[T]) -> list[T]:
        """The answers, for which the engine's rounds are called here."""
        self._begun(answers)
        try:
            while not answers.reading.over:
                if not self.engine.advance() and not answers.reading.over:
                    time.sleep(_PAUSE)
            return answers.result()
        finally:
            answers.cancel()

    def _prediction(
        self, top_k: int | None, threshold: float, row: Sequence[_Asked], logits: Sequence[np.ndarray | None]
    ) -> Prediction:
        """The answer to a row, of the logits of its pieces; it says nothing where there are none."""
        first, known = row[0], row[0].known
        if known is None:
            return Prediction(first.what, None, None)
        pairs = zip(row, logits, strict=True)
        own = [
            known.task.answer(known.task.output.own(of, len(known.labels)), known.labels, asked.item)
            for asked, of in pairs
            if of is not None
        ]
        if not own:
            return Prediction(first.what, None, None)
        answer = known.task.shown(own[0] if len(own) == 1 else known.task.whole(own), threshold)
        return Prediction(first.what, answer.label, answer.score, _likeliest(answer.probabilities, top_k), first.item.cut)

    def _asked(self, rows: Any, adapters: Any, max_length: int) -> list[list[_Asked]]:
        """The pieces of every row, or every part of one that names `Parallel`.

        `max_length`: how many positions are read of rows without an adapter.
        """
        given = listed(rows)
        wanted = named(adapters, len(given))
        ways: dict[What, Callable[[Any, str], list[_Asked]]] = {}
        asked = []
        for index, (row, what) in enumerate(zip(given, wanted, strict=True)):
            for part in what.parts if isinstance(what, Parallel) else (what,):
                if part not in ways:
                    ways[part] = self._way(part, max_length)
                asked.append(ways[part](row, f"row {index + 1}"))
        self._note_cut([piece for row in asked for piece in row])
        return asked

    def _way(self, what: What, max_length: int) -> Callable[[Any, str], list[_Asked]]:
        """How a row becomes items for an adapter or composition: in as many pieces as its task needs."""
        called, asks_own = None if what is None else str(what), what is None and self._own is not None
        plan, adapters = resolved(self._own if asks_own else what, self.residents)
        each = {handle: self._known(handle, adapter) for handle, adapter in adapters.items()}
        with_head = [term.name for stage in reversed(plan) for term in stage if each[term.name].labels]
        answering = with_head[0] if with_head else None
        known = each[answering] if answering else None
        length = known.max_length if known else min((one.max_length for one in each.values()), default=max_length)
        ask = known.task.ask if known else items_asked
        reads = known.reads if known else POOLED
        size = max((method.vector_size for adapter in adapters.values() for method in adapter.methods), default=0)

        def pieces(row: Any, where: str) -> list[_Asked]:
            with self._processing:
                items = ask(self.processor, row, where, called, length)
            return [_Asked(called, known, Piece(item, plan, answering, reads), size) for item in items]

        return pieces

    def _refuse_headless(self, row: Sequence[_Asked]) -> None:
        """An error where an adapter is asked for an answer whose task is a language model's, and needs no head."""
        for handle in (handle for asked in row if asked.known is None for handle in asked.piece.handles):
            task = self.task(handle)
            if not task.output.headed:
                advice = (
                    "a Generator continues texts with it, embed makes vectors"
                    if self.backbone.generates
                    else "embed makes vectors"
                )
                raise GraftaxError(f"{handle}: an adapter of task {task.name!r} has no head that could answer; {advice}.")

    def _note_cut(self, asked: Sequence[_Asked]) -> None:
        """A note for each adapter that does not read all of some rows, which says how many."""
        longest = {one.what: len(one.item) for one in asked if one.item.cut}
        if longest:
            every, cut = Counter(one.what for one in asked), Counter(one.what for one in asked if one.item.cut)
            for what, length in longest.items():
                note_cut(what or self.backbone.name, cut[what], every[what], length)


def _likeliest(probabilities: Mapping[str, float] | None, count: int | None) -> dict[str, float] | None:
    """The `count` likeliest labels with their probabilities, the likeliest first; all of them for None."""
    if probabilities is None:
        return None
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    return dict(ordered[:count])
