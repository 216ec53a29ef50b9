"""Sampling for GRPO: completions of prompts, by the adapter as it is now, from the engine that serves texts.

The adapter is registered anew under its one name after every change. What was sampled depends on the adapter, the prompts and
the seeds, and not on what was sampled before: the engine's lanes begin anew for every step, for how much room they have decides
in which order sums are taken, and a run that was resumed would find another room than one that went on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...adapters.adapter import Adapter
from ...models.backbone import Backbone
from ...models.tokens import Tokens
from ...notes import silenced
from ...serve.composition import plan_of
from ...serve.continuation import Continuation
from ...serve.generator import Generator
from ...serve.read_request import Piece, Reading, Wanted
from ...serve.sampling import Sampling
from .grpo_settings import GrpoSettings

_NAME = "the adapter in training"


class Sampler:
    """Completions of one adapter."""

    _longest = 1  # columns that any text takes

    def __init__(self, backbone: Backbone, settings: GrpoSettings, chat_template: str | None):
        self._generator = Generator(backbone, chat_template=chat_template)
        self._engine = self._generator.engine
        self.tokenizer = self._generator.tokenizer
        self._how = Sampling(
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            stop=settings.stop,
        )

    @property
    def compilations(self) -> int:
        """Programs that were compiled, those of the base's likelihoods aside."""
        return self._generator.compilations + self._generator.residents.bank.growths

    def expect(self, longest: int) -> None:
        """Texts will be of at most so many tokens, with those that adapters put in front."""
        self._longest = longest

    def use(self, adapter: Adapter) -> None:
        """Sample by this adapter from now on."""
        self._generator.load(_NAME, adapter)

    def sample(
        self, prompts: Sequence[np.ndarray], seeds: Sequence[int], stops: Callable[[], bool]
    ) -> list[Continuation] | None:
        """The completion of every prompt, each drawn by its seed; None where `stops` says, between two rounds, to stop."""
        how = [self._how.changed({"seed": int(seed)}) for seed in seeds]
        asked: Any = [ids.tolist() for ids in prompts]
        ends: dict[int, Continuation] = {}
        self._engine.pool.begin_anew(len(prompts), self._longest)
        with silenced():  # what generation_config.json says of beams is not meant for samples
            for index, _, end in self._generator.stream(asked, _NAME, how):
                if stops():
                    return None
                if end is not None:
                    ends[index] = end
        return [ends[index] for index in range(len(prompts))]

    def base_logprobs(self, texts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of each text, how likely the backbone alone finds every token but the first: log-likelihoods, float64."""
        pieces = [Piece(Tokens(ids, np.zeros_like(ids), None), plan_of(None)) for ids in texts]
        self._engine.read(reading := Reading(pieces, Wanted.CHANCES, alone=False))
        while not reading.future.done():
            self._engine.advance()
        return [np.asarray(told, np.float64)[:, 0] for told in reading.future.result()]
