"""Adapter directories that went wrong: whatever is changed in one, it is refused in a line or read rightly.

Directories as graftax, PEFT and AdapterHub write them are changed in one place: a value, key or file of their JSON, a tensor's
name, shape, type or numbers, the bytes of a file. What is read all the same must be sound, and be read the same again once it
was saved. Time and memory are bounded by what the files hold and not by what they say.
"""

from __future__ import annotations

import json
import shutil
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import random_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused
from safetensors.numpy import load_file, save_file
from tiny import write_backbone

from graftax import (
    IA3,
    AdaLoRA,
    Bottleneck,
    Compacter,
    Fuse,
    GatedLoRA,
    LoRA,
    Method,
    Prefix,
    PromptTuning,
    RandLoRA,
    SHiRA,
    VeRA,
    export_adapter,
    load_adapter,
    save_adapter,
)
from graftax.adapters.adapter import Layout
from graftax.adapters.facts import EXTRA
from graftax.adapters.fitting import refuse_unfit
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone

METHODS: dict[str, tuple[Method, ...]] = {
    "lora": (LoRA(r=2, alpha=3.0, rank_pattern={"layer.0.attention.self.query": 4}, alpha_pattern={"value": 5.0}),),
    "adalora": (AdaLoRA(init_r=3, target_r=2),),
    "vera": (VeRA(r=3),),
    "randlora": (RandLoRA(r=5),),
    "shira": (SHiRA(r=1),),
    "ia3": (IA3(),),
    "prefix": (Prefix(tokens=2),),
    "prompt": (PromptTuning(tokens=2),),
    "bottleneck": (Bottleneck(width=3),),
    "union": (LoRA(r=2, alpha=3.0), Bottleneck(width=3, place="pfeiffer")),
}
THERE: dict[str, tuple[Method, ...]] = {
    "lora": (LoRA(r=2, alpha=3.0),),
    "bottleneck": (Bottleneck(width=4, place="pfeiffer"),),
    "compacter": (Compacter(width=4, n=2),),
    "prefix": (Prefix(tokens=2, shifted=False),),
    "prompt": (PromptTuning(tokens=2, post=True),),
    "gated": (GatedLoRA(r=2, alpha=2.0),),
    "union": (Bottleneck(width=4, place="pfeiffer"), Prefix(tokens=2, shifted=False)),
}
VALUES = [None, True, False, 0, 1, -5, 3, 10**9, 10**400, 0.5, -0.0, 1e300, "", "a", "1", "none", "(?:[a-z0-9._]+)+!", "query"]
VALUES += [
    [],
    [1],
    ["a"],
    [None],
    [[["a"]]],
    {},
    {"a": 1},
    {"a": {"b": None}},
    {"default": 0},
    ["q", "v"],
    "tag",
    "lm",
    "regress",
]
OTHER_KEYS = ["r", "layers_to_transform", "leave_out", "exclude_modules", "unknown", "labels"]
MOST_SECONDS, MOST_BYTES = 20.0, 64 << 20  # of a load; the files here have some 100 kB


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_backbone(tmp_path_factory.mktemp("mutations") / "backbone"))


@pytest.fixture(scope="module")
def directories(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """As graftax writes them, the same without `graftax.json` (PEFT's, where PEFT has the method), and AdapterHub's."""
    folder, made = tmp_path_factory.mktemp("directories"), []
    for name, methods in METHODS.items():
        made.append(save_adapter(random_adapter(backbone, methods), folder / f"graftax-{name}", backbone))
        made.append(Path(shutil.copytree(made[-1], folder / f"peft-{name}")))
        (made[-1] / EXTRA).unlink()
    for name, methods in THERE.items():
        made.append(export_adapter(random_adapter(backbone, methods), folder / f"hub-{name}", backbone))
    members = tuple(random_adapter(backbone, THERE["bottleneck"], seed=seed) for seed in (1, 2))
    fusion = random_adapter(backbone, (Fuse(trained=members),))
    made.append(save_adapter(fusion, folder / "graftax-fusion", backbone))
    made.append(export_adapter(fusion, folder / "hub-fusion", backbone))
    return made


def paths_in(content: Any) -> list[tuple[Any, ...]]:
    """Where values stand in JSON, from the outside in."""
    found: list[tuple[Any, ...]] = [()]
    steps = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return found + [(step, *path) for step, inner in steps for path in paths_in(inner)]


def change_json(directory: Path, draw: Callable[[Any], Any]) -> None:
    """One value becomes another, one key goes, or one comes."""
    file = draw(st.sampled_from(sorted(directory.rglob("*.json"))))
    content = json.loads(file.read_text())
    path = draw(st.sampled_from(paths_in(content)[1:]))
    inside = content
    for step in path[:-1]:
        inside = inside[step]
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"]))
    if how == "replace":
        inside[path[-1]] = draw(st.sampled_from(VALUES))
    else:
        value = inside.pop(path[-1])
        if how == "rename" and isinstance(inside, dict):
            inside[draw(st.sampled_from(OTHER_KEYS))] = value
    file.write_text(json.dumps(content))


def change_tensors(directory: Path, draw: Callable[[Any], Any]) -> None:
    """One tensor gets another name, shape, type or content, or goes."""
    file = draw(st.sampled_from(sorted(directory.rglob("*.safetensors"))))
    tensors = load_file(file)
    key = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(key)
    how = draw(st.sampled_from(["rename", "flat", "transposed", "longer", "empty", "dtype", "value", "remove", "copy"]))
    if how == "dtype":
        with np.errstate(all="ignore"):
            tensors[key] = tensor.astype(draw(st.sampled_from([np.float64, np.float16, np.int32, np.int64, np.uint8, bool])))
    elif how == "value":
        tensor = tensor.astype(np.float64) if tensor.dtype.kind == "f" else tensor
        value = draw(st.sampled_from([np.nan, np.inf, 1e300] if tensor.dtype.kind == "f" else [-1, 2**31 - 1]))
        tensor.flat[draw(st.integers(0, tensor.size - 1))] = value
        tensors[key] = tensor
    elif how != "remove":
        shapes = {
            "flat": tensor.reshape(-1),
            "transposed": tensor.T,
            "empty": tensor[:0],
            "longer": np.concatenate([tensor] * 2),
        }
        name = {"rename": f"x{key}", "copy": key.replace("layer.0", "layer.9") + "x"}.get(how, key)
        tensors |= {name: np.ascontiguousarray(shapes.get(how, tensor))} | ({key: tensor} if how == "copy" else {})
    save_file(tensors, file, metadata={"format": "pt"})


def change_bytes(directory: Path, draw: Callable[[Any], Any]) -> None:
    """A file is cut, a byte of it is another, or it has a tail."""
    file = draw(st.sampled_from(sorted(path for path in directory.rglob("*") if path.is_file())))
    data = bytearray(file.read_bytes())
    begin = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["cut", "byte", "tail"]))
    if how == "byte":
        data[begin] ^= draw(st.integers(1, 255))
    file.write_bytes(data[:begin] if how == "cut" else data + b"\x00" if how == "tail" else data)


def loaded(directory: Path, backbone: Backbone) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of heads that are left out
        return load_adapter(directory, backbone)


@pytest.fixture(scope="module")
def traced() -> Iterator[None]:
    """Memory is traced. Once for all: to stop it while other threads of the process ask for memory may crash CPython 3.11."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_directory_is_refused_or_read_rightly(
    data: st.DataObject, backbone: Backbone, directories: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = Path(shutil.copytree(data.draw(st.sampled_from(directories)), tmp_path_factory.mktemp("one") / "adapter"))
    data.draw(st.sampled_from([change_json, change_json, change_tensors, change_bytes]))(directory, data.draw)
    found: list[Any] = []
    began = time.process_time()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    line = refused(lambda: found.append(loaded(directory, backbone)))
    most = tracemalloc.get_traced_memory()[1] - before
    assert time.process_time() - began < MOST_SECONDS
    assert most < MOST_BYTES
    if line is None:
        refuse_unfit(found[0], backbone)
        Layout.of(found, backbone.sites).stack(found[0], backbone.sites)
        again = loaded(save_adapter(found[0], directory / "again", backbone), backbone)
        assert (again.methods, again.task, again.labels) == (found[0].methods, found[0].task, found[0].labels)
        for key, states in found[0].states.items():
            for site, leaves in states.items():
                for one, two in zip(leaves, again.states[key][site], strict=True):
                    assert one.keys() == two.keys()
                    assert all(np.array_equal(one[leaf], two[leaf]) for leaf in one)
    shutil.rmtree(directory.parent)
