"""Prints where the newest Python of the second line (CONTRIBUTING.md) is, and nothing where this machine has none.

`python3.12` by name is not enough: pyenv's and uv's versions lie in directories that `PATH` does not name, and a shim of
pyenv's in `PATH` has the name of a version and runs only the chosen one. So every usual folder is looked into, and what is
found there counts when it has run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

#: The versions for which constraints.txt has the second line's jax and flax, the newest first.
NAMES = ("python3.14", "python3.13", "python3.12")
#: What keeps versions of Python: the variable that moves it, where it is otherwise, and its directory of one folder a version.
KEEPERS = (("PYENV_ROOT", "~/.pyenv", "versions"), ("UV_PYTHON_INSTALL_DIR", "~/.local/share/uv/python", ""))
SYSTEM = ("/usr/local", "/opt", "/opt/python", "/usr")
#: An environment can be made with it, and it is a finished release with the usual lock, for which there are wheels.
WORKS = """
import ensurepip, ssl, sys, sysconfig, venv
sys.exit(sys.version_info.releaselevel != "final" or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
"""


def directories(environment: Mapping[str, str]) -> Iterator[Path]:
    """Those in which interpreters may lie; the ones in `PATH` first, which a person has chosen."""
    for entry in environment.get("PATH", "").split(os.pathsep):
        yield Path(entry)
        if (Path(entry) / "pyenv").is_file():  # installed anywhere, with its versions beside its commands
            yield from sorted(Path(entry).parent.glob("versions/*/bin"))
    for variable, usual, versions in KEEPERS:
        root = Path(environment.get(variable, "") or usual.replace("~", environment.get("HOME", "~")))
        yield from sorted(root.joinpath(versions).glob("*/bin"))
    for root in map(Path, SYSTEM):
        yield root / "bin"
        yield from sorted(root.glob("*/bin"))


def works(interpreter: Path) -> bool:
    """Whether an environment can be made with it, which a broken or unchosen one says by its exit code."""
    try:
        return subprocess.run([interpreter, "-I", "-c", WORKS], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def newest(folders: Iterable[Path]) -> Path | None:
    """The interpreter of the newest version that works; of several of one version, the first."""
    searched = list(folders)
    found = (folder / name for name in NAMES for folder in searched)
    return next((path for path in found if path.is_file() and works(path)), None)


def main() -> None:
    if interpreter := newest(directories(os.environ)):
        print(interpreter)


if __name__ == "__main__":
    main()
