"""GRPO: its formulas, its rewards, a run against a plain loop, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SHARED, Graftax, needs_assets
from runs import lines
from tiny import command_line, weights_of, write_jsonl

from graftax import (
    Columns,
    GraftaxError,
    GrpoResult,
    GrpoSettings,
    Head,
    Interrupted,
    LoRA,
    Recipe,
    grpo,
    load_adapter,
)
from graftax.adapters.adapter import Adapter, Layout, join
from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs
from graftax.models.load import load_backbone
from graftax.models.tokens import Tokenizer
from graftax.notes import GraftaxNote
from graftax.serve.generator import Generator
from graftax.serve.sampling import Sampling
from graftax.tuning.grpo.advantages import advantages
from graftax.tuning.grpo.grpo_settings import LOSSES
from graftax.tuning.grpo.prompt_rows import PromptRows, read_prompts, tokens_of
from graftax.tuning.grpo.rewards import Completion, rewards_of
from graftax.tuning.grpo.sampled_groups import Sampler
from graftax.tuning.grpo.surrogate import Told, lost
from graftax.tuning.grpo.surrogate import weights_of as weights_of_tokens
from graftax.tuning.loops.room import trainable_of

ROWS = [{"prompt": prompt, "answer": prompt.upper(), "worth": i} for i, prompt in enumerate(["ab", "c", "def", "gh", "i"])]
QUICK: dict[str, Any] = {
    "method": LoRA(r=4),
    "recipe": Recipe(lr=2e-2, batch_size=3, warmup=0.0, seed=5),
    "settings": GrpoSettings(num_generations=4, max_new_tokens=5, steps=4),
    "progress": False,
}


def high(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Worth more the more of its tokens are of the upper half."""
    return [float(np.mean([token >= 136 for token in ids])) for ids in completion_ids]


def run(backbone: Backbone, out: Path, **changes: Any) -> GrpoResult:
    return grpo(backbone, ROWS, out, **{"reward": high, **QUICK, **changes})


# -- formulas -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_loss_and_slope_are_the_papers(loss_type: str, beta: float) -> None:
    """The loss as the papers have it, differentiated by JAX. Ratios on both sides of the clip, advantages of both signs."""
    settings = GrpoSettings(loss_type=loss_type, beta=beta, max_new_tokens=9)
    random, lengths = np.random.default_rng(0), np.array([3, 7, 1, 5])
    now = random.uniform(-3.0, -1.0, lengths.sum())
    drawn, base = now + random.uniform(-0.5, 0.5, len(now)), now + random.normal(size=len(now))
    worth, owner = random.normal(size=4), np.repeat(np.arange(4), lengths)

    def plain(now: jax.Array) -> jax.Array:
        ratio, advantage = jnp.exp(now - drawn), worth[owner]
        tokens = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage)
        tokens += beta * (jnp.exp(base - now) - (base - now) - 1.0)
        if loss_type == "dapo":
            return tokens.sum() / float(lengths.sum())
        each = jnp.stack([tokens[owner == i].sum() / float(lengths[i] if loss_type == "grpo" else 9) for i in range(4)])
        return each.mean()

    told = Told(now, drawn, base if beta else None, worth[owner], weights_of_tokens(lengths, settings)[owner])
    with jax.enable_x64(True):
        loss, slope = jax.value_and_grad(plain)(jnp.asarray(now))
    made = lost(told, settings)
    np.testing.assert_allclose(made.loss, loss, atol=1e-12)
    np.testing.assert_allclose(made.slope, slope, atol=1e-12)
    assert 0.1 < made.clipped < 0.9
    assert (made.divergence is None) == (beta == 0.0)


@pytest.mark.parametrize(
    ("scale", "wanted"),
    [
        ("group", [[0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001], [0.0] * 4]),
        ("batch", [[0.75 / 0.3445, -0.25 / 0.3445, -0.25 / 0.3445, -0.25 / 0.3445], [0.0] * 4]),
        ("none", [[0.75, -0.25, -0.25, -0.25], [0.0] * 4]),
    ],
)
def test_advantages(scale: str, wanted: list[list[float]]) -> None:
    """The deviation is that of n - 1, with 1e-4 beside it. Equal rewards are worth exactly nothing."""
    found = advantages(np.array([[1.0, 0.0, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1]]), scale)
    deviation = np.std([1.0, 0, 0, 0, 0.1, 0.1, 0.1, 0.1], ddof=1) + 1e-4
    if scale == "batch":
        wanted = [[0.75 / deviation, *[-0.25 / deviation] * 3], [0.0] * 4]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert (found[1] == 0.0).all()


# -- rewards --------------------------------------------------------------------------------------------------------------


def rows_of(answers: Sequence[Any] | None = ("7", "12"), **columns: Any) -> PromptRows:
    made = [{"prompt": f"p{i}", **{name: values[i] for name, values in columns.items()}} for i in range(2)]
    if answers is not None:
        made = [row | {"answer": answer} for row, answer in zip(made, answers, strict=True)]
    return read_prompts(made, Columns(), "rows")


def score(reward: Any, texts: Sequence[str], rows: PromptRows) -> list[float]:
    """What is said of texts, one for each row."""
    (made,) = rewards_of(reward)
    made.check(rows)
    return made.score(rows, [Completion(row, text, (row, 9)) for row, text in enumerate(texts)])


def test_rules() -> None:
    assert score("exact", [" 7\n", "12."], rows_of()) == [1.0, 0.0]
    assert score("exact", ["7", "12"], rows_of([7, " 12 "])) == [1.0, 1.0]  # a number is the text that it is written as
    pattern = r"regex:#### *(-?[0-9]+)"
    assert score(pattern, ["so #### 7, or #### 8", "#### 21"], rows_of()) == [1.0, 0.0]
    assert score("regex:[0-9]+", ["it is 7", "1 2"], rows_of()) == [1.0, 0.0]  # without groups: all of it
    assert score("regex:[0-9]", ["it is 7", "none"], rows_of(None)) == [1.0, 0.0]  # without answers: that it is there
    assert score("regex:(x)|y", ["y", "x"], rows_of(["x", "x"])) == [0.0, 1.0]  # a group that matches nothing says nothing


def test_functions_get_what_they_name(tmp_path: Path) -> None:
    """As at TRL: by name, with every column; a function without ** gets those that it has parameters for."""
    seen: dict[str, Any] = {}

    def everything(prompts: Any, completions: Any, **others: Any) -> Any:
        seen.update(others, prompts=prompts, completions=completions)
        return np.array([0.5, 2.0])

    rows = rows_of(level=[3, None])
    assert score(everything, ["a", "b"], rows) == [0.5, 2.0]
    assert seen == {
        "prompts": ["p0", "p1"],
        "completions": ["a", "b"],
        "completion_ids": [[0, 9], [1, 9]],
        "level": [3, None],
        "answer": ["7", "12"],
    }
    file = tmp_path / "worth.py"
    file.write_text("def reward(completions, level):\n    return [len(c) + (n or 0) for c, n in zip(completions, level)]\n")
    assert score(str(file), ["a", "bcd"], rows) == [4.0, 3.0]
    chats = read_prompts([{"prompt": [{"role": "user", "content": "hi"}]}], Columns(), "rows")
    rewards_of(everything)[0].check(chats)

    def of_chats(prompts: Any, completions: Any) -> list[float]:
        assert prompts == [[{"role": "user", "content": "hi"}]]
        return [float(completions == [[{"role": "assistant", "content": "ho"}]])]

    assert score(of_chats, ["ho"], chats) == [1.0]


def test_prompts_are_tokens_as_everywhere(teller: Backbone) -> None:
    """Those of texts and of chats are what a generator makes of them."""
    generator = Generator(teller)
    for prompts in (["ab", " c\n"], [[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]]):
        rows = read_prompts([{"question": prompt} for prompt in prompts], Columns(prompt="question"), "rows")
        for ids, prompt in zip(tokens_of(rows, Tokenizer.of(teller), 8, 96), prompts, strict=True):
            np.testing.assert_array_equal(ids, generator.tokens(prompt))


def test_rewards_have_names_of_their_own() -> None:
    names = [one.name for one in rewards_of(["regex:a", "exact", "regex:b", high])]
    assert names == ["regex", "exact", "regex#2", "high"]


def said(answer: Any) -> Callable[..., Any]:
    def reward(completions: Any) -> Any:
        return answer

    return reward


def divides(completions: Sequence[str]) -> list[float]:
    return [1 / len(text) for text in completions]


REFUSED: dict[str, tuple[Any, str]] = {
    "no such rule": ("exactly", "reward 'exactly' is none of exact, regex:PATTERN and FILE.py."),
    "no reward": ([], "there is no reward"),
    "no text": (3, "a reward must be exact, regex:PATTERN, a FILE.py or a function, got 3."),
    "no file": ("/nowhere/worth.py", "/nowhere/worth.py: no such file."),
    "no expression": ("regex:(a", "'\\(a' is not a regular expression here"),
    "looks around": ("regex:a(?=b)", "are not taken\\.$"),
    "NaN": (said([1.0, float("nan")]), "the reward reward said nan of rows \\(list\\): row 2; it must be a finite number."),
    "infinite": (said([np.inf, 1]), "said inf of rows \\(list\\): row 1"),
    "null": (said([1, None]), "said None of rows \\(list\\): row 2"),
    "a text": (said(["1", 1]), "said '1' of rows \\(list\\): row 1"),
    "too few": (said([1.0]), "returned 1 number for 2 completions."),
    "no list": (said(1.0), "must return a list of numbers, got 1.0."),
    "raises": (divides, "the reward divides failed at rows \\(list\\): row 2: ZeroDivisionError: division by zero."),
    "asks for more": (
        lambda completions, level: [0.0, 0.0],
        "asks for level; it can have .* of rows \\(list\\): answer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rewards_that_are_none(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(GraftaxError, match=message):
        score(given, ["7", ""], rows_of())


def test_exact_needs_answers() -> None:
    with pytest.raises(GraftaxError, match=r"reward exact compares with the answer, and there is no column 'answer'"):
        score("exact", ["7", "8"], rows_of(None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def reward(:\n", "line 1: SyntaxError"),
        ("x = 1\n", "there is no function reward in it."),
        ("import nowhere_at_all\n", "line 1: ModuleNotFoundError"),
        ("def reward(completions):\n    y = 1\n    return completions[7]\n", "row 1: line 3: IndexError"),
        ("async def reward(completions):\n    return [1]\n", "is asynchronous"),
    ],
)
def test_files_that_say_no_reward(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "worth.py"
    file.write_text(content)
    with pytest.raises(GraftaxError, match=rf"worth\.py.*{message}"):
        score(file, ["7", "8"], rows_of())


# -- a run ----------------------------------------------------------------------------------------------------------------


class Watched:
    """A reward that keeps what it saw: of each step the completions' tokens, by prompt."""

    __name__ = "watched"

    def __init__(self) -> None:
        self.steps: list[tuple[list[str], list[list[int]]]] = []

    def __call__(self, prompts: list[str], completion_ids: list[list[int]]) -> list[float]:
        self.steps.append((prompts, completion_ids))
        return high(completion_ids)


@cache
def likelihoods_of(backbone: Backbone, layout: Layout) -> Any:
    """`likelihoods(state, ids, mask)` of every token but the first, by all logits."""

    def compute(state: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
        hidden = backbone.encode(backbone.params, state, TextInputs(ids, mask, jnp.zeros_like(ids))).hidden
        logits = backbone.next_token(backbone.params, state, hidden)[:, :-1]
        return jnp.take_along_axis(jax.nn.log_softmax(logits), ids[:, 1:, None], -1)[..., 0]

    return jax.jit(compute)


def plain_loop(backbone: Backbone, steps: Any, recipe: Recipe, settings: GrpoSettings) -> Adapter:
    """GRPO on the same completions as the papers have it: JAX's gradient of the whole loss, and optax's Adam."""
    tokenizer = Tokenizer.of(backbone)
    adapter = Adapter.create((LoRA(r=4),), backbone.sites, seed=recipe.seed, task="lm", fingerprint=backbone.fingerprint)
    layout = Layout.of([adapter], backbone.sites)
    stacked, nobody = layout.stack(adapter, backbone.sites), layout.stack(None, backbone.sites).state
    likelihoods = likelihoods_of(backbone, layout)
    total = len(steps) * settings.num_iterations
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(recipe.lr, 0.0, total), b1=0.9, b2=0.999, eps=1e-8)
    )
    trainable = jax.tree.map(jnp.asarray, stacked.trainable)
    moments = optimizer.init(trainable)

    def loss(trainable: Any, ids: Any, mask: Any, counts: Any, worth: Any, base: Any, drawn: Any) -> jax.Array:
        now = likelihoods(join(trainable, stacked.fixed), ids, mask)
        ratio = jnp.exp(now - drawn)
        tokens = -jnp.minimum(ratio * worth, jnp.clip(ratio, 1 - settings.epsilon, 1 + settings.epsilon) * worth)
        tokens = (tokens + settings.beta * (jnp.exp(base - now) - (base - now) - 1.0)) * counts
        if settings.loss_type == "dapo":
            return tokens.sum() / counts.sum()
        each = tokens.sum(1) / (jnp.maximum(counts.sum(1), 1) if settings.loss_type == "grpo" else settings.max_new_tokens)
        return each.sum() / (counts.sum(1) > 0).sum()

    @jax.jit
    def update(trainable: Any, moments: Any, *known: Any) -> Any:
        updates, moments = optimizer.update(jax.grad(loss)(trainable, *known), moments, trainable)
        return optax.apply_updates(trainable, updates), moments

    for prompts, completions in steps:
        rewards = np.array(high(completions)).reshape(-1, settings.num_generations)
        apart = rewards - rewards.mean(1, keepdims=True)
        if settings.scale_rewards == "group":
            apart = apart / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)
        ids, mask, counts, worth = (np.zeros((12, 24), kind) for kind in (np.int32, bool, np.float32, np.float32))
        for row, (prompt, own) in enumerate(zip(prompts, completions, strict=True)):
            text = [*tokenizer.prompts([prompt])[0], *own]
            ids[row, : len(text)], mask[row, : len(text)] = text, True
            counts[row, len(text) - len(own) : len(text)], worth[row] = 1, apart.reshape(-1)[row]
        mask[len(prompts) :, 0] = True  # attention over nothing is no number
        with jax.numpy_dtype_promotion("standard"):  # optax counts on it
            base, drawn = (likelihoods(state, ids, mask) for state in (nobody, join(trainable, stacked.fixed)))
            for _ in range(settings.num_iterations):
                known = (ids, mask, counts[:, 1:], worth[:, 1:], base, drawn)
                trainable, moments = update(trainable, moments, *known)
    return replace(adapter, states=layout.unstack(adapter, jax.tree.map(np.asarray, trainable), backbone.sites))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(GrpoSettings(num_generations=4, max_new_tokens=5, steps=4), id="usual", marks=pytest.mark.slow),
        pytest.param(
            GrpoSettings(
                num_generations=3, max_new_tokens=5, steps=3, num_iterations=3, beta=0.2, epsilon=0.02, loss_type="grpo"
            ),
            id="iterated",
        ),
        pytest.param(
            GrpoSettings(
                num_generations=4, max_new_tokens=6, steps=2, num_iterations=2, scale_rewards="none", loss_type="dr_grpo"
            ),
            id="dr_grpo",
        ),
    ],
)
def test_equals_a_plain_loop(settings: GrpoSettings, teller: Backbone, tmp_path: Path) -> None:
    """On the same samples the adapter is that of a plain loop in JAX and optax, to 1e-4; and it has moved."""
    watched, recipe = Watched(), replace(QUICK["recipe"], clip=1.0)
    run(teller, tmp_path / "a", reward=watched, settings=settings, recipe=recipe)
    assert len(watched.steps) == settings.steps
    reference = plain_loop(teller, watched.steps, recipe, settings)
    found, wanted = trainable_of(load_adapter(tmp_path / "a", teller)), trainable_of(reference)
    started = trainable_of(Adapter.create((LoRA(r=4),), teller.sites, seed=recipe.seed))
    assert found.keys() == wanted.keys()
    for leaf in found:
        np.testing.assert_allclose(found[leaf], wanted[leaf], atol=1e-4)
    assert max(np.abs(found[leaf] - started[leaf]).max() for leaf in found) > 5e-3
    if settings.beta > 0:
        assert max(line["clip_ratio"] for line in lines(tmp_path)) > 0.0
        assert lines(tmp_path)[0]["kl"] < lines(tmp_path)[-1]["kl"]


@pytest.fixture(scope="module")
def whole(teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GrpoResult]:
    """A run from its beginning to its end."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(teller, folder / "a")


NUMBERS = {
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "rewards/high/mean",
    "rewards/high/std",
    "loss",
    "grad_norm",
    "logprob",
}
NUMBERS |= {"logprob", "completions/mean_length", "completions/clipped_ratio", "num_tokens", "compilations"}
TIMES = {"sampling_seconds", "training_seconds"}


def told(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, but for what another process measures otherwise."""
    return [{k: v for k, v in line.items() if k not in {*TIMES, "compilations"}} for line in lines(folder)]


def test_what_a_run_leaves(whole: tuple[Path, GrpoResult], teller: Backbone) -> None:
    folder, result = whole
    assert sorted(path.name for path in folder.iterdir()) == ["a", "metrics.jsonl"]
    assert result.directory == folder / "a"
    assert result.history == lines(folder)
    assert [line["step"] for line in result.history] == [1, 2, 3, 4]
    assert [line["epoch"] for line in result.history] == [1, 2, 2, 3]  # of five rows, three a step
    for line in result.history:
        assert line.keys() == {"adapter", "epoch", "step", *NUMBERS, *TIMES}
        assert line["reward"] == line["rewards/high/mean"]
        assert 0.0 < line["reward"] < 1.0
        assert 1.0 <= line["completions/mean_length"] <= 5.0
        assert line["logprob"] < 0.0 < line["grad_norm"]
    assert result.metrics == {"reward": pytest.approx(np.mean([line["reward"] for line in result.history]))}
    assert len({line["compilations"] for line in result.history[1:]}) == 1  # behind the first step nothing is compiled
    adapter = load_adapter(folder / "a", teller)
    assert (adapter.task, adapter.recipe["trained"], adapter.recipe["num_generations"]) == ("lm", "grpo", 4)
    assert adapter.data is not None
    assert adapter.data.rows == 5
    config = json.loads((folder / "a" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
    generator = Generator(teller)
    generator.load("a", folder / "a")
    assert generator.generate(["ab"], "a", max_new_tokens=3)[0].tokens


@pytest.mark.parametrize("when", ["between", pytest.param("sampling", marks=pytest.mark.slow)])
def test_goes_on_where_it_was_stopped(
    when: str, whole: tuple[Path, GrpoResult], teller: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal behind a step, or in the middle of one; other settings are refused; the same end with the same bytes."""
    calls = 0

    sample = Sampler.sample

    def interrupted(self: Sampler, prompts: Any, seeds: Any, stops: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3 and when == "sampling":
            os.kill(os.getpid(), signal.SIGTERM)
        found = sample(self, prompts, seeds, stops)
        if calls == 2 and when == "between":
            os.kill(os.getpid(), signal.SIGINT)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "sample", interrupted)
        with pytest.raises(Interrupted, match="run the same command again to go on"):
            run(teller, tmp_path / "a")
    assert len(lines(tmp_path)) == 2
    for changed in ({"reward": "regex:a"}, {"recipe": QUICK["recipe"].replace(lr=1e-2)}, {"method": LoRA(r=3)}):
        with pytest.raises(GraftaxError, match="holds an unfinished run with other settings or data"):
            run(teller, tmp_path / "a", **changed)
    result = run(teller, tmp_path / "a")
    assert weights_of(tmp_path / "a") == weights_of(whole[0] / "a")
    assert told(tmp_path) == told(whole[0])
    assert result.history == lines(tmp_path)
    assert result.metrics == whole[1].metrics
    assert not (tmp_path / ".run").exists()
    with pytest.raises(GraftaxError, match="already holds a"):
        run(teller, tmp_path / "a")


@pytest.mark.slow
def test_another_seed_is_another_adapter_and_overwrite_replaces(
    whole: tuple[Path, GrpoResult], teller: Backbone, tmp_path: Path
) -> None:
    settings = replace(QUICK["settings"], steps=1)
    run(teller, tmp_path / "a", settings=settings)
    first = weights_of(tmp_path / "a")
    run(teller, tmp_path / "a", settings=settings, overwrite=True, recipe=QUICK["recipe"].replace(seed=6))
    assert weights_of(tmp_path / "a") != first
    assert len(lines(tmp_path)) == 1


@pytest.mark.slow
def test_it_learns_and_goes_on_from_an_adapter(teller: Backbone, tmp_path: Path) -> None:
    """The reward rises; an adapter in place of a method begins where that ended."""
    settings = GrpoSettings(num_generations=8, max_new_tokens=4, steps=25)
    recipe = Recipe(lr=5e-2, batch_size=4, schedule="constant", warmup=0.0)
    method = LoRA(r=8, targets=("lm_head",))
    rewards = [line["reward"] for line in run(teller, tmp_path / "a", method=method, recipe=recipe, settings=settings).history]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:2]) + 0.3
    before = load_adapter(tmp_path / "a", teller)
    again = run(teller, tmp_path / "b", method=before, recipe=recipe, settings=replace(settings, steps=1))
    assert again.history[0]["reward"] > np.mean(rewards[:2]) + 0.3
    assert load_adapter(tmp_path / "b", teller).parents == (before.source,)


def test_nothing_that_differs_is_said(teller: Backbone, tmp_path: Path) -> None:
    """Groups whose completions are all worth the same teach nothing: the adapter stays what it was, and a note says so.

    All the same every step draws anew: of one prompt, other completions.
    """
    settings, seen = replace(QUICK["settings"], steps=2), list[list[str]]()

    def nothing(completions: list[str]) -> list[float]:
        seen.append(completions)
        return [0.0] * len(completions)

    with pytest.warns(GraftaxNote, match=r"a: in 2 steps no completion was worth more or less than others .* \(each was 0\)"):
        result = grpo(teller, ROWS[:1] * 3, tmp_path / "a", **{**QUICK, "settings": settings}, reward=nothing)
    assert len(set(seen[0])) > 1
    assert seen[0] != seen[1]
    assert [line["frac_reward_zero_std"] for line in result.history] == [1.0, 1.0]
    assert [line["grad_norm"] for line in result.history] == [0.0, 0.0]
    started = trainable_of(Adapter.create((LoRA(r=4),), teller.sites, seed=5))
    for leaf, array in trainable_of(load_adapter(tmp_path / "a", teller)).items():
        np.testing.assert_array_equal(array, started[leaf])


def test_rewards_are_added_up_by_their_weights(teller: Backbone, tmp_path: Path) -> None:
    settings = replace(QUICK["settings"], steps=1, reward_weights=(1.0, -0.5))
    rows = [{"prompt": row["prompt"]} for row in ROWS]
    (line,) = grpo(teller, rows, tmp_path / "a", **{**QUICK, "settings": settings}, reward=[high, "regex:[^a]"]).history
    assert line["reward"] == pytest.approx(line["rewards/high/mean"] - 0.5 * line["rewards/regex/mean"])
    assert line["rewards/regex/mean"] > 0.0


NOT_TAKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a column": ({"columns": Columns(prompt="question")}, "no column 'question'; it has prompt, answer, worth."),
    "another field": ({"columns": Columns(label="worth")}, "task 'grpo' reads no 'label'"),
    "an unused setting": (
        {"recipe": Recipe(optimizer="lion")},
        "grpo makes no use of the recipe's optimizer",
    ),
    "beta": ({"recipe": Recipe(beta=0.3)}, "it is a field of GrpoSettings."),
    "a head": ({"method": [LoRA(), Head(labels=2)]}, "a loop says tokens, and its adapter has no head."),
    "dropout": ({"method": LoRA(dropout=0.1)}, "it must be 0."),
    "no method": ({"method": None}, "there is no method to train."),
    "a long prompt": (
        {"settings": GrpoSettings(max_new_tokens=94)},
        "row 1: a prompt of 3 tokens and 94 new ones are more than the 96 that there is room for.",
    ),
    "weights": ({"settings": GrpoSettings(reward_weights=(1.0, 2.0))}, "reward_weights has 2 numbers for 1 rewards."),
    "settings": ({"settings": Recipe()}, "settings must be an object, got Recipe"),
    "save_every": ({"save_every": -1.0}, "save_every"),
}


@pytest.mark.parametrize("case", NOT_TAKEN)
def test_what_is_refused_before_anything_is_sampled(case: str, teller: Backbone, tmp_path: Path) -> None:
    changes, message = NOT_TAKEN[case]
    with pytest.raises(GraftaxError, match=message):
        run(teller, tmp_path / "a", **changes)
    assert not tmp_path.joinpath(".run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_generations": 1}, "num_generations must be a whole number, at least 2"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"loss_type": "ppo"}, "loss_type 'ppo' is none of dapo, grpo, dr_grpo."),
        ({"scale_rewards": "mean"}, "scale_rewards 'mean' is none of group, batch, none."),
        ({"epsilon": 1.0}, "epsilon must be"),
        ({"stop": ("",)}, "one of them is empty"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        GrpoSettings(**changes)


def test_a_reward_that_fails_ends_the_run_with_its_row(teller: Backbone, tmp_path: Path) -> None:
    def fails(prompts: list[str], worth: list[int]) -> list[float]:
        return [1.0 / (own - 3) for own in worth]

    with pytest.raises(GraftaxError, match=r"the reward fails failed at a \(list\): row 4: ZeroDivisionError: "):
        run(teller, tmp_path / "a", reward=fails)


def test_a_learning_rate_that_breaks_it_is_said(teller: Backbone, tmp_path: Path) -> None:
    with pytest.raises(GraftaxError, match="A lower learning rate may help"):
        run(teller, tmp_path / "a", recipe=Recipe(lr=3e38, batch_size=3, clip=None, warmup=0.0))


STORIES = SHARED / "backbones" / "stories260K"
PETS, UNSEEN = ("dog", "cat", "bird", "fish", "bear", "frog"), ("bunny", "mouse")
NAMES = ("Lily", "Tim", "Tom", "Sam", "Max", "Ben", "Mia", "Anna")
NAMED_FIRST = rf"regex:^[^.]*?\b({'|'.join((*PETS, *UNSEEN))})\b"  # the first pet that the sentence goes on with


def pets(which: Sequence[str]) -> list[dict[str, str]]:
    return [{"prompt": f"{name} had a {pet}. {name} loved to play with the", "answer": pet} for name in NAMES for pet in which]


def says_the_pet(backbone: Backbone, adapter: Path | None, which: Sequence[str]) -> float:
    """How often it goes on with the right pet, of eight samples of each prompt."""
    generator = Generator(backbone)
    if adapter is not None:
        generator.load("a", adapter)
    rows, (reward,) = read_prompts(pets(which), Columns(), "pets"), rewards_of(NAMED_FIRST)
    how = Sampling(max_new_tokens=8, temperature=1.0, seed=10**6)
    said = generator.generate(rows.prompts * 8, None if adapter is None else "a", how)
    return float(np.mean(reward.score(rows, [Completion(i % len(rows), o.text, o.tokens) for i, o in enumerate(said)])))


@needs_assets
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_real_base_learns_from_rewards_alone(seed: int, tmp_path: Path) -> None:
    """A model of children's stories learns to go on with the pet that was named, from whether it did; unseen pets, too."""
    stories = load_backbone(STORIES)
    before = [says_the_pet(stories, None, which) for which in (PETS, UNSEEN)]
    recipe = Recipe(lr=3e-3, batch_size=8, seed=seed)
    settings = GrpoSettings(max_new_tokens=8, steps=40)
    result = grpo(stories, pets(PETS), tmp_path / "pets", reward=NAMED_FIRST, recipe=recipe, settings=settings, progress=False)
    after = [says_the_pet(stories, result.directory, which) for which in (PETS, UNSEEN)]
    assert before[0] < 0.25
    assert before[1] < 0.35
    assert after[0] > 0.85
    assert after[1] > 0.6
    assert result.metrics["reward"] > 0.85


# -- the command ----------------------------------------------------------------------------------------------------------


def test_the_command(graftax: Graftax, teller_dir: Path, tmp_path: Path) -> None:
    """Columns of other names, a reward of a file beside a rule, weights, beta; the adapter answers as any other."""
    data = write_jsonl(tmp_path / "rows.jsonl", [{"question": row["prompt"], "reply": row["answer"]} for row in ROWS])
    worth = tmp_path / "worth.py"
    worth.write_text(
        "def reward(completion_ids):\n    return [sum(i > 150 for i in ids) / len(ids) for ids in completion_ids]\n"
    )
    options = "--steps 2 --num-generations 4 --max-new-tokens 4 --lr 1e-2 --rank 4 --prompt-column question --beta 0.1"
    out = tmp_path / "out"
    run = ["train", "-b", teller_dir, "--data", data, "--out", out, "--task", "grpo", "--reward", worth, "--reward", "exact"]
    said = graftax(*run, *options.split(), "--column", "answer=reply", "--reward-weights", 1, "--reward-weights", 0.5)
    assert said.code == 0, said.err
    assert said.out.startswith(f"{out / 'rows'}  reward 0.")
    assert "rows: step 2/2  loss " in said.err
    (first, second) = lines(out)
    assert {"kl", "rewards/worth/mean", "rewards/exact/mean"} <= second.keys()
    assert first["kl"] < 1e-6
    said_of = json.loads((out / "rows" / "graftax.json").read_text())["recipe"]
    assert [said_of[name] for name in ("lr", "batch_size", "beta", "reward_weights")] == [1e-2, 8, 0.1, [1.0, 0.5]]
    assert graftax("generate", "-b", teller_dir, "-a", out / "rows", "--prompt", "ab", "--max-new-tokens", 2).code == 0


@pytest.mark.slow
def test_a_process_that_is_killed(teller_dir: Path, tmp_path: Path) -> None:
    """Killed with no word of warning in the middle, twice; the same command ends with the bytes of one that ran through."""
    data = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    options = "--task grpo --reward regex:[a-m] --steps 12 --num-generations 4 --max-new-tokens 5 --lr 2e-2 --save-every 0"
    command = command_line("train", "-b", teller_dir, "--data", data, *options.split(), "--out")
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    for least in (3, 7):
        process = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= least):
            time.sleep(0.005)
        assert process.poll() is None, "it was over before it was killed"
        process.kill()
        process.communicate()
    subprocess.run([*command, tmp_path / "killed"], check=True, capture_output=True)
    assert weights_of(tmp_path / "killed" / "rows") == weights_of(tmp_path / "whole" / "rows")
    assert told(tmp_path / "killed") == told(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--task grpo", "task grpo needs --reward"),
        ("--task grpo --reward exact --val 0.1", "--val is for other tasks; grpo has no use for it."),
        ("--task grpo --reward exact --optimizer lion", "grpo makes no use of the recipe's optimizer"),
        ("--task grpo --reward worth.py", "worth.py: no such file."),
        ("--task sft --reward exact", "--reward is for --task grpo, and the task is 'sft'."),
        ("--task lm --num-generations 4", "--num-generations is for --task grpo, and the task is 'lm'."),
    ],
)
def test_commands_that_are_refused(options: str, message: str, graftax: Graftax, teller_dir: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    said = graftax("train", "-b", teller_dir, "--data", data, "--out", tmp_path / "out", *options.split())
    assert (said.code, said.out) == (2, "")
    assert message in said.err
