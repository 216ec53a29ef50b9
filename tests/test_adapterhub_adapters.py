"""Adapters by their id on the Hub, read through its cache, which is built here: no network."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from cases import random_adapter
from conftest import Graftax

from graftax import IA3, GraftaxError, LoRA, Predictor, load_adapter, save_adapter
from graftax.models.backbone import Backbone

COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.fixture
def cache(tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache with `user/bank`: a LoRA on main, and an IA3 in an older commit."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "cache" / "models--user--bank"
    for commit, method in ((COMMIT, LoRA(r=2)), (OLDER, IA3())):
        save_adapter(random_adapter(tiny, (method,)), repository / "snapshots" / commit, tiny)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_from_the_cache(cache: Path, tiny: Backbone) -> None:
    """By id, at a revision, by every reader of adapters."""
    assert load_adapter("user/bank", tiny).methods[0] == LoRA(r=2)
    assert load_adapter("user/bank", tiny, revision=OLDER).methods[0] == IA3()
    predictor = Predictor(tiny)
    predictor.load("bank", "user/bank")
    predictor.load("older", load_adapter("user/bank", tiny, revision=OLDER))
    said = predictor.predict(["plum"], "bank")[0]
    predictor.load("bank", cache / "snapshots" / COMMIT)
    assert predictor.predict(["plum"], "bank")[0] == said
    assert predictor.predict(["plum"], "older")[0].score != said.score


def test_on_the_command_line(cache: Path, graftax: Graftax, tiny_dir: Path) -> None:
    """As `-a`, called by its last part; by `inspect`."""
    said = graftax("predict", "-b", tiny_dir, "-a", "user/bank", "-i", "-", stdin='{"text": "plum"}\n')
    assert said.out.startswith('{"adapter": "bank"')
    said = graftax("inspect", "user/bank")
    assert (said.code, '"LORA"' in said.out) == (0, True)


def test_what_is_not_there(cache: Path, tiny: Backbone, tmp_path: Path) -> None:
    """An id that is not cached; and what can be no id, or lies in a folder that is there, is not looked for on the Hub."""
    with pytest.raises(GraftaxError, match="user/air: neither a directory nor a Hub id that can be reached or is cached"):
        load_adapter("user/air", tiny)
    (tmp_path / "adapters").mkdir()
    for path in ("adapters/bnak", "bank", "./user/bank", "a/b/c", "../bank", Path("user/bank")):
        with pytest.raises(GraftaxError, match="no such adapter directory"):
            load_adapter(path, tiny)
    (tmp_path / "user" / "bank").mkdir(parents=True)  # a directory comes first
    with pytest.raises(GraftaxError, match=r"no adapter_config\.json"):
        load_adapter("user/bank", tiny)
