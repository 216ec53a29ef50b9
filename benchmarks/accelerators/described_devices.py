"""Devices that programs are compiled for without being there: what XLA is told of each, and what its data sheet promises.

XLA needs no device to compile for one. Of an NVIDIA GPU it is told the numbers that the driver would say (as a text of the
proto `GpuTargetConfig`); a TPU it knows by name. The figures of data sheets are upper bounds of what a device does: of
products without structured sparsity, at its highest clock.

    one = described("h100")
    jax.jit(f).lower(*(one.placed(shape) for shape in shapes)).compile()

`make accelerators` makes an environment that has both compilers: jax's CUDA plugin and libtpu. JAX has to be told that it
computes on the CPU (`JAX_PLATFORMS=cpu`): left to itself it looks for the device of a plugin, and takes one without for
broken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...errors import GraftaxError

_TERA, _GIGA = 1e12, 1e9
_SLICES = ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))


@dataclass(frozen=True)
class Device:
    """One kind of accelerator."""

    name: str  # as the command line calls it
    title: str
    platform: str  # "cuda" or "tpu", as of `graftax/platforms.py`
    description: str  # of a GPU what its driver would say of it; of a TPU its generation
    peaks: Mapping[str, float]  # FLOP/s of matrix products, by the dtype of what is multiplied
    bandwidth: float  # bytes/s of its memory
    memory: float  # bytes
    source: str  # of these figures

    def peak(self, dtype: str) -> float:
        """FLOP/s of products of this dtype; of one that the data sheet does not have, those of float32."""
        return self.peaks.get(dtype, self.peaks["f32"])

    @cached_property
    def sharding(self) -> NamedSharding:
        """One such device. Raises GraftaxError where jax's plugin for it is not installed."""
        return NamedSharding(Mesh(self.several(1), ("device",)), PartitionSpec())

    def several(self, count: int) -> np.ndarray:
        """So many such devices, of one host or one slice.

        Raises GraftaxError where jax's plugin for them is not installed, and where no slice has so many.
        """
        from jax.experimental import topologies

        try:
            if self.platform == "tpu":
                _find_libtpu()
                found = topologies.get_topology_desc(f"{self.description}:{_slice_of(count)}", platform="tpu")
            else:
                shape = f"1x1x{count}"
                found = topologies.get_topology_desc(shape, platform="cuda", target_config=self.description, topology=shape)
        except (ImportError, RuntimeError, AssertionError) as error:
            raise GraftaxError(
                f"nothing here compiles for {self.title} ({_first_line(error)}): make accelerators installs what does."
            ) from error
        return np.array(found.devices[:count])

    def placed(self, tree: Any) -> Any:
        """Shapes of arrays, as of arrays that are on this device."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.sharding), tree)


def _slice_of(count: int) -> str:
    """The smallest slice with so many TPUs, of those that v5e and v6e are let in."""
    there = [(rows, columns) for rows, columns in _SLICES if rows * columns >= count]
    if not there:
        raise GraftaxError(f"{count:,} TPUs are in no slice: there are at most {_SLICES[-1][0] * _SLICES[-1][1]} in one.")
    return "x".join(map(str, there[0]))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _find_libtpu() -> None:
    """Tell JAX where the TPU's compiler is, and libtpu that this machine is no TPU's host, with a device to be locked."""
    import libtpu

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_LIBRARY_PATH", libtpu.get_library_path())


def _nvidia(title: str, cores: int, **other: float) -> str:
    """A `GpuTargetConfig` of a GPU for data centres; `other` is what differs between their generations."""
    major = int(other.pop("capability"))
    said = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "threads_per_core_limit": 2048,
        "core_count": cores,
        "block_dim_limit_x": 2147483647,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        **other,
    }
    info = " ".join(f"{name}: {value}" for name, value in said.items())
    return (
        f"gpu_device_info {{ {info} cuda_compute_capability {{ major: {major} }} }} "
        f'platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 patch: 0 }} device_description_str: "{title}"'
    )


_H100 = _nvidia(
    "NVIDIA H100 80GB HBM3",
    132,
    capability=9,
    fpus_per_core=128,
    clock_rate_ghz=1.98,
    memory_bandwidth=3352320000000,
    device_memory_size=84942979072,
    l2_cache_size=52428800,
    shared_memory_per_core=233472,
    shared_memory_per_block_optin=232448,
)
_A100 = _nvidia(
    "NVIDIA A100-SXM4-80GB",
    108,
    capability=8,
    fpus_per_core=64,
    clock_rate_ghz=1.41,
    memory_bandwidth=2039000000000,
    device_memory_size=85167243264,
    l2_cache_size=41943040,
    shared_memory_per_core=167936,
    shared_memory_per_block_optin=166912,
)

#: Float32 is what JAX makes of it unless it is told otherwise: on NVIDIA's tensor cores TF32, on a TPU one pass in bfloat16.
DEVICES = {
    device.name: device
    for device in (
        Device(
            name="h100",
            title="H100 SXM 80 GB",
            platform="cuda",
            description=_H100,
            peaks={"bf16": 989.4 * _TERA, "f16": 989.4 * _TERA, "f32": 494.7 * _TERA, "s8": 1978.9 * _TERA},
            bandwidth=3350 * _GIGA,
            memory=80 * _GIGA,
            source="NVIDIA H100 Tensor Core GPU data sheet, SXM5, halved where it counts sparsity",
        ),
        Device(
            name="a100",
            title="A100 SXM 80 GB",
            platform="cuda",
            description=_A100,
            peaks={"bf16": 312 * _TERA, "f16": 312 * _TERA, "f32": 156 * _TERA, "s8": 624 * _TERA},
            bandwidth=2039 * _GIGA,
            memory=80 * _GIGA,
            source="NVIDIA A100 80GB data sheet, SXM, without sparsity",
        ),
        Device(
            name="v5e",
            title="TPU v5e",
            platform="tpu",
            description="v5e",
            peaks={"bf16": 197 * _TERA, "f32": 197 * _TERA, "s8": 393 * _TERA},
            bandwidth=819 * _GIGA,
            memory=16 * _GIGA,
            source="Google Cloud documentation, TPU v5e, per chip",
        ),
        Device(
            name="v6e",
            title="TPU v6e",
            platform="tpu",
            description="v6e",
            peaks={"bf16": 918 * _TERA, "f32": 918 * _TERA, "s8": 1836 * _TERA},
            bandwidth=1638 * _GIGA,
            memory=32 * _GIGA,
            source="Google Cloud documentation, TPU v6e, per chip",
        ),
    )
}


def described(name: str) -> Device:
    """The device of that name; GraftaxError where none is described."""
    if name not in DEVICES:
        raise GraftaxError(f"device {name!r} is not described; there are {', '.join(DEVICES)}.")
    return DEVICES[name]
