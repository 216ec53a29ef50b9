"""Whether adapters can be trained on a device, before it is rented: the memory of a training step, by the compiler's account.

    in all = frozen weights + the pack (adapters, and what the optimizer remembers of them) + gradients + temporaries

Of several devices it is that of each, with its part of the slots, and where they share the weights its part of these. Where
they share them by tensor parallelism, each has all slots.

Weights, pack and gradients follow from their shapes. Temporaries are what the compiler wants for the step's program, which is
compiled for the device as `train_many` has it compiled there. A tenth of the device's memory is left to whatever else is there:
fragments, the CUDA context, the next batch.

A plan that does not fit is followed by one that does, if there is any: with layers computed again (`remat`), then with weights
that the devices share (`fsdp`), then with fewer adapters at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.sharding import Mesh

from ...adapters.method import Method
from ...data.batches import Shape
from ...errors import GraftaxError
from ...models.family_registry import family_of
from ...models.tensor_parallel import TENSOR
from .asked_program import TooLarge, several
from .described_devices import Device
from .roofline import Roofline
from .step_programs import StepPrograms, language_step, picture_step, text_step
from .weightless import weightless_backbone

_USABLE = 0.9  # of a device's memory
_CLASSES = 8  # of a head, which is small


@dataclass(frozen=True)
class WantedTraining:
    """What is to be trained: `slots` adapters at once, each with a batch of `rows` batch rows of `length` tokens."""

    config: Mapping[str, Any]  # as in config.json
    methods: Sequence[Method]
    slots: int
    rows: int
    length: int  # of pictures nothing
    dtype: str = "bfloat16"
    remat: str = "none"
    quantize: str | None = None
    devices: int = 1  # over which the slots are spread; a multiple of them
    fsdp: bool = False  # whether these share the weights
    tensor_parallel_size: int = 1  # devices that share them and compute every slot together, in place of those

    @property
    def pictures(self) -> bool:
        """Whether it is pictures that are read, and `rows` of them."""
        return family_of(self.config.get("model_type")).processor.kind == "image"

    def step(self, device: Device) -> StepPrograms:
        """The programs of its training step. Raises GraftaxError where there are none for such a backbone."""
        sharing = self.tensor_parallel_size
        mesh = None if sharing == 1 else Mesh(device.several(sharing), (TENSOR,))
        backbone = weightless_backbone(self.config, self.dtype, self.remat, self.quantize, mesh)
        shape = Shape(items=self.rows, rows=self.rows, length=self.length)
        if self.pictures:
            return picture_step(backbone, self.methods, self.slots, self.rows, _CLASSES)
        if backbone.family.processor.kind != "text" or backbone.family.encodes:
            raise GraftaxError(f"there is no plan for a {self.config['model_type']}: it reads more than one kind of input.")
        if self.length > backbone.config.max_tokens:
            raise GraftaxError(f"{self.length:,} tokens are more than the {backbone.config.max_tokens:,} that it takes.")
        if backbone.generates:
            return language_step(backbone, self.methods, self.slots, shape)
        return text_step(backbone, self.methods, self.slots, shape, _CLASSES)


@dataclass(frozen=True)
class TrainingPlan:
    """The memory of a step on each device, in bytes, and its least time."""

    wanted: WantedTraining
    device: Device
    weights: int
    pack: int
    gradients: int
    temporaries: int | None  # None: the compiler gives up, for lack of memory
    roofline: Roofline | None

    @property
    def in_all(self) -> int:
        return self.weights + self.pack + self.gradients + (self.temporaries or 0)

    @property
    def fits(self) -> bool:
        return self.temporaries is not None and self.in_all <= _USABLE * self.device.memory

    @property
    def slots_that_fit(self) -> int:
        """How many slots do, if temporaries are as they are: these do not grow with the slots (`Programs.at_once`)."""
        left = _USABLE * self.device.memory - self.weights - (self.temporaries or 0)
        here = self.wanted.slots // self.wanted.devices
        return max(0, int(left // ((self.pack + self.gradients) / here))) * self.wanted.devices


def training_plan(wanted: WantedTraining, device: Device) -> TrainingPlan:
    """What a step needs, compiled for the device; large backbones take minutes, on TPUs tens of them.

    Raises GraftaxError for a backbone that there is no plan for, and where nothing here compiles for the device.
    """
    step, here = wanted.step(device), wanted.slots // wanted.devices
    pack, gradients = _bytes(several(step.learner, here)), _bytes(several(step.learner.trainable, here))
    program = step.gradient if wanted.devices == 1 else step.gradient_on(device, wanted.devices, wanted.fsdp)
    weights = _bytes(program.args[0])
    try:
        facts = program.facts(device)
    except TooLarge:
        return TrainingPlan(wanted, device, weights, pack, gradients, None, None)
    return TrainingPlan(wanted, device, weights, pack, gradients, facts.temporaries, facts.roofline(device))


def smaller_plans(plan: TrainingPlan) -> Iterator[TrainingPlan]:
    """Plans that need less, the next step only where it is asked for."""
    if plan.wanted.remat == "none":
        plan = training_plan(replace(plan.wanted, remat="layers"), plan.device)
        yield plan
    devices = plan.wanted.devices
    if devices > 1 and not plan.wanted.fsdp and not plan.fits:
        plan = training_plan(replace(plan.wanted, fsdp=True), plan.device)
        yield plan
    while plan.wanted.slots > devices:
        half = plan.wanted.slots // devices // 2 * devices
        slots = half if plan.temporaries is None else min(plan.slots_that_fit, plan.wanted.slots - devices)
        if slots < 1:
            return
        plan = training_plan(replace(plan.wanted, slots=slots), plan.device)
        yield plan


def _bytes(tree: Any) -> int:
    """What a device has of a tree; of numbers of four bits two are in a byte."""
    return sum(math.prod(_here(leaf)) * jax.dtypes.itemsize_bits(leaf.dtype) // 8 for leaf in jax.tree.leaves(tree))


def _here(leaf: Any) -> tuple[int, ...]:
    """The shape of what a device has of an array: all of it, unless something else was said of where it is."""
    placed = isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is not None
    return leaf.sharding.shard_shape(leaf.shape) if placed else leaf.shape
