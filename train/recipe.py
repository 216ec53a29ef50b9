"""How one adapter is trained: everything that may differ between the adapters of one run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any

from ..errors import GraftaxError
from ..models.chat import template_of
from ..typed import Positive, Rate, ShortSeed, Some, Within, settle
from .optimizer import optimizer_named
from .step import SCHEDULES

_MOST_EPOCHS = 100_000
Epochs = Annotated[int, Within(1, most=_MOST_EPOCHS)]


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one adapter's training.

    Raises:
        GraftaxError: a value of another type, not finite, or out of its range.
    """

    epochs: Epochs = 3  # passes over the rows
    lr: Positive = 1e-3  # peak learning rate of AdamW
    batch_size: Some = 32  # rows per step at most; an epoch's steps share its rows evenly
    max_length: Some = 128  # tokens per row; longer rows are cut, of "tag" into pieces, but
    truncate: bool = False  # rows with a response (sft) only if this says so: else they are refused
    schedule: str = "linear"  # after the warm-up: linear or cosine decay to zero, or constant
    warmup: Rate = 0.06  # share of the steps
    weight_decay: Annotated[float, Within(0.0)] = 0.0  # decoupled
    clip: Positive | None = 1.0  # of the gradient's global norm; None, or infinity, which becomes None: not at all
    optimizer: str = "adamw"  # any of optax's whose update is proportional to the learning rate
    preconditioned: bool = False  # low-rank gradients scaled by the other factor's inverse Gram matrix
    lora_plus: Positive = 1.0  # learning rate of LoRA's B, as a multiple of A's
    layer_decay: Positive = 1.0  # learning rate of a layer, as a multiple of that of the layer above
    beta: Positive = 0.1  # of task dpo: how much a likelihood away from the backbone's counts
    chat_template: str | None = None  # of chats: a name or a Jinja text (`models/chat.py`); None: the tokenizer's own
    #: epochs until the next layer below begins to train, from the head down; 0: all train from the start
    unfreeze: Annotated[float, Within(0.0, most=_MOST_EPOCHS)] = 0.0
    seed: ShortSeed = 0  # of the start, the order of the rows and dropout
    patience: Epochs | None = None  # epochs without improvement on the validation rows before stopping early

    def __post_init__(self) -> None:
        if isinstance(self.clip, float) and self.clip == math.inf:
            object.__setattr__(self, "clip", None)
        settle(self)
        if self.chat_template is not None:
            template_of(self.chat_template)
        if self.schedule not in SCHEDULES:
            raise GraftaxError(f"schedule {self.schedule!r} is none of {', '.join(SCHEDULES)}.")
        optimizer_named(self.optimizer)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with fields changed; an unknown field is an error that lists the fields."""
        fields = [field.name for field in dataclasses.fields(self)]
        unknown = [name for name in changes if name not in fields]
        if unknown:
            raise GraftaxError(f"no such setting: {', '.join(unknown)}; there are {', '.join(fields)}.")
        return dataclasses.replace(self, **changes)
