"""What lies in an adapter's directory, and its tensors put in their places: the part of reading that every format shares.

`files.py` reads graftax's and PEFT's directories with it, `formats/adapterhub/` AdapterHub's. Everything is checked before
anything is used: a missing, extra or misshapen tensor, a wrong checksum or a damaged file is an error that names it. Nothing is
ever unpickled.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import GraftaxError
from ..json_files import read_bytes, read_object
from ..paths import expect_directory
from .adapter import SiteStates
from .facts import EXTRA, Facts, read_facts
from .fitting import is_finite
from .method import Leaves, Method
from .sites import Site

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HUB_WEIGHTS = "adapter.safetensors"  # of a directory of AdapterHub's (`formats/adapterhub/`), whose config has the same name
HUB_SETUP, HUB_FUSION = "adapter_setup.json", "adapter_fusion_config.json"  # of its fusions (`fusions.py`)
MARKS = (CONFIG, HUB_SETUP, HUB_FUSION)  # a directory that holds one of them is an adapter's


def read_directory(directory: Path) -> tuple[dict[str, Any], Facts | None, bytes]:
    """Config, extra facts (none in PEFT's own directories) and the bytes of the weights, checksum verified."""
    expect_directory(directory, f"{directory}: no such adapter directory.")
    config = read_json(directory / CONFIG)
    if "peft_type" not in config and not from_hub(config):
        raise GraftaxError(
            f"{directory / CONFIG}: neither PEFT's, which has a peft_type, nor AdapterHub's: of another library."
        )
    facts = read_facts(directory)
    weights, pickle, advice = WEIGHTS, "adapter_model.bin", ""
    if from_hub(config):
        weights, pickle, advice = HUB_WEIGHTS, "pytorch_adapter.bin", "; docs/files.md says how to convert it"
    if not (directory / weights).is_file():
        if (directory / pickle).exists():
            raise GraftaxError(f"{directory}: its weights are a pickle ({pickle}), which graftax never reads{advice}.")
        raise GraftaxError(f"{directory}: no {weights} there.")
    data = read_bytes(directory / weights)
    if facts is not None and facts.sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise GraftaxError(f"{directory / weights}: damaged, its checksum is not the one {EXTRA} records.")
    return config, facts, data


def is_fusion(directory: Path) -> bool:
    """Whether a directory is AdapterHub's AdapterFusion, or the setup of one."""
    return any(os.path.lexists(directory / name) for name in (HUB_SETUP, HUB_FUSION))


def from_hub(config: Mapping[str, Any]) -> bool:
    """Whether a config is one of AdapterHub's."""
    return isinstance(config.get("config"), dict) and "peft_type" not in config


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of an adapter's directory; without the file there is no adapter."""
    if path.is_file():
        return read_object(path)
    inside = ", ".join(sorted(str(file.parent) for file in path.parent.glob(f"*/{path.name}"))[:6])
    advice = f"; there is one in {inside}" if inside else ""  # the directory of a run was given, say
    raise GraftaxError(f"{path.parent}: no adapter there, it has no {path.name}{advice}.")


def parse_tensors(data: bytes, file: Path) -> dict[str, np.ndarray]:
    """The tensors in the bytes of a weights file; floats as float32, in which all must be finite."""
    import ml_dtypes
    from safetensors import SafetensorError, deserialize

    floats = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
    dtypes = floats | {"I32": np.int32, "I64": np.int64}
    try:
        views = dict(deserialize(data))  # not safetensors.numpy.load, which has no bfloat16
    except (SafetensorError, ValueError) as error:
        raise GraftaxError(f"{file}: corrupt or truncated safetensors file ({error}).") from error
    wrong = [f"{key} ({view['dtype']})" for key, view in views.items() if view["dtype"] not in dtypes]
    if wrong:
        raise GraftaxError(f"{file}: tensors that are neither floats nor integers: {', '.join(wrong)}.")
    tensors = {key: np.frombuffer(view["data"], dtypes[view["dtype"]]).reshape(view["shape"]) for key, view in views.items()}
    with np.errstate(over="ignore"):  # it becomes infinite, and is named below
        tensors = {key: t.astype(np.float32, copy=False) if views[key]["dtype"] in floats else t for key, t in tensors.items()}
    if infinite := [key for key, tensor in tensors.items() if not is_finite(tensor)]:
        more = f", and {len(infinite) - 3} more" if len(infinite) > 3 else ""
        raise GraftaxError(f"{file}: NaN or numbers that float32 cannot hold in {', '.join(infinite[:3])}{more}.")
    return tensors


class Codec(Protocol):
    """A method's leaves as the tensors of a file, by key, and back."""

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]: ...

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]: ...


def states_of(
    methods: Sequence[Method],
    tensors: Mapping[str, np.ndarray],
    sites: Sequence[Site],
    where: Path | str,
    codecs: Mapping[str, Codec],
    *,
    buffers: bool = False,
) -> SiteStates:
    """Leaves at every site; what is missing, extra or misshapen is named, all at once.

    `codecs`: of every method, by its key. `buffers`: whether the file is sure to hold those of the methods (`Method.buffers`).
    """
    try:
        blank = {method.key: {site: method.held(site) for site in method.select(sites)} for method in methods}
    except GraftaxError as error:  # of a method, which knows no directory
        raise GraftaxError(f"{where}: {error}") from error
    _refuse_sizes(methods, blank, tensors, where, buffers)
    expected: dict[str, np.ndarray] = {}
    for method in methods:
        expected |= codecs[method.key].export(blank[method.key])
    problems = [f"missing {key}" for key in sorted(expected.keys() - tensors.keys())]
    problems += [f"unexpected {key}" for key in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{key} has shape {tensors[key].shape}, expected {like.shape}"
        for key, like in expected.items()
        if key in tensors and tensors[key].shape != like.shape
    ]
    problems += [
        f"{key} ({_kind(tensors[key])}), expected {_kind(like)}"
        for key, like in expected.items()
        if key in tensors and tensors[key].dtype.kind != like.dtype.kind
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise GraftaxError(f"{where}: tensors do not fit this backbone and config: {shown}.")
    states: SiteStates = {}
    for method in methods:
        restored: dict[Site, Leaves] = codecs[method.key].restore(blank[method.key], tensors)
        for site, leaves in restored.items():
            kept = method.buffers(site)
            trainable = {name: leaf for name, leaf in leaves.items() if name not in kept}
            fixed = method.fixed(site) | {name: leaves[name] for name in kept}
            states.setdefault(method.key, {})[site] = (trainable, fixed)
    return states


def _refuse_sizes(
    methods: Sequence[Method],
    blank: Mapping[str, Mapping[Site, Leaves]],
    tensors: Mapping[str, np.ndarray],
    where: Path | str,
    buffers: bool,
) -> None:
    """An error where settings ask for far more numbers at a site than the whole file has, before anything is made of that size.

    Twice as many are let pass: AdapterHub's files may leave out a matrix. `buffers`: whether the file holds those, too.
    """
    there = sum(tensor.size for tensor in tensors.values())
    for method in methods:
        for site, leaves in blank[method.key].items():
            left_out = () if buffers else method.buffers(site)
            wanted = sum(leaf.size for name, leaf in leaves.items() if name not in left_out)
            if wanted > 2 * there:
                raise GraftaxError(
                    f"{where}: tensors do not fit this config: by it {method.name} holds {wanted:,} numbers at "
                    f"{site.path or site.name}, and the whole file has {there:,}."
                )


def _kind(tensor: np.ndarray) -> str:
    """A dtype in the words of safetensors: F32, I32, I64."""
    return f"{tensor.dtype.kind.upper()}{8 * tensor.dtype.itemsize}"
