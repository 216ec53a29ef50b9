"""What a start asks of the rows that are to be trained on: moments of a layer's inputs, gradients of its kernel, statistics.

Moments and gradients are taken over the first batches of the job's first epoch, statistics of batch norms over all of them, on
the frozen backbone alone. Jobs of one run share the compiled programs; each costs a forward pass of every batch, gradients a
backward pass too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..adapters.adapter import Adapter, Layout, join
from ..adapters.method import Leaves, Method, scalar
from ..adapters.methods.adabn import Rebatched
from ..adapters.methods.full import Full
from ..adapters.methods.head import Head
from ..adapters.methods.observer import Observer
from ..adapters.methods.starts import Moments, Statistics
from ..adapters.sites import Site
from ..data.batches import Planned, Shape, number_of_batches, plan_epoch
from ..data.prepared import Prepared
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.load import in_memory
from ..models.processor import Processor
from ..tasks.task import Task
from .job import Job
from .pack import Pack
from .recipe import Recipe

BATCHES = 8  # at most


@dataclass(frozen=True)
class Calibration:
    """The examples of one job, as `adapters.starts.TrainingData`."""

    backbone: Backbone
    task: Task
    processor: Processor
    recipe: Recipe
    head: Head | None
    prepared: Prepared
    shape: Shape

    @property
    def steps(self) -> int:
        return self.recipe.epochs * number_of_batches(len(self.prepared), self.recipe.batch_size)

    @property
    def ids(self) -> list[np.ndarray]:
        return [text.ids for text in self.prepared.items]

    def plan(self) -> list[Planned]:
        """The first batches of the job's first epoch."""
        return self._epoch()[:BATCHES]

    def _epoch(self) -> list[Planned]:
        return plan_epoch(self.prepared.lengths, self.shape, self.recipe.seed, 0)

    def moments(self, sites: Sequence[Site], unit: bool) -> Mapping[Site, Moments]:
        """Moments of what enters some sites, over those batches."""
        if not sites:
            return {}
        if self.prepared.longest_target:
            raise GraftaxError("a start that is made of the rows' moments needs a backbone that reads one text; use another.")
        method = Observer(targets=tuple(site.path for site in sites), unit=unit)
        states = self._seen(method, self.plan(), lambda planned, name: {"mask": self._mask(planned, name)})
        return {site: Moments(seen["gram"] / seen["count"], seen["total"] / seen["count"]) for site, seen in states.items()}

    def statistics(self, sites: Sequence[Site]) -> Mapping[Site, Statistics]:
        """Of what enters batch norms, over all rows; a batch counts as many times as it has pictures."""
        if len(self.prepared) < 2:
            raise GraftaxError("statistics of batch norms need two pictures at least.")
        floors = {name: scalar(self.backbone.eps_at(name)) for name in dict.fromkeys(site.name for site in sites)}
        method = Rebatched(targets=tuple(site.path for site in sites))

        def beside(planned: Planned, name: str) -> Leaves:
            mask = np.zeros(self.shape.rows, np.float32)
            mask[[row for row, _ in planned.places]] = 1.0
            return {"mask": mask, "eps": floors[name]}

        states = self._seen(method, self._epoch(), beside, weight=lambda planned: len(planned.items))
        rows = len(self.prepared)
        return {site: Statistics(seen["mean"] / rows, seen["var"] / rows) for site, seen in states.items()}

    def _seen(
        self,
        method: Method,
        plan: Sequence[Planned],
        beside: Callable[[Planned, str], Leaves],
        weight: Callable[[Planned], float] = lambda planned: 1.0,
    ) -> dict[Site, Leaves]:
        """The sums over some batches of what a method has seen at its sites, which is the gradient of its leaves (`Observer`).

        `beside`: its fixed leaves of a batch at the sites of a name, of one layer; `weight`: what a batch counts.
        """
        every = self.backbone.sites
        adapter = Adapter.create((method,), every)
        layout = Layout.of([adapter], every)
        stacked, total = layout.stack(adapter, every), None
        backbone = in_memory(self.backbone)
        program = backbone.programs.setdefault(type(method), jax.jit(jax.grad(partial(_objective, backbone))))
        for planned in plan:
            inputs = self.processor.lay([self.prepared.items[i] for i in planned.items], planned.places, self.shape)
            fixed = {}
            for name, methods in stacked.trainable.items():
                layers = (len(jax.tree.leaves(methods)[0]),) if self.backbone.structure.stacked(name) else ()
                leaves = beside(planned, name)
                fixed[name] = {method.key: {leaf: np.broadcast_to(a, (*layers, *a.shape)) for leaf, a in leaves.items()}}
            found = jax.device_get(program(stacked.trainable, fixed, backbone.params, inputs))
            found = jax.tree.map(lambda leaf, count=weight(planned): count * np.asarray(leaf, np.float64), found)
            total = found if total is None else jax.tree.map(np.add, total, found)
        assert total is not None
        return {site: seen for site, (seen, _) in layout.unstack(adapter, total, every)[method.key].items()}

    def _mask(self, planned: Planned, name: str) -> np.ndarray:
        """1 on the tokens of texts: what an observer at a site of this name reads."""
        if name == "pooler":  # it reads the first token of each text
            return (np.arange(self.shape.items) < len(planned.items)).astype(np.float32)[:, None]
        mask = np.zeros((self.shape.rows, self.shape.length), np.float32)
        for i, (batch_row, begin) in zip(*planned, strict=True):
            mask[batch_row, begin : begin + len(self.prepared.items[i])] = 1.0
        return mask

    def gradients(self, sites: Sequence[Site]) -> Mapping[Site, np.ndarray]:
        """Mean gradients of the kernels at some sites, over those batches."""
        if not sites:
            return {}
        method = Full(targets=tuple(site.path for site in sites))
        every = self.backbone.sites_for(self.head)
        heads = (self.head,) if self.head else ()
        labels = ("",) * sum(head.labels for head in heads)
        adapter = Adapter.create((method, *heads), every, seed=self.recipe.seed, task=self.task.name, labels=labels)
        recipe = self.recipe.replace(optimizer="sgd", preconditioned=False)  # it keeps no moments
        pack = Pack(in_memory(self.backbone), self.task, [Job("", recipe, adapter, self.prepared, None, self.shape)], 1)
        pack.admit(0, 0)
        while pack.features and pack.features.step():
            pass
        gradients = pack.gradients(BATCHES)
        states = pack.layout.unstack(adapter, gradients, every)[method.key]
        return {site: states[site][0]["kernel"] for site in sites}


def _objective(backbone: Backbone, trainable: Any, fixed: Any, params: Any, inputs: Any) -> jax.Array:
    """Any number that every layer has a part in."""
    out = backbone.encode(params, join(trainable, fixed), inputs)
    ends = [leaf for leaf in (out.hidden, out.pooled) if leaf is not None]
    return jnp.sum(jnp.stack([jnp.sum(leaf.astype(jnp.float32)) for leaf in ends]))
