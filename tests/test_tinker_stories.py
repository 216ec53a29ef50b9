"""Two training loops at the same time, as people write them: the public `tinker` client against `graftax serve --training`.

On a real base (stories260K). One loop is supervised, on instructions that people have written; the other is of reinforcement
learning, and its model is to go on with the pet that was named. They train adapters of different ranks and parts of the model,
sample from them while the other goes on, and come to the losses of the same loop in torch and PEFT without a server.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import tinker
from conftest import SHARED, needs_assets
from peft_loops import PeftLoop
from tinker import types
from tinker.cli.commands.checkpoint import _download_checkpoint
from tinker_clients import datum, prompt
from tiny import command_line

STORIES = SHARED / "backbones" / "stories260K"
ROUNDS, BATCH, LONGEST = 4, 8, 64  # texts of a step of the supervised loop, and their tokens
PATIENCE = 300.0  # seconds that a loop waits for the other: both compile
#: What is trained by each: ranks and parts of the model.
SUPERVISED: dict[str, Any] = {"rank": 4, "seed": 1, "train_mlp": False, "train_unembed": False}
REINFORCED: dict[str, Any] = {"rank": 16, "seed": 2, "train_attn": False, "train_unembed": False}
PETS = ("dog", "cat", "bird", "fish")
IN_A_GROUP, WRITTEN = 8, 8  # samples of a prompt, and their tokens


@dataclass
class Sample:
    """A prompt with what was written behind it, and how likely each token of that was."""

    text: list[int]
    logprobs: Sequence[float]


@dataclass
class Round:
    """What happened in one round of a loop: texts were sampled, and then a step was taken."""

    samples: list[Sample]
    loss: str
    learning_rate: float
    data: list[types.Datum]
    came_to: float = 0.0  # the loss


@dataclass
class Loop:
    """What a loop leaves behind."""

    name: str
    begun: str  # the address of the adapter that it began with
    rounds: list[Round] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of a process that serves and trains."""
    options = ("--port", 0, "--no-warm-up", "--training", folder)
    with subprocess.Popen(command_line("serve", "-b", STORIES, *options), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1].removesuffix("/v1")
        finally:
            process.kill()


def taken(model: tinker.TrainingClient, one: Round) -> Round:
    """A round whose step was taken: both calls are sent before either is waited for."""
    gradient = model.forward_backward(one.data, one.loss)
    step = model.optim_step(types.AdamParams(learning_rate=one.learning_rate))
    step.result()
    one.came_to = gradient.result().metrics["loss:sum"]
    return one


def sampled(sampler: tinker.SamplingClient, ids: list[int], count: int, seed: int) -> list[Sample]:
    """Texts behind a prompt; the first is as likely as the client is told when it asks for that alone."""
    how = types.SamplingParams(max_tokens=WRITTEN, temperature=1.0, seed=seed)
    found = [Sample([*ids, *one.tokens], one.logprobs) for one in sampler.sample(prompt(ids), count, how).result().sequences]
    read = sampler.compute_logprobs(prompt(found[0].text)).result()
    assert found[0].logprobs == pytest.approx(read[len(ids) :], abs=1e-4)
    return found


def supervised(client: tinker.ServiceClient, rounds: Barrier) -> Loop:
    """Instructions and answers, of which these are learnt; the loss is a mean over tokens, the learning rate falls."""
    model = client.create_lora_training_client(STORIES.name, **SUPERVISED).result()
    loop, read = Loop("supervised", model.save_state("begun").result().path), model.get_tokenizer()
    data: list[types.Datum] = []
    for line in (SHARED / "data" / "self_instruct_human" / "train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked = [1, *read.encode(f"{row['instruction']}\n{row['input']}\n", add_special_tokens=False)]
        text = [*asked, *read.encode(row["output"], add_special_tokens=False), 2]
        learnt = len(text) - len(asked)
        if len(text) <= LONGEST:
            weights = np.array([0.0] * (len(asked) - 1) + [1.0] * learnt, np.float32)
            data.append(datum(text, weights=weights / (BATCH * learnt)))
    for number in range(ROUNDS):
        rounds.wait(PATIENCE)
        sampler = model.save_weights_and_get_sampling_client().result()
        samples = sampled(sampler, data[0].model_input.to_ints()[:24], 1, seed=number)
        batch, rate = data[BATCH * (number % 2) :][:BATCH], 5e-3 * (1.0 - number / ROUNDS)
        loop.rounds.append(taken(model, Round(samples, "cross_entropy", rate, batch)))
    return loop


def reinforced(client: tinker.ServiceClient, rounds: Barrier) -> Loop:
    """Of each prompt a group of texts is sampled, and what is better than the mean of its group becomes likelier."""
    model = client.create_lora_training_client(STORIES.name, **REINFORCED).result()
    loop, read = Loop("reinforced", model.save_state("begun").result().path), model.get_tokenizer()
    for number in range(ROUNDS):
        rounds.wait(PATIENCE)
        sampler = model.save_weights_and_get_sampling_client().result()
        one, got = Round([], "importance_sampling", 5e-3, []), list[float]()
        for pet in PETS:
            ids = [1, *read.encode(f"Lily had a {pet}. Lily loved to play with the", add_special_tokens=False)]
            group = sampled(sampler, ids, IN_A_GROUP, seed=100 * number)
            rewards = [reward(read.decode(sample.text[len(ids) :]), pet) for sample in group]
            better = [own - float(np.mean(rewards)) for own in rewards]
            one.data += [_learnt(sample, advantage) for sample, advantage in zip(group, better, strict=True)]
            one.samples += group
            got += rewards
        loop.rewards.append(float(np.mean(got)))
        loop.rounds.append(taken(model, one))
    return loop


def reward(said: str, pet: str) -> float:
    """Whether the first pet that is named is the right one."""
    first = re.search("|".join(PETS), said)
    return float(first is not None and first.group() == pet)


def _learnt(sample: Sample, advantage: float) -> types.Datum:
    """A sample of which nothing but what was drawn is learnt."""
    drawn, given = len(sample.logprobs), len(sample.text) - len(sample.logprobs)
    arrays = {"logprobs": [*sample.logprobs], "advantages": [advantage] * drawn}
    of_tokens = {name: np.array([0.0] * (given - 1) + values, np.float32) for name, values in arrays.items()}
    targets = np.array(sample.text[1:], np.int64)
    return types.Datum(model_input=prompt(sample.text[:-1]), loss_fn_inputs={"target_tokens": targets, **of_tokens})


@needs_assets
def test_two_loops_train_and_sample_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as it would alone: the losses of its steps, and how likely its samples were [1e-4]."""
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    monkeypatch.setenv("TINKER_API_KEY", "tml-none")
    rounds = Barrier(2)  # each takes its next round when both have taken the last

    def run(loop: Callable[[tinker.ServiceClient, Barrier], Loop]) -> Loop:
        try:
            return loop(tinker.ServiceClient(), rounds)
        except BaseException:
            rounds.abort()
            raise

    with server(tmp_path / "training") as url, ThreadPoolExecutor(2) as threads:
        monkeypatch.setenv("TINKER_BASE_URL", url)
        loops = [*threads.map(run, (supervised, reinforced))]
        for loop in loops:
            _download_checkpoint(tinker.RestClient(), loop.begun, tmp_path / loop.name, show_progress=False, format="json")
    for loop in loops:
        plain = PeftLoop(STORIES, tmp_path / loop.name)
        for one in loop.rounds:
            for sample in one.samples:
                wanted = plain.logprobs(sample.text)[-len(sample.logprobs) :]
                np.testing.assert_allclose(sample.logprobs, wanted, rtol=0, atol=1e-4)
            assert one.came_to == pytest.approx(plain.learn(one.data, one.loss, one.learning_rate), abs=1e-4)
    losses, rewards = [one.came_to for one in loops[0].rounds], loops[1].rewards
    assert losses[2] < losses[0] - 0.2  # the same batch
    assert rewards[0] < 0.5
    assert rewards[-1] > 0.7
