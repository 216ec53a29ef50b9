"""The programs of serving with a bank of adapters, without weights: prompts read, tokens written, mixed rows classified.

They are those that the engine runs (`serve/writer.py`, `serve/reading_pool.py`), at sizes that it has (`serve/ladders.py`),
with shapes in place of arrays. Every batch row may use another adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from ...adapters.adapter import Adapter, Layout
from ...adapters.graft import State
from ...adapters.method import Method
from ...models.backbone import Backbone
from ...models.inputs import TextInputs
from ...serve.bank import shapes_of_slots
from ...serve.choice import Needs, Settings
from ...serve.engine import Engine
from ...serve.residents import Residents
from ...serve.writer import Adapted
from .asked_program import AskedProgram
from .step_programs import attention_of


@dataclass(frozen=True)
class ServingPrograms:
    """A backbone with so many adapters of one kind resident."""

    backbone: Backbone
    methods: Sequence[Method]  # the head among them, where adapters have one
    resident: int

    @cached_property
    def state(self) -> State:
        """The shapes of the bank's leaves; slot 0 is that of no adapter."""
        adapter = Adapter.create(self.methods, self.backbone.sites)
        layout = Layout.of([adapter], self.backbone.sites, bucket=True)
        return shapes_of_slots(self.backbone, layout, self.resident + 1)

    @property
    def _engine(self) -> Engine:
        return Engine(self.backbone, Residents(self.backbone))

    def _adapted(self, rows: int) -> Adapted:
        return Adapted(self.backbone.params, self.backbone.layers, self.state, np.zeros(rows, np.int32))

    def prefill(self, rows: int, length: int) -> AskedProgram:
        """Prompts that begin."""
        args = (self._adapted(rows), texts(rows, length), np.zeros(rows, np.int32), np.zeros(rows, np.int32))
        attention = attention_of(self.backbone, rows, length, length)
        return AskedProgram(self._engine.writer.prefill, args, {"columns": length}, attention)

    def decode(self, rows: int, columns: int) -> AskedProgram:
        """Further tokens of texts that have so many columns; the texts are donated."""
        writer, adapted = self._engine.writer, self._adapted(rows)
        standing = writer.shapes_there(writer.shapes(adapted, texts(rows, columns)))
        needs = jax.tree.map(np.bool_, Needs.of([]))
        args = (adapted, standing, Settings.of([], rows), np.bool_(False), needs)
        return AskedProgram(writer.decode, args)

    def mixed_rows(self, rows: int, length: int) -> AskedProgram:
        """Texts that are classified."""
        args = (self.backbone.params, self.state, texts(rows, length), np.zeros(rows, np.int32))
        return AskedProgram(self._engine.readings.forward, args, attention=attention_of(self.backbone, rows, length, length))


def texts(rows: int, length: int) -> TextInputs:
    """The shapes of a batch of texts, a batch row each."""
    ids = jax.ShapeDtypeStruct((rows, length), np.int32)
    return TextInputs(ids, jax.ShapeDtypeStruct(ids.shape, np.bool_), ids)
