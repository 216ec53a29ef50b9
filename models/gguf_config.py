"""A GGUF file's metadata as the `config.json` that it stands for, and its tensors as those of a checkpoint.

Each architecture of llama.cpp's that is read has a line in `_ARCHITECTURES`: which model type of transformers' it is, and what
llama.cpp's converter did to the weights, which is undone (`weights_of`):

    paired    a head's rotary channels lie in pairs (x1 x2 x1 x2 ...), where Hugging Face has two halves
    raised    the norms of Gemma hold 1 + w
    turned    kernels of GPT-2 are turned

Names of tensors are as the `gguf` package maps them. The embeddings are tied where there is no `output.weight`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import GraftaxError
from ..notes import note
from ..typed import shown
from .family import Family
from .family_registry import family_of
from .gguf_file import Gguf, GgufTensor, Turned
from .gguf_vocabulary import Vocabulary
from .parts import Weight
from .rope import Rope

#: What the low frequencies of Llama 3 are divided by, channel by channel: of its `rope_scaling` all that the file has.
_ROPE_FACTORS = "rope_freqs.weight"

#: Keys behind the architecture's name -> those of config.json.
_SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_GPT2_SIZES = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
#: Keys that are read, or that change nothing.
_KNOWN = frozenset([*_SIZES, *_GPT2_SIZES, "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "vocab_size"])
_KNOWN |= {"attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base", "tensor_data_layout"}
_KNOWN |= {"rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.finetuned"}
_KNOWN |= {"rope.scale_linear"}
#: Keys that change what is computed, and the value with which they do not: none of the models that are read has others.
_NEUTRAL = {"logit_scale": 1.0, "embedding_scale": 1.0, "residual_scale": 1.0, "attention.scale": 0.0, "expert_count": 0}
_NEUTRAL |= {
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.causal": True,
    "use_parallel_residual": False,
}


class _Said:
    """The metadata of a file about its architecture."""

    def __init__(self, file: Gguf, architecture: str):
        self.file, self.architecture = file, architecture

    def get(self, key: str, default: Any = None) -> Any:
        return self.file.metadata.get(f"{self.architecture}.{key}", default)

    def needed(self, key: str) -> Any:
        if (value := self.get(key)) is None:
            raise GraftaxError(f"{self.file.path}: its metadata lacks {self.architecture}.{key}.")
        return value

    def size(self, key: str) -> int:
        """A whole number above 0, which there must be."""
        value = self.needed(key)
        if type(value) is not int or value < 1:
            raise GraftaxError(f"{self.file.path}: {self.architecture}.{key} is {shown(value)}, no whole number above 0.")
        return value

    def number(self, key: str, default: float) -> float:
        """A float32, as the shortest decimal that it is nearest to."""
        value = self.get(key, default)
        if not isinstance(value, int | float):
            raise GraftaxError(f"{self.file.path}: {self.architecture}.{key} is {shown(value)}, no number.")
        return float(str(np.float32(value)))

    def unsupported(self, what: str) -> GraftaxError:
        return GraftaxError(f"{self.file.path}: {what}: not supported.")

    @property
    def head_dim(self) -> int:
        if self.get("attention.key_length") is None:
            return self.size("embedding_length") // self.size("attention.head_count")
        return self.size("attention.key_length")


def _nothing(said: _Said) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class _Architecture:
    """One of llama.cpp's, as a model type of transformers'."""

    model_type: str
    read: Callable[[_Said], dict[str, Any]]  # the keys of config.json
    also: frozenset[str] = field(default_factory=frozenset)  # keys that it reads, beside `_KNOWN`
    paired: bool = False
    raised: bool = False
    turned: bool = False


def _decoder(said: _Said) -> dict[str, Any]:
    """What all of the Llama line have."""
    sizes = {name: said.needed(key) for key, name in _SIZES.items()}
    sizes["num_key_value_heads"] = said.get("attention.head_count_kv", sizes["num_attention_heads"])
    value = said.get("attention.value_length", said.head_dim)
    if value != said.head_dim:
        raise said.unsupported(f"heads of {said.head_dim} channels for keys and {shown(value)} for values")
    said.needed("attention.layer_norm_rms_epsilon")
    epsilon = said.number("attention.layer_norm_rms_epsilon", 0.0)
    return {**sizes, "head_dim": said.head_dim, "rms_norm_eps": epsilon, "rope_parameters": _rope(said)}


def _llama(said: _Said) -> dict[str, Any]:
    there = said.file.tensors
    biases = {"attention_bias": "blk.0.attn_q.bias" in there, "mlp_bias": "blk.0.ffn_gate.bias" in there}
    return {**_decoder(said), **biases}


def _windowed(said: _Said, largest: int) -> dict[str, Any]:
    """A Gemma with windows. llama.cpp scales scores by the size of a head, but in the model of so many layers."""
    share = said.size("embedding_length") // said.size("attention.head_count")
    scaled = {"query_pre_attn_scalar": share if said.size("block_count") == largest else said.head_dim}
    return {**_decoder(said), **scaled, "sliding_window": said.needed("attention.sliding_window")}


def _gemma2(said: _Said) -> dict[str, Any]:
    caps = {"attn_logit_softcapping": said.number("attn_logit_softcapping", 50.0)}
    return {**_windowed(said, 46), **caps, "final_logit_softcapping": said.number("final_logit_softcapping", 30.0)}


def _gemma3(said: _Said) -> dict[str, Any]:
    config = _windowed(said, 62)
    local = {"rope_type": "default", "rope_theta": said.number("rope.freq_base_swa", 10_000.0)}
    ropes = {"full_attention": config["rope_parameters"], "sliding_attention": local}
    return {**config, "rope_parameters": ropes, "final_logit_softcapping": None}


def _gpt2(said: _Said) -> dict[str, Any]:
    sizes = {name: said.needed(key) for key, name in _GPT2_SIZES.items()}
    return {**sizes, "layer_norm_epsilon": said.number("attention.layer_norm_epsilon", 1e-5)}


def _rope(said: _Said) -> dict[str, Any]:
    """`rope_parameters`."""
    base = {"rope_theta": said.number("rope.freq_base", 10_000.0)}
    turned = said.get("rope.dimension_count", said.head_dim)
    if turned != said.head_dim:
        raise said.unsupported(f"{shown(turned)} of the {said.head_dim} channels of a head turned")
    if (factors := said.file.tensors.get(_ROPE_FACTORS)) is not None:
        return base | _llama3(said, base, factors)
    factor = said.number("rope.scaling.factor", said.number("rope.scale_linear", 1.0))
    kind = said.get("rope.scaling.type", "none" if factor == 1 else "linear")
    scaling = {"rope_type": "default"} if kind == "none" else {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = said.needed("rope.scaling.original_context_length")
    return base | scaling


def _llama3(said: _Said, base: Mapping[str, Any], factors: GgufTensor) -> dict[str, Any]:
    """The settings of Llama 3's scaling that make these factors: the file has the factors alone."""
    found = np.asarray(factors)
    if (found == 1).all():
        return {"rope_type": "default"}
    longest, head_dim = said.size("context_length"), said.head_dim
    plain = Rope.read(base, head_dim, longest).frequencies()[0]
    settings: dict[str, Any] = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    settings["factor"] = float(found.max())
    for original in (1 << power for power in range(10, 21)):
        settings["original_max_position_embeddings"] = original
        made = plain / Rope.read({**base, **settings}, head_dim, longest).frequencies()[0]
        if made.shape == found.shape and np.allclose(made, found, rtol=1e-4):
            return settings
    raise said.unsupported(f"{_ROPE_FACTORS} that are none of Llama 3's scaling of rotary positions")


_WINDOW = frozenset(["attention.sliding_window"])
_ARCHITECTURES = {
    "llama": _Architecture("llama", _llama, paired=True),
    "qwen2": _Architecture("qwen2", _decoder),
    "qwen3": _Architecture("qwen3", _decoder),
    "gemma": _Architecture("gemma", _decoder, raised=True),
    "gemma2": _Architecture("gemma2", _gemma2, _WINDOW | {"attn_logit_softcapping", "final_logit_softcapping"}, raised=True),
    "gemma3": _Architecture("gemma3_text", _gemma3, _WINDOW | {"rope.freq_base_swa"}, raised=True),
    "gpt2": _Architecture("gpt2", _gpt2, turned=True),
}


def config_of(file: Gguf) -> dict[str, Any]:
    """The keys of the `config.json` that the metadata stand for.

    Raises GraftaxError for what is no model, an architecture that is not read, and keys that are missing or cannot be.
    """
    name, kind = file.metadata.get("general.architecture"), file.metadata.get("general.type", "model")
    if kind != "model":
        raise GraftaxError(f"{file.path}: no backbone: its general.type is {shown(kind)}, not 'model'.")
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise GraftaxError(f"{file.path}: general.architecture {shown(name)} is not read from GGUF; those read are {known}.")
    if "token_embd.weight" not in file.tensors:
        raise GraftaxError(f"{file.path}: no backbone: it has no token_embd.weight, of {len(file.tensors)} tensors.")
    architecture, said = _ARCHITECTURES[name], _Said(file, name)
    task_model = family_of(architecture.model_type).task_model
    config: dict[str, Any] = {"model_type": architecture.model_type, "architectures": [f"{task_model}ForCausalLM"]}
    config["vocab_size"] = len(file.tensors["token_embd.weight"])
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    config |= {**architecture.read(said), **Vocabulary(file.path, file.metadata).named_ids()}
    keys = {key.removeprefix(f"{name}.") for key in file.metadata if key.startswith(f"{name}.")}
    if changing := sorted(key for key in keys & _NEUTRAL.keys() if said.get(key) != _NEUTRAL[key]):
        raise said.unsupported(", ".join(f"{name}.{key}={shown(said.get(key))}" for key in changing))
    if ignored := sorted(f"{name}.{key}" for key in keys - _KNOWN - _NEUTRAL.keys() - architecture.also):
        note(f"{file.path}: ignored, for graftax reads nothing from them: {', '.join(ignored)}.")
    return config


@contextmanager
def as_its_config(file: Gguf) -> Iterator[None]:
    """What is wrong with the config of a file, as a line that names the file."""
    try:
        yield
    except GraftaxError as error:
        raise GraftaxError(f"{file.path}, its metadata as those of a config.json: {error}") from error


def weights_of(file: Gguf, family: Family, config: Any) -> dict[str, GgufTensor | Turned]:
    """The tensors by the keys of a checkpoint, with what the converter did to them undone.

    Raises GraftaxError for tensors that are missing, misshapen, or none of this model's, all of them at once.
    """
    architecture = _ARCHITECTURES[file.metadata["general.architecture"]]
    if config.num_layers > len(file.tensors):  # before anything is made for each of them
        raise GraftaxError(f"{file.path}: {config.num_layers:,} layers in the metadata, of {len(file.tensors):,} tensors.")
    found: dict[str, GgufTensor | Turned] = {}
    problems, used = [], {_ROPE_FACTORS}
    for weight, key, name in _named(file, family, config):
        used.add(name)
        shape = weight.stored_shape[::-1] if _is_turned(architecture, weight) else weight.stored_shape
        tensor = file.tensors.get(name)
        if tensor is None:
            problems.append(f"missing {name}")
        elif tensor.shape != shape:
            problems.append(f"{name} has shape {tensor.shape}, the metadata imply {shape}")
        else:
            found[key] = _restored(architecture, weight, tensor, config)
    problems += [f"unexpected {name}" for name in sorted(file.tensors.keys() - used)]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise GraftaxError(f"{file.path}: the tensors do not fit the metadata: {'; '.join(problems[:8])}{more}.")
    return found


def _named(file: Gguf, family: Family, config: Any) -> Iterator[tuple[Weight, str, str]]:
    """The weights of a model, with what each is called in a checkpoint and in the file."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = file.metadata["general.architecture"]
    known = next(known for known, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(known, config.num_layers)
    for part in family.parts(config):
        for weight in part.weights(family.layer_paths(config)):
            key = weight.key if weight.task else family.task_path(weight.key)
            yield weight, key, str(names.get_name(key, try_suffixes=(".weight", ".bias")))


def _is_turned(architecture: _Architecture, weight: Weight) -> bool:
    return architecture.turned and weight.leaf == "kernel" and not weight.task


def _restored(architecture: _Architecture, weight: Weight, tensor: GgufTensor, config: Any) -> GgufTensor | Turned:
    if _is_turned(architecture, weight):
        return Turned(tensor)
    if architecture.raised and len(tensor.shape) == 1:
        return replace(tensor, added=1.0)
    heads = {"layers.query": config.num_heads, "layers.key": config.kv_heads}.get(weight.part)
    if architecture.paired and heads:
        return replace(tensor, order=np.arange(len(tensor)).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1))
    return tensor
