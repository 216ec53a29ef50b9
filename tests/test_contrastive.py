"""Contrastive training: its losses by their formulas, what belongs together in a batch, and what is measured."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from graftax import GraftaxError, Recipe
from graftax.data.columns import filled
from graftax.data.sources import Source
from graftax.tasks import metrics
from graftax.tasks.task_registry import task_named
from graftax.train.step import hyper

#: Which picture, text and label each of five items has: the first and third have one text, the second and fourth one picture,
#: and the fifth has the label of the first.
LABELS = np.array([[0, 0, 0], [1, 1, 1], [2, 0, 2], [1, 2, 3], [3, 3, 0]], np.int32)
RIGHT = np.array([[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1]], bool)


def outputs(items: int = 5) -> np.ndarray:
    """Vectors of pictures, with scale and bias, and of texts (`Compared.together`)."""
    both = np.random.default_rng(0).standard_normal((items, 2, 5)).astype(np.float32)
    both[:, 1, -1] = 1.0
    return both


def by_hand(name: str, z: np.ndarray, right: np.ndarray) -> float:
    if name == "contrastive-sigmoid":
        return float(-np.log(1 / (1 + np.exp(np.where(right, -z, z)))).sum(1).mean())

    def one_way(z: np.ndarray, right: np.ndarray) -> np.ndarray:
        logs = z - np.log(np.exp(z).sum(1, keepdims=True))
        return np.array([-logs[i][right[i]].mean() for i in range(len(z))])

    return float((one_way(z, right) + one_way(z.T, right.T)).mean() / 2)


def loss(name: str, both: Any, labels: np.ndarray, weight: np.ndarray) -> jax.Array:
    return task_named(name).loss(jnp.asarray(both), labels, hyper(Recipe(), 1, 0), jnp.asarray(weight))


@pytest.mark.parametrize("name", ["contrastive", "contrastive-sigmoid"])
def test_the_loss_is_its_formula(name: str) -> None:
    """Two items with one text, or one picture, are no other's negatives; and what fills a batch has no part in it."""
    both = outputs()
    z = both[:, 0] @ both[:, 1].T
    wanted = by_hand(name, z, RIGHT)
    assert abs(wanted - by_hand(name, z, np.eye(5, dtype=bool))) > 0.01
    np.testing.assert_allclose(loss(name, both, LABELS, np.ones(5, np.float32)), wanted, rtol=1e-5)
    filled = np.concatenate([both, np.zeros((2, 2, 5), np.float32)])
    labels, weight = np.concatenate([LABELS, np.full((2, 3), -1, np.int32)]), np.array([1, 1, 1, 1, 1, 0, 0], np.float32)
    value, gradient = jax.value_and_grad(lambda both: loss(name, both, labels, weight))(filled)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient[5:]).any()
    assert float(loss(name, filled, labels, np.zeros(7, np.float32))) == 0.0


def test_a_vector_of_zeros_has_a_derivative() -> None:
    """As of what fills a batch of kept features: not a number there would spoil the others."""
    from graftax.adapters.methods.joint import unit

    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit(x), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    gradient = jax.grad(lambda x: (unit(x) * jnp.array([1.0, 2.0])).sum())(x)
    assert np.isfinite(gradient).all()


def test_retrieval_by_hand() -> None:
    """Three pictures, two texts: the first text is of two of the pictures, and each counts once."""
    pictures, texts = [0, 1, 2, 0], [0, 0, 1, 0]
    logits = np.array([[2.0, 2, 1, 2], [0, 0, 3, 0], [1, 1, 2, 1], [2, 2, 1, 2]])
    found = metrics.retrieval(logits, pictures, texts, texts)
    assert found["image_to_text"] == pytest.approx(2 / 3)  # the second picture is taken for the second text's
    assert found["text_to_image"] == 0.5  # whose nearest picture it is
    alike = metrics.retrieval(logits, pictures, texts, [0, 1, 1, 0])  # the second picture and the second text have one label
    assert (alike["image_to_text"], alike["text_to_image"]) == (1.0, 1.0)
    assert found["image_to_text_at_5"] == found["text_to_image_at_5"] == 1.0
    assert (found["image_to_text_median_rank"], found["text_to_image_median_rank"]) == (1.0, 1.5)


def test_ranks_are_counted_to_the_first_that_is_right() -> None:
    """Twelve rows: picture i finds its text behind i others, and text 0, of which all pictures say most, its own at once."""
    numbers = list(range(12))
    logits = np.array([[100.0 - (j - i) % 12 + 50 * (j < i) - 50 * (j == i) * (i > 0) for j in numbers] for i in numbers])
    found = metrics.retrieval(logits, numbers, numbers, numbers)
    ranks = 1 + (logits > np.diag(logits)[:, None]).sum(1)
    assert len({*ranks.tolist()}) > 1
    assert found["image_to_text_median_rank"] == np.median(ranks)
    for name, k in (("image_to_text", 1), ("image_to_text_at_5", 5), ("image_to_text_at_10", 10)):
        assert found[name] == np.mean(ranks <= k)


def test_a_text_may_be_made_of_other_columns() -> None:
    """Braces name them; numbers of classes are their names. A column that is called so is that column."""
    source = Source("rows", [{"label": 1, "size": "big"}, {"label": 0, "size": "small"}], {"label": ("cat", "dog")})
    made = filled(source, "a {size} {label}.")
    assert [row["a {size} {label}."] for row in made.rows] == ["a big dog.", "a small cat."]
    assert filled(source, "label") is source
    assert filled(made, "a {size} {label}.") is made
    with pytest.raises(GraftaxError, match="no column 'colour'; it has label, size"):
        filled(source, "a {colour} thing")
