"""The Python that CI runs the second line on is found wherever it is, and is one that works."""

import sys
from pathlib import Path

import pytest
from find_python import directories, newest, works


def python(path: Path, exit_code: int = 0) -> Path:
    """A program that answers every question with an exit code, as a shim of pyenv's for a version not chosen does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a machine on which nothing is installed, with two directories in `PATH`."""
    monkeypatch.setattr("find_python.SYSTEM", (str(tmp_path / "usr/local"), str(tmp_path / "opt")))
    return {"PATH": f"{tmp_path / 'bin'}:{tmp_path / 'usr/bin'}", "HOME": str(tmp_path / "home")}


def test_none_is_none(machine: dict[str, str], tmp_path: Path) -> None:
    python(tmp_path / "bin/python3.11")
    python(tmp_path / "bin/python3.15")
    assert newest(directories(machine)) is None


@pytest.mark.parametrize(
    "folder",
    [
        "usr/bin",
        "home/.pyenv/versions/3.12.1/bin",
        "home/.local/share/uv/python/cpython-3.12.1/bin",
        "opt/py/bin",
        "usr/local/bin",
    ],
)
def test_found_in_every_usual_folder(machine: dict[str, str], tmp_path: Path, folder: str) -> None:
    python(tmp_path / "bin/python3.12", exit_code=127)  # a shim
    wanted = python(tmp_path / folder / "python3.12")
    assert newest(directories(machine)) == wanted


@pytest.mark.parametrize(("variable", "below"), [("PYENV_ROOT", "versions/3.13.0/bin"), ("UV_PYTHON_INSTALL_DIR", "3.13/bin")])
def test_found_where_a_variable_says(machine: dict[str, str], tmp_path: Path, variable: str, below: str) -> None:
    wanted = python(tmp_path / "kept" / below / "python3.13")
    assert newest(directories({**machine, variable: str(tmp_path / "kept")})) == wanted


def test_found_beside_a_pyenv_that_lies_anywhere(machine: dict[str, str], tmp_path: Path) -> None:
    python(tmp_path / "srv/pyenv/bin/pyenv")
    wanted = python(tmp_path / "srv/pyenv/versions/3.12.4/bin/python3.12")
    assert newest(directories({**machine, "PATH": f"{machine['PATH']}:{tmp_path / 'srv/pyenv/bin'}"})) == wanted


def test_the_newest_that_works(machine: dict[str, str], tmp_path: Path) -> None:
    python(tmp_path / "bin/python3.12")
    wanted = python(tmp_path / "opt/bin/python3.13")
    python(tmp_path / "usr/bin/python3.13", exit_code=1)
    python(tmp_path / "usr/bin/python3.14", exit_code=1)
    assert newest(directories(machine)) == wanted


def test_what_works_can_make_an_environment(tmp_path: Path) -> None:
    assert works(Path(sys.executable))
    assert not works(python(tmp_path / "broken", exit_code=1))
    assert not works(tmp_path / "nothing")
