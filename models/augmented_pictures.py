"""Pictures as they are trained on where there is an augmentation (`augment.py`): pure functions of pixels and a random key.

All of it is compiled with the step, and the host has no work with it. A picture is `[H, W, channels]` of floats from 0 to 255,
and has a key of its own, which says all that happens to it: neither its place in the batch nor its neighbours matter, but for
the partner with which it is mixed.

Where pictures have masks (`data/mask_values.py`), what moves pixels moves those of the mask alike, of which the nearest is
taken; pixels that come from beyond the picture are of no class. Boxes (`data/box_values.py`) are mirrored, and cut with their
pictures; one of which a quarter at most is left is none any more. A picture with a mask or boxes is not mixed with another.

Operations and their magnitudes are torchvision's: RandomResizedCrop (bilinear), ColorJitter (in one order), RandAugment (Cubuk
et al., arXiv:1909.13719; nearest pixels, black beyond the edges), MixUp (Zhang et al., arXiv:1710.09412), CutMix (Yun et al.,
arXiv:1905.04899). Pixels are floats throughout, where Pillow rounds after each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ..data.box_values import NOTHING, LaidBoxes
from ..data.mask_values import VOID
from ..shapes import Float, Int, UInt, shaped
from .augment import Augment

_TRIES = 10  # at a part of a picture that fits into it
_LARGEST_RATIO = 4 / 3  # of the sides of such a part
_LEFT = 0.25  # of a box: less is none
_MAGNITUDES = 30.0  # of RandAugment
_OPERATIONS = 2  # that RandAugment does, one behind the other


class Mixed(NamedTuple):
    """Pictures of a batch as they are trained on."""

    pixels: Float[Array, "items height width channels"]
    share: Float[Array, " items"]  # that a picture has in what stands in its place; the rest is its partner's
    masks: UInt[Array, "items height width"] | LaidBoxes | None = None


@shaped
def augmented(
    policy: Augment,
    pixels: Float[Array, "items height width channels"],
    keys: Array,
    partners: Int[Array, " items"],
    masks: UInt[Array, "items height width"] | LaidBoxes | None = None,
) -> Mixed:
    """The pictures of a batch, augmented, with their masks or boxes.

    `keys [items]`: of each its own; `partners`: with which of them it may be mixed.
    """
    varied, moved = jax.vmap(partial(_varied, policy))(pixels, masks, keys)
    if not policy.mixes:
        return Mixed(varied, jnp.ones(len(pixels), jnp.float32), moved)
    return Mixed(*jax.vmap(partial(_mixed, policy))(varied, varied[partners], keys))


def _varied(policy: Augment, picture: Array, mask: Any, key: Array) -> tuple[Array, Any]:
    """What is done to one picture alone, and to its mask or boxes, where it has some."""
    keys = jax.random.split(jax.random.fold_in(key, 0), 4)
    if policy.crop is not None:
        part = _part(picture.shape, policy.crop, keys[0])
        picture, mask = _resized(picture, *part), _cut_with(mask, picture.shape, part)
    if policy.flip is not None:
        mirrored = jax.random.bernoulli(keys[1], policy.flip)
        picture = jnp.where(mirrored, picture[:, ::-1], picture)
        mask = _mirrored_with(mask, mirrored)
    if policy.randaugment is not None:
        picture, mask = _randomly_augmented(picture, mask, policy.randaugment, keys[2])
    if policy.colour is not None:
        picture = _jittered(picture, policy.colour, keys[3])
    return picture, mask


# -- a part of it ---------------------------------------------------------------------------------------------------------


def _part(shape: tuple[int, ...], least: float, key: Array) -> tuple[Array, Array, Array, Array]:
    """A random part, of at least this share of the area: its top, left, height and width; the whole where no try fits."""
    height, width, _ = shape
    of_area, of_ratio, of_place = jax.random.split(key, 3)
    area = jax.random.uniform(of_area, (_TRIES,), minval=least, maxval=1.0) * (height * width)
    widest = math.log(_LARGEST_RATIO)
    ratio = jnp.exp(jax.random.uniform(of_ratio, (_TRIES,), minval=-widest, maxval=widest))
    highs, wides = jnp.round(jnp.sqrt(area / ratio)), jnp.round(jnp.sqrt(area * ratio))
    fits = (highs >= 1) & (highs <= height) & (wides >= 1) & (wides <= width)
    first, any_fits = jnp.argmax(fits), fits.any()
    high, wide = jnp.where(any_fits, highs[first], height), jnp.where(any_fits, wides[first], width)
    place = jax.random.uniform(of_place, (2,))
    return jnp.floor(place[0] * (height - high + 1)), jnp.floor(place[1] * (width - wide + 1)), high, wide


def _cut_with(mask: Any, shape: tuple[int, ...], part: tuple[Array, Array, Array, Array]) -> Any:
    """A mask, or boxes, of a part of a picture of that shape."""
    if not isinstance(mask, LaidBoxes):
        return None if mask is None else _nearest(mask, *part)
    (top, left, high, wide), (height, width, _) = part, shape
    begin, scale = jnp.stack([left / width, top / height]), jnp.stack([width / wide, height / high])
    middle, side = jnp.split(mask.boxes, 2, axis=-1)
    low, up = (jnp.clip((corner - begin) * scale, 0.0, 1.0) for corner in (middle - side / 2, middle + side / 2))
    enough = jnp.prod(up - low, axis=-1) > _LEFT * jnp.prod(side * scale, axis=-1)
    boxes = jnp.concatenate([(low + up) / 2, up - low], axis=-1)
    return LaidBoxes(jnp.where(enough, mask.numbers, NOTHING), boxes)


def _mirrored_with(mask: Any, mirrored: Array) -> Any:
    if not isinstance(mask, LaidBoxes):
        return None if mask is None else jnp.where(mirrored, mask[:, ::-1], mask)
    across = mask.boxes[:, 0]
    return mask._replace(boxes=mask.boxes.at[:, 0].set(jnp.where(mirrored, 1.0 - across, across)))


def _nearest(mask: Array, top: Array, left: Array, high: Array, wide: Array) -> Array:
    """A part of a mask, resized to all of it."""
    rows, columns = (
        jnp.floor(begin + (jnp.arange(size, dtype=jnp.float32) + 0.5) * (length / size)).astype(jnp.int32)
        for size, begin, length in zip(mask.shape, (top, left), (high, wide), strict=True)
    )
    return mask[rows][:, columns]


def _resized(picture: Array, top: Array, left: Array, high: Array, wide: Array) -> Array:
    """A part of a picture, resized to all of it."""
    down, across = _stretched(picture.shape[0], top, high), _stretched(picture.shape[1], left, wide)
    return jnp.einsum("oh,pw,hwc->opc", down, across, picture)


def _stretched(size: int, begin: Array, length: Array) -> Array:
    """Weights `[size, size]` by which a stretch of a side becomes all of it: bilinear, of what lies in the stretch alone."""
    pixels = jnp.arange(size, dtype=jnp.float32) + 0.5
    wanted = begin + pixels * (length / size)
    within = (pixels > begin) & (pixels < begin + length)
    weights = jnp.where(within, jnp.maximum(0.0, 1.0 - jnp.abs(pixels - wanted[:, None])), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


# -- its colours ----------------------------------------------------------------------------------------------------------


def _blended(picture: Array, other: Array, factor: Array) -> Array:
    """`picture` at 1, `other` at 0, and beyond them."""
    return jnp.clip(other + factor * (picture - other), 0.0, 255.0)


def _grey(picture: Array) -> Array:
    """`[H, W, 1]`, as bright as the picture."""
    return picture if picture.shape[-1] == 1 else picture @ jnp.array([[0.299], [0.587], [0.114]], picture.dtype)


def _brightened(picture: Array, factor: Array) -> Array:
    return _blended(picture, jnp.zeros_like(picture), factor)


def _contrasted(picture: Array, factor: Array) -> Array:
    return _blended(picture, jnp.full_like(picture, _grey(picture).mean()), factor)


def _saturated(picture: Array, factor: Array) -> Array:
    return _blended(picture, jnp.broadcast_to(_grey(picture), picture.shape), factor)


def _jittered(picture: Array, most: float, key: Array) -> Array:
    factors = jax.random.uniform(key, (3,), minval=1.0 - most, maxval=1.0 + most)
    return _saturated(_contrasted(_brightened(picture, factors[0]), factors[1]), factors[2])


def _sharpened(picture: Array, factor: Array) -> Array:
    """Against its smoothed self; the outermost pixels, which have not all neighbours, stay."""
    height, width, _ = picture.shape
    if height < 3 or width < 3:
        return picture
    shifted = [picture[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    inner = (sum(shifted, start=jnp.zeros_like(shifted[0])) + 4.0 * shifted[4]) / 13.0
    return _blended(picture, picture.at[1:-1, 1:-1].set(inner), factor)


def _posterised(picture: Array, bits: Array) -> Array:
    step = 2.0 ** (8.0 - bits)
    return jnp.floor(picture / step) * step


def _solarised(picture: Array, threshold: Array) -> Array:
    return jnp.where(picture >= threshold, 255.0 - picture, picture)


def _autocontrasted(picture: Array) -> Array:
    """Each channel from 0 to 255; one of a single value stays."""
    low, high = picture.min(axis=(0, 1)), picture.max(axis=(0, 1))
    return jnp.where(high > low, (picture - low) * (255.0 / jnp.maximum(high - low, 1e-6)), picture)


def _equalised(picture: Array) -> Array:
    """Each channel with its values about equally often, as Pillow does it."""
    return jnp.stack([_equalised_channel(picture[..., channel]) for channel in range(picture.shape[-1])], axis=-1)


def _equalised_channel(channel: Array) -> Array:
    levels = jnp.clip(jnp.round(channel), 0, 255).astype(jnp.int32)
    counts = jnp.zeros(256, jnp.int32).at[levels.ravel()].add(1)
    largest = 255 - jnp.argmax(counts[::-1] > 0)
    step = (channel.size - counts[largest]) // 255
    below = jnp.cumsum(counts) - counts
    table = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table[levels].astype(channel.dtype), channel)


# -- RandAugment ----------------------------------------------------------------------------------------------------------


def _moved(picture: Array, matrix: Array, beyond: float = 0.0) -> Array:
    """The nearest pixel of where `matrix [2, 3]` leads from each, counted from the middle; `beyond` where there is none."""
    height, width, _ = picture.shape
    y, x = jnp.meshgrid(jnp.arange(height, dtype=jnp.float32), jnp.arange(width, dtype=jnp.float32), indexing="ij")
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    from_middle = jnp.stack([x - middle_x, y - middle_y, jnp.ones_like(x)], axis=-1)
    source = jnp.round(from_middle @ matrix.T + jnp.array([middle_x, middle_y], jnp.float32)).astype(jnp.int32)
    there = (source >= 0).all(axis=-1) & (source < jnp.array([width, height])).all(axis=-1)
    column, row = jnp.clip(source[..., 0], 0, width - 1), jnp.clip(source[..., 1], 0, height - 1)
    return jnp.where(there[..., None], picture[row, column], jnp.asarray(beyond, picture.dtype))


def _matrix(*rows: tuple[Array | float, Array | float, Array | float]) -> Array:
    return jnp.stack([jnp.stack([jnp.asarray(one, jnp.float32) for one in row]) for row in rows])


def _turned(degrees: Array) -> Array:
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    return _matrix((cosine, -sine, 0.0), (sine, cosine, 0.0))


def _far(side: Array, much: Array) -> Array:
    """How many pixels a picture is shifted at most."""
    return jnp.trunc(150.0 / 331.0 * side * much)


#: How pixels move, of a magnitude from 0 to 1 with a sign and of a picture's height and width: not, sheared, shifted, turned.
_MOVES: tuple[Callable[[Array, Array, Array], Array], ...] = (
    lambda much, height, width: _matrix((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    lambda much, height, width: _matrix((1.0, 0.3 * much, 0.0), (0.0, 1.0, 0.0)),
    lambda much, height, width: _matrix((1.0, 0.0, 0.0), (0.3 * much, 1.0, 0.0)),
    lambda much, height, width: _matrix((1.0, 0.0, _far(width, much)), (0.0, 1.0, 0.0)),
    lambda much, height, width: _matrix((1.0, 0.0, 0.0), (0.0, 1.0, _far(height, much))),
    lambda much, height, width: _turned(30.0 * much),
)
#: How they change, of the same magnitude, the first not at all.
_CHANGES: tuple[Callable[[Array, Array], Array], ...] = (
    lambda picture, much: picture,
    lambda picture, much: _brightened(picture, 1.0 + 0.9 * much),
    lambda picture, much: _saturated(picture, 1.0 + 0.9 * much),
    lambda picture, much: _contrasted(picture, 1.0 + 0.9 * much),
    lambda picture, much: _sharpened(picture, 1.0 + 0.9 * much),
    lambda picture, much: _posterised(picture, 8.0 - jnp.round(4.0 * jnp.abs(much))),
    lambda picture, much: _solarised(picture, 255.0 * (1.0 - jnp.abs(much))),
    lambda picture, much: _autocontrasted(picture),
    lambda picture, much: _equalised(picture),
)


def _randomly_augmented(picture: Array, mask: Array | None, magnitude: float, key: Array) -> tuple[Array, Array | None]:
    """Two operations, each of which moves the pixels, changes them or (one of fourteen) does nothing.

    Under `vmap` all of a switch's branches are computed, so pixels are moved once, by one matrix of six.
    """
    height, width = map(jnp.float32, picture.shape[:2])
    for one in jax.random.split(key, _OPERATIONS):
        which, way = jax.random.split(one)
        much = magnitude / _MAGNITUDES * jax.random.rademacher(way, (), jnp.float32)
        chosen = jax.random.randint(which, (), 0, len(_MOVES) + len(_CHANGES) - 1)
        move, change = jnp.where(chosen < len(_MOVES), chosen, 0), jnp.maximum(chosen - len(_MOVES) + 1, 0)
        matrix = jax.lax.switch(move, _MOVES, much, height, width)
        picture = jax.lax.switch(change, _CHANGES, _moved(picture, matrix), much)
        mask = None if mask is None else _moved(mask[..., None], matrix, VOID)[..., 0]
    return picture, mask


# -- with another ---------------------------------------------------------------------------------------------------------


def _mixed(policy: Augment, picture: Array, other: Array, key: Array) -> tuple[Array, Array]:
    """A picture with another in it, and the share of the first; of two ways to do that either is as frequent."""
    of_way, of_mixup, of_cutmix = jax.random.split(jax.random.fold_in(key, 1), 3)
    if policy.cutmix is None:
        assert policy.mixup is not None
        return _mixed_up(picture, other, policy.mixup, of_mixup)
    pasted = _pasted(picture, other, policy.cutmix, of_cutmix)
    if policy.mixup is None:
        return pasted
    cut = jax.random.bernoulli(of_way)
    mixed = _mixed_up(picture, other, policy.mixup, of_mixup)
    return jnp.where(cut, pasted[0], mixed[0]), jnp.where(cut, pasted[1], mixed[1])


def _mixed_up(picture: Array, other: Array, alpha: float, key: Array) -> tuple[Array, Array]:
    share = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)
    return share * picture + (1.0 - share) * other, share


def _pasted(picture: Array, other: Array, alpha: float, key: Array) -> tuple[Array, Array]:
    """A box of the other picture, of random size and place, cut off at the edges."""
    height, width, _ = picture.shape
    of_size, of_place = jax.random.split(key)
    side = jnp.sqrt(1.0 - jax.random.beta(of_size, alpha, alpha, dtype=jnp.float32))
    middle = jax.random.uniform(of_place, (2,))
    rows, columns = (_stretch(size, middle[axis], side) for axis, size in enumerate((height, width)))
    within = rows[:, None] & columns
    return jnp.where(within[..., None], other, picture), 1.0 - within.mean(dtype=jnp.float32)


def _stretch(size: int, middle: Array, share: Array) -> Array:
    """Which pixels of a side belong to a box."""
    half, at = jnp.floor(size * share) / 2, jnp.floor(size * middle)
    pixels = jnp.arange(size, dtype=jnp.float32)
    return (pixels >= at - half) & (pixels < at + half)
