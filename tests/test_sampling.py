"""What a generator is asked: settings, prompts, adapters; a right answer, or one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from graftax import Generator, GraftaxError, Sampling
from graftax.models.backbone import Backbone
from graftax.models.generation import Rules
from graftax.serve.choice import Settings


@pytest.fixture(scope="module")
def generator(teller: Backbone) -> Generator:
    return Generator(teller)


values = st.none() | st.booleans() | st.integers(-2, 200) | st.floats() | st.text(max_size=2) | st.binary(max_size=2)
values |= st.sampled_from(
    [10**400, -(10**5000), 2**31, 2**32, 1e300, 1e-300, np.int64(3), np.float32(0.5), [], ["a"], ("",), "never"]
)
fields = st.sampled_from([*Sampling.__dataclass_fields__, "typical_p", "max_length"])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(asked=st.dictionaries(fields, values, max_size=3))
def test_any_settings_are_sound_or_one_line(asked: dict[str, Any]) -> None:
    """Sound ones are finite on the device, and as they were asked."""
    found: list[Sampling] = []
    if refused(lambda: found.append(Sampling().changed(asked))) is not None:
        return
    rows = Settings.of([found[0].under(Rules())], 1)
    assert all(np.isfinite(leaf).all() for leaf in rows)
    assert 0 < rows.top_p[0] <= 1
    assert rows.penalty[0] > 0
    assert rows.seed[0] == found[0].seed
    assert rows.top_k[0] == found[0].top_k
    assert isinstance(found[0].stop, tuple)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"max_new_tokens": 2.5}, "max_new_tokens must be a whole number, at least 1 and below 2,147,483,648, got 2.5"),
        ({"max_new_tokens": True}, "max_new_tokens must be a whole number"),
        ({"top_k": "5"}, "top_k must be a whole number, at least 0 and below 2,147,483,648, got '5'"),
        ({"seed": 10**5000}, "seed must be a whole number, at least 0 and below 4,294,967,296, got an integer of thousands"),
        ({"num_beams": 10**6}, "num_beams must be a whole number, at least 1 and at most 1,000"),
        ({"temperature": float("nan")}, "temperature must be a number, at least 0 and at most 1,000,000"),
        ({"temperature": "hot"}, "temperature must be a number, at least 0"),
        ({"top_p": 1e-60}, "top_p must be a number, above 0 and at most 1, got 1e-60"),
        ({"repetition_penalty": 1e300}, "repetition_penalty must be a number, at least 1e-06 and at most 1,000,000 or null"),
        ({"early_stopping": "never"}, "early_stopping must be true or false"),
        ({"stop": "end"}, "stop must be a list, each of which is a text"),
        ({"max_length": 5}, "no such setting: max_length; there are max_new_tokens, temperature"),
    ],
)
def test_settings_that_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        Sampling().changed(asked)


def test_settings_in_place_of_a_sampling(generator: Generator) -> None:
    asked = {"max_new_tokens": 3, "temperature": 1.0, "seed": 7}
    found = generator.generate(["a", "b"], **asked)
    assert found == generator.generate(["a", "b"], None, Sampling(**asked))
    assert found == generator.generate(
        ["a", "b"], sampling=[Sampling(seed=7), Sampling(seed=8)], max_new_tokens=3, temperature=1.0
    )
    assert [len(one.tokens) for one in generator.generate(("a",), max_new_tokens=np.int64(2))] == [2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hello",), "prompts must be a list, got a single str"),
        ((5,), "prompts must be a list, got int"),
        (([b"a"],), "prompt 1 must be a text or the list of a chat's messages, got bytes"),
        (([{"role": "user", "content": "a"}],), "prompt 1 must be a text or the list of a chat's messages, got dict"),
        (([["a"]],), "prompt 1: a message is not an object with role and content"),
        (([[{"role": "user", "content": {"a": 5}}]],), "prompt 1: an object is no text"),
        ((["a", None],), "prompt 2 must be a text"),
        ((["a"], [5]), "row 1: its adapter is int"),
        (
            (["a"], None, {"temperature": 1.0}),
            "sampling must be a Sampling or a list, each of which is a Sampling, got {.temperature",
        ),
        ((["a"], None, ["greedy"]), "sampling must be a Sampling or a list, each of which is a Sampling, got \\[.greedy"),
        ((["a", "b"], None, [Sampling()]), "2 prompts but 1 sampling"),
    ],
)
def test_arguments_that_are_refused(arguments: Any, message: str, generator: Generator) -> None:
    with pytest.raises(GraftaxError, match=message):
        generator.generate(*arguments)
