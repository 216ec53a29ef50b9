"""Write the golden files of the present version: `python tests/make_golden.py`, once per release, into tests/golden/VERSION.

Each is a small adapter as `save_adapter` writes it, with the logits it gave;
test_contract_files.py loads those of every release.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone

GOLDEN = Path(__file__).parent / "golden"
STORED = ("rslora", "lora-embedding", "ia3", "pfeiffer", "prefix", "bitfit", "probe")


@functools.cache
def golden_backbone() -> Backbone:
    """A BERT of 2 layers; every release must make the same one of this seed."""
    sizes = {"vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return random_backbone({"model_type": "bert", **sizes, "max_position_embeddings": 20}, seed=12)


def main() -> None:
    from cases import logits, random_adapter
    from conftest import some_inputs

    from graftax import __version__, save_adapter

    backbone = golden_backbone()
    for name in STORED:
        adapter = random_adapter(backbone, name)
        path = save_adapter(adapter, GOLDEN / __version__ / f"{__version__}-{name}", backbone, overwrite=True)
        found = logits(backbone, adapter, some_inputs(backbone)).tolist()
        (path / "logits.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
