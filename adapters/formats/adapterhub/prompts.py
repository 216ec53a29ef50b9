"""Prefix and prompt tuning in the words of AdapterHub's `adapters`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...method import Leaves
from ...methods.bottleneck import ACTIVATIONS
from ...methods.prefix import Prefix
from ...methods.prompt import PromptTuning
from ...sites import Site
from ..peft import prompts as in_peft
from .dialect import Context, Dialect, Tensors, our_activation


@dataclass(frozen=True)
class PrefixDialect(Dialect):
    there: ClassVar[str] = "prefix_tuning"

    activation: str | None = None  # of the network that makes the prefix, where there is one

    @property
    def stem(self) -> str:
        return f"{self.context.prefix}.prefix_tuning.prefix_tunings.{self.context.name}.self_prefix."

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        if self.method.shifted:
            raise self.context.refuse("no positions are shifted there by a prefix; train it with shifted=false")
        return {"architecture": "prefix_tuning", "flat": True, "prefix_length": self.method.tokens, "leave_out": []}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        (tensor,) = in_peft.PrefixDialect(self.method).export(states).values()  # PEFT's: [tokens, layers * 2 * hidden]
        return {f"{self.stem}control_trans": tensor.reshape(-1)}

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        dialect = in_peft.PrefixDialect(self.method)
        ((key, expected),) = dialect.export(like).items()
        return dialect.restore(like, {key: tensors[f"{self.stem}control_trans"].reshape(expected.shape)})

    def simplified(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Without each layer's copy of the prefix, and with what its network makes in place of the network."""
        pool = f".prefix_tuning.pool.prefix_tunings.{self.context.name}.self_prefix."

        def copied(key: str) -> bool:
            there = tensors.get(self.stem + key.partition(pool)[2]) if pool in key else None
            return there is not None and np.array_equal(there, tensors[key])

        tensors = {key: tensor for key, tensor in tensors.items() if not copied(key)}
        network = [f"{self.stem}{key}" for key in ("wte.weight", *(f"control_trans.{i}.{n}" for i in (0, 2) for n in _LINEAR))]
        if self.activation is not None and all(key in tensors for key in network):
            vectors, w1, b1, w2, b2 = (tensors.pop(key) for key in network)
            (tokens, width), (middle, out) = (self.method.tokens, vectors.shape[-1]), (len(w1), len(w2))
            if [a.shape for a in (vectors, w1, b1, w2, b2)] != [
                (tokens, width),
                (middle, width),
                (middle,),
                (out, middle),
                (out,),
            ]:
                raise self.context.refuse("the matrices of the network that makes the prefix do not fit each other")
            wide = ACTIVATIONS[self.activation](vectors @ w1.T + b1)
            tensors[f"{self.stem}control_trans"] = (np.asarray(wide) @ w2.T + b2).reshape(-1)
        return tensors


_LINEAR = ("weight", "bias")


def read_prefix(config: dict[str, Any], context: Context) -> Dialect:
    if left_out := config.pop("leave_out", None):
        raise context.refuse(f"leave_out={left_out!r}: graftax has prefixes in every layer")
    flat, activation = config.pop("flat", False), str(config.pop("non_linearity", "tanh"))
    method = Prefix(tokens=config.pop("prefix_length", 30), shifted=False)
    return PrefixDialect(method, context, None if flat else our_activation(activation, context))


class PromptDialect(Dialect):
    there = "prompt_tuning"

    @property
    def key(self) -> str:
        return f"{self.context.prefix}.prompt_tuning.prompt_tunings.{self.context.name}.prompt_embedding.weight"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        if not self.method.post:
            raise self.context.refuse("a prompt comes behind the embeddings' norm there; train it with post=true")
        return {"architecture": "prompt_tuning", "prompt_length": self.method.tokens, "combine": "prefix"}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        (tensor,) = in_peft.PromptDialect(self.method).export(states).values()
        return {self.key: tensor}

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        dialect = in_peft.PromptDialect(self.method)
        ((key, _),) = dialect.export(like).items()
        return dialect.restore(like, {key: tensors[self.key]})


def read_prompt(config: dict[str, Any], context: Context) -> Dialect:
    if (combine := config.pop("combine", "prefix")) != "prefix":
        raise context.refuse(f"not supported: combine={combine!r}")
    return PromptDialect(PromptTuning(tokens=config.pop("prompt_length", 10), post=True), context)
