"""What a suite's file may say: every key of every table is read rightly, or refused in a line that names it."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from toy_suite import SUITE, suite_in, with_rows

from graftax.benchmarks.draws import read_task
from graftax.benchmarks.results import Cell
from graftax.benchmarks.suite import FOLDER, MethodSpec, Suite, TaskSpec, backbone_name, load_suite
from graftax.errors import GraftaxError
from graftax.train.checks import check_name


def test_every_suite_that_comes_along_can_be_read() -> None:
    found = sorted(FOLDER.glob("*.toml"))
    assert {"quick", "domains"} <= {file.stem for file in found}
    for file in found:
        suite = load_suite(file.stem)
        assert suite.name == file.stem
        for label in suite.methods_of(suite.tasks):
            assert suite.search_of(suite.methods.get(label, MethodSpec("probe")), 80).wanted({})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rank = 4", "rnak = 4", r"\[methods.lora\]: no such key: rnak; there are method, rank"),
        ("rank = 4", "rank = 'four'", r"\[methods.lora\]: rank must be a whole number, at least 1"),
        ("rank = 4", "rank = 0", r"\[methods.lora\]: rank must be a whole number, at least 1"),
        ("rank = 4", "options = ['r=-1']", r"\[methods.lora\]: lora: r must be a whole number"),
        ("rank = 4", "lrs = [1e-3]", "the rates of lora are two or more, ascending"),
        ("rank = 4", "lrs = []", "the rates of lora are two or more, ascending"),
        ("rank = 4", "lrs = [1e-2, 1e-3]", "the rates of lora are two or more, ascending"),
        ("rank = 4", "lrs = [1e-2, 1.0001e-2]", "the rates of lora are 0.01, 0.01, .*must be further apart"),
        ("rank = 4", "lrs = [1e-30, 1e30]", r"the rates of lora are .*1e\+90: lr must be a number"),
        ("rank = 4", "lrs = 1e-3", r"\[methods.lora\]: lrs must be a list, each of which is a number, above 0"),
        ("rank = 4", "[methods.nearest-mean]\nmethod = 'lora'", "nearest-mean and probe are names of baselines"),
        ("rank = 4", "[general]\ntrain = 'toy.csv'\nkind = 'lm'", r"the task \[general\] is a classification"),
        ("sizes = [6]", "sizes = [0]", 'sizes must be a list, each of which is a whole number, at least 1 .* or "all"'),
        ("sizes = [6]", "sizes = []", "sizes is empty"),
        ("sizes = [6]", "schedules = []", "schedules is empty"),
        ("sizes = [6]", "schedules = ['steep']", "schedule 'steep' is none of linear"),
        ("sizes = [6]", "folder = 'here'", "no such key: folder; data names the folder"),
        ("max_length = 24", "max_length = true", "max_length must be a whole number"),
        ("[methods.probe]", "[methods.lroa]", "unknown method 'lroa'"),
        ("seeds = 2", "seeds = 0", "seeds must be a whole number, at least 1"),
        ("seeds = 2", "seeds = 2 2", "not valid TOML"),
        ("seeds = 2", f"seeds = {'[' * 3000}{']' * 3000}", "not valid TOML"),
        ("seeds = 2", f"seeds = {'9' * 5000}", "not valid TOML"),
        ("doublings = 1", "doublings = 64", "doublings must be a whole number, at least 0 and at most 20"),
        ("seeds = 2", "search = 'halvings'", 'search must be "widening" or "halving"'),
        ("seeds = 2", "eta = 3", r'eta = 3 is of search = "halving", and its search is widening'),
        ("seeds = 2", "search = 'halving'\neta = 1", "eta must be a whole number, at least 2"),
        ("seeds = 2", "search = 'halving'", r"no training is longer than 2 times the first .*, and those of .* are 3 times"),
        (
            "lrs = [1e-3, 1e-2]\nepochs = 2\nsteps = 1\ndoublings = 1\nwiden = 1",
            "search = 'halving'\nlrs = [1e-3]\nwiden = 0",
            'search = "halving" has one setting of probe to begin with',
        ),
        ("[tasks.toy]", "[tsaks.toy]", r"needs tables \[tasks.NAME\]"),
        ("[tasks.toy]", '[tasks."\\t"]', "tasks and methods need names that can be read"),
        ("lrs = [1e-3, 1e-2]", "lrs = [-1e-4, 1e-2]", "lrs must be a list, each of which is a number, above 0"),
        ("lrs = [1e-3, 1e-2]", "", "lrs is missing"),
        ('train = "toy.csv"', "", r"\[tasks.toy\]: train is missing"),
        ("val = 0.3", "val = 1", "val must be a text or a number, above 0 and below 1"),
        ("val = 0.3", "backbones = ['betr']", "no task is for tiny"),
        (
            "[methods.probe]",
            "[tasks.other]\ntrain = 'a.csv'\nbackbones = ['betr']\n[methods.probe]",
            r"\[tasks.other\] is for the backbone betr; the suite has tiny",
        ),
        ('test = "test.csv"', 'kind = "juggle"', "cannot be of kind 'juggle'"),
        ('test = "test.csv"', 'metric = "charm"', "is not measured by 'charm'; there are accuracy"),
    ],
)
def test_a_slip_in_a_suite_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = SUITE.format(backbone="tiny", data=tmp_path, more="")
    assert old in text
    file = tmp_path / "suite.toml"
    file.write_text(text.replace(old, new))
    with pytest.raises(GraftaxError, match=said):
        load_suite(str(file))


# -- any file -----------------------------------------------------------------------------------------------------------

TASK, METHOD = {"train": "rows.csv"}, {"method": "lora"}
CONTENT: dict[str, Any] = {"backbones": ["a/bert"], "lrs": [1e-3, 1e-2], "tasks": {"toy": TASK}, "methods": {"m": METHOD}}
TABLES: dict[str, tuple[tuple[str, ...], type]] = {
    "suite": ((), Suite),
    "task": (("tasks", "toy"), TaskSpec),
    "method": (("methods", "m"), MethodSpec),
    "general": (("general",), TaskSpec),
}
KEYS = [(which, field.name) for which, (_, cls) in TABLES.items() for field in dataclasses.fields(cls)]
NUMBERS = st.sampled_from([-1, 0, 1, 2, 31, 10**5, 2**31, 10**400, 0.0, 0.25, 1.0, 1e-300, 1e300, float("inf"), float("nan")])
WORDS = st.sampled_from(["", "all", "lora", "probe", "linear", "classify", "sft", "r=3", "$HOME", "(", "\0"]) | st.text(
    max_size=3
)
SINGLE = st.booleans() | NUMBERS | WORDS | st.just(datetime.date(2024, 2, 29))
ANYTHING = SINGLE | st.lists(SINGLE, max_size=3) | st.dictionaries(st.text(max_size=3), SINGLE, max_size=2)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(str(key))} = {toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return hex(value) if isinstance(value, int) and value > 2**64 else str(value)


def changed(which: str, key: str, value: Any) -> str:
    """The content of a suite's file in which one value is another."""
    (path, _), content = TABLES[which], json.loads(json.dumps(CONTENT | {"general": TASK}))
    table = content
    for name in path:
        table = table[name]
    table[key] = value
    return "".join(f"{toml(name)} = {toml(one)}\n" for name, one in content.items())


def made(suite: Suite, which: str) -> Any:
    return {"suite": suite, "task": suite.tasks.get("toy"), "method": suite.methods.get("m"), "general": suite.general}[which]


@settings(max_examples=600, deadline=None, derandomize=True)
@given(where=st.sampled_from(KEYS), value=ANYTHING)
def test_any_value_of_any_key_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, where: Any, value: Any) -> None:
    """A line that names the file; or a suite that holds the value, and whose searches are of finite, ascending rates."""
    (which, key), file = where, tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(changed(which, key, value), "utf-8")
    found: list[Suite] = []
    line = refused(lambda: found.append(load_suite(str(file))))
    if line is not None:
        assert line.startswith(str(file))
        return
    (suite,) = found
    if not isinstance(value, dict):
        read = getattr(made(suite, which), key)
        assert read == (tuple(value) if isinstance(value, list) else value)
        assert isinstance(read, bool) == isinstance(value, bool)
    assert dataclasses.replace(suite) == suite
    for spec in suite.methods.values():
        rates = suite.search_of(spec, 40).rates
        assert rates == sorted({*rates})
        assert 0 < rates[0] <= rates[-1] < float("inf")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(which=st.sampled_from([*TABLES]), key=st.text(max_size=5), value=ANYTHING)
def test_an_unknown_key_is_refused(tmp_path_factory: pytest.TempPathFactory, which: str, key: str, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "key.toml"
    file.write_text(changed(which, f"{key}?", value), "utf-8")
    line = refused(lambda: load_suite(str(file)))
    assert line is not None
    assert "no such key: " in line


@settings(max_examples=200, deadline=None, derandomize=True)
@given(task=st.text(max_size=300), method=st.text(max_size=300))
def test_any_name_is_one_of_files_or_refused(tmp_path_factory: pytest.TempPathFactory, task: str, method: str) -> None:
    """A task's and a method's name are part of the names of adapters' directories."""
    file = tmp_path_factory.getbasetemp() / "names.toml"
    content = CONTENT | {"tasks": {task: TASK}, "methods": {method: METHOD}}
    file.write_text("".join(f"{name} = {toml(one)}\n" for name, one in content.items()), "utf-8")
    found: list[Suite] = []
    if refused(lambda: found.append(load_suite(str(file)))) is None:
        assert {*found[0].tasks, *found[0].methods} == {task, method}
        check_name(Cell("b", task, method, None, 1e-3, "linear", 4, 0).id)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_no_suite(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.toml"
    file.write_bytes(content)
    line = refused(lambda: load_suite(str(file)))
    assert line is not None
    assert line.startswith(str(file))


def test_ids_tell_names_apart_that_directories_cannot_have() -> None:
    cells = [Cell("b", task, "lora", None, 1e-3, "linear", 4, 0) for task in ("a/b", "a+b", "a b", ".a", "x" * 400, "x" * 401)]
    for cell in cells:
        check_name(cell.id)
    assert len({cell.id for cell in cells}) == len(cells)
    assert Cell("b", "sst2", "lora-4", None, 1e-3, "linear", 4, 0).id.startswith("sst2-lora-4-0.001-4-0-")


# -- where things are ---------------------------------------------------------------------------------------------------


def test_paths_begin_where_the_suite_lies(tmp_path: Path, tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the folder of the suites that come along, and not where one happens to be."""
    mine = with_rows(tmp_path / "mine" / "rows").parent
    (mine / "models").mkdir()
    (mine / "models" / "tiny").symlink_to(tiny_dir)
    (mine / "suite.toml").write_text(SUITE.format(backbone="models/tiny", data="rows", more=""))
    monkeypatch.chdir(tmp_path)
    found = load_suite("mine/suite.toml")
    assert len(read_task(found, "toy", found.tasks["toy"]).train) == 28
    assert Path(found.backbone("models/tiny")).resolve() == tiny_dir.resolve()
    assert found.backbone("owner/name") == "owner/name"  # of the Hub
    (mine / "suite.toml").rename(tmp_path / "suite.toml")
    with pytest.raises(GraftaxError, match="no such file"):
        read_task(load_suite("suite.toml"), "toy", found.tasks["toy"])


def test_backbones_have_names() -> None:
    assert backbone_name("sentence-transformers/all-MiniLM-L6-v2") == "all-MiniLM-L6-v2"
    assert backbone_name("$GRAFTAX_BACKBONES/stories260K/") == "stories260K"
    assert backbone_name("/home/me/.cache/huggingface/hub/models--google--bert_small/snapshots/0a1b2c") == "bert_small"


def test_backbones_that_cannot_be_told_apart_or_have_no_task(tmp_path: Path) -> None:
    with pytest.raises(GraftaxError, match="two backbones have the same name: a/bert, b/bert"):
        suite_in(tmp_path, Path("tiny"), backbones=("a/bert", "b/bert"))
    task = TaskSpec(train="rows.csv", backbones=("bert",))
    assert suite_in(tmp_path, Path("a/bert"), tasks={"toy": task}).pairs("a/bert")
    with pytest.raises(GraftaxError, match="no task is for gpt"):
        suite_in(tmp_path, Path("a/gpt"), tasks={"toy": task})


def test_few_rows_are_passed_over_more_often(tmp_path: Path) -> None:
    one = suite_in(tmp_path, Path("tiny"), steps=100, epochs=2)
    assert one.search_of(one.methods["lora"], 20).epochs == 20
    assert one.search_of(one.methods["lora"], 4000).epochs == 2
    assert one.search_of(MethodSpec("probe", steps=400), 20).epochs == 80
