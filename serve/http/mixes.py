"""A weighted mix of adapters as the model of a request: each adapter's weight, `*` and its name, `+` between them.

    0.7*tales/sky:prod+0.3*sea      at every site 0.7 of what the one changes, and 0.3 of what the other does

Up to four names, each as if it were asked alone; the weights may be any, also below zero (`+-0.3*sea`), and need not sum to 1.
It is an `Average` (`composition.py`). A name that was registered with `*` in it goes before. What is said of the mix that
answered has the same form, with versions for names, and with digests for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import GraftaxError
from ...typed import checked, shown
from ..composition import MOST_TERMS, Average
from ..handles import Handle
from .complaints import Refused

_EXAMPLE = "0.7*sea+0.3*tales/sky:prod"

#: Who answers: the base alone, an adapter, or a mix of several, whose parts are their handles.
Who = Handle | Average | None


def parts_of(model: str) -> list[tuple[float, str]] | None:
    """The weights and names of a mix; None where a model is none. Refused where it is one that cannot be read."""
    if "*" not in model:
        return None
    parts = [_part(part.strip(), model) for part in model.split("+")]
    if len(parts) > MOST_TERMS:
        raise Refused(400, f"model: a mix is of {MOST_TERMS} adapters at most, got {len(parts)}.", param="model")
    return parts


def _part(part: str, model: str) -> tuple[float, str]:
    weight, star, name = (word.strip() for word in part.partition("*"))
    try:
        number: float = checked(float(weight), float, "a weight")
    except (ValueError, GraftaxError):
        number, name = 0.0, ""
    if not star or not name:
        said = f"model: {shown(part)} in {shown(model)} is no part of a mix; that is a weight, * and a name, as in {_EXAMPLE}."
        raise Refused(400, said, param="model")
    return number, name


def mix_of(weights: Sequence[float], handles: Sequence[Handle]) -> Average:
    """The mix of adapters."""
    return Average(*handles, weights=weights)


def handles_of(who: Who) -> list[Handle]:
    """The adapters that have a part in an answer."""
    if isinstance(who, Average):
        return [term.name for stage in who.plan() for term in stage]
    return [] if who is None else [who]


def name_of(who: Who) -> str | None:
    """What an answer says who made it: an adapter's name and version."""
    return _said(who, str)


def digest_of(who: Who) -> str | None:
    """The same by digests, of which each can be no other's."""
    return _said(who, lambda handle: f"sha256:{handle.digest}")


def _said(who: Who, called: Callable[[Handle], str]) -> str | None:
    if isinstance(who, Average):
        return "+".join(f"{weight:g}*{called(handle)}" for weight, handle in zip(who.weights, handles_of(who), strict=True))
    return None if who is None else called(who)
