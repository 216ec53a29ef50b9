"""The loss of a set: which of many questions answers for which object is found first, and then each is held to its own.

Boxes have no order, so no question has an object of its own to find. Of all ways to give each object b a question q, the one
is taken that costs least (the Hungarian algorithm):

    cost(b, q) = -p_q(class of b) + 5 |box_q - box_b|_1 - 2 GIoU(box_q, box_b)

    loss = cross-entropy of all questions, those of no object weighing a tenth
         + (5 sum |box - box|_1 + 2 sum (1 - GIoU)) / objects                     of the questions that have one

That is DETR's (Carion et al., 2020, arXiv:2005.12872), of the last layer alone. GIoU is what two boxes share of both together,
less what of the box around both is in neither (Rezatofighi et al., 2019, arXiv:1902.09630): it says which way to go where boxes
do not meet. Boxes are cx, cy, width, height here. All of it is compiled with the step, the search for the cheapest, too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array

from ..adapters.methods.detection_head import BOX, LOGITS
from ..data.box_values import NOTHING, LaidBoxes
from ..shapes import Bool, Float, Int, shaped
from .labelled import without_surplus

_L1, _GIOU = 5.0, 2.0  # weights, in the cost and in the loss
_OF_NOTHING = 0.1  # how much a question without an object weighs
_BEYOND = 1e6  # cost of what is no number
_WHOLE = (0.5, 0.5, 1.0, 1.0)  # a box that stands where there is none, so that nothing is divided by zero


@shaped
def set_loss(
    said: Float[Array, "items queries said"], labels: LaidBoxes, classes: jax.Array, weight: Float[Array, " items"]
) -> Float[Array, ""]:
    """The loss of a batch; `classes`: how many of the logits are an adapter's own, beside the one of no object."""
    logits, found = without_surplus(said[..., LOGITS:], classes + 1), jax.nn.sigmoid(said[..., BOX])
    queries = found.shape[1]
    numbers, boxes = labels.numbers[:, :queries], labels.boxes[:, :queries]  # there are no more objects than questions
    there = (numbers != NOTHING) & (weight > 0)[:, None]
    boxes = jnp.where(there[..., None], boxes, jnp.array(_WHOLE))
    query = jax.lax.stop_gradient(cheapest(costs(logits, found, numbers, boxes), there))
    logs = jax.nn.log_softmax(logits)
    item = jnp.arange(len(said))[:, None]
    wanted = jnp.zeros(found.shape[:2], jnp.int32).at[item, jnp.where(there, query, queries)].set(numbers + 1, mode="drop")
    each = jnp.where((weight > 0)[:, None], jnp.where(wanted == 0, _OF_NOTHING, 1.0), 0.0)
    of_class = -jnp.sum(each * jnp.take_along_axis(logs, wanted[..., None], axis=-1)[..., 0]) / jnp.maximum(each.sum(), 1e-6)
    own = found[item, query]
    apart = _L1 * jnp.abs(own - boxes).sum(-1) + _GIOU * (1.0 - giou(own, boxes))
    return of_class + jnp.sum(jnp.where(there, apart, 0.0)) / jnp.maximum(there.sum(), 1).astype(jnp.float32)


@shaped
def costs(
    logits: Float[Array, "items queries classes"],
    found: Float[Array, "items queries 4"],
    numbers: Int[Array, "items boxes"],
    boxes: Float[Array, "items boxes 4"],
) -> Float[Array, "items boxes queries"]:
    """What it costs that a question answers for an object; the first of the logits is that of no object."""
    chances = jnp.take_along_axis(jax.nn.softmax(logits), jnp.maximum(numbers, 0)[:, None] + 1, axis=-1).swapaxes(1, 2)
    a, b = found[:, None], boxes[:, :, None]
    return -chances + _L1 * jnp.abs(a - b).sum(-1) - _GIOU * giou(a, b)


@shaped
def cheapest(cost: Float[Array, "items boxes queries"], there: Bool[Array, "items boxes"]) -> Int[Array, "items boxes"]:
    """The question that answers for each object, another for each; where no object is, one of those that are left."""
    cost = jnp.where(there[..., None], jnp.where(jnp.isfinite(cost), cost, _BEYOND), 0.0)

    def of_one(cost: jax.Array) -> jax.Array:
        box, query = optax.assignment.hungarian_algorithm(cost)
        return jnp.zeros(len(cost), jnp.int32).at[box].set(query.astype(jnp.int32))

    with jax.numpy_dtype_promotion("standard"):  # optax counts on it, whatever the caller has set
        return jax.vmap(of_one)(cost)


@shaped
def giou(a: Float[Array, "*#lead 4"], b: Float[Array, "*#lead 4"]) -> Float[Array, "*lead"]:
    """From 1, of equal boxes, to -1, of far ones."""
    (a_low, a_up), (b_low, b_up) = _corners(a), _corners(b)
    shared = jnp.prod(jnp.maximum(jnp.minimum(a_up, b_up) - jnp.maximum(a_low, b_low), 0.0), axis=-1)
    both = jnp.prod(a_up - a_low, axis=-1) + jnp.prod(b_up - b_low, axis=-1) - shared
    around = jnp.prod(jnp.maximum(a_up, b_up) - jnp.minimum(a_low, b_low), axis=-1)
    return shared / both - (around - both) / around


def _corners(box: jax.Array) -> tuple[jax.Array, jax.Array]:
    middle, side = jnp.split(box, 2, axis=-1)
    return middle - side / 2, middle + side / 2
