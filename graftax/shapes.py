"""Shapes in the annotations of functions of arrays, and the switch that has them checked.

    @shaped
    def likely(logits: Float[Array, "rows vocabulary"], targets: Int[Array, " rows"]) -> Float[Array, " rows"]: ...

An axis has one size wherever its name stands in a call: two batch rows of logits and three targets are refused, and so are
targets of floating point. `*lead` is any number of axes, `1` an axis of that size, `""` a number. (An axis that stands alone
has a blank before it, for otherwise tools take it for a name of Python's.)

In use nothing is checked: `shaped` gives back the function itself, and jaxtyping, which takes a tenth of a second to import,
is not. Where `GRAFTAX_CHECK_SHAPES` is 1 as a process starts, as in the tests, jaxtyping and beartype hold every call against
the annotations. Traced arrays have shapes too, so a jitted function is checked while it is traced.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import jax
import numpy as np

#: An array of the device, or of the host, as whoever calls a function without tracing it may give one.
AnyArray = jax.Array | np.ndarray

CHECKED = os.environ.get("GRAFTAX_CHECK_SHAPES") == "1"
Function = TypeVar("Function", bound=Callable[..., Any])

if TYPE_CHECKING or CHECKED:
    from jaxtyping import Bool, Float, Int, UInt
else:

    class Float:
        """Stands for jaxtyping's where nothing is checked: what is annotated is an array of the given class."""

        def __class_getitem__(cls, array_and_axes: tuple[Any, str]) -> Any:
            return array_and_axes[0]

    Bool = Int = UInt = Float


def shaped(function: Function) -> Function:
    """The function, which where shapes are checked refuses arguments and results that do not fit its annotations."""
    if not CHECKED:
        return function
    from beartype import beartype
    from jaxtyping import jaxtyped

    return cast(Function, jaxtyped(function, typechecker=beartype))


__all__ = ["CHECKED", "AnyArray", "Bool", "Float", "Int", "UInt", "shaped"]
