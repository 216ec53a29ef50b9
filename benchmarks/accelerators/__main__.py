"""Compile the programs of the catalogue for described devices, and write what is read off them.

    python -m graftax.benchmarks.accelerators [--device h100 v5e] [--program NAME ...] [--out FILE]

Without `--out` the page goes to standard output. What is done meanwhile is told on standard error.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # what computes here; the programs are for other devices
    import jax

    from ...errors import GraftaxError
    from .accelerator_table import page
    from .catalogue_of_programs import CATALOGUE, RANK, program_named
    from .described_devices import DEVICES, described

    parser = argparse.ArgumentParser(prog="python -m graftax.benchmarks.accelerators", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", nargs="+", default=list(DEVICES), metavar="NAME", help=f"of {', '.join(DEVICES)}")
    parser.add_argument("--program", nargs="+", default=list(CATALOGUE), metavar="NAME", help=f"of {', '.join(CATALOGUE)}")
    parser.add_argument("--out", type=Path, help="a file for the page")
    asked = parser.parse_args(arguments)
    found: dict[str, list[Any]] = {}
    try:
        programs, devices = [program_named(name) for name in asked.program], [described(name) for name in asked.device]
        for device in devices:
            jax.clear_caches()  # what was traced for another platform is not to be found again
            found[device.name] = []
            for named in programs:
                began = time.perf_counter()
                facts = named.read(device)
                found[device.name].append((named, facts))
                print(f"{device.name} {named.name}: {time.perf_counter() - began:.0f} s of compiling", file=sys.stderr)
                if asked.out is not None:  # what there is so far, should one of the next take too long
                    asked.out.write_text(page(found, DEVICES, made(), RANK), "utf-8")
    except GraftaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if asked.out is None:
        print(page(found, DEVICES, made(), RANK), end="")
    return 0


def made() -> str:
    """When, of which commit and by which versions."""
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"no {package}"

    here = Path(__file__).resolve().parent
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False)
    commit = asked.stdout.strip() or "no repository"
    packages = ", ".join(of(package) for package in ("jax", "jax-cuda13-plugin", "nvidia-cudnn-cu13", "libtpu"))
    return f"{datetime.date.today()}, commit {commit}; {packages}. `make accelerators` writes this page."


if __name__ == "__main__":
    sys.exit(main())
