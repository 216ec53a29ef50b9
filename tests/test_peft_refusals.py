"""What PEFT's files may say and is refused: by name, and nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft_configs import peft_config
from peft_pairs import Pairs, make
from safetensors.numpy import load_file, save_file
from tiny import edited

from graftax import IA3, GraftaxError, load_adapter
from graftax.models.backbone import Backbone

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "missing .*lora_magnitude_vector"),  # the switch alone
    "dora-alora": ({"use_dora": True, "alora_invocation_tokens": [1, 2]}, r"alora_invocation_tokens=\[1, 2\]"),
    "lora-bias": ({"lora_bias": True}, r"missing .*lora_B\.bias"),
    "bias": ({"bias": "all"}, "bias='all'"),
    "lora-only-bias": ({"bias": "lora_only"}, "bias='lora_only'"),
    "replication": ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
    "unknown": ({"tomorrows_switch": {"on": 1}}, "tomorrows_switch"),
    "several": ({"use_bdlora": {"nblocks": 2}, "use_qalora": True}, r"use_bdlora=\{'nblocks': 2\}, use_qalora=True"),
    "method": ({"peft_type": "POLY"}, "'POLY' is not supported; supported are LORA, .*IA3, .*PREFIX_TUNING"),
}


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("oft", {"coft": True}, "coft=True"),
        ("oft", {"peft_version": "0.17.1"}, "0.17.1"),
        ("oft", {"oft_block_size": 4, "r": 4}, "one of r and oft_block_size"),
    ],
)
def test_refused_by_method(variant: str, changes: dict[str, Any], message: str, pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft_config(variant, "bert", "pooled"))
    edited(path / "adapter_config.json", **changes)
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, pair.backbone)


@pytest.fixture
def lora_of_peft(pairs: Pairs, tmp_path: Path) -> tuple[Backbone, Path]:
    pair = pairs("bert")
    return pair.backbone, make(pair, tmp_path, peft_config("lora", "bert", "pooled"))[1]


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, lora_of_peft: tuple[Backbone, Path]) -> None:
    """A key that would change the result is never dropped."""
    (backbone, path), (changes, message) = lora_of_peft, REFUSED[case]
    edited(path / "adapter_config.json", **changes)
    with pytest.raises(GraftaxError, match=message):
        load_adapter(path, backbone)


def test_pickle_is_never_read(lora_of_peft: tuple[Backbone, Path]) -> None:
    backbone, path = lora_of_peft
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(GraftaxError, match=r"pickle \(adapter_model\.bin\)"):
        load_adapter(path, backbone)


def test_task_without_a_head_tensor(lora_of_peft: tuple[Backbone, Path]) -> None:
    backbone, path = lora_of_peft
    file = path / "adapter_model.safetensors"
    save_file({key: t for key, t in load_file(file).items() if "classifier" not in key}, file)
    with pytest.raises(GraftaxError, match=r"SEQ_CLS but no tensor classifier\.weight"):
        load_adapter(path, backbone)


def test_ia3_roles_are_read_from_the_file(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("bert")
    _, path = make(pair, tmp_path, peft_config("ia3", "bert", "pooled"))
    assert load_adapter(path, pair.backbone).method("ia3") == IA3(
        targets=tuple(json.loads((path / "adapter_config.json").read_text())["target_modules"]), feedforward=("output.dense",)
    )
