"""docs/map.md names every file of the package, in the section of its folder, and no other."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = (ROOT / "docs" / "map.md").read_text("utf-8").split("\n## ")[1:]
FOLDERS = ["adapters", "models", "data", "tasks", "train", "serve", "benchmarks", "graftax"]
ELSEWHERE = {"speed"}  # benchmarks/README.md has these


@pytest.mark.parametrize("folder", [*FOLDERS, "store", "hub"])
def test_every_file_is_on_the_map(folder: str) -> None:
    """By its name; a folder within is part of the same section."""
    (section,) = (text for text in SECTIONS if text.startswith(f"{folder}/"))
    below = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py"))
    links = {path.name for path in (ROOT / folder).iterdir() if path.is_symlink()}
    there = {path.name for path in below if path.parts[0] not in links | ELSEWHERE and path.name != "__init__.py"}
    named = {name for name in re.findall(r"`([\w/]+\.py)`", section) if "/" not in name}
    assert named == there


#: Folders for the files of other libraries: what does the same work in each has the same name.
PARALLEL = ROOT / "adapters" / "formats"


def test_no_two_files_have_one_name() -> None:
    """Else a name in a traceback, a search or a talk would leave open which is meant."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"]
    own = {path.resolve() for path in paths}  # the folders are found in `graftax/` once more, as links
    names = Counter(path.name for path in own if PARALLEL not in path.parents)
    names.update({path.name for path in own if PARALLEL in path.parents})
    assert [name for name, count in names.items() if count > 1] == []


#: The folders whose words are held here, and the words that no parameter has for a name, with what it is called instead.
HELD = ["adapters", "models", "graftax"]
SAYS_NOTHING = {"at": "calls, for the calls of sites"}


@pytest.mark.parametrize("folder", HELD)
def test_no_parameter_has_a_name_that_says_nothing(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        every = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.arg))
        assert [f"{path.name}:{node.lineno} {node.arg}" for node in every if node.arg in SAYS_NOTHING] == []


def test_no_two_files_share_a_name() -> None:
    """But in the folders of two libraries' files, where the same name is of the same part."""
    of_formats = ROOT / "adapters" / "formats"
    there: dict[str, list[Path]] = {}
    for folder in [*FOLDERS, "tests"]:
        links = [path for path in (ROOT / folder).iterdir() if path.is_symlink()]
        for file in (ROOT / folder).rglob("*.py"):
            if file.name != "__init__.py" and not any(link in file.parents for link in links):
                there.setdefault(file.name, []).append(file)
    shared = {name: files for name, files in there.items() if len(files) > 1}
    assert not {name for name, files in shared.items() if not all(of_formats in file.parents for file in files)}
