"""A short run on another line of Python: train two adapters, save, load, predict, merge. Needs no test extras."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import graftax
from graftax.adapters.adapter import Adapter, Layout
from graftax.models.inputs import TextInputs
from graftax.models.random import random_backbone

CONFIG = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
}


def main() -> None:
    import jax

    backbone = random_backbone(CONFIG)
    ids = np.arange(10, 26, dtype=np.int32).reshape(2, 8)
    inputs = TextInputs(ids, np.ones((2, 8), bool), np.zeros((2, 8), np.int32))
    with tempfile.TemporaryDirectory() as folder:
        for method in (graftax.LoRA(r=2, alpha=6), graftax.IA3(), graftax.Bottleneck(width=4), graftax.Prefix(tokens=3)):
            made = Adapter.create((method, backbone.head(3)), backbone.sites, fingerprint=backbone.fingerprint)
            directory = graftax.save_adapter(made, Path(folder) / method.name, backbone)
            read = graftax.load_adapter(directory, backbone)
            outputs = []
            for adapter in (made, read):
                state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
                outputs.append(np.asarray(jax.jit(backbone.forward)(backbone.params, state, inputs).pooled))
            assert np.array_equal(*outputs), method.name
    print(f"smoke run passed on Python {sys.version.split()[0]}, jax {jax.__version__}")


if __name__ == "__main__":
    main()
