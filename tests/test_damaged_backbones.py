"""A backbone's directory that went wrong: whatever was changed in a file of it, it is one line, or a backbone that can be used.

Directories as transformers and sentence-transformers write them, whole, sharded and with a vocabulary of characters: bytes of a
file are cut, replaced or added, a tensor is changed, or a value of a JSON file. (`config.json`, `generation_config.json` and a
tokenizer's settings, in which more can be said, have files of their own.)
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused
from safetensors.numpy import load_file, save_file
from tiny import write_backbone, write_decoder

from graftax import load_backbone
from graftax.models.pooling import Pooling
from graftax.models.tokens import Tokenizer

VALUES = [None, True, -1, 0, 3, 10**9, 0.5, 1e300, "", "a", "../x", "x\0y", "n" * 5000, [], [1], ["a"], {}, {"a": 1}, [[["a"]]]]
Draw = Callable[[Any], Any]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("whole")
    pooled = write_backbone(folder / "pooled")
    types = ["Transformer", "Pooling", "Normalize"]
    modules = [{"idx": i, "path": f"{i}_{t}", "type": f"sentence_transformers.models.{t}"} for i, t in enumerate(types)]
    (pooled / "modules.json").write_text(json.dumps(modules))
    (pooled / "1_Pooling").mkdir()
    (pooled / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}')
    (pooled / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": false}')

    sharded = write_decoder(folder / "sharded")
    tensors = sorted(load_file(sharded / "model.safetensors").items())
    (sharded / "model.safetensors").unlink()
    weight_map = {}
    for part, name in enumerate(("a.safetensors", "b.safetensors")):
        save_file(dict(tensors[part::2]), sharded / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys((key for key, _ in tensors[part::2]), name)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    characters = write_decoder(folder / "characters")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (characters / file).unlink()
    sides = {"source": ["<s>", "</s>", "a", "<unk>"], "target": ["<s>", "</s>", "b", "<unk>"]}
    (characters / "vocab.json").write_text(json.dumps(sides | {"source_offset": 0, "target_offset": 4}))
    return [pooled, sharded, characters]


def change_bytes(directory: Path, draw: Draw) -> None:
    """A file is cut, a byte of it is another, it has a tail, or it is gone."""
    file = draw(st.sampled_from(sorted(path for path in directory.rglob("*") if path.is_file())))
    data = bytearray(file.read_bytes())
    at = draw(st.integers(0, min(len(data), 4000) - 1))  # where what a file says of itself stands
    how = draw(st.sampled_from(["cut", "byte", "tail", "gone"]))
    if how == "byte":
        data[at] ^= draw(st.integers(1, 255))
    file.write_bytes(data[:at] if how == "cut" else data + b"\x00{" if how == "tail" else data)
    if how == "gone":
        file.unlink()


def change_json(directory: Path, draw: Draw) -> None:
    """A value becomes another, or its key goes."""
    names = ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "model.safetensors.index.json", "vocab.json"]
    file = draw(st.sampled_from([directory / name for name in names if (directory / name).is_file()]))
    inside = json.loads(file.read_text())
    whole = inside
    while True:
        key = draw(st.sampled_from(list(inside) if isinstance(inside, dict) else range(len(inside))))
        if not isinstance(inside[key], dict | list) or not inside[key] or draw(st.booleans()):
            break
        inside = inside[key]
    if draw(st.booleans()):
        inside[key] = draw(st.sampled_from(VALUES))
    else:
        inside.pop(key)
    file.write_text(json.dumps(whole))


def change_tensors(directory: Path, draw: Draw) -> None:
    """A tensor has another name, shape, type or number, or is gone."""
    file = draw(st.sampled_from(sorted(directory.glob("*.safetensors"))))
    tensors = load_file(file)
    key = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(key)
    how = draw(st.sampled_from(["gone", "name", "flat", "turned", "longer", "empty", "type", "number"]))
    if how == "number":
        tensor.flat[draw(st.integers(0, tensor.size - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    if how == "type":
        tensor = tensor.astype(draw(st.sampled_from([np.float64, np.float16, np.int32, np.uint8, bool])))
    shapes = {"flat": tensor.reshape(-1), "turned": tensor.T, "longer": np.concatenate([tensor] * 2), "empty": tensor[:0]}
    if how != "gone":
        tensors[f"x{key}" if how == "name" else key] = np.ascontiguousarray(shapes.get(how, tensor))
    save_file(tensors, file, metadata={"format": "pt"})


def used(directory: Path) -> None:
    """What a backbone is loaded for, as far as nothing is compiled."""
    backbone = load_backbone(directory)
    assert all(np.isfinite(array.astype(np.float32)).all() for array in backbone.arrays().values())
    pooling = Pooling.of(str(directory))
    assert pooling.names
    assert pooling.max_length is None or pooling.max_length > 0
    (ids,) = Tokenizer.of(backbone).ids(["a b"])
    assert ids.size == 0 or 0 <= ids.min() <= ids.max() < backbone.config.vocab_size


def test_the_unchanged_ones_can_be_used(directories: list[Path]) -> None:
    for directory in directories:
        used(directory)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_directory_is_refused_or_can_be_used(
    data: st.DataObject, directories: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = Path(shutil.copytree(data.draw(st.sampled_from(directories)), tmp_path_factory.mktemp("one") / "backbone"))
    data.draw(st.sampled_from([change_bytes, change_json, change_tensors]))(directory, data.draw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes of what is ignored
        refused(lambda: used(directory))
    shutil.rmtree(directory.parent)
