"""Rows that many ask about at once are read together, and each gets its own answers."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from cases import fresh, randomised
from http_servers import speaker
from refusals import refused

from graftax import Adapter, Generator, GraftaxError, LoRA, Predictor, Sampling
from graftax.models.backbone import Backbone
from graftax.serve.engine import Engine
from graftax.serve.predictor import Answers
from graftax.serve.reading_pool import ReadingPool
from graftax.serve.residents import Residents

ROWS = ["a red apple", "gold", "a cheap pear today"]


@pytest.fixture(scope="module")
def adapters(tiny: Backbone) -> dict[str, Adapter]:
    return {name: randomised(fresh(tiny, (LoRA(r=2, alpha=3.0),), seed=seed), seed) for seed, name in enumerate("abc")}


@pytest.fixture
def asked(tiny: Backbone, adapters: dict[str, Adapter]) -> Predictor:
    """A predictor that many ask, with room for two adapters at a time."""
    residents = Residents(tiny, slots=2)
    for name, adapter in adapters.items():
        residents.register(name, adapter)
    return Predictor(tiny, residents=residents)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pieces were read at once, call by call."""
    counts: list[int] = []
    plain = ReadingPool._made_by_call

    def counted(self: ReadingPool, pieces: Any, wanted: Any, rows: int) -> Any:
        counts.append(len(pieces))
        return plain(self, pieces, wanted, rows)

    monkeypatch.setattr(ReadingPool, "_made_by_call", counted)
    return counts


def answered(predictor: Predictor, answers: Answers[Any]) -> list[Any]:
    while not answers.reading.over:
        assert predictor.engine.advance()
    return answers.result()


def labels(answers: list[Any]) -> list[Any]:
    return [(answer.label, pytest.approx(answer.score, abs=1e-6)) for answer in answers]


def test_what_waits_is_read_together(
    asked: Predictor, adapters: dict[str, Adapter], tiny: Backbone, batches: list[int]
) -> None:
    """In one call, of whatever adapters; and with more adapters than there is room for, in as few as that takes."""
    alone = Predictor(tiny)
    for name, adapter in adapters.items():
        alone.load(name, adapter)
    expected = {name: [(one.label, one.score) for one in alone.predict(ROWS, name)] for name in adapters}
    batches.clear()
    waiting = [(name, asked.begin(ROWS, name)) for name in ("a", "b", "a", "c", "b")]
    for name, answers in waiting:
        assert labels(answered(asked, answers)) == expected[name]
    assert batches == [12, 3]


def test_what_would_be_padding_is_read_in_calls_of_its_own(asked: Predictor, batches: list[int]) -> None:
    """Once a server has compiled all programs; answers are the same, and in the order of the rows."""
    rows = [" ".join(["pear"] * count) for count in (1, 38, 2, 3, 1, 30, 2, 1)]
    expected = [labels(asked.predict([row], name)) for row, name in zip(rows, "abababab", strict=True)]
    asked.engine.readings.all_compiled = True
    batches.clear()
    answers = answered(asked, asked.begin(rows, list("abababab")))
    assert [labels([answer]) for answer in answers] == expected
    assert batches == [4, 4]  # of 8 positions, and of 40 for two of the rows


def test_a_call_in_ones_own_thread_shares_no_batch(asked: Predictor, batches: list[int]) -> None:
    """So it gives the same bits every time."""
    expected = asked.predict(ROWS, "a")
    waiting = [asked.begin(ROWS[:1], "a"), asked.begin(ROWS, "b")]
    assert asked.predict(ROWS, "a") == expected
    assert [one.reading.future.done() for one in waiting] == [True, True]
    assert batches == [3, 4, 3]


def test_a_large_request_holds_nobody_up(asked: Predictor, batches: list[int]) -> None:
    large, small, other = asked.begin(ROWS[:1] * 200, "a"), asked.begin(ROWS[:1], "a"), asked.begin_embedding(ROWS[:1], "b")
    asked.engine.advance()
    assert [one.reading.future.done() for one in (large, small, other)] == [False, True, False]
    asked.engine.advance()  # whoever was served stands behind whoever was not
    assert [one.reading.future.done() for one in (large, small, other)] == [False, True, True]
    assert len(answered(asked, large)) == 200
    assert batches == [33, 1, 64, 64, 40]


def test_what_is_wrong_with_one_fails_no_other(
    asked: Predictor, monkeypatch: pytest.MonkeyPatch, adapters: dict[str, Adapter]
) -> None:
    """An adapter that cannot be read, a batch that fails for one of its pieces, and somebody who goes away."""
    assert "row 1 is empty" in str(refused(lambda: asked.begin([" "], "a")))
    gone = asked.begin(ROWS, "a")
    gone.cancel()
    poisoned = asked.begin([ROWS[0]], "b")
    good = asked.begin(ROWS, "a")
    plain = ReadingPool._made

    def failing(self: ReadingPool, pieces: Any, wanted: Any) -> Any:
        if any(piece is poisoned.reading.pieces[0] for piece in pieces):
            raise MemoryError("too much")
        return plain(self, pieces, wanted)

    monkeypatch.setattr(ReadingPool, "_made", failing)
    assert len(answered(asked, good)) == 3
    with pytest.raises(MemoryError, match="too much"):
        poisoned.result()
    assert not gone.reading.future.done()
    assert asked.engine.idle
    assert asked.residents.tiers().device == dict.fromkeys(map(asked.residents.resolve, "ab"), 0)  # nobody holds one


def test_an_interruption_ends_the_batch_alone(asked: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: ReadingPool, pieces: Any, wanted: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReadingPool, "_made", interrupted)
        with pytest.raises(KeyboardInterrupt):
            asked.predict(ROWS, "a")
    assert asked.engine.idle
    assert set(asked.residents.tiers().device.values()) == {0}
    assert len(asked.predict(ROWS, "a")) == 3


def test_one_bank_for_what_is_read_and_what_is_written(teller: Backbone) -> None:
    """Predictor and generator of one engine have an adapter on the device once; an engine of others is refused."""
    residents = Residents(teller, slots=1)
    engine = Engine(teller, residents)
    predictor, generator = (kind(teller, residents=residents, engine=engine) for kind in (Predictor, Generator))
    for name in ("sea", "sky"):
        residents.register(name, speaker(teller, len(name)))
    expected = {name: Predictor(teller) for name in ("sea", "sky")}
    for name, alone in expected.items():
        alone.load(name, speaker(teller, len(name)))
    written = generator.begin("a", "sea", Sampling(max_new_tokens=40))
    engine.advance()
    vectors = predictor.begin_embedding(["a plum"], "sky")  # whose slot is sea's until the text has ended
    while not vectors.reading.over:
        engine.advance()
    assert written.request.done
    np.testing.assert_allclose(vectors.result()[0], expected["sky"].embed(["a plum"], "sky")[0], atol=1e-5)
    assert residents.tiers().writes == 2
    with pytest.raises(GraftaxError, match="engine: it has another backbone, or other residents"):
        Predictor(teller, engine=engine)


def test_an_adapter_that_was_replaced_is_forgotten(asked: Predictor, adapters: dict[str, Adapter]) -> None:
    """By the engine too, when nothing is read with it any longer."""
    handle = weakref.ref(asked.residents.resolve("a"))
    asked.predict(ROWS, "a")
    asked.residents.register("a", adapters["b"])
    asked.predict(ROWS, "a")
    gc.collect()
    assert handle() is None
