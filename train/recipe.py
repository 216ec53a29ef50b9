"""How one adapter is trained: everything that may differ between the adapters of one run.

The fields are also options of the command line, with the words that stand beside them here. Its help reads them and does
without JAX, so what the checks need of it is imported where they are made.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_doc import Doc

from ..errors import GraftaxError
from ..typed import Positive, Rate, ShortSeed, Some, Within, settle

SCHEDULES = ("linear", "cosine", "constant")
OWN = "own"  # the head that a checkpoint brings
HEADS = ("linear", "multiscale", OWN)
_MOST_EPOCHS = 100_000
Epochs = Annotated[int, Within(1, most=_MOST_EPOCHS)]


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one adapter's training.

    Raises:
        GraftaxError: a value of another type, not finite, or out of its range.
    """

    epochs: Annotated[Epochs, Doc("Passes over the rows.")] = 3
    lr: Annotated[Positive, Doc("Peak learning rate; of task grpo 1e-4 unless it is given.")] = 1e-3
    #: at most: an epoch's steps share its rows evenly
    batch_size: Annotated[Some, Doc("Rows per step; of task grpo 8 unless it is given.")] = 32
    max_length: Annotated[Some, Doc("Tokens per row. Longer rows are cut, of tag in pieces, of sft and seq2seq refused.")] = 128
    truncate: Annotated[bool, Doc("Cut rows with a response, too.")] = False
    schedule: Annotated[str, Doc("After the warm-up: linear, cosine or constant.")] = "linear"  # to zero, but the last
    warmup: Annotated[Rate, Doc("Share of the steps with a rising learning rate.")] = 0.06
    weight_decay: Annotated[float, Within(0.0), Doc("Decoupled weight decay.")] = 0.0
    #: None, or infinity, which becomes None: not at all
    clip: Annotated[Positive | None, Doc("Clip the gradient's norm to this, per adapter.")] = 1.0
    #: any of optax's whose update is proportional to the learning rate
    optimizer: Annotated[str, Doc("optax's name for it: adamw, lion, sgd, ...")] = "adamw"
    #: scaled by the other factor's inverse Gram matrix
    preconditioned: Annotated[bool, Doc("Riemannian preconditioning of low-rank gradients.")] = False
    lora_plus: Annotated[Positive, Doc("LoRA+: B's learning rate as a multiple of A's.")] = 1.0
    layer_decay: Annotated[Positive, Doc("A layer's learning rate as a multiple of the next one's above.")] = 1.0
    beta: Annotated[
        Positive, Doc("Of tasks dpo and (0 unless it is given) grpo: how firmly the adapter is held to what the backbone says.")
    ] = 0.1
    chat_template: str | None = None  # of chats: a name or a Jinja text (`models/chat.py`); None: the tokenizer's own
    #: `models/augment.py` says what each word does
    augment: Annotated[
        str | None, Doc("Pictures: any of crop, flip, colour, randaugment, mixup and cutmix, as crop=0.5+flip. Default: none.")
    ] = None
    head: Annotated[
        str,
        Doc(
            "own: the one that the checkpoint brings, trained on with its labels. Of image-segment and image-detect: linear "
            "over the last feature map, or multiscale over several."
        ),
    ] = "linear"
    unfreeze: Annotated[
        float,
        Within(0.0, most=_MOST_EPOCHS),
        Doc("Epochs until the next layer below begins to train; 0: all at once."),
    ] = 0.0
    seed: Annotated[ShortSeed, Doc("Of the start, the order of the rows, dropout and augmentation.")] = 0
    patience: Annotated[Epochs | None, Doc("Stop after this many epochs without improvement (needs --val).")] = None

    def __post_init__(self) -> None:
        if isinstance(self.clip, float) and self.clip == math.inf:
            object.__setattr__(self, "clip", None)
        settle(self)
        if self.chat_template is not None:
            from ..models.chat import template_of

            template_of(self.chat_template)
        if self.augment is not None:
            from ..models.augment import Augment

            Augment.of(self.augment)
        if self.schedule not in SCHEDULES:
            raise GraftaxError(f"schedule {self.schedule!r} is none of {', '.join(SCHEDULES)}.")
        if self.head not in HEADS:
            raise GraftaxError(f"head {self.head!r} is none of {', '.join(HEADS)}.")
        from .optimizer import optimizer_named

        optimizer_named(self.optimizer)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with fields changed; an unknown field is an error that lists the fields."""
        fields = [field.name for field in dataclasses.fields(self)]
        unknown = [name for name in changes if name not in fields]
        if unknown:
            raise GraftaxError(f"no such setting: {', '.join(unknown)}; there are {', '.join(fields)}.")
        return dataclasses.replace(self, **changes)
