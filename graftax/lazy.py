"""Packages whose public names are imported when they are first used.

So whoever wants a light piece of a package does not wait for JAX: the help of the command line looks at `Recipe` and nothing
else of `train/`.

    __getattr__, __dir__ = lazily(__name__, {".recipe": "Recipe", ".run": "train train_many"})
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package; `homes`: the names that each module has, with blanks between."""
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home_of[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names
