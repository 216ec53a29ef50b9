"""The tutorials, the examples and the first page: what is shown is what runs."""

from __future__ import annotations

import io
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MINILM, Graftax
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


def test_start_here_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graftax: Graftax, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file, its commands and its program, as they stand there, on a tiny backbone."""
    text = (ROOT / "docs" / "start.md").read_text("utf-8")
    backbone = str(write_backbone(tmp_path / "backbone", max_position_embeddings=128))
    monkeypatch.chdir(tmp_path)
    (rows,) = re.findall(r"^```text\n(text,label\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    Path("desk.csv").write_text(rows)
    Path("first.py").write_text(program)
    (train,) = re.findall(r"\$ graftax (train .*)$", text, re.MULTILINE)
    assert graftax(*train.replace("$B", backbone).split()).code == 0
    ((row, predict),) = re.findall(r"\$ echo '(.*)' \| graftax (predict .*)$", text, re.MULTILINE)
    said = graftax(*predict.replace("$B", backbone).split(), stdin=row)
    assert json.loads(said.out).keys() == {"adapter", "label", "score"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFTAX_HUB", str(tmp_path / "hub"))
    (push,) = re.findall(r"`graftax (hub push .*?)`", text)
    assert graftax(*push.split()).out.startswith("shop/desk:1 ")
    by_name = predict.replace("$B", backbone).replace("adapters/desk", "shop/desk")
    assert graftax(*by_name.split(), stdin=row).out == said.out
    monkeypatch.setattr(sys, "argv", ["first.py", backbone])
    runpy.run_path("first.py")
    assert len(capsys.readouterr().out.splitlines()) == 2


def named(page: Path) -> list[str]:
    """The scripts that a page links to."""
    return re.findall(r"\]\((\w+\.py)\)", page.read_text("utf-8"))
