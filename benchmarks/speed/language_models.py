"""Language models: a LoRA training step on real short texts, and decoding under many adapters, graftax against PEFT on torch.

    python benchmarks/speed/language_models.py [step] [decode] [resident] [prefill] [--shape llama|gpt2] [--repeats N]

Weights are random, of a 135 M Llama shape (SmolLM's: 30 layers of 576, 9 heads, 3 of keys and values) or of the smallest
GPT-2's (124 M), float32; the work does not depend on them. Texts are prompts and responses of code_alpaca, tokenized by a BPE
of 16,000 pieces made of them here.

step: 16 texts, LoRA r 8 on queries and values (GPT-2: on its one projection of both), AdamW, no dropout. graftax lays them
behind one another (`data/batches.py`), PEFT gets them padded to the longest. decode: 32 prompts of 32 tokens continued by 32
tokens, greedily, with a different adapter in every row (PEFT's `generate(adapter_names=...)`), under one adapter, and under 32
of 256 resident.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import DATA, Work, Worker, duel, report, row, torch_device, torch_ready

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": 50257,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
}
#: config, what its checkpoint puts before the names of tensors, and the projections that PEFT adapts
SHAPES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "llama": (LLAMA, "model.", ["q_proj", "v_proj"]),
    "gpt2": (GPT2, "transformer.", ["c_attn"]),
}
TEXTS, ROWS, PROMPT, NEW = 16, 32, 32, 32


def pairs() -> list[dict[str, str]]:
    """Prompts and responses, the longest of them left out."""
    rows = [json.loads(line) for line in (DATA / "code_alpaca_2k" / "train.jsonl").read_text("utf-8").splitlines()]
    made = [{"prompt": f"{r['instruction']}\n{r['input']}\n", "completion": r["output"]} for r in rows if r["output"].strip()]
    return [r for r in made if len(r["prompt"]) + len(r["completion"]) < 1200]


def write_backbone(folder: Path, config: dict[str, Any], prefix: str) -> None:
    """Random weights and the tokenizer, as Hugging Face stores them."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    from graftax.models.random import random_tensors

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=16_000, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator((r["prompt"] + r["completion"] for r in pairs()), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps(config))
    save_file({f"{prefix}{k}": t for k, t in random_tensors(config).items()}, folder / "model.safetensors", {"format": "pt"})


def prompts(folder: str) -> Iterator[list[str]]:
    """Beginnings of `ROWS` texts, `PROMPT` tokens each; other ones every time, for what was read once is not read again."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    cut = (tokenizer.decode(tokenizer.encode(r["prompt"] + r["completion"]).ids[:PROMPT]) for r in pairs())
    fitting = [text for text in cut if len(tokenizer.encode(text).ids) == PROMPT]
    for turn in itertools.count():
        yield [fitting[(turn * ROWS + row) % len(fitting)] for row in range(ROWS)]


def our_step(folder: str) -> Work:
    from graftax.heap import keep_heap

    keep_heap()
    import jax

    import graftax
    from graftax.data.columns import Columns
    from graftax.tasks.task_registry import task_named
    from graftax.train.intake import prepare
    from graftax.train.pack import Pack

    backbone, task = graftax.load_backbone(folder), task_named("sft")
    recipe = graftax.Recipe(epochs=1, batch_size=TEXTS, max_length=512)
    settings: dict[str, Any] = {"method": graftax.LoRA(r=8, alpha=16.0), "recipe": recipe, "columns": Columns()}
    job = prepare("texts", pairs(), None, backbone=backbone, task=task, **settings)
    pack = Pack(backbone, task, [job], 1)
    pack.admit(0, 0)
    yield {}
    while True:
        began = time.perf_counter()
        pack.tick()
        jax.block_until_ready(pack.learners.step)
        yield {"seconds": time.perf_counter() - began}


def their_step(folder: str, targets: list[str]) -> Work:
    from graftax.heap import keep_heap

    keep_heap()  # torch gains from it too: the same for both
    import numpy as np
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    import graftax
    from graftax.data.columns import Columns
    from graftax.models.tokens import Tokenizer
    from graftax.tasks.outputs import IGNORE
    from graftax.tasks.read_examples import read_examples
    from graftax.tasks.task_registry import task_named

    task, tokenizer = task_named("sft"), Tokenizer.of(graftax.load_backbone(folder))
    rows = task.prepare(read_examples(pairs(), Columns(), task, tokenizer), (), tokenizer, 512)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=targets)
    model = peft.get_peft_model(model.to(torch_device()), config).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-3)
    order = np.random.default_rng(0).permutation(len(rows.items))
    yield {}
    for begin in range(0, len(order), TEXTS):
        chosen = order[begin : begin + TEXTS]
        longest = max(len(rows.items[i]) for i in chosen)
        ids, labels, mask = np.zeros((TEXTS, longest), int), np.full((TEXTS, longest), -100), np.zeros((TEXTS, longest), int)
        for k, i in enumerate(chosen):
            own, counted = rows.items[i].ids, rows.labels[i][:-1] != IGNORE
            ids[k, : len(own)], mask[k, : len(own)] = own, 1
            labels[k, 1 : len(own)] = np.where(counted, own[1:], -100)
        began = time.perf_counter()
        optimizer.zero_grad()
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        model(**{name: torch.tensor(array, device=model.device) for name, array in batch.items()}).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        torch_ready()
        yield {"seconds": time.perf_counter() - began}


def our_decode(folder: str, adapters: int, resident: int, new: int = NEW) -> Work:
    import graftax
    from graftax.adapters.adapter import Adapter

    backbone = graftax.load_backbone(folder)
    generator = graftax.Generator(backbone)
    for i in range(resident):
        generator.load(str(i), noisy(Adapter.create((graftax.LoRA(r=8, alpha=16.0),), backbone.sites, seed=i, task="lm")))
    names = [str(i * max(1, resident // ROWS) % adapters) for i in range(ROWS)]
    how = graftax.Sampling(max_new_tokens=new)
    yield {}
    for texts in prompts(folder):
        began = time.perf_counter()
        made = generator.generate(texts, names, how)
        yield {"seconds": time.perf_counter() - began}
        assert all(len(one.tokens) == new for one in made), "a row has ended early"


def noisy(adapter: Any) -> Any:
    """With B not zero."""
    import dataclasses

    import numpy as np

    random = np.random.default_rng(0)
    states = {
        method: {
            site: ({n: 0.02 * random.standard_normal(leaf.shape, np.float32) for n, leaf in own.items()}, fixed)
            for site, (own, fixed) in leaves.items()
        }
        for method, leaves in adapter.states.items()
    }
    return dataclasses.replace(adapter, states=states)


def their_decode(folder: str, targets: list[str], adapters: int, new: int = NEW) -> Work:
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(torch_device())
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=targets, init_lora_weights=False)
    model = peft.get_peft_model(model, config, adapter_name="0")
    for i in range(1, adapters):
        model.add_adapter(str(i), config)
    model.eval()
    options: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    if adapters > 1:
        options["adapter_names"] = [str(i % adapters) for i in range(ROWS)]
    yield {}
    for texts in prompts(folder):
        began = time.perf_counter()
        with torch.no_grad():
            batch = tokenizer(texts, return_tensors="pt").to(model.device)
            made = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **options)
            tokenizer.batch_decode(made[:, PROMPT:].cpu(), skip_special_tokens=True)
        yield {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("what", nargs="*", default=["step", "decode", "resident"])
    arguments.add_argument("--shape", choices=SHAPES, default="llama")
    arguments.add_argument("--repeats", type=int, default=5)
    asked = arguments.parse_args()
    config, prefix, targets = SHAPES[asked.shape]
    with tempfile.TemporaryDirectory() as folder:
        write_backbone(Path(folder), config, prefix)
        if "step" in asked.what:
            pair = Worker(our_step, folder=folder), Worker(their_step, folder=folder, targets=targets)
            what = f"LoRA step of {TEXTS} real texts, {asked.shape} shape: laid behind one another / padded"
            report(row(what, duel(*pair, repeats=2 * asked.repeats), "other texts in every step"))
        size = f"{ROWS} rows, {PROMPT} tokens and {NEW} new ones"
        if "decode" in asked.what:
            for adapters in (ROWS, 1):
                ours = Worker(our_decode, folder=folder, adapters=adapters, resident=adapters)
                pair = ours, Worker(their_decode, folder=folder, targets=targets, adapters=adapters)
                report(row(f"{asked.shape}: generate, {size}, {adapters} adapters", duel(*pair, repeats=asked.repeats)))
        if "resident" in asked.what:
            few = Worker(our_decode, folder=folder, adapters=1, resident=1)
            many = Worker(our_decode, folder=folder, adapters=ROWS, resident=256)
            what = f"{asked.shape}: generate, {size}: one resident adapter / {ROWS} of 256"
            report(row(what, duel(few, many, repeats=asked.repeats), "both columns graftax"))
        if "prefill" in asked.what:
            pair = (
                Worker(our_decode, folder=folder, adapters=1, resident=1, new=1),
                Worker(their_decode, folder=folder, targets=targets, adapters=1, new=1),
            )
            report(row(f"{asked.shape}: one new token of {ROWS} rows of {PROMPT} tokens", duel(*pair, repeats=asked.repeats)))
