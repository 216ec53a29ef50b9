"""Trains an adapter on a CSV file with columns `text` and `label`, and says how good it is.

    python examples/train_from_csv.py BACKBONE [FILE]

BACKBONE is a directory or an id on the Hub, such as sentence-transformers/all-MiniLM-L6-v2. The adapter is written to
`adapters/NAME`, where NAME is the file's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import graftax


def main(backbone_name: str, data: Path) -> None:
    backbone = graftax.load_backbone(backbone_name)
    results = graftax.train_many(
        backbone,
        {data.stem: data},
        out="adapters",
        method=graftax.LoRA(r=8, alpha=16),
        recipe=graftax.Recipe(epochs=8, lr=4e-3, batch_size=16, max_length=64, patience=3),
        val=0.2,  # a fifth of the rows is held out; the best epoch on them is kept
        overwrite=True,
    )
    result = results[data.stem]
    print(f"{result.directory}: right about {result.metrics['val_accuracy']:.1%} of the rows that were held out")


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else here / "domains" / "bank.csv")
