"""Loading a backbone: a Hugging Face checkpoint (`checkpoint.py`) in any float dtype, with or without the task model's prefix,
or a GGUF file (`gguf_file.py`).

Every tensor goes from its file to its place in a stacked array of the dtype wanted, one after the other, some rows at a time:
the most memory that is held at once is the weights' own, and those rows'. A backbone that is left unread (`unread.py`) is read
all the same, since its fingerprint tells it and its numbers have to be finite, but nothing of it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from ..errors import GraftaxError
from ..heap import keep_heap
from ..json_files import read_object
from ..notes import note
from ..typed import Location, held
from .backbone import Backbone
from .by_layer import ByLayer
from .checkpoint import Stored, config_file, find_backbone, stored_tensors
from .family import Family
from .family_registry import config_said, family_of
from .fingerprint import Fingerprint, by_name
from .generation import with_generation
from .gguf_config import as_its_config, config_of, weights_of
from .gguf_file import Gguf, GgufTensor, Turned, read_gguf
from .own_head import head_of
from .pairs import pair
from .parts import Weight
from .quantised import QTYPES, quantiser
from .stack import REMAT
from .tensor_parallel import mesh_over
from .towers import BOTH, TOWERS, tower_said
from .unread import Unread, in_host_memory

#: No weights of ours: what checkpoints had before transformers left it out, how long a batch norm has been trained, and what
#: stands for a patch that is not shown in pretraining.
_BUFFERS: tuple[str, ...] = ("position_ids", "token_type_ids", "rotary_emb.inv_freq", ".num_batches_tracked")
_BUFFERS += (
    "EncDecAttention.relative_attention_bias.weight",
    ".attn.bias",
    ".attn.masked_bias",
    ".attention.bias",
    ".attention.masked_bias",
    "embeddings.mask_token",
    "relative_position_index",
)
_ALIGNMENT = 64  # bytes


@held
def load_backbone(
    path_or_hub_id: Location,
    *,
    revision: str = "main",
    dtype: str = "float32",
    quantize: str | None = None,
    remat: str | None = None,
    tower: str | None = None,
    text_tower: Location | None = None,
    adapter_dtype: str | None = None,
    tensor_parallel_size: int = 1,
    unread: bool = False,
) -> Backbone:
    """Load a frozen backbone.

    Args:
        path_or_hub_id: a directory with `config.json` and safetensors; or a GGUF file, or a directory with one and no
            safetensors; or a Hub id ("sentence-transformers/all-MiniLM-L6-v2"), read through the local Hub cache;
            `HF_HUB_OFFLINE=1` is honoured.
        revision: of the Hub repository: a branch, a tag, or (pinned) a commit.
        dtype: of the parameters in memory, "float32" or "bfloat16"; files may have any float dtype.
        quantize: hold the layers' kernels as "int8" or "nf4" (`quantised.py`). Adapters and their files are the same.
        remat: what training computes a second time rather than keep: "none", "products" (all but the results of matrix
            products) or "layers" (all but what enters each layer). Default: "layers" where kernels are quantised, else "none".

        tower: of a checkpoint of two, such as CLIP's, the one that is read: "image" or "text"; or "both", as a pair (`pair`).
        text_tower: another backbone, of texts, which is loaded as this one is, to be a pair with it; it is read from its own
            directory or Hub id.
        adapter_dtype: "float32": of the products that adapters compute, beside weights of bfloat16 on an accelerator; by
            default they are rounded as the backbone's own are, and summed in float32. On a CPU it is float32 always.
        tensor_parallel_size: how many devices share the weights, each of which computes with its part (`tensor_parallel.py`).
        unread: leave the weights in their files, for `train_many(fsdp=True)`, which reads of them what its devices are to have.
            Such a backbone computes nothing by itself, and its files must not change meanwhile.

    Raises:
        GraftaxError: no such directory or repository, an unsupported architecture, weights that are missing, misshapen,
            truncated, or only there as a pickle, or more devices than there are or than can share the weights.
    """
    keep_heap()
    mesh = None if tensor_parallel_size == 1 else mesh_over(tensor_parallel_size)
    if unread and mesh is not None:
        raise GraftaxError("unread is for fsdp, and devices of tensor_parallel_size are sent their parts: leave out one.")
    if dtype not in ("float32", "bfloat16"):
        raise GraftaxError(f"dtype {dtype!r} is not supported; use float32 or bfloat16.")
    if adapter_dtype not in (None, "float32"):
        raise GraftaxError(f"adapter_dtype {adapter_dtype!r} is not supported; use float32, or leave it out.")
    if quantize not in (None, *QTYPES):
        raise GraftaxError(f"quantize {quantize!r} is not supported; use {' or '.join(QTYPES)}.")
    remat = ("layers" if quantize else "none") if remat is None else remat
    if remat not in REMAT:
        raise GraftaxError(f"remat {remat!r} is not supported; use {', '.join(REMAT)}.")
    if tower not in (None, *TOWERS, BOTH):
        raise GraftaxError(f"tower {tower!r} is not supported; use {', '.join(TOWERS)} or {BOTH}.")
    like: dict[str, Any] = {"dtype": dtype, "quantize": quantize, "remat": remat, "adapter_dtype": adapter_dtype}
    like |= {"tensor_parallel_size": tensor_parallel_size, "unread": unread}
    if text_tower is not None:
        if tower == BOTH:
            raise GraftaxError(f"{path_or_hub_id} is read with both of its towers, and another one is given: leave out one.")
        return pair(load_backbone(path_or_hub_id, revision=revision, tower=tower, **like), load_backbone(text_tower, **like))
    if tower == BOTH:
        both = (load_backbone(path_or_hub_id, revision=revision, tower=one, **like) for one in TOWERS)
        return pair(*both, name=str(path_or_hub_id))
    directory = find_backbone(path_or_hub_id, revision)
    if directory.is_file():
        if tower is not None:
            raise GraftaxError(f"{directory} is a GGUF file, which has no towers: load it without tower.")
        raw, family, config, tensors = _read_gguf(read_gguf(directory))
    else:
        raw, family, config, tensors = _read_directory(directory, str(path_or_hub_id), tower)
    config = adjust(family, config, tensors)
    config = with_generation(config, directory, raw, encodes=family.encodes) if family.generates else config
    arrays, fingerprint = stack_weights(family, config, tensors, dtype, quantize, unread=unread)
    known: dict[str, Any] = {"name": str(path_or_hub_id), "directory": str(directory), "hf_config": raw}
    known |= {"adapter_dtype": adapter_dtype, "mesh": mesh}
    backbone = Backbone.build(family, config, arrays, remat=remat, quantize=quantize, fingerprint=fingerprint, **known)
    return replace(backbone, own_head=head_of(backbone, raw, tensors))


_Tensor = np.ndarray | Stored | GgufTensor | Turned
_Read = tuple[dict[str, Any], Family, Any, Mapping[str, _Tensor]]


def _read_directory(directory: Path, name: str, tower: str | None) -> _Read:
    """`config.json`, what it says (of a tower of the checkpoint), and the tensors, none of them read yet."""
    file = config_file(directory)
    whole = config_said(read_object(file, f"{name}: no backbone there, it has no config.json."))
    raw = dict(tower_said(whole, tower, name))
    family = family_of(raw.get("model_type"))
    config = family.configure(raw)
    if unread := family.unread(raw):
        note(f"{file}: ignored, for no {raw['model_type']} model reads them: {', '.join(unread)}.")
    return raw, family, config, stored_tensors(directory)


def _read_gguf(file: Gguf) -> _Read:
    """The same of a GGUF file."""
    raw = config_of(file)
    family = family_of(raw["model_type"])
    with as_its_config(file):
        config = family.configure(raw)
    return raw, family, config, weights_of(file, family, config)


def adjust(family: Family, config: Any, tensors: Container[str]) -> Any:
    """The config as the checkpoint has it: whether there is a pooler, and what the family asks."""
    config = family.fitted(config, tensors)
    if not config.pooler:
        return config
    keys = {w.key for part in family.parts(config) if part.name == "pooler" for w in part.weights({})}
    return replace(config, pooler=all(k in tensors or f"{family.prefix}.{k}" in tensors for k in keys))


def in_memory(backbone: Backbone) -> Backbone:
    """The same backbone with all of its weights in the host's memory; itself, where none is still in its file."""
    if not backbone.unread:
        return backbone
    key = "weights in memory"
    if key not in backbone.programs:  # once for all that need it
        note(f"{backbone.name}: a start that asks the data computes with whole weights: this host reads all of them.")
        arrays = {
            name: _stacked(map(Unread.read, held.each), len(held.each)) if isinstance(held, ByLayer) else held.read()
            for name, held in backbone.held().items()
        }
        with in_host_memory():
            whole = Backbone.build(backbone.family, backbone.config, arrays, remat=backbone.remat, fingerprint="", name="")
        backbone.programs[key] = replace(backbone, graphdef=whole.graphdef, params=whole.params)
    found: Backbone = backbone.programs[key]
    return found


def stack_weights(
    family: Family,
    config: Any,
    tensors: Mapping[str, _Tensor],
    dtype: str,
    quantize: str | None = None,
    unread: bool = False,
) -> tuple[dict[str, Any], str]:
    """Stacked arrays by weight name, and the fingerprint; every missing, extra or misshapen tensor is named at once.

    Where they are to be left `unread`, what stands for them.
    """
    count = sum(layers.count for layers in family.stacks(config))
    if count > len(tensors):  # before anything is made for each of them
        raise GraftaxError(
            f"the weights do not fit the config: config.json says {count:,} layers, of {len(tensors):,} tensors."
        )
    parts = family.parts(config)
    if quantize and any(part.kind == "conv" and part.stack for part in parts):
        raise GraftaxError(
            f"quantize {quantize!r} is for linear layers, and this backbone's are convolutions: load it without."
        )
    weights = [weight for part in parts for weight in part.weights(family.layer_paths(config))]
    found = _by_key(family, weights, tensors)
    wanted = {weight.key for weight in weights}
    copies = [copy for copy in family.copies if copy not in wanted]
    problems = [f"{copy} is not {family.copies[copy]}" for copy in copies if not _merge(found, copy, family.copies[copy])]
    makers = {w.key: make for w in weights if w.key not in found and (make := family.absent(config, w)) is not None}
    problems += _misfits(weights, found, wanted - makers.keys())
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise GraftaxError(f"the weights do not fit the config: {shown}.")
    found |= {key: make() for key, make in makers.items()}
    return (_left_unread if unread else _stacks)(weights, found, dtype, quantize)


def _by_key(family: Family, weights: Sequence[Weight], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors by the keys of a bare model, without those of a head of the checkpoint's own task."""
    prefix = family.task_path("")
    prefixed = bool(prefix) and any(key.startswith(prefix) for key in tensors)
    beside = {weight.key for weight in weights if weight.task} | family.copies.keys()
    wanted = {weight.key for weight in weights}
    found: dict[str, Any] = {}
    for key, tensor in tensors.items():
        key = family.renamed.get(key, key)
        if key.rpartition(".")[0] in family.head.modules:
            continue
        if not prefixed or key.startswith(prefix) or key in beside:
            own = key.removeprefix(prefix)
            found[own if own in wanted else own.replace(".gamma", ".weight").replace(".beta", ".bias")] = tensor
    return {key: tensor for key, tensor in found.items() if not key.endswith(_BUFFERS) and 0 not in tensor.shape}


def _misfits(weights: Sequence[Weight], found: Mapping[str, Any], needed: Collection[str]) -> list[str]:
    """What is missing, extra, or of another shape or dtype, in words."""
    wanted = {weight.key for weight in weights}
    roots = {key.partition(".")[0] for key in wanted}
    problems = [f"missing {key}" for key in sorted(set(needed) - found.keys())]
    problems += [f"unexpected {k}" for k in sorted(found.keys() - wanted) if k.partition(".")[0] in roots - {"pooler"}]
    for weight in weights:
        if weight.key not in found:
            continue
        tensor, shape = found[weight.key], weight.stored_shape
        if tensor.shape != shape:
            problems.append(f"{weight.key} has shape {tensor.shape}, config.json implies {shape}")
        elif tensor.dtype.kind not in "fV":
            problems.append(f"{weight.key} has dtype {tensor.dtype}, not a float type")
    return problems


def _stacks(
    weights: Sequence[Weight], found: Mapping[str, Any], dtype: str, quantize: str | None
) -> tuple[dict[str, Any], str]:
    """Each weight from its tensor into its place in an array, one after the other; and the fingerprint of all."""
    fingerprint = Fingerprint()
    arrays: dict[str, Any] = {}
    for name, group in by_name(weights):
        target, make = _held_as(group[0], dtype, quantize)
        if group[0].layer is None:
            array: Any = _read(group[0], found, target, fingerprint)
        elif make is not None:
            array = _stacked((make(_read(weight, found, np.float32, fingerprint)) for weight in group), len(group))
        else:
            array = _stacked((_read(weight, found, target, fingerprint) for weight in group), len(group))
        arrays[name] = array
    return arrays, str(fingerprint)


def _left_unread(
    weights: Sequence[Weight], found: Mapping[str, Any], dtype: str, quantize: str | None
) -> tuple[dict[str, Any], str]:
    """What stands for each weight while it is in its file, those of stacks by layer; and the fingerprint of all."""
    fingerprint = Fingerprint()
    arrays: dict[str, Any] = {}
    for name, group in by_name(weights):
        for weight in group:
            fingerprint.add(weight, _rows(found[weight.key]))
        target, make = _held_as(group[0], dtype, quantize)
        each = tuple(Unread(weight, found[weight.key], np.dtype(target), make) for weight in group)
        arrays[name] = each[0] if group[0].layer is None else ByLayer(each)
    return arrays, str(fingerprint)


def _held_as(weight: Weight, dtype: str, quantize: str | None) -> tuple[Any, Callable[[np.ndarray], Any] | None]:
    """The dtype in which a weight is held, and what quantises it, None where it stays floats."""
    target: Any = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    if quantize is None or weight.layer is None or weight.leaf != "kernel":
        return target, None
    return target, quantiser(quantize, target)


def _read(weight: Weight, found: Mapping[str, Any], dtype: Any, fingerprint: Fingerprint) -> np.ndarray:
    """A weight from its tensor, which the fingerprint takes in on the way."""
    array = _aligned(weight.shape, dtype)
    fingerprint.add(weight, _rows(found[weight.key]), weight.as_stored(array))
    return array


def _rows(tensor: _Tensor) -> np.ndarray | Stored | GgufTensor:
    """A tensor of which rows can be read: as it is in its file, where that can be."""
    return tensor if isinstance(tensor, Stored | GgufTensor) else np.asarray(tensor)


def _merge(found: dict[str, Any], copy: str, key: str) -> bool:
    """Take the tensor at `copy` for the one at `key`; False where there are both, and they differ."""
    if copy not in found:
        return True
    tensor = found.pop(copy)
    kept = found.setdefault(key, tensor)
    return kept is tensor or np.array_equal(kept, tensor)


def _stacked(layers: Iterator[Any], count: int) -> Any:
    """Arrays, or trees of them, stacked as they come."""
    stack: Any = None
    for index, layer in enumerate(layers):
        if stack is None:
            stack = jax.tree.map(lambda one: _aligned((count, *one.shape), one.dtype), layer)
        for room, one in zip(jax.tree.leaves(stack), jax.tree.leaves(layer), strict=True):
            room[index] = one
    return stack


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An empty array that begins where XLA's may begin, so that it can be one of them."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % _ALIGNMENT
    return room[begin : begin + size].view(dtype).reshape(shape)


def unstack_weights(backbone: Backbone, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inverse of `stack_weights`: tensors by checkpoint key with the task model's prefix, as Hugging Face stores them."""
    tensors = {}
    for weight in backbone.weights:
        array = arrays[weight.name] if weight.layer is None else arrays[weight.name][weight.layer]
        tensor = weight.as_stored(array)
        key = weight.key if weight.task else backbone.family.task_path(weight.key)
        tensors[key] = np.ascontiguousarray(tensor, np.float32)
    return tensors
