"""How one adapter is trained: everything that may differ between the adapters of one run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import GraftaxError
from ..models.chat import template_of
from ..settings import check_flag, check_number, check_positive, check_whole
from .optimizer import optimizer_named
from .step import SCHEDULES

_MOST_EPOCHS = 100_000


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one adapter's training.

    Raises:
        GraftaxError: a value of another type, not finite, or out of its range.
    """

    epochs: int = 3  # passes over the rows
    lr: float = 1e-3  # peak learning rate of AdamW
    batch_size: int = 32  # rows per step at most; an epoch's steps share its rows evenly
    max_length: int = 128  # tokens per row; longer rows are cut, of "tag" into pieces, but
    truncate: bool = False  # rows with a response (sft) only if this says so: else they are refused
    schedule: str = "linear"  # after the warm-up: linear or cosine decay to zero, or constant
    warmup: float = 0.06  # share of the steps
    weight_decay: float = 0.0  # decoupled
    clip: float | None = 1.0  # of the gradient's global norm; None, or infinity, which becomes None: not at all
    optimizer: str = "adamw"  # any of optax's whose update is proportional to the learning rate; one for a whole run
    preconditioned: bool = False  # low-rank gradients scaled by the other factor's inverse Gram matrix; likewise
    lora_plus: float = 1.0  # learning rate of LoRA's B, as a multiple of A's
    layer_decay: float = 1.0  # learning rate of a layer, as a multiple of that of the layer above
    beta: float = 0.1  # of task dpo: how much a likelihood away from the backbone's counts
    chat_template: str | None = None  # of chats: a name or a Jinja text (`models/chat.py`); None: the tokenizer's own
    unfreeze: float = 0.0  # epochs until the next layer below begins to train, from the head down; 0: all train from the start
    seed: int = 0  # of the start, the order of the rows and dropout
    patience: int | None = None  # epochs without improvement on the validation rows before stopping early

    def __post_init__(self) -> None:
        check_whole("epochs", self.epochs, 1, _MOST_EPOCHS)
        for name in ("batch_size", "max_length"):
            check_whole(name, getattr(self, name), 1, 2**31 - 1)
        check_whole("seed", self.seed, 0, 2**32 - 1)
        if self.patience is not None:
            check_whole("patience", self.patience, 1, _MOST_EPOCHS)
        if isinstance(self.clip, float) and self.clip == math.inf:
            object.__setattr__(self, "clip", None)
        if self.clip is not None:
            check_positive("clip", self.clip)
        for name in ("lr", "lora_plus", "layer_decay", "beta"):
            check_positive(name, getattr(self, name))
        check_number("weight_decay", self.weight_decay)
        check_number("warmup, a share of the steps,", self.warmup, most=1 - 2**-24)
        check_number("unfreeze, a number of epochs,", self.unfreeze, most=_MOST_EPOCHS)
        for name in ("truncate", "preconditioned"):
            check_flag(name, getattr(self, name))
        if self.chat_template is not None:
            template_of(self.chat_template)
        if self.schedule not in SCHEDULES:
            raise GraftaxError(f"schedule {self.schedule!r} is none of {', '.join(SCHEDULES)}.")
        if not isinstance(self.optimizer, str):
            raise GraftaxError(f"optimizer must be the name of one of optax's, got {self.optimizer!r}.")
        optimizer_named(self.optimizer)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with fields changed; an unknown field is an error that lists the fields."""
        fields = [field.name for field in dataclasses.fields(self)]
        unknown = [name for name in changes if name not in fields]
        if unknown:
            raise GraftaxError(f"no such setting: {', '.join(unknown)}; there are {', '.join(fields)}.")
        return dataclasses.replace(self, **changes)
