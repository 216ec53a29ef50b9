"""What may be asked of how one row's next tokens are chosen. `choice.py` chooses them, on the device.

Names and order are transformers'. Nothing asked for is greedy, whatever `generation_config.json` says of drawing
(`models/generation.py` says what of it is taken). The fields are also options of the command line, with the words that stand
beside them here; its help reads them, so this file imports no JAX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from annotated_doc import Doc

from ..errors import GraftaxError
from ..typed import Count, Share, ShortSeed, Some, Within, held, settle

if TYPE_CHECKING:
    from ..models.generation import Rules

_LARGEST = 1e6  # of numbers: beyond, their float32s and what is made of them would end in infinities
Penalty = Annotated[float, Within(1 / _LARGEST, most=_LARGEST)]
Power = Annotated[float, Within(-_LARGEST, most=_LARGEST)]
Probability = Annotated[float, Within(0.0, most=1.0)]
Beams = Annotated[int, Within(1, most=1000)]
_BY_BACKBONE = ("repetition_penalty", "length_penalty", "early_stopping")
_OF_DRAWING, _OF_BEAMS = ("top_k", "top_p", "min_p"), ("length_penalty", "early_stopping")


@dataclass(frozen=True)
class Sampling:
    """How one row's continuation is drawn. None: as the backbone's `generation_config.json` says, else without effect."""

    max_new_tokens: Annotated[Some, Doc("Tokens to generate at most.")] = 64
    temperature: Annotated[float, Within(0.0, most=_LARGEST), Doc("0: the likeliest token, always.")] = 0.0
    top_k: Annotated[Count, Doc("Draw from this many of the likeliest tokens; 0: from all.")] = 0
    top_p: Annotated[Share, Doc("Draw from the fewest tokens that together have this probability.")] = 1.0
    min_p: Annotated[Probability, Doc("Draw from tokens at least this times as likely as the likeliest.")] = 0.0
    repetition_penalty: Annotated[
        Penalty | None,
        Doc("Above 1: tokens that are there already become unlikelier. Default: as generation_config.json says."),
    ] = None
    stop: Annotated[tuple[str, ...], Doc("End before this text; once per text.")] = ()
    seed: Annotated[ShortSeed, Doc("Row i draws from seed + i.")] = 0  # greedy search and beams draw nothing
    num_beams: Annotated[Beams, Doc("Above 1: beam search, of so many texts at once.")] = 1  # the same for all rows of a call
    length_penalty: Annotated[
        Power | None, Doc("Of beams: scores are divided by the length to this power. Default: as of the penalty.")
    ] = None
    early_stopping: Annotated[
        bool | None, Doc("Of beams: end with the first that are finished. Default: as of the penalty.")
    ] = None

    def __post_init__(self) -> None:
        settle(self)
        if not all(self.stop):
            raise GraftaxError("stop must be a list of texts, and one of them is empty.")
        if self.num_beams > 1 and (self.temperature > 0 or self.stop):
            raise GraftaxError("beam search draws nothing and knows no stop texts: num_beams goes with temperature 0 alone.")

    @held
    def changed(self, changes: Mapping[str, Any]) -> Sampling:
        """A copy with fields changed; an unknown field is an error that lists the fields."""
        unknown = [name for name in changes if name not in self.__dataclass_fields__]
        if unknown:
            raise GraftaxError(f"no such setting: {', '.join(unknown)}; there are {', '.join(self.__dataclass_fields__)}.")
        return replace(self, **changes)

    @property
    def idle(self) -> dict[str, str]:
        """Fields that were set and have no effect, and what they would need."""
        needs = {} if self.temperature > 0 else dict.fromkeys(_OF_DRAWING, "a temperature")
        needs |= {} if self.num_beams > 1 else dict.fromkeys(_OF_BEAMS, "num_beams above 1")
        return {name: need for name, need in needs.items() if getattr(self, name) != getattr(Sampling, name)}

    def under(self, rules: Rules) -> Sampling:
        """With the backbone's own word where this has none."""
        return replace(self, **{name: getattr(rules, name) for name in _BY_BACKBONE if getattr(self, name) is None})
