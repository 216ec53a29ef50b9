"""Reading rows, and what tasks make of them: labels, losses, metrics, batches."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from of_texts import of_texts, read_examples
from seqeval.metrics import f1_score as span_f1
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef
from tiny import toy_rows, write_csv, write_jsonl

from graftax.data.batches import number_of_batches, plan_all, plan_epoch, shape_alone, shape_for
from graftax.data.examples import split
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer, Tokens
from graftax.tasks.labelled import first_tokens
from graftax.tasks.metrics import classification, multilabel, regression, spans, tagging
from graftax.tasks.outputs import IGNORE
from graftax.tasks.task_registry import TASKS
from graftax.train import Columns, Recipe
from graftax.train.step import hyper

TASK_NAMES = sorted(name for name, task in TASKS.items() if task.output.headed and task.about != "image")


def message(error: pytest.ExceptionInfo[GraftaxError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_format_reads_the_same(task: str, tmp_path: Path) -> None:
    """CSV (with and without a byte order mark), JSON lines, Parquet, a dataset and plain dicts give equal examples."""
    rows = toy_rows(task, 9)
    plain = write_csv(tmp_path / "a.csv", rows)
    marked = tmp_path / "b.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    sources = [
        plain,
        marked,
        tmp_path / "c.parquet",
        write_jsonl(tmp_path / "d.jsonl", rows),
        datasets.Dataset.from_list(rows),
        rows,
    ]
    read = [read_examples(source, Columns(), task) for source in sources]
    assert len({tuple(examples.contents()) for examples in read}) == 1
    assert len(read[0]) == 9


def test_columns_and_pairs(tmp_path: Path) -> None:
    """Other column names and a second text; quoted commas and line breaks survive."""
    path = tmp_path / "nli.csv"
    path.write_text('premise,hypothesis,gold\n"one, two","x\ny",yes\nthree,four,no\n')
    examples = read_examples(path, Columns("premise", "hypothesis", "gold"), "classify")
    assert examples.fields["text"] == ("one, two", "three")
    assert examples.fields["pair"] == ("x\ny", "four")
    assert examples.labels == ("yes", "no")


def test_no_label_at_all_is_a_label_set(tmp_path: Path) -> None:
    """A multi-label row may have no label, in CSV as an empty field."""
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x|y\nb,\n")
    assert read_examples(path, Columns(), "multilabel").labels == (("x", "y"), ())


NAN = float("nan")
BAD_FILES = {
    "no column": ("a.csv", b"body,label\nx,y\n", "classify", "no column 'text'; it has body, label"),
    "no columns": ("a.csv", b"body,tag\nx,y\n", "classify", "no column 'text', 'label'"),
    "empty": ("a.csv", b"", "classify", "no rows"),
    "header alone": ("a.csv", b"text,label\n", "classify", "no rows"),
    "empty jsonl": ("a.jsonl", b"\n\n", "classify", "no rows"),
    "empty text": ("a.csv", b"text,label\nx,y\n  ,z\n", "classify", "row 2 has nothing in column 'text'"),
    "empty label": ("a.csv", b"text,label\nx,\n", "classify", "row 1 has nothing in column 'label'"),
    "too many fields": ("a.csv", b"text,label\nx,y\na, b,z\n", "classify", "row 2 has more fields"),
    "too few fields": ("a.csv", b"text,label\nx\n", "classify", "nothing in column 'label'"),
    "open quote": ("a.csv", b'text,label\n"x,y\n', "classify", "cannot be read"),
    "NaN label": ("a.jsonl", b'{"text": "x", "label": NaN}', "regress", "row 1 has nothing in column 'label'"),
    "nan label": ("a.csv", b"text,label\nx,nan\n", "regress", "the label is 'nan'"),
    "infinite label": ("a.csv", b"text,label\nx,inf\n", "regress", "the label is 'inf'"),
    "NaN text": ("a.jsonl", b'{"text": NaN, "label": "y"}', "classify", "row 1 has nothing in column 'text'"),
    "null text": ("a.jsonl", b'{"text": null, "label": "y"}', "classify", "row 1 has nothing in column 'text'"),
    "later row lacks it": ("a.jsonl", b'{"text": "x", "label": "y"}\n{"text": "x"}', "classify", "row 2 has nothing"),
    "no number": ("a.csv", b"text,label\nx,1\ny,many\n", "regress", "row 2: 'many' is not a number"),
    "tags": ("a.csv", b"text,label\na b c,O O\n", "tag", "row 1 has 3 words and 2 tags"),
    "no words": ("a.jsonl", b'{"text": [], "label": []}', "tag", "row 1 has no words"),
    "no list": ("a.jsonl", b'{"text": 5, "label": []}', "tag", "row 1: 5 is neither a text nor a list"),
    "no label list": ("a.jsonl", b'{"text": "x", "label": 5}', "multilabel", "row 1: 5 is neither a text nor a list"),
    "bad JSON": ("a.jsonl", b'{"text": "x", "label": "y"}\n{"text": ', "classify", "line 2: not valid JSON"),
    "no object": ("a.jsonl", b"[1, 2]", "classify", "a JSON array; write one JSON object per line"),
    "a number": ("a.jsonl", b"12", "classify", "line 1 is not a JSON object"),
    "extension": ("a.xlsx", b"PK", "classify", "unknown kind of file"),
    "encoding": ("a.csv", "text,label\ncafé,x\n".encode("latin-1"), "classify", "not UTF-8"),
    "encoding of lines": ("a.jsonl", '{"text": "é"}'.encode("latin-1"), "classify", "not UTF-8"),
    "parquet": ("a.parquet", b"not parquet", "classify", "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_one_line(case: str, tmp_path: Path) -> None:
    """Whatever is wrong with a file is one line that names the file and the fault."""
    name, content, task, expected = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GraftaxError) as error:
        read_examples(tmp_path / name, Columns(), task)
    assert expected in message(error)
    assert name in message(error)


def test_missing_file(tmp_path: Path) -> None:
    """A missing file, and a directory in its place, are told apart."""
    for path, said in ((tmp_path / "none.csv", "no such file"), (tmp_path, "a directory; a file is wanted here")):
        with pytest.raises(GraftaxError, match=said):
            read_examples(path, Columns(), "classify")


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        ("classify", ("a", "a"), "at least two"),
        ("tag", (["O"], ["O"]), "at least two"),
        ("multilabel", ((), ()), "no row has a label"),
    ],
)
def test_one_class_only(task: str, labels: tuple[Any, ...], expected: str) -> None:
    """There must be something to choose between."""
    texts = tuple(["w"] if task == "tag" else "w" for _ in labels)
    with pytest.raises(GraftaxError, match=expected):
        TASKS[task].label_names(of_texts(texts, labels))


@pytest.mark.parametrize("task", ["classify", "multilabel", "tag"])
def test_unknown_label_is_named(task: str, tiny: Backbone) -> None:
    """A label that the adapter does not know is an error with its row and the known ones."""
    label: Any = {"classify": "new", "multilabel": ("new",), "tag": ["new"]}[task]
    examples = of_texts([["w"] if task == "tag" else "w"], [label], "test.csv")
    with pytest.raises(GraftaxError) as error:
        TASKS[task].prepare(examples, ("a", "b"), Tokenizer.of(tiny), 8)
    assert "test.csv: row 1 has label 'new', which the adapter does not know (a, b)" in message(error)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"batch_size": "8"}, "batch_size must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**32}, "seed must be a whole number, at least 0 and below 4,294,967,296"),
        ({"patience": 0}, "patience must be"),
        ({"lr": 0.0}, "lr must be a number, above 0"),
        ({"lr": NAN}, "lr must be a number, above 0"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"clip": 0}, "clip must be a number, above 0 or null"),
        ({"clip": NAN}, "clip must be a number, above 0 or null"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"warmup": 1.0}, "warmup"),
        ({"schedule": "steep"}, "linear, cosine, constant"),
        ({"epoch": 3}, "no such setting: epoch; there are epochs"),
    ],
)
def test_bad_recipes(settings: dict[str, Any], expected: str) -> None:
    """Hyperparameters out of range are refused before anything is done."""
    with pytest.raises(GraftaxError) as error:
        Recipe().replace(**settings)
    assert expected in message(error)


# -- splitting and batches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_split_is_stratified(seed: int) -> None:
    """Every row is on one side; each label is held out in its proportion, and a single row of a label stays in training."""
    labels = ("a",) * 60 + ("b",) * 30 + ("c",) * 10 + ("d",)
    examples = of_texts([*map(str, range(101))], labels)
    kept, held = (examples.take(part) for part in split(examples, 0.2, seed))
    assert sorted(map(int, kept.fields["text"] + held.fields["text"])) == list(range(101))
    counts = Counter(held.labels or ())
    assert (abs(counts["a"] - 12) <= 1, abs(counts["b"] - 6) <= 1, abs(counts["c"] - 2) <= 1, counts["d"]) == (
        True,
        True,
        True,
        0,
    )
    again = examples.take(split(examples, 0.2, seed)[0])
    assert again == kept


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (4, 0.99), (9, 0.0), (9, 1.0), (9, -1.0), (9, NAN)])
def test_bad_splits(count: int, fraction: float) -> None:
    """A fraction outside (0, 1), or one that leaves no row to train on, is refused."""
    with pytest.raises(GraftaxError):
        split(of_texts(["x"] * count, ["a"] * count), fraction, 0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rows", "batch_size"), [(1, 4), (7, 8), (64, 8), (201, 16), (50, 1)])
@pytest.mark.parametrize("shared", [True, False])
def test_an_epoch_has_every_row_once(rows: int, batch_size: int, shared: bool, seed: int) -> None:
    """Each row is in one batch, no two texts overlap, sizes differ by one; the plan is a function of seed and epoch."""
    lengths = np.random.default_rng(seed).integers(2, 60, rows).tolist()
    shape = shape_for(lengths, 61, batch_size, seed, epochs=3) if shared else shape_alone(61, batch_size)
    assert shape.length >= 61
    assert shape.items == batch_size
    plan = plan_epoch(lengths, shape, seed, 1)
    assert len(plan) == number_of_batches(rows, batch_size) == -(-rows // batch_size)
    sizes = [len(planned.items) for planned in plan]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size
    for found in (plan, plan_all(lengths, shape)):
        assert sorted(i for planned in found for i in planned.items) == list(range(rows))
        for planned in found:
            taken = np.zeros((shape.rows, shape.length), int)
            for i, (batch_row, begin) in zip(planned.items, planned.places, strict=True):
                assert begin + lengths[i] <= shape.length
                taken[batch_row, begin : begin + lengths[i]] += 1
            assert taken.max() == 1
            assert shared or planned.places == tuple((batch_row, 0) for batch_row in range(len(planned.items)))
    assert plan == plan_epoch(lengths, shape, seed, 1)
    if rows >= 50:
        assert plan != plan_epoch(lengths, shape, seed, 2)
        assert plan != plan_epoch(lengths, shape, seed + 1, 1)


def test_batches_are_nearly_full() -> None:
    """Texts of 5 to 60 tokens, a few at the limit: a fifth of a batch is padding at most, whole batches included."""
    lengths = np.minimum(5 + np.random.default_rng(0).geometric(0.08, 1000), 60).tolist()
    shape = shape_for(lengths, 60, 32, 0, epochs=3)
    assert sum(lengths) / number_of_batches(1000, 32) > 0.8 * shape.rows * shape.length


# -- labels and losses ------------------------------------------------------------------------------------------------


def test_tags_sit_on_first_tokens(tiny: Backbone) -> None:
    """A word's tag is at its first token; its other tokens and special ones are ignored."""
    examples = of_texts([["an", "apple", "unknownword", "iron"]], [["O", "B-F", "O", "B-M"]])
    rows = TASKS["tag"].prepare(examples, ("B-F", "B-M", "O"), Tokenizer.of(tiny), 32)
    firsts = first_tokens(rows.items[0])
    assert rows.labels[0][firsts].tolist() == [2, 0, 2, 1]
    assert len(rows.items[0]) > 6
    assert (np.delete(rows.labels[0], firsts) == IGNORE).all()


def batch(task: str, rows: int, classes: int, room: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random logits, labels and weights; the last row is filling and the padded classes hold noise."""
    random = np.random.default_rng(3)
    shape = (rows, 5, room) if task == "tag" else (rows, room)
    logits = (3 * random.standard_normal(shape)).astype(np.float32)
    labels: Any = {
        "classify": random.integers(0, classes, rows).astype(np.int32),
        "multilabel": (random.random((rows, room)) < 0.5).astype(np.float32) * (np.arange(room) < classes),
        "regress": random.standard_normal(rows).astype(np.float32),
        "tag": random.integers(-1, classes, (rows, 5)).astype(np.int32),
    }[task]
    if task == "tag":
        labels[-1] = IGNORE
    return (
        logits,
        labels.astype(np.float32 if task in ("multilabel", "regress") else np.int32),
        np.float32([1.0] * (rows - 1) + [0.0]),
    )


def by_hand(task: str, logits: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """The textbook's loss of real rows and real classes, in float64, from scikit-learn where it has it."""
    z = logits[..., :classes].astype(np.float64)
    if task == "regress":
        return float(np.mean((z[:, 0] - labels) ** 2))
    if task == "multilabel":
        p, y = 1 / (1 + np.exp(-z)), labels[:, :classes]
        return float(np.mean(-(y * np.log(p) + (1 - y) * np.log(1 - p))))
    if task == "tag":
        z, labels = z[labels != IGNORE], labels[labels != IGNORE]
    p = np.exp(z - z.max(-1, keepdims=True))
    return float(log_loss(labels, p / p.sum(-1, keepdims=True), labels=range(classes)))


@pytest.mark.parametrize("task", TASK_NAMES)
def test_losses_equal_the_formulas(task: str) -> None:
    """The mean over real rows and classes alone [1e-5]; padded classes and filling rows change nothing and have no gradient."""
    classes, room = (1 if task == "regress" else 3), 8
    logits, labels, weight = batch(task, 6, classes, room)

    def loss(x: jax.Array) -> jax.Array:
        return TASKS[task].loss(x, jnp.asarray(labels), hyper(Recipe(), 1, classes), jnp.asarray(weight))

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(logits))
    assert float(value) == pytest.approx(by_hand(task, logits[:-1], labels[:-1], classes), rel=1e-5)
    noisy = logits.copy()
    noisy[..., classes:] = 1e4
    noisy[-1] = -50.0
    assert float(loss(jnp.asarray(noisy))) == float(value)
    assert not np.asarray(gradient)[..., classes:].any()
    assert not np.asarray(gradient)[-1].any()
    assert np.asarray(gradient)[:-1, ..., :classes].any()


@pytest.mark.parametrize("task", TASK_NAMES)
def test_loss_of_no_rows_is_zero(task: str) -> None:
    """A batch of filling alone, as an idle slot sees it, has loss zero and no gradient, not 0 / 0."""
    logits, labels, weight = batch(task, 4, 1 if task == "regress" else 3, 8)
    if task == "tag":
        labels[:] = IGNORE
    value, gradient = jax.value_and_grad(
        lambda x: TASKS[task].loss(x, jnp.asarray(labels), hyper(Recipe(), 1, 3), jnp.zeros_like(jnp.asarray(weight)))
    )(jnp.asarray(logits))
    assert float(value) == 0.0
    assert not np.asarray(gradient).any()


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_are_scikit_learns() -> None:
    """Classification, multi-label and regression against scikit-learn on matrices made another way."""
    random = np.random.default_rng(0)
    gold, said = (list(random.choice(list("abc"), 50)) for _ in range(2))
    found = classification(gold, said)
    assert found["accuracy"] == accuracy_score(gold, said)
    assert found["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))
    assert found["matthews"] == pytest.approx(matthews_corrcoef(gold, said))
    y, p = random.random((40, 3)) < 0.5, random.random((40, 3)) < 0.5
    names = ["a", "b", "c"]
    sets = [[[n for n, on in zip(names, row, strict=True) if on] for row in m] for m in (y, p)]
    assert multilabel(*sets, names) == {
        "accuracy": pytest.approx((y == p).all(1).mean()),
        "macro_f1": pytest.approx(f1_score(y, p, average="macro")),
        "micro_f1": pytest.approx(f1_score(y, p, average="micro")),
    }
    a, b = random.standard_normal(30), random.standard_normal(30)
    assert regression(a.tolist(), b.tolist())["pearson"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert regression(a.tolist(), [1.0] * 30)["pearson"] == 0.0


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-X I-X O", {("X", 0, 1)}),
        ("B-X B-X", {("X", 0, 0), ("X", 1, 1)}),
        ("B-X I-Y", {("X", 0, 0), ("Y", 1, 1)}),
        ("O I-X I-X", {("X", 1, 2)}),
        ("I-X O I-X", {("X", 0, 0), ("X", 2, 2)}),
        ("S-X E-X", {("X", 0, 0), ("X", 1, 1)}),
        ("B-X E-X I-X", {("X", 0, 1), ("X", 2, 2)}),
        ("B-A-B I-A-B", {("A-B", 0, 1)}),
        ("O B-X", {("X", 1, 1)}),
    ],
)
def test_spans_by_hand(tags: str, expected: set[tuple[str, int, int]]) -> None:
    """conlleval's rules, case by case."""
    assert spans(tags.split()) == expected


@pytest.mark.parametrize("seed", range(40))
def test_span_f1_is_seqevals(seed: int) -> None:
    """Random sequences, valid or not, score as seqeval scores them."""
    random = np.random.default_rng(seed)
    choice = ["O", "O", "B-X", "I-X", "B-Y", "I-Y"] + (["E-X", "S-Y"] if seed % 2 else [])
    gold, said = ([list(random.choice(choice, n)) for n in (1, 5, 9, 12)] for _ in range(2))
    assert tagging(gold, said)["f1"] == pytest.approx(float(span_f1(gold, said, zero_division=0)))


def test_answers_are_probabilities() -> None:
    """Scores are softmax or sigmoid; a multi-label answer is what lies above one half; JSON can hold them."""
    row = Tokens(np.zeros(2, np.int32), np.zeros(2, np.int32), None)
    answer = TASKS["classify"].answer(np.float32([0.0, np.log(3.0)]), ("a", "b"), row)
    assert (answer.label, answer.score) == ("b", pytest.approx(0.75))
    several = TASKS["multilabel"].answer(np.float32([np.log(3.0), -5.0, 2.0]), ("a", "b", "c"), row)
    assert several.label == ["a", "c"]
    assert several.score[0] == pytest.approx(0.75)
    json.dumps([answer.score, several.score, TASKS["regress"].answer(np.float32([2.0]), ("value",), row).label])
