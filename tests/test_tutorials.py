"""The tutorials and examples: pages show the scripts as they are, and the scripts run."""

from __future__ import annotations

import io
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MINILM
from run_tutorials import FOLDER, TUTORIALS, cells, outputs, page, printed_on
from tiny import write_backbone

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def test_there_is_a_page_of_every_script() -> None:
    assert {file.stem for file in FOLDER.glob("*.py")} == {*TUTORIALS} == {file.stem for file in FOLDER.glob("*.md")}


@pytest.mark.parametrize("name", TUTORIALS)
def test_pages_show_the_scripts_as_they_are(name: str) -> None:
    """`make tutorials` was run after the last change of a script: its text and code are there, each output in its place."""
    text = (FOLDER / f"{name}.md").read_text("utf-8")
    shown = iter(printed_on(text))
    code = [cell.source for cell in cells(name) if not cell.is_text]
    assert text == page(name, [next(shown) if "print(" in source else "" for source in code])


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorials_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On MiniLM where it is there, else on a tiny backbone, whose answers mean nothing; what they assert holds on both."""
    tiny = {"num_hidden_layers": 6, "max_position_embeddings": 64}
    backbone = MINILM if MINILM.is_dir() else write_backbone(tmp_path / "backbone", **tiny)
    monkeypatch.chdir(tmp_path)
    printed = [text for text in outputs(name, str(backbone)) if text]
    assert len(printed) == len(printed_on((FOLDER / f"{name}.md").read_text("utf-8")))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Runs an example as its command line does; the lines that it prints."""

    def printed(script: str, *arguments: object, given: str = "") -> list[str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return printed


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., list[str]]) -> None:
    """Those of examples/, one after another as its README has them, on a backbone whose answers mean nothing."""
    backbone = write_backbone(tmp_path / "backbone", max_position_embeddings=64)
    monkeypatch.chdir(tmp_path)
    for name in ("bank", "airline"):
        (said,) = run("train_from_csv.py", backbone, EXAMPLES / "domains" / f"{name}.csv")
        assert said.startswith(f"adapters/{name}: right about ")
    answers = run("predict_mixed_batch.py", backbone, "adapters/bank", "adapters/airline", given="card gone\n\nmy bag\n")
    assert [answer.partition(":")[0] for answer in answers] == ["bank", "airline", "bank", "airline"]
    assert len(run("find_similar.py", backbone, EXAMPLES / "domains" / "bank.csv", "card gone", "adapters/bank")) == 5
    assert {*named(EXAMPLES / "README.md")} == {file.name for file in EXAMPLES.glob("*.py")}


def named(page: Path) -> list[str]:
    """The scripts that a page links to."""
    return re.findall(r"\]\((\w+\.py)\)", page.read_text("utf-8"))
