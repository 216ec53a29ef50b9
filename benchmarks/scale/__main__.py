"""The page docs/scale.md, and the files of constants that its figures are computed from.

    python -m graftax.benchmarks.scale            writes the page's tables anew, between their markers; a few minutes
    python -m graftax.benchmarks.scale measure BACKBONE DATA     measured.json: small runs on this machine; some ten minutes
    python -m graftax.benchmarks.scale compile    compiled.json: programs for an H100, in the environment of `make accelerators`

BACKBONE is a directory of MiniLM's weights, DATA one with `train.csv` of CLINC150.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # what computes here; compiled programs are for other devices
    from ...errors import GraftaxError

    parser = argparse.ArgumentParser(prog="python -m graftax.benchmarks.scale", description=__doc__.partition("\n")[0])
    what = parser.add_subparsers(dest="what")
    what.add_parser("compile", help="compile programs for an H100 and keep what they cost")
    measure = what.add_parser("measure", help="measure the constants of this machine")
    measure.add_argument("backbone", help="a directory of MiniLM's weights")
    measure.add_argument("data", type=Path, help="a directory with train.csv of CLINC150")
    asked = parser.parse_args(arguments)
    try:
        if asked.what == "compile":
            from .compiled_costs import write_compiled

            write_compiled(made(("jax", "jax-cuda13-plugin", "nvidia-cudnn-cu13")), tell)
        elif asked.what == "measure":
            from .measuring import write_measured

            write_measured(made(("jax",)), asked.backbone, asked.data, tell)
        else:
            write_page()
    except GraftaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_page() -> None:
    """Every table of the page anew, in its place."""
    from .scale_page import PAGE, QUICK, SIMULATED, renewed

    tables = dict[str, str]()
    for name, made_of in {**QUICK, **SIMULATED}.items():
        began = time.perf_counter()
        tables[name] = made_of()
        tell(f"{name}: {time.perf_counter() - began:.1f} s")
    PAGE.write_text(renewed(PAGE.read_text("utf-8"), tables), "utf-8")


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def made(packages: tuple[str, ...]) -> str:
    """When, of which commit and by which versions."""
    from importlib.metadata import version

    here = Path(__file__).resolve().parent
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False)
    commit = asked.stdout.strip() or "no repository"
    return f"{datetime.date.today()}, commit {commit}; {', '.join(f'{package} {version(package)}' for package in packages)}"


if __name__ == "__main__":
    sys.exit(main())
