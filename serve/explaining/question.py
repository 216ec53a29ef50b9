"""What is asked of a model when an answer is explained: how much it speaks for one label.

    evidence(state, inputs) [rows]          of a probability p its log-odds, log p / (1 - p); of a regression the number

It is a pure function of an adapter's state and of inputs, so that explanations can take its derivative, and ask it of inputs
from which something was taken away. What the adapter changed is found by asking it twice: with the adapter's whole state, and
with its head alone (`Question.head_alone`), as if its other methods had never been there. What the head has learnt, which no
backbone answers without, is in both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ...adapters.adapter import Adapter, Layout
from ...adapters.fitting import head_of
from ...adapters.graft import State
from ...adapters.methods.head import HEADS
from ...errors import GraftaxError
from ...models.backbone import Backbone
from ...tasks.task import Task
from ...tasks.task_registry import task_named


@dataclass(frozen=True)
class Question:
    """What is asked; the adapter's state is an argument of what is computed, and not in it."""

    backbone: Backbone
    task: Task
    classes: int  # of the adapter's head

    @classmethod
    def about(cls, backbone: Backbone, adapter: Adapter, name: str) -> Question:
        """GraftaxError, which begins with `name`, where an adapter gives no answer that is explained."""
        task = task_named(adapter.task)
        if not task.explained:
            positions = {"map": "pixel", "objects": "object"}.get(task.words.head or "", "word")
            what = f"a label for every {positions}" if task.output.by_position and task.output.headed else "no single label"
            raise GraftaxError(
                f"{name}: answers of task {task.name!r} are not explained: there is {what}, and explained is how much speaks "
                f"for one label of a whole row, or for a number."
            )
        if (head := head_of(adapter)) is None:
            raise GraftaxError(f"{name}: it has no head, so there is no answer to be explained.")
        return cls(backbone, task, head.labels)

    @property
    def key(self) -> tuple[Any, ...]:
        """What compiled programs know of it."""
        return self.task.name, self.classes

    def state_of(self, adapter: Adapter) -> State:
        """An adapter's state, in which all layers carry something, so that a lens finds room in each."""
        sites = self.backbone.sites
        layout = Layout.of([adapter], sites)
        return replace(layout, depths=tuple(self.backbone.structure.stacks.items())).stack(adapter, sites).state

    @staticmethod
    def head_alone(state: State) -> State:
        """The same without all methods but the head."""
        return {name: methods for name, methods in state.items() if name in HEADS}

    def logits(self, params: Any, state: State, inputs: Any) -> jax.Array:
        """Float32 `[rows, classes]`."""
        pooled = self.backbone.forward(params, state, inputs).pooled
        assert pooled is not None
        return pooled[:, : self.classes].astype(jnp.float32)

    def evidence(self, params: Any, state: State, inputs: Any, labels: jax.Array) -> jax.Array:
        """How much speaks for the label of each row, `[rows]`; `labels`: their numbers."""
        return self.task.evidence(self.logits(params, state, inputs), labels)

    def told(self, evidence: jax.Array) -> jax.Array:
        """What a person is told of evidence: a probability, or the number itself."""
        return jax.nn.sigmoid(evidence) if self.task.explained == "probability" else evidence
