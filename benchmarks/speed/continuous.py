"""Texts that come and go in lanes, beside batches whose texts begin together and end with the longest: a version before that.

    git worktree add --detach ../before c55fa6b
    python benchmarks/speed/continuous.py ../before [--repeats 5]

Sixty-four prompts of code_alpaca, and as many tokens behind each as a log-normal draw says (median 30, at most 256; 3,000 in
all), under four adapters by turns, sixteen texts at once; the Llama shape of `language_models.py` with random weights. Both
sides call `Generator.generate`: this version with all prompts and sixteen lanes, the other with sixteen prompts at a time.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import ROOT, Work, Worker, duel, report, row
from language_models import LLAMA, pairs, write_backbone
from versions import version_in

PROMPTS, LANES, ADAPTERS, MOST = 64, 16, 4, 256


def asked() -> tuple[list[str], list[int], list[str]]:
    """Prompts, the number of tokens behind each, and its adapter."""
    random = np.random.default_rng(0)
    new = np.clip(random.lognormal(3.4, 1.0, PROMPTS), 4, MOST).astype(int).tolist()
    return [one["prompt"] for one in pairs()[:PROMPTS]], new, [str(i % ADAPTERS) for i in range(PROMPTS)]


def generating(folder: str, checkpoint: str, together: int, **settings: Any) -> Work:
    """All prompts, `together` in each call."""
    graftax = version_in(folder)
    generator = graftax.Generator(graftax.load_backbone(checkpoint), **settings)
    for name in map(str, range(ADAPTERS)):
        sites = generator.backbone.sites
        generator.load(name, graftax.Adapter.create((graftax.LoRA(),), sites, seed=int(name), task="lm"))
    prompts, new, names = asked()
    how = [graftax.Sampling(max_new_tokens=count) for count in new]
    yield {}
    for turn in itertools.count():
        these_prompts = [f"{turn}. {prompt}" for prompt in prompts]  # what was read once is not read again
        began = time.perf_counter()
        for first in range(0, PROMPTS, together):
            these = slice(first, first + together)
            generator.generate(these_prompts[these], names[these], how[these])
        yield {"seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    there = str(chosen.other.resolve())
    name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=there, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as checkpoint:
        write_backbone(Path(checkpoint), LLAMA, "model.")
        ours = Worker(generating, folder=str(ROOT), checkpoint=checkpoint, together=PROMPTS, most_lanes=LANES)
        theirs = Worker(generating, folder=there, checkpoint=checkpoint, together=LANES)
        found = duel(ours, theirs, chosen.repeats, warmup=1)
    what = f"{sum(asked()[1]):,} tokens behind {PROMPTS} prompts, {LANES} texts at once, against batches ({name})"
    report(row(what, found, "both columns graftax (`continuous.py`)"))


if __name__ == "__main__":
    main()
