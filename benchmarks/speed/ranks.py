"""What a text under an adapter of rank 4 pays for one of rank 64 that is resident, or in its batch; and for its own.

    python benchmarks/speed/ranks.py [--repeats N]

Sixteen prompts of 32 tokens continued by 32, greedily, each under an adapter of its own (LoRA on queries and values); the Llama
shape of `language_models.py` with random weights, float32. Both columns are graftax.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from harness import Work, Worker, duel, report, row
from language_models import LLAMA, NEW, PROMPT, noisy, prompts, write_backbone

ROWS, SMALL, LARGE = 16, 4, 64


def writing(checkpoint: str, resident: bool, beside: bool, bare: bool) -> Work:
    """`resident`: one of the large rank is; `beside`: it is the adapter of one of the prompts; `bare`: no prompt has any."""
    import graftax
    from graftax.serve.residents import Residents

    backbone = graftax.load_backbone(checkpoint)
    generator = graftax.Generator(backbone, residents=Residents(backbone, slots=ROWS + 1), most_lanes=ROWS)
    for i in range(ROWS + resident):
        lora = graftax.LoRA(r=SMALL if i < ROWS else LARGE)
        generator.load(str(i), noisy(graftax.Adapter.create((lora,), backbone.sites, seed=i, task="lm")))
    texts = prompts(checkpoint)[:ROWS]
    names = [None if bare else str(i + beside) for i in range(ROWS)]
    how = graftax.Sampling(max_new_tokens=NEW)
    everyone = [str(i) for i in range(ROWS + resident)]
    generator.generate([texts[0]] * len(everyone), everyone, how)  # so that all have slots
    yield {}
    while True:
        began = time.perf_counter()
        generator.generate(texts, names, how)
        yield {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as checkpoint:
        write_backbone(Path(checkpoint), LLAMA, "model.")
        usual = {"checkpoint": checkpoint, "resident": False, "beside": False, "bare": False}
        for what, other in (
            (f"one of rank {LARGE} resident", {"resident": True}),
            (f"one of rank {LARGE} in the batch", {"resident": True, "beside": True}),
            ("no adapter in the batch", {"bare": True}),
        ):
            found = duel(Worker(writing, **usual), Worker(writing, **usual | other), chosen.repeats, warmup=1)
            size = f"{ROWS} texts of {PROMPT} + {NEW} tokens, rank {SMALL}"
            report(row(f"{size}, against {what}", found, "both columns graftax (`ranks.py`)"))
