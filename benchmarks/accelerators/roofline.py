"""How long a program takes at least on a device, by the device's data sheet (Williams et al., 2009, the roofline model).

    time >= max( sum over dtypes FLOPs / peak of the dtype,  bytes moved / bandwidth )

It is computed and not measured: no device was there, and none is as fast as its data sheet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .described_devices import Device


@dataclass(frozen=True)
class Roofline:
    """Seconds, computed."""

    by_flops: float
    by_bytes: float

    @classmethod
    def of(cls, device: Device, flops: Mapping[str, float], moved: float) -> Roofline:
        """`flops`: operations by the dtype of what is multiplied; `moved`: bytes."""
        return cls(sum(count / device.peak(dtype) for dtype, count in flops.items()), moved / device.bandwidth)

    @property
    def seconds(self) -> float:
        return max(self.by_flops, self.by_bytes)

    @property
    def bound(self) -> str:
        """What it is that takes this long: "FLOPs" or "bytes"."""
        return "FLOPs" if self.by_flops > self.by_bytes else "bytes"
