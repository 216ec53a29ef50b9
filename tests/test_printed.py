"""What strangers wrote (tensors' names, keys, labels), where a command prints it: a terminal is shown it and never obeys it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import logits, random_adapter
from conftest import Graftax, Said
from safetensors.numpy import load_file, save_file
from tiny import write_csv

from graftax import LoRA, save_adapter
from graftax.models.backbone import Backbone

#: Colours, a window's title, the eight-bit beginning of a code, and a mark that turns what follows.
CODES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202e"


def shown(said: Said) -> str:
    """All that a command printed."""
    assert all(line.isprintable() for line in (said.out + said.err).split("\n")), said
    return said.out + said.err


@pytest.fixture
def lying(tiny: Backbone, tmp_path: Path) -> Path:
    """A directory of PEFT's with codes in a tensor's name, a key and a value."""
    directory = save_adapter(random_adapter(tiny, (LoRA(r=2, alpha=3.0),)), tmp_path / "a", tiny)
    (directory / "graftax.json").unlink()
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(config | {f"key {CODES}": f"value {CODES}"}))
    file = directory / "adapter_model.safetensors"
    save_file(load_file(file) | {f"tensor {CODES}": np.zeros(2, np.float32)}, file)
    return directory


def test_inspect_shows_codes_written_out(graftax: Graftax, lying: Path) -> None:
    said = graftax("inspect", lying)
    assert said.code == 0
    for what in ("key", "value", "tensor"):
        assert f"{what} \\x1b[31mred" in shown(said) or f"{what} \\u001b[31mred" in said.out


def test_an_error_shows_them_written_out(graftax: Graftax, tiny_dir: Path, lying: Path) -> None:
    said = graftax("predict", "-b", tiny_dir, "-a", f"a={lying}", "-i", "-", stdin='{"text": "apple"}\n')
    assert said.code == 2
    assert "\\x1b[31mred" in shown(said)


def test_labels_are_shown_written_out(graftax: Graftax, tiny: Backbone, tiny_dir: Path, tmp_path: Path) -> None:
    """By predict as JSON, which says the same; by eval in its table."""
    labels = tuple(f"{name} {CODES}" for name in "xyz")
    made = replace(random_adapter(tiny, (LoRA(r=2, alpha=3.0),)), labels=labels)
    directory = save_adapter(made, tmp_path / "a", tiny)
    said = graftax("predict", "-b", tiny_dir, "-a", f"a={directory}", "-i", "-", stdin='{"text": "apple"}\n')
    processor = tiny.processor
    (found,) = logits(tiny, made, processor.pad(processor(["apple"], None, 8), 1, 8))
    assert json.loads(shown(said))["label"] == labels[found.argmax()]
    data = write_csv(tmp_path / "rows.csv", [{"text": "apple", "label": label} for label in labels])
    shown(graftax("eval", "-b", tiny_dir, "-a", directory, "-d", data))
    shown(graftax("eval", "-b", tiny_dir, "-a", directory, "-d", data, "--json"))
    shown(graftax("inspect", directory))
