"""What a method's settings may be: every field of every method is held to its annotation when the method is made."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from refusals import refused

from graftax import METHODS, LoRA
from graftax.adapters.methods.fusion import Fusion
from graftax.adapters.methods.method_registry import method_of
from graftax.adapters.methods.named import make_method
from graftax.typed import kinds_of

EVERY = METHODS | {"fusion": Fusion}
FIELDS = [(name, field) for name, cls in EVERY.items() for field in kinds_of(cls)]
#: By the plain type of a field, what none of them may be.
NEVER: dict[Any, list[Any]] = {
    int: [True, 1.5, "1", None, [1], -5, 10**40, float("nan")],
    float: [True, "0.5x", [1.0], float("nan"), float("inf"), -float("inf"), 1e300, 10**400],
    bool: [1, "true", None],
    str: [1, None, ["a"]],
    tuple: ["abc", 1, [1.5], None],
    Mapping: [[], 1, {"a": float("nan")}, {"a": "b"}, {"a": True}, None],
    Sequence: [1],
}


def plain(annotation: Any) -> Any:
    """`int` of `Annotated[int, ...]`, `tuple` of `tuple[str, ...]`, `float` of `float | None`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    return origin if origin in NEVER else plain(inner[0]) if inner else annotation


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_setting_of_another_kind_is_refused(name: str, field: str) -> None:
    cls, annotation = EVERY[name], kinds_of(EVERY[name])[field]
    for value in [1, [1]] if field in ("targets", "feedforward") else NEVER[plain(annotation)]:
        if value is None and type(None) in typing.get_args(annotation):
            continue
        line = refused(lambda value=value: cls(**{field: value}))
        assert line is not None, f"{field}={value!r}"
        assert field in line


@pytest.mark.parametrize(
    ("name", "field"), [(name, field) for name, field in FIELDS if field in ("r", "init_r", "tokens", "width", "labels", "n")]
)
def test_a_size_beyond_all_reason_is_refused(name: str, field: str) -> None:
    for value in (10**8, 10**9, 10**40):
        assert f"{field} must be a whole number" in (refused(lambda value=value: EVERY[name](**{field: value})) or "")


def test_numpys_numbers_and_lists_are_taken() -> None:
    made = LoRA(r=np.int64(4), alpha=np.float32(8), targets=["query", "value"], rank_pattern={"key": np.int32(2)})
    assert made == LoRA(r=4, alpha=8.0, targets=("query", "value"), rank_pattern={"key": 2})
    assert (type(made.r), type(made.alpha), type(made.rank_pattern["key"])) == (int, float, int)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lora", {"alpha": float("nan")}),
        ("lora", {"rank": 10**8}),
        ("lora", {"option": ["dropout=2"]}),
        ("lora", {"option": ["dropout=NaN"]}),
        ("lora", {"option": ["alpha=1e999"]}),
        ("lora", {"option": ["r=" + "9" * 6000]}),
        ("lora", {"option": ["rank_pattern=" + "[" * 100_000]}),
        ("lora", {"option": ['alpha_pattern={"query": NaN}']}),
        ("ia3", {"option": ["feedforward=[1]"]}),
        ("oft", {"option": ["num_cayley_neumann_terms=100000000"]}),
        ("boft", {"option": ["boft_n_butterfly_factor=100000000"]}),
        ("compacter", {"option": ["n=30000", "width=30000"]}),
    ],
)
def test_the_command_lines_words_are_refused_in_a_line(method: str, settings: dict[str, Any]) -> None:
    assert (refused(lambda: make_method(method, **settings)) or "").startswith(f"{method}: ")


@pytest.mark.parametrize("member", ["", "lora/x", "prefix", "fusion/bottleneck/2/48/False", "bottleneck/relu", "head/none"])
def test_what_is_no_bottleneck_cannot_be_fused(member: str) -> None:
    assert "fusion: " in (refused(lambda: Fusion(member=member)) or "")


@pytest.mark.parametrize("name", METHODS)
def test_a_key_gives_its_method_back(name: str) -> None:
    """The checks do not stand in the way of `from_key`, which makes a method of its traced fields alone."""
    method = METHODS[name]()
    assert method_of(method.key).key == method.key
