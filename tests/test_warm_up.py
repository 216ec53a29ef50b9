"""Warm-up: what a mixed load asks for later has been compiled by then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax.monitoring
import numpy as np
import pytest
from cases import fresh, randomised
from test_decoders import SHAPES

from graftax import LoRA, Predictor, Prefix, PromptTuning, Sampling
from graftax.adapters.adapter import Adapter
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.serve.composition import Term
from graftax.serve.engine import Engine
from graftax.serve.handles import Handle
from graftax.serve.ladders import Ladder, Ladders
from graftax.serve.request import Request
from graftax.serve.residents import Residents
from graftax.serve.warm_up import WarmUp


@contextmanager
def compiled() -> Iterator[list[str]]:
    """What JAX compiles in the block, or reads from a cache of compiled programs."""
    events: list[str] = []

    def hear(event: str, _: float, **facts: Any) -> None:
        if event.endswith("backend_compile_duration"):
            events.append(str(facts))

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)


def asked(backbone: Backbone, ids: Any, handle: Handle | None, **how: Any) -> Request:
    plan = () if handle is None else ((Term(handle, 1.0),),)
    return Request(np.asarray(ids, np.int32), plan, Sampling(**how).under(backbone.config.rules))


def test_a_mixed_load_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, drawn, cut and penalised, short and long, alone and together, of several ranks, with prefixes and without."""
    monkeypatch.setattr("graftax.serve.lane_pool._RESERVED", 256)
    shape = {**SHAPES["llama"], "max_position_embeddings": 600, "eos_token_id": 3, "num_hidden_layers": 1}
    backbone = random_backbone(shape, seed=7)
    residents = Residents(backbone, slots=4)
    methods = {"a": LoRA(r=3), "b": LoRA(r=8), "large": LoRA(r=12), "k": Prefix(tokens=2), "p": PromptTuning(tokens=3)}
    handles: list[Handle | None] = [None]
    for seed, (name, method) in enumerate(methods.items()):
        made = Adapter.create((method,), backbone.sites, task="lm", fingerprint=backbone.fingerprint)
        handles.append(residents.register(name, randomised(made, seed, 0.3)))
    residents.reserve([handle for handle in handles if handle])
    engine = Engine(backbone, residents, most_lanes=4, chunk=32)
    said = list[str]()
    warm = WarmUp(engine, said.append)
    warm.run()
    assert warm.done == warm.count > 40
    assert len(said) == 6
    draw = np.random.default_rng(0)
    hows = [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9}, {"repetition_penalty": 1.2}]
    lengths = [1, 9, 40, 70, 200, 500]
    counted = engine.writer.compilations
    with compiled() as events:
        for round_ in range(12):
            requests = []
            for k in range([1, 5, 2, 3, 7][round_ % 5]):
                ids = draw.integers(4, 90, lengths[(round_ + k) % len(lengths)])
                ids[:30] = np.arange(30)[: len(ids)] + 4  # a beginning that texts share
                how = {**hows[(round_ + k) % 4], "max_new_tokens": 5 + 13 * k}
                requests.append(asked(backbone, ids, handles[(round_ + k) % len(handles)], **how))
                engine.submit(requests[-1])
            while not all(request.done for request in requests):
                engine.advance()
            assert all(request.error is None and request.count for request in requests)
    assert not events, f"{events[:3]}, {len(events)} in all"
    assert engine.writer.compilations == counted


def test_rungs() -> None:
    assert [*Ladder(16, 2, 256)] == [16, 32, 64, 128, 256]
    assert [*Ladder(256, 2, 2064)] == [256, 512, 1024, 2064]  # 2048 would be one more for 16 columns
    assert [*Ladder(64, 4, 8)] == [8]
    assert [Ladder(16, 2, 100).at_least(size) for size in (1, 16, 17, 32, 33, 100, 101)] == [16, 16, 32, 32, 100, 100, 100]


def test_what_a_call_reads() -> None:
    """Rows are filled where more than half would be padding, and a call of several texts has 1,024 tokens at most."""
    ladders = Ladders(lanes=16, chunk=256, context=2048)
    begun = ladders.begun()
    assert ladders.of_first([9], begun) == (1, 1, 16)
    assert ladders.of_first([9, 9], begun) == (1, 1, 16)
    assert ladders.of_first([9, 9, 20], begun) == (3, 4, 32)
    assert ladders.of_first([9] * 8, begun) == (4, 4, 16)
    assert ladders.of_first([9] * 9, begun) == (9, 16, 16)
    assert ladders.of_first([60] * 40, begun) == (16, 16, 64)
    assert ladders.of_first([200] * 16, begun) == (4, 4, 256)
    assert ladders.of_first([5000], ladders.begun(whole=True)) == (1, 1, 2048)


def test_an_encoder_compiles_what_it_reads_with(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any number of rows and any length: classes, tags and vectors, with adapters and without."""
    monkeypatch.setattr("graftax.serve.reading_calls._ROWS", (1, 4))  # more numbers of rows would take a minute
    monkeypatch.setattr("graftax.serve.reading_pool.MOST_ROWS", 4)
    residents = Residents(tiny, slots=3)
    lora = (LoRA(r=2, alpha=3.0),)
    adapters = {"a": fresh(tiny, lora, seed=1), "b": fresh(tiny, lora, seed=2), "tags": fresh(tiny, lora, tokens=True, seed=3)}
    residents.reserve([residents.register(name, adapter) for name, adapter in adapters.items()])
    predictor = Predictor(tiny, residents=residents)
    warm = WarmUp(predictor.engine, lambda line: None)
    warm.run()
    assert warm.done == warm.count > 0
    words = ["apple", "gold", "pear"]
    with compiled() as events:
        for count, length in ((1, 1), (2, 9), (3, 30), (5, 12), (9, 4)):
            rows = [" ".join(words[(i + k) % 3] for k in range(length)) for i in range(count)]
            predictor.predict(rows, [("a", "b", "tags")[i % 3] for i in range(count)])
            predictor.predict(rows, "a")
            predictor.embed(rows, [(None, "a", "tags")[i % 3] for i in range(count)])
    assert not events, f"{events[:3]}, {len(events)} in all"
