"""A job: one adapter to be trained, with its examples prepared and checked (`intake.py`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..adapters.adapter import Adapter, Layout
from ..adapters.sites import Site
from ..data.batches import Shape, number_of_batches
from ..data.prepared import Prepared
from ..shown import Shown
from .optimizer import rates
from .recipe import Recipe
from .step import Hyper, Learner, hyper, start


@dataclass(frozen=True, eq=False, repr=False)
class Job(Shown):
    """One adapter to be trained."""

    name: str  # the adapter's
    recipe: Recipe
    adapter: Adapter  # fresh
    train: Prepared
    val: Prepared | None
    shape: Shape  # of every batch
    goes_on: bool = False  # whether it begins with leaves of another adapter

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "rows": len(self.train), "epochs": self.recipe.epochs, "adapter": str(self.adapter)}

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch: one for each batch."""
        return number_of_batches(len(self.train), self.recipe.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.epochs * self.steps_per_epoch

    def hyper(self) -> Hyper:
        """What the compiled step knows of the recipe, as data."""
        return hyper(self.recipe, self.steps, len(self.adapter.labels))

    def start(self, layout: Layout, sites: Sequence[Site]) -> Learner:
        """A learner that has taken no step yet."""
        stacked = layout.stack(self.adapter, sites)
        speeds = rates(self.recipe, stacked, sites, self.steps_per_epoch)
        return start(stacked, speeds, self.hyper(), self.recipe.optimizer)

    def digest(self) -> str:
        """A digest of all that decides what the adapter becomes: examples, their items, labels, recipe, methods."""
        d = hashlib.sha256(repr((self.name, asdict(self.recipe), self.adapter.methods, self.adapter.labels)).encode())
        for method in self.adapter.methods:  # what its file holds and no config tells: a fusion's adapters, say
            for site, (trainable, fixed) in self.adapter.states[method.key].items():
                for name in method.buffers(site):
                    d.update(np.ascontiguousarray(fixed[name]).tobytes())
                for name in sorted(trainable) if self.goes_on else ():
                    d.update(np.ascontiguousarray(trainable[name]).tobytes())
        for part in (self.train, self.val) if self.val else (self.train,):
            d.update(repr(part.examples.labels).encode())
            for item in part.items:
                d.update(item.tobytes())
            for label in part.labels:
                d.update(np.ascontiguousarray(label).tobytes())
        return d.hexdigest()
