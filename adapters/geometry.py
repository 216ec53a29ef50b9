"""How a convolution's kernel walks over a feature map, and how to compute with it.

    y[h, w] = sum_ij x[h sh + i dh - top, w sw + j dw - left] kernel[i, j]       s the stride, d the dilation; x is 0 outside

Several programs give the same numbers. Which of them is compiled follows from the kernel, the device and what `vmap` is over.

**A kernel of one cell** over a feature map without padding is a matrix product, and is computed as one. Half of a ResNet-50's
work is such, and on a CPU it so reads pictures in four fifths of the time (`benchmarks/speed/vision.py`).

**A depthwise convolution**, which has a channel in each group, has no matrix in it: a cell is one number for each channel. On a
CPU XLA's own one runs through such groups one by one. There the kernel is taken apart: each of its cells multiplies the feature
map, moved so far as the cell lies from the kernel's corner, and the products are added. MobileNetV2 so reads pictures in less
than a quarter of the time (`benchmarks/speed/depthwise.py`).

**All others** are XLA's own convolution. On a CPU it has a fast one, for arrays whose axes are in the order of `_IN_ORDER`, and
one many times slower for any other order. XLA turns arrays so that the fast one takes them, but not within loops, and in JAX's
derivatives they lie in other orders. So derivatives are written here as convolutions of turned arrays.

**Kernels that differ**, by batch row in a mixed batch, or by adapter in a pack whose slots are computed at once, would become a
grouped convolution, whose derivatives are slower by orders of magnitude on a CPU. There they are convolved one after the other,
in a loop; elsewhere, and where there are groups already, each is taken apart as a depthwise one is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from ..platforms import platform
from ..shapes import AnyArray

_IN_ORDER = ("NHWC", "HWIO", "NHWC")  # of a feature map, a kernel and the output

Sides = tuple[tuple[int, int], tuple[int, int]]  # of height and of width: before, behind


@jax.tree_util.register_static
@dataclass(frozen=True)
class Geometry:
    """How a convolution's kernel walks over a feature map; pairs are height, then width.

    `padding`: how many zeros before and behind each axis; None: as many as TensorFlow's "SAME" has, which depends on the
    feature map's size: the output is as large as the input divided by the stride, rounded up, and an odd zero is put behind.
    `groups`: the input's channels are cut into so many groups, each of which is read by as large a part of the outputs.
    """

    stride: tuple[int, int] = (1, 1)
    padding: Sides | None = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def sides(self, size: Sequence[int], kernel: Sequence[int]) -> Sides:
        """The padding of a feature map of this height and width under a kernel of that."""
        if self.padding is not None:
            return self.padding
        (top, bottom), (left, right) = jax.lax.padtype_to_pads(size, self._reach(kernel), self.stride, "SAME")
        return (top, bottom), (left, right)

    def _reach(self, kernel: Sequence[int]) -> tuple[int, int]:
        """How many rows and columns of a feature map the kernel lies over."""
        (height, width), (down, right) = kernel, self.dilation
        return (height - 1) * down + 1, (width - 1) * right + 1

    def size(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        """Height and width of the output."""
        (top, bottom), (left, right) = self.sides(size, kernel)
        (high, wide), (down, across) = self._reach(kernel), self.stride
        return (size[0] + top + bottom - high) // down + 1, (size[1] + left + right - wide) // across + 1


def convolve(x: AnyArray, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """`x [..., height, width, in]` by `kernel [kh, kw, in / groups, out]`: `[..., height', width', out]`."""
    return _convolve(x, kernel, geometry)


@jax.custom_vjp
def _convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _forward(x, kernel, geometry)


def _kept(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> tuple[jax.Array, Any]:
    return _forward(x, kernel, geometry), (x, kernel, geometry)


def _cotangents(kept: Any, dy: jax.Array) -> Any:
    x, kernel, geometry = kept
    return _to_input(x, kernel, geometry, dy), _to_kernel(x, kernel, geometry, dy), geometry


_convolve.defvjp(_kept, _cotangents)


def _at_once(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    if _is_product(x, kernel, geometry) or _is_taken_apart(kernel, geometry):
        return _cell_by_cell(x, kernel, geometry)
    y = jax.lax.conv_general_dilated(
        x.reshape(-1, *x.shape[-3:]),  # it takes one leading axis, neither none nor several
        kernel,
        window_strides=geometry.stride,
        padding=geometry.sides(x.shape[-3:-1], kernel.shape[:2]),
        rhs_dilation=geometry.dilation,
        dimension_numbers=_IN_ORDER,
        feature_group_count=geometry.groups,
    )
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def _is_product(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> bool:
    """Whether each pixel of the output is a matrix times one pixel of the input."""
    cells = kernel.shape[-4:-2]
    return cells == (1, 1) and geometry.groups == 1 and geometry.sides(x.shape[-3:-1], cells) == ((0, 0), (0, 0))


def _is_depthwise(kernel: jax.Array, geometry: Geometry) -> bool:
    """Whether every channel of the output is made of one channel of its own."""
    return kernel.shape[-2:] == (1, geometry.groups)


def _on_cpu() -> bool:
    return platform() == "cpu"


def _is_taken_apart(kernel: jax.Array, geometry: Geometry) -> bool:
    """Whether it is cell by cell even where all batch rows share the kernel."""
    return _is_depthwise(kernel, geometry) and _on_cpu()


def _cell_by_cell(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    if _is_product(x, kernel, geometry):  # of the one cell there is
        (down, across), inputs = geometry.stride, x.shape[-1]
        x = x[..., ::down, ::across, :]
        return (x.reshape(-1, inputs) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)
    lead, size, (kh, kw, inputs, out) = x.shape[:-3], x.shape[-3:-1], kernel.shape
    height, width = geometry.size(size, (kh, kw))
    x = jnp.pad(x, [(0, 0)] * len(lead) + [*geometry.sides(size, (kh, kw)), (0, 0)])
    (down, across), (far_down, far_across), groups = geometry.stride, geometry.dilation, geometry.groups
    cells = kernel.reshape(kh, kw, inputs, groups, out // groups)
    y = jnp.zeros((*lead, height, width, groups, out // groups), x.dtype)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * far_down, i * far_down + (height - 1) * down + 1, down)
            columns = slice(j * far_across, j * far_across + (width - 1) * across + 1, across)
            part = x[..., rows, columns, :].reshape(*lead, height, width, groups, inputs)
            if _is_depthwise(kernel, geometry):
                y = y + part * cells[i, j, 0]
            else:
                y = y + jnp.einsum("...gi,igo->...go", part, cells[i, j])
    return y.reshape(*lead, height, width, out)


@custom_vmap
def _forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _at_once(x, kernel, geometry)


@_forward.def_vmap
def _forward_of_many(size: int, batched: Any, x: jax.Array, kernel: jax.Array, geometry: Geometry) -> tuple[jax.Array, bool]:
    of_x, of_kernel, _ = batched
    if of_x and not of_kernel:
        return _forward(x, kernel, geometry), True  # as one more leading axis

    if _is_in_turn(x, kernel, geometry):
        return _in_turn(_forward, geometry, (of_x, of_kernel), x, kernel)
    return jax.vmap(_cell_by_cell, (*_axes(of_x, of_kernel), None))(x, kernel, geometry), True


def _is_in_turn(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> bool:
    """Whether kernels that differ are convolved one after the other."""
    return _on_cpu() and geometry.groups == 1 and not _is_product(x, kernel, geometry)


def _in_turn(
    one: Callable[..., jax.Array], geometry: Geometry, batched: Sequence[bool], *arrays: jax.Array
) -> tuple[jax.Array, bool]:
    """What `jax.vmap` would give of `one(x, kernel, geometry, ...)`, by a loop.

    An array that is not batched is whole in each of its rounds.
    """

    def of_one(parts: list[jax.Array]) -> jax.Array:
        rest = iter(parts)
        x, kernel, *others = (next(rest) if of else array for of, array in zip(batched, arrays, strict=True))
        return one(x, kernel, geometry, *others)

    return jax.lax.map(of_one, [array for of, array in zip(batched, arrays, strict=True) if of]), True


Convolution = Callable[[jax.Array, jax.Array, Geometry], jax.Array]


def _turned(convolution: Convolution, x: jax.Array, kernel: jax.Array, geometry: Geometry, dy: jax.Array) -> jax.Array:
    """The cotangent of a convolution's input: `dy` under the kernel turned by half a circle, its inputs and outputs exchanged.

    Between the pixels of `dy` lie zeros, as many as a stride passes over. Derived from `_cell_by_cell`, it would be a feature
    map for each cell, padded and kept until they are added.
    """
    around = []
    for size, of_kernel, far, stride, (before, _), out in _along(x, kernel, geometry, dy):
        reach, spread = (of_kernel - 1) * far, (out - 1) * stride + 1
        around.append((reach - before, size - spread + before, stride - 1))  # fewer than none: pixels are taken away
    spaced = jax.lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0)] * (dy.ndim - 3) + [*around, (0, 0, 0)])
    kh, kw, inputs, out = kernel.shape
    groups = geometry.groups
    exchanged = kernel[::-1, ::-1].reshape(kh, kw, inputs, groups, out // groups).transpose(0, 1, 4, 3, 2)
    turned = exchanged.reshape(kh, kw, out // groups, groups * inputs)
    return convolution(spaced, turned, Geometry(dilation=geometry.dilation, groups=groups))


def _over(x: jax.Array, kernel: jax.Array, geometry: Geometry, dy: jax.Array) -> jax.Array:
    """The cotangent of a kernel: `x` under `dy`. Channels take the place of rows, and rows that of channels.

        kernel[i, j, in, out] = sum_nhw x[n, h sh + i dh - top, w sw + j dw - left, in] dy[n, h, w, out]

    Rows are summed in two halves, by a loop, because what enters a loop is in memory. Elsewhere XLA does not read `x` where it
    turns it, but computes each of its pixels again from the convolutions before: through the norms and residual connections of
    all layers in between.
    """
    sides = []
    for size, of_kernel, far, stride, (before, _), out in _along(x, kernel, geometry, dy):
        reach = (of_kernel - 1) * far + (out - 1) * stride + 1
        sides.append((before, reach - size - before))

    def of_part(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, dy = part
        return jax.lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            dy.transpose(1, 2, 0, 3),
            window_strides=geometry.dilation,
            padding=sides,
            rhs_dilation=geometry.stride,
            dimension_numbers=_IN_ORDER,
        )

    x, dy = x.reshape(-1, *x.shape[-3:]), dy.reshape(-1, *dy.shape[-3:])
    parts = 2 if len(x) % 2 == 0 else 1
    of_parts = jax.lax.map(of_part, (x.reshape(parts, -1, *x.shape[1:]), dy.reshape(parts, -1, *dy.shape[1:])))
    return of_parts.sum(0).transpose(1, 2, 0, 3)


def _along(x: jax.Array, kernel: jax.Array, geometry: Geometry, y: jax.Array) -> Iterator[Any]:
    """Of height and of width: the sizes of input and kernel, dilation, stride, padding, the size of the output."""
    sizes, cells = x.shape[-3:-1], kernel.shape[:2]
    sides = geometry.sides(sizes, cells)
    return zip(sizes, cells, geometry.dilation, geometry.stride, sides, y.shape[-3:-1], strict=True)


@custom_vmap
def _to_input(x: jax.Array, kernel: jax.Array, geometry: Geometry, dy: jax.Array) -> jax.Array:
    if _on_cpu() and not _is_product(x, kernel, geometry):
        return _turned(_at_once, x, kernel, geometry, dy)
    return jax.vjp(lambda x: _at_once(x, kernel, geometry), x)[1](dy)[0]


@_to_input.def_vmap
def _to_inputs(
    size: int, batched: Any, x: jax.Array, kernel: jax.Array, geometry: Geometry, dy: jax.Array
) -> tuple[jax.Array, bool]:
    of_x, of_kernel, _, of_dy = batched
    if of_x and of_dy and not of_kernel:
        return _to_input(x, kernel, geometry, dy), True  # as one more leading axis
    if _is_in_turn(x, kernel, geometry):
        return _in_turn(_to_input, geometry, (of_x, of_kernel, of_dy), x, kernel, dy)

    def one(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        if _is_depthwise(kernel, geometry):
            return _turned(_cell_by_cell, x, kernel, geometry, dy)
        return jax.vjp(lambda x: _cell_by_cell(x, kernel, geometry), x)[1](dy)[0]

    return jax.vmap(one, _axes(of_x, of_kernel, of_dy))(x, kernel, dy), True


@custom_vmap
def _to_kernel(x: jax.Array, kernel: jax.Array, geometry: Geometry, dy: jax.Array) -> jax.Array:
    if _is_in_turn(x, kernel, geometry):
        return _over(x, kernel, geometry, dy)
    return jax.vjp(lambda kernel: _at_once(x, kernel, geometry), kernel)[1](dy)[0]


@_to_kernel.def_vmap
def _to_kernels(
    size: int, batched: Any, x: jax.Array, kernel: jax.Array, geometry: Geometry, dy: jax.Array
) -> tuple[jax.Array, bool]:
    of_x, of_kernel, _, of_dy = batched
    if _is_in_turn(x, kernel, geometry):
        return _in_turn(_to_kernel, geometry, (of_x, of_kernel, of_dy), x, kernel, dy)

    def one(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: _cell_by_cell(x, kernel, geometry), kernel)[1](dy)[0]

    return jax.vmap(one, _axes(of_x, of_kernel, of_dy))(x, kernel, dy), True


def _axes(*batched: bool) -> tuple[int | None, ...]:
    return tuple(0 if each else None for each in batched)
