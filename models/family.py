"""What a family of backbones declares, and how its Hugging Face config is read.

Adding one: a file like `bert.py` with a `Family`, and a line in `registry.py` (docs/adding_a_backbone.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import GraftaxError
from .encoder import ACTIVATIONS, EncoderConfig
from .parts import Part

#: Keys of Hugging Face configs that say nothing about the forward pass of a frozen encoder.
IGNORED = frozenset(
    [
        "_name_or_path",
        "_attn_implementation_autoset",
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
        "is_encoder_decoder",
        "sinusoidal_pos_embds",
    ]
)

#: Keys that must have one value here.
_REQUIRED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


@dataclass(frozen=True)
class HeadLayout:
    """The sequence classification head of the family's Hugging Face task model."""

    features: str  # "pooled" (tanh pooler) or "first" (the first position as it is)
    hidden: str  # activation of the head's own hidden layer, "none" where it has none
    modules: tuple[str, ...]  # its paths: (hidden layer, classifier) or (classifier,)
    pooler: str = ""  # path of the pretrained pooler, which is trained with the head where a checkpoint lacks it


@dataclass(frozen=True)
class Family:
    """One architecture: a config, the declaration of every part, a head layout."""

    model_types: tuple[str, ...]
    summary: str
    task_model: str  # transformers' class names are this + "ForSequenceClassification" and so on
    prefix: str  # module of the encoder in task models: "bert" in bert.encoder.layer.0...
    fields: Mapping[str, str]  # Hugging Face config key -> field of EncoderConfig
    defaults: Mapping[str, Any]  # of EncoderConfig, where the config does not say
    layer_path: Callable[[EncoderConfig, int], str]  # module path of stacked layer i
    parts: Callable[[EncoderConfig], tuple[Part, ...]]
    head: HeadLayout
    past_key_values: bool = True  # whether transformers' model takes cached keys and values, as PEFT's prefix tuning needs
    default_eps: float = 1e-12

    def configure(self, raw: Mapping[str, Any]) -> EncoderConfig:
        """Typed config from config.json; an unknown key, or a value not supported, is an error that names it."""
        wrong = [f"{k}={raw[k]!r}" for k, v in _REQUIRED.items() if k in raw and raw[k] not in (v, None)]
        wrong += [f"{k}={raw[k]!r}" for k, field in self.fields.items() if k in raw and not _sound(field, raw[k])]
        wrong += [f"{k}={raw[k]!r}" for k in ("pad_token_id",) if raw.get(k) is not None and not _sound("pad_id", raw[k])]
        known = {*self.fields, *IGNORED, *_REQUIRED, "pad_token_id"}
        unknown = [k for k in raw if k not in known]
        if wrong or unknown:
            named = ", ".join([*wrong, *unknown])
            raise GraftaxError(f"config.json of model_type {self.model_types[0]!r}: not supported: {named}.")
        missing = [k for k, field in self.fields.items() if k not in raw and field in _NEEDED]
        if missing:
            raise GraftaxError(f"config.json lacks {', '.join(missing)}.")
        values: dict[str, Any] = {"norm_eps": self.default_eps, "pad_id": raw.get("pad_token_id") or 0, **self.defaults}
        values |= {field: raw[key] for key, field in self.fields.items() if key in raw}
        config = EncoderConfig(**values)
        if config.hidden_size % config.num_heads:
            raise GraftaxError(f"config.json: hidden size {config.hidden_size} is not a multiple of {config.num_heads} heads.")
        return config

    def layer_paths(self, config: EncoderConfig) -> tuple[str, ...]:
        return tuple(self.layer_path(config, i) for i in range(config.stacked))


def _sound(field: str, value: Any) -> bool:
    """Whether a field of EncoderConfig can have this value, read from JSON."""
    if field == "activation":
        return isinstance(value, str) and value in ACTIVATIONS
    if field == "norm_eps":
        return isinstance(value, int | float) and value > 0
    return isinstance(value, int) and value >= (0 if field in ("pad_id", "type_vocab_size") else 1)


_NEEDED = ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions")


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
    }
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
    return (Part("linear", "pooler", path, (c.hidden_size, c.hidden_size)),) if c.pooler else ()
