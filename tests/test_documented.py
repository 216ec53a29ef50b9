"""Every field of every public dataclass says what it is: in its `Doc`, in a comment beside it or above, or by its name in the
docstring; and every script that measures is in the table of these."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Annotated

import pytest
from annotated_doc import Doc

import graftax

MODULES = [graftax, *(importlib.import_module(f"graftax.{name}") for name in ("adapters", "models", "train", "serve"))]
CLASSES = {one for module in MODULES for name in module.__all__ if inspect.isclass(one := getattr(module, name))}
DATACLASSES = sorted((one for one in CLASSES if dataclasses.is_dataclass(one)), key=lambda one: one.__name__)


def undocumented(cls: type) -> list[str]:
    """The fields that a class itself declares and says nothing about."""
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    docstring, missing = cls.__doc__ or "", []
    for field in dataclasses.fields(cls):
        found = next((i for i, line in enumerate(lines) if re.match(rf"    {field.name}:", line)), None)
        if found is None or "Doc(" in str(field.type):  # inherited, or said
            continue
        named = re.search(rf"`{field.name}`|^\s*{field.name}: ", docstring, re.MULTILINE)
        if not named and "  # " not in lines[found] and not lines[found - 1].strip().startswith("#"):
            missing.append(field.name)
    return missing


@pytest.mark.parametrize("cls", DATACLASSES, ids=lambda cls: cls.__name__)
def test_fields_are_documented(cls: type) -> None:
    assert undocumented(cls) == []


def test_all_are_looked_at() -> None:
    """What is looked at is what people are given, and a bare field is seen."""

    @dataclasses.dataclass
    class Bare:
        """Nothing about x."""

        x: int
        y: int  # a number
        z: Annotated[int, Doc("A number.")]

    assert {graftax.Recipe, graftax.Prediction, graftax.LoRA, graftax.Sampling} <= {*DATACLASSES}
    assert undocumented(Bare) == ["x"]


def test_every_benchmark_script_is_in_their_table() -> None:
    folder = Path(__file__).parent.parent / "benchmarks"
    named = (folder / "README.md").read_text("utf-8")
    scripts = sorted(file for part in ("speed", "reliability") for file in (folder / part).glob("*.py"))
    assert [file.name for file in scripts if f"`{file.name}" not in named] == []
