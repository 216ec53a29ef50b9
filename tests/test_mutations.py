"""The list of mistakes is of the code that there is: what a renaming leaves behind is found at once, not when it is made."""

from __future__ import annotations

import re

import pytest
from mutants import ROOT
from mutations import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.file}: {mutation.old}")
def test_a_mistake_can_be_made_and_has_its_tests(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text("utf-8").count(mutation.old) == 1
    file, _, test = mutation.tests.partition("::")
    assert re.search(rf"^def {re.escape(test.partition('[')[0] or 'test_')}", (ROOT / file).read_text("utf-8"), re.MULTILINE)
