"""A job: one adapter to be trained, with its rows tokenized and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..adapters.fitting import refuse_unfit
from ..adapters.method import Method
from ..adapters.sites import Site
from ..data.batches import Shape, number_of_batches, shape_alone, shape_for
from ..data.examples import Columns, are_among, check_fraction, read_examples, split
from ..data.rows import Rows
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.chat import template_of
from ..models.tokens import Tokenizer, note_cut
from ..notes import note
from ..shown import Shown
from ..tasks.labelled import Task
from .calibration import Measure
from .optimizer import check_rates, rates
from .recipe import Recipe
from .step import Hyper, SlotState, hyper, start

MOST_STEPS = 2**24  # a schedule counts them in 32-bit floats, which hold no larger number exactly


@dataclass(frozen=True, eq=False, repr=False)
class Job(Shown):
    """One adapter to be trained."""

    name: str
    recipe: Recipe
    adapter: Adapter  # fresh
    train: Rows
    val: Rows | None
    shape: Shape  # of every batch

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "rows": len(self.train), "epochs": self.recipe.epochs, "adapter": str(self.adapter)}

    @property
    def steps_per_epoch(self) -> int:
        return number_of_batches(len(self.train), self.recipe.batch_size)

    @property
    def steps(self) -> int:
        return self.recipe.epochs * self.steps_per_epoch

    def hyper(self) -> Hyper:
        return hyper(self.recipe, self.steps, len(self.adapter.labels))

    def start(self, layout: Layout, sites: Sequence[Site]) -> SlotState:
        """Its state before the first step."""
        stacked = layout.stack(self.adapter, sites)
        speeds = rates(self.recipe, stacked, sites, self.steps_per_epoch)
        return start(stacked, speeds, self.hyper(), self.recipe.optimizer)

    def digest(self) -> str:
        """Changes with anything that changes the result: rows, their tokens, labels, recipe, method."""
        d = hashlib.sha256(repr((self.name, asdict(self.recipe), self.adapter.methods, self.adapter.labels)).encode())
        for method in self.adapter.methods:  # what its file holds and no config tells: a fusion's adapters, say
            for site, (_, fixed) in self.adapter.states[method.key].items():
                for name in method.buffers(site):
                    d.update(np.ascontiguousarray(fixed[name]).tobytes())
        for rows in (self.train, self.val) if self.val else (self.train,):
            d.update(repr((rows.examples.texts, rows.examples.pairs, rows.examples.labels)).encode())
            for row in rows.tokens:
                d.update(row.ids.tobytes() if row.target is None else row.ids.tobytes() + row.target.tobytes())
        return d.hexdigest()


def prepare(
    name: str,
    data: Any,
    val: Any,
    *,
    backbone: Backbone,
    task: Task,
    method: Method | Sequence[Method] | None,
    recipe: Recipe,
    columns: Columns,
    tokenizer: Tokenizer,
) -> Job:
    """Read and check the data of one adapter and make its fresh state. `method`: one, a union, or None: the head alone."""
    examples = read_examples(data, columns, task.name, called=name)
    names = task.label_names(examples)  # of all rows: a rare label may be held out whole
    if val is None and recipe.patience is not None:
        raise GraftaxError(f"{name}: patience needs validation rows, and there are none.")
    held = None
    if isinstance(val, float):
        check_fraction(val)
    elif val is not None:
        held = read_examples(val, columns, task.name, names, called=f"{name}, validation")
        if are_among(held, examples):
            learnt = "its validation rows are training rows, too"
            note(f"{name}: {learnt}: val_ figures say how well it knows these by heart, not how it answers others.")
    if task.headless and not backbone.generates:
        raise GraftaxError(f"task {task.name!r} needs a language model, and {backbone.name} is none.")
    if task.targets != backbone.family.encodes:
        other = "an encoder-decoder, for task 'seq2seq' alone" if backbone.family.encodes else "no encoder-decoder"
        raise GraftaxError(f"task {task.name!r}: {backbone.name} is {other}.")
    head = None if task.headless else backbone.head(len(names), tokens=task.tokens)
    body = () if method is None else (method,) if isinstance(method, Method) else tuple(method)
    methods = (*body, *([head] if head else []))
    if not methods:
        raise GraftaxError(f"task {task.name!r} has no head to train: it needs a method.")
    for trained in (adapter for m in body for adapter in getattr(m, "trained", ())):  # those that a fusion holds
        refuse_unfit(trained, backbone, name=f"{name}: one of the adapters to be fused")
    virtual = sum(m.virtual_tokens for m in methods)
    if recipe.max_length + virtual > backbone.config.max_tokens:
        most = backbone.config.max_tokens - virtual
        raise GraftaxError(f"max length {recipe.max_length} is more than the {most} tokens this backbone takes here.")
    tokenizer = tokenizer.with_template(recipe.chat_template)
    rows, val_rows = task.rows(examples, names, tokenizer, recipe.max_length, recipe.truncate), None
    note_cut(name, *rows.cut, recipe.max_length)
    if isinstance(val, float):
        left, held_out = split(rows.examples, val, recipe.seed)
        rows, val_rows = rows.take(left), rows.take(held_out)
    elif held is not None:
        val_rows = task.rows(held, names, tokenizer, recipe.max_length, recipe.truncate)
        note_cut(f"{name}, validation", *val_rows.cut, recipe.max_length)
    parts = [rows, val_rows] if val_rows else [rows]
    batch_size = _batch_size(parts, recipe, name)
    check_rates(recipe, backbone.sites_for(head))
    alone = task.targets or any(m.adds_tokens or m.whole_text for m in methods)
    shape = (_shape_alone if alone else _shape_shared)(parts, batch_size, recipe)
    adapter = Adapter.create(
        methods,
        backbone.sites_for(head),
        seed=recipe.seed,
        rows=Measure(backbone, task, tokenizer, recipe, head, rows, shape),
        task=task.name,
        labels=names,
        fingerprint=backbone.fingerprint,
        recipe={"method": "+".join(m.name for m in body) or "probe", **_start_of(body), **_settings_of(recipe)},
    )
    return Job(name, recipe, adapter, rows, val_rows, shape)


def _settings_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe, with the text of its template of chats: the one of a name may be another one day."""
    template = recipe.chat_template
    return asdict(recipe) | {"chat_template": None if template is None else template_of(template)}


def _start_of(methods: Sequence[Method]) -> dict[str, str]:
    """How LoRA started, which plain LoRA's file does not say."""
    found = [start for m in methods if (start := getattr(m, "start", "default")) != "default"]
    return {"start": found[0]} if found else {}


def _batch_size(parts: Sequence[Rows], recipe: Recipe, name: str) -> int:
    """The recipe's, or less: no room is needed for rows that there are not. `parts`: for training, and for validation."""
    most = max(map(len, parts))
    batch_size = min(recipe.batch_size, 1 << (most - 1).bit_length())
    if (steps := recipe.epochs * number_of_batches(len(parts[0]), batch_size)) > MOST_STEPS:
        raise GraftaxError(f"{name}: {recipe.epochs:,} epochs are {steps:,} steps; a run counts up to {MOST_STEPS:,}.")
    return batch_size


def _shape_alone(parts: Sequence[Rows], batch_size: int, recipe: Recipe) -> Shape:
    """Of batches in which every text has a row of its own."""
    longest = max(length for part in parts for length in part.lengths)
    return shape_alone(longest, batch_size, parts[0].together, max(part.longest_target for part in parts))


def _shape_shared(parts: Sequence[Rows], batch_size: int, recipe: Recipe) -> Shape:
    """Of batches in which texts share rows."""
    longest, rows = max(length for part in parts for length in part.wholes), parts[0]
    return shape_for(rows.lengths, longest, batch_size, recipe.seed, recipe.epochs, rows.together)
