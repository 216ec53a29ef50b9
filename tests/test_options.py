"""Options that follow from dataclasses: they are called, typed and preset as ever, and a command gets what was given."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import pytest
import typer
from annotated_doc import Doc
from refusals import refused

from graftax.cli import app
from graftax.cli.arguments import columns_of
from graftax.cli.dataclass_options import OptionPerField, options_from_fields
from graftax.cli.options import ColumnOption, ColumnsOptions, Loading, NamedColumns
from graftax.cli.train import LoadingToTrain, MethodInWords, Running
from graftax.serve.sampling import Sampling
from graftax.train import Columns, Recipe
from graftax.typed import settle

LOADING = {"revision": "main", "dtype": "float32", "quantize": None}
LABELLED = {"text_column": "text", "text_pair_column": None, "label_column": "label"}
COLUMNS = {
    **LABELLED,
    "prompt_column": "prompt",
    "completion_column": "completion",
    "messages_column": "messages",
    "chosen_column": "chosen",
    "rejected_column": "rejected",
}
SAMPLING = {
    "max_new_tokens": 64,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": None,
    "stop": None,
    "seed": 0,
    "num_beams": 1,
    "length_penalty": None,
    "early_stopping": None,
}
METHOD = {"method": "lora", "rank": None, "alpha": None, "start": None, "fuse": None, "target": None, "option": None}
RUNNING = {"pack_size": None, "overwrite": False, "save_every": 30.0}
RECIPE = {
    "epochs": 3,
    "lr": 1e-3,
    "batch_size": 32,
    "max_length": 128,
    "truncate": False,
    "schedule": "linear",
    "warmup": 0.06,
    "weight_decay": 0.0,
    "optimizer": "adamw",
    "preconditioned": False,
    "lora_plus": 1.0,
    "layer_decay": 1.0,
    "beta": 0.1,
    "unfreeze": 0.0,
    "clip": 1.0,
    "patience": None,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("train", [METHOD, RECIPE, COLUMNS, RUNNING, {**LOADING, "remat": None}]),
        ("eval", [SAMPLING, COLUMNS, LOADING]),
        ("predict", [LOADING]),
        ("embed", [LOADING]),
        ("generate", [SAMPLING, LOADING]),
        *((name, [{"revision": "main"}]) for name in ("merge", "combine", "export")),
        ("bench", [LABELLED]),
    ],
)
def test_options_are_as_they_were_when_they_were_typed_by_hand(command: str, groups: list[dict[str, Any]]) -> None:
    """Names, defaults and the order in the help: scripts and people know them."""
    all_of_them: Any = typer.main.get_command(app)
    options = {option.name: option for option in all_of_them.commands[command].params}
    for group in groups:
        there = [option for name, option in options.items() if name in group]
        assert {option.name: option.default for option in there} == group
        assert [option.name for option in there] == list(group)
        for option in there:
            assert option.opts == [f"--{option.name.replace('_', '-')}"]
            assert option.multiple == (option.name in ("stop", "fuse", "option"))
            assert option.is_flag == isinstance(group[option.name], bool) or option.name == "early_stopping"


@dataclasses.dataclass(frozen=True)
class Meal:
    """One with every sort of field."""

    plates: Annotated[int, Doc("How many.")] = 2
    price: Annotated[float | None, Doc("Of all.")] = None
    hot: Annotated[bool, Doc("Or cold.")] = True
    sides: Annotated[tuple[str, ...], Doc("Once for each.")] = ()
    drink: Annotated[str, Doc("A word.")] = "water"

    def __post_init__(self) -> None:
        settle(self)


MEALS = [
    ([], Meal()),
    (["--plates", "3", "--price", "1"], Meal(plates=3, price=1.0)),
    (["--no-hot"], Meal(hot=False)),
    (["--sides", "rice", "--sides", "beans"], Meal(sides=("rice", "beans"))),
]


@pytest.mark.parametrize(("given", "expected"), MEALS)
def test_a_command_gets_one_of_what_was_given(given: list[str], expected: Meal) -> None:
    """Each option has the field's type and default; a parameter of the command's own stands for its field."""
    got: list[tuple[Meal, str]] = []

    def order(*, meal: Annotated[Meal, OptionPerField("Food")], drink: str = "tea") -> None:
        got.append((meal, drink))

    small = typer.Typer()
    small.command()(options_from_fields(order))
    small(args=given, standalone_mode=False)
    assert got == [(expected, "tea")]


def given_columns(*given: str) -> Columns:
    """What a command with the options of columns makes of an argument list."""
    got: list[Columns] = []

    def command(context: typer.Context, *, columns: ColumnsOptions, column: ColumnOption = None) -> None:
        got.append(columns_of(context, columns, column))

    small = typer.Typer()
    small.command()(options_from_fields(command))
    small(args=list(given), standalone_mode=False)
    return got[0]


def test_any_field_has_a_column() -> None:
    assert given_columns() == Columns()
    assert given_columns("--column", "text=a=b", "--column", "pair=c") == Columns(text="a=b", pair="c")
    assert given_columns("--text-column", "a", "--column", "label=b") == given_columns(
        "--column", "text=a", "--label-column", "b"
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--column", "text"], "--column 'text': expected FIELD=NAME, as in text=question."),
        (["--column", "text="], "--column 'text=': expected FIELD=NAME, as in text=question."),
        (["--column", "text=a", "--column", "text=a"], "--column 'text=a': the column of 'text' is named twice."),
        (["--text-column", "text", "--column", "text=a"], "--column 'text=a': the column of 'text' is named twice."),
        (["--text-pair-column", "b", "--column", "pair=a"], "--column 'pair=a': the column of 'pair' is named twice."),
    ],
)
def test_a_column_that_cannot_be_meant(given: list[str], line: str) -> None:
    said = refused(lambda: given_columns(*given))
    assert said is not None
    assert said.startswith(line)


def test_every_field_of_a_bundle_has_words() -> None:
    """But the one for which a command has an option of its own."""
    bundles = (Recipe, Sampling, NamedColumns, Loading, LoadingToTrain, MethodInWords, Running)
    fields = [field for cls in bundles for field in dataclasses.fields(cls)]
    assert [field.name for field in fields if "Doc(" not in str(field.type)] == ["chat_template"]
