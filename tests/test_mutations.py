"""The list of mistakes is of the code that there is: what a renaming leaves behind is found at once, not when it is made."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import mutations
import pytest
from mutants import ROOT
from mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.file}: {mutation.old}")
def test_a_mistake_can_be_made_and_has_its_tests(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text("utf-8").count(mutation.old) == 1
    file, _, test = mutation.tests.partition("::")
    assert re.search(rf"^def {re.escape(test.partition('[')[0] or 'test_')}", (ROOT / file).read_text("utf-8"), re.MULTILINE)


def test_no_name_stands_for_two_tests() -> None:
    """What is assigned again further down would be run for the mistakes of both."""
    statements = ast.parse(Path(mutations.__file__).read_text("utf-8")).body
    targets = [target for statement in statements if isinstance(statement, ast.Assign) for target in statement.targets]
    names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    assert len(names) > 100
    assert sorted(names) == sorted({*names})
