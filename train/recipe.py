"""How one adapter is trained: everything that may differ between the adapters of one run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..errors import GraftaxError
from .optimizer import optimizer_named
from .step import SCHEDULES


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one adapter's training."""

    epochs: int = 3  # passes over the rows
    lr: float = 1e-3  # peak learning rate of AdamW
    batch_size: int = 32  # rows per step at most; an epoch's steps share its rows evenly
    max_length: int = 128  # tokens per row; longer rows are cut, but
    truncate: bool = False  # rows with a response (sft) only if this says so: else they are refused
    schedule: str = "linear"  # after the warm-up: linear or cosine decay to zero, or constant
    warmup: float = 0.06  # share of the steps
    weight_decay: float = 0.0  # decoupled
    clip: float | None = 1.0  # of the gradient's global norm
    optimizer: str = "adamw"  # any of optax's whose update is proportional to the learning rate; one for a whole run
    preconditioned: bool = False  # low-rank gradients scaled by the other factor's inverse Gram matrix; likewise
    lora_plus: float = 1.0  # learning rate of LoRA's B, as a multiple of A's
    layer_decay: float = 1.0  # learning rate of a layer, as a multiple of that of the layer above
    beta: float = 0.1  # of task dpo: how much a likelihood away from the backbone's counts
    unfreeze: float = 0.0  # epochs until the next layer below begins to train, from the head down; 0: all train from the start
    seed: int = 0  # of the start, the order of the rows and dropout
    patience: int | None = None  # epochs without improvement on the validation rows before stopping early

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_length", "seed", "patience"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if name == "patience" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise GraftaxError(f"{name} must be a whole number, at least {least}; got {value!r}.")
        for name in ("lr", "warmup", "weight_decay", "clip", "lora_plus", "layer_decay", "beta", "unfreeze"):
            value = getattr(self, name)
            if not isinstance(value, int | float) and not (name == "clip" and value is None):
                raise GraftaxError(f"{name} must be a number, got {value!r}.")
        if self.seed >= 2**32:
            raise GraftaxError(f"seed must be less than 2**32, got {self.seed}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise GraftaxError(f"the learning rate must be positive, got {self.lr}.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise GraftaxError(f"weight_decay must not be negative, got {self.weight_decay}.")
        if self.clip is not None and not self.clip > 0:
            raise GraftaxError(f"clip must be positive, got {self.clip}.")
        for name in ("lora_plus", "layer_decay", "beta"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise GraftaxError(f"{name} must be positive, got {getattr(self, name)}.")
        if not (math.isfinite(self.unfreeze) and self.unfreeze >= 0):
            raise GraftaxError(f"unfreeze is a number of epochs, at least 0; got {self.unfreeze}.")
        optimizer_named(self.optimizer)
        if self.schedule not in SCHEDULES:
            raise GraftaxError(f"schedule {self.schedule!r} is none of {', '.join(SCHEDULES)}.")
        if not 0.0 <= self.warmup < 1.0:
            raise GraftaxError(f"warmup is a share of the steps, in [0, 1); got {self.warmup}.")

    def replace(self, **changes: Any) -> Recipe:
        """A copy with fields changed; an unknown field is an error that lists the fields."""
        fields = [field.name for field in dataclasses.fields(self)]
        unknown = [name for name in changes if name not in fields]
        if unknown:
            raise GraftaxError(f"no such setting: {', '.join(unknown)}; there are {', '.join(fields)}.")
        return dataclasses.replace(self, **changes)
