"""Loading a backbone from a Hugging Face directory or Hub id.

`config.json` and safetensors, single or sharded, in any float dtype, with or without the task model's prefix. Weights only
as a pickle (`pytorch_model.bin`) are refused: a pickle can run code, and converting is one line with transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..errors import GraftaxError
from ..heap import keep_heap
from .backbone import Backbone
from .family import Family
from .parts import Weight
from .registry import family_of

_CONVERT = (
    "{0} holds its weights only as pytorch_model.bin, a pickle, which graftax never reads. Convert it once, with torch and "
    "transformers installed: python -c \"from transformers import AutoModel; AutoModel.from_pretrained('{0}')"
    ".save_pretrained('converted')\""
)
_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "vocab*",
    "*.model",
    "merges.txt",
    "special_tokens_map.json",
]


#: Of checkpoints from before transformers left them out: no weights.
_BUFFERS: tuple[str, ...] = ("position_ids", "token_type_ids", "rotary_emb.inv_freq")
_BUFFERS += (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")


def load_backbone(path_or_hub_id: str | Path, *, revision: str = "main", dtype: str = "float32") -> Backbone:
    """Load a frozen backbone.

    Args:
        path_or_hub_id: a directory with `config.json` and safetensors, or a Hub id ("sentence-transformers/all-MiniLM-L6-v2"),
            read through the local Hub cache; `HF_HUB_OFFLINE=1` is honoured.
        revision: of the Hub repository: a branch, a tag, or (pinned) a commit.
        dtype: of the parameters in memory, "float32" or "bfloat16"; files may have any float dtype.

    Raises:
        GraftaxError: no such directory or repository, an unsupported architecture, or weights that are missing, misshapen,
            truncated, or only there as a pickle.
    """
    keep_heap()
    if dtype not in ("float32", "bfloat16"):
        raise GraftaxError(f"dtype {dtype!r} is not supported; use float32 or bfloat16.")
    directory = find_directory(path_or_hub_id, revision)
    raw = read_json(directory / "config.json", missing=f"{path_or_hub_id}: no backbone there, it has no config.json.")
    family = family_of(raw.get("model_type"))
    tensors = read_tensors(directory)
    config = adjust(family, family.configure(raw), tensors)
    arrays, fingerprint = stack_weights(family, config, tensors, dtype)
    arrays = jax.device_put(arrays)  # not `jnp.asarray`, which compiles a program per shape
    return Backbone.build(
        family, config, arrays, fingerprint=fingerprint, name=str(path_or_hub_id), directory=str(directory), hf_config=raw
    )


def find_directory(path_or_hub_id: str | Path, revision: str = "main") -> Path:
    """The local directory of a backbone, fetched from the Hub (or found in its cache) when the argument is an id."""
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    text = str(path_or_hub_id)
    if path.exists() or text.count("/") > 1 or text.startswith((".", "/", "~")):
        raise GraftaxError(f"{text}: no such directory.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text, revision=revision, allow_patterns=_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise GraftaxError(f"{text}: neither a directory nor a Hub id that can be reached or is cached ({reason})") from error


def read_json(path: Path, missing: str) -> dict[str, Any]:
    if not path.is_file():
        raise GraftaxError(missing)
    try:
        content = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise GraftaxError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(content, dict):
        raise GraftaxError(f"{path}: expected a JSON object.")
    return content


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor of a single or sharded safetensors checkpoint."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = read_json(index, "").get("weight_map")
        if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
            raise GraftaxError(f"{index}: its weight_map names no files.")
        files = [directory / name for name in sorted(set(shards.values()))]
        if any(file.parent != directory for file in files):
            raise GraftaxError(f"{index}: names a file outside its directory.")
    else:
        files = [directory / "model.safetensors"]
    if not files[0].is_file() and next(directory.glob("pytorch_model*.bin"), None):
        raise GraftaxError(_CONVERT.format(directory))
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        tensors |= read_safetensors(file)
    return tensors


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of one file; any fault in it is one clear error."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not file.is_file():
        raise GraftaxError(f"{file}: no such file.")
    try:
        return load_file(file)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise GraftaxError(f"{file}: corrupt or truncated safetensors file ({error}).") from error


def adjust(family: Family, config: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    """The config with `pooler` as the checkpoint has it."""
    from dataclasses import replace

    if not getattr(config, "pooler", False):
        return config
    keys = {w.key for part in family.parts(config) if part.name == "pooler" for w in part.weights({})}
    return replace(config, pooler=all(k in tensors or f"{family.prefix}.{k}" in tensors for k in keys))


def stack_weights(
    family: Family, config: Any, tensors: Mapping[str, np.ndarray], dtype: str
) -> tuple[dict[str, np.ndarray], str]:
    """Stacked arrays by weight name, and the fingerprint; every missing, extra or misshapen tensor is named at once."""
    prefix = family.task_path("")
    prefixed = bool(prefix) and any(key.startswith(prefix) for key in tensors)
    weights = [weight for part in family.parts(config) for weight in part.weights(family.layer_paths(config))]
    beside = {weight.key for weight in weights if weight.task}
    found = {}
    for key, tensor in tensors.items():
        key = family.renamed.get(key, key)
        if prefixed and not key.startswith(prefix) and key not in beside:
            continue  # a head of the checkpoint's own task
        found[key.removeprefix(prefix).replace(".gamma", ".weight").replace(".beta", ".bias")] = tensor
    found = {key: tensor for key, tensor in found.items() if not key.endswith(_BUFFERS)}

    wanted = {weight.key for weight in weights}
    copies = [copy for copy in family.copies if copy not in wanted]
    unequal = [f"{copy} is not {family.copies[copy]}" for copy in copies if not _merge(found, copy, family.copies[copy])]
    for weight in weights:
        if weight.key not in found and (made := family.absent(config, weight)) is not None:
            found[weight.key] = made
    roots = {key.partition(".")[0] for key in wanted}
    problems = unequal + [f"missing {key}" for key in sorted(wanted - found.keys())]
    problems += [f"unexpected {k}" for k in sorted(found.keys() - wanted) if k.partition(".")[0] in roots - {"pooler"}]
    for weight in weights:
        if weight.key in found:
            shape = weight.shape[::-1] if weight.transposed else weight.shape
            if found[weight.key].shape != shape:
                problems.append(f"{weight.key} has shape {found[weight.key].shape}, config.json implies {shape}")
            elif found[weight.key].dtype.kind not in "fV":
                problems.append(f"{weight.key} has dtype {found[weight.key].dtype}, not a float type")
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise GraftaxError(f"the weights do not fit the config: {shown}.")

    import ml_dtypes

    digest, arrays = hashlib.sha256(), {}
    target = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    for name, group in _by_name(weights):
        stacked = np.empty((len(group), *group[0].shape), target)
        for layer, weight in zip(stacked, group, strict=True):
            tensor = np.ascontiguousarray(found[weight.key], np.float32)
            digest.update(f"{weight.key}{tensor.shape}".encode())
            digest.update(tensor.data)
            layer[...] = tensor.T if weight.transposed else tensor
        arrays[name] = stacked if group[0].layer is not None else stacked[0]
    return arrays, digest.hexdigest()


def _merge(found: dict[str, np.ndarray], copy: str, key: str) -> bool:
    """Take the tensor at `copy` for the one at `key`; False where there are both, and they differ."""
    if copy not in found:
        return True
    tensor = found.pop(copy)
    return np.array_equal(found.setdefault(key, tensor), tensor)


def _by_name(weights: list[Weight]) -> Iterator[tuple[str, list[Weight]]]:
    groups: dict[str, list[Weight]] = {}
    for weight in weights:
        groups.setdefault(weight.name, []).append(weight)
    yield from groups.items()


def unstack_weights(backbone: Backbone, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inverse of `stack_weights`: tensors by checkpoint key with the task model's prefix, as Hugging Face stores them."""
    tensors = {}
    for weight in backbone.weights:
        array = arrays[weight.name] if weight.layer is None else arrays[weight.name][weight.layer]
        tensor = array.T if weight.transposed else array
        key = weight.key if weight.task else backbone.family.task_path(weight.key)
        tensors[key] = np.ascontiguousarray(tensor, np.float32)
    return tensors
