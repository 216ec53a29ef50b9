"""The CPU that tests run on as a device that programs are compiled for, with a data sheet of round figures."""

from __future__ import annotations

from functools import cached_property

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from graftax.benchmarks.accelerators.described_devices import Device


class OnThisCpu(Device):
    @cached_property
    def sharding(self) -> NamedSharding:
        return NamedSharding(Mesh(np.array(jax.devices("cpu")[:1]), ("device",)), PartitionSpec())


CPU = OnThisCpu("cpu", "this CPU", "cpu", "", {"f32": 1e8, "bf16": 4e8}, bandwidth=1e6, memory=1e9, source="made up")
