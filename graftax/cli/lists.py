"""The commands that show what there is: `methods`, `backbones`, `demo`."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import out_option
from .output import print_page


def methods(
    markdown: Annotated[bool, typer.Option("--markdown", help="The whole table, as in docs/methods.md.")] = False,
) -> None:
    """List the adapter methods."""
    from ..adapters.formats.peft.dialect_table import dialect_class
    from ..adapters.methods.method_registry import all_methods
    from ..adapters.methods.unions import UNIONS
    from .methods_page import markdown as table

    if markdown:
        print(table(), end="")
        return
    said: dict[str, str] = {}
    for name, cls in all_methods().items():
        can = ", ".join(["merge"] * cls.mergeable + ["PEFT files"] * bool(dialect_class(cls).peft_type))
        said[name] = cls.summary + (f"  [{can}]" if can else "")
    said |= {name: f"{'+'.join(method.name for method in union())} in one adapter" for name, union in UNIONS.items()}
    said["probe"] = f"no method: {said.pop('head')}"
    width = max(map(len, said))
    print_page("\n".join(f"{name:{width}}  {summary}" for name, summary in said.items()))


_PARITY = """
The numbers are the largest difference, in any layer, from PyTorch's model
of the same weights: float32, tiny random ones, real ones where at hand.
"""


def backbones() -> None:
    """List the backbone families, and how near each is to PyTorch's models."""
    from ..models.family_registry import FAMILIES

    apart = json.loads(files("graftax.models").joinpath("parity.json").read_text("utf-8"))
    width = max(map(len, FAMILIES))
    lines = [f"{name:{width}}  {apart.get(name, '-'):>5}  {family.summary}" for name, family in FAMILIES.items()]
    print_page("\n".join(lines) + "\n" + _PARITY.rstrip())


def demo(
    backbone: Annotated[
        Optional[str],
        typer.Option("--backbone", "-b", help="Default: all-MiniLM-L6-v2, with --vision MobileNetV2, fetched if need be."),
    ] = None,
    out: Annotated[Path, out_option(help="Where the adapters and the picture go.")] = Path("demo-output"),
    vision: Annotated[
        bool, typer.Option("--vision", help="Pictures in place of texts: six kinds of inspection, two minutes.")
    ] = False,
) -> None:
    """Train eight domain adapters on one backbone, then use them all in one batch. Under a minute on two cores."""
    from .. import demo, vision_demo

    (vision_demo if vision else demo).run(backbone, out)
