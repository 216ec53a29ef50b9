"""Names of classes that are given beside an adapter are for one that has none of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Graftax
from refusals import refused
from tiny import toy_rows, write_csv, write_jsonl

from graftax import Adapter, LoRA, Predictor, load_backbone, save_adapter
from graftax.models.backbone import Backbone
from graftax.serve.evaluation import evaluate
from graftax.serve.export import export_merged


def an_adapter(backbone: Backbone, labels: tuple[str, ...]) -> Adapter:
    known = {"labels": labels, "fingerprint": backbone.fingerprint}
    return Adapter.create((LoRA(), backbone.head(2)), backbone.sites, **known)


OWN = "it names its classes itself (fruit, metal); labels are for an adapter that does not."


def test_an_adapter_keeps_its_own_names(tiny: Backbone, tmp_path: Path) -> None:
    """Other names are refused, where it answers and where it is merged; its own may be said again."""
    predictor, adapter = Predictor(tiny), an_adapter(tiny, ("fruit", "metal"))
    for labels in (["a", "b"], ["metal", "fruit"]):
        assert refused(lambda labels=labels: predictor.load("x", adapter, labels=labels)) == f"x: {OWN}"
        line = refused(lambda labels=labels: export_merged(tiny, adapter, tmp_path / "merged", labels=labels))
        assert line == f"the adapter: {OWN}"
    predictor.load("x", adapter, labels=["fruit", "metal"])
    assert predictor.labels("x") == ("fruit", "metal")


@pytest.mark.parametrize("own", [(), ("LABEL_0", "LABEL_1")])
def test_names_for_one_that_has_none(tiny: Backbone, tmp_path: Path, own: tuple[str, ...]) -> None:
    """LABEL_0 and so on are the names of nothing, too: vectors of 0 and 1 are trained under these."""
    predictor = Predictor(tiny)
    predictor.load("x", an_adapter(tiny, own), labels=("no", "yes"))
    predictor.load("y", an_adapter(tiny, own))
    assert (predictor.labels("x"), predictor.labels("y")) == (("no", "yes"), ("LABEL_0", "LABEL_1"))
    export_merged(tiny, an_adapter(tiny, own), tmp_path / "merged", labels=("no", "yes"))
    head = load_backbone(tmp_path / "merged").own_head
    assert head is not None
    assert head.labels == ("no", "yes")


def test_commands_with_names(graftax: Graftax, tiny: Backbone, tiny_dir: Path, tmp_path: Path) -> None:
    """Refused where they are not asked for, too: without an adapter, of one without a head, and where they are empty."""
    save_adapter(an_adapter(tiny, ("fruit", "metal")), tmp_path / "x", tiny)
    save_adapter(an_adapter(tiny, ()), tmp_path / "y", tiny)
    export_merged(tiny, an_adapter(tiny, ()), tmp_path / "merged")
    rows = write_csv(tmp_path / "rows.csv", toy_rows())
    asked = write_jsonl(tmp_path / "asked.jsonl", toy_rows())
    predictor = Predictor(tiny)
    predictor.load("y", tmp_path / "y", labels=("fruit", "metal"))
    answers = predictor.predict([row["text"] for row in toy_rows()], "y")
    for command, files in (("eval", ["-d", rows]), ("predict", ["-i", asked]), ("merge", ["-o", tmp_path / "o"])):
        given = [command, "-b", tiny_dir, *files, "--labels"]
        assert graftax(*given, "a,b", "-a", tmp_path / "x").err.endswith(f"{OWN}\n")
        named = graftax(*given, "fruit,metal", "-a", tmp_path / "y").out
        if command == "predict":
            assert [json.loads(line)["label"] for line in named.splitlines()] == [answer.label for answer in answers]
        elif command == "eval":
            assert f"accuracy     {evaluate(predictor, 'y', rows)['accuracy']:.4f}" in named.splitlines()
        else:
            head = load_backbone(tmp_path / "o").own_head
            assert head is not None
            assert head.labels == ("fruit", "metal")
        assert "none of them empty" in graftax(*given, "", "-a", tmp_path / "y").err
        if command != "merge":
            said = graftax(command, "-b", tmp_path / "merged", *files, "--labels", "a,b")
            assert (said.code, said.err[:21]) == (2, "graftax: --labels nam")
