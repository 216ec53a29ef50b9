"""What is asked of loops, and what comes of it: plain data, which know neither JAX nor HTTP.

A *loop* is an adapter that somebody trains call by call. Each call names its loop:

    Call("alice", [Datum([3, 7, 5], {"target_tokens": [7, 5, 2], "weights": [0, 1, 1]})], "cross_entropy")
    Step("alice", learning_rate=1e-4)

A datum is a text and, for each of its tokens, what a loss reads (`token_losses.py`): `target_tokens`, the token that is
learnt to stand behind it, and numbers. Losses are sums over tokens, never means; who wants a mean divides the weights. What
is wrong with a call is said in its own outcome, `error`, so that calls that are computed together do not fail together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from ...typed import Name, Within, settle
from ..training_cost import Cost

Momentum = Annotated[float, Within(0.0, below=1.0)]  # the share of a mean that stays in a step


@dataclass(frozen=True)
class Datum:
    """A text, and what a loss reads of each of its tokens."""

    tokens: Any  # integers [T], at least one
    inputs: Mapping[str, Any]  # by name an array [T]: `target_tokens`, `weights`, `logprobs`, `advantages`, ...


@dataclass(frozen=True)
class Call:
    """Data whose loss and gradient are asked for; the gradient is added to the loop's."""

    loop: str
    data: Sequence[Datum]
    loss: str = "cross_entropy"  # a name of `token_losses.LOSSES`
    settings: Mapping[str, float] = field(default_factory=dict)  # of the loss: `clip_low_threshold`, `beta`, ...
    forward_only: bool = False  # whether no gradient is wanted; then the loop stays as it is


@dataclass(frozen=True)
class Outcome:
    """What came of a call: either all of it, or an error and nothing."""

    logprobs: tuple[np.ndarray, ...] = ()  # of each datum float32 [T]: of `target_tokens`, before any step
    loss: float = 0.0  # summed over all tokens of all data
    error: str | None = None  # one line; the loop then is what it was before the call, to the last bit
    cost: Cost = Cost()

    @property
    def metrics(self) -> dict[str, float]:
        """As Tinker names them: what stands behind the colon says how those of several calls become one."""
        cost = {"tokens:sum": float(self.cost.tokens), "device_seconds:sum": self.cost.seconds}
        return {"loss:sum": self.loss, **cost}


@dataclass(frozen=True)
class Step:
    """A step of Adam along a loop's gradient, which is zero again behind it.

    Fields and defaults are those of Tinker's `AdamParams`, and so is what they mean.
    """

    loop: Name
    learning_rate: float = 1e-4
    beta1: Momentum = 0.9
    beta2: Momentum = 0.95
    eps: Annotated[float, Within(0.0)] = 1e-12  # added to the root, not under it
    weight_decay: Annotated[float, Within(0.0)] = 0.0  # decoupled from the gradient: times the learning rate and the leaf
    grad_clip_norm: Annotated[float, Within(0.0)] = 0.0  # the gradient's norm over all leaves at most; 0: whatever it is

    def __post_init__(self) -> None:
        settle(self, f"a step of {self.loop}")


@dataclass(frozen=True)
class StepOutcome:
    """What came of a step."""

    gradient_norm: float = 0.0  # over all leaves, before it was clipped
    calls: int = 0  # whose gradients the step went along; without any nothing moves and nothing is counted
    error: str | None = None  # one line; then nothing has moved, and the gradient is what it was
    cost: Cost = Cost()

    @property
    def metrics(self) -> dict[str, float]:
        return {"grad_norm": self.gradient_norm, "calls": float(self.calls), "device_seconds": self.cost.seconds}


@dataclass(frozen=True)
class Moments:
    """What Adam remembers of a loop, for a file: its steps and two running means.

    The means are by leaf at true size; a leaf is named as in `lora/layers.query.0/a` (`room.name_of`).
    """

    steps: int
    first: Mapping[str, np.ndarray]  # of the gradient
    second: Mapping[str, np.ndarray]  # of its square
