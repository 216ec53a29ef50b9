"""How a token is chosen of four, by hand: what may be drawn, what is penalised, and of which random bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graftax import Sampling
from graftax.models.generation import Rules
from graftax.serve.choice import Needs, Settings, choose, penalised

CHANCES = np.array([0.2, 0.4, 0.1, 0.3], np.float32)


def chosen(asked: list[dict[str, Any]], logits: Any, seen: Any = None, number: int = 0) -> list[int]:
    """The token of each row, all of the same logits."""
    rows = [Sampling(**settings).under(Rules()) for settings in asked]
    wide = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (len(rows), len(logits)))
    held = None if seen is None else jnp.broadcast_to(jnp.asarray(seen), wide.shape)
    numbers = jnp.full(len(rows), number, jnp.int32)
    return np.asarray(choose(Needs.of(rows), wide, Settings.of(rows, len(rows)), held, numbers)).tolist()


@pytest.mark.parametrize(
    ("asked", "may_be"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 1}, {1}),
        ({"top_k": 3}, {0, 1, 3}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.41}, {1, 3}),  # the fewest that together have so much
        ({"top_p": 0.69}, {1, 3}),
        ({"top_p": 0.71}, {0, 1, 3}),
        ({"min_p": 0.76}, {1}),  # the others are 0.75, 0.5 and 0.25 times as likely as the likeliest
        ({"min_p": 0.74}, {1, 3}),
        ({"min_p": 0.49}, {0, 1, 3}),
        ({"top_k": 2, "top_p": 0.56}, {1}),  # of two alone the likelier has 4/7
        ({"top_k": 2, "top_p": 0.58}, {1, 3}),
        ({"top_p": 0.89, "min_p": 0.6}, {1, 3}),
        ({"top_p": 0.3, "temperature": 10.0}, {1, 3}),  # nearly even: the likeliest has 0.27
    ],
)
def test_what_may_be_drawn(asked: dict[str, Any], may_be: set[int]) -> None:
    """In 300 draws every token that may be drawn is drawn."""
    assert {*chosen([{"temperature": 1.0, **asked, "seed": seed} for seed in range(300)], np.log(CHANCES))} == may_be


@pytest.mark.parametrize("number", [0, 3])
def test_the_bits_are_of_the_seed_and_of_how_many_were_drawn(number: int) -> None:
    logits = jnp.linspace(-1.0, 1.0, 50, dtype=jnp.float32)

    def by_hand(seed: int, temperature: float) -> int:
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), number)
        return int(jax.random.categorical(key, logits / temperature))

    asked = [{"seed": seed, "temperature": temperature} for seed in (7, 8) for temperature in (0.5, 2.0)]
    assert chosen(asked, logits, number=number) == [by_hand(**settings) for settings in asked]


def test_without_a_temperature_the_likeliest_beside_rows_that_draw() -> None:
    hot = [{"temperature": 1e4, "seed": seed} for seed in range(20)]
    found = chosen([{}, *hot, {"seed": 5}], np.log(CHANCES))
    assert (found[0], found[-1]) == (1, 1)
    assert len({*found[1:-1]}) == 4


def test_a_penalty_makes_what_is_there_unlikelier_on_both_sides_of_zero() -> None:
    logits, seen = jnp.array([[2.0, -2.0, 3.0], [2.0, -2.0, 3.0]]), jnp.array([[True, True, False], [False, False, True]])
    found = penalised(logits, seen, jnp.array([2.0, 4.0]))
    assert found.tolist() == [[1.0, -4.0, 3.0], [2.0, -2.0, 0.75]]


def test_a_penalty_is_minded_in_the_choice() -> None:
    logits, seen = [2.0, -1.0, 1.5, -2.0], [True, False, False, False]
    assert chosen([{}, {"repetition_penalty": 2.0}, {"repetition_penalty": 1.25}], logits, seen) == [0, 2, 0]
    drawn = chosen([{"temperature": 1e-3, "repetition_penalty": 2.0, "seed": seed} for seed in range(5)], logits, seen)
    assert drawn == [2] * 5


def test_rows_that_fill_a_batch_up_are_greedy_and_draw_nothing() -> None:
    rows = Settings.of([Sampling(temperature=2.0, top_k=3, top_p=0.5, min_p=0.25, seed=9).under(Rules())], 3)
    assert rows.temperature.tolist() == [2.0, 0.0, 0.0]
    assert (rows.top_k.tolist(), rows.top_p.tolist(), rows.min_p.tolist()) == ([3, 0, 0], [0.5, 1.0, 1.0], [0.25, 0.0, 0.0])
    assert (rows.seed.tolist(), rows.penalty.tolist()) == ([9, 0, 0], [1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        ([{}], Needs(draws=False, cuts=False, penalises=False)),
        ([{"top_k": 5}], Needs(draws=False, cuts=False, penalises=False)),  # of no meaning to a greedy row
        ([{}, {"temperature": 1.0}], Needs(draws=True, cuts=False, penalises=False)),
        ([{"temperature": 1.0}, {"temperature": 1.0, "top_k": 5}], Needs(draws=True, cuts=True, penalises=False)),
        ([{"temperature": 1.0, "top_p": 0.9}], Needs(draws=True, cuts=True, penalises=False)),
        ([{"temperature": 1.0, "min_p": 0.1}], Needs(draws=True, cuts=True, penalises=False)),
        ([{}, {"repetition_penalty": 0.5}], Needs(draws=False, cuts=False, penalises=True)),
    ],
)
def test_a_batch_computes_what_some_row_asks_for(asked: list[dict[str, Any]], needs: Needs) -> None:
    assert Needs.of([Sampling(**settings).under(Rules()) for settings in asked]) == needs
