"""GRPO: an adapter samples several completions of each prompt, and learns to say more of what was worth more than the others.

    grpo(backbone, "sums.jsonl", "adapters/sums", reward="exact", method=LoRA(r=16))

A step takes a few prompts and

1. samples a group of completions for each, by the adapter as it is now (`sampled_groups.py`),
2. has them rewarded (`rewards.py`),
3. compares each with its group (`advantages.py`), and
4. takes a step, or several, of Adam along the gradient of the loss (`surrogate.py`), which a training loop computes (`loops/`).

Sampling and training share the frozen weights, in one process. The method is of Shao et al., 2024 (DeepSeekMath,
arXiv:2402.03300); `grpo_settings.py` says what may be set.

What a step does follows from the adapter, the recipe's seed and the step's number. So a run that was stopped goes on from its
last checkpoint by the same call, and ends with the bytes of one that was not. Its directory is like that of `train_many`.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import disk, signals
from ...adapters.adapter import Adapter
from ...adapters.method import Method
from ...adapters.methods.lora import LoRA
from ...counted import counted
from ...data.columns import Columns
from ...errors import GraftaxError
from ...json_files import parse_json
from ...models.backbone import Backbone, expect_backbone
from ...notes import note
from ...train.begun import Begun, machine
from ...train.checks import check_arguments
from ...train.journal import Metrics
from ...train.progress import Progress
from ...train.queue import Interrupted, refuse_loss, unfinished
from ...train.recipe import Recipe
from ...train.run_checkpoint import Checkpoints
from ...typed import Location, checked
from .advantages import advantages, alike
from .grpo_learner import GrpoLearner
from .grpo_result import GrpoResult
from .grpo_settings import USUAL, GrpoSettings, refuse_unused
from .prompt_rows import PromptRows, read_prompts
from .rewards import Completion, Reward, rewards_of

_LAST = 10  # steps over which the reward of an adapter is a mean
_SHOWN = ("loss", "kl", "frac_reward_zero_std", "completions/mean_length", "reward")


def grpo(
    backbone: Backbone,
    data: Any,
    out: str | Path,
    *,
    reward: Any,
    method: Method | Adapter | Sequence[Method] = LoRA(),
    recipe: Recipe = Recipe().replace(**USUAL),
    settings: GrpoSettings = GrpoSettings(),
    columns: Columns = Columns(),
    overwrite: bool = False,
    save_every: float = 30.0,
    progress: bool = True,
) -> GrpoResult:
    """Train one adapter by reinforcement learning, and save it into directory `out`.

    Args:
        backbone: a language model that is a decoder alone; frozen, not changed.
        data: rows with a `prompt`, a text or a chat, and perhaps an `answer`; of any form that `train_many` takes.
        out: the adapter's directory. Beside it lie `metrics.jsonl`, with a line for each step, and while it is unfinished
            `.run/`. A finished adapter there is refused unless `overwrite`; an unfinished run is resumed.
        reward: "exact", "regex:PATTERN", the path of a FILE.py with a function `reward`, or a function (docs/grpo.md); or
            several of these, whose rewards are added up.
        method: the adapter method, or several that form one adapter; or an adapter, which is trained on.
        recipe: learning rate (here 1e-4), prompts of a step (`batch_size`, here 8), epochs, schedule, warm-up, weight decay,
            clip, seed, chat template. What GRPO makes no use of is refused.
        settings: what else may be set.
        columns: which columns hold `prompt` and `answer`.
        overwrite: replace an adapter that is there, and throw away an unfinished run of other settings.
        save_every: seconds between checkpoints.
        progress: show a bar, or lines, on standard error.

    Raises:
        GraftaxError: bad input, found before anything is sampled; a reward that fails or is no number, with its row; a loss
            that is not finite.
        Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    expect_backbone(backbone)
    out = Path(checked(out, Location, "out"))
    check_arguments({out.name: data}, out.parent, method, "lm", recipe, {}, None, columns, None, save_every)
    for what, value in {"overwrite": overwrite, "progress": progress}.items():
        checked(value, bool, what)
    settings = checked(settings, GrpoSettings, "settings")
    refuse_unused(recipe)
    rewards = rewards_of(reward)
    if settings.reward_weights and len(settings.reward_weights) != len(rewards):
        raise GraftaxError(f"reward_weights has {len(settings.reward_weights)} numbers for {len(rewards)} rewards.")
    with Progress(progress) as shown:
        shown.doing(f"reading {out.name}")
        rows = read_prompts(data, columns, out.name)
        for one in rewards:
            one.check(rows)
        learner = GrpoLearner(backbone, out.name, method, recipe, settings, rows)
        with disk.locked(out.parent) as lock:
            run = _Run(learner, rows, rewards, out, lock, overwrite, save_every, shown)
            with signals.remembered(shown.stopping) as run.stop:
                return run.go()


class _Run:
    """A run in a directory, from the newest checkpoint there to the end."""

    def __init__(
        self,
        learner: GrpoLearner,
        rows: PromptRows,
        rewards: Sequence[Reward],
        out: Path,
        lock: disk.Locked,
        overwrite: bool,
        save_every: float,
        progress: Progress,
    ):
        self.learner, self.rows, self.rewards, self.out, self.lock = learner, rows, rewards, out, lock
        self.save_every, self.progress = save_every, progress
        self.folder = out.parent / ".run"
        self.stop = signals.Stop()
        self.step = 0  # steps that are done
        self.tokens = 0  # of prompts and completions so far
        self.telling = 0  # steps in which rewards differed within a group
        self.history: list[dict[str, Any]] = []
        begun = self._open(overwrite)
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        facts = self.checkpoints.facts() if begun is not None else None
        if begun is not None and facts is not None:
            self._go_on(begun, facts)
        self.metrics = Metrics(out.parent / "metrics.jsonl", facts["offset"] if facts else None, [out.name])
        progress.expect(1, 0, learner.steps, self.step)
        progress.begin(out.name, learner.steps, self.step)

    # -- what is on the disk --------------------------------------------------------------------------------------------

    def _open(self, overwrite: bool) -> Begun | None:
        """What is known of the unfinished run that is there, or None, and a new one is begun."""
        out, rewards = self.out, [(one.name, one.digest) for one in self.rewards]
        digest = hashlib.sha256(repr((self.learner.digest(), self.rows.digest(), rewards)).encode()).hexdigest()
        found = unfinished(self.folder / "run.json", digest, 1, None, overwrite, out.parent)
        if found is None:
            refuse_loss([out.name], out.parent, overwrite)
            shutil.rmtree(self.folder, ignore_errors=True)
            Begun(digest, [1], [out.name]).write(self.folder / "run.json")
        return found

    def _go_on(self, begun: Begun, facts: dict[str, Any]) -> None:
        self.step, self.tokens, self.telling = facts["step"], facts["tokens"], facts["telling"]
        arrays = self.checkpoints.arrays(like=self.learner.arrays())
        self.learner.restore(arrays, facts["updates"], facts["taken"])
        told = (self.out.parent / "metrics.jsonl").read_bytes()[: facts["offset"]]
        lines = [parse_json(line.decode(), "a line of metrics.jsonl") for line in told.splitlines()]
        self.history = [line for line in lines if line.get("adapter") == self.out.name]
        self.progress.say(f"resumed: {self.step} of {self.learner.steps} steps done")
        if begun.machine != machine():
            self.progress.say("begun on another machine: the last bits may differ from an uninterrupted run's")

    def _checkpoint(self) -> None:
        self.lock.check()
        facts = {
            "step": self.step,
            "tokens": self.tokens,
            "telling": self.telling,
            "updates": self.learner.updates,
            "taken": self.learner.taken,
            "offset": self.metrics.offset,
        }
        self.checkpoints.save(self.step, self.learner.arrays(), facts)

    # -- the steps ------------------------------------------------------------------------------------------------------

    def go(self) -> GrpoResult:
        kept = "run the same command again when there is room, to go on from the newest state that was saved"
        with disk.writing(self.out.parent, left=kept), self.checkpoints, self.metrics:
            self._loop()
        self.lock.check()
        metrics = {"reward": float(np.mean([line["reward"] for line in self.history[-_LAST:]]))}
        self.learner.save(self.out, self.rows, self.rewards, metrics)
        (self.folder / "run.json").unlink()  # first: without it the rest is no unfinished run
        shutil.rmtree(self.folder)
        if not self.telling:
            self._say_that_nothing_was_learnt()
        self.progress.end(self.out.name)
        return GrpoResult(self.out.name, self.out, metrics, self.history, self.learner.compilations)

    def _loop(self) -> None:
        saved = time.monotonic()
        while self.step < self.learner.steps:
            done = self._step()
            if self.stop.asked:
                self._checkpoint()
                self.checkpoints.wait()
                raise Interrupted(f"interrupted, state saved in {self.folder}; run the same command again to go on.")
            assert done  # only a signal makes a step end before it is done
            if time.monotonic() - saved > self.save_every:
                self._checkpoint()
                saved = time.monotonic()

    def _step(self) -> bool:
        """One step; False where a signal arrived while it sampled, and nothing has changed."""
        learner, settings = self.learner, self.learner.settings
        rows, began = self._rows_of(self.step), time.perf_counter()
        self.progress.doing("sampling")
        sampled = learner.sample(self.step, rows, lambda: self.stop.asked)
        if sampled is None:
            return False
        sampling = time.perf_counter() - began
        owners = [row for row in rows for _ in range(settings.num_generations)]
        completions = [Completion(row, one.text, one.tokens) for row, one in zip(owners, sampled, strict=True)]
        numbers, total = self._rewarded(completions)
        groups = total.reshape(len(rows), settings.num_generations)
        flat = alike(groups)
        began = time.perf_counter()
        self.progress.doing("learning")
        learnt = learner.learn(rows, sampled, advantages(groups, settings.scale_rewards).reshape(-1))
        training = time.perf_counter() - began
        self.step += 1
        self.telling += not flat.all()
        lengths = np.array([len(one.tokens) for one in sampled])
        self.tokens += int(lengths.sum()) + sum(len(learner.prompts[row]) for row in owners)
        deviation = groups.std(ddof=1) if settings.scale_rewards == "batch" else groups.std(1, ddof=1).mean()
        self._write(
            {
                "reward": float(total.mean()),
                "reward_std": float(deviation),
                "frac_reward_zero_std": float(flat.mean()),
                **numbers,
                "completions/mean_length": float(lengths.mean()),
                "completions/clipped_ratio": float(np.mean([one.finished == "length" for one in sampled])),
                **learnt,
                "num_tokens": self.tokens,
                "sampling_seconds": sampling,
                "training_seconds": training,
                "compilations": learner.compilations,
            }
        )
        return True

    def _rows_of(self, step: int) -> list[int]:
        """The rows of a step: those of the epochs, each in an order of its own, behind one another."""
        count, size = len(self.rows), self.learner.batch_size
        found: list[int] = []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, count)
            found.append(int(np.random.default_rng([self.learner.recipe.seed, epoch]).permutation(count)[place]))
        return found

    def _rewarded(self, completions: Sequence[Completion]) -> tuple[dict[str, float], np.ndarray]:
        """What the rewards say of completions: numbers of each, and the weighted sum, float64 `[completions]`."""
        weights = self.learner.settings.reward_weights or (1.0,) * len(self.rewards)
        each = [np.array(one.score(self.rows, completions), np.float64) for one in self.rewards]
        numbers: dict[str, float] = {}
        for one, said in zip(self.rewards, each, strict=True):
            numbers |= {f"rewards/{one.name}/mean": float(said.mean()), f"rewards/{one.name}/std": float(said.std(ddof=1))}
        return numbers, np.sum([weight * said for weight, said in zip(weights, each, strict=True)], axis=0)

    def _write(self, numbers: dict[str, Any]) -> None:
        self.lock.check()
        epoch = math.ceil(self.step * self.learner.batch_size / len(self.rows))
        line = {"adapter": self.out.name, "epoch": epoch, "step": self.step, **numbers}
        self.history.append(line)
        self.metrics.write(line)
        self.progress.advance(self.out.name)
        shown = {name: numbers[name] for name in _SHOWN if name in numbers}
        self.progress.step(self.out.name, self.step, self.learner.steps, shown, "reward")

    def _say_that_nothing_was_learnt(self) -> None:
        rewards = [line["reward"] for line in self.history]
        same = f"each was {rewards[0]:g}" if len(set(rewards)) == 1 else "those of a group were always equal"
        note(
            f"{self.out.name}: in {counted(len(rewards), 'step')} no completion was worth more or less than others of its "
            f"prompt ({same}), so nothing was learnt from rewards: look at what it says (graftax generate), or reward a part."
        )
