"""Trains, answers and generates on tiny backbones, and prints what came of it, to the last bit, as one JSON object.

    python tests/bits.py FOLDER             FOLDER gets the backbones and the adapters
    python tests/bits.py FOLDER --stop 5    interrupted after so many steps of training; without the option it then goes on

`test_conditions.py` runs it in processes that compile under other conditions than the tests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from runs import interrupt, lines, run_many, stop_after
from tiny import toy_rows, weights_of, write_backbone, write_decoder

from graftax import IA3, Generator, LoRA, Predictor, Recipe, Sampling
from graftax.models.load import load_backbone
from graftax.train import Interrupted

TEXTS = [row["text"] for row in toy_rows(count=20, seed=9)]
RECIPE = Recipe(epochs=2, lr=5e-3, batch_size=8, max_length=16, warmup=0.2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop", type=int, metavar="STEPS")
    arguments = parser.parse_args()
    try:
        with pytest.MonkeyPatch.context() as patch:
            if arguments.stop is not None:
                stop_after(patch, arguments.stop, interrupt)
            train(arguments.folder)
    except Interrupted:
        print(json.dumps({"interrupted": True}))
    else:
        print(json.dumps({**trained(arguments.folder), **answered(arguments.folder), "generated": generated(arguments.folder)}))


def train(folder: Path) -> None:
    """Three adapters of two methods through a pack of two, with dropout and validation."""
    backbone = load_backbone(write_backbone(folder / "backbone"))
    data = {name: toy_rows(count=20 + i, seed=i) for i, name in enumerate("abc")}
    lora = LoRA(r=4, alpha=6.0, dropout=0.2)
    run_many(backbone, data, folder / "out", recipe=RECIPE, method=lora, each={"c": {"method": IA3()}}, val=0.25, pack_size=2)


def trained(folder: Path) -> dict[str, Any]:
    files = {name: hashlib.sha256(weights_of(folder / "out" / name)).hexdigest() for name in "abc"}
    return {"files": files, "metrics": lines(folder / "out")}


def answered(folder: Path) -> dict[str, Any]:
    """Labels, probabilities and vectors of rows with every adapter, mixed."""
    predictor = Predictor(load_backbone(folder / "backbone"))
    for name in "abc":
        predictor.load(name, folder / "out" / name)
    asked = [("a", "b", "c")[i % 3] for i in range(len(TEXTS))]
    predictions = [(p.label, float(p.score).hex()) for p in predictor.predict(TEXTS, asked)]
    return {"predictions": predictions, "vectors": hashlib.sha256(predictor.embed(TEXTS, asked).tobytes()).hexdigest()}


def generated(folder: Path) -> list[str]:
    """Greedy, drawn and searched with beams, under an adapter that was trained for it and under none."""
    teller = load_backbone(write_decoder(folder / "teller"))
    method = LoRA(r=2, alpha=3.0, targets=("q_proj", "down_proj"))
    told = {"told": [{"text": text} for text in TEXTS]}
    run_many(teller, told, folder / "told", task="lm", recipe=RECIPE, method=method, overwrite=True)
    generator = Generator(teller)
    generator.load("told", folder / "told" / "told")
    drawn = [Sampling(max_new_tokens=8), Sampling(max_new_tokens=8, temperature=1.5, top_k=40, seed=3)]
    found = generator.generate(["the old", "the old", "red"], ["told", "told", None], [*drawn, drawn[1]])
    found += generator.generate(["the old"], "told", Sampling(max_new_tokens=6, num_beams=2))
    return [text for one in found for text in (one.text, str(list(one.tokens)))]


if __name__ == "__main__":
    main()
