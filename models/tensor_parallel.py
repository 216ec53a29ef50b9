"""Weights that several devices share, each of which computes with its own part: tensor parallelism.

Shoeybi et al., 2019 (Megatron-LM, arXiv:1909.08053) cut the first of two matrices along what it makes and the second along what
it reads, so that nothing has to be exchanged between them. Of a feed-forward on n devices, device i computes

    y_i = act(x W_1[:, i]) W_2[i, :]          W_1 [in, wide] is cut along "out", W_2 [wide, out] along "in"
    y   = y_1 + ... + y_n                     the only exchange

The same of attention, whose heads are computed each on one device. So a layer has two sums over the devices, one for each of
its branches. The words' table is cut by its rows, which are the columns of what projects to the vocabulary.

This is for a backbone that does not fit one device, wherever it is used. Training has another way (`sharded.py`, FSDP), in
which each device computes with whole weights, gathered layer by layer, and has adapters of its own: there devices exchange
weights, and here what layers have made.

*How.* The weights are put where they belong, and say so; XLA then cuts every program that reads them (GSPMD, Xu et al., 2021,
arXiv:2105.04663), with its sums and whatever else a method wants of them. So no method and no program knows of it. What is kept
from call to call is told where to be (`of_adapter`, `of_texts`): left alone it would lie here after one call and there after
another, and every place is another program. Results are those of one device up to the last bits, for sums of parts are
rounded in another order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .. import processes
from ..counted import counted
from ..errors import GraftaxError
from .by_layer import ByLayer, held_by_layer
from .parts import LEAVES, Leaf, Part

Method = TypeVar("Method", bound=Callable[..., Any])
TENSOR = "tensor"  # the axis of the mesh

#: By role of a part: along which axis of its kernel or table devices share it (`Leaf.named`). All others are whole everywhere.
_CUT = {
    **dict.fromkeys(("query", "key", "value", "qkv", "ffn_gate", "ffn_in"), "out"),
    **dict.fromkeys(("attention_out", "ffn_out"), "in"),
    "lm_head": "out",
    "word_embeddings": "rows",
}


def mesh_over(devices: int) -> Mesh:
    """So many devices, of every process as many. Raises GraftaxError where there are fewer."""
    if devices < 1:
        raise GraftaxError(f"tensor_parallel_size is a number of devices, got {devices}.")
    try:
        return Mesh(np.array(processes.devices(processes.of_each(devices))), (TENSOR,))
    except GraftaxError as error:
        raise GraftaxError(f"tensor_parallel_size: {error}") from error


def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array, which every process has, where it is to be; each device is sent its own part alone."""
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    there = np.asarray(leaf)
    return jax.make_array_from_callback(there.shape, sharding, there.__getitem__)


def everywhere(mesh: Mesh) -> NamedSharding:
    """Of arrays that every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def shared(
    mesh: Mesh, parts: Iterable[Part], arrays: Mapping[str, Any], put: Callable[[Any, NamedSharding], Any] = put
) -> dict[str, Any]:
    """Weights by name ("layers.query.kernel") on the devices.

    Those of a stack may be held by layer already; else they have a leading axis of layers, and are by layer from now on.
    `put`: what puts an array there.
    """
    found = {}
    for part in parts:
        for leaf in LEAVES.get(part.kind, ()):
            if (name := f"{part.name}.{leaf.name}") in arrays:
                one = partial(_put_part, mesh, part, leaf, put)
                stacked = part.stack and not held_by_layer(arrays[name])
                found[name] = jax.tree.map(_each_layer(one) if stacked else one, arrays[name])
    return found


def _put_part(mesh: Mesh, part: Part, leaf: Leaf, put: Callable[[Any, NamedSharding], Any], array: Any) -> Any:
    """A weight, or what is held of a quantised one, put where the table says."""
    return put(array, _cut_along(mesh, _CUT.get(part.role or part.name), leaf.named, array.shape))


def _each_layer(one: Callable[[Any], Any]) -> Callable[[Any], ByLayer]:
    """`one` of every layer of an array with a leading axis of these."""
    return lambda array: ByLayer(tuple(map(one, array)))


def of_adapter(mesh: Mesh, role: str, axes: Sequence[str], shape: Sequence[int]) -> NamedSharding:
    """Where an array of an adapter is that acts on a part of this role, beside the weights there: S-LoRA (arXiv:2311.03285).

    `axes`: what the last of its axes are called, of LoRA's B ("rank", "out"). It is cut as the kernel there is, if that is
    cut along one of them, so that what devices exchange is no wider than the rank.
    """
    return _cut_along(mesh, _CUT.get(role), axes, shape)


def of_texts(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """Where an array is of what is known of texts: keys and values are with their attention heads, all others everywhere.

    Keys and values are what has four axes, `[rows, heads, columns, size]`.
    """
    return _cut_along(mesh, "heads", ("heads", "columns", "size") if len(shape) == 4 else (), shape)


def refuse_uncut(mesh: Mesh, heads: Sequence[int], arrays: Mapping[str, Any], name: str) -> None:
    """An error where devices have nothing to share, or share attention heads unevenly."""
    devices = counted(mesh.size, "device")
    if uneven := [count for count in heads if count % mesh.size]:
        fit = [str(number) for number in range(2, min(heads) + 1) if not any(count % number for count in heads)]
        could = f"; by {' or '.join(fit)} they can" if fit else ""
        raise GraftaxError(
            f"tensor_parallel_size: {counted(uneven[0], 'attention head')} of {name} cannot be shared by {devices}{could}."
        )
    if all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(dict(arrays))):
        raise GraftaxError(f"tensor_parallel_size: {name} has no weights that {devices} could share.")


def traced_over_devices(method: Method) -> Method:
    """A backbone's function of arrays; while it is traced, `over_heads` knows the devices that share its weights."""

    @wraps(method)
    def known(backbone: Any, *args: Any, **named: Any) -> Any:
        if backbone.mesh is None:
            return method(backbone, *args, **named)
        with jax.sharding.use_abstract_mesh(backbone.mesh.abstract_mesh):
            return method(backbone, *args, **named)

    return cast(Method, known)


def over_heads(attend: Callable[..., jax.Array], query: jax.Array, key: jax.Array, value: jax.Array, *others: Any) -> jax.Array:
    """`attend(query, key, value, *others)` of `[rows, heads, tokens, size]`, on each device of its own attention heads.

    For a kernel that XLA cannot cut by itself. `others` are whole on every device. Where there are fewer keys than devices
    (grouped heads), a key is there as often as it takes for each device to have one.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if TENSOR not in mesh.axis_names:
        return attend(query, key, value, *others)
    copies = math.lcm(key.shape[1], mesh.shape[TENSOR]) // key.shape[1]
    key, value = (jnp.repeat(x, copies, axis=1) if copies > 1 else x for x in (key, value))
    by_head, whole = PartitionSpec(None, TENSOR), PartitionSpec()
    specs = (by_head, by_head, by_head, *(whole for _ in others))
    return jax.shard_map(attend, in_specs=specs, out_specs=by_head, check_vma=False)(query, key, value, *others)


def _cut_along(mesh: Mesh, cut: str | None, axes: Sequence[str], shape: Sequence[int]) -> NamedSharding:
    """Of an array whose last axes are called so: cut along one, if it has it and that can be divided, or whole everywhere."""
    spec: list[str | None] = [None] * len(shape)
    if cut is not None and cut in axes:
        axis = len(shape) - len(axes) + list(axes).index(cut)
        if axis >= 0 and shape[axis] % mesh.size == 0:
            spec[axis] = TENSOR
    while spec and spec[-1] is None:  # as JAX writes it of what a program gives: equal places are to be equal
        spec.pop()
    return NamedSharding(mesh, PartitionSpec(*spec))
