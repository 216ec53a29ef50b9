"""A chain whose links are not all there, or not all to be trusted. What a whole one says: `test_hub.py`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cases import random_adapter
from refusals import refused

from graftax import Hub, LoRA, combine, load_adapter, save_adapter
from graftax.hub.provenance import provenance
from graftax.models.backbone import Backbone

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not there")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    return tmp_path / "key"


@pytest.fixture
def hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: Path) -> tuple[Hub, Hub]:
    """One hub, of who takes anything and of who takes what the key has signed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Hub(tmp_path / "hub"), Hub(tmp_path / "hub", trusted=key.with_suffix(".pub"))


def test_a_parent_that_nobody_vouches_for(hubs: tuple[Hub, Hub], key: Path, tiny: Backbone, tmp_path: Path) -> None:
    """It does not hide the page of what was made from it; another version of the same weights is told if it is vouched for."""
    hub, careful = hubs
    part = save_adapter(random_adapter(tiny, (LoRA(r=2),)), tmp_path / "part", tiny)
    loaded = load_adapter(part, tiny)
    both = save_adapter(combine([loaded, loaded], [0.5, 0.5], head=0), tmp_path / "both", tiny)
    hub.push("part", part)
    version = hub.push("both", both, sign=key)
    assert "made from  part:1\n    which may not be taken: part:1: not signed, and only" in careful.show("both")
    assert "not signed" in (refused(lambda: careful.show("part")) or "")
    (parent, _) = provenance(careful.store, version)["parents"]
    assert parent == {"reference": "part:1", "problem": parent["problem"]}
    hub.push("signed", part, sign=key)
    (parent, _) = provenance(careful.store, version)["parents"]
    assert (parent["reference"], parent["also"]) == ("signed:1", ["part:1"])
    assert "made from  part:1, the same weights as signed:1\n    backbone" in hub.show("both")
