"""Run in an environment of its own (`make test-adapterhub`): AdapterHub's `adapters`, for test_adapterhub_exchange.py.

    python adapterhub.py save BACKBONE ROWS OUT     every adapter of CASES, random and under a head: OUT/CASE, OUT/CASE.npy
    python adapterhub.py load BACKBONE ROWS DIR     the adapters in DIR: DIR/NAME.npy, and DIR/loaded.json

BACKBONE is a directory of transformers, ROWS an .npz with ids, mask and types, a .npy the logits of those rows. Nothing of
graftax is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import adapters

SMALL = {"reduction_factor": 4}
#: A case's config, and how its head is made; `classifier` where it does not matter.
CASES: dict[str, Callable[[], Any]] = {
    "double_seq_bn": lambda: adapters.DoubleSeqBnConfig(**SMALL),
    "seq_bn": lambda: adapters.SeqBnConfig(**SMALL),
    "seq_bn-mh": lambda: adapters.SeqBnConfig(mh_adapter=True, output_adapter=False, non_linearity="tanh", **SMALL),
    "seq_bn-left-out": lambda: adapters.SeqBnConfig(leave_out=[1], non_linearity="leakyrelu", **SMALL),
    "par_bn": lambda: adapters.ParBnConfig(**SMALL),
    "scaled_par_bn": lambda: adapters.ParBnConfig(scaling="learned", non_linearity="gelu_new", **SMALL),
    "adapter_plus": lambda: adapters.AdapterPlusConfig(stochastic_depth=0.0, **SMALL),
    "compacter": lambda: adapters.CompacterConfig(**SMALL),
    "compacter++": lambda: adapters.CompacterPlusPlusConfig(**SMALL),
    "prefix_tuning": lambda: adapters.PrefixTuningConfig(prefix_length=4, bottleneck_size=6),
    "prefix_tuning_flat": lambda: adapters.PrefixTuningConfig(prefix_length=3, flat=True),
    "prompt_tuning": lambda: adapters.PromptTuningConfig(prompt_length=4),
    "lora": lambda: adapters.LoRAConfig(r=3, alpha=7, dropout=0.1),
    "lora-everywhere": lambda: adapters.LoRAConfig(
        r=2, alpha=5, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True, leave_out=[0]
    ),
    "ia3": lambda: adapters.IA3Config(),
    "default-head": lambda: adapters.LoRAConfig(r=3, alpha=7),
    "mam": lambda: adapters.MAMConfig(
        adapters.PrefixTuningConfig(prefix_length=3, bottleneck_size=6), adapters.ParBnConfig(**SMALL)
    ),
    "unipelt": lambda: adapters.UniPELTConfig(
        adapters.PrefixTuningConfig(prefix_length=3, bottleneck_size=6),
        adapters.SeqBnConfig(**SMALL),
        adapters.LoRAConfig(r=5, alpha=2),
    ),
}
#: Fusions of two adapters: their config, and the fusion's.
FUSED: dict[str, tuple[Callable[[], Any], Any]] = {
    "fused": (lambda: adapters.SeqBnConfig(**SMALL), adapters.DynamicAdapterFusionConfig()),
    "fused-static": (lambda: adapters.DoubleSeqBnConfig(scaling=1.7, **SMALL), adapters.StaticAdapterFusionConfig()),
    "fused-before-ln": (
        lambda: adapters.SeqBnConfig(**SMALL),
        adapters.DynamicAdapterFusionConfig(query_before_ln=True, value_before_softmax=False),
    ),
    "fused-compacter": (lambda: adapters.CompacterPlusPlusConfig(**SMALL), adapters.DynamicAdapterFusionConfig()),
}
GATED = ("unipelt", "gated")  # the mean that a gate is runs over padding here, so they are compared where there is none


def model_of(backbone: Path, case: str) -> Any:
    """A new model. With torch's attention the batch rows of a prompt attend to padding there; without it they do not."""
    how = "eager" if "prompt" in case else "sdpa"
    return adapters.AutoAdapterModel.from_pretrained(backbone, dtype=torch.float32, attn_implementation=how).eval()


@torch.no_grad()
def logits(model: Any, rows: Any, case: str) -> np.ndarray:
    given = {"input_ids": rows["ids"], "attention_mask": rows["mask"], "token_type_ids": rows["types"]}
    if case in GATED:
        given = {name: part[rows["mask"].all(axis=1)] for name, part in given.items()}
    if model.config.type_vocab_size < 1:
        del given["token_type_ids"]
    return model(**{name: torch.tensor(row.astype(np.int64)) for name, row in given.items()}).logits.numpy()


def without_pickle(directory: Path, name: str) -> None:
    """What docs/files.md tells to do where `adapters` cannot save as safetensors itself."""
    for old, new in {"pytorch_adapter.bin": "adapter.safetensors", "pytorch_model_head.bin": "model_head.safetensors"}.items():
        tensors = torch.load(directory / old, weights_only=True)
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, directory / new)
        (directory / old).unlink()


def save(backbone: Path, rows: Any, out: Path) -> None:
    out.mkdir(exist_ok=True)
    for seed, case in enumerate([*CASES, *FUSED]):
        torch.manual_seed(seed)
        model = model_of(backbone, case)
        setup: Any = "mine"
        if case in FUSED:
            setup, (config, fusion) = adapters.composition.Fuse("one", "two"), FUSED[case]
            for name in ("one", "two"):
                model.add_adapter(name, config=config())
            model.add_adapter_fusion(setup, config=fusion)
        else:
            model.add_adapter("mine", config=CASES[case]())
        pooled = model.config.model_type in ("bert", "albert")  # as graftax's head reads it
        shape = {"layers": 1, "use_pooler": True} if pooled and case != "default-head" else {"layers": 2, "use_pooler": False}
        model.add_classification_head("mine", num_labels=3, id2label={0: "bad", 1: "fair", 2: "good"}, **shape)
        model.set_active_adapters(setup)
        model.active_head = "mine"
        for key, parameter in model.named_parameters():
            if any(f".{name}." in key for name in ("mine", "one", "two", "one,two")):
                parameter.data.add_(0.3 * torch.randn_like(parameter))
        model.eval()
        np.save(out / f"{case}.npy", logits(model, rows, case))
        if case in FUSED:
            model.save_adapter_setup(str(out / case), setup, head_setup="mine", use_safetensors=True)
            continue
        pickled = case.startswith(("prefix", "mam", "unipelt"))
        model.save_adapter(str(out / case), "mine", use_safetensors=not pickled)
        if pickled:
            without_pickle(out / case, "mine")


def load(backbone: Path, rows: Any, directory: Path) -> None:
    loaded = {}
    for path in sorted(p for p in directory.iterdir() if p.is_dir()):
        model, info = model_of(backbone, path.name), {}
        if (path / "adapter_setup.json").exists():
            name = model.load_adapter_setup(str(path), use_safetensors=True, set_active=True)[0].name
        else:
            name = model.load_adapter(str(path), use_safetensors=True, set_active=True, loading_info=info)
        model.eval()
        loaded[path.name] = {"name": name, **{key: list(keys) for key, keys in info.items()}}
        np.save(directory / f"{path.name}.npy", logits(model, rows, path.name))
    (directory / "loaded.json").write_text(json.dumps(loaded))


if __name__ == "__main__":
    command, backbone, rows, directory = sys.argv[1:]
    Path(directory).mkdir(parents=True, exist_ok=True)
    {"save": save, "load": load}[command](Path(backbone), np.load(rows), Path(directory))
