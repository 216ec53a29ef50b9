"""What holds for every command: how adapters are named, how JSON and pages are printed, the version, completion."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Graftax
from tiny import command_line, toy_rows, weights_of, write_csv

from graftax import Adapter, GraftaxError, LoRA, Predictor, __version__, save_adapter
from graftax.cli.arguments import Named, parse_adapter
from graftax.cli.output import folded, print_json
from graftax.models.backbone import Backbone
from graftax.serve.evaluation import evaluate


@pytest.fixture(scope="module")
def adapters(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapters `bank` and `air` in a folder."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("bank", "air")):
        known = {"labels": ("fruit", "metal", "other"), "fingerprint": tiny.fingerprint}
        save_adapter(Adapter.create((LoRA(r=2), tiny.head(3)), tiny.sites, seed=seed, **known), folder / name, tiny)
    return folder


def test_how_an_adapter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory or Hub id is called by its last part, unless it is NAME=DIR; a = within a path is the path's."""
    (tmp_path / "rate=3").mkdir()
    monkeypatch.chdir(tmp_path / "rate=3")
    assert parse_adapter("run/bank") == parse_adapter("bank=run/bank") == Named("bank", "run/bank")
    assert parse_adapter("user/adapter") == Named("adapter", "user/adapter")
    assert parse_adapter(".") == Named("rate=3", ".")
    assert parse_adapter("../rate=3") == Named("rate=3", "../rate=3")
    assert parse_adapter("runs/lr=3/bank") == Named("bank", "runs/lr=3/bank")
    for wrong in ("", "=", "x=", "=x"):
        with pytest.raises(GraftaxError, match="expected NAME=DIR or DIR"):
            parse_adapter(wrong)


def test_every_command_takes_both_forms(
    graftax: Graftax, tiny: Backbone, tiny_dir: Path, adapters: Path, tmp_path: Path
) -> None:
    """DIR and NAME=DIR, wherever there is --adapter; with both it does the same."""
    rows, data = json.dumps({"text": "red plum"}) + "\n", write_csv(tmp_path / "rows.csv", toy_rows())
    made = []
    for form, name in ((f"{adapters}/bank", "bank"), (f"x={adapters}/bank", "x")):
        common = ["-b", tiny_dir, "-a", form]
        said = graftax("predict", *common, "-i", "-", stdin=rows)
        assert json.loads(said.out)["adapter"] == name
        said = graftax("embed", *common, "-i", "-", stdin=rows)
        assert json.loads(said.out)["adapter"] == name
        measured = json.loads(graftax("eval", *common, "-d", data, "--json").out)
        merged, combined, hub = (tmp_path / f"{what}-{name}" for what in ("merged", "combined", "hub"))
        graftax("merge", *common, "-o", merged)
        graftax("combine", *common, "-a", adapters / "air", "-o", combined)
        graftax("export", *common, "-o", hub, "--format", "adapters")
        assert json.loads((hub / "adapter_config.json").read_text())["name"] == name
        made.append((measured["accuracy"], (merged / "model.safetensors").read_bytes(), weights_of(combined)))
    assert made[0] == made[1]
    predictor = Predictor(tiny)
    predictor.load("bank", adapters / "bank")
    assert made[0][0] == evaluate(predictor, "bank", data)["accuracy"]


def test_top_k(graftax: Graftax, tiny: Backbone, tiny_dir: Path, adapters: Path) -> None:
    """The probabilities of the likeliest labels, first the one that is answered; those that `Predictor` gives."""
    rows, common = json.dumps({"text": "red plum"}) + "\n", ["-b", tiny_dir, "-a", adapters / "bank", "-i", "-"]
    said = json.loads(graftax("predict", *common, "--top-k", 2, stdin=rows).out)
    predictor = Predictor(tiny)
    predictor.load("bank", adapters / "bank")
    (answer,) = predictor.predict(["red plum"], "bank")
    assert answer.probabilities is not None
    assert said["probabilities"] == pytest.approx(dict([*answer.probabilities.items()][:2]))
    assert next(iter(said["probabilities"])) == said["label"]
    assert "probabilities" not in json.loads(graftax("predict", *common, stdin=rows).out)


def test_embed(graftax: Graftax, tiny: Backbone, tiny_dir: Path, adapters: Path) -> None:
    """A vector of each row, under the adapter that it names or none."""
    rows = "".join(json.dumps({"text": "red plum", "adapter": name}) + "\n" for name in (None, "bank"))
    said = graftax("embed", "-b", tiny_dir, "-a", adapters / "bank", "-i", "-", stdin=rows)
    vectors = [json.loads(line)["vector"] for line in said.out.splitlines()]
    predictor = Predictor(tiny)
    predictor.load("bank", adapters / "bank")
    assert np.allclose(vectors, predictor.embed(["red plum"] * 2, [None, "bank"]), atol=1e-6)
    said = graftax("embed", "-b", tiny_dir, "-i", "-", stdin=json.dumps({"text": "red plum"}) + "\n")
    assert np.allclose(json.loads(said.out)["vector"], vectors[0], atol=1e-6)


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    """What is no finite number is null, at any depth."""
    print_json({"pearson": math.nan, "each": [1.5, math.inf, {"x": -math.inf}], "name": "Grün", "count": 3, "none": None})
    line = capsys.readouterr().out

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(line, parse_constant=refuse)
    assert content == {"pearson": None, "each": [1.5, None, {"x": None}], "name": "Grün", "count": 3, "none": None}


def test_metrics_that_are_no_number(graftax: Graftax, tiny: Backbone, tiny_dir: Path, tmp_path: Path) -> None:
    """`eval --json` of a correlation with one row, which there is not."""
    made = Adapter.create((LoRA(), tiny.head(1)), tiny.sites, task="regress", labels=("value",), fingerprint=tiny.fingerprint)
    adapter = save_adapter(made, tmp_path / "one", tiny)
    data = write_csv(tmp_path / "one.csv", [{"text": "plum", "label": 1.0}, {"text": "plum", "label": 1.0}])
    said = graftax("eval", "-b", tiny_dir, "-a", adapter, "-d", data, "--json")
    assert said.code == 0, said
    assert "NaN" not in said.out
    assert json.loads(said.out)["pearson"] == 0.0


def test_pages_fit_the_terminal() -> None:
    """No line is wider than the terminal, what goes on begins below its column, and nothing is lost."""
    line = "  labels                       " + json.dumps([f"label_{i}" for i in range(40)])
    for width in (40, 80, 200):
        lines = folded(line, width).split("\n")
        assert max(map(len, lines)) <= width
        assert "".join(folded(line, width).split()) == "".join(line.split())
        assert {len(one) - len(one.lstrip()) for one in lines[1:]} == {31 if width > 62 else 6}
    assert folded("short  one", 80) == "short  one"
    key = "  base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight.and.so.on  8x384"
    assert [len(one) <= 80 for one in folded(key, 80).split("\n")] == [True, True]
    assert folded("", 80) == ""


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals to try")
@pytest.mark.parametrize("command", ["methods", "backbones", "inspect"])
def test_lists_at_80_columns(command: str, adapters: Path) -> None:
    """On a terminal of 80 columns every line fits, and every entry begins at the left; elsewhere an entry is a line."""
    words = command_line(command, *([adapters / "bank"] if command == "inspect" else []))
    ours, theirs = os.openpty()
    process = subprocess.Popen(words, stdout=theirs, env={**os.environ, "COLUMNS": "80"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how a terminal ends on Linux
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    lines = shown.decode().split("\r\n")
    assert max(map(len, lines)) <= 80
    piped = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert max(map(len, piped.splitlines())) > 80
    assert "".join("".join(lines).split()) == "".join(piped.split())


def test_version(graftax: Graftax) -> None:
    said = graftax("--version")
    assert (said.code, said.out, said.err) == (0, f"graftax {__version__}\n", "")


def test_shell_completion() -> None:
    """Commands and options are completed; the script that a shell loads is shown."""
    asked = {"_GRAFTAX_COMPLETE": "complete_bash", "COMP_WORDS": "graftax pre", "COMP_CWORD": "1"}
    said = subprocess.run(command_line(), env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["predict"]
    said = subprocess.run(command_line("--help"), capture_output=True, text=True, check=True)
    assert "--install-completion" in said.stdout
    assert "--show-completion" in said.stdout
