"""What may be set of GRPO, beside the recipe.

Names, defaults and meanings are those of TRL's `GRPOConfig`, but for the names that graftax has for the same thing elsewhere:
`max_new_tokens` is its `max_completion_length`, `steps` its `max_steps`. The fields are also options of the command line, with
the words that stand beside them here; its help reads them, so this file imports no JAX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_doc import Doc

from ...errors import GraftaxError
from ...train.recipe import Recipe
from ...typed import Count, Positive, Share, Some, Within, settle

SCALES = ("group", "batch", "none")
LOSSES = ("dapo", "grpo", "dr_grpo")
_MOST_IN_A_GROUP = 4096

#: Of a recipe where nobody says otherwise. What is sampled changes from step to step: steps are smaller, and cost more.
USUAL = {"lr": 1e-4, "batch_size": 8}

#: Fields of a recipe of which GRPO makes no use. `beta` is among them: where it is for GRPO it is a field of the settings.
UNUSED: tuple[str, ...] = (
    "max_length",
    "truncate",
    "optimizer",
    "preconditioned",
    "lora_plus",
    "layer_decay",
    "beta",
    "augment",
    "head",
)
UNUSED += ("unfreeze", "patience")


@dataclass(frozen=True)
class GrpoSettings:
    """Settings of GRPO (Shao et al., 2024, arXiv:2402.03300).

    Raises:
        GraftaxError: a value of another type, not finite, or out of its range.
    """

    num_generations: Annotated[int, Within(2, most=_MOST_IN_A_GROUP), Doc("Completions sampled for each prompt: a group.")] = 8
    max_new_tokens: Annotated[Some, Doc("Tokens of a completion at most.")] = 256
    temperature: Annotated[float, Within(above=0.0, most=1e6), Doc("Of the sampling.")] = 1.0
    top_k: Annotated[Count, Doc("Sample from this many of the likeliest tokens; 0: from all.")] = 0
    top_p: Annotated[Share, Doc("Sample from the fewest tokens that together have this probability.")] = 1.0
    stop: Annotated[tuple[str, ...], Doc("End a completion before this text; once per text.")] = ()
    reward_weights: Annotated[
        tuple[float, ...], Doc("What each --reward counts, in their order; once per reward. Default: all 1.")
    ] = ()
    scale_rewards: Annotated[
        str, Doc("Advantages are divided by the deviation of the rewards in a group, in the batch, or (none, Dr. GRPO) not.")
    ] = "group"
    loss_type: Annotated[
        str,
        Doc("Mean over: dapo, all tokens of a step; grpo, those of each completion; dr_grpo, as if all had max-new-tokens."),
    ] = "dapo"
    epsilon: Annotated[Positive, Within(below=1.0), Doc("The ratio of chances is clipped to 1 +- this.")] = 0.2
    beta: Annotated[float, Within(0.0), Doc("How much the divergence from the backbone costs; 0: nothing.")] = 0.0
    num_iterations: Annotated[Some, Doc("Optimizer steps along the completions of one step.")] = 1
    steps: Annotated[Some | None, Doc("Steps in all, in place of epochs.")] = None

    def __post_init__(self) -> None:
        settle(self)
        if not all(self.stop):
            raise GraftaxError("stop must be a list of texts, and one of them is empty.")
        if self.scale_rewards not in SCALES:
            raise GraftaxError(f"scale_rewards {self.scale_rewards!r} is none of {', '.join(SCALES)}.")
        if self.loss_type not in LOSSES:
            raise GraftaxError(f"loss_type {self.loss_type!r} is none of {', '.join(LOSSES)}.")


def refuse_unused(recipe: Recipe) -> None:
    """A GraftaxError where a recipe has a setting that would be passed over."""
    for name in UNUSED:
        if (value := getattr(recipe, name)) != getattr(Recipe, name):
            instead = "; it is a field of GrpoSettings" if name == "beta" else ""
            raise GraftaxError(f"grpo makes no use of the recipe's {name}, which is {value!r}{instead}.")
