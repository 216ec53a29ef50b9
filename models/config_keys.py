"""Keys of a `config.json`: what each may hold, and what it is where the file does not say.

A family lists every key that transformers' config class of it declares, with that class's default (`Family.keys`), and those
that the class reads without declaring them, most from older configs (`Family.older`). So a family is read from a whole
config, whatever a file leaves out, and what a key says is checked before anything is made of it:

    "hidden_size": size(768, "hidden_size")     a whole number; a field of our config by that name takes it
    "is_decoder": only(False)                   transformers reads it, and nothing else is supported here
    "initializer_range": unread(0.02)           says nothing about the forward pass of a frozen model

`tests/test_config_keys.py` holds the lists against transformers' classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .activations import ACTIVATIONS

_LARGEST = 1 << 24  # of a size: no table has more rows, and what is computed per unit stays small
MOST_LAYERS = 1 << 12


@dataclass(frozen=True)
class Key:
    """What stands at one key."""

    default: Any  # transformers' where a config lacks the key
    sound: Callable[[Any], bool]  # whether a value may stand there
    takes: str  # which may, in words
    field: str = ""  # of our config that takes the value as it is; empty: the family's `read` uses it, or nothing does
    null: bool = False  # whether null may stand there
    read: bool = True  # whether anything is made of it

    def allows(self, value: Any) -> bool:
        return self.null if value is None else self.sound(value)


def nullable(key: Key) -> Key:
    """The same, where null may stand too."""
    return replace(key, null=True)


def size(default: int | None, field: str = "", most: int = _LARGEST, least: int = 1) -> Key:
    return Key(default, lambda v: _whole(v) and least <= v <= most, f"a whole number from {least} to {most:,}", field)


def sizes(default: tuple[int, ...], most: int = _LARGEST) -> Key:
    """A list of whole numbers."""
    one = size(None, most=most)
    return Key(default, lambda v: isinstance(v, list | tuple) and bool(v) and all(map(one.allows, v)), "a list of sizes")


def whole_or_pair(default: int) -> Key:
    """A whole number for height and width, or one for each."""
    one = size(None, most=1 << 10)
    return Key(
        default,
        lambda v: one.sound(v) or (isinstance(v, list | tuple) and len(v) == 2 and all(map(one.sound, v))),
        "a whole number, or two: height and width",
    )


def indices(default: tuple[int, ...]) -> Key:
    """A list of whole numbers from zero, which may be empty."""
    one = size(None, least=0)
    return Key(default, lambda v: isinstance(v, list | tuple) and all(map(one.allows, v)), "a list of whole numbers from 0")


def sides(default: int) -> Key:
    """Height and width, or a number for both (`pair`)."""
    one = size(None)
    pairs = Key(default, lambda v: all(map(one.allows, v if isinstance(v, list | tuple) and len(v) == 2 else [v])), one.takes)
    return replace(pairs, takes=f"{one.takes}, or two such")


def pair(value: Any) -> tuple[int, int]:
    """Height and width of what stands at `sides`."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def layers(default: int | None, field: str = "") -> Key:
    return size(default, field, MOST_LAYERS)


def number(default: float | None, field: str = "") -> Key:
    """A factor or the like, above zero."""
    return Key(default, lambda v: is_number(v) and v > 0, "a number above 0", field)


def epsilon(default: float) -> Key:
    """What norms add under the root."""
    return Key(default, lambda v: is_number(v) and v >= 0, "a number from 0", "norm_eps")


def flag(default: bool | None, field: str = "") -> Key:
    return Key(default, lambda v: isinstance(v, bool), "true or false", field)


def token(default: int | None, field: str = "") -> Key:
    return size(default, field, least=0)


def padding(default: int | None) -> Key:
    """The id that fills batch rows, where no position is counted from it: null and -1 say that there is none."""
    return nullable(size(default, least=-1))


def tokens(default: int | None) -> Key:
    """One id or several, or none: null, -1 or an empty list."""
    one = size(None, least=-1)
    several = Key(default, lambda v: all(map(one.allows, v if isinstance(v, list) else [v])), "a token's id or a list of such")
    return nullable(several)


def activation(default: str | None, field: str = "activation") -> Key:
    return Key(default, lambda v: isinstance(v, str) and v in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}", field)


def choice(default: str, others: tuple[str, ...], field: str = "") -> Key:
    """One of a few words."""
    every = (default, *others)
    return Key(default, lambda v: isinstance(v, str) and v in every, f"one of {', '.join(every)}", field)


def text(default: str) -> Key:
    return Key(default, lambda v: isinstance(v, str), "a string")


def names() -> Key:
    """A list of strings, or null."""
    return nullable(Key(None, lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v), "a list of strings"))


def settings() -> Key:
    """An object, or null; who reads it checks what is in it."""
    return nullable(Key(None, lambda v: isinstance(v, dict), "an object"))


def only(value: Any) -> Key:
    """A key that transformers reads, at the one value that is supported here."""
    return Key(value, lambda v: type(v) is type(value) and v == value, f"only {value!r} is supported")


def unread(default: Any) -> Key:
    """A key that says nothing about the forward pass of a frozen model, whatever it says."""
    return Key(default, lambda v: True, "anything", null=True, read=False)


def unread_all(**defaults: Any) -> Mapping[str, Key]:
    return {name: unread(default) for name, default in defaults.items()}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30  # which NaN is not
