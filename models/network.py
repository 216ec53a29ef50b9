"""What every backbone's module is: a frozen network that asks at its sites what an adapter does there.

A network computes with its parts' weights, and asks `grafts.outside()` at each site (`SiteCalls` in `adapters/graft.py`), so
that methods act there. Its attributes are called as its parts are: the part `first` is `self.first`, `stage.layers.conv` is
`self.stage.layers.conv`. Layers of one kind are a `Stack`, and several stacks one behind another a `Chain` (`stack.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax
from flax import nnx

from ..adapters.graft import Grafts
from ..adapters.structure import Cut, Structure
from ..errors import GraftaxError
from .inputs import Inputs
from .layers import Arrays

if TYPE_CHECKING:
    from .stack import Stack

Unrolled = Mapping[str, Sequence[Any]]  # by stack: the parameters of each of its layers


class Network(nnx.Module):
    """A backbone's module; what it can do is declared by its class."""

    generates: ClassVar[bool] = False  # whether it is a language model (`LanguageModel`), with `prefill` and `step`
    encodes: ClassVar[bool] = False  # whether it is an encoder-decoder: what it writes answers another text
    keeps_frozen: ClassVar[bool] = False  # whether it has `frozen`, and goes on from there (`Inputs.hidden`)

    @abstractmethod
    def __init__(self, config: Any, arrays: Arrays):
        """From the family's config, and the arrays of its parts by weight name, "first.kernel"; those of layers stacked."""

    @classmethod
    def has_frozen(cls, cut: Cut, structure: Structure) -> bool:
        """Whether layers lie below a cut of a backbone of this structure, and what they make of an item can be kept."""
        return cls.keeps_frozen and (cut.layer > 0 or cut.stack != next(iter(structure.stacks), ""))

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Its stacks of layers."""
        return ()

    @abstractmethod
    def __call__(self, inputs: Inputs, grafts: Grafts, *, pooled: bool = False, layers: Unrolled | None = None) -> Any:
        """What it makes of a batch: `Outputs`, a pair of towers `Compared`. Where it has no stacks, `layers` is None.

        `pooled`: what heads read of a text as a whole is asked for, and nothing else; a network need not make use of that.
        """

    def frozen(self, inputs: Inputs, cut: Cut, *, pooled: bool) -> jax.Array:
        """What enters the layer at a cut, where nothing acts below it, for `Inputs.hidden`."""
        raise GraftaxError("what this network's frozen layers make of an item is not kept.")
