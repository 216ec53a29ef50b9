"""The CPU that tests run on as a device that programs are compiled for, with a data sheet of round figures."""

from __future__ import annotations

import jax
import numpy as np

from graftax.benchmarks.accelerators.described_devices import Device


class OnThisCpu(Device):
    def several(self, count: int) -> np.ndarray:
        return np.array(jax.devices("cpu")[:count])


CPU = OnThisCpu("cpu", "this CPU", "cpu", "", {"f32": 1e8, "bf16": 4e8}, bandwidth=1e6, memory=1e9, source="made up")
