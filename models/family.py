"""What a family of backbones declares, and how its Hugging Face config is read.

Adding one: a file like `bert.py` with a `Family`, and a line in `registry.py` (docs/adding_a_backbone.md).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import GraftaxError
from .encoder import Encoder, EncoderConfig
from .encoder_decoder import EncoderDecoder
from .keys import Key
from .parts import LayerPaths, Part, Weight
from .processor import Processor
from .tokens import Tokenizer

#: Keys that any config may have and no model reads: what transformers says of every model, and what it writes beside. Other
#: keys that a family does not know are ignored too, and said (`Family.unread`).
COMMON = frozenset(
    [
        *("model_type", "architectures", "auto_map", "tokenizer_class", "transformers_version"),
        *("_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_num_labels"),
        *("dtype", "torch_dtype", "torchscript", "chunk_size_feed_forward", "use_cache"),
        *("output_attentions", "output_hidden_states", "return_dict", "is_encoder_decoder", "tie_encoder_decoder"),
        *("output_past", "gradient_checkpointing"),
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "tie_word_embeddings"),
    ]
)


@dataclass(frozen=True)
class HeadLayout:
    """The sequence classification head of the family's Hugging Face task model."""

    features: str  # "pooled" (tanh pooler), "first" (the first position as it is) or "last" (the last one of the text)
    hidden: str  # activation of the head's own hidden layer, "none" where it has none
    modules: tuple[str, ...]  # its paths: (hidden layer, classifier) or (classifier,)
    pooler: str = ""  # path of the pretrained pooler, which is trained with the head where a checkpoint lacks it
    bias: bool = True  # of the classifier
    tokens: str = "classifier"  # path of the token classification model's classifier


#: Of a family on which adapters have no head.
HEADLESS = HeadLayout(features="none", hidden="none", modules=())


def _nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _as_said(config: Any, keys: Container[str]) -> Any:
    return config


def _nowhere(config: Any, weight: Weight) -> Callable[[], np.ndarray] | None:
    return None


@dataclass(frozen=True)
class Family:
    """One architecture: a config, the declaration of every part, a head layout."""

    model_types: tuple[str, ...]
    summary: str
    task_model: str  # transformers' class names are this + "ForSequenceClassification" and so on
    prefix: (
        str  # module of the backbone in task models: "bert" in bert.encoder.layer.0...; "": they hold its modules themselves
    )
    keys: Mapping[str, Key]  # of config.json that transformers' config class declares
    layer_path: Callable[[Any, int], str]  # module path of stacked layer i, of an encoder-decoder within its tower
    parts: Callable[[Any], tuple[Part, ...]]
    head: HeadLayout
    config: type = EncoderConfig
    module: type = Encoder
    older: Mapping[str, Key] = field(default_factory=dict)  # and those that it or its model reads all the same
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of keys -> those in `keys`
    defaults: Mapping[str, Any] = field(default_factory=dict)  # fields of the config that no key says
    read: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing  # fields that follow from several keys, all of which it gets
    renamed: Mapping[str, str] = field(default_factory=dict)  # keys of checkpoints -> those that `parts` gives
    copies: Mapping[str, str] = field(default_factory=dict)  # keys that checkpoints may have again -> what they repeat
    absent: Callable[[Any, Weight], Callable[[], np.ndarray] | None] = _nowhere  # what makes a weight that may be lacking
    fitted: Callable[[Any, Container[str]], Any] = _as_said  # the config as the keys of a checkpoint have it
    task: str = "classify"  # what a head over an item's features is for, where a file does not say it
    processor: type[Processor] = Tokenizer  # what stands between rows and the backbone
    past_key_values: bool = True  # whether transformers' model takes cached keys and values, as PEFT's prefix tuning needs

    @property
    def generates(self) -> bool:
        """Whether it is a language model."""
        return hasattr(self.module, "prefill")

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder-decoder: what it writes answers another text."""
        return self.module is EncoderDecoder

    def configure(self, raw: Mapping[str, Any]) -> Any:
        """Typed config from config.json; what it lacks is transformers' default.

        Raises GraftaxError for values that are unsound or not supported, all of them at once, and for sizes that cannot be.
        """
        known = {**self.older, **self.keys}
        said = {self.aliases.get(name, name): value for name, value in raw.items()}
        wrong = [f"{name}={raw[name]!r} (not {own}={raw[own]!r})" for name, own in self._told_twice(raw)]
        values = {name: said.get(name, key.default) for name, key in known.items()}
        wrong += [f"{k}={said[k]!r} ({key.takes})" for k, key in known.items() if k in said and not key.allows(said[k])]
        if wrong:
            raise GraftaxError(f"config.json of model_type {self.model_types[0]!r}: not supported: {'; '.join(wrong)}.")
        direct = {key.field: values[name] for name, key in known.items() if key.field and values[name] is not None}
        config = self.config(**{**self.defaults, **direct, **self.read(values)})
        if config.hidden_size % config.num_heads and not getattr(config, "head_dim", 0):
            raise GraftaxError(f"config.json: hidden size {config.hidden_size} is not a multiple of {config.num_heads} heads.")
        if config.num_heads % getattr(config, "kv_heads", 1):
            raise GraftaxError(f"config.json: {config.num_heads} heads do not share {config.kv_heads} of keys and values.")
        if config.max_tokens < 1:
            raise GraftaxError(f"config.json: {config.max_positions} positions leave none for a token.")
        for name, token in (("pad_token_id", config.pad_id), ("decoder_start_token_id", getattr(config, "start_id", 0))):
            if token >= config.vocab_size:
                raise GraftaxError(f"config.json: {name} is {token}, in a vocabulary of {config.vocab_size}.")
        return config

    def _told_twice(self, raw: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Keys with two names in a config that says different things under them."""
        return [(name, own) for name, own in self.aliases.items() if name in raw and own in raw and raw[name] != raw[own]]

    def unread(self, raw: Mapping[str, Any]) -> list[str]:
        """Keys of a config that no model of this family reads."""
        return sorted(raw.keys() - self.keys.keys() - self.older.keys() - self.aliases.keys() - COMMON)

    def layer_paths(self, config: Any) -> LayerPaths:
        """By stack; "encoder." is the name of a tower here and in Hugging Face's models."""
        return {
            stack: tuple(stack.removesuffix("layers.") + self.layer_path(config, i) for i in range(layers))
            for stack, layers in config.stacks.items()
        }

    def task_path(self, path: str) -> str:
        """A path within the backbone as it is in the task model."""
        return f"{self.prefix}.{path}" if self.prefix else path


def transformer_parts(c: EncoderConfig, names: Mapping[str, str]) -> tuple[Part, ...]:
    """The parts every post-norm layer has; `names` maps our part names to paths within a layer."""
    d, wide = c.hidden_size, c.intermediate_size
    shapes = {
        "query": ("linear", (d, d)),
        "key": ("linear", (d, d)),
        "value": ("linear", (d, d)),
        "attention": ("attention", (d,)),
        "attention_out": ("linear", (d, d)),
        "attention_branch": ("branch", (d,)),
        "attention_norm": ("norm", (d,)),
        "ffn_in": ("linear", (d, wide)),
        "ffn_out": ("linear", (wide, d)),
        "ffn_branch": ("branch", (d,)),
        "ffn_norm": ("norm", (d,)),
        "output": ("stream", (d,)),
    }
    names = {**names, "output": ""}
    return tuple(Part(kind, f"layers.{name}", names[name], shape) for name, (kind, shape) in shapes.items())


def embedding_parts(c: EncoderConfig) -> tuple[Part, ...]:
    """Word, position and token type tables, their norm, and the `input` site."""
    d = c.embedding_size or c.hidden_size
    parts = [
        Part("input", "input", "embeddings", (d,)),
        Part("embedding", "word_embeddings", "embeddings.word_embeddings", (c.vocab_size, d)),
        Part("embedding", "position_embeddings", "embeddings.position_embeddings", (c.max_positions, d)),
        Part("norm", "embedding_norm", "embeddings.LayerNorm", (d,)),
    ]
    if c.type_vocab_size:
        parts.append(Part("embedding", "token_type_embeddings", "embeddings.token_type_embeddings", (c.type_vocab_size, d)))
    return tuple(parts)


def pooler_parts(c: EncoderConfig, path: str) -> tuple[Part, ...]:
    return (Part("linear", "pooler", path, (c.hidden_size, c.hidden_size), above=True),) if c.pooler else ()
