"""The documentation, without building its site: links lead somewhere, and public names are in the reference."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import typer.main
from build_docs import faults, public_names, settings

import graftax
from graftax.cli import hub_commands

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
)
_FENCED = re.compile(r"^```.*?^```$|^--8<--.*?$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\[]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, on the site as in a repository's own viewer."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower() for heading in headings)
    return {re.sub(r"\s+", "-", heading) for heading in plain}


def dead_links(page: Path) -> list[str]:
    """The relative links of a page that lead to no file, or to a heading that its target lacks."""
    dead = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        of_reference = anchor.startswith("graftax.")  # the site's own check has these
        if not target.exists() or (anchor and not of_reference and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_dead_links_are_seen(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One `word` more\n\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#one-word-more) [b](other.md#no-heading) [c](gone.md) [d](https://nowhere.invalid) [e](#f)\n")
    assert dead_links(page) == ["other.md#no-heading", "gone.md", "#f"]


def test_faults_of_a_site_are_seen(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    page = tmp_path / "reference" / "all.html"
    names = "".join(f'<h2 id="{name}">' for name in public_names())
    fields = "".join(f"<code>{name}</code>" for name in settings())
    page.write_text(names + fields + '<script src="assets/own.js"></script><a href="https://elsewhere.invalid">')
    assert faults(tmp_path, "Build started") == []
    fetched = '<link rel="stylesheet" href="https://fonts.invalid/css"'
    page.write_text(names.replace('"graftax.LoRA"', '""') + fields.replace("lora_plus", "") + fetched + ">")
    assert faults(tmp_path, "griffe: lora.py:3: unknown") == [
        "griffe: lora.py:3: unknown",
        "graftax.LoRA has no place in docs/reference/.",
        "docs/reference/ says nothing of the setting lora_plus.",
        f"reference/all.html fetches {fetched}",
    ]


def test_every_page_is_in_the_navigation() -> None:
    """Once, and nothing else is."""
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    found = re.findall(r"'([\w/]+\.md)'", str(navigation))
    assert sorted(found) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_public_name_is_in_the_reference() -> None:
    pages = [page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE)}
    assert public_names() - named == set()


def test_every_command_of_the_hub_is_shown_at_work() -> None:
    """Of the hub, on the command line's page."""
    page = (DOCS / "cli.md").read_text("utf-8")
    commands = typer.main.get_group(hub_commands.app).commands
    assert [name for name in commands if f"$ graftax hub {name}" not in page] == []


def test_examples_use_names_that_there_are() -> None:
    """Whole examples, that is: the pages on adding something show pieces of files."""
    unknown = []
    for page in PAGES:
        if not page.name.startswith("adding_"):
            for example in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
                used = {ast.unparse(node) for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Attribute)}
                there = {f"graftax.{name}" for name in graftax.__all__}
                unknown += sorted(name for name in used - there if re.fullmatch(r"graftax\.[A-Za-z_]+", name))
    assert unknown == []
