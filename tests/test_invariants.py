"""docs/invariants.md: the tests that it names are there, and what cites a number of it is named under that number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.with_name("docs").joinpath("invariants.md").read_text("utf-8")
SECTIONS = {int(part.partition(".")[0]): part for part in re.split("^##+ ", PAGE, flags=re.MULTILINE) if part[0].isdigit()}
NAMED = {number: set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)) for number, text in SECTIONS.items()}


def docstrings() -> dict[tuple[str, str], str]:
    """Of every file of tests ("" is the name of its own) and every test."""
    found = {}
    for file in sorted(HERE.glob("test_*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        found[file.name, ""] = ast.get_docstring(tree) or ""
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[file.name, node.name] = ast.get_docstring(node) or ""
    return found


def test_every_invariant_is_held_by_tests_that_there_are() -> None:
    assert sorted(SECTIONS) == list(range(1, 35))
    assert [number for number, tests in NAMED.items() if not tests] == []
    assert set().union(*NAMED.values()) - docstrings().keys() == set()


def test_what_cites_an_invariant_is_named_under_it() -> None:
    """A test by its name; a file by one of its tests."""
    astray = []
    for (file, test), said in docstrings().items():
        for numbers in re.findall(r"[Ii]nvariants? (\d+(?:(?:, | and )\d+)*)", said):
            for number in map(int, re.findall(r"\d+", numbers)):
                there = {(f, t if test else "") for f, t in NAMED[number]}
                astray += [] if (file, test) in there else [(number, file, test)]
    assert astray == []
