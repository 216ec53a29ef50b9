"""A way to say which positions of an input have how large a share in an answer; they are in `ways.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import jax

from ...adapters.graft import State
from ...models.backbone import Backbone
from .question import Question


class Attributed(NamedTuple):
    """What was found for each row of a batch."""

    values: jax.Array  # of each position, `[rows, *positions]`
    #: of a way whose values add up to that, `[rows]`: how much more speaks for the label than of the blank input
    difference: jax.Array | None = None


class Way(ABC):
    """One such way; what it computes is a pure function."""

    name: ClassVar[str]  # as `--method` takes it
    said: ClassVar[str]  # what its values are, in a sentence for people
    signed: ClassVar[bool] = False  # whether values below 0 speak against the label
    of_label: ClassVar[bool] = True  # whether it is another for another label

    @abstractmethod
    def unfit(self, backbone: Backbone) -> str | None:
        """Why it does not fit a backbone, in words behind its name; None where it does."""

    @abstractmethod
    def attribute(
        self, question: Question, params: Any, state: State, inputs: Any, blank: Any, labels: jax.Array
    ) -> Attributed:
        """What it says of a batch; to be traced. `labels [rows]`: numbers of the labels that are explained."""
