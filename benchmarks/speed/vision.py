"""Pictures: graftax beside PEFT and transformers on torch, float32, the same sizes and threads.

    python benchmarks/speed/vision.py [step] [probe] [mixed] [tasks] [pipeline]

- `step`: a training step of LoRA (r 8 on query and value) on a ViT-B/16, 8 pictures of 224 x 224.
- `probe`: epochs of a linear probe on a ResNet-50, 64 pictures of 224 x 224 in batches of 32. In the first one graftax computes
  what the frozen layers make of each picture, and keeps it; in a later one it has that. torch computes it in every epoch,
  without gradients, in `eval` (batch norms use their own statistics, as in graftax).
- `mixed`: 32 pictures under 32 adapters (LoRA r 8 on query and value), and under one, on a ViT-S/16.
- `tasks`: sixteen tasks of 80 pictures, five epochs of LoRA (r 8 on the convolutions that expand and reduce) on a MobileNetV2
  at 96 x 96 pixels, from a cold process to sixteen saved adapters: one pack, against one after another with PEFT.
- `pipeline` (graftax alone): pictures a second that are decoded and prepared (JPEG of 500 x 375 pixels), laid into a batch, and
  augmented, against those of a training step.

Weights are random in the published shapes: speed does not depend on them. Pictures are noise, but for `pipeline`, where they
are smooth, as photographs are.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Work, Worker, duel, report, row, summary, torch_device

LABELS = 10
VIT_B: dict[str, Any] = {"model_type": "vit"}  # whose defaults are ViT-B/16's
VIT_S: dict[str, Any] = VIT_B | {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
RESNET_50: dict[str, Any] = {"model_type": "resnet"}  # likewise
#: Padded as torch pads: where TensorFlow's way is followed, transformers asks of a convolution what PEFT's layer does not have.
MOBILENET: dict[str, Any] = {"model_type": "mobilenet_v2", "image_size": 96, "tf_padding": False}
TARGETS = r".*(expand_1x1|reduce_1x1)\.convolution"
TASKS, PICTURES, EPOCHS = 16, 80, 5
AUGMENT = "crop+flip+randaugment"


def noise(count: int, side: int) -> Any:
    """Pictures `[count, side, side, 3]` of 8 bits."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def torch_model(raw: dict[str, Any], labels: int = LABELS) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(**raw, num_labels=labels)
    return AutoModelForImageClassification.from_config(config).to(torch_device())


def normalised(pictures: Any) -> Any:
    """`[n, side, side, 3]` of 8 bits as torch's models take them."""
    import torch

    return torch.tensor(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous().to(torch_device())


# -- a step ---------------------------------------------------------------------------------------------------------------


def our_step(raw: dict[str, Any], rows: int, augment: str | None = None) -> Work:
    from graftax.heap import keep_heap

    keep_heap()
    import jax

    pack, tick = our_pack(raw, noise(rows, 224), rows, lora=True, augment=augment)
    yield {}
    while True:
        began = time.perf_counter()
        tick()
        jax.block_until_ready(pack.learners.step)
        yield {"seconds": time.perf_counter() - began}


def our_pack(raw: dict[str, Any], pictures: Any, rows: int, *, lora: bool, augment: str | None = None) -> Any:
    """A pack with one job, LoRA or a probe, on these pictures; and what takes its next step."""
    import graftax
    from graftax.data.columns import Columns
    from graftax.models.random import random_backbone
    from graftax.tasks.task_registry import task_named
    from graftax.train.intake import prepare
    from graftax.train.pack import Pack

    backbone, task = random_backbone(raw), task_named("image-classify")
    data = [{"image": picture, "label": f"label{i % LABELS}"} for i, picture in enumerate(pictures)]
    recipe = graftax.Recipe(epochs=1, batch_size=rows, augment=augment)
    method = graftax.LoRA(r=8, targets=("q_proj", "v_proj", "query", "value")) if lora else None
    job = prepare("one", data, None, backbone=backbone, task=task, method=method, recipe=recipe, columns=Columns())
    pack = Pack(backbone, task, [job], 1)
    pack.admit(0, 0)

    def tick() -> None:
        (bookmark,) = pack.bookmarks
        assert bookmark is not None
        if pack.epoch_done(0):
            bookmark.position = 0
        pack.tick()

    return pack, tick


def peft_step(raw: dict[str, Any], rows: int) -> Work:
    from graftax.heap import keep_heap

    keep_heap()  # torch gains from it too: the same for both
    import peft
    import torch

    settings = {"r": 8, "target_modules": ["query", "value", "q_proj", "v_proj"], "modules_to_save": ["classifier"]}
    model = peft.get_peft_model(torch_model(raw), peft.LoraConfig(**settings)).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-3)
    pixels, labels = normalised(noise(rows, 224)), torch.arange(rows) % LABELS
    yield {}
    while True:
        began = time.perf_counter()
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=labels.to(model.device)).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        yield {"seconds": time.perf_counter() - began}


# -- a probe --------------------------------------------------------------------------------------------------------------


def our_probe(rows: int, count: int, kept: bool) -> Work:
    """Epochs, each from what is kept, or each (as if it were the first) with what the frozen layers make of the pictures."""
    from graftax.heap import keep_heap

    keep_heap()
    import jax

    pack, tick = our_pack(RESNET_50, noise(count, 224), rows, lora=False)
    while not pack.epoch_done(0):
        tick()  # compiled, and all of it kept
    (job,) = pack.jobs.values()
    yield {}
    while True:
        began = time.perf_counter()
        if not kept:
            pack.features.forget(job)
            pack.features.expect(job)
        (bookmark,) = pack.bookmarks
        bookmark.position = 0
        while not pack.epoch_done(0):
            pack.tick()
        jax.block_until_ready(pack.learners.step)
        yield {"seconds": time.perf_counter() - began}


def torch_probe(rows: int, count: int) -> Work:
    from graftax.heap import keep_heap

    keep_heap()
    import torch

    model = torch_model(RESNET_50).eval()
    head = model.classifier
    trained = [*head.parameters()]
    optimizer = torch.optim.AdamW(trained, 1e-3)
    pixels, labels = normalised(noise(count, 224)), torch.arange(count) % LABELS
    yield {}
    while True:
        began = time.perf_counter()
        for batch in torch.randperm(count).split(rows):
            with torch.no_grad():
                features = model.resnet(pixels[batch]).pooler_output
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(features), labels[batch].to(features.device)).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        yield {"seconds": time.perf_counter() - began}


# -- a batch under many adapters ------------------------------------------------------------------------------------------


def our_mixture(adapters: int, rows: int) -> Work:
    import numpy as np

    import graftax
    from graftax.models.random import random_backbone

    backbone = random_backbone(VIT_S)
    predictor = graftax.Predictor(backbone)
    labels = tuple(f"label{i}" for i in range(LABELS))
    for seed in range(adapters):
        methods = (graftax.LoRA(r=8, targets=("q_proj", "v_proj", "query", "value")), backbone.head(LABELS))
        made = graftax.Adapter.create(methods, backbone.sites, seed, labels=labels, fingerprint=backbone.fingerprint)
        random = np.random.default_rng(seed)
        for states in made.states.values():
            for trainable, _ in states.values():
                trainable |= {leaf: random.normal(0, 0.02, old.shape).astype(np.float32) for leaf, old in trainable.items()}
        predictor.load(str(seed), made)
    pictures, names = [*noise(rows, 224)], [str(i % adapters) for i in range(rows)]
    yield {}
    while True:
        began = time.perf_counter()
        predictor.predict(pictures, names)
        yield {"seconds": time.perf_counter() - began}


def peft_mixture(adapters: int, rows: int) -> Work:
    import peft
    import torch

    settings = {"r": 8, "target_modules": ["query", "value", "q_proj", "v_proj"], "modules_to_save": ["classifier"]}
    model = peft.get_peft_model(torch_model(VIT_S), peft.LoraConfig(**settings), adapter_name="0")
    for seed in range(1, adapters):
        model.add_adapter(str(seed), peft.LoraConfig(**settings))
    for name, tensor in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(tensor, std=0.02)
    model.eval()
    model.set_adapter("0")
    mixture = {"adapter_names": [str(i) for i in range(rows)]} if adapters > 1 else {}
    pictures = noise(rows, 224)
    yield {}
    with torch.no_grad():
        while True:
            began = time.perf_counter()
            scores, labels = torch.softmax(model(pixel_values=normalised(pictures), **mixture).logits.cpu(), -1).max(-1)
            list(zip(labels.tolist(), scores.tolist(), strict=True))
            yield {"seconds": time.perf_counter() - began}


# -- sixteen tasks --------------------------------------------------------------------------------------------------------


def our_tasks(checkpoint: str, out: str, cache: str) -> Work:
    os.environ["GRAFTAX_CACHE"] = cache
    from graftax.cache import use_compilation_cache

    use_compilation_cache()
    import graftax

    backbone = graftax.load_backbone(checkpoint)
    pictures = noise(PICTURES, 96)
    data = [{"image": picture, "label": f"label{i % LABELS}"} for i, picture in enumerate(pictures)]
    recipe = graftax.Recipe(epochs=EPOCHS, lr=1e-3, batch_size=16)
    method = graftax.LoRA(r=8, targets=TARGETS)
    graftax.train_many(
        backbone,
        {f"task{i}": data for i in range(TASKS)},
        out,
        task="image-classify",
        method=method,
        recipe=recipe,
        progress=False,
    )
    yield {}


def peft_tasks(checkpoint: str, out: str) -> Work:
    import peft
    import torch
    from transformers import AutoModelForImageClassification

    base = AutoModelForImageClassification.from_pretrained(checkpoint, num_labels=LABELS)
    pixels, labels = normalised(noise(PICTURES, 96)), torch.arange(PICTURES) % LABELS
    for task in range(TASKS):
        settings = {"r": 8, "target_modules": TARGETS, "modules_to_save": ["classifier"]}
        model = peft.get_peft_model(base, peft.LoraConfig(**settings)).train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()  # its statistics are frozen, as in graftax
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, 1e-3)
        for _ in range(EPOCHS):
            for batch in torch.randperm(PICTURES).split(16):
                optimizer.zero_grad()
                model(pixel_values=pixels[batch], labels=labels[batch]).loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
        model.save_pretrained(str(Path(out) / f"task{task}"))
        base = model.unload()
    yield {}


def save_checkpoint(raw: dict[str, Any], folder: str) -> Work:
    """A random one that both sides read, of pictures that come in its size."""
    torch_model(raw, labels=LABELS).save_pretrained(folder)
    side = raw["image_size"]
    preparation = {"image_processor_type": "ViTImageProcessor", "size": {"height": side, "width": side}}
    Path(folder, "preprocessor_config.json").write_text(json.dumps(preparation))
    yield {}


# -- what brings pictures to the step -------------------------------------------------------------------------------------


def decoded(count: int) -> Work:
    """JPEG files to prepared pictures, and these to a batch of floats; `count` at a time."""
    import numpy as np
    from PIL import Image

    from graftax.data.batches import Shape
    from graftax.models.pictures import Pictures
    from graftax.models.preprocessor_config import preparation_of

    coarse = np.random.default_rng(0).integers(0, 256, (count, 12, 16, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}')
        processor = Pictures(preparation_of(folder, VIT_B))
        files = [Path(folder) / f"{i}.jpg" for i in range(count)]
        for file, small in zip(files, coarse, strict=True):
            content = io.BytesIO()
            Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
            file.write_bytes(content.getvalue())
        rows = [processor.asked(file, str(file), None)["image"] for file in files]
        yield {}
        while True:
            began = time.perf_counter()
            items = processor.items({"image": rows}, 1)
            middle = time.perf_counter()
            processor.lay(items, [(i, 0) for i in range(count)], Shape(count, count, shared=False))
            yield {"seconds": middle - began, "laid": time.perf_counter() - middle}


def told_pipeline(count: int, rows: int) -> None:
    worker = Worker(decoded, count=count)
    steps = [worker.step() for _ in range(6)][1:]
    worker.close()
    seconds, laid = (statistics.median(step[name] for step in steps) for name in ("seconds", "laid"))
    print(f"decoded and prepared, once a training: {count / seconds:.0f} pictures a second; laid: {count / laid:.0f}")
    plain, varied = (Worker(our_step, raw=VIT_S, rows=rows, augment=augment) for augment in (None, AUGMENT))
    result = duel(plain, varied, repeats=5, warmup=1)
    print(f"a step of ViT-S/16: {rows / result['ours']:.1f} pictures a second, {rows / result['theirs']:.1f} with {AUGMENT}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pieces", nargs="*", default=["step", "probe", "mixed", "tasks", "pipeline"])
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    if "step" in args.pieces:
        sides = Worker(our_step, raw=VIT_B, rows=8), Worker(peft_step, raw=VIT_B, rows=8)
        report(row("LoRA step, ViT-B/16, 8 pictures", duel(*sides, args.repeats, warmup=1), "heap kept on both sides"))
    if "probe" in args.pieces:
        for kept, which in ((False, "the first epoch"), (True, "a later epoch")):
            sides = Worker(our_probe, rows=32, count=64, kept=kept), Worker(torch_probe, rows=32, count=64)
            what = f"probe on ResNet-50, 64 pictures, {which}"
            report(row(what, duel(*sides, args.repeats, warmup=1), "torch computes the features in every epoch"))
    if "mixed" in args.pieces:
        for adapters, which in ((32, "32 adapters"), (1, "one adapter")):
            sides = Worker(our_mixture, adapters=adapters, rows=32), Worker(peft_mixture, adapters=adapters, rows=32)
            report(row(f"32 pictures to labels, ViT-S/16, {which}", duel(*sides, args.repeats, warmup=1)))
    if "tasks" in args.pieces:
        with tempfile.TemporaryDirectory() as out:
            Worker(save_checkpoint, raw=MOBILENET, folder=f"{out}/base").close()
            theirs = Worker(peft_tasks, checkpoint=f"{out}/base", out=f"{out}/peft")
            theirs.close()
            for cached in ("an empty", "a warm"):
                ours = Worker(our_tasks, checkpoint=f"{out}/base", out=f"{out}/{cached.split()[-1]}", cache=f"{out}/cache")
                ours.close()
                what = f"{TASKS} tasks of {PICTURES} pictures, MobileNetV2 at 96 x 96, {EPOCHS} epochs"
                what += f", cold process to saved adapters, {cached} compilation cache"
                report(row(what, summary([(ours.ready, theirs.ready)]), "one run"))
    if "pipeline" in args.pieces:
        told_pipeline(count=64, rows=16)
