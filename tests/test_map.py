"""docs/map.md names every file of the package, in the section of its folder, and no other."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = (ROOT / "docs" / "map.md").read_text("utf-8").split("\n## ")[1:]
FOLDERS = ["adapters", "models", "data", "tasks", "train", "serve", "tuning", "fleet", "benchmarks", "graftax"]
ELSEWHERE = {"speed", "reliability"}  # benchmarks/README.md has these


@pytest.mark.parametrize("folder", [*FOLDERS, "store", "hub"])
def test_every_file_is_on_the_map(folder: str) -> None:
    """By its name; a folder within is part of the same section."""
    (section,) = (text for text in SECTIONS if text.startswith(f"{folder}/"))
    below = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py"))
    links = {path.name for path in (ROOT / folder).iterdir() if path.is_symlink()}
    there = {path.name for path in below if path.parts[0] not in links | ELSEWHERE and path.name != "__init__.py"}
    named = {name for name in re.findall(r"`([\w/]+\.py)`", section) if "/" not in name}
    assert named == there


def test_a_word_is_explained_once() -> None:
    (words,) = re.findall(r"start:words\](.*)end:words\]", SECTIONS[0], re.DOTALL)
    explained = [word for row in re.findall(r"^\| ([^|]+) \|", words, re.MULTILINE) for word in row.split(", ")]
    assert len(explained) > 60
    assert [word for word, count in Counter(explained).items() if count > 1] == []


#: Names that no parameter has, and what is called otherwise. In `serve/` it is a setting of `Split`, and public.
SAYS_NOTHING = {"at": "`calls` are the calls of sites"}


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "serve"])
def test_no_parameter_has_a_name_that_says_nothing(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):  # links are not followed
        every = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.arg))
        assert [f"{path.name}:{node.lineno} {node.arg}" for node in every if node.arg in SAYS_NOTHING] == []


def test_no_two_files_share_a_name() -> None:
    """But in the folders of two libraries' files, where the same name is of the same part."""
    of_formats = ROOT / "adapters" / "formats"
    there: dict[str, list[Path]] = {}
    for folder in [*FOLDERS, "tests"]:
        links = [path for path in (ROOT / folder).iterdir() if path.is_symlink()]
        for file in (ROOT / folder).rglob("*.py"):
            if file.name not in ("__init__.py", "__main__.py") and not any(link in file.parents for link in links):
                there.setdefault(file.name, []).append(file)
    shared = {name: files for name, files in there.items() if len(files) > 1}
    assert not {name for name, files in shared.items() if not all(of_formats in file.parents for file in files)}
