"""A complete tiny backbone on disk (config, weights, tokenizer) and toy data that is learnt in seconds."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from graftax.models.random import random_tensors
from graftax.models.towers import tower_said

FRUIT = ["apple", "pear", "plum", "cherry", "grape", "melon"]
METAL = ["iron", "gold", "zinc", "copper", "silver", "lead"]
FILLER = ["the", "a", "shop", "sells", "old", "and", "new", "red", "heavy", "fresh", "today", "cheap"]

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 160,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


@cache
def tokenizer_json() -> str:
    """A WordPiece tokenizer with BERT's template; its vocabulary is fixed, as training one is not reproducible."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FRUIT, *METAL, *FILLER, *".,-?!0123456789", *letters]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, "##s", *(f"##{c}" for c in letters)]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(pieces[:5])
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


def write_backbone(directory: Path, seed: int = 7, **changes: Any) -> Path:
    """A backbone with random weights as Hugging Face stores it."""
    directory.mkdir(parents=True, exist_ok=True)
    config = CONFIG | changes
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(tokenizer_json())
    # weights ten times the usual start: outputs then depend on the text strongly enough to be learnt from
    tensors = {key: 10 * t if "LayerNorm" not in key else t for key, t in random_tensors(config, seed).items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


#: Two tiny towers.
TOWERS: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 16,
    "vision_config": {"image_size": 8, "patch_size": 4},
    "text_config": {"vocab_size": 160, "max_position_embeddings": 24, "eos_token_id": 3},
}


def write_towers(directory: Path, seed: int = 7, wide: int = 48) -> Path:
    """CLIP with random weights, and a tokenizer, as Hugging Face stores them."""
    directory.mkdir(parents=True, exist_ok=True)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": wide}
    config = {key: value | sizes if isinstance(value, dict) else value for key, value in TOWERS.items()}
    tensors = {"logit_scale": np.full((), np.log(20.0), np.float32)}
    for name, prefix in (("image", "vision_model."), ("text", "text_model.")):
        for key, tensor in random_tensors(tower_said(config, name, "tiny"), seed).items():
            tensors[key if "projection" in key else prefix + key] = 10 * tensor if "norm" not in key else tensor
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(tokenizer_json())
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


#: A tiny decoder; its tokenizer knows bytes alone.
DECODER: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 272,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
CHAT += "{% if add_generation_prompt %}<assistant>{% endif %}"


def write_decoder(directory: Path, seed: int = 7, chat: str | None = CHAT, **changes: Any) -> Path:
    """A language model with random weights, and a tokenizer with bytes for tokens, as Hugging Face stores them."""
    directory.mkdir(parents=True, exist_ok=True)
    config = DECODER | changes
    (directory / "config.json").write_text(json.dumps(config))
    special = ["<pad>", "<s>", "</s>"]
    vocabulary = {piece: i for i, piece in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(directory / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(said | ({"chat_template": chat} if chat else {})))
    tensors = {key: 10 * t if "norm" not in key else t for key, t in random_tensors(config, seed).items()}
    tensors = {key if key == "lm_head.weight" else f"model.{key}": t for key, t in tensors.items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def toy_rows(task: str = "classify", count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Short sentences of three to seven words that name a fruit or a metal; what is asked is which."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        fruit = i % 2 == 0
        words = [str(w) for w in random.choice(FILLER, int(random.integers(2, 7)))]
        index = int(random.integers(0, len(words) + 1))
        words.insert(index, str(random.choice(FRUIT if fruit else METAL)))
        if task == "tag":
            tags = ["B-FRUIT" if word in FRUIT else "B-METAL" if word in METAL else "O" for word in words]
            rows.append({"text": words, "label": tags})
        else:
            label: Any = {"classify": "fruit" if fruit else "metal", "regress": 1.0 if fruit else -1.0}.get(task)
            if task == "multilabel":
                label = ["any", "fruit"] if fruit else ["any"]
            rows.append({"text": " ".join(words), "label": label})
    return rows


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Rows as CSV, lists joined as the reader splits them."""

    def cell(key: str, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return " ".join(value) if key == "text" or any("-" in v or v == "O" for v in value) else "|".join(value)

    rows = [{key: cell(key, value) for key, value in row.items()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def weights_of(directory: Path) -> bytes:
    """The bytes of an adapter's tensors."""
    return (directory / "adapter_model.safetensors").read_bytes()


def command_line(*arguments: object) -> list[str]:
    """A `graftax` command for a process of its own, in this environment."""
    return [sys.executable, "-m", "graftax", *map(str, arguments)]


def edited(file: Path, **changes: Any) -> None:
    """Set keys of a JSON object in a file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
