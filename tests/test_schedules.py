"""The learning rate of every step: its rise, its fall, and that the schedule's word in a recipe is obeyed."""

import math
from collections.abc import Callable

import jax
import numpy as np
import pytest

from graftax import Recipe
from graftax.train.recipe import SCHEDULES
from graftax.train.step import hyper, learning_rate

STEPS, WARMUP = 10, 3

#: by schedule: the share of the peak after so much of what follows the warm-up (Loshchilov & Hutter, 2017, eq. 5, for cosine)
FALL: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1.0 + math.cos(math.pi * done)) / 2.0,
    "constant": lambda done: 1.0,
}


def rates(recipe: Recipe) -> list[float]:
    h = hyper(recipe, STEPS, classes=2)
    return [float(jax.jit(learning_rate)(h, np.int32(step))) for step in range(STEPS)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_step(schedule: str) -> None:
    falling = [FALL[schedule](step / (STEPS - WARMUP)) for step in range(STEPS - WARMUP)]
    wanted = [1 / 3, 2 / 3, 1.0, *falling]
    got = rates(Recipe(lr=0.5, schedule=schedule, warmup=WARMUP / STEPS))
    np.testing.assert_allclose(got, 0.5 * np.array(wanted), rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_first_step_is_at_the_peak(schedule: str) -> None:
    got = rates(Recipe(lr=2.0, schedule=schedule, warmup=0.0))
    np.testing.assert_allclose(got, [2.0 * FALL[schedule](step / STEPS) for step in range(STEPS)], rtol=1e-6)


def test_warm_up_is_a_share_of_the_steps_to_the_nearest_whole_one() -> None:
    assert hyper(Recipe(warmup=0.26), STEPS, classes=2).warmup == 3
    assert hyper(Recipe(warmup=0.06), 100, classes=2).warmup == 6
