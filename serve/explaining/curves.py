"""Whether an explanation means anything: deletion and insertion curves (Petsiuk et al., 2018, arXiv:1806.07421).

The fragments of an input are put in order by what is attributed to them. *Deletion* takes them away in that order, the largest
first, and asks after every few what is said of the label; *insertion* begins with the blank input and gives them back. The area
under a curve is its mean height: if the order means something, deletion has a small one and insertion a large one.

    of 4 fragments    deletion: 0.9, 0.3, 0.2, 0.1, 0.1  ->  0.275        insertion: 0.1, 0.8, 0.9, 0.9, 0.9  ->  0.775

What is small is seen beside orders drawn at random, with a seed, that are asked in the same way. Those of a text's tokens are
just any; those of a picture's cells are the same marks elsewhere, moved and mirrored (`Kind.moved`), for a network is harmed
more by cells that lie scattered than by as many beside each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...adapters.graft import State
from .fragments import Kind
from .question import Question

_STEPS = 14  # how often is asked of a curve, beside its beginning
_TOGETHER = 16  # inputs in a batch


@dataclass(frozen=True)
class Curves:
    """The curves of one row, and the areas of random orders."""

    shares: tuple[float, ...]  # of the fragments that were taken away, or given back: from 0 to 1
    deletion: tuple[float, ...]  # what is said of the label, a probability or a number
    insertion: tuple[float, ...]
    random: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]  # both, in each random order

    @property
    def deletion_area(self) -> float:
        return self._area(self.deletion)

    @property
    def insertion_area(self) -> float:
        return self._area(self.insertion)

    @property
    def random_deletions(self) -> tuple[float, ...]:
        """Areas."""
        return tuple(self._area(deletion) for deletion, _ in self.random)

    @property
    def random_insertions(self) -> tuple[float, ...]:
        """Areas."""
        return tuple(self._area(insertion) for _, insertion in self.random)

    @property
    def telling(self) -> bool:
        """Whether the explanation's order does better, both ways, than all of the random ones."""
        return self.deletion_area < min(self.random_deletions) and self.insertion_area > max(self.random_insertions)

    def _area(self, curve: tuple[float, ...]) -> float:
        return float(np.trapezoid(curve, self.shares))


def curves_of(
    question: Question,
    kind: Kind,
    state: State,
    inputs: Any,
    blank: Any,
    fragments: np.ndarray,
    label: int,
    attributed: np.ndarray,
    *,
    draws: int,
    seed: int,
) -> Curves:
    """Of one row.

    Args:
        inputs: a batch of this row alone, and `blank` without its fragments.
        fragments: the number of the fragment of each position, `[*positions]`.
        attributed: what is attributed to each fragment, `[fragments]`.
        draws: of random orders.
    """
    count = len(attributed)
    random = np.random.default_rng(seed)
    marked = np.stack([attributed, *(kind.moved(attributed, random) for _ in range(draws))])
    places = np.argsort(np.argsort(-marked, axis=1, kind="stable"), axis=1)  # of each fragment in each order
    taken = np.unique(np.round(np.linspace(0, count, min(count, _STEPS) + 1)).astype(np.int32))
    ways = (np.greater_equal, np.less)  # which places are there when so many were taken away, or given back
    left = [is_left(place, number) for place in places for is_left in ways for number in taken]
    program = question.backbone.programs.setdefault((curves_of, question.key), jax.jit(partial(_asked, question, kind)))
    said = list[float]()
    for begin in range(0, len(left), _TOGETHER):
        some = left[begin : begin + _TOGETHER]
        filled = np.stack([*some, *([some[0]] * (_TOGETHER - len(some)))])
        kept = np.append(filled, np.ones((_TOGETHER, 1), bool), axis=1)[:, fragments]  # `NO_FRAGMENT`, -1, is always there
        answers = program(question.backbone.params, state, inputs, blank, kept, np.int32(label))
        said += np.asarray(answers)[: len(some)].tolist()
    (deletion, insertion), *others = [
        (tuple(one), tuple(other)) for one, other in np.reshape(said, (len(places), 2, len(taken))).tolist()
    ]
    return Curves(tuple((taken / count).tolist()), deletion, insertion, tuple(others))


def _asked(
    question: Question, kind: Kind, params: Any, state: State, inputs: Any, blank: Any, kept: jax.Array, label: jax.Array
) -> jax.Array:
    """What is said of the label of one row where the positions `kept [times, *positions]` are left of it, `[times]`."""
    times = len(kept)
    many, none = (jax.tree.map(lambda array: jnp.broadcast_to(array, (times, *array.shape[1:])), of) for of in (inputs, blank))
    labels = jnp.broadcast_to(label, times)
    return question.told(question.evidence(params, state, kind.kept(many, none, kept), labels))
