"""What the pages say of the hub is what runs: its own page as it stands, and the parts of others that come to it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Graftax
from runs import run_many
from tiny import write_backbone

import graftax as package
from graftax import Hub, Predictor, Recipe, load_backbone
from graftax.notes import GraftaxNote

ROOT = Path(__file__).resolve().parent.parent
DOMAINS = ROOT / "examples" / "domains"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
#: a Python block, or a line of a shell's that runs graftax or what its keys need
_STEP = re.compile(
    r"^```python\n(?P<python>[\s\S]*?)^```$|^    (?P<shell>(?:echo .* \| )?graftax .*|ssh-keygen .*|cat .*>>.*)$", re.MULTILINE
)


@dataclass
class Follower:
    """Somebody who types what a page says, on a backbone whose answers mean nothing."""

    backbone: str
    graftax: Graftax
    names: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)  # by command, as it stands on the page

    def follow(self, page: str, heading: str | None = None) -> None:
        text = (ROOT / "docs" / page).read_text("utf-8")
        if heading is not None:
            (text,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        for step in _STEP.finditer(text):
            if step["python"] is not None:
                exec(step["python"].replace(MINILM, self.backbone), self.names)
            else:
                self.run(step["shell"])

    def run(self, line: str) -> None:
        line = line.partition("  #")[0].strip()
        if "hf://" in line:  # where nobody is, in a test
            return
        words = shlex.split(line.replace("$B", self.backbone).replace(MINILM, self.backbone))
        if words[0] == "graftax":
            self.codes[line] = self.graftax(*words[1:]).code
        elif words[0] == "echo":
            self.codes[line] = self.graftax(*words[words.index("|") + 2 :], stdin=words[1]).code
        else:
            self.codes[line] = subprocess.run(line, shell=True).returncode


@pytest.fixture
def follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graftax: Graftax) -> Follower:
    """With what the first Python of the README has made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFTAX_HUB", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    place = str(write_backbone(tmp_path / "backbone", max_position_embeddings=128))
    loaded = load_backbone(place)
    data = {name: str(DOMAINS / f"{name}.csv") for name in ("bank", "airline")}
    run_many(loaded, data, tmp_path / "adapters", recipe=Recipe(epochs=1, batch_size=16))
    shutil.copy(DOMAINS / "test" / "bank.csv", "test.csv")
    for name in data:
        shutil.copy(DOMAINS / f"{name}.csv", f"{name}.csv")
    return Follower(place, graftax, {"graftax": package, "backbone": loaded, "predictor": Predictor(loaded)})


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not there")
def test_the_page_on_hubs_can_be_followed(follower: Follower) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraftaxNote)
        follower.follow("hub.md")
    refused = {line for line, code in follower.codes.items() if code}
    assert refused == {"graftax hub rm bank/intent:2"}  # as the page says
    assert len(follower.codes) == 14
    hub = Hub()
    assert [str(version) for version in hub.versions("bank/intent")] == ["bank/intent:1", "bank/intent:2", "bank/intent:3"]
    assert hub.resolve("other/intent:1").digest == hub.resolve("bank/intent:2").digest
    assert Path("intent/adapter_config.json").is_file()


def test_what_other_pages_say_of_hubs_can_be_followed(follower: Follower) -> None:
    """Each in turn on the same hub."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraftaxNote)
        follower.follow("concepts.md", "Where adapters are: directories, and a hub")
        follower.follow("jobs/many_adapters.md", "On a hub as they finish")
        shutil.copytree("again/bank", "adapters/bank-of-today")
        follower.names["predictor"] = Predictor(follower.names["backbone"])
        follower.follow("jobs/hot_swap.md", "From a hub, and back to the version before")
        follower.follow("jobs/which_method.md", "Adapters that you have already")
    assert set(follower.codes.values()) == {0}
    assert len(follower.codes) == 5
    assert Hub().resolve("shops/airline").version == 1
