"""What augmentation does to pictures: each operation against Pillow's, parts and mixtures by what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from refusals import refused

from graftax.models import augmented_pictures as ours
from graftax.models.augment import Augment


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """With large areas and few values, as photographs have."""
    small = Image.fromarray(noise(3, 4, 3, seed=5) // 2 + 40)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed, impl="threefry2x32"), count)


Enhanced = Callable[[Image.Image], Image.Image]
#: Of ours, by its name and factor, Pillow's.
BLENDS: dict[str, tuple[str, float, Enhanced]] = {
    "brighter": ("_brightened", 1.4, lambda image: ImageEnhance.Brightness(image).enhance(1.4)),
    "darker": ("_brightened", 0.3, lambda image: ImageEnhance.Brightness(image).enhance(0.3)),
    "more contrast": ("_contrasted", 1.7, lambda image: ImageEnhance.Contrast(image).enhance(1.7)),
    "less contrast": ("_contrasted", 0.2, lambda image: ImageEnhance.Contrast(image).enhance(0.2)),
    "more colour": ("_saturated", 1.8, lambda image: ImageEnhance.Color(image).enhance(1.8)),
    "no colour": ("_saturated", 0.0, lambda image: ImageEnhance.Color(image).enhance(0.0)),
    "sharper": ("_sharpened", 1.9, lambda image: ImageEnhance.Sharpness(image).enhance(1.9)),
    "smoother": ("_sharpened", 0.0, lambda image: ImageEnhance.Sharpness(image).enhance(0.0)),
    "posterised": ("_posterised", 3.0, lambda image: ImageOps.posterize(image, 3)),
    "solarised": ("_solarised", 100.0, lambda image: ImageOps.solarize(image, 100)),
}


@pytest.mark.parametrize("case", BLENDS)
def test_colours_as_pillow_changes_them(case: str) -> None:
    """To what it rounds; of noise, and of a smooth picture."""
    name, factor, theirs = BLENDS[case]
    for picture in (noise(12, 14, 3), smooth(12, 14)):
        found = np.asarray(jax.jit(getattr(ours, name))(picture.astype(np.float32), np.float32(factor)))
        np.testing.assert_allclose(found, np.asarray(theirs(Image.fromarray(picture))), atol=2.0)


def test_histograms_as_pillow_changes_them() -> None:
    """To the very value where Pillow's are whole numbers; a channel of one value stays."""
    flat = np.full((30, 40, 3), 7, np.uint8)
    equalised, stretched = jax.jit(ours._equalised), jax.jit(ours._autocontrasted)
    for picture in (noise(30, 40, 3), smooth(30, 40), flat):
        floats, image = picture.astype(np.float32), Image.fromarray(picture)
        np.testing.assert_array_equal(np.asarray(equalised(floats)), np.asarray(ImageOps.equalize(image)))
        np.testing.assert_allclose(np.asarray(stretched(floats)), np.asarray(ImageOps.autocontrast(image)), atol=1.0)


def test_parts_as_pillow_resizes_them() -> None:
    """A box, and only what lies in it, resized to the whole."""
    picture, resized = noise(12, 16, 3), jax.jit(ours._resized)
    for top, left, high, wide in ((0, 0, 12, 16), (3, 2, 5, 9), (11, 15, 1, 1), (0, 4, 12, 3)):
        box = tuple(map(np.float32, (top, left, high, wide)))
        found = np.asarray(resized(picture.astype(np.float32), *box))
        image = Image.fromarray(picture[top : top + high, left : left + wide])
        np.testing.assert_allclose(found, np.asarray(image.resize((16, 12), Image.Resampling.BILINEAR)), atol=1.1)


def test_pictures_are_moved_as_said() -> None:
    """Turned by a quarter, shifted by two pixels, sheared by one a row; black comes in."""
    picture = noise(5, 5, 3).astype(np.float32)
    moved = jax.jit(lambda *rows: ours._moved(jnp.asarray(picture), ours._matrix(*rows)))
    turned = np.asarray(jax.jit(lambda degrees: ours._moved(jnp.asarray(picture), ours._turned(degrees)))(np.float32(90.0)))
    assert any(np.array_equal(turned, np.rot90(picture, times)) for times in (1, 3))
    shifted = np.asarray(moved((1.0, 0.0, 2.0), (0.0, 1.0, 0.0)))
    np.testing.assert_array_equal(shifted[:, :3], picture[:, 2:])
    assert not shifted[:, 3:].any()
    sheared = np.asarray(moved((1.0, 1.0, 0.0), (0.0, 1.0, 0.0)))
    np.testing.assert_array_equal(sheared[2], picture[2])
    np.testing.assert_array_equal(sheared[3, :4], picture[3, 1:])
    np.testing.assert_array_equal(sheared[1, 1:], picture[1, :4])


def augmented(said: str, pictures: np.ndarray, of: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    partners = np.arange(len(pictures), dtype=np.int32)[::-1].copy()
    mixed = jax.jit(lambda *given: ours.augmented(Augment.of(said), *given))(pictures.astype(np.float32), of, partners)
    return np.asarray(mixed.pixels), np.asarray(mixed.share)


@pytest.mark.parametrize("said", ["crop+flip", pytest.param("randaugment=30+colour=1", marks=pytest.mark.slow)])
def test_each_picture_by_its_key_alone(said: str) -> None:
    """Whatever lies beside it; another key, another picture; values stay those of pixels."""
    pictures, of = noise(16, 9, 8, 3), keys(16)
    found, share = augmented(said, pictures, of)
    assert (found.min(), found.max()) >= (0.0, 0.0)
    assert found.max() <= 255.0
    assert (share == 1).all()
    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_array_equal(augmented(said, pictures[order], of[order])[0], found[order])
    other, _ = augmented(said, pictures, keys(16, seed=1))
    assert sum(not np.array_equal(one, another) for one, another in zip(found, other, strict=True)) >= 4
    changed = sum(not np.array_equal(one, picture) for one, picture in zip(found, pictures, strict=True))
    assert changed >= 4


def test_flips_are_about_as_often_as_said() -> None:
    picture = noise(4, 5, 3)
    found, _ = augmented("flip=0.25", np.stack([picture] * 400), keys(400))
    mirrored = [np.array_equal(one, picture[:, ::-1]) for one in found]
    assert all(is_mirrored or np.array_equal(one, picture) for one, is_mirrored in zip(found, mirrored, strict=True))
    assert 70 <= sum(mirrored) <= 130
    assert np.array_equal(augmented("flip=0", picture[None], keys(1))[0][0], picture)


def test_parts_are_as_large_as_said() -> None:
    """Of a slope a part has the range of its side: never less than the area allows, and not always all of it."""
    slope = np.broadcast_to(np.linspace(0, 255, 32)[None, :, None], (32, 32, 3))
    found, _ = augmented("crop=0.49", np.stack([slope] * 200), keys(200))
    shares = (found.max(axis=(1, 2, 3)) - found.min(axis=(1, 2, 3))) / 255
    assert shares.min() > np.sqrt(0.49 * 3 / 4) - 0.1
    assert shares.min() < 0.8
    assert shares.max() > 0.9


def test_mixed_up_pictures() -> None:
    """Of two by one share each, between 0 and 1."""
    pictures = noise(6, 4, 5, 3)
    found, share = augmented("mixup=1", pictures, keys(6))
    for i in range(6):
        np.testing.assert_allclose(found[i], share[i] * pictures[i] + (1 - share[i]) * pictures[5 - i], atol=1e-3)
    assert (share.min(), share.max()) > (0.0, 0.0)
    assert share.max() < 1.0
    assert len(set(share.tolist())) == 6


def test_pasted_pictures() -> None:
    """A box of the partner; the share is the area of the rest. With both words either is done."""
    pictures = np.stack([np.full((8, 10, 3), 10 * (i + 1)) for i in range(40)])
    found, share = augmented("cutmix", pictures, keys(40))
    for i in range(40):
        other = found[i] == pictures[39 - i]
        assert (other | (found[i] == pictures[i])).all()
        assert share[i] == pytest.approx(1 - other.mean(), abs=1e-6)
        rows, columns = (np.flatnonzero(other[..., 0].any(axis=axis)) for axis in (1, 0))
        assert other[..., 0].sum() == len(rows) * len(columns)
        assert all(len(side) == 0 or side[-1] - side[0] + 1 == len(side) for side in (rows, columns))
    both, _ = augmented("cutmix+mixup=1", pictures, keys(40))
    pasted = [set(np.unique(both[i])) <= {10 * (i + 1), 10 * (40 - i)} for i in range(40)]
    assert 8 <= sum(pasted) <= 34


def test_what_is_said_of_it() -> None:
    assert Augment.of("flip + crop=0.5") == Augment(crop=0.5, flip=0.5)
    assert Augment.of("colour+randaugment+mixup+cutmix") == Augment(None, None, 0.4, 9.0, 0.2, 1.0)
    for said, line in {
        "": "augment '': '' is none of crop, flip, colour, randaugment, mixup, cutmix, which are joined by +.",
        "crop+rotate": "augment 'crop+rotate': 'rotate' is none of",
        "flip+flip=1": "augment 'flip+flip=1': flip is there twice.",
        "crop=0": "the number of crop is the share of a picture's area that is left at least, from 0.01 to 1.",
        "mixup=": "the number of mixup is alpha",
        "colour=inf": "the number of colour is",
        "flip=nan": "the number of flip is how often it is mirrored, from 0 to 1.",
    }.items():
        found = refused(lambda said=said: Augment.of(said))
        assert found is not None
        assert line in found


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    said=st.lists(st.sampled_from(["crop", "flip", "=", "+", "0.5", "-", " "]), max_size=8).map("".join) | st.text(max_size=9)
)
def test_whatever_is_said(said: str) -> None:
    made: list[Any] = []
    if refused(lambda: made.append(Augment.of(said))) is None:
        assert made[0] != Augment()
