"""Rows that are longer than the length limit are cut, and it is said of how many; nothing is said where none is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Graftax
from noted import noted
from of_texts import read_examples
from tiny import toy_rows, write_csv, write_jsonl

from graftax import Adapter, Average, LoRA, Predictor, Recipe, save_adapter, train_many
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer
from graftax.serve.evaluation import measure
from graftax.tasks.task_registry import TASKS
from graftax.train import Columns

ROOM = 16  # tokens: 14 words between [CLS] and [SEP]
FULL, LONG = " ".join(["plum"] * 14), " ".join(["plum"] * 15)


def an_adapter(backbone: Backbone, **recipe: Any) -> Adapter:
    methods = (LoRA(), backbone.head(2))
    known = {"labels": ("fruit", "metal"), "fingerprint": backbone.fingerprint, "recipe": recipe}
    return Adapter.create(methods, backbone.sites, **known)


@pytest.mark.parametrize(
    ("task", "rows", "cut"),
    [
        ("classify", [{"text": text, "label": "x"} for text in ("a", FULL, LONG, LONG * 9)], (2, 4)),
        ("classify", [{"text": "plum", "label": "x", "pair": text} for text in ("", FULL, "plum " * 12)], (1, 3)),
        ("regress", [{"text": text, "label": 1.0} for text in (FULL, LONG)], (1, 2)),
        ("sft", [{"prompt": "p" * 5, "completion": "c" * n} for n in (1, 9, 10, 40)], (2, 4)),
        ("seq2seq", [{"prompt": "p" * n, "completion": "c" * m} for n, m in ((15, 14), (16, 1), (1, 15))], (2, 3)),
        ("dpo", [{"prompt": "p", "chosen": "c" * n, "rejected": "r" * m} for n, m in ((2, 3), (40, 2), (40, 40))], (2, 3)),
    ],
)
def test_how_many_are_cut(tiny: Backbone, teller: Backbone, task: str, rows: Any, cut: tuple[int, int]) -> None:
    """Rows of the data, whatever texts they have; a text of just so many tokens is whole."""
    columns = Columns(pair="pair" if "pair" in rows[0] else None)
    rows = [row | ({"pair": row["pair"] or "a"} if "pair" in row else {}) for row in rows]
    examples = read_examples(rows, columns, task)
    tokenizer = Tokenizer.of(tiny if TASKS[task].output.headed else teller)
    labels = ("x", "O") if TASKS[task].output.headed else ()
    assert TASKS[task].prepare(examples, labels, tokenizer, ROOM, truncate=True).cut == cut


def test_pieces_lose_nothing(tiny: Backbone, teller: Backbone) -> None:
    tags = read_examples([{"text": LONG * 3, "label": "O " * len((LONG * 3).split())}], Columns(), "tag")
    assert TASKS["tag"].prepare(tags, ("x", "O"), Tokenizer.of(tiny), ROOM).cut[0] == 0
    text = read_examples([{"text": "x" * 100}], Columns(), "lm")
    assert TASKS["lm"].prepare(text, (), Tokenizer.of(teller), ROOM).cut[0] == 0


def test_a_turn_that_is_cut_away(teller: Backbone) -> None:
    """Of a chat that has a row for every turn, the last turns may be beyond the limit: then the chat is cut."""
    drops = "{% for m in messages %}<{{ m.content if loop.last or m.role == 'user' else '' }}>{% endfor %}"
    ask, say = {"role": "user", "content": "ab"}, {"role": "assistant", "content": "cdef"}
    tokenizer = Tokenizer.of(teller).with_template(drops)
    examples = read_examples([{"messages": [ask, say, ask, say]}], Columns(), "sft")
    whole = TASKS["sft"].prepare(examples, (), tokenizer, 90)
    assert (len(whole.items), whole.cut) == (2, (0, 1))
    cut = TASKS["sft"].prepare(examples, (), tokenizer, len(whole.items[0]), truncate=True)
    assert (len(cut.items), cut.cut) == (1, (1, 1))


def test_training_says_it_once_of_each_data_set(tiny: Backbone, tmp_path: Path) -> None:
    """Of training rows, those held out among them, and of validation rows; the count is of all rows."""
    long = [{"text": LONG, "label": "fruit"}] * 3
    data = {"bank": toy_rows(count=20) + long, "air": toy_rows(count=20)}
    settings: dict[str, Any] = {"recipe": Recipe(epochs=1, max_length=ROOM), "progress": False, "pack_size": 1}
    assert noted(lambda: train_many(tiny, data, tmp_path / "a", val=0.3, **settings)) == [
        "bank: 3 of 23 rows cut at 16 tokens (max_length)."
    ]
    held = toy_rows(count=8, seed=9) + long[:1]
    assert noted(lambda: train_many(tiny, {"air": data["air"]}, tmp_path / "b", val={"air": held}, **settings)) == [
        "air, validation: 1 of 9 rows cut at 16 tokens (max_length)."
    ]


def test_a_predictor_says_it_once_for_each_adapter(tiny: Backbone) -> None:
    """And each answer says of its own row whether it was cut; an adapter that reads more cuts nothing."""
    predictor = Predictor(tiny)
    predictor.load("bank", an_adapter(tiny, max_length=ROOM))
    predictor.load("air", an_adapter(tiny, max_length=ROOM + 4))
    texts, names = [LONG, FULL, LONG, LONG, LONG], ["bank", "bank", "bank", "air", None]
    answers: list[Any] = []
    assert noted(lambda: answers.extend(predictor.predict(texts, names))) == [
        "bank: 2 of 3 rows cut at 16 tokens (max_length)."
    ]
    assert [answer.cut for answer in answers] == [True, False, True, False, False]
    assert noted(lambda: predictor.embed(texts, names)) == ["bank: 2 of 3 rows cut at 16 tokens (max_length)."]
    both = Average("bank", "air")
    assert noted(lambda: predictor.predict([LONG], [both])) == [f"{both}: 1 of 1 rows cut at 16 tokens (max_length)."]
    assert noted(lambda: predictor.predict([FULL] * 5, names)) == []


def test_measuring_counts_them(tiny: Backbone) -> None:
    predictor = Predictor(tiny)
    predictor.load("bank", an_adapter(tiny, max_length=ROOM))
    rows = [{"text": text, "label": "fruit"} for text in (FULL, LONG, FULL, LONG)]
    assert measure(predictor, "bank", rows).metrics["cut_rows"] == 2.0
    assert "cut_rows" not in measure(predictor, "bank", rows[:1]).metrics


def test_commands_say_it(graftax: Graftax, tiny: Backbone, tiny_dir: Path, tmp_path: Path) -> None:
    """On standard error in a line, and in what is JSON where the rows are."""
    save_adapter(an_adapter(tiny, max_length=ROOM), tmp_path / "bank", tiny)
    rows = [{"text": text, "label": "fruit"} for text in (FULL, LONG, FULL, LONG)]
    data, asked = write_csv(tmp_path / "rows.csv", rows), write_jsonl(tmp_path / "rows.jsonl", rows)
    line = "graftax: bank: 2 of 4 rows cut at 16 tokens (max_length).\n"
    said = graftax("eval", "-b", tiny_dir, "-a", tmp_path / "bank", "-d", data, "--json")
    assert (said.code, said.err) == (0, line)
    assert json.loads(said.out)["cut_rows"] == 2.0
    said = graftax("predict", "-b", tiny_dir, "-a", tmp_path / "bank", "-i", asked)
    assert (said.code, said.err) == (0, line)
    assert [json.loads(row).get("cut") for row in said.out.splitlines()] == [None, True, None, True]
