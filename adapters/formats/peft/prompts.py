"""Methods with virtual tokens in PEFT's words: a file keeps one tensor for all of them, under no module's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from ...method import Leaves, Method
from ...methods.p_tuning import PTuning
from ...methods.prefix import Prefix
from ...methods.prompt import PromptTuning
from ...sites import Site
from .dialect import Dialect

_KEY = "prompt_embeddings"


class PrefixDialect(Dialect):
    """One tensor [tokens, layers * 2 * hidden]: each layer's keys, then its values."""

    of = Prefix
    peft_type = "PREFIX_TUNING"
    past_key_values = True

    method: Prefix

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        pairs = [np.asarray(states[site][leaf]) for site in _layers(states) for leaf in ("key", "value")]
        return {_KEY: np.concatenate(pairs, axis=1)}

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        layers = _layers(like)
        ends = np.cumsum([site.shape[0] for site in layers for _ in ("key", "value")])  # stages of Swin are of unlike widths
        pairs = np.split(tensors[_KEY], ends[:-1], axis=1)
        states: dict[Site, Leaves] = {s: {} for s in like if s.kind == "input"}
        return states | {site: {"key": pairs[2 * i], "value": pairs[2 * i + 1]} for i, site in enumerate(layers)}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any] | None:
        layers = [s for s in chosen if s.kind == "attention"]
        if not self.method.shifted or len({s.stack for s in layers}) > 1:
            return None  # PEFT shifts positions, and gives an encoder no prefix, and a decoder one for both attentions
        return {
            "num_virtual_tokens": self.method.tokens,
            "num_layers": len(layers),
            "token_dim": layers[0].shape[0],
            "prefix_projection": False,
            "num_transformer_submodules": 1,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        for shape_only in ("num_layers", "token_dim", "num_attention_heads", "num_transformer_submodules"):
            config.pop(shape_only, None)  # said again by the tensor's shape, which is checked
        # The network that made the prefix is collapsed when PEFT saves; its settings no longer change anything.
        config.pop("prefix_projection", None), config.pop("encoder_hidden_size", None)
        config.pop("init_weights", None)  # how it began
        return Prefix(tokens=config.pop("num_virtual_tokens", 0) or 0)


def _layers(states: Mapping[Site, Leaves]) -> list[Site]:
    """The sites that hold keys and values, from the first layer on."""
    return sorted((site for site in states if site.kind == "attention"), key=lambda site: site.layer or 0)


class PromptDialect(Dialect):
    """One tensor [tokens, e]."""

    of: ClassVar[type[PromptTuning]] = PromptTuning
    peft_type = "PROMPT_TUNING"

    method: PromptTuning

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        (prompt,) = (self.method.vectors(leaves) for site, leaves in states.items() if self.method.holds(site))
        return {_KEY: np.asarray(prompt)}

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        return {site: {"prompt": tensors[_KEY]} if self.method.holds(site) else {} for site in like}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any] | None:
        return None if self.method.post else {**self.shape(chosen, sites), "prompt_tuning_init": "RANDOM"}

    def shape(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        """What a config says of the prompt's size."""
        (site,) = chosen
        return {
            "num_virtual_tokens": self.method.tokens,
            "num_layers": sum(s.kind == "attention" for s in sites),
            "num_attention_heads": 1,  # PEFT wants some number, and a prompt has no use for it
            "token_dim": site.shape[0],
            "num_transformer_submodules": 1,
        }

    @staticmethod
    def tokens(config: dict[str, Any]) -> int:
        """How many there are; what else a config says of the prompt changes nothing, and is popped."""
        for shape_only in ("num_layers", "token_dim", "num_transformer_submodules"):
            config.pop(shape_only, None)  # said again by the tensor's shape, which is checked
        for start in ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"):
            config.pop(start, None)  # how the prompt began, not what it does
        return config.pop("num_virtual_tokens", 0) or 0

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        return PromptTuning(tokens=cls.tokens(config))


class PTuningDialect(PromptDialect):
    """The prompt that the network makes, and nothing of the network."""

    of = PTuning
    peft_type = "P_TUNING"

    method: PTuning

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        with jax.default_matmul_precision("highest"):  # wherever it is saved: the file must answer as the network does
            return super().export(states)

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        shape = self.shape(chosen, sites)
        return {**shape, "encoder_hidden_size": self.method.encoder_hidden_size or shape["token_dim"]}

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        hidden = config.pop("encoder_hidden_size", None) or 0
        for only_training in ("encoder_reparameterization_type", "encoder_num_layers", "encoder_dropout"):
            config.pop(only_training, None)  # of the network, which the file does not hold
        return PTuning(tokens=cls.tokens(config), encoder_hidden_size=hidden)
