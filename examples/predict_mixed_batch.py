"""Answers one batch in which every row names its own adapter.

    python examples/predict_mixed_batch.py BACKBONE ADAPTER [ADAPTER ...]

An ADAPTER is a directory, such as `train_from_csv.py` writes. Rows are read from standard input, a text a line, and
each of the adapters is asked about them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import graftax


def main(backbone_name: str, directories: list[Path]) -> None:
    predictor = graftax.Predictor(graftax.load_backbone(backbone_name))
    for directory in directories:
        predictor.load(directory.name, directory)

    texts = [line.strip() for line in sys.stdin if line.strip()]
    rows = [(text, directory.name) for text in texts for directory in directories]
    answers = predictor.predict([text for text, _ in rows], [name for _, name in rows])
    for (text, name), answer in zip(rows, answers, strict=True):
        print(f"{name}: {answer.label} ({answer.score:.0%})  {text}")


if __name__ == "__main__":
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
