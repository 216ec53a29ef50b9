"""TOML that people write: a benchmark's suite, the settings of a training. What is none is one line that names the file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from .errors import GraftaxError
from .json_files import read_bytes
from .paths import expect_file


def read_toml(path: Path, missing: str | None = None) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        GraftaxError: `missing` (or a line that names it), where there is no such file; else what is wrong with it.
    """
    expect_file(path, missing)
    try:
        return tomllib.loads(read_bytes(path).decode())
    except RecursionError as error:
        raise GraftaxError(f"{path}: not valid TOML (nested too deep).") from error
    except ValueError as error:  # no UTF-8, no TOML, or an integer of thousands of digits
        raise GraftaxError(f"{path}: not valid TOML ({error}).") from error
