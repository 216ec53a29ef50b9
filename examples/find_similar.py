"""Finds the rows of a CSV file that are most like a text, by vectors of the backbone, under an adapter or none.

python examples/find_similar.py BACKBONE FILE TEXT [ADAPTER]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

import graftax


def main(backbone_name: str, data: Path, text: str, adapter: Path | None) -> None:
    predictor = graftax.Predictor(graftax.load_backbone(backbone_name))
    if adapter is not None:
        predictor.load("chosen", adapter)
    with data.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    vectors = predictor.embed([text, *texts], "chosen" if adapter else None)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors[1:] @ vectors[0]
    for at in np.argsort(-likeness)[:5]:
        print(f"{likeness[at]:.2f}  {texts[at]}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]) if len(sys.argv) > 4 else None)
