"""What a family of backbones declares, and how its Hugging Face config is read.

Adding one: a file like `bert.py` with a `Family`, and a line in `registry.py` (docs/adding_a_backbone.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import GraftaxError
from .encoder import Encoder, EncoderConfig
from .encoder_decoder import EncoderDecoder
from .layers import ACTIVATIONS
from .parts import LayerPaths, Part, Weight

#: Keys of Hugging Face configs that say nothing about the forward pass of a frozen backbone.
IGNORED = frozenset(
    [
        "_name_or_path",
        "_attn_implementation_autoset",
        "_num_labels",
        "architectures",
        "attn_implementation",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "classifier_dropout_prob",
        "directionality",
        "down_scale_factor",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "gap_size",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "label2id",
        "language",
        "layers_to_keep",
        "model_type",
        "net_structure_type",
        "num_memory_blocks",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
        "problem_type",
        "qa_dropout",
        "return_dict",
        "seq_classif_dropout",
        "tie_weights_",
        "tie_word_embeddings",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "use_cache",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "dropout",
        "attention_dropout",
        "attn_pdrop",
        "embd_pdrop",
        "hidden_dropout",
        "resid_pdrop",
        "n_ctx",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "task_specific_params",
        "is_encoder_decoder",
        "sinusoidal_pos_embds",
        "pretraining_tp",
        "cache_implementation",
        "unsloth_version",
    ]
)

#: Keys that must have one value in an encoder.
_REQUIRED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


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


def _nothing(raw: dict[str, Any]) -> dict[str, Any]:
    return {}


def _as_said(config: Any, keys: Container[str]) -> Any:
    return config


def _nowhere(config: Any, weight: Weight) -> np.ndarray | None:
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
    fields: Mapping[str, str]  # Hugging Face config key -> field of the config
    defaults: Mapping[str, Any]  # of the config, where config.json does not say
    layer_path: Callable[[Any, int], str]  # module path of stacked layer i, of an encoder-decoder within its tower
    parts: Callable[[Any], tuple[Part, ...]]
    head: HeadLayout
    config: type = EncoderConfig
    module: type = Encoder
    required: Mapping[str, Any] = field(default_factory=lambda: _REQUIRED)
    read: Callable[[dict[str, Any]], dict[str, Any]] = _nothing  # fields that take more than one key; it pops those it knows
    renamed: Mapping[str, str] = field(default_factory=dict)  # keys of checkpoints -> those that `parts` gives
    copies: Mapping[str, str] = field(default_factory=dict)  # keys that checkpoints may have again -> what they repeat
    absent: Callable[[Any, Weight], np.ndarray | None] = _nowhere  # a weight that a checkpoint may lack; None: it may not
    fitted: Callable[[Any, Container[str]], Any] = _as_said  # the config as the keys of a checkpoint have it
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
        """Typed config from config.json; an unknown key, or a value not supported, is an error that names it."""
        rest = dict(raw)
        own = self.read(rest)
        wrong = [f"{k}={rest[k]!r}" for k, v in self.required.items() if k in rest and rest[k] not in (v, None)]
        named = {**self.fields, "pad_token_id": "pad_id"}
        said = {field: rest[key] for key, field in named.items() if rest.get(key) is not None}
        wrong += [f"{k}={rest[k]!r}" for k, f in named.items() if f in said and k in rest and not self._sound(f, rest[k])]
        unknown = [k for k in rest if k not in {*named, *IGNORED, *self.required}]
        if wrong or unknown:
            listed = ", ".join([*wrong, *unknown])
            raise GraftaxError(f"config.json of model_type {self.model_types[0]!r}: not supported: {listed}.")
        values = {**self.defaults, **said, **own}
        needed = [f.name for f in dataclasses.fields(self.config) if f.default is dataclasses.MISSING]
        missing = [key for key, field in self.fields.items() if field in needed and field not in values]
        if missing:
            raise GraftaxError(f"config.json lacks {', '.join(missing)}.")
        config = self.config(**values)
        if config.hidden_size % config.num_heads and not getattr(config, "head_dim", 0):
            raise GraftaxError(f"config.json: hidden size {config.hidden_size} is not a multiple of {config.num_heads} heads.")
        return config

    def _sound(self, field: str, value: Any) -> bool:
        """Whether a field of the config can have this value, read from JSON."""
        (default, kind) = next((f.default, f.type) for f in dataclasses.fields(self.config) if f.name == field)
        if field == "activation":
            return isinstance(value, str) and value in ACTIVATIONS
        if kind == "bool":
            return isinstance(value, bool)
        if kind == "float":
            return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        return isinstance(value, int) and not isinstance(value, bool) and value >= (0 if default == 0 else 1)

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
