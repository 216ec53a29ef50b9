"""What of an adapter's directory is used, whoever made it: its own files, as data (docs/files.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cases import randomised

from graftax import Adapter, Generator, GraftaxError, LoRA, load_adapter, save_adapter
from graftax.models.backbone import Backbone
from graftax.models.chat import TEMPLATES
from graftax.serve import evaluate_language

CHAT = [{"role": "user", "content": "ab"}]
FOR_EVER = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
BESIDE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "config.json")
BESIDE += ("generation_config.json", "modeling.py", "README.md")


@pytest.fixture
def directory(teller: Backbone, tmp_path: Path) -> Path:
    made = Adapter.create((LoRA(r=2, targets=("q_proj",)),), teller.sites, task="sft", fingerprint=teller.fingerprint)
    return save_adapter(randomised(made), tmp_path / "adapter", teller)


def brings(directory: Path, template: Any) -> Path:
    facts = json.loads((directory / "graftax.json").read_text())
    (directory / "graftax.json").write_text(json.dumps({**facts, "recipe": {"chat_template": template}}))
    return directory


def answers(backbone: Backbone, directory: Path, **settings: Any) -> list[str]:
    generator = Generator(backbone, **settings)
    generator.load("a", directory)
    return [one.text for one in generator.generate([CHAT, "ab"], "a", max_new_tokens=3)]


def test_files_beside_an_adapters_own_are_not_looked_at(teller: Backbone, directory: Path) -> None:
    expected = answers(teller, directory)
    for name in BESIDE:
        (directory / name).write_text(FOR_EVER)
    (directory / "tokenizer.model").mkdir()
    assert answers(teller, directory) == expected


def test_a_template_of_its_own_does_not_run(teller: Backbone, directory: Path) -> None:
    """It would run for a million years. Texts need none; one that is given takes its place."""
    brings(directory, FOR_EVER)
    with pytest.raises(GraftaxError, match="prompt 1: the adapter brings a chat template of its own"):
        answers(teller, directory)
    rows = [{"messages": [*CHAT, {"role": "assistant", "content": "b"}]}]
    with pytest.raises(GraftaxError, match="row 1: the adapter brings a chat template of its own"):
        evaluate_language(teller, load_adapter(directory, teller), rows)
    given = answers(teller, directory, chat_template="plain")
    brings(directory, "plain")
    assert answers(teller, directory) == given
    brings(directory, TEMPLATES["plain"][0])
    assert answers(teller, directory) == answers(teller, directory, chat_template="adapter") == given


def test_a_template_that_is_none_is_one_line(teller: Backbone, directory: Path) -> None:
    for wrong in (5, "no template", ["plain"]):
        with pytest.raises(GraftaxError, match="chat template"):
            answers(teller, brings(directory, wrong))
