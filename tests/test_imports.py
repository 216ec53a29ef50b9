"""What importing graftax does not import: torch and PEFT, which its users need not have; and what help does not wait for."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from stores import FILES, about, store_of

from graftax.store.events import Measure


@pytest.mark.parametrize("modules", ["graftax", "graftax.train, graftax.serve, graftax.adapters, graftax.models, graftax.cli"])
def test_torch_is_never_imported(modules: str) -> None:
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["", "train", "eval", "predict", "generate", "serve", "bench"])
def test_help_waits_for_nothing_heavy(command: str) -> None:
    """The options follow from dataclasses whose modules import neither JAX nor what the data are read with."""
    heavy = ("jax", "numpy", "transformers", "optax", "datasets", "torch")
    code = (
        "import sys; from graftax.__main__ import main\n"
        "try: main()\n"
        f"finally: print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, *command.split(), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("package", ["graftax", "graftax.adapters", "graftax.hub", "graftax.train", "graftax.serve"])
def test_what_is_imported_when_it_is_used(package: str) -> None:
    """Each public name is there; none is a module's, too, which whoever imports the module would get in its place."""
    module = importlib.import_module(package)
    assert not {*module.__all__} & {one.name for one in pkgutil.iter_modules(module.__path__)}
    assert {*module.__all__} <= {*dir(module)}
    public = [getattr(module, name) for name in module.__all__]
    assert all(one.__module__.startswith("graftax") for one in public if callable(one))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_what_a_hub_is_asked_waits_for_nothing_heavy(tmp_path: Path) -> None:
    """Every command but those that read an adapter's arrays."""
    store = store_of(tmp_path / "hub", tmp_path)
    for i in range(3):
        manifest = about(str(i), task="classify", metrics={"val_accuracy": 0.5})
        store.add_evaluation(store.push("x", manifest, FILES)[0], "classify", "0" * 64, 9, {"accuracy": Measure(0.5)})
    commands = (
        "list", "search 2", "show x", "show x --json", "tag x prod 1", "pull x", "yank x:2 --reason bad", "verify",
        "leaderboard classify", "rm x:3", "gc",
    )  # fmt: skip
    heavy = ("jax", "numpy", "transformers", "optax", "datasets", "torch")
    code = (
        "import sys; from graftax.__main__ import main\n"
        f"for command in {commands}:\n"
        "    sys.argv = ['graftax', 'hub', *command.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, command\n"
        f"    print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    environment = os.environ | {"GRAFTAX_HUB": store.url, "XDG_CACHE_HOME": str(tmp_path)}
    (here := tmp_path / "here").mkdir()  # Python looks for packages there: not where a folder of the cache is called graftax
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=here, env=environment)
    assert done.stderr == "[]\n" * len(commands)
    assert "val_accuracy 0.500" in done.stdout
