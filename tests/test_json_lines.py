"""What commands print as JSON: the fields that docs/cli.md lists, no other, each of its type; counts are whole numbers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Graftax, Said
from tiny import toy_rows, write_jsonl

from graftax import Adapter, LoRA, save_adapter
from graftax.models.backbone import Backbone

DOCUMENTED = Path(__file__).resolve().parent.parent / "docs" / "cli.md"


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    return value is None or isinstance(value, float)


def is_pair(value: Any) -> bool:
    """An entry of a table of confusions."""
    return value.keys() == {"label", "answer", "count"} and type(value["count"]) is int


#: What a field is, in the table's words.
KINDS: dict[str, Callable[[Any], bool]] = {
    "text": is_text,
    "text or null": lambda value: value is None or is_text(value),
    "by task": lambda value: True,
    "true": lambda value: value is True,
    "count": lambda value: type(value) is int,
    "number": is_number,
    "list of numbers": lambda value: all(map(is_number, value)),
    "numbers by name": lambda value: all(map(is_number, value.values())),
    "list of objects": lambda value: all(map(is_pair, value)),
    "object or null": lambda value: value is None or value.keys() == {"answer", "said", "evidence", "values", "missed"},
    "list of texts": lambda value: all(map(is_text, value)),
    "list of counts": lambda value: all(type(one) is int for one in value),
    "true or false": lambda value: type(value) is bool,
}
#: What is there of pictures alone, by command; tests/test_explanations.py and test_segmentation.py see to it.
OF_PICTURES = {
    "explain": {"grid"},
    **{
        "predict": {"classes", "mask", "objects"},
        "eval": {"mean_iou", "pixel_accuracy", "iou_CLASS", "unseen", "map", "map_50", "map_75", "ap_CLASS"},
    },
}
FIELDS: dict[str, dict[str, str]] = defaultdict(dict)  # by command: field -> what it is
for command, name, json_type in re.findall(
    r"^\| `(\w+)` \| `(\w+)` \| ([^|`]+) \|", DOCUMENTED.read_text("utf-8"), re.MULTILINE
):
    FIELDS[command][name] = json_type


@pytest.fixture(scope="module")
def folder(tiny: Backbone, teller: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for each task, and rows for each."""
    made = tmp_path_factory.mktemp("json")
    for task in ("classify", "multilabel", "regress", "tag"):
        labels = {"regress": ("value",), "tag": ("O", "B-FRUIT"), "multilabel": ("any", "fruit")}.get(task, ("fruit", "iron"))
        known = {"task": task, "labels": labels, "fingerprint": tiny.fingerprint}
        head = tiny.head(len(labels), tokens=task == "tag")
        save_adapter(Adapter.create((LoRA(r=2), head), tiny.sites, **known), made / task, tiny)
        rows = toy_rows(task, 6)
        if task == "classify":
            rows[0]["text"] = "plum " * 100  # more than the backbone reads
        write_jsonl(made / f"{task}.jsonl", rows)
    for task in ("lm", "sft", "dpo"):
        known = {"task": task, "fingerprint": teller.fingerprint}
        save_adapter(Adapter.create((LoRA(r=2),), teller.sites, **known), made / task, teller)
        row = {"text": "a plum", "prompt": "a", "completion": "b", "chosen": "b", "rejected": "c"}
        write_jsonl(made / f"{task}.jsonl", [row] * 3)
    return made


def lines_of(said: Said) -> list[dict[str, Any]]:
    assert said.code == 0, said
    return [json.loads(line) for line in said.out.splitlines()]


def test_fields_are_those_documented(graftax: Graftax, folder: Path, tiny_dir: Path, teller_dir: Path, tmp_path: Path) -> None:
    """Each of its type, and each that is documented is there somewhere. The labels "metal", and "B-METAL", are unknown here."""
    printed: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for task in ("classify", "multilabel", "regress", "tag"):
        common = ["-b", tiny_dir, "-a", folder / task]
        printed["eval"] += lines_of(graftax("eval", *common, "-d", folder / f"{task}.jsonl", "--json"))
        asked = ["-i", folder / f"{task}.jsonl"] + (["--top-k", 1] if task in ("classify", "multilabel") else [])
        printed["predict"] += lines_of(graftax("predict", *common, *asked))
    several = ["-a", folder / "classify", "-a", f"two={folder / 'classify'}", "--report", tmp_path / "seen"]
    printed["eval"] += lines_of(graftax("eval", "-b", tiny_dir, "-d", folder / "classify.jsonl", *several, "--json"))
    printed["embed"] += lines_of(graftax("embed", "-b", tiny_dir, "-i", "-", stdin='{"text": "plum", "adapter": null}\n'))
    for task in ("lm", "sft", "dpo"):
        common = ["-b", teller_dir, "-a", folder / task, "-d", folder / f"{task}.jsonl", "--json"]
        printed["eval"] += lines_of(graftax("eval", *common))
    common = ["-b", teller_dir, "--max-new-tokens", 2]
    printed["generate"] += lines_of(graftax("generate", *common, "-p", "a", "--json"))
    for score in ("text", "gsm8k"):
        asked = ["--generate", "--score", score, "-d", folder / "sft.jsonl", "--json"]
        printed["eval"] += lines_of(graftax("eval", *common, *asked))
    explained = ["-d", folder / "classify.jsonl", "--rows", 2, "--steps", 2, "--draws", 1, "--out", tmp_path / "why", "--json"]
    printed["explain"] += lines_of(graftax("explain", "-b", tiny_dir, "-a", folder / "classify", *explained))
    rows = toy_rows("classify", 6)
    assert [line["truth"] for line in printed["explain"]] == [rows[0]["label"], rows[5]["label"]]  # at equal distances
    assert "".join(printed["explain"][1]["tokens"]) == rows[5]["text"].replace(" ", "")
    assert printed.keys() == FIELDS.keys()
    for command, lines in printed.items():
        assert {name for line in lines for name in line} == {*FIELDS[command]} - OF_PICTURES.get(command, set()), command
        for line in lines:
            for name, value in line.items():
                assert KINDS[FIELDS[command][name]](value), (command, name, value)


def test_a_count_is_printed_as_one(graftax: Graftax, folder: Path, tiny_dir: Path) -> None:
    """On a terminal, too: three rows of six have a label that the adapter does not know."""
    said = graftax("eval", "-b", tiny_dir, "-a", folder / "classify", "-d", folder / "classify.jsonl")
    assert re.search(r"^unknown_labels 3$", said.out, re.MULTILINE)
