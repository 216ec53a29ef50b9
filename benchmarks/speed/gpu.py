"""All rows of RESULTS.md that want an accelerator, in one go of some minutes: for whoever has one for a short while.

    python benchmarks/speed/gpu.py [parity] [step] [packs] [decode] [prefill] [--size 1b|small] [--repeats 5]

Weights and tokens are random, of the shape of Llama-3.2-1B in bfloat16 (`small`: one of seconds, to try this script on a CPU);
the work does not depend on them, and nothing is read from a disk. Each part is reported as soon as it is done, and
what its peer cannot do (no torch, or one without CUDA) is said in its place.

parity   float32: loss and gradient of a step here and on the CPU of the same machine, as the largest difference of each
step     tokens/s and memory of one adapter's training step, 4 rows of 1,024 tokens, LoRA r 16, against PEFT with SDPA and
         `torch.compile`
packs    the same of 16 and of 64 adapters at once, against as many one after the other; both graftax
decode   32 rows of 128 tokens continued by 64, an adapter each, against PEFT's `generate(adapter_names=...)`
prefill  one token of 32 rows of 512 tokens, likewise
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from typing import Any

from harness import Work, Worker, duel, report, row, torch_device, torch_ready
from language_models import noisy

#: The settings of a size: its config, batch rows and their length, adapters of packs, and texts that are written.
SIZES: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 8192,
        "vocab_size": 128256,
        "max_position_embeddings": 2048,
    },
    "small": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "max_position_embeddings": 2048,
    },
}
_ALL = {"model_type": "llama", "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ROWS, LENGTH = {"1b": 4, "small": 2}, {"1b": 1024, "small": 64}
PACKS = {"1b": (16, 64), "small": (2, 4)}
WRITTEN = {"1b": (32, 128, 64), "small": (4, 16, 4)}  # rows, tokens of each prompt, and new ones
READ = {"1b": (32, 512, 1), "small": (4, 32, 1)}
RANK = 16


def config_of(size: str) -> dict[str, Any]:
    return {**_ALL, **SIZES[size]}


# -- graftax ------------------------------------------------------------------------------------------------------------------


def learner_and_batch(backbone: Any, rows: int, length: int) -> tuple[Any, Any]:
    """A LoRA before its first step, with factors that are not zero, and a batch of one text in each row."""
    import numpy as np

    from graftax import LoRA, Recipe
    from graftax.adapters.adapter import Adapter, Layout
    from graftax.models.inputs import TextInputs, Texts
    from graftax.train.optimizer import rates
    from graftax.train.step import Batch, hyper, start

    adapter = noisy(Adapter.create((LoRA(r=RANK, alpha=2.0 * RANK),), backbone.sites, task="lm"))
    layout, recipe = Layout.of([adapter], backbone.sites, bucket=True), Recipe()
    stacked = layout.stack(adapter, backbone.sites)
    learner = start(stacked, rates(recipe, stacked, backbone.sites, 100), hyper(recipe, 100, 0), recipe.optimizer)
    ids = np.random.default_rng(0).integers(3, backbone.config.vocab_size, (rows, length)).astype(np.int32)
    segments, first = np.ones_like(ids), np.arange(rows, dtype=np.int32) * length
    inputs = TextInputs(ids, ids > 0, np.zeros_like(ids), Texts(segments, first))
    labels = np.concatenate([ids[:, 1:], np.full((rows, 1), -100, np.int32)], axis=1)
    return learner, Batch(inputs, labels, np.ones(rows, np.float32), np.bool_(True))


def our_step(size: str, slots: int, times: int = 1) -> Work:
    """A step of so many adapters at once, so many times."""
    import jax
    import numpy as np

    from graftax.models.random import random_backbone
    from graftax.tasks.task_registry import task_named
    from graftax.train.step import Programs

    backbone = random_backbone(config_of(size), dtype="bfloat16")
    one = learner_and_batch(backbone, ROWS[size], LENGTH[size])
    pack, batches = jax.tree.map(lambda leaf: np.stack([leaf] * slots), one)
    programs = Programs.of(backbone, task_named("lm"), slots)
    pack, batches = jax.device_put((pack, batches))
    yield {}
    while True:
        began = time.perf_counter()
        for _ in range(times):
            pack = programs.step(backbone.params, backbone.unrolled, pack, batches)
        jax.block_until_ready(pack)
        yield {"seconds": time.perf_counter() - began}


def write_tokenizer(folder: str, vocabulary: int) -> None:
    """A tokenizer whose token number i is the word `wi`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(f"{folder}/tokenizer.json")


def our_texts(size: str, rows: int, tokens: int, new: int) -> Work:
    """Texts that are written with an adapter each."""
    import numpy as np

    import graftax
    from graftax.adapters.adapter import Adapter
    from graftax.models.random import random_backbone

    folder, config = tempfile.mkdtemp(), config_of(size)
    write_tokenizer(folder, config["vocab_size"])
    backbone = dataclasses.replace(random_backbone(config, dtype="bfloat16"), directory=folder)
    generator, random = graftax.Generator(backbone), np.random.default_rng(0)
    for i in range(rows):
        adapter = noisy(Adapter.create((graftax.LoRA(r=RANK, alpha=2.0 * RANK),), backbone.sites, seed=i, task="lm"))
        generator.load(str(i), adapter)
    how, names = graftax.Sampling(max_new_tokens=new), [str(i) for i in range(rows)]
    yield {}
    while True:
        prompts = random.integers(3, backbone.config.vocab_size, (rows, tokens)).tolist()
        began = time.perf_counter()
        made = generator.generate(prompts, names, how)
        yield {"seconds": time.perf_counter() - began}
        assert all(len(one.tokens) == new for one in made), "a row has ended early"


def parity(size: str) -> str:
    """How far the loss and the gradient of a step lie from those of this machine's CPU, both in float32."""
    import jax
    import numpy as np

    from graftax.models.random import random_backbone
    from graftax.platforms import compiling_for
    from graftax.tasks.task_registry import task_named
    from graftax.train.step import Programs

    backbone = random_backbone({**config_of(size), "num_hidden_layers": 2})
    one = learner_and_batch(backbone, 2, LENGTH[size])
    pack, batches = jax.tree.map(lambda leaf: np.asarray(leaf)[None], one)
    args = jax.tree.map(np.asarray, (backbone.params, backbone.unrolled))
    with jax.default_matmul_precision("highest"):
        here = Programs(backbone, task_named("lm"), 1).gradient(*args, pack, batches)
        with compiling_for("cpu"), jax.default_device(jax.devices("cpu")[0]):
            there = Programs(backbone, task_named("lm"), 1).gradient(*args, pack, batches)
    (loss, gradient), (wanted, slope) = jax.tree.map(np.asarray, (here, there))
    apart = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(*map(jax.tree.leaves, (gradient, slope)), strict=True))
    return f"parity with the CPU, float32: losses {np.abs(loss - wanted).max():.1e} apart, gradients {apart:.1e} of the largest"


# -- PEFT ---------------------------------------------------------------------------------------------------------------------


def their_model(size: str, adapters: int) -> Any:
    import peft
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**{name: value for name, value in config_of(size).items() if name != "model_type"})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").to(torch_device())
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    model = peft.get_peft_model(model, lora, adapter_name="0")
    for i in range(1, adapters):
        model.add_adapter(str(i), lora)
    return model


def their_step(size: str, compiled: bool) -> Work:
    import torch

    model = their_model(size, 1).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4)
    ids = torch.randint(3, model.config.vocab_size, (ROWS[size], LENGTH[size]), device=model.device)
    run = torch.compile(model) if compiled else model
    yield {}
    while True:
        began = time.perf_counter()
        optimizer.zero_grad()
        run(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        torch_ready()
        yield {"seconds": time.perf_counter() - began}


def their_texts(size: str, rows: int, tokens: int, new: int) -> Work:
    import torch

    model = their_model(size, rows).eval()
    options: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    names = [str(i) for i in range(rows)]
    yield {}
    while True:
        ids = torch.randint(3, model.config.vocab_size, (rows, tokens), device=model.device)
        began = time.perf_counter()
        with torch.no_grad():
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=names, **options)
        torch_ready()
        yield {"seconds": time.perf_counter() - began}


# -- the parts ----------------------------------------------------------------------------------------------------------------


def beside(what: str, note: str, ours: tuple[Any, dict[str, Any]], theirs: tuple[Any, dict[str, Any]], repeats: int) -> None:
    """A row of both; where a side cannot be begun, a line that says so."""
    workers = []
    for work, arguments in (ours, theirs):
        try:
            workers.append(Worker(work, **arguments))
        except EOFError:  # its process has ended; its traceback stands above
            print(f"{what}: {work.__name__} does not run here", flush=True)
            for worker in workers:
                worker.close()
            return
    try:
        report(row(what, duel(*workers, repeats=repeats), note))
    except EOFError:
        print(f"{what}: a side has failed, as its traceback above says", flush=True)


def measured(part: str, size: str, repeats: int) -> None:
    tokens = ROWS[size] * LENGTH[size]
    if part == "parity":
        print(parity(size), flush=True)
    elif part == "step":
        for compiled in (False, True):
            how = "SDPA, torch.compile" if compiled else "SDPA"
            what = f"{size}: LoRA r {RANK} step of {tokens:,} tokens, bfloat16, against PEFT with {how}"
            theirs = their_step, {"size": size, "compiled": compiled}
            beside(what, "`gpu.py`", (our_step, {"size": size, "slots": 1}), theirs, repeats)
    elif part == "packs":
        for slots in PACKS[size]:
            what = f"{size}: a step of {slots} adapters at once, {tokens:,} tokens each, against one after the other"
            alone = our_step, {"size": size, "slots": 1, "times": slots}
            beside(
                what, "both columns graftax (`gpu.py`)", (our_step, {"size": size, "slots": slots}), alone, max(3, repeats // 2)
            )
    else:
        rows, length, new = (WRITTEN if part == "decode" else READ)[size]
        arguments = {"size": size, "rows": rows, "tokens": length, "new": new}
        what = f"{size}: {rows} rows of {length} tokens and {new} new, an adapter each, against PEFT's adapter_names"
        beside(what, "`gpu.py`", (our_texts, arguments), (their_texts, arguments), repeats)


if __name__ == "__main__":
    parts = ("parity", "step", "packs", "decode", "prefill")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="PART", default=list(parts), help=f"of {', '.join(parts)}")
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    if unknown := set(asked.what) - set(parts):
        parser.error(f"{', '.join(unknown)}: one of {', '.join(parts)}")
    for part in asked.what:
        measured(part, asked.size, asked.repeats)
