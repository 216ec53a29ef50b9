"""A stranger's kind of input: three files of `toy_kind/`, a line that registers each, and everything else is graftax."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import write_csv
from toy_kind.toy_family import FAMILY
from toy_kind.toy_task import Amount

from graftax import BitFit, GraftaxError, LoRA, Predictor, Recipe, load_adapter, load_backbone, merge, train_many
from graftax.models import family_registry as families
from graftax.models.backbone import Backbone
from graftax.serve import evaluate
from graftax.tasks import task_registry as tasks

RECIPE = Recipe(epochs=60, lr=0.05, batch_size=16)
FIELDS = ("a", "b", "c")


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """The two lines; taken back behind the tests, for others look at all that there are."""
    families.add_family(FAMILY)
    tasks.add_task(Amount())
    yield
    del families.FAMILIES["toy_table"], tasks.TASKS["toy-amount"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("table")
    shapes = {"first.weight": (16, 3), "first.bias": (16,), "second.weight": (16, 16), "second.bias": (16,)}
    save_file({k: 0.5 * random.standard_normal(s).astype(np.float32) for k, s in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "toy_table"}))
    return folder


@pytest.fixture(scope="module")
def backbone(directory: Path) -> Backbone:
    return load_backbone(directory)


def rows_of(weights: tuple[float, ...], seed: int, count: int = 64) -> list[dict[str, Any]]:
    """Numbers, and a sum of them."""
    numbers = np.random.default_rng(seed).uniform(-1, 1, (count, 3))
    return [dict(zip(FIELDS, row.tolist(), strict=True)) | {"label": float(row @ weights)} for row in numbers]


@pytest.fixture(scope="module")
def trained(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of two adapters, of rows in memory and in a file with a column of another name."""
    out = tmp_path_factory.mktemp("out")
    for name, weights, seed in (("sum", (1.0, 1.0, 1.0), 1), ("difference", (1.0, -1.0, 0.0), 2)):
        write_csv(out / f"{name}.csv", rows_of(weights, seed))
    data = {name: out / f"{name}.csv" for name in ("sum", "difference")}
    known = {"method": LoRA(targets=("first", "second")), "task": Amount(), "recipe": RECIPE}
    train_many(backbone, data, out / "run", val=0.2, pack_size=2, progress=False, **known)
    return out


def test_it_learns_and_is_saved(backbone: Backbone, trained: Path) -> None:
    for name in ("sum", "difference"):
        adapter = load_adapter(trained / "run" / name, backbone)
        assert (adapter.task, adapter.metrics["val_pearson"] > 0.98) == ("toy-amount", True)
        assert {site.name for site in adapter.states["lora"]} == {"first", "second"}


def test_rows_of_a_batch_have_an_adapter_each(backbone: Backbone, trained: Path) -> None:
    """Mixed rows answer as each adapter alone; and a merged backbone with the head as the adapter."""
    predictor = Predictor(backbone)
    for name in ("sum", "difference"):
        predictor.load(name, trained / "run" / name)
    row = {"a": 0.5, "b": 0.25, "c": -0.5}
    both = [one.label for one in predictor.predict([row, row], ["sum", "difference"])]
    assert both == pytest.approx([0.25, 0.25], abs=0.15)
    assert both == pytest.approx([predictor.predict([row], name)[0].label for name in ("sum", "difference")], abs=1e-5)
    assert evaluate(predictor, "sum", rows_of((1.0, 1.0, 1.0), 7))["pearson"] > 0.98
    merged, rest = merge(backbone, load_adapter(trained / "run" / "sum", backbone))
    alone = Predictor(merged)
    alone.load("head", rest)
    assert alone.predict([row], "head")[0].label == pytest.approx(both[0], abs=1e-4)
    assert predictor.embed([row, row]).shape == (2, 16)


def test_other_methods_and_a_probe(backbone: Backbone, tmp_path: Path) -> None:
    data = {"x": rows_of((1.0, 1.0, 1.0), 1)}
    for name, method in {"bitfit": BitFit(), "probe": None}.items():
        found = train_many(backbone, data, tmp_path / name, method=method, task="toy-amount", recipe=RECIPE, progress=False)
        assert found["x"].metrics["loss"] < 0.3


def test_the_command_line(
    directory: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graftax.cli import app

    def run(*words: Any) -> str:
        app([*map(str, words)], standalone_mode=False)
        return capsys.readouterr().out

    base, data = ["-b", directory], trained / "sum.csv"
    run(
        "train",
        *base,
        "--data",
        data,
        "-o",
        tmp_path,
        "--task",
        "toy-amount",
        "--epochs",
        60,
        "--lr",
        0.05,
        "--target",
        "second",
    )
    metrics = json.loads(run("eval", *base, "--adapter", tmp_path / "sum", "--data", data, "--json"))
    assert metrics["pearson"] > 0.9
    (tmp_path / "asked.jsonl").write_text('{"a": 1, "b": 0.5, "c": 0}\n')
    said = json.loads(run("predict", *base, "-a", tmp_path / "sum", "-i", tmp_path / "asked.jsonl"))
    assert said["label"] == pytest.approx(1.5, abs=0.4)
    assert "toy-amount" in run("inspect", tmp_path / "sum")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda b, t: train_many(b, {"x": [{"a": 1, "b": 2, "label": 3}]}, t, task="toy-amount"), "no column 'c'"),
        (
            lambda b, t: train_many(b, {"x": [{"a": "one", "b": 2, "c": 1, "label": 3}]}, t, task="toy-amount"),
            "'one' is not a number",
        ),
        (lambda b, t: train_many(b, {"x": rows_of((1.0, 0.0, 0.0), 1)}, t, task="tag"), "task 'tag' is about texts"),
        (lambda b, t: train_many(b, {"x": rows_of((1.0, 0.0, 0.0), 1)}, t, task="lm"), "task 'lm' is about texts"),
        (lambda b, t: Predictor(b).embed(["a text"]), "row 1 is 'a text'; a row is a mapping from a, b, c to values"),
        (lambda b, t: Predictor(b).embed([{"a": 1}]), "row 1 has no b, c"),
    ],
)
def test_what_does_not_fit_is_said(
    call: Callable[[Backbone, Path], Any], line: str, backbone: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(GraftaxError) as refused:
        call(backbone, tmp_path)
    assert line in str(refused.value)


def test_each_file_is_short() -> None:
    """Under a hundred lines."""
    lengths = {
        file.name: len(file.read_text("utf-8").splitlines()) for file in Path(__file__).with_name("toy_kind").glob("*.py")
    }
    assert max(lengths.values()) < 100
    assert lengths.keys() == {"__init__.py", "toy_family.py", "toy_processor.py", "toy_task.py"}
