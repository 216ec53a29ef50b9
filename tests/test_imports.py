"""What importing graftax does not import: torch and PEFT, which its users need not have."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("modules", ["graftax", "graftax.train, graftax.serve, graftax.adapters, graftax.models, graftax.cli"])
def test_torch_is_never_imported(modules: str) -> None:
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
