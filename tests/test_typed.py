"""Values held against annotations: what fits is brought to its plain form, what does not is refused in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from graftax.typed import Location, Name, Rate, Share, Size, checked, held, read, settle


@dataclass(frozen=True)
class Inner:
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    size: Size = 1
    rate: Rate = 0.5
    on: bool = False
    names: tuple[str, ...] = ()
    sizes: Mapping[str, Size] = field(default_factory=dict)
    flags: Sequence[bool] = ()
    inner: Inner = Inner()
    free: Any = None

    def __post_init__(self) -> None:
        settle(self, "outer")


FITS: dict[str, list[tuple[Any, Any]]] = {
    "size": [(3, 3), (np.int64(3), 3)],
    "rate": [(0, 0.0), (np.float32(0.5), 0.5), (0.999, 0.999)],
    "names": [(["a", "b"], ("a", "b"))],
    "sizes": [({"a": 3}, {"a": 3})],
    "flags": [([True, False], (True, False))],
    "inner": [({"name": "x"}, Inner("x"))],
    "free": [([{}], [{}])],
}
UNFIT: dict[str, list[Any]] = {
    "size": [True, 1.0, "1", None, 0, -1, 10**8, 10**6000, float("nan"), [1]],
    "rate": [False, 1.0, -0.1, float("nan"), float("inf"), "0", None, 10**400],
    "on": [1, 0, None, "true"],
    "names": ["abc", [1], {"a": 1}, None],
    "sizes": [{"a": 0}, {"a": True}, {1: 1}, [], None],
    "flags": [[1], True],
    "inner": [{"name": 1}, {"title": "x"}, [], None],
}


@pytest.mark.parametrize(("name", "value", "plain"), [(name, *pair) for name, pairs in FITS.items() for pair in pairs])
def test_what_fits_is_brought_to_its_plain_form(name: str, value: Any, plain: Any) -> None:
    found = getattr(read(Outer, {name: value}, "file"), name)
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_by_name(name: str) -> None:
    for value in UNFIT[name]:
        line = refused(lambda value=value: read(Outer, {name: value}, "file"))
        assert line is not None
        assert line.startswith(f"file: {name}")
        if name != "inner":  # a person who makes one hands over an `Inner`
            made = refused(lambda value=value: Outer(**{name: value}))
            assert made is not None
            assert made.startswith(f"outer: {name} must be ")


def test_an_unknown_key_is_named() -> None:
    assert refused(lambda: read(Outer, {"sise": 1}, "file")) == (
        "file: no such key: sise; there are size, rate, on, names, sizes, flags, inner, free."
    )


@dataclass(frozen=True)
class Needed:
    kind: Literal["short", "long"]
    count: int


def test_what_is_missing_is_named() -> None:
    assert refused(lambda: read(Needed, {}, "file")) == "file: kind, count is missing."
    assert read(Needed, {"kind": "long", "count": 1}, "file") == Needed("long", 1)


def test_one_of_some_words() -> None:
    line = refused(lambda: read(Needed, {"kind": "wide", "count": 1}, "file"))
    assert line == 'file: kind must be "short" or "long", got \'wide\'.'
    line = refused(lambda: read(Needed, {"kind": ["short"], "count": 1}, "file"))
    assert line == 'file: kind must be "short" or "long", got [\'short\'].'


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(value=ANYTHING, annotation=st.sampled_from([Size, Rate, bool, str | None, tuple[str, ...], Mapping[str, Size], Inner]))
def test_any_value_is_of_a_type_or_refused(value: Any, annotation: Any) -> None:
    """And what was found to be of a type is so when it is looked at again."""
    found: list[Any] = []
    if refused(lambda: found.append(checked(value, annotation, "it"))) is None:
        assert checked(found[0], annotation, "it") == found[0]


@held
def call(name: Name, *, at: Location = ".", share: Share | None = None, **others: Any) -> tuple[Any, ...]:
    """What came to it."""
    return name, at, share, others


def test_arguments_are_held_to_the_signature() -> None:
    """They come in their plain form, whatever way they are given; defaults and what is `Any` are as they are."""
    assert call("a") == ("a", ".", None, {})
    assert call(name="a", at=Path("x"), share=1, other=[None]) == ("a", Path("x"), 1.0, {"other": [None]})
    name, at = "name must be a text, not empty, got", "at must be a text or a path, such as a file system can hold, got"
    for asked, said in (
        ({"name": ""}, f"{name} ''."),
        ({"name": None}, f"{name} None."),
        ({"name": "a", "at": "a\0"}, f"{at} 'a\\x00'."),
        ({"name": "a", "at": ""}, f"{at} ''."),
        ({"name": "a", "at": "\ud800"}, f"{at} '\\ud800'."),
        ({"name": "a", "at": b"a"}, f"{at} b'a'."),
        ({"name": "a", "share": 0}, "share must be a number, above 0 and at most 1 or null, got 0."),
    ):
        assert refused(lambda asked=asked: call(**asked)) == said
    assert (refused(lambda: call("a", at="x" * 256)) or "").startswith(at)
    assert call("a", at="x" * 255)[1] == "x" * 255
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        call()
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        call("a", None)
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'weight'"):
        held(lambda x: x)(1, weight=2)


@pytest.mark.parametrize("values", [[1, 2], (1, 2), np.array([1, 2]), iter([1, 2]), {1: 1, 2: 2}.values(), range(1, 3)])
def test_what_is_like_a_list_is_one(values: Any) -> None:
    assert checked(values, Sequence[Size], "it") == (1, 2)


@pytest.mark.parametrize("values", ["12", b"12", {1: 1}, {1, 2}, np.array(1), 1, None])
def test_what_is_not_like_a_list_is_none(values: Any) -> None:
    assert (refused(lambda: checked(values, Sequence[Size], "it")) or "").startswith(
        "it must be a list, each of which is a whole"
    )
