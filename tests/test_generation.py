"""Generation against transformers', mixed batches against rows alone, sampling, stop texts, streaming."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from cases import randomised
from conftest import SHARED, needs_assets

from graftax import (
    Average,
    Generator,
    GraftaxError,
    LoRA,
    Parallel,
    Prefix,
    PromptTuning,
    Sampling,
    Split,
    Stack,
    load_backbone,
)
from graftax.adapters.adapter import Adapter, Layout
from graftax.models.backbone import Backbone
from graftax.models.generation import Rules
from graftax.models.inputs import TextInputs
from graftax.serve import evaluate_generation
from graftax.serve.choice import Needs, Settings, choose

STORIES = SHARED / "backbones" / "stories260K"
PROMPTS = ["the early bird", "a", "one, two, three, four, five"]


def an_adapter(backbone: Backbone, seed: int, *methods: Any, size: float = 0.3) -> Adapter:
    methods = methods or (LoRA(r=2 + seed, alpha=7.0, targets=("q_proj", "down_proj")),)
    return randomised(Adapter.create(methods, backbone.sites, task="lm", fingerprint=backbone.fingerprint), seed, size)


def resident(generator: Generator, name: str) -> Adapter:
    return generator.residents.adapter(generator.residents.resolve(name))


@pytest.fixture(scope="module")
def generator(teller: Backbone) -> Generator:
    """With adapters a, b, p (a prompt) and k (a prefix)."""
    made = Generator(teller)
    made.load("a", an_adapter(teller, 1))
    made.load("b", an_adapter(teller, 2))
    made.load("p", an_adapter(teller, 3, PromptTuning(tokens=3)))
    made.load("k", an_adapter(teller, 4, Prefix(tokens=2)))
    return made


def theirs(path: Path, prompts: list[str], count: int, **options: Any) -> list[list[int]]:
    """What transformers' `generate` makes of prompts padded on the left."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = tokenizer(prompts, return_tensors="pt", padding=True)
    rows.pop("token_type_ids", None)
    with torch.no_grad():
        out = model.generate(**rows, max_new_tokens=count, pad_token_id=tokenizer.pad_token_id, **options)
    eos = model.config.eos_token_id
    new = [row[rows["input_ids"].shape[1] :].tolist() for row in out]
    return [row[: row.index(eos) + 1] if eos in row else row for row in new]


@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_equals_transformers(penalty: float, teller_dir: Path, generator: Generator) -> None:
    found = generator.generate(PROMPTS, sampling=Sampling(max_new_tokens=20, repetition_penalty=penalty))
    expected = theirs(teller_dir, PROMPTS, 20, do_sample=False, repetition_penalty=penalty)
    assert [list(one.tokens) for one in found] == expected


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        pytest.param({"num_beams": 2, "length_penalty": 0.5, "early_stopping": True}, marks=pytest.mark.slow),
        pytest.param({"num_beams": 4, "repetition_penalty": 1.4}, marks=pytest.mark.slow),
    ],
)
def test_beams_equal_transformers(options: dict[str, Any], teller_dir: Path, generator: Generator) -> None:
    found = generator.generate(PROMPTS, sampling=Sampling(max_new_tokens=12, **options))
    assert [list(one.tokens) for one in found] == theirs(teller_dir, PROMPTS, 12, do_sample=False, **options)


@needs_assets
def test_stories_reference_text() -> None:
    generator = Generator(load_backbone(STORIES))
    prompt = "Once upon a time, there was a little girl named Lily."
    (one,) = generator.generate([prompt], sampling=Sampling(max_new_tokens=60))
    assert one.text.startswith(
        " She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too "
        "high.\nLily's mom said,"
    )
    assert [list(one.tokens)] == theirs(STORIES, [prompt], 60, do_sample=False)


def test_rows_of_a_batch_are_the_rows_alone(teller: Backbone, generator: Generator) -> None:
    """Each row as a whole forward pass with its adapter says the next token, adapters that add tokens and none included."""
    named = ["a", None, "p", "k", "b", "a"]
    prompts = [PROMPTS[i % 3] for i in range(len(named))]
    found = generator.generate(prompts, named, Sampling(max_new_tokens=6))
    for name, prompt, one in zip(named, prompts, found, strict=True):
        ids = [int(i) for i in generator.tokenizer.ids([prompt])[0]]
        adapter = resident(generator, name) if name else None
        for token in one.tokens:
            assert token == next_token(teller, adapter, ids), (name, one)
            ids.append(token)
    assert len({one.tokens for one in found}) > 3
    order = [3, 0, 5, 1, 4, 2]
    again = generator.generate([prompts[i] for i in order], [named[i] for i in order], Sampling(max_new_tokens=6))
    assert [one.tokens for one in again] == [found[i].tokens for i in order]


def next_token(backbone: Backbone, adapter: Adapter | None, ids: list[int]) -> int:
    """The likeliest by a forward pass over all tokens, padded to one shape."""
    laid, mask = np.zeros((1, 40), np.int32), np.arange(40)[None] < len(ids)
    laid[0, : len(ids)] = ids
    layout = Layout.of([adapter] if adapter else [], backbone.sites)
    state = layout.stack(adapter, backbone.sites).state
    logits = whole(backbone)(backbone.params, state, TextInputs(laid, mask, np.zeros_like(laid)))
    return int(jnp.argmax(logits[0, len(ids) - 1]))


@functools.cache
def whole(backbone: Backbone) -> Any:
    def run(params: Any, state: Any, inputs: TextInputs) -> Any:
        return backbone.next_token(params, state, backbone.encode(params, state, inputs).hidden)

    return jax.jit(run)


@pytest.mark.slow
def test_compositions(generator: Generator) -> None:
    """An average with all its weight on one adapter is that adapter; a stack and a true average are neither."""
    whole = Average("a", "b", weights=(1.0, 0.0))
    rows = ["a", whole, Average("a", "b"), Stack("a", "b"), "b"]
    found = generator.generate(["the early bird"] * 5, rows, Sampling(max_new_tokens=12))
    assert found[0].tokens == found[1].tokens
    assert len({one.tokens for one in found}) == 4
    assert found[2].adapter == "Average(a: 0.5, b: 0.5)"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (Split("a", "b", at=(2,)), "cannot be continued"),
        (Parallel("a", "b"), "in a row of its own"),
        (Average("a", "p"), "adds tokens"),
        ("c", "no adapter named 'c'"),
    ],
)
def test_what_cannot_be_continued(what: Any, message: str, generator: Generator) -> None:
    with pytest.raises(GraftaxError, match=message):
        generator.generate(["x"], [what])


def test_a_swap_compiles_nothing(teller: Backbone, generator: Generator) -> None:
    how = Sampling(max_new_tokens=5)
    first = generator.generate(PROMPTS, ["a", "b", None], how)
    assert generator.generate(PROMPTS, ["a", "b", None], how) == first  # prompts that were there before have a program more
    before = generator.compilations
    kept = resident(generator, "b")
    generator.load("b", an_adapter(teller, 2, size=0.5))
    other = generator.generate(PROMPTS, ["a", "b", None], how)
    generator.load("b", kept)
    assert generator.generate(PROMPTS, ["a", "b", None], dataclasses.replace(how, temperature=0.0, stop=("~",))) == first
    assert [other[0], other[2]] == [first[0], first[2]]
    assert other[1] != first[1]
    assert generator.compilations == before


# -- sampling ------------------------------------------------------------------------------------------------------------


def test_a_rows_seed_is_its_own(generator: Generator) -> None:
    """The same prompt draws the same whatever stands beside it; other seeds draw otherwise."""
    hot = Sampling(max_new_tokens=10, temperature=1.5, seed=5)
    (alone,) = generator.generate(["a"], "a", hot)
    beside = generator.generate(
        ["the early bird", "a", "a"], ["b", "a", "a"], [Sampling(max_new_tokens=4), hot, dataclasses.replace(hot, seed=6)]
    )
    assert beside[1] == alone
    assert beside[2].tokens != alone.tokens
    assert len(beside[0].tokens) == 4


@pytest.mark.parametrize(
    "options", [{"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.2}, {"top_k": 9, "top_p": 0.8, "min_p": 0.1, "temperature": 0.6}]
)
def test_draws_follow_transformers_filters(options: dict[str, Any]) -> None:
    """What may be drawn, and how often, of 4,000 draws from one distribution."""
    options = {"temperature": 1.3, **options}
    logits = 2.0 * np.random.default_rng(0).standard_normal(24).astype(np.float32)
    scores = torch.tensor(logits)[None] / options["temperature"]
    for name, warper in (
        ("top_k", transformers.TopKLogitsWarper),
        ("top_p", transformers.TopPLogitsWarper),
        ("min_p", transformers.MinPLogitsWarper),
    ):
        if name in options:
            scores = warper(options[name])(None, scores)
    expected = torch.softmax(scores, -1)[0].numpy()
    count = 4000
    rows = [Sampling(seed=i, **options).under(Rules()) for i in range(count)]
    wide = jnp.broadcast_to(logits, (count, 24))
    drawn = choose(Needs.of(rows), wide, Settings.of(rows, count), jnp.zeros((count, 24), bool), jnp.zeros(count, jnp.int32))
    seen = np.bincount(np.asarray(drawn), minlength=24) / count
    assert not seen[expected == 0].any()
    np.testing.assert_allclose(seen, expected, atol=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"stop": ("",)}, "stop"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        Sampling(**options)


# -- text ----------------------------------------------------------------------------------------------------------------


def test_stop_texts_and_streams(generator: Generator) -> None:
    """What is streamed is the text, nothing of a stop text included; a stop text ends its own row alone."""
    free = generator.generate(PROMPTS, ["a", "b", None], Sampling(max_new_tokens=40))
    stop = free[0].text[3:6]
    assert stop
    pieces, ends = ["", "", ""], {}
    for row, text, end in generator.stream(PROMPTS, ["a", "b", None], Sampling(max_new_tokens=40, stop=(stop,))):
        pieces[row] += text
        if end:
            ends[row] = end
    assert pieces == [ends[row].text for row in range(3)]
    for row in range(3):
        cut = free[row].text.find(stop)
        assert ends[row].text == (free[row].text if cut < 0 else free[row].text[:cut])
        assert ends[row].finished == (free[row].finished if cut < 0 else "stop")
    assert ends[0].finished == "stop"


def test_a_caller_may_call_again_while_it_listens(generator: Generator) -> None:
    """And what it loads meanwhile leaves the texts that are under way as they are."""
    free = generator.generate(PROMPTS, ["a", "b", None], Sampling(max_new_tokens=40))
    inner, ends = [], {}
    for row, _, end in generator.stream(PROMPTS, ["a", "b", None], Sampling(max_new_tokens=40)):
        if not inner:
            inner = generator.generate(PROMPTS, ["a", "b", None], Sampling(max_new_tokens=40))
            generator.load("a", resident(generator, "a"))
        if end:
            ends[row] = end
    assert inner == free == [ends[row] for row in range(3)]


def test_prompts_that_are_refused(generator: Generator, tiny: Backbone) -> None:
    with pytest.raises(GraftaxError, match="prompt 2 is empty"):
        generator.generate(["a", ""])
    with pytest.raises(GraftaxError, match="a prompt of 91 tokens and 64 new ones are more than the 96"):
        generator.generate(["a" * 90])
    with pytest.raises(GraftaxError, match="2 rows but 1 adapter"):
        generator.generate(["a", "b"], ["a"])
    with pytest.raises(GraftaxError, match="no language model"):
        Generator(tiny)


def test_measured_by_what_is_generated(generator: Generator) -> None:
    """Against its own continuations an adapter is perfect, the backbone is not, and a chat is answered by the template."""
    how = Sampling(max_new_tokens=8)
    said = generator.generate(PROMPTS, "a", how)
    rows = [{"prompt": prompt, "completion": own.text} for prompt, own in zip(PROMPTS, said, strict=True)]
    found = evaluate_generation(generator, "a", rows, sampling=how)
    assert (found["exact_match"], found["cer"]) == (1.0, 0.0)
    assert evaluate_generation(generator, None, rows, sampling=how)["cer"] > 0.5
    assert evaluate_generation(generator, "a", rows, score="gsm8k", sampling=how).keys() == {"accuracy"}
    question = {"role": "user", "content": "a? b? c?"}
    answer, other, _ = generator.generate([[question], "a? b? c?", PROMPTS[2]], "a", how)
    assert answer.text != other.text
    chat = [question, {"role": "assistant", "content": answer.text}, {"role": "user", "content": "b"}]
    assert evaluate_generation(generator, "a", [{"messages": chat}] * 3, sampling=how)["exact_match"] == 1.0


def test_what_cannot_be_measured(generator: Generator) -> None:
    with pytest.raises(GraftaxError, match="unknown score 'taste'; there are text, gsm8k"):
        evaluate_generation(generator, None, [{"prompt": "a", "completion": "b"}], score="taste")
    with pytest.raises(GraftaxError, match="row 1 has no message of the assistant"):
        evaluate_generation(generator, None, [{"messages": [{"role": "user", "content": "a"}]}])
    with pytest.raises(GraftaxError, match="prompt 1 is empty"):
        evaluate_generation(generator, None, [{"messages": [{"role": "assistant", "content": "a"}]}])
