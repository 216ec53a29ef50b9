"""Making explanations: every row is answered and explained, with the adapter and with its head alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...adapters.adapter import Adapter
from ...adapters.files import adapter_for
from ...adapters.fitting import length_for, names_for
from ...adapters.graft import State
from ...adapters.located import called
from ...counted import counted
from ...errors import GraftaxError
from ...models.backbone import Backbone
from ...tasks.task import some_of
from ...typed import Location, Name, Seed, Some, Within, held
from ..asked import listed
from .attribution import Way
from .curves import Curves, curves_of
from .explanation import About, Explanation, View
from .explanations import Explanations
from .fragments import NO_FRAGMENT, Kind, kind_of, laid, sums
from .question import Question
from .ways import way_for

_TOGETHER = 8  # rows in a batch, at most

Draws = Annotated[int, Within(0, below=1 << 10)]


class _Row(NamedTuple):
    """A row as it is asked about."""

    item: Any
    fragments: np.ndarray  # the number of the fragment that each of its positions belongs to
    name: str  # of a picture its file, where it has one
    shown: tuple[Any, ...]  # its picture, or texts and spans, as `Explanation` has them


@held
def explain(
    backbone: Backbone,
    adapter: Adapter | Location | None,
    rows: Sequence[Any],
    *,
    method: str | None = None,
    target: str | None = None,
    labels: Sequence[str] | None = None,
    truths: Sequence[str] | None = None,
    name: Name | None = None,
    any_backbone: bool = False,
    steps: Some = 32,
    draws: Draws = 10,
    seed: Seed = 0,
) -> Explanations:
    """What in rows made an adapter answer as it did, and what of that the adapter changed.

    `explain(...).write("DIR")` makes a page of it. What is compared with the adapter is its head alone on the frozen backbone,
    without its other methods.

    Args:
        backbone: frozen; not changed.
        adapter: one in memory, a directory, a name on a hub or a Hub id; None: the head that the backbone's checkpoint brings.
        rows: as of `Predictor.predict`: pictures, texts or pairs of texts.
        method: "integrated-gradients", "rollout" or "grad-cam"; None: of texts the first, of pictures on a Transformer of
            patches the second, of other pictures the third.
        target: the label that is explained; None: of each row the one that is answered, the likeliest.
        labels: names of the classes of an adapter that has none of its own.
        truths: each row's own label, to be shown.
        name: what the adapter is called on the page.
        any_backbone: take one that was made for another backbone; names and shapes must fit all the same.
        steps: points at which integrated gradients take the derivative.
        draws: of random orders, beside which deletion and insertion are seen; 0: these are not computed.
        seed: of these.

    Raises:
        GraftaxError: an adapter of another backbone, or whose task's answers are not explained (those of language models, and
            labels of words); a method that does not fit the backbone; a label that the adapter does not know; a row that
            cannot be read.
    """
    own, name = _adapter_asked(backbone, adapter, name, any_backbone)
    question = Question.about(backbone, own, name)
    names = names_for(own, labels, name)
    way, kind = way_for(backbone, method, steps), kind_of(backbone.processor)
    wanted = _label_asked(question, names, target, name)
    length = length_for(own, backbone, backbone.processor.max_length)
    asked = [_read(backbone, kind, row, f"row {index + 1}", name, length) for index, row in enumerate(listed(rows))]
    if not asked:
        raise GraftaxError("there is no row to be explained.")
    if truths is not None and len(truths) != len(asked):
        raise GraftaxError(f"{counted(len(asked), 'row')} but {counted(len(truths), 'truth')}.")
    state = jax.device_put(question.state_of(own))
    alone = question.head_alone(state)
    changes = state.keys() > alone.keys()
    made = list[Explanation]()
    for begin in range(0, len(asked), _TOGETHER):
        some = asked[begin : begin + _TOGETHER]
        batch = _Batch(question, way, kind, some, names)
        numbers = batch.likeliest(state) if wanted is None else np.full(len(some), wanted, np.int32)
        seen = batch.views(state, numbers)
        without = batch.views(alone, numbers) if changes else [None] * len(some)
        for row, number, view, bare in zip(some, numbers.tolist(), seen, without, strict=True):
            at = len(made)
            curves = _Batch(question, way, kind, [row], names).curves(state, number, view, draws, seed + at) if draws else None
            label = names[number] if question.task.explained == "probability" else ""
            truth = "" if truths is None else truths[at]
            made.append(Explanation(at + 1, row.name, label, truth, view, bare, row.fragments, curves, *row.shown))
    facts = (way.name, way.said, way.signed, question.task.explained, changes)
    return Explanations(About(backbone.name, name, own.task, *facts), tuple(made))


def _adapter_asked(
    backbone: Backbone, adapter: Adapter | Location | None, name: str | None, any_backbone: bool
) -> tuple[Adapter, str]:
    """The adapter, or the checkpoint's own head, and what it is called."""
    if adapter is None:
        if backbone.own_head is None:
            raise GraftaxError(f"{backbone.name} brings no head of its own: name an adapter.")
        return backbone.own_head, name or f"the head of {backbone.name}"
    name = name or ("the adapter" if isinstance(adapter, Adapter) else called(str(adapter)))
    return adapter_for(backbone, adapter, any_backbone=any_backbone, name=name), name


def _label_asked(question: Question, names: Sequence[str], target: str | None, name: str) -> int | None:
    """The number of the label that is explained in every row; None: each row's own."""
    if target is None:
        return None
    if question.task.explained != "probability":
        raise GraftaxError(f"{name}: it answers with a number, and has no label {target!r}; leave out the target.")
    if target not in names:
        raise GraftaxError(f"{name}: it has no label {target!r}; its labels are {some_of(names)}.")
    return list(names).index(target)


def _read(backbone: Backbone, kind: Kind, row: Any, where: str, adapter: str, length: int) -> _Row:
    processor = backbone.processor
    fields = processor.asked(row, where, adapter)
    (item,) = processor.items({field: [value] for field, value in fields.items()}, length)
    fragments = kind.fragments(fields, length)
    if fragments.max(initial=NO_FRAGMENT) == NO_FRAGMENT:
        raise GraftaxError(f"{where}: nothing of it is read, so nothing can be explained.")
    name, shown = kind.shown(fields, item, length)
    return _Row(item, fragments, name, shown)


class _Batch:
    """Some rows, laid in a batch."""

    def __init__(self, question: Question, way: Way, kind: Kind, rows: Sequence[_Row], names: Sequence[str]):
        self._question, self._way, self._kind, self._rows, self._names = question, way, kind, rows, names
        self._room = 1 << (len(rows) - 1).bit_length()  # a power of two, so that programs are few
        processor, items = question.backbone.processor, [row.item for row in rows]
        shape = processor.shape_to_ask(items, self._room)
        self._inputs = processor.lay(items, [(at, 0) for at in range(len(items))], shape)
        self._fragments = laid([row.fragments for row in rows], self._room, kind.positions(self._inputs))
        self._blank = kind.blank(self._inputs, self._fragments)

    def likeliest(self, state: State) -> np.ndarray:
        """The number of each row's likeliest label; of a regression that of its only one."""
        program = self._program("logits", self._question.logits)
        logits = np.asarray(program(self._question.backbone.params, state, self._inputs))
        return logits[: len(self._rows)].argmax(-1).astype(np.int32)

    def views(self, state: State, labels: np.ndarray) -> list[View]:
        """What is said of these labels of the rows, by their numbers, and why."""
        question, way = self._question, self._way

        def asked(params: Any, state: State, *batch: Any) -> Any:
            return question.logits(params, state, batch[0]), way.attribute(question, params, state, *batch)

        filled = np.zeros(self._room, np.int32)
        filled[: len(labels)] = labels
        program = self._program(way, asked)
        found = program(question.backbone.params, state, self._inputs, self._blank, filled)
        logits, attributed = jax.device_get(found)
        evidence = question.task.evidence(jnp.asarray(logits), jnp.asarray(filled))
        said = np.asarray(question.told(evidence)).tolist()
        views = []
        for at, row in enumerate(self._rows):
            values = attributed.values[at][tuple(map(slice, row.fragments.shape))]
            missed = None if attributed.difference is None else float(attributed.difference[at] - values.sum())
            answer = question.task.answer(logits[at], self._names, row.item).label
            views.append(View(told(answer), said[at], float(evidence[at]), values, missed))
        return views

    def curves(self, state: State, label: int, view: View, draws: int, seed: int) -> Curves:
        """Of the only row."""
        attributed, inputs = sums(view.values, self._rows[0].fragments), (self._inputs, self._blank)
        return curves_of(
            self._question, self._kind, state, *inputs, self._fragments[0], label, attributed, draws=draws, seed=seed
        )

    def _program(self, what: Any, function: Any) -> Any:
        return self._question.backbone.programs.setdefault((_Batch, what, self._question.key), jax.jit(function))


def told(answer: Any) -> str:
    """An answer, or a row's own label, as a text."""
    if isinstance(answer, float):
        return f"{answer:.6g}"
    return ", ".join(answer) or "(none)" if isinstance(answer, list | tuple) else str(answer)
