"""What importing graftax does not import: torch and PEFT, which its users need not have; and what help does not wait for."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest


@pytest.mark.parametrize("modules", ["graftax", "graftax.train, graftax.serve, graftax.adapters, graftax.models, graftax.cli"])
def test_torch_is_never_imported(modules: str) -> None:
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["", "train", "eval", "predict", "generate", "bench"])
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


@pytest.mark.parametrize("package", ["graftax", "graftax.train", "graftax.serve"])
def test_what_is_imported_when_it_is_used(package: str) -> None:
    """Each public name is there; none is a module's, too, which whoever imports the module would get in its place."""
    module = importlib.import_module(package)
    assert not {*module.__all__} & {one.name for one in pkgutil.iter_modules(module.__path__)}
    assert {*module.__all__} <= {*dir(module)}
    assert all(getattr(module, name).__module__.startswith("graftax") for name in module.__all__ if name != "METHODS")
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
