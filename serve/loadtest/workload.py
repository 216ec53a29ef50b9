"""What is asked, of whom and when: the workload of S-LoRA (Sheng et al., MLSys 2024), drawn from a seed.

Of n adapters the i-th is asked in proportion to i ** -alpha: of few many ask, of most hardly anybody. Between two requests lies
a time of a Gamma distribution with mean 1 / rate and coefficient of variation cv: at 1 they come independently of each other
(Poisson), above it in bursts. The lengths of prompts and of what is written are uniform between two bounds.

The fields are options of the command line, so this file imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_doc import Doc

from ...errors import GraftaxError
from ...typed import Positive, Some, Within, settle


@dataclass(frozen=True)
class Workload:
    """How requests are drawn."""

    alpha: Annotated[
        float, Within(0.0), Doc("The i-th adapter is asked in proportion to i ** -alpha; 0: all of them alike.")
    ] = 1.0
    cv: Annotated[Positive, Doc("How unevenly requests come: 1 independently of each other, more in bursts.")] = 1.0
    words: tuple[Some, Some] = (8, 64)  # of a prompt or text: the fewest and the most
    tokens: tuple[Some, Some] = (8, 32)  # that are to be written behind a prompt, likewise

    def __post_init__(self) -> None:
        settle(self)
        for name, (fewest, most) in (("words", self.words), ("tokens", self.tokens)):
            if fewest > most:
                raise GraftaxError(f"{name}: {fewest}-{most} is no range; the smaller number comes first.")
