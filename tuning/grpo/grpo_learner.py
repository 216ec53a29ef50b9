"""The adapter that GRPO trains: what it says, what it learns from that, and how it is kept.

Its gradient is computed by a training loop (`loops/`), to which the loss is known by its derivative alone (`surrogate.py`).
Where likelihoods must be known before that derivative is, for the divergence from the backbone and behind the first of several
steps along the same completions, one more forward pass tells them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...adapters.adapter import Adapter
from ...adapters.files import save_adapter
from ...adapters.fitting import refuse_unfit
from ...adapters.method import Method
from ...errors import GraftaxError
from ...models.backbone import Backbone
from ...models.chat import template_of
from ...serve.continuation import Continuation
from ...serve.soundness import NotFinite
from ...train.recipe import Recipe
from ...train.step import hyper, learning_rate
from ..loops.calls import Call, Datum, Moments, Step
from ..loops.loops import Loops
from ..loops.room import trainable_of, with_trainable
from .grpo_settings import UNUSED, GrpoSettings
from .prompt_rows import PromptRows, tokens_of
from .rewards import Reward
from .sampled_groups import Sampler
from .surrogate import Lost, Told, lost, weights_of

_ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}  # as optax, PyTorch and so TRL have it
_SLOWER = "A lower learning rate may help, into another directory or with --overwrite."


class GrpoLearner:
    """An adapter that is trained, and sampled from."""

    def __init__(
        self,
        backbone: Backbone,
        name: str,
        method: Method | Adapter | Sequence[Method],
        recipe: Recipe,
        settings: GrpoSettings,
        rows: PromptRows,
    ):
        self.backbone, self.name, self.recipe, self.settings = backbone, name, recipe, settings
        methods, before = _methods_of(method)
        if not methods:
            raise GraftaxError(f"{name}: there is no method to train.")
        self.loops = Loops(backbone)
        if before is not None:
            refuse_unfit(before, backbone, name=f"{name}: the adapter that is trained on")
        self.loops.create(name, methods, recipe.seed)
        if before is not None:
            self.loops.restore(name, before)
        self.before = before
        self.sampler = Sampler(backbone, settings, recipe.chat_template)
        virtual = sum(own.virtual_tokens for own in methods)
        room = min(backbone.config.max_tokens, backbone.processor.room(virtual))
        self.prompts = tokens_of(rows, self.sampler.tokenizer, settings.max_new_tokens, room)
        self.sampler.expect(virtual + max(map(len, self.prompts)) + settings.max_new_tokens)
        self.batch_size = min(recipe.batch_size, len(rows))
        self.steps = settings.steps or math.ceil(recipe.epochs * len(rows) / self.batch_size)
        self._rates = hyper(recipe, self.steps * settings.num_iterations, classes=0)
        self.updates = 0

    @property
    def compilations(self) -> int:
        return self.loops.compilations + self.sampler.compilations

    @property
    def adapter(self) -> Adapter:
        """What it has become so far."""
        return self.loops.adapter(self.name)

    def digest(self) -> str:
        """Changes with whatever decides what it becomes, but for rows and rewards."""
        started = self.adapter
        held = f"{self.backbone.dtype.name} {self.backbone.quantize}"
        said = (self.name, asdict(self.recipe), asdict(self.settings), started.methods)
        digest = hashlib.sha256(repr((self.backbone.fingerprint, held, said)).encode())
        for leaf, array in sorted(trainable_of(started).items()):
            digest.update(leaf.encode() + np.ascontiguousarray(array).tobytes())
        for ids in self.prompts:
            digest.update(ids.tobytes() + b"\n")
        return digest.hexdigest()

    # -- a step ---------------------------------------------------------------------------------------------------------

    def sample(self, step: int, rows: Sequence[int], stops: Callable[[], bool]) -> list[Continuation] | None:
        """A group of completions for each of some rows, behind one another; None where `stops` said to stop."""
        self.sampler.use(self.adapter)
        several = [self.prompts[row] for row in rows for _ in range(self.settings.num_generations)]
        seeds = np.random.SeedSequence([self.recipe.seed, step]).generate_state(len(several))
        try:
            return self.sampler.sample(several, seeds.tolist(), stops)
        except NotFinite as error:
            raise GraftaxError(f"{self.name}: step {step + 1}: it says numbers that are not finite. {_SLOWER}") from error

    def learn(self, rows: Sequence[int], sampled: Sequence[Continuation], worth: np.ndarray) -> dict[str, float]:
        """Steps along the gradient of the loss; numbers of them. `worth`: the advantage of each completion."""
        settings = self.settings
        prompts = [self.prompts[row] for row in rows for _ in range(settings.num_generations)]
        texts = [np.append(ids, one.tokens).astype(np.int32) for ids, one in zip(prompts, sampled, strict=True)]
        lengths = np.array([len(one.tokens) for one in sampled])
        ends = np.cumsum(lengths)[:-1]
        base = None
        if settings.beta > 0:
            every = self.sampler.base_logprobs(texts)
            base = np.concatenate([own[-length:] for own, length in zip(every, lengths, strict=True)])
        weights = np.repeat(weights_of(lengths, settings), lengths)
        advantage = np.repeat(worth, lengths)
        several: list[Lost] = []
        norms: list[float] = []
        now = drawn = np.zeros(len(advantage))  # before the first step the ratio is 1, whatever they are
        for iteration in range(settings.num_iterations):
            if iteration or base is not None:
                now = self._likelihoods(texts, lengths)
            if iteration == 0:
                drawn = now
            several.append(made := lost(Told(now, drawn, base, advantage, weights), settings))
            found = self._gradient(texts, np.split(made.slope, ends))
            if iteration == 0:
                drawn = found
            norms.append(self._update())
        numbers = {
            "loss": float(np.mean([one.loss for one in several])),
            "grad_norm": float(np.mean(norms)),
            "logprob": float(drawn.mean()),
        }
        if settings.num_iterations > 1:
            numbers["clip_ratio"] = float(np.mean([one.clipped for one in several]))
        divergences = [one.divergence for one in several if one.divergence is not None]
        return numbers | ({"kl": float(np.mean(divergences))} if divergences else {})

    def _likelihoods(self, texts: Sequence[np.ndarray], lengths: np.ndarray) -> np.ndarray:
        """How likely the tokens of all completions are now, float64, behind one another."""
        data = [_datum(ids, np.zeros(length)) for ids, length in zip(texts, lengths, strict=True)]
        return self._called(Call(self.name, data, forward_only=True), lengths.tolist())

    def _gradient(self, texts: Sequence[np.ndarray], slopes: Sequence[np.ndarray]) -> np.ndarray:
        """Have the gradient of a loss added up, of which the derivative by each log-likelihood is known; these, as above."""
        data = [_datum(ids, -slope) for ids, slope in zip(texts, slopes, strict=True)]
        return self._called(Call(self.name, data), [len(slope) for slope in slopes])

    def _called(self, call: Call, lengths: Sequence[int]) -> np.ndarray:
        (outcome,) = self.loops.forward_backward([call])
        if outcome.error is not None:
            raise GraftaxError(f"{outcome.error} {_SLOWER}")
        own = [found[-length:] for found, length in zip(outcome.logprobs, lengths, strict=True)]
        return np.concatenate(own).astype(np.float64)

    def _update(self) -> float:
        """One step of Adam; the norm of the gradient."""
        recipe, rate = self.recipe, float(jax.jit(learning_rate)(self._rates, np.int32(self.updates)))
        step = Step(self.name, rate, **_ADAM, weight_decay=recipe.weight_decay, grad_clip_norm=recipe.clip or 0.0)
        (outcome,) = self.loops.optim_step([step])
        if outcome.error is not None:
            raise GraftaxError(f"{outcome.error} {_SLOWER}")
        self.updates += 1
        return outcome.gradient_norm

    # -- on disk --------------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, list[np.ndarray]]:
        """All that changes, for a checkpoint, in the order of the leaves' names."""
        moments = self.loops.moments(self.name)
        trees = {"leaves": trainable_of(self.adapter), "first": moments.first, "second": moments.second}
        return {which: [np.asarray(tree[leaf]) for leaf in sorted(tree)] for which, tree in trees.items()}

    def restore(self, arrays: dict[str, list[Any]], updates: int, taken: int) -> None:
        """Go on from a checkpoint. `updates`: how many steps of Adam were asked for; `taken`: those that Adam counts."""
        adapter = self.adapter
        names = sorted(trainable_of(adapter))
        leaves, first, second = (
            {name: np.asarray(array) for name, array in zip(names, arrays[which], strict=True)}
            for which in ("leaves", "first", "second")
        )
        self.loops.restore(self.name, with_trainable(adapter, leaves), Moments(taken, first, second))
        self.updates = updates

    @property
    def taken(self) -> int:
        return self.loops.moments(self.name).steps

    def save(self, directory: Path, rows: PromptRows, rewards: Sequence[Reward], metrics: dict[str, float]) -> None:
        recipe, template = asdict(self.recipe), self.recipe.chat_template
        said = {name: value for name, value in recipe.items() if name not in UNUSED} | asdict(self.settings)
        adapter = self.adapter
        made = replace(
            adapter,
            recipe={
                "method": "+".join(method.name for method in adapter.methods),
                "trained": "grpo",
                "reward": [one.name for one in rewards],
                **said,
                "chat_template": None if template is None else template_of(template),
            },
            data=rows.known(),
            metrics=metrics,
            parents=(self.before.source,) if self.before is not None and self.before.source else (),
        )
        save_adapter(made, directory, self.backbone, overwrite=True)


def _methods_of(method: Any) -> tuple[tuple[Method, ...], Adapter | None]:
    """The methods of a loop, and the adapter from which it goes on."""
    if isinstance(method, Adapter):
        return method.methods, method
    several = () if method is None else tuple(method) if isinstance(method, list | tuple) else (method,)
    if any(isinstance(one, Adapter) for one in several):
        raise GraftaxError("grpo trains an adapter on by itself; no method can stand beside it.")
    return several, None


def _datum(ids: np.ndarray, weights: np.ndarray) -> Datum:
    """A text whose last tokens have weights; none before them has."""
    padded = np.zeros(len(ids) - 1)
    padded[len(padded) - len(weights) :] = weights
    return Datum(ids[:-1], {"target_tokens": ids[1:], "weights": padded})
