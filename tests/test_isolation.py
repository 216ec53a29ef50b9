"""A poisoned adapter changes no bit of what is answered beside it, and who asked it is told so."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from cases import fresh, randomised
from http_servers import served, speaker

from graftax import Adapter, Generator, LoRA, Predictor, Sampling
from graftax.models.backbone import Backbone
from graftax.serve.composition import Term
from graftax.serve.engine import Engine
from graftax.serve.handles import Handle
from graftax.serve.request import Request
from graftax.serve.residents import Residents
from graftax.serve.soundness import NotFinite


def scaled(adapter: Adapter, factor: float) -> Adapter:
    """The same with leaves so many times as large, as whoever wants to do harm may have it."""

    def large(leaves: Any) -> Any:
        return {name: (np.asarray(leaf) * np.float32(factor)).astype(np.float32) for name, leaf in leaves.items()}

    states = {
        key: {site: (large(trainable), fixed) for site, (trainable, fixed) in own.items()}
        for key, own in adapter.states.items()
    }
    return dataclasses.replace(adapter, states=states)


@pytest.fixture(scope="module")
def residents(teller: Backbone) -> Residents:
    made = Residents(teller, slots=3)
    made.register("sound", speaker(teller, 1))
    made.register("beside", speaker(teller, 2))
    made.register("poisoned", scaled(speaker(teller, 2), 1e30))
    return made


def asked(handle: Handle | None, length: int, new: int = 24, **how: Any) -> Request:
    plan = () if handle is None else ((Term(handle, 1.0),),)
    ids = np.random.default_rng(length).integers(4, 60, length).astype(np.int32)
    return Request(ids, plan, Sampling(max_new_tokens=new, repetition_penalty=1.0, **how), told=3)


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "top_p": 0.9}])
def test_a_text_beside_a_poisoned_one_and_after_it(how: dict[str, Any], residents: Residents) -> None:
    """Tokens and chances, to the last bit: side by side, and in the lane that the poisoned text had."""
    sound, beside, poisoned = (residents.resolve(name) for name in ("sound", "beside", "poisoned"))

    def written(neighbour: Handle) -> tuple[Any, Request]:
        engine = Engine(residents.backbone, residents, most_lanes=2)
        other, first = asked(neighbour, 40, 1, **how), asked(sound, 9, **how)  # of one token: both end alike
        second, third = asked(sound, 12, **how), asked(None, 5, **how)
        for request in (other, first):
            engine.submit(request)
        while not (other.done and first.done):
            engine.advance()
        for request in (second, third):
            engine.submit(request)
        while engine.advance():
            pass
        assert all(one.error is None and one.count for one in (first, second, third))
        return [one.chances for one in (first, second, third)], other

    expected, unharmed = written(beside)
    found, harmed = written(poisoned)
    assert found == expected
    assert unharmed.error is None
    assert isinstance(harmed.error, NotFinite)
    assert str(harmed.error) == (
        "poisoned: gives numbers for this text that are not finite; some weights are too large, or damaged."
    )
    assert harmed.count == 0


def test_what_is_read_beside_a_poisoned_adapter(tiny: Backbone) -> None:
    made = [randomised(fresh(tiny, (LoRA(r=4),), seed=seed), seed) for seed in range(2)]

    def read(neighbour: Adapter) -> tuple[Any, Any]:
        predictor = Predictor(tiny)
        predictor.load("sound", made[0])
        predictor.load("other", neighbour)
        mine = predictor.begin(["a text", "and one more"], "sound")
        vectors = predictor.begin_embedding(["a text", "and one more"], "sound")
        theirs = predictor.begin(["a text", "theirs"], "other"), predictor.begin_embedding(["a text"], "other")
        while not all(one.reading.over for one in (mine, vectors, *theirs)):
            predictor.engine.advance()
        arrays = [*mine.reading.future.result(), *vectors.reading.future.result()]
        return [array.tobytes() for array in arrays], theirs

    expected, unharmed = read(made[1])
    found, harmed = read(scaled(made[1], 1e30))
    assert found == expected
    assert [one.reading.future.exception() for one in unharmed] == [None, None]
    for one in harmed:
        with pytest.raises(NotFinite, match="other: gives numbers"):
            one.result()


def test_whoever_calls_is_told(teller: Backbone) -> None:
    generator = Generator(teller)
    generator.load("poisoned", scaled(speaker(teller, 2), 1e30))
    with pytest.raises(NotFinite):
        generator.generate(["One day"], "poisoned")
    with served(teller, lanes=2) as server:
        server.service.residents.register("poisoned", scaled(speaker(teller, 2), 1e30))
        answer = server.post("/v1/completions", model="poisoned", prompt="One day", max_tokens=4)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "adapter_unusable")
        assert server.post("/v1/completions", model="backbone", prompt="One day", max_tokens=4).status_code == 200
