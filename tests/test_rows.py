"""What values in rows are read as, in every form that people have them; all else is one line that names the row."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from of_texts import read_examples
from refusals import refused
from tiny import write_jsonl

from graftax.data.labels import in_order, normal_form
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer
from graftax.tasks.task_registry import TASKS
from graftax.train import Columns, Examples, Recipe, train_many


def read(task: str, *rows: dict[str, Any], **columns: str) -> Examples:
    return read_examples(list(rows), Columns(**columns), task)


def of_csv(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return path


# -- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (b"caf\xc3\xa9", "café"),
        (bytearray(b"a"), "a"),
        (np.str_("a"), "a"),
        (7, "7"),
        (np.int64(7), "7"),
        (7.5, "7.5"),
    ],
)
def test_texts(value: Any, text: str) -> None:
    """Text, UTF-8 bytes and numbers are texts, in every column of texts."""
    assert read("classify", {"text": value, "label": "x"}).fields["text"] == (text,)
    assert read("seq2seq", {"prompt": "p", "completion": value}).fields["completion"] == (text,)
    assert read("dpo", {"prompt": "p", "chosen": value, "rejected": "r"}).fields["chosen"] == (text,)


NO_TEXTS = {
    "a list": (["a", "b"], "a list is no text"),
    "an array": (np.array(["a", "b"]), "a list is no text"),
    "an object": ({"a": 1}, "an object is no text"),
    "bytes": (b"\xff\xfe", "its bytes are not UTF-8 text"),
    "true": (True, "True is no text"),
    "infinity": (float("inf"), "inf is no text"),
    "half a pair": ("a\ud800", "it is no Unicode text"),
    "a date": (pandas.Timestamp("2020-01-01"), "a value of type Timestamp is no text"),
    "a huge integer": (10**5000, "an integer of thousands of digits is no text"),
}


@pytest.mark.parametrize("case", NO_TEXTS)
@pytest.mark.parametrize("task", ["classify", "lm", "seq2seq", "dpo"])
def test_what_is_no_text(case: str, task: str) -> None:
    """It is refused by row and column, never printed into a text as Python prints it."""
    value, expected = NO_TEXTS[case]
    good = {"text": "a", "label": "x", "prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}
    column = {"classify": "text", "lm": "text", "seq2seq": "completion", "dpo": "rejected"}[task]
    with pytest.raises(GraftaxError) as error:
        read(task, good, good | {column: value})
    assert f"row 2: {expected}" in str(error.value)
    assert f"(column '{column}')" in str(error.value)


# -- chats ------------------------------------------------------------------------------------------------------------

ASK, SAY = {"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}


def test_prompts_and_completions_of_messages(teller: Backbone) -> None:
    """TRL's conversational form: the chat of both, of which only the completion is learnt, not what a prompt says of before."""
    rows = [{"prompt": [ASK, SAY, ASK], "completion": [SAY]}, {"prompt": "ab", "completion": [SAY]}]
    examples, sft, tokenizer = read("sft", *rows), TASKS["sft"], Tokenizer.of(teller)
    assert examples.fields["prompt"] == ((ASK, SAY, ASK), (ASK,))
    assert examples.fields["completion"] == ((SAY,), (SAY,))
    found = sft.prepare(examples, (), tokenizer, 90)
    whole = sft.prepare(read("sft", {"messages": [ASK, SAY, ASK, SAY]}), (), tokenizer, 90)
    assert found.items[0].ids.tolist() == whole.items[0].ids.tolist()
    learnt = [tokenizer.text(row[row >= 0]) for row in (*found.labels, *whole.labels)]
    assert learnt == ["cd", "cd", "cdcd"]


def test_parts_of_a_message_are_joined() -> None:
    """A content in parts is a text where all parts are; other contents are refused, never printed as Python prints them."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    (messages,) = read("sft", {"messages": [{"role": "user", "content": parts}, SAY]}).fields["messages"]
    assert messages[0] == {"role": "user", "content": "ab"}
    for content in ([{"type": "image"}], {"text": "a"}, None, 1.0 + 2j):
        line = refused(
            lambda content=content: read("sft", {"messages": [SAY]}, {"messages": [{"role": "user", "content": content}]})
        )
        assert line is not None
        assert "row 2" in line
    with pytest.raises(GraftaxError, match="row 1: a text is no list of messages"):
        read("sft", {"messages": "x"})
    with pytest.raises(GraftaxError, match="row 1: a list of messages is no text"):
        read("seq2seq", {"prompt": [ASK], "completion": "x"})


# -- labels -----------------------------------------------------------------------------------------------------------


def test_labels_that_mean_one_are_one() -> None:
    """However data writes a label, it is one class; codes, versions and truth values stay what they are."""
    values = [0, "0", 0.0, " 0", np.int64(0), np.float32(0), Decimal("0"), "0.0", "pos", "pos ", b"pos"]
    assert read("classify", *({"text": "a", "label": value} for value in values)).labels == ("0",) * 8 + ("pos",) * 3
    values = ["true", "007", "7", "1.50", "1.5", 1.5, "1.10"]
    expected = ("true", "007", "7", "1.50", "1.5", "1.5", "1.10")
    assert read("classify", *({"text": "a", "label": value} for value in values)).labels == expected
    assert read("classify", *({"text": "a", "label": value} for value in (True, "True"))).labels == ("True", "True")
    with pytest.raises(GraftaxError, match="column 'label' has true or false in row 3 and a number in row 2"):
        read("classify", *({"text": "a", "label": value} for value in ("0", 1.0, True)))
    assert read("classify", {"text": "a", "label": "2.0"}, {"text": "a", "label": "2.1"}).labels == ("2.0", "2.1")
    assert read("multilabel", {"text": "a", "label": ["a ", 1.0]}, {"text": "b", "label": "a| 1"}).labels == (("1", "a"),) * 2
    assert read("tag", {"text": "a b", "label": ["O ", "O"]}).labels == (["O", "O"],)


def test_classes_are_in_the_order_of_their_numbers() -> None:
    """0, 1, 2, 10, 11 and not 0, 1, 10, 11, 2; names in the order of the alphabet."""
    labels = [11, 2, 10, 0, 1, -1]
    examples = read("classify", *({"text": "a", "label": label} for label in labels))
    assert TASKS["classify"].label_names(examples) == ("-1", "0", "1", "2", "10", "11")
    assert in_order(["10", "9.5", "9"]) == ("9", "9.5", "10")
    assert in_order(["10", "9", "b", "a"]) == ("10", "9", "a", "b")
    assert TASKS["multilabel"].label_names(read("multilabel", {"text": "a", "label": [10, 9]})) == ("9", "10")
    assert TASKS["tag"].label_names(read("tag", {"text": "a b", "label": "10 9"})) == ("9", "10")


def test_other_rows_are_read_in_the_names_that_an_adapter_has(tiny: Backbone) -> None:
    """An adapter's names stay as it has them, even two that would be one today; other rows may write them in another way."""
    classify, tokenizer = TASKS["classify"], Tokenizer.of(tiny)
    for names, label, number in (
        (("1.0", "0.0"), 1, 0),
        (("1", "0"), "0.0", 1),
        (("pos", "pos "), "pos", 0),
        (("pos ", "x"), "pos", 0),
    ):
        rows = classify.prepare(read("classify", {"text": "a", "label": label}), names, tokenizer, 8)
        assert rows.labels[0] == number
        assert rows.examples.labels == (names[number],)


CLASSES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "words": datasets.List(datasets.Value("string")),
        "label": datasets.ClassLabel(names=["zero", "alpha", "none"]),
        "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X", "B-Y"])),
    }
)


@pytest.mark.parametrize("form", ["dataset", "numpy", "torch", "parquet", "stream"])
def test_class_numbers_are_names(form: str, tmp_path: Path) -> None:
    """A ClassLabel's numbers are read as its names, all of which are classes, in its order: so PEFT's class 2 is the data's."""
    rows = {"text": ["a", "b"], "words": [["a"], ["b", "c"]], "label": [1, 0], "tags": [[1], [0, 2]]}
    data: Any = datasets.Dataset.from_dict(rows, features=CLASSES)
    if form == "parquet":
        data.to_parquet(tmp_path / "a.parquet")
        data = tmp_path / "a.parquet"
    elif form == "stream":
        data = data.to_iterable_dataset()
    elif form != "dataset":
        data = data.with_format(form)
    examples = read_examples(data, Columns(), "classify")
    assert examples.labels == ("alpha", "zero")
    assert TASKS["classify"].label_names(examples) == ("zero", "alpha", "none")
    examples = read_examples(data, Columns(text="words", label="tags"), "tag")
    assert examples.fields["text"] == (["a"], ["b", "c"])
    assert examples.labels == (["B-X"], ["O", "B-Y"])
    assert read_examples(data, Columns(label="tags"), "multilabel").labels == (("B-X",), ("B-Y", "O"))
    data = datasets.Dataset.from_dict(rows | {"label": [1, -1]}, features=CLASSES)
    with pytest.raises(GraftaxError, match="row 2: -1 is no class: they are numbered 0 to 2"):
        read_examples(data, Columns(), "classify")


VECTORS: dict[str, Callable[[list[int]], Any]] = {
    "ints": list,
    "floats": lambda row: [float(v) for v in row],
    "truth values": lambda row: [bool(v) for v in row],
    "arrays": np.array,
    "python": str,
    "numpy": lambda row: str(np.array(row)),
    "numpy of floats": lambda row: str(np.array(row, np.float32)),
    "bars": lambda row: "|".join(map(str, row)),
}


@pytest.mark.parametrize("form", VECTORS)
def test_vectors_of_0_and_1(form: str) -> None:
    """A number for each class: they are LABEL_0 and so on, or those of an adapter with as many."""
    rows = [{"text": "a", "label": VECTORS[form](row)} for row in ([0, 1, 1], [0, 0, 0], [1, 0, 0])]
    examples = read("multilabel", *rows)
    assert examples.labels == (("LABEL_1", "LABEL_2"), (), ("LABEL_0",))
    assert TASKS["multilabel"].label_names(examples) == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert read_examples(rows, Columns(), "multilabel", ("b", "c", "a")).labels == (("a", "c"), (), ("b",))


def test_lists_of_class_numbers_are_no_vectors() -> None:
    """Numbers of classes are labels; what may be both, or is neither, is refused."""
    assert read("multilabel", {"text": "a", "label": [0, 2]}, {"text": "a", "label": [1]}).labels == (("0", "2"), ("1",))
    for labels, expected in (
        ([[0, 1], [1, 0]], "every row has the labels 0 and 1"),
        ([[0, 0, 1], [0, 1]], "row 1: .* has a label twice"),
        ([["a"], [0.2, 0.8]], "row 2: .* no labels, but shares"),
        ([["a"], [["b"]]], "row 2: a list is no label"),
        ([["a"], [None]], "row 2: nothing is no text"),
        ([["a"], {"a": 1}], "row 2: an object is neither a text nor a list"),
    ):
        with pytest.raises(GraftaxError, match=expected):
            read("multilabel", *({"text": "a", "label": label} for label in labels))
    with pytest.raises(GraftaxError, match="row 1: a list is no label; task multilabel"):
        read("classify", {"text": "a", "label": ["x"]})


# -- words and tags ---------------------------------------------------------------------------------------------------

LISTS: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "python": str,
    "python's tuple": lambda words: str(tuple(words)),
    "json": json.dumps,
    "json in UTF-8": lambda words: json.dumps(words, ensure_ascii=False),
    "numpy": lambda words: str(np.array(words)),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    words=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=6), min_size=1, max_size=5
    )
)
@pytest.mark.parametrize("form", LISTS)
def test_words_in_every_form_of_a_list(form: str, words: list[str]) -> None:
    """A list, and the text that Python, JSON or NumPy writes of it, are the same words, quotes and escapes included."""
    tags = [f"B-{i}" for i in range(len(words))]
    examples = read("tag", {"text": LISTS[form](words), "label": LISTS[form](tags)})
    assert examples.fields["text"] == (words,)
    assert examples.labels == (tags,)


@pytest.mark.parametrize("form", LISTS)
def test_labels_in_every_form_of_a_list(form: str) -> None:
    """The labels of a row, too."""
    rows = [{"text": "a", "label": LISTS[form](labels)} for labels in (["b c", "a"], ["it's"])]
    assert read("multilabel", *rows).labels == (("a", "b c"), ("it's",))


def test_bytes_in_parquet(tmp_path: Path) -> None:
    """Columns of bytes, as some writers leave texts, are read as UTF-8."""
    columns = {"text": pa.array(["café".encode(), b"a"], pa.binary()), "label": pa.array([b"x", b"y"], pa.large_binary())}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    examples = read_examples(tmp_path / "a.parquet", Columns(), "classify")
    assert (examples.fields["text"], examples.labels) == (("café", "a"), ("x", "y"))


def test_texts_that_are_no_lists() -> None:
    """Brackets in a text are words; tags in brackets that are no list are refused, as are texts without a list's order."""
    assert read("tag", {"text": "[ Music ]", "label": "O B-X O"}).fields["text"] == (["[", "Music", "]"],)
    assert read("tag", {"text": "See [1]", "label": "O O"}).fields["text"] == (["See", "[1]"],)
    assert read("tag", {"text": "[1]", "label": "O"}).fields["text"] == (["[1]"],)
    assert read("tag", {"text": "a b c", "label": "[3 0 7]"}).labels == (["3", "0", "7"],)
    assert read("tag", {"text": "( Reuters , AP )", "label": "( NNP , NNP )"}).labels == (["(", "NNP", ",", "NNP", ")"],)
    for tags in ("[O, O]", "['O', ...]", "['O' 'O", "{'O', 'B'}"):
        assert refused(lambda tags=tags: read("tag", {"text": "a b", "label": tags}))
    assert "neither a text nor a list" in str(refused(lambda: read("tag", {"text": {"a", "b"}, "label": "O O"})))
    assert "neither a text nor a list" in str(refused(lambda: read("tag", {"text": "a b", "label": {"O", "B"}})))


@pytest.mark.parametrize(
    "text", ["['a'" + " " * 200_000, "[" + "'a'," * 50_000, "[" * 100_000, "['" + "\\" * 100_001, "[1" + "0" * 9000 + "]"]
)
def test_no_text_keeps_the_reader_busy(text: str) -> None:
    """What begins as a list, and is none, takes no longer for being long."""
    refused(lambda: read("tag", {"text": "a", "label": text}))
    refused(lambda: read("tag", {"text": text, "label": "O"}))


@pytest.mark.parametrize("value", ["1e39", 10**400, "10" * 400, True, [1.0], "ten", {"a": 1}, float("-inf")])
def test_numbers(value: Any) -> None:
    """A number that float32 cannot hold is none; True counts as 1."""
    line = refused(lambda: read("regress", {"text": "a", "label": 0.5}, {"text": "a", "label": value}))
    assert line is None if value is True else line is not None and "row 2" in line
    assert read("regress", {"text": "a", "label": np.float32(0.5)}, {"text": "b", "label": "-1e3"}).labels == (0.5, -1000.0)


# -- sources ----------------------------------------------------------------------------------------------------------


def test_data_frames(tmp_path: Path) -> None:
    """A DataFrame is read as its CSV file is, whatever its columns hold; missing values are found by row."""
    frame = pandas.DataFrame(
        {
            "text": pandas.array(["a", "b", "c"], dtype="string"),
            "label": pandas.Categorical(["y", "x", "y"]),
            "number": [1.0, 0.0, 2.0],
            "words": [np.array(["a"]), ["b", "c"], ("d",)],
            "tags": [["O"], np.array(["O", "B"]), ["B"]],
        },
        index=[5, 5, 7],
    )
    frame.to_csv(tmp_path / "a.csv")
    for data in (frame, tmp_path / "a.csv"):
        assert read_examples(data, Columns(), "classify").labels == ("y", "x", "y")
        assert tuple(map(normal_form, read_examples(data, Columns(label="number"), "classify").labels or ())) == ("1", "0", "2")
        assert read_examples(data, Columns(label="number"), "regress").labels == (1.0, 0.0, 2.0)
    assert read_examples(frame, Columns(text="words", label="tags"), "tag").labels == (["O"], ["O", "B"], ["B"])
    frame["label"] = ["y", None, "x"]
    with pytest.raises(GraftaxError, match="DataFrame: row 2 has nothing in column 'label'"):
        read_examples(frame, Columns(), "classify")
    with pytest.raises(GraftaxError, match="DataFrame: no rows"):
        read_examples(frame[:0], Columns(), "classify")
    with pytest.raises(GraftaxError, match="two columns are called 'text'"):
        read_examples(pandas.concat([frame, frame[["text"]]], axis=1), Columns(), "classify")


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    """The last would win without a word; blank ones, which spreadsheets leave behind, are nothing that could be meant."""
    with pytest.raises(GraftaxError, match="two columns are called 'label'"):
        read_examples(of_csv(tmp_path / "a.csv", "text,label,label", "a,x,y"), Columns(), "classify")
    assert read_examples(of_csv(tmp_path / "b.csv", "text,label,,", "a,x,,"), Columns(), "classify").labels == ("x",)
    (tmp_path / "c.jsonl").write_text('{"text": "a", "label": "x", "label": "y"}')
    with pytest.raises(GraftaxError, match=r"line 1: .*the key 'label' is there twice"):
        read_examples(tmp_path / "c.jsonl", Columns(), "classify")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "label", "label"]), tmp_path / "d.parquet")
    with pytest.raises(GraftaxError, match="two columns are called 'label'"):
        read_examples(tmp_path / "d.parquet", Columns(), "classify")


def test_fields_of_any_length(tmp_path: Path) -> None:
    """A CSV field may be longer than the 131,072 characters that the csv module takes by itself."""
    import csv

    before, text = csv.field_size_limit(), "word " * 40_000
    assert read_examples(of_csv(tmp_path / "a.csv", "text,label", f"{text},x"), Columns(), "classify").fields["text"] == (text,)
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "NoneType: no rows"),
        (5, "int: no rows"),
        ({"text": ["a"], "label": ["x"]}, "dict: its keys are text, label"),
        ([("a", "x")], "list: row 1 is of type tuple"),
        ([{"text": "a", "label": "x"}, "b"], "list: row 2 is of type str"),
        ([{0: "a"}], "no column 'text', 'label'; it has 0"),
        (b"abc", "bytes: row 1 is of type int"),
    ],
)
def test_what_is_no_data(data: Any, expected: str) -> None:
    """Anything but rows is refused in a line that says what it is."""
    with pytest.raises(GraftaxError) as error:
        read_examples(data, Columns(), "classify")
    assert expected in str(error.value)


def test_git_lfs_pointers(tmp_path: Path) -> None:
    """The pointer that git leaves where Git LFS did not fetch a file is said to be one."""
    for name, task in (("a.csv", "classify"), ("a.jsonl", "classify"), ("a.parquet", "classify"), ("a.txt", "lm")):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
        with pytest.raises(GraftaxError, match="Git LFS pointer"):
            read_examples(tmp_path / name, Columns(), task)


# -- properties -------------------------------------------------------------------------------------------------------

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=2),
    max_leaves=6,
)
PLAIN = st.sampled_from(["a", "a b", "[0, 1]", "['a', 'b']", "x|y", "1.0", ["a", "b"], [0, 1], [1, 1], 1, 1.0, True])
COLUMNS = ("text", "label", "prompt", "completion", "messages", "chosen", "rejected")
ROWS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), PLAIN | VALUES), min_size=1, max_size=3)


def check(data: Any, task: str) -> None:
    """Rows are read as what their task has, or refused in a line."""
    made: list[Examples] = []
    if refused(lambda: made.append(read_examples(data, Columns(), task))) is not None:
        return
    (examples,) = made
    allowed: dict[str, Callable[[Any], bool]] = {
        "classify": lambda label: isinstance(label, str) and label == label.strip() != "",
        "multilabel": lambda label: isinstance(label, tuple) and all(isinstance(name, str) for name in label),
        "regress": lambda label: isinstance(label, float) and np.isfinite(np.float32(label)),
        "tag": lambda label: all(isinstance(tag, str) for tag in label),
    }
    plain = task in ("classify", "multilabel", "regress", "lm", "seq2seq")
    texts = [text for values in examples.fields.values() for text in values] if plain else []
    assert all(isinstance(text, str) for text in texts)
    assert all(allowed[task](label) for label in examples.labels or ())
    if task == "tag":
        assert [len(words) for words in examples.fields["text"]] == [len(tags) for tags in examples.labels or ()]
        assert all(isinstance(word, str) for words in examples.fields["text"] for word in words)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(rows=ROWS)
@pytest.mark.parametrize("task", sorted({*TASKS} - {"image-classify"}))
def test_rows_are_read_or_refused(task: str, rows: list[dict[str, Any]]) -> None:
    """Whatever stands in dicts and data frames."""
    check(rows, task)
    check(pandas.DataFrame(rows), task)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows=ROWS)
def test_files_are_read_or_refused(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever stands in JSON lines, Parquet and data sets, where these can hold it."""
    folder = tmp_path_factory.mktemp("rows")
    plain = [{key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()} for row in rows]
    sources: list[Any] = []
    for make in (
        lambda: write_jsonl(folder / "a.jsonl", plain),
        lambda: pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet") or folder / "a.parquet",
        lambda: datasets.Dataset.from_list(rows),
    ):
        with suppress(TypeError, ValueError, OverflowError, NotImplementedError, pa.ArrowException):  # it cannot hold such rows
            sources.append(make())
    for source in sources:
        for task in ("classify", "multilabel", "tag", "sft"):
            check(source, task)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=40) | st.text(st.sampled_from('text,label\n"|[]{}:\\u0ab1 \ufeff'), max_size=60).map(str.encode)
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "txt"])
def test_any_bytes_are_read_or_refused(ending: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a file holds."""
    path = tmp_path_factory.mktemp("bytes") / f"a.{ending}"
    for begin in (b"", b"text,label\n", b'{"text": "a", "label": '):
        path.write_bytes(begin + content)
        check(path, "lm" if ending == "txt" else "classify")


def test_errors_name_the_adapter_whose_rows_they_are(tiny: Backbone, tmp_path: Path) -> None:
    good = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    bad = [{"text": "a", "label": "x"}, {"text": "", "label": "y"}]
    settings: dict[str, Any] = {"recipe": Recipe(max_length=16), "progress": False}
    with pytest.raises(GraftaxError, match=r"^two \(list\): row 2 has nothing in column 'text'"):
        train_many(tiny, {"one": good, "two": bad}, tmp_path / "out", **settings)
    with pytest.raises(GraftaxError, match=r"^one, validation \(list\): row 2 has nothing in column 'text'"):
        train_many(tiny, {"one": good}, tmp_path / "out", val={"one": bad}, **settings)
