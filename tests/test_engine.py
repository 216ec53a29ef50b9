"""The engine: what is written in a lane is what a whole forward pass says, whoever comes and goes beside it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import randomised
from test_decoders import SHAPES

from graftax import ALoRA, LoRA, Prefix, PromptTuning, Sampling
from graftax.adapters.adapter import Adapter, Layout
from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs
from graftax.models.random import random_backbone
from graftax.serve.bank import Bank
from graftax.serve.composition import Average, Stack, plan_of
from graftax.serve.engine import Engine
from graftax.serve.request import Request

FAMILIES = ["llama", "gemma3", "gpt2", "neox"]
LENGTH = 64  # tokens of a text at most, in most tests


def an_adapter(backbone: Backbone, seed: int, *methods: Any) -> Adapter:
    made = Adapter.create(methods or (LoRA(r=2 + seed),), backbone.sites, task="lm", fingerprint=backbone.fingerprint)
    return randomised(made, seed, 0.3)


class Resident:
    """A bank's adapters, by name in place of a handle; those in `away` are not on the device yet. It counts who is held."""

    def __init__(self, backbone: Backbone, **adapters: Adapter):
        self.bank, self.away, self.held = Bank(backbone, apart=True), set[str](), dict[str, int]()
        for name, adapter in adapters.items():
            self.bank.add(name, adapter)

    @property
    def state(self) -> Any:
        return self.bank.state

    def state_for(self, names: Any) -> Any:
        return self.bank.state_for(names)

    def hold(self, name: Any) -> int | None:
        if name in self.away:
            return None
        self.held[name] = self.held.get(name, 0) + 1
        return self.bank.slot(name)

    def release(self, name: Any) -> None:
        self.held[name] -= 1

    def is_here(self, name: Any) -> bool:
        return name not in self.away

    def kinds(self) -> Any:
        return self.bank.kinds()


@functools.cache
def a_backbone(family: str) -> Backbone:
    return random_backbone({**SHAPES[family], "eos_token_id": 3}, seed=7)


@functools.cache
def adapters(family: str) -> Resident:
    backbone = a_backbone(family)
    made = {"a": an_adapter(backbone, 1), "b": an_adapter(backbone, 2), "k": an_adapter(backbone, 3, Prefix(tokens=2))}
    made["large"] = an_adapter(backbone, 6, LoRA(r=20))  # of another bucket
    return Resident(backbone, **made, p=an_adapter(backbone, 4, PromptTuning(tokens=3)))


def asked(number: int, length: int, what: Any = None, **how: Any) -> Request:
    """A random prompt."""
    ids = np.random.default_rng(number).integers(4, 90, length).astype(np.int32)
    return Request(ids, plan_of(what), Sampling(**how).under(a_backbone("llama").config.rules))


def written(engine: Engine, *requests: Request) -> list[list[int]]:
    """What the engine writes of requests that are there at once."""
    for request in requests:
        engine.submit(request)
    heard: list[list[int]] = [[] for _ in requests]
    while not all(request.done for request in requests):
        assert engine.advance()
        for tokens, request in zip(heard, requests, strict=True):
            tokens += request.hear()
    return heard


def greedy(backbone: Backbone, adapter: Adapter | None, request: Request, length: int = LENGTH) -> list[int]:
    """The likeliest tokens, each by a forward pass over all before it, padded to one length."""
    state = Layout.of([adapter] if adapter else [], backbone.sites).stack(adapter, backbone.sites).state
    ids, tokens = request.ids.tolist(), list[int]()
    while len(tokens) < request.sampling.max_new_tokens and tokens[-1:] != [3]:
        laid, mask = np.zeros((1, length), np.int32), np.arange(length)[None] < len(ids)
        laid[0, : len(ids)] = ids
        logits = whole(backbone)(backbone.params, state, TextInputs(laid, mask, np.zeros_like(laid)))
        tokens.append(int(jnp.argmax(logits[0, len(ids) - 1])))
        ids.append(tokens[-1])
    return tokens


@functools.cache
def whole(backbone: Backbone) -> Any:
    def run(params: Any, state: Any, inputs: TextInputs) -> Any:
        return backbone.next_token(params, state, backbone.encode(params, state, inputs).hidden)

    return jax.jit(run)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_what_a_whole_forward_pass_says(family: str) -> None:
    """Of unlike lengths, in fewer lanes than texts, prompts in chunks; adapters of two buckets, some that add tokens, none."""
    backbone, resident = a_backbone(family), adapters(family)
    engine = Engine(backbone, resident, most_lanes=4, chunk=8)
    whats = [None, "a", "p", "k", "large", "b", "p", "a"]
    shapes = [(5, 20), (21, 3), (11, 12), (30, 18), (9, 10), (1, 7), (25, 9), (8, 30)]
    requests = [
        asked(seed, length, what, max_new_tokens=new)
        for seed, (what, (length, new)) in enumerate(zip(whats, shapes, strict=True))
    ]
    found = written(engine, *requests)
    for what, request, tokens in zip(whats, requests, found, strict=True):
        assert tokens == greedy(backbone, resident.bank.adapters[what] if what else None, request), what
    assert len({tuple(tokens[:3]) for tokens in found}) > 4
    assert not any(resident.held.values())
    assert not engine.advance()


def test_long_texts_beside_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more columns than a program takes at least; virtual tokens are among them."""
    monkeypatch.setattr("graftax.serve.ladders.FEWEST", 64)
    backbone = random_backbone({**SHAPES["llama"], "max_position_embeddings": 256, "eos_token_id": 3}, seed=7)
    resident = Resident(backbone, p=an_adapter(backbone, 4, PromptTuning(tokens=3)), a=an_adapter(backbone, 1))
    engine = Engine(backbone, resident, most_lanes=4, chunk=32)
    whats, shapes = ["p", "a", "p", None], [(61, 30), (5, 9), (118, 20), (100, 40)]
    requests = [
        asked(k, length, what, max_new_tokens=new) for k, (what, (length, new)) in enumerate(zip(whats, shapes, strict=True))
    ]
    for what, request, tokens in zip(whats, requests, written(engine, *requests), strict=True):
        assert tokens == greedy(backbone, resident.bank.adapters[what] if what else None, request, 192)


def test_padding_behind_a_prompts_last_chunk_takes_no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is written would lie further behind than it is looked for."""
    monkeypatch.setattr("graftax.serve.ladders.FEWEST", 64)
    backbone = random_backbone({**SHAPES["llama"], "max_position_embeddings": 256, "eos_token_id": 3}, seed=7)
    resident = Resident(backbone, p=an_adapter(backbone, 4, PromptTuning(tokens=3)))
    request = asked(2, 40, "p", max_new_tokens=32)
    engine = Engine(backbone, resident, most_lanes=1, chunk=32)
    assert written(engine, request) == [greedy(backbone, resident.bank.adapters["p"], request, 128)]


def test_what_a_text_becomes_does_not_depend_on_its_neighbours() -> None:
    """Drawn, penalised, under an adapter or several; each with requests that begin and end while it is written."""
    engine = Engine(a_backbone("llama"), adapters("llama"), most_lanes=4, chunk=8)
    hows = [
        {"temperature": 0.9, "seed": 3},
        {"temperature": 1.3, "top_k": 9, "seed": 4},
        {"repetition_penalty": 1.6},
        {"temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.2, "seed": 5},
        {},
    ]
    whats = ["a", Average("a", "b"), None, Stack("b", "a"), Average("a", "b", weights=(0.2, 0.8))]

    def requests() -> list[Request]:
        return [asked(k, 7 + 5 * k, whats[k], max_new_tokens=12 + 4 * k, **hows[k]) for k in range(5)]

    alone = [written(engine, request)[0] for request in requests()]
    assert written(engine, *requests()) == alone
    assert written(engine, *requests()[::-1]) == alone[::-1]


def test_an_invocation_is_found_in_a_prompt_that_is_longer_than_a_chunk() -> None:
    backbone = a_backbone("llama")
    resident = Resident(backbone, c=an_adapter(backbone, 5, ALoRA(r=4, invocation=(90, 91))), a=an_adapter(backbone, 1))
    engine = Engine(backbone, resident, most_lanes=2, chunk=8)
    called, uncalled = asked(1, 20, "c", max_new_tokens=8), asked(1, 20, "c", max_new_tokens=8)
    called.ids[13:15] = 90, 91
    found = written(engine, called, uncalled)
    assert found == [greedy(backbone, resident.bank.adapters["c"], called), greedy(backbone, None, uncalled)]
    assert found[0] != greedy(backbone, None, called)


def test_a_text_that_nobody_wants_any_longer_frees_its_lane() -> None:
    resident = adapters("llama")
    engine = Engine(a_backbone("llama"), resident, most_lanes=1)
    long, short = asked(1, 6, "a", max_new_tokens=50), asked(2, 6, "b", max_new_tokens=4)
    engine.submit(long)
    engine.submit(short)
    engine.advance()
    assert [resident.held["a"], len(long.hear()), len(short.hear())] == [1, 16, 0]
    long.cancelled = True
    engine.advance()
    assert [len(long.hear()), len(short.hear())] == [0, 4]
    assert [long.done, short.done] == [True, True]
    waiting = asked(3, 6, "a", max_new_tokens=4)
    waiting.cancelled = True
    engine.submit(waiting)
    assert not engine.advance()
    assert waiting.done
    assert not any(resident.held.values())


def test_a_prompt_that_begins_as_another_text_is_read_from_there_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a text that is being written, and of one that has ended, its answer included; under the same adapters alone."""
    backbone = a_backbone("llama")
    resident = Resident(backbone, p=an_adapter(backbone, 4, PromptTuning(tokens=3)), a=an_adapter(backbone, 1))
    engine = Engine(backbone, resident, most_lanes=2)
    read: list[int] = []
    begin, go_on = engine.writer.prefill, engine.writer.extend
    monkeypatch.setattr(engine.writer, "prefill", lambda *a, **k: (read.append(int(a[1].mask.sum())), begin(*a, **k))[1])
    monkeypatch.setattr(engine.writer, "extend", lambda *a, **k: (read.append(int(a[3].sum())), go_on(*a, **k))[1])
    for what in ("p", "a", None):
        first = asked(1, 20, what, max_new_tokens=12)
        answer = written(engine, first, asked(9, 5, max_new_tokens=1))[0]
        other = asked(2, 30, what, max_new_tokens=5, repetition_penalty=1.3)
        other.ids[:20] = first.ids
        turn = asked(3, 45, what, max_new_tokens=8)
        turn.ids[:32] = [*first.ids, *answer]
        both = written(engine, other, turn)
        assert both[1] == greedy(backbone, resident.bank.adapters[what] if what else None, turn)
        again = Engine(backbone, resident, most_lanes=1)
        assert both[0] == written(again, dataclasses.replace(other))[0]
        assert written(engine, dataclasses.replace(turn))[0] == both[1]
        assert read == [20 + 5, 10 + 14, 1], what  # the last token of an answer is read once more
        read.clear()


def test_who_waits_for_an_adapter_lets_others_go_first() -> None:
    resident = adapters("llama")
    engine = Engine(a_backbone("llama"), resident, most_lanes=2)
    away, both, here = asked(1, 6, "a"), asked(2, 6, Average("b", "a")), asked(3, 6, "b", max_new_tokens=3)
    resident.away.add("a")
    for request in (away, both, here):
        engine.submit(request)
    engine.advance()
    assert here.done
    assert [len(here.hear()), len(away.hear()), len(both.hear())] == [3, 0, 0]
    assert not engine.advance()
    assert not any(resident.held.values())
    resident.away.clear()
    engine.advance()
    assert len(away.hear()) == len(both.hear()) == 16
    away.cancelled = both.cancelled = True
    assert not engine.advance()


def test_an_error_ends_those_in_lanes_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = adapters("llama")
    engine = Engine(a_backbone("llama"), resident, most_lanes=1)
    hit, waiting = asked(1, 6, "a", max_new_tokens=40), asked(2, 6, "b", max_new_tokens=8)
    expected = written(engine, asked(2, 6, "b", max_new_tokens=8))[0]
    engine.submit(hit)
    engine.submit(waiting)
    engine.advance()
    with monkeypatch.context() as broken:
        broken.setattr(engine.writer, "decode", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.advance()
    assert isinstance(hit.error, ZeroDivisionError)
    assert [hit.done, waiting.done, resident.held["a"], waiting.error] == [True, False, 0, None]
    engine.advance()
    assert waiting.hear() == expected
    assert waiting.done


def test_programs_are_compiled_for_few_shapes() -> None:
    """Texts that come, go and grow need no further program; neither do other adapters."""
    engine = Engine(a_backbone("llama"), adapters("llama"), most_lanes=4, chunk=8)
    for k in (3, 2, 1, 0):
        written(engine, *[asked(i, 8 + i, "ab"[i % 2], max_new_tokens=20 + k) for i in range(1 + k)])
    counted = engine.writer.compilations
    for k in range(4):
        written(engine, *[asked(9 * i, 9 + k, "ba"[i % 2], max_new_tokens=30 - k) for i in range(1 + k)])
    assert engine.writer.compilations == counted
