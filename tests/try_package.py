"""What a stranger installs: the wheel and the sdist are built, and the wheel is tried in a new environment and an empty folder.

The wheel of a clone, whose folders of code and data are symlinks, and the one that the sdist gives must hold the same files.
The new environment borrows the dependencies of this one, so that nothing is fetched twice.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

from tiny import write_backbone

ROOT = Path(__file__).resolve().parent.parent
BENCH = ["--suite", "domains", "--method", "probe", "--method", "lora", "--seeds", "1", "--out", "benchmark"]


def build(out: Path, *what: str) -> Path:
    """The wheel that `python -m build` makes of this clone."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack what an earlier build has left there
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *what, str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    """The package's files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith("graftax/")}


def install(wheel: Path, folder: Path) -> Path:
    """The folder of commands of a new environment with the wheel in it."""
    venv.create(folder, with_pip=False)
    commands = folder / ("Scripts" if sys.platform == "win32" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(commands / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    purelib = subprocess.check_output(
        [commands / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    Path(purelib.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return commands


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = build(folder / "clone", "--wheel")
        held, held_by_sdist = contents(wheel), contents(build(folder / "sdist"))
        assert held == held_by_sdist, f"the sdist's wheel differs: {sorted(held.keys() ^ held_by_sdist.keys())}"
        assert {"graftax/py.typed", "graftax/serve/http/web/index.html", "graftax/serve/http/web/page.js"} <= {*held}

        backbone = str(write_backbone(folder / "backbone", max_position_embeddings=64))
        commands, empty = install(wheel, folder / "environment"), folder / "empty"
        empty.mkdir()
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GRAFTAX"))}

        def run(*arguments: str) -> str:
            print("graftax", *arguments, flush=True)
            tried = subprocess.run([commands / "graftax", *arguments], cwd=empty, env=variables, capture_output=True, text=True)
            assert tried.returncode == 0, tried.stdout + tried.stderr
            return tried.stdout

        where = [commands / "python", "-c", "import graftax; print(graftax.__file__)"]
        assert str(folder) in subprocess.check_output(where, cwd=empty, env=variables, text=True)
        run("--version")
        run("bench", "--backbone", backbone, *BENCH)
        assert "(pack size " in run("demo", "--backbone", backbone)
    print("the wheel and the sdist hold what they need")


if __name__ == "__main__":
    main()
