"""Builds the documentation's site into site/, and looks at it: `make docs`.

Zensical itself ends with an error for a link, an anchor or a name in the reference that leads nowhere. What it lets pass is
looked at here: docstrings that the reference cannot read, public names without a place in it, settings of which it says
nothing, and files that a reader's browser would have to fetch from elsewhere.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("graftax", "graftax.adapters", "graftax.models", "graftax.train", "graftax.serve")
_FETCHED = re.compile(r'<(?:script|img|iframe|link rel="(?:stylesheet|preload)")[^>]+(?:src|href)="(?:https?:)?//[^"]+"')


def public_names() -> set[str]:
    """Every public name once, by the shortest path that leads to it and not to a file of that name."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        for name in importlib.import_module(package).__all__:
            path = f"{package}.{name}"
            found.setdefault(name, f"{path}.{name}" if path in sys.modules else path)
    return set(found.values())


def settings() -> set[str]:
    """The fields of every public dataclass."""
    modules = [importlib.import_module(package) for package in PACKAGES]
    public = [getattr(module, name) for module in modules for name in module.__all__]
    classes = [one for one in public if isinstance(one, type) and dataclasses.is_dataclass(one)]
    return {field.name for one in classes for field in dataclasses.fields(one) if field.init}


def faults(site: Path, said: str) -> list[str]:
    """What is wrong with a site, in a line each, and with what was said when it was built."""
    pages = {page: page.read_text("utf-8") for page in sorted(site.rglob("*.html"))}
    reference = "".join(text for page, text in pages.items() if page.parent.name == "reference")
    there = {*re.findall(r'id="(graftax[\w.]+)"', reference)}
    said_of = {*re.findall(r"<code>(\w+)</code>", reference)}
    return [
        *(line for line in said.splitlines() if line.startswith("griffe:")),
        *(f"{name} has no place in docs/reference/." for name in sorted(public_names() - there)),
        *(f"docs/reference/ says nothing of the setting {name}." for name in sorted(settings() - said_of)),
        *(f"{page.relative_to(site)} fetches {found}" for page, text in pages.items() for found in _FETCHED.findall(text)),
    ]


def main() -> None:
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(built.stdout, end="")
    wrong = faults(ROOT / "site", built.stdout)
    print("\n".join(wrong))
    sys.exit(built.returncode or bool(wrong))


if __name__ == "__main__":
    main()
