"""What objects print: a line or two, whatever they hold; a table in notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from of_texts import read_examples
from tiny import toy_rows

from graftax import Adapter, Columns, Continuation, Generator, LoRA, Predictor, Recipe, Result
from graftax.adapters import Layout
from graftax.models.backbone import Backbone
from graftax.serve import Prediction
from graftax.tasks.task_registry import task_named
from graftax.train.intake import prepare


@pytest.fixture
def things(tiny: Backbone, teller: Backbone) -> dict[str, Any]:
    """One of each, with as many labels, rows and adapters as make a repr long."""
    labels = tuple(f"label {i} <b>" for i in range(150))
    adapter = Adapter.create((LoRA(), tiny.head(150)), tiny.sites, labels=labels, metrics={"accuracy": 0.75})
    predictor, generator = Predictor(tiny), Generator(teller)
    for i in range(30):
        predictor.load(f"adapter {i}", Adapter.create((LoRA(r=1), tiny.head(2)), tiny.sites, labels=("a", "b")))
    history = [{"epoch": i, "loss": 1.0} for i in range(500)]
    rows, known = toy_rows(count=400), {"val": None, "method": LoRA(), "recipe": Recipe(max_length=16), "columns": Columns()}
    return {
        "Backbone": tiny,
        "Adapter": adapter,
        "Predictor": predictor,
        "Generator": generator,
        "Layout": Layout.of([adapter], tiny.sites),
        "Result": Result("bank", Path("adapters/bank"), {"loss": 0.123456789}, 0.1, history=history),
        "Prediction": Prediction("bank", "a", 0.5, dict.fromkeys(labels, 0.1)),
        "Continuation": Continuation("sea", "a ship", (1,) * 500, "length"),
        "Recipe": Recipe(),
        "Examples": read_examples(rows, Columns(), "classify"),
        "Job": prepare("bank", rows, backbone=tiny, task=task_named("classify"), **known),
    }


def test_short(things: dict[str, Any]) -> None:
    """Two lines at most, that begin with what it is; and no arrays are walked through for them."""
    for name, thing in things.items():
        assert repr(thing).startswith(f"{name}("), name
        assert len(repr(thing)) < 320, (name, len(repr(thing)))
        assert "\n" not in repr(thing), name


def test_what_they_say(things: dict[str, Any], tiny: Backbone) -> None:
    """The facts that tell one from another."""
    count = sum(array.size for array in tiny.arrays().values())
    assert f"family='bert', layers=2, hidden=32, parameters={count:,}, weights='float32'" in repr(tiny)
    assert "method='lora+head', task='classify', parameters=6,998, labels=[label 0 <b>, label 1 <b>" in repr(things["Adapter"])
    assert repr(things["Result"]) == "Result(name='bank', directory='adapters/bank', epochs=500, metrics=[loss 0.1235])"


def test_notebooks(things: dict[str, Any]) -> None:
    """A table, whole, in which names are no markup."""
    page = things["Adapter"]._repr_html_()
    assert page.startswith("<table><caption>Adapter</caption>")
    assert "label 149 &lt;b&gt;" in page
    assert "<b>" not in page
