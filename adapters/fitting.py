"""Whether an adapter and a backbone belong together: the one check, made wherever the two meet.

The code that stacks and runs adapters would not notice one of another backbone: leaves that no site asks for are left lying,
and sites that have no leaves answer as the base does. So whatever takes an adapter (a bank, merging, saving, measuring) first
asks here, and the same is asked of an adapter that was made in memory as of one that was read from a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..counted import counted
from ..errors import GraftaxError
from ..typed import Some, checked, shown
from .adapter import Adapter
from .method import Leaves, Method
from .methods.head import MAP, MAPS, OBJECTS, OBJECTS_OF_MAPS, TOKENS, Head
from .sites import Site
from .task_words import words_for

if TYPE_CHECKING:
    from ..models.backbone import Backbone

#: what a head reads there (`TaskWords.head`), else an item
_READ_BY = {TOKENS: "position", MAP: "map", MAPS: "map", OBJECTS: "objects", OBJECTS_OF_MAPS: "objects"}


def refuse_unfit(adapter: Adapter, backbone: Backbone, *, any_backbone: bool = False, name: str = "the adapter") -> None:
    """An error, which begins with `name`, unless the adapter is sound and this backbone's.

    Its fingerprint must be the backbone's, unless it has none or `any_backbone` says not to compare; every site where it holds
    something must be one of the backbone's; its leaves must have the shapes that its methods' settings ask for, and be finite;
    its task must be one that its head, or none, can answer.
    """
    refuse_unsound(adapter, name)
    if not any_backbone and adapter.fingerprint not in (None, backbone.fingerprint):
        raise GraftaxError(
            f"{name}: made for another backbone (fingerprint {str(adapter.fingerprint)[:12]}; "
            f"this one is {backbone.name}, {backbone.fingerprint[:12]})."
        )
    adapter.refuse_other_sites(backbone.sites)


def refuse_rank(adapter: Adapter, most: int | None, name: str) -> None:
    """An error, which begins with `name`, where an adapter is of a greater rank somewhere (`Method.rank`); heads have none."""
    ranks = [
        (method.rank(site), method.name, site.path or site.name)
        for method in adapter.methods
        for site in adapter.states[method.key]
        if site.kind not in ("head", "text")
    ]
    rank, what, where = max(ranks, default=(0, "", ""))
    if most is not None and rank > most:
        raise GraftaxError(f"{name}: {what} at {where}: rank {rank} is greater than max_lora_rank {most}.")


def refuse_unsound(adapter: Adapter, name: str = "the adapter") -> None:
    """An error where an adapter is in itself not what it should be, whatever the backbone."""
    expect_adapter(adapter, name)
    refuse_task(adapter.task, adapter.labels, head_of(adapter), name)
    keys = [method.key for method in adapter.methods]
    there = [*map(str, adapter.states)]
    if sorted(keys) != sorted(there):
        raise GraftaxError(f"{name}: states of {', '.join(there) or 'nothing'} for methods {', '.join(keys)}.")
    problems = [problem for method in adapter.methods for problem in _problems(method, adapter)]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise GraftaxError(f"{name}: {'; '.join(problems[:3])}{more}.")


def expect_adapter(value: Any, name: str) -> None:
    """An error where something else stands in an adapter's place."""
    if not isinstance(value, Adapter):
        raise GraftaxError(f"{name}: expected an adapter, got {shown(value)}.")


def length_for(adapter: Adapter, backbone: Backbone, otherwise: int) -> int:
    """Tokens of a text at most: as many as the adapter was trained on, or else `otherwise`, where the backbone has room."""
    virtual = sum(method.virtual_tokens for method in adapter.methods)
    room = backbone.processor.room(virtual)
    if room < 1:
        raise GraftaxError(f"{virtual} virtual tokens leave no room: {backbone.name} takes {backbone.processor.max_length}.")
    return min(checked(adapter.recipe.get("max_length", otherwise), Some, "recipe: max_length"), room)


def head_of(adapter: Adapter) -> Head | None:
    return next((method for method in adapter.methods if isinstance(method, Head)), None)


def names_for(adapter: Adapter, given: Sequence[str] | None, name: str) -> tuple[str, ...]:
    """Names of the classes of an adapter's head, in their order: its own, else those `given`, else LABEL_0 and so on.

    Raises GraftaxError, which begins with `name`: not one for each class; others than the adapter's own.
    """
    head = head_of(adapter)
    count = head.labels if head else 0
    usual = tuple(f"LABEL_{i}" for i in range(count))
    own = adapter.labels or usual
    names = own if given is None else checked(given, tuple[str, ...], f"{name}: labels")
    refuse_labels(names, name)
    if len(names) != count:
        raise GraftaxError(f"{name}: {counted(len(names), 'label name')} for a head of {counted(count, 'class', 'classes')}.")
    if own not in (names, usual):
        raise GraftaxError(f"{name}: it names its classes itself ({', '.join(own)}); labels are for an adapter that does not.")
    return names


def refuse_task(task: str, labels: tuple[str, ...], head: Head | None, name: str) -> None:
    """An error where a head, or none, cannot answer a task, or labels are not one for each of its classes."""
    refuse_labels(labels, name)
    try:
        words = words_for(task)
    except GraftaxError as error:
        raise GraftaxError(f"{name}: {error}") from None
    if head is None:
        if labels:
            raise GraftaxError(f"{name}: {counted(len(labels), 'label')}, and no head that would answer with them.")
        return
    if words.head is None:
        raise GraftaxError(f"{name}: task {task!r} has no head, and this adapter has one.")
    if words.head != _READ_BY.get(head.site, "item"):
        answers = "tags are of tokens, masks of feature maps, boxes of objects in them, other answers of whole items"
        raise GraftaxError(f"{name}: task {task!r} for a head at {head.site}; {answers}.")
    if words.outputs not in (None, head.labels):
        count = "one number" if words.outputs == 1 else f"{words.outputs} numbers"
        raise GraftaxError(f"{name}: task {task!r} has {count}, and its head {head.labels}.")
    if len(labels) not in (0, head.labels):
        classes = counted(head.labels, "class", "classes")
        raise GraftaxError(f"{name}: {counted(len(labels), 'label')} for a head of {classes}.")


def refuse_labels(labels: Any, name: str) -> None:
    """An error where the names of classes are not texts that tell them apart."""
    if not isinstance(labels, tuple) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise GraftaxError(f"{name}: labels must be a tuple of texts, none of them empty, got {shown(labels)}.")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise GraftaxError(f"{name}: the label {twice!r} is there twice.")


def _problems(method: Method, adapter: Adapter) -> Iterator[str]:
    """What is wrong with a method's leaves, in words."""
    states = adapter.states[method.key]
    if not isinstance(states, dict) or not states:
        yield f"{method.name} holds {shown(states)}, no leaves by site"
        return
    for site, pair in states.items():
        if not _is_pair(site, pair):
            yield f"{method.name} holds {shown(pair)} at {shown(site)}, no trainable and fixed leaves at a site"
            continue
        trainable, fixed = pair
        where, like = f"{method.name} at {site.path or site.name}", _like(method, site)
        for leaf, array in (trainable | fixed).items():
            if leaf not in like:
                yield f"{where} has no leaf {leaf}"
            elif np.shape(array) != like[leaf].shape:
                yield f"{where}: {leaf} has shape {np.shape(array)}, its settings say {like[leaf].shape}"
            elif not is_finite(array):
                yield f"{where}: {leaf} is not finite"
        held = trainable.keys() | fixed.keys()
        if missing := {*method.trainable(site)} - held and method.held(site).keys() - held:
            yield f"{where} lacks {', '.join(sorted(missing))}"


def _is_pair(site: Any, pair: Any) -> bool:
    """Whether it is what an adapter holds at a site: trainable and fixed leaves by name."""
    return isinstance(site, Site) and isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(one, dict) for one in pair)


def _like(method: Method, site: Site) -> Leaves:
    trainable, fixed = method.identity(site, method.size(site))
    return trainable | fixed


def is_finite(array: Any) -> bool:
    """Whether an array holds numbers, none of them NaN or infinite, in float32."""
    array = np.asarray(array)
    if array.dtype != np.float32:  # which most are
        if not jax.dtypes.issubdtype(array.dtype, np.floating):
            return array.dtype.kind in "biu"
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    return bool(np.isfinite(array).all())
