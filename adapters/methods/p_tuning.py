"""P-tuning: a prompt that a small network makes (Liu et al., 2021, arXiv:2103.10385).

    P = relu(relu(E W1 + b1) W2 + b2) W3 + b3      E [n, e], W1 [e, h], W2 [h, h], W3 [h, e]

P [n, e] is what prompt tuning trains itself (`prompt.py`, which says what a prompt is); here E and the network are trained, so
that the vectors of the prompt are not moved apart from each other. The network is PEFT's, without the LSTM that the paper, and
PEFT on request, puts in front of it.

Like PEFT's, a file holds P and nothing of the network, and what is read from one is P alone: it answers as it did when it was
trained, whatever network made it, and trained on it is a prompt of prompt tuning. So the leaves here are of two kinds, E and
the network or P, and where a layout has room for both, the one that an adapter lacks is zero and adds nothing.

A fresh prompt changes the output: all starts at random, as in torch. Trainable parameters: n e + 2 h e + h^2 + 2 h + e.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from ...errors import GraftaxError
from ...typed import SizeOrZero
from ..method import Leaves, zeros
from ..sites import Site
from .prompt import PromptTuning


@dataclass(frozen=True)
class PTuning(PromptTuning):
    """Virtual tokens in front of the text, made by a network."""

    name: ClassVar[str] = "p_tuning"
    summary: ClassVar[str] = "word embeddings in front of the text, made by a trained network"
    count: ClassVar[str] = "n e + 2 h e + h^2 + 2 h + e"
    padded: ClassVar[dict[str, int]] = {"embedding": 0, "prompt": 0, "mask": 0}
    traced: ClassVar[tuple[str, ...]] = ("encoder_hidden_size",)

    encoder_hidden_size: SizeOrZero = 0  # h; 0: e, the width of the word embeddings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.post:
            raise GraftaxError("p_tuning: its rows come before the norm of the embeddings, as PEFT's do.")

    def _network(self, site: Site) -> dict[str, tuple[int, ...]]:
        """Shapes of the network's leaves."""
        (e,) = site.shape
        h = self.encoder_hidden_size or e
        return {"w1": (e, h), "b1": (h,), "w2": (h, h), "b2": (h,), "w3": (h, e), "b3": (e,)}

    def init(self, key: jax.Array, site: Site) -> Leaves:
        shapes = self._network(site)
        first, *keys = jax.random.split(key, 1 + len(shapes))
        leaves = {"embedding": jax.random.normal(first, (self.tokens, *site.shape))}
        for own, (name, shape) in zip(keys, shapes.items(), strict=True):
            bound = 1.0 / math.sqrt(shapes["w" + name[1:]][0])
            leaves[name] = jax.random.uniform(own, shape, minval=-bound, maxval=bound)
        return leaves

    def trainable(self, site: Site) -> tuple[str, ...]:
        return ("embedding", *self._network(site))

    def identity(self, site: Site, size: int) -> tuple[Leaves, Leaves]:
        trainable, fixed = super().identity(site, size)
        network = {name: zeros(*shape) for name, shape in self._network(site).items()}
        return trainable | {"embedding": zeros(size, *site.shape)} | network, fixed

    def vectors(self, state: Leaves) -> Any:
        if "embedding" not in state:
            return state["prompt"]
        h = jax.nn.relu(state["embedding"] @ state["w1"] + state["b1"])
        h = jax.nn.relu(h @ state["w2"] + state["b2"])
        return state.get("prompt", 0.0) + (h @ state["w3"] + state["b3"])

    def prepare(self, state: Leaves, frozen: Any) -> Leaves:
        network = {"embedding", "w1", "b1", "w2", "b2", "w3", "b3"}
        return {name: leaf for name, leaf in state.items() if name not in network} | {"prompt": self.vectors(state)}

    def held(self, site: Site) -> Leaves:
        return {"prompt": zeros(self.tokens, *site.shape)}
