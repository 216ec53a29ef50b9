"""What `train_many` is given for one adapter, read, checked and made a job.

The data become examples (`tasks/read_examples.py`), and the backbone's processor makes items of these. From the lengths of the
items follows the shape of all batches. Then the adapter is drawn: at random, or from the data, where its method's start asks
for that (`calibration.py`). Whatever does not fit is refused here, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ..adapters.adapter import Adapter
from ..adapters.fitting import head_of, names_for, refuse_task, refuse_unfit
from ..adapters.method import Method
from ..adapters.methods.fusion import Fuse
from ..adapters.methods.head import Head
from ..data.batches import number_of_batches
from ..data.columns import Columns
from ..data.examples import Examples, are_among, check_fraction, split
from ..data.prepared import Prepared, note_cut
from ..data.splits import parts_to_train
from ..errors import GraftaxError
from ..models.augment import Augment
from ..models.backbone import Backbone
from ..models.chat import template_of
from ..models.processor import Processor
from ..notes import note
from ..tasks.outputs import OfItem
from ..tasks.read_examples import read_examples
from ..tasks.task import Task
from .calibration import Calibration
from .job import Job
from .optimizer import check_rates
from .recipe import OWN, Recipe
from .weak_data import note_weak, readable

MOST_STEPS = 2**24  # a schedule counts them in 32-bit floats, which hold no larger number exactly


def prepare(
    name: str,
    data: Any,
    val: Any,
    *,
    backbone: Backbone,
    task: Task,
    method: Method | Adapter | Sequence[Method | Adapter] | None,
    recipe: Recipe,
    columns: Columns,
) -> Job:
    """The job of one adapter: its data read and checked, and its leaves before the first step.

    Args:
        name: of the adapter; errors name it.
        data, val: as of `train_many`, for this adapter: rows; and a share of them to hold out, rows of their own, or None.
        method: one method, several that form one adapter together, or None, which trains the head alone. One of them may be an
            adapter, from which training goes on.

    Raises:
        GraftaxError: anything that does not fit.
    """
    processor = backbone.processor.for_training(recipe)
    data, val = parts_to_train(data, val)
    given = () if method is None else (method,) if isinstance(method, Method | Adapter) else tuple(method)
    body = tuple(one for one in given if isinstance(one, Method))
    before = next((one for one in given if isinstance(one, Adapter)), None)
    if recipe.head == OWN:
        before = _own_head(name, before, backbone)
    known = () if before is None else _labels_of(name, before, task, backbone)
    examples = read_examples(data, columns, task, processor, known, called=name)
    names = known or task.label_names(examples)  # of all examples: a rare label may be held out whole
    held = _held_out(name, val, examples, names, task=task, recipe=recipe, columns=columns, processor=processor)
    kept = before.methods if before else ()
    _refuse_head(name, task, recipe)
    head = head_of(before) if before else _head(name, body, task, backbone, names, recipe)  # None for a language model's task
    body = tuple(one for one in body if not isinstance(one, Head))
    beside = [m for m in task.output.beside(backbone) if m.name not in {own.name for own in (*body, *kept)}]
    fresh = (*body, *([head] if head and not before else []), *beside)
    methods = (*fresh, *kept)
    _refuse_methods(name, task, backbone, body, methods)
    _refuse_augmentation(name, task, processor, recipe)
    processor.refuse_length(recipe.max_length, sum(m.virtual_tokens for m in methods))
    train, held_out = _prepared(name, val, examples, held, names, task=task, recipe=recipe, processor=processor)
    parts = [train, held_out] if held_out else [train]
    for part in parts:
        task.refuse_small(head, part, name)
    batch_size = _batch_size(parts, recipe, name)
    check_rates(recipe, backbone.sites_for(head))
    alone = any(m.adds_tokens or m.whole_text for m in methods) or any(part.longest_target for part in parts)
    shape = processor.shape_to_train(parts, batch_size, recipe.seed, recipe.epochs, alone=alone)
    shape = task.output.widened(shape, parts)
    adapter = Adapter.create(
        fresh,
        backbone.sites_for(head),
        seed=recipe.seed,
        before=before,
        training=Calibration(backbone, task, processor, recipe, head, train, shape),
        task=task.name,
        labels=names,
        fingerprint=backbone.fingerprint,
        data=train.examples.known(),
        parents=tuple(one.source for one in (*_fused(body), *([before] if before else [])) if one.source),
        recipe={
            "method": "+".join(m.name for m in methods if m not in (head, *beside)) or _of_a_head(head),
            **_start_of(body),
            **_settings_of(recipe),
            **({"text": columns["text"]} if columns.names_others("text") else {}),
        },
    )
    return Job(name, recipe, adapter, train, held_out, shape, goes_on=before is not None)


def _own_head(name: str, before: Adapter | None, backbone: Backbone) -> Adapter:
    """The head that the backbone's checkpoint brings, as the adapter from which training goes on."""
    if before is not None:
        raise GraftaxError(
            f"{name}: head {OWN!r} is the checkpoint's, and an adapter is trained on, with its own: leave out one."
        )
    if backbone.own_head is None:
        raise GraftaxError(f"{name}: head {OWN!r} is one that the checkpoint brings, and {backbone.name} brings none.")
    return backbone.own_head


def _labels_of(name: str, before: Adapter, task: Task, backbone: Backbone) -> tuple[str, ...]:
    """The names of the classes of an adapter from which training goes on; an error where it is for something else."""
    called = "the checkpoint's head" if before is backbone.own_head else "the adapter that is trained on"
    refuse_unfit(before, backbone, name=f"{name}: {called}")
    if before.task != task.name:
        raise GraftaxError(f"{name}: {called} is of task {before.task!r}, and this task is {task.name!r}.")
    head = head_of(before)
    if task.output.headed and head is None:
        raise GraftaxError(f"{name}: {called} has no head.")
    return names_for(before, None, name) if head else ()


def _head(name: str, body: Sequence[Method], task: Task, backbone: Backbone, names: tuple[str, ...], recipe: Recipe) -> Any:
    """The head that is trained: one that is given among the methods, at the site that it names, or the backbone's own."""
    own = next((one for one in body if isinstance(one, Head)), None)
    if own is None:
        return task.output.head(backbone, len(names), recipe.head)
    head = replace(own, labels=len(names))
    refuse_task(task.name, names, head, name)
    if not head.select(backbone.sites):
        there = ", ".join(site.name for site in backbone.sites if site.kind == "head")
        raise GraftaxError(f"{name}: {backbone.name} has nothing for a head at {head.site}; there are {there}.")
    return head


def _fused(body: Sequence[Method]) -> tuple[Adapter, ...]:
    """The adapters over which a fusion among these methods is trained."""
    return tuple(one for method in body if isinstance(method, Fuse) for one in method.trained)


def _of_a_head(head: Head | None) -> str:
    """What an adapter of a head alone is called: a plain one is a probe."""
    return "probe" if head is None or type(head) is Head else head.name


def _held_out(
    name: str,
    val: Any,
    examples: Examples,
    names: Sequence[str],
    *,
    task: Task,
    recipe: Recipe,
    columns: Columns,
    processor: Processor,
) -> Examples | None:
    """The validation examples where `val` is data of its own.

    None where there is no validation, and where `val` is a share of the training examples, which is split off later.
    """
    if val is None and recipe.patience is not None:
        raise GraftaxError(f"{name}: patience needs validation rows, and there are none.")
    if isinstance(val, float):
        check_fraction(val)
    if val is None or isinstance(val, float):
        return None
    held = read_examples(val, columns, task, processor, names, called=f"{name}, validation")
    if are_among(held, examples):
        learnt = "its validation rows are training rows, too"
        note(f"{name}: {learnt}: val_ figures say how well it knows these by heart, not how it answers others.")
    return held


def _refuse_methods(name: str, task: Task, backbone: Backbone, body: Sequence[Method], methods: Sequence[Method]) -> None:
    """An error where there is nothing to train, or where a fusion holds an adapter of another backbone."""
    if not methods:
        raise GraftaxError(f"task {task.name!r} has no head to train: it needs a method.")
    for trained in (adapter for m in body for adapter in m.trained):
        refuse_unfit(trained, backbone, name=f"{name}: one of the adapters to be fused")


def _refuse_head(name: str, task: Task, recipe: Recipe) -> None:
    """An error where the recipe asks for a kind of head that the task has not."""
    if recipe.head not in (*task.output.heads, OWN):
        raise GraftaxError(f"{name}: head {recipe.head!r} is of image-segment and image-detect, and the task is {task.name!r}.")


def _refuse_augmentation(name: str, task: Task, processor: Processor, recipe: Recipe) -> None:
    """An error where items are to be augmented that are not, or whose labels would have to be changed with them."""
    if recipe.augment is None:
        return
    if not processor.augments:
        raise GraftaxError(f"{name}: augment is for pictures, and this backbone reads input of kind {processor.kind!r}.")
    if task.output.moves:
        what, policy = task.output.moves, Augment.of(recipe.augment)
        if policy.mixes:
            raise GraftaxError(f"{name}: augment {recipe.augment!r} makes one picture of two, and {what} of one.")
        if policy.randaugment is not None and not task.output.of_pixels:
            raise GraftaxError(f"{name}: augment {recipe.augment!r} turns and shears pictures, and boxes stay upright.")
    elif not isinstance(task.output, OfItem):
        raise GraftaxError(f"{name}: augment moves pixels, and task {task.name!r} has labels of where they are.")


def _prepared(
    name: str,
    val: Any,
    examples: Examples,
    held: Examples | None,
    names: Sequence[str],
    *,
    task: Task,
    recipe: Recipe,
    processor: Processor,
) -> tuple[Prepared, Prepared | None]:
    """The examples that are trained on, and those held out for validation (or None), as items with their labels."""

    def items(part: Examples) -> Prepared:
        return task.prepare(part, names, processor, recipe.max_length, recipe.truncate)

    train, validation = readable(name, examples, items), None
    note_cut(name, *train.cut, recipe.max_length)
    if isinstance(val, float):
        left, held_out = split(train.examples, val, recipe.seed)
        train, validation = train.take(left), train.take(held_out)
    elif held is not None:
        validation = readable(f"{name}, validation", held, items)
        note_cut(f"{name}, validation", *validation.cut, recipe.max_length)
    note_weak(name, processor, train, validation)
    return train, validation


def _settings_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe's fields, with the text of the chat template in place of its name.

    A later version of graftax may have another template of that name, and the adapter must be asked with the one it learnt.
    """
    template = recipe.chat_template
    return asdict(recipe) | {"chat_template": None if template is None else template_of(template)}


def _start_of(methods: Sequence[Method]) -> dict[str, str]:
    """How the first method with a start of its own started, which its file would not say: it is saved as plain LoRA."""
    found = [method.start for method in methods if method.start != "default"]
    return {"start": found[0]} if found else {}


def _batch_size(parts: Sequence[Prepared], recipe: Recipe, name: str) -> int:
    """The recipe's batch size, or a smaller power of two that holds all examples where there are fewer.

    `parts`: the examples for training, and those for validation where there are some.
    """
    most = max(map(len, parts))
    batch_size = min(recipe.batch_size, 1 << (most - 1).bit_length())
    if (steps := recipe.epochs * number_of_batches(len(parts[0]), batch_size)) > MOST_STEPS:
        raise GraftaxError(f"{name}: {recipe.epochs:,} epochs are {steps:,} steps; a run counts up to {MOST_STEPS:,}.")
    return batch_size
