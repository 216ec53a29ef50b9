"""What a family of backbones declares, and how its Hugging Face config is read.

Adding one: a file like `bert.py` with a `Family`, and a line in `family_registry.py` (docs/adding_a_backbone.md).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..adapters.methods.head import FIRST, POOLED, TOKENS
from ..errors import GraftaxError
from .backbone_config import Config
from .config_keys import Key
from .encoder import Encoder, EncoderConfig
from .network import Network
from .parts import LayerPaths, Layers, Part, Weight, in_stack
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
class TaskHead:
    """The head of the family's Hugging Face task model that answers for an item as a whole, and where other heads may be."""

    features: str  # "pooled" (as the network pools an item), "first" (the first position as it is) or "last" (the text's last)
    hidden: str  # activation of the head's own hidden layer, "none" where it has none
    modules: tuple[str, ...]  # its paths: (hidden layer, classifier) or (classifier,)
    pooler: str = ""  # path of the pretrained pooler, which is trained with the head where a checkpoint lacks it
    bias: bool = True  # of the classifier
    tokens: str = "classifier"  # path of the token classification model's classifier
    sites: tuple[str, ...] = (
        POOLED,
        FIRST,
        TOKENS,
    )  # where there are heads; of items that are no sequence of tokens POOLED alone


#: Of a family on which adapters have no head.
HEADLESS = TaskHead(features="none", hidden="none", modules=(), sites=())


def _no_layers(config: Any) -> tuple[Layers, ...]:
    return ()


def _nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def as_said(config: Any, keys: Container[str]) -> Any:
    """`Family.fitted` where the keys of a checkpoint say nothing."""
    return config


def _nowhere(config: Any, weight: Weight) -> Callable[[], np.ndarray] | None:
    return None


@dataclass(frozen=True)
class Family:
    """One architecture: a config, the declaration of every part, the head of its task model."""

    model_types: tuple[str, ...]
    summary: str
    keys: Mapping[str, Key]  # of config.json that transformers' config class declares
    parts: Callable[[Any], tuple[Part, ...]]  # those of lower stacks before those of higher ones
    head: TaskHead
    stacks: Callable[[Any], tuple[Layers, ...]] = _no_layers  # in the order in which they are run
    task_model: str = ""  # transformers' class names are this + "ForSequenceClassification" and so on
    #: what stands in the paths of its checkpoints -> what its modules are called in transformers since version 5, in turn
    modules: tuple[tuple[str, str], ...] = ()
    prefix: str = ""  # module of the backbone in task models, "bert" in bert.encoder.layer.0; "": they hold its own themselves
    config: type[Config] = EncoderConfig
    module: type[Network] = Encoder
    older: Mapping[str, Key] = field(default_factory=dict)  # and those that it or its model reads all the same
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of keys -> those in `keys`
    defaults: Mapping[str, Any] = field(default_factory=dict)  # fields of the config that no key says
    read: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing  # fields that follow from several keys, all of which it gets
    renamed: Mapping[str, str] = field(default_factory=dict)  # keys of checkpoints -> those that `parts` gives
    copies: Mapping[str, str] = field(default_factory=dict)  # keys that checkpoints may have again -> what they repeat
    absent: Callable[[Any, Weight], Callable[[], np.ndarray] | None] = _nowhere  # what makes a weight that may be lacking
    fitted: Callable[[Any, Container[str]], Any] = as_said  # the config as the keys of a checkpoint have it
    task: str = "classify"  # what a head over an item's features is for, where a file does not say it
    processor: type[Processor] = Tokenizer  # what stands between rows and the backbone
    architectures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # timm's names -> values of `keys`
    past_key_values: bool = True  # whether transformers' model takes cached keys and values, as PEFT's prefix tuning needs

    @property
    def generates(self) -> bool:
        """Whether it is a language model."""
        return self.module.generates

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder-decoder: what it writes answers another text."""
        return self.module.encodes

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
        config.check()
        return config

    def _told_twice(self, raw: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Keys with two names in a config that says different things under them."""
        return [(name, own) for name, own in self.aliases.items() if name in raw and own in raw and raw[name] != raw[own]]

    def unread(self, raw: Mapping[str, Any]) -> list[str]:
        """Keys of a config that no model of this family reads."""
        return sorted(raw.keys() - self.keys.keys() - self.older.keys() - self.aliases.keys() - COMMON)

    def layer_paths(self, config: Any) -> LayerPaths:
        """By stack."""
        return {layers.name: layers.paths for layers in self.stacks(config)}

    def called(self, path: str) -> str:
        """What is called so in checkpoints, as transformers' modules are called; what is called that already stays so."""
        for older, newer in self.modules:
            path = path if newer in path else path.replace(older, newer)
        return path

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
    return in_stack("layers", (Part(kind, name, names[name], shape) for name, (kind, shape) in shapes.items()))


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
    return (Part("linear", "pooler", path, (c.hidden_size, c.hidden_size), above="layers"),) if c.pooler else ()
