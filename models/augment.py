"""Augmentation, said in a line: what is done to pictures as they are trained on, another thing in every epoch.

    crop+flip                       a random part of each, resized to all of it; mirrored or not
    crop=0.5+colour+randaugment=7   a number says how much

What each of the words does, and its number, is in `_WORDS`; `augmented_pictures.py` does it. This file imports no JAX, for the
command line reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..errors import GraftaxError


class _Word(NamedTuple):
    """One way to augment: its number where none is said, between which it may lie, and what it is."""

    usual: float
    least: float
    most: float
    what: str


_WORDS = {
    "crop": _Word(0.25, 0.01, 1.0, "the share of a picture's area that is left at least"),
    "flip": _Word(0.5, 0.0, 1.0, "how often it is mirrored"),
    "colour": _Word(0.4, 0.0, 1.0, "by how much brightness, contrast and saturation change at most"),
    "randaugment": _Word(9.0, 0.0, 30.0, "the magnitude of two of fourteen operations"),
    "mixup": _Word(0.2, 0.01, 100.0, "alpha of the beta distribution by which two are mixed"),
    "cutmix": _Word(1.0, 0.01, 100.0, "alpha of the one by which a part of another is pasted in"),
}


@dataclass(frozen=True)
class Augment:
    """What is done, and how much of it; None: not."""

    crop: float | None = None
    flip: float | None = None
    colour: float | None = None
    randaugment: float | None = None
    mixup: float | None = None
    cutmix: float | None = None

    @classmethod
    def of(cls, said: str) -> Augment:
        """Of words joined by +, each perhaps with =NUMBER.

        Raises GraftaxError: a word that is unknown or there twice, a number that is none or out of its range.
        """
        found: dict[str, float] = {}
        for part in said.split("+"):
            name, equals, number = part.strip().partition("=")
            if name not in _WORDS:
                raise GraftaxError(f"augment {said!r}: {name!r} is none of {', '.join(_WORDS)}, which are joined by +.")
            if name in found:
                raise GraftaxError(f"augment {said!r}: {name} is there twice.")
            word = _WORDS[name]
            found[name] = _number(number) if equals else word.usual
            if not word.least <= found[name] <= word.most:
                allowed = f"{word.what}, from {word.least:g} to {word.most:g}"
                raise GraftaxError(f"augment {said!r}: the number of {name} is {allowed}.")
        return cls(**found)

    @property
    def mixes(self) -> bool:
        """Whether what is trained on is made of two pictures, and has the labels of both."""
        return self.mixup is not None or self.cutmix is not None


def _number(text: str) -> float:
    """NaN, which lies between no two numbers, for what is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
