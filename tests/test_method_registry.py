"""Methods of other packages: found by entry points or handed over, and files that hold them."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import logits, randomised
from conftest import some_inputs
from refusals import refused
from safetensors.numpy import load_file

from graftax import Adapter, GraftaxError, LoRA, load_adapter, plugins, save_adapter
from graftax.adapters.formats.peft.dialect import Dialect
from graftax.adapters.formats.peft.dialect_table import dialect_of
from graftax.adapters.methods.method_registry import METHODS, add_method, method_of
from graftax.adapters.methods.named import make_method
from graftax.models.backbone import Backbone

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "adding_a_method.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test has found is not found by the next one."""
    before = dict(METHODS)
    plugins.found.cache_clear()
    yield
    METHODS.clear()
    METHODS.update(before)
    method_of.cache_clear()
    plugins.found.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a package of one module and its entry points, as `pip` lays them out."""

    def installed(name: str, code: str, **points: str) -> None:
        folder = tmp_path / name
        (folder / f"{name}-1.0.dist-info").mkdir(parents=True)
        (folder / f"{name}.py").write_text(code, "utf-8")
        (folder / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{point} = {name}:{value}\n" for point, value in points.items())
        (folder / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(f"[graftax.methods]\n{lines}")
        monkeypatch.syspath_prepend(folder)

    return installed


def toy() -> str:
    """The method of docs/adding_a_method.md, as a module of another package."""
    (code,) = re.findall(r"## 1\. .*?```python\n(.*?)```", PAGE, re.DOTALL)
    return str(code).replace("from ..", "from graftax.adapters.")


def test_an_installed_package_brings_a_method(install: Any, tiny: Backbone, tmp_path: Path) -> None:
    """The command line's words make it, its file holds a tensor for each leaf, and another process reads it by its name."""
    install("gates_of_others", toy(), gate="Gate")
    method: Any = make_method("gate")
    assert type(method).__module__ == "gates_of_others"
    adapter = randomised(Adapter.create((method, tiny.head(2)), tiny.sites_for(tiny.head(2)), labels=("no", "yes")))
    path = save_adapter(adapter, tmp_path / "gated", tiny)
    config = json.loads((path / "adapter_config.json").read_text("utf-8"))
    assert (config["peft_type"], config["methods"][0]) == ("GRAFTAX", {"method": "gate", "targets": None})
    keys = [key for key in load_file(path / "adapter_model.safetensors") if key.endswith(".gate_gate")]
    assert len(keys) == 2 * 2  # two branches in each of two layers
    METHODS.pop("gate")
    inputs = some_inputs(tiny)
    np.testing.assert_array_equal(logits(tiny, load_adapter(path, tiny), inputs), logits(tiny, adapter, inputs))


def test_without_the_package_its_file_is_refused(install: Any, tiny: Backbone, tmp_path: Path) -> None:
    install("gates_of_others", toy(), gate="Gate")
    method: Any = make_method("gate")
    path = save_adapter(Adapter.create((method,), tiny.sites), tmp_path / "gated", tiny)
    METHODS.pop("gate")
    plugins.found.cache_clear()
    (tmp_path / "gates_of_others" / "gates_of_others-1.0.dist-info" / "entry_points.txt").unlink()
    assert "methods: unknown method 'gate'" in (refused(lambda: load_adapter(path, tiny)) or "")


@pytest.mark.parametrize(
    ("code", "points", "said"),
    [
        ("import nothing_of_that_name", {"gate": "Gate"}, "others: its graftax.methods 'gate' cannot be loaded"),
        ("Gate = 3", {"gate": "Gate"}, "the entry point 'gate' of graftax.methods: expected a class of methods, got 3"),
        (
            toy().replace('"gate"', '"lora"'),
            {"gate": "Gate"},
            "others.Gate: there is a method 'lora' already, graftax.adapters.methods.lora.LoRA",
        ),
        (toy().replace('"gate"', '"Gate:2"'), {"gate": "Gate"}, "a method's name is made of a-z, 0-9 and _, got 'Gate:2'"),
        (toy().replace("@dataclass(frozen=True)\n", ""), {"gate": "Gate"}, "no whole method: it lacks @dataclass"),
        (
            toy().replace("def identity", "def other"),
            {"gate": "Gate"},
            "others.Gate is no whole method: it lacks identity",
        ),
    ],
    ids=["broken", "no method", "clash", "name", "no dataclass", "abstract"],
)
def test_an_entry_point_that_cannot_be_right_is_named(
    install: Any, code: str, points: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "others", raising=False)
    install("others", code, **points)
    assert said in (refused(lambda: make_method("gate")) or "")


def test_what_is_known_costs_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "found", lambda group: pytest.fail(f"searched {group}"))
    assert make_method("lora") == LoRA()


def test_a_subclass_is_not_taken_for_its_parent() -> None:
    """It may hold other leaves: its files are graftax's own, and PEFT does not read them as a LoRA."""

    @add_method
    @dataclasses.dataclass(frozen=True)
    class Mine(LoRA):
        name = "mine"

    assert type(dialect_of(Mine())) is Dialect
    assert METHODS["mine"] is Mine
    assert add_method(Mine) is Mine  # it is there already
    with pytest.raises(GraftaxError, match="there is a method 'mine' already"):
        add_method(dataclasses.make_dataclass("Other", [], bases=(Mine,), frozen=True))
