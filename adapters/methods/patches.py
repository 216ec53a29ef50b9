"""A convolution is a linear layer on patches of a feature map; LoRA's factors there, and kernels as matrices.

Under each position of the output lies a patch of the input, kh kw in numbers. LoRA's A is a convolution of the same geometry
with r output channels, B one of a single cell; so over patches both are the matrices that they are at a linear layer,

    y = conv(x, W) + b + s (patches(x) A^T) B           A [r, kh kw in], B [r, out]

and the change of the kernel is A^T B, laid out as the kernel is.

Of a convolution in G groups A reads all channels, as in PEFT, and B is in groups: an output sees those ranks alone that are its
group's. Rank j is group j mod G's, so B is [r, out / G], and zeros behind the last rank pad it like any other. Such a change is
none of the kernel, whose outputs see the channels of their own group.

Other methods change the kernel as they change a linear layer's: they see it as a matrix [in kh kw, out], whose rows lie as
PyTorch's weights do (`as_matrix`); in groups, in is that of one group, and what is done to it is the same for all of them.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import GraftaxError
from ..geometry import convolve
from ..products import widened
from ..sites import ConvWeights, Site


def factor_sizes(site: Site) -> tuple[int, int]:
    """(in, out) of LoRA's factors `[r, in]` and `[r, out]` at a site with a kernel or a table."""
    if site.geometry is None:
        inputs, out = site.shape
        return inputs, out
    height, width, _, out = site.shape
    return height * width * site.inputs, out // site.geometry.groups


def matrix_shape(site: Site) -> tuple[int, int]:
    """(in, out) of the kernel as a matrix."""
    if site.geometry is None:
        rows, out = site.shape
        return rows, out
    return math.prod(site.shape[:-1]), site.shape[-1]


def as_matrix(kernel: jax.Array) -> jax.Array:
    """A convolution's kernel `[kh, kw, in, out]` as `[in kh kw, out]`; a linear layer's is one."""
    return kernel if kernel.ndim == 2 else kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])


def as_kernel(matrix: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Inverse of `as_matrix`, for a kernel of this shape; of another number of outputs too."""
    if len(shape) == 2:
        return matrix
    height, width, inputs, _ = shape
    return matrix.reshape(inputs, height, width, -1).transpose(1, 2, 0, 3)


def through_rank(x: jax.Array, a: jax.Array, b: jax.Array, frozen: ConvWeights) -> jax.Array:
    """patches(x) A^T B: `x [..., height, width, in]` to `[..., height', width', out]`."""
    height, width, inputs, _ = frozen.kernel.shape
    groups = frozen.geometry.groups
    kernel = a.T.reshape(height, width, inputs * groups, len(a))
    return widened(convolve(x, kernel, dataclasses.replace(frozen.geometry, groups=1)), over_groups(b, groups))


def over_groups(b: jax.Array, groups: int) -> jax.Array:
    """B as a matrix `[r, out]`, zero where an output does not see a rank."""
    if groups == 1:
        return b
    seen = np.arange(len(b))[:, None] % groups == np.arange(groups)
    return (b[:, None, :] * jnp.asarray(seen[:, :, None], b.dtype)).reshape(len(b), -1)


def whole_kernel(frozen: ConvWeights) -> jax.Array:
    """The kernel as a matrix `[kh kw in, out]`, zero where an output does not see a channel."""
    kernel, groups = frozen.kernel, frozen.geometry.groups
    height, width, inputs, out = kernel.shape
    by_group = kernel.reshape(height, width, 1, inputs, groups, out // groups)
    whole = by_group * jnp.eye(groups, dtype=kernel.dtype)[:, None, :, None]
    return whole.reshape(height * width * inputs * groups, out)


def refuse_groups(name: str, frozen: ConvWeights) -> None:
    """An error where LoRA's change is none of the kernel."""
    if frozen.geometry.groups > 1:
        raise GraftaxError(
            f"{name} cannot be merged into a convolution of {frozen.geometry.groups} groups: it lets each of its outputs "
            "read the channels of all groups, and the kernel those of one."
        )
