"""The two programs of a training step (`train/step.py`), for a pack of any size, without weights and without data.

They are `Programs.gradient` and `Programs.update`, the functions that `train_many` runs; what they are given is as a `Pack`
lays it, with shapes in place of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from ...adapters.adapter import Adapter, Layout
from ...adapters.method import Method
from ...data.batches import Shape
from ...models.backbone import Backbone
from ...models.inputs import ImageInputs, TextInputs, Texts
from ...tasks.task_registry import task_named
from ...train.frozen_weights import shared_by_all, whole_on_each
from ...train.optimizer import rates
from ...train.recipe import Recipe
from ...train.step import Batch, Learner, Programs, hyper, start
from .asked_program import AskedProgram, several
from .buffers import Attention
from .described_devices import Device
from .several_devices import ProgramsElsewhere, shape_there

_STEPS = 100  # of a run, which is data


@dataclass(frozen=True)
class StepPrograms:
    """A step of so many adapters of one kind on one backbone."""

    backbone: Backbone
    task: str
    methods: Sequence[Method]  # without the head, which the task has
    slots: int
    inputs: Any  # shapes of those of one learner's batch
    labels: Any  # likewise
    items: int  # in the batch of a learner
    attention: Attention
    classes: int = 0

    @cached_property
    def learner(self) -> Learner:
        """One adapter before its first step."""
        head = task_named(self.task).output.head(self.backbone, self.classes)
        methods = (*self.methods, *(() if head is None else (head,)))
        adapter = Adapter.create(methods, self.backbone.sites, task=self.task)
        layout, recipe = Layout.of([adapter], self.backbone.sites, bucket=True), Recipe()
        stacked = layout.stack(adapter, self.backbone.sites)
        speeds = rates(recipe, stacked, self.backbone.sites, _STEPS)
        return start(stacked, speeds, hyper(recipe, _STEPS, self.classes), recipe.optimizer)

    @property
    def _programs(self) -> Programs:
        return Programs(self.backbone, task_named(self.task), self.slots)

    @property
    def _pack(self) -> Learner:
        return several(self.learner, self.slots)

    @property
    def _batches(self) -> Batch:
        weight, live = np.zeros(self.items, np.float32), np.bool_(True)
        return several(Batch(self.inputs, self.labels, weight, live), self.slots)

    @property
    def gradient(self) -> AskedProgram:
        """Losses and gradients of all slots."""
        pack = jax.tree.map(partial(shape_there, sharding=self.backbone.everywhere), self._pack)
        args = (self.backbone.params, self.backbone.unrolled, pack, self._batches)
        return AskedProgram(self._programs.gradient, args, attention=self.attention)

    def gradient_on(self, device: Device, devices: int, fsdp: bool) -> AskedProgram:
        """The same on several devices of a kind, which share the slots and, with `fsdp`, the weights."""
        known: dict[str, Any] = {"devices": devices, "fsdp": fsdp, "kind": device}
        programs = ProgramsElsewhere(self.backbone, task_named(self.task), self.slots, **known)
        spread, put = programs.spread, shared_by_all if fsdp else whole_on_each
        args = (*put(self.backbone, spread), spread.placed(self._pack), spread.placed(self._batches))
        return AskedProgram(programs.gradient, args, attention=self.attention)

    @property
    def update(self) -> AskedProgram:
        """The optimizer's step of all slots; the pack is donated."""
        losses, live = np.zeros(self.slots, np.float32), np.zeros(self.slots, bool)
        return AskedProgram(self._programs.update, (self._pack, losses, self._pack.trainable, live))


def texts_in_rows(shape: Shape) -> TextInputs:
    """The shapes of a batch of texts, several of which lie in one batch row."""
    size = jax.ShapeDtypeStruct((shape.rows, shape.length), np.int32)
    mask = jax.ShapeDtypeStruct(size.shape, np.bool_)
    return TextInputs(size, mask, size, Texts(size, jax.ShapeDtypeStruct((shape.items,), np.int32)))


def attention_of(backbone: Backbone, rows: int, queries: int, keys: int) -> Attention:
    """Attention in a backbone's layers, over so many queries and keys of so many batch rows."""
    config = backbone.config
    return Attention(rows, queries, keys, config.num_heads, config.kv_heads if backbone.generates else config.num_heads)


def language_step(backbone: Backbone, methods: Sequence[Method], slots: int, shape: Shape) -> StepPrograms:
    """Of language modelling: every slot has a batch of such a shape."""
    inputs, attention = texts_in_rows(shape), attention_of(backbone, shape.rows, shape.length, shape.length)
    return StepPrograms(backbone, "lm", methods, slots, inputs, inputs.ids, shape.items, attention)


def text_step(backbone: Backbone, methods: Sequence[Method], slots: int, shape: Shape, classes: int) -> StepPrograms:
    """Of texts that are classified."""
    inputs, attention = texts_in_rows(shape), attention_of(backbone, shape.rows, shape.length, shape.length)
    labels = jax.ShapeDtypeStruct((shape.items,), np.int32)
    return StepPrograms(backbone, "classify", methods, slots, inputs, labels, shape.items, attention, classes)


def picture_step(backbone: Backbone, methods: Sequence[Method], slots: int, items: int, classes: int) -> StepPrograms:
    """Of pictures that are classified."""
    size, channels = backbone.config.image_size, backbone.config.num_channels
    inputs = ImageInputs(jax.ShapeDtypeStruct((items, *size, channels), np.float32))
    labels = jax.ShapeDtypeStruct((items,), np.int32)
    tokens = jax.eval_shape(lambda *args: backbone.encode(args[0], {}, args[1]).hidden, backbone.params, inputs).shape[1]
    attention = attention_of(backbone, items, tokens, tokens)
    return StepPrograms(backbone, "image-classify", methods, slots, inputs, labels, items, attention, classes)
