"""A hub of adapters: pushed from directories, found by what they fit, loaded by name, and where each comes from."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import random_adapter
from conftest import Graftax
from refusals import refused
from runs import run_many, tensors
from tiny import toy_rows, write_backbone, write_csv

from graftax import Adapter, Fuse, Hub, LoRA, Predictor, Recipe, combine, load_adapter, load_backbone, save_adapter
from graftax.adapters.methods.bottleneck import Bottleneck
from graftax.data.columns import Columns
from graftax.hub.provenance import provenance
from graftax.models.backbone import Backbone
from graftax.serve.evaluation import measure
from graftax.store.manifest import DataFacts
from graftax.tasks.read_examples import read_examples
from graftax.tasks.task_registry import task_named

Made = Callable[..., Path]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub of this user, on a machine of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFTAX_HUB", str(tmp_path / "hub"))
    return Hub()


@pytest.fixture
def made(tiny: Backbone, tmp_path: Path) -> Made:
    """A LoRA's directory; each seed is another adapter."""

    def make(name: str, seed: int = 0, **known: Any) -> Path:
        known = {"labels": ("fruit", "metal"), "fingerprint": tiny.fingerprint} | known
        adapter = Adapter.create((LoRA(r=2), tiny.head(len(known["labels"]))), tiny.sites, seed=seed, **known)
        return save_adapter(adapter, tmp_path / "made" / name, tiny)

    return make


def names(versions: Any) -> list[str]:
    return [str(version) for version in versions]


# -- pushed and loaded --------------------------------------------------------------------------------------------------


def test_an_adapter_is_loaded_by_name(hub: Hub, made: Made, tiny: Backbone) -> None:
    first, second = made("a", seed=1), made("b", seed=2)
    assert names([hub.push("bank/intent", first, tags=["prod"]), hub.push("bank/intent", second)]) == [
        "bank/intent:1",
        "bank/intent:2",
    ]
    for reference, directory in {
        "bank/intent": second,
        "bank/intent:latest": second,
        "bank/intent:1": first,
        "bank/intent:prod": first,
        f"bank/intent@sha256:{hub.resolve('bank/intent:1').digest[:8]}": first,
        f"sha256:{hub.resolve('bank/intent').digest}": second,
    }.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded = load_adapter(reference, tiny)
        said = [str(one.message) for one in caught if "hub, sha256:" in str(one.message)]
        assert len(said) == (reference.split(":")[-1] in ("bank/intent", "latest", "prod")), "what is already exact"
        key = LoRA(r=2).key
        for site, (leaves, _) in load_adapter(directory, tiny).states[key].items():
            np.testing.assert_array_equal(loaded.states[key][site][0]["a"], leaves["a"])


def test_a_directory_goes_before_a_hub(hub: Hub, made: Made, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.push("made/a", made("b", seed=2))
    made("a", seed=1)
    monkeypatch.chdir(Path(hub.store.url).parent)
    assert load_adapter("made/a", tiny).source == json.loads(Path("made/a/graftax.json").read_text())["sha256"]


def test_the_same_is_not_pushed_twice(hub: Hub, made: Made) -> None:
    directory = made("a")
    assert names(hub.push("x", directory) for _ in range(3)) == ["x:1", "x:1", "x:1"]
    assert names(hub.push("x", made("b", seed=3)) for _ in range(1)) == ["x:2"]
    assert names([hub.push("x", directory)]) == ["x:3"]  # again the first: a step back is a version, too


def test_what_was_pulled_is_pushed_as_it_is(hub: Hub, made: Made, tmp_path: Path) -> None:
    """Its card as well, which says what it was called."""
    pushed = hub.push("x", made("a"))
    assert hub.push("x", hub.pull("x", tmp_path / "there")) == pushed


def test_the_files_are_peft_s_and_graftax_s(hub: Hub, made: Made, tmp_path: Path) -> None:
    directory = made("a")
    (directory / "optimizer.bin").write_bytes(b"x")
    with pytest.warns(match="left out: optimizer.bin"):
        hub.push("x", directory)
    pulled = hub.pull("x", tmp_path / "there")
    assert sorted(path.name for path in pulled.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "graftax.json",
    ]
    for name in ("adapter_config.json", "adapter_model.safetensors", "graftax.json"):
        assert (pulled / name).read_bytes() == (directory / name).read_bytes()
    assert (refused(lambda: hub.pull("x", tmp_path / "there")) or "").endswith("choose another name or pass --overwrite.")


def test_no_adapter_is_no_version(hub: Hub, made: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no adapter there" in (refused(lambda: hub.push("x", tmp_path / "empty")) or "")
    damaged = made("damaged")
    weights = damaged / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert "checksum" in (refused(lambda: hub.push("x", damaged)) or "")
    pickled = made("pickled")
    (pickled / "adapter_model.safetensors").unlink()
    (pickled / "adapter_model.bin").write_bytes(b"x")
    assert "pickle" in (refused(lambda: hub.push("x", pickled)) or "")
    assert not hub.store.exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/home/somebody/models/MiniLM", "MiniLM"),
        ("../somebody/models/MiniLM", "MiniLM"),
        (".venv/models/smol.gguf", "smol.gguf"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("MiniLM", "MiniLM"),
    ],
)
def test_a_path_of_this_machine_is_not_told(name: str, told: str, hub: Hub, made: Made, tiny: Backbone) -> None:
    directory = made("a")
    facts = json.loads((directory / "graftax.json").read_text())
    facts["backbone"]["name"] = name
    (directory / "graftax.json").write_text(json.dumps(facts))
    assert hub.push("x", directory).backbone == told


# -- found --------------------------------------------------------------------------------------------------------------


def test_found_by_what_it_fits(hub: Hub, made: Made, tiny: Backbone, tmp_path: Path) -> None:
    other = load_backbone(write_backbone(tmp_path / "other", seed=11))
    theirs = Adapter.create((LoRA(r=2), other.head(2)), other.sites, labels=("fruit", "metal"), fingerprint=other.fingerprint)
    hub.push("ours", made("a"))
    hub.push("theirs", save_adapter(theirs, tmp_path / "theirs", other))
    assert names(hub.search(fits=tiny)) == ["ours:1"]
    assert names(hub.search(fits=other.fingerprint[:10])) == ["theirs:1"]
    assert names(hub.search()) == ["theirs:1", "ours:1"]


def test_found_by_what_it_is(hub: Hub, made: Made) -> None:
    hub.push("bank/intent", made("a", labels=("card_lost", "fee"), metrics={"val_accuracy": 0.9}))
    hub.push("shop/tone", made("b", labels=("glad", "cross"), metrics={"val_accuracy": 0.7}))
    for question, found in {
        ("label", "CARD_LOST"): ["bank/intent:1"],
        ("label", "card"): [],
        ("text", "card"): ["bank/intent:1"],
        ("text", "sho to"): ["shop/tone:1"],
        ("text", "nothing"): [],
        ("method", "lora"): ["shop/tone:1", "bank/intent:1"],
        ("method", "dora"): [],
        ("task", "classify"): ["shop/tone:1", "bank/intent:1"],
        ("metric", "val_accuracy >= 0.8"): ["bank/intent:1"],
        ("metric", "val_accuracy<0.8"): ["shop/tone:1"],
    }.items():
        assert names(hub.search(**dict([question]))) == found, question
    assert "by a bound" in (refused(lambda: hub.search(metric="good")) or "")
    assert names(hub.list()) == ["bank/intent:1", "shop/tone:1"]
    assert names(hub.list("shop")) == ["shop/tone:1"]


def test_what_people_say_in_the_card_is_found_and_kept(hub: Hub, made: Made, tmp_path: Path) -> None:
    directory = made("a")
    (directory / "README.md").write_text("---\nlicense: mit\ntags: [banking]\n---\n# Intents\n\nOf a bank in Lisbon.\n")
    hub.push("x", directory)
    assert names(hub.search("lisbon")) == names(hub.search("banking")) == ["x:1"]
    card = (hub.pull("x") / "README.md").read_text()
    assert "Of a bank in Lisbon." in card
    assert "license: mit" in card
    assert "library_name: peft" in card


def test_a_card_in_another_encoding_is_one_line(hub: Hub, made: Made) -> None:
    directory = made("a")
    (directory / "README.md").write_bytes(b"# Caf\xe9\n")
    assert "README.md" in (refused(lambda: hub.push("x", directory)) or "")
    assert not hub.store.exists()


# -- where it comes from ------------------------------------------------------------------------------------------------


def test_a_chain_from_rows_to_a_combination(hub: Hub, tiny: Backbone, tmp_path: Path) -> None:
    rows = {name: write_csv(tmp_path / f"{name}.csv", toy_rows(count=12, seed=seed)) for seed, name in enumerate("ab")}
    run_many(tiny, rows, tmp_path / "run", recipe=Recipe(epochs=1, batch_size=4, max_length=16))
    assert names(hub.push_run("toys", tmp_path / "run")) == ["toys/a:1", "toys/b:1"]
    with pytest.warns(match="toys/"):
        parts = [load_adapter(f"toys/{name}", tiny) for name in "ab"]
    both = save_adapter(combine(parts, [0.5, 0.5], head=0), tmp_path / "both", tiny)
    version = hub.push("both", both)
    assert names(hub.children(hub.resolve("toys/a"))) == ["both:1"]
    assert [str(parent) for parent in hub.parents(version).values()] == ["toys/a:1", "toys/b:1"]
    said = hub.show("both")
    assert f"data       a.csv, 12 rows, sha256 {digest_of(rows['a'], tiny)[:12]}" in said
    assert "made from  toys/b:1" in said
    hub.push("copy", tmp_path / "run" / "b")
    assert "made from  toys/b:1, the same weights as copy:1\n" in hub.show("both")
    (_, found) = provenance(hub.store, version)["parents"]
    assert (found["reference"], found["also"]) == ("toys/b:1", ["copy:1"])
    assert "both:1 refers to it" in (refused(lambda: hub.remove("toys/a")) or "")
    assert names(hub.remove("toys/a", force=True)) == ["toys/a:1"]
    assert "made from  weights that are not on this hub" in hub.show("both")


def test_a_fusion_names_what_it_fuses(tiny: Backbone, tmp_path: Path) -> None:
    made = Bottleneck(width=2)
    members = [
        save_adapter(Adapter.create((made,), tiny.sites, seed=seed, fingerprint=tiny.fingerprint), tmp_path / str(seed), tiny)
        for seed in (1, 2)
    ]
    fuse = Fuse(trained=tuple(load_adapter(member, tiny) for member in members))
    trained = run_many(
        tiny, {"f": toy_rows(count=8)}, tmp_path / "run", method=fuse, recipe=Recipe(epochs=1, batch_size=4, max_length=16)
    )
    known = [json.loads((member / "graftax.json").read_text())["sha256"] for member in members]
    assert list(load_adapter(trained["f"].directory, tiny).parents) == known


def digest_of(data: Any, backbone: Backbone) -> str:
    return read_examples(data, Columns(), task_named("classify"), backbone.processor).digest()


def test_rows_are_the_same_in_any_order_and_form(tiny: Backbone, tmp_path: Path) -> None:
    rows = toy_rows(count=10)
    mine = digest_of(write_csv(tmp_path / "x.csv", rows), tiny)
    assert digest_of(rows[::-1], tiny) == mine
    assert digest_of([{"question": row["text"], "text": row["text"], "label": row["label"]} for row in rows], tiny) == mine
    assert digest_of(rows[:-1], tiny) != mine
    assert digest_of([*rows, rows[0]], tiny) != mine  # a row that is there twice weighs twice
    assert digest_of([rows[0] | {"label": rows[1]["label"]}, *rows[1:]], tiny) != mine or rows[0]["label"] == rows[1]["label"]


# -- how it did ---------------------------------------------------------------------------------------------------------


def test_what_was_measured_is_ranked(hub: Hub, made: Made, tiny: Backbone) -> None:
    predictor, rows = Predictor(tiny), toy_rows(count=20)
    for seed in (1, 2):
        version = hub.push("x", made(f"a{seed}", seed=seed))
        predictor.load("x", str(version))
        hub.record(version, measure(predictor, "x", rows))
        expected = measure(predictor, "x", rows).metrics["accuracy"]
        (found,) = [score for score in hub.store.index().evaluations(version) if score.metric == "accuracy"]
        assert (found.value, found.rows, found.data) == (expected, 20, digest_of(rows, tiny))
        assert found.low is not None
        assert found.high is not None
        assert found.low <= expected <= found.high
    known = hub.push("y", made("known", data=DataFacts(digest_of(rows, tiny), 20, "rows")))
    with pytest.warns(match="y:1 was trained on these rows"):
        hub.record(known, measure(predictor, "x", rows))
    hub.remove("y")
    board = hub.leaderboard("classify")
    assert board.metric == "accuracy"
    assert len(board.places) == 2
    assert "no version was measured" in (refused(lambda: hub.leaderboard("tag")) or "")


# -- what changes -------------------------------------------------------------------------------------------------------


def test_tags_share_what_comes(hub: Hub, made: Made) -> None:
    for seed in (1, 2):
        hub.push("x", made(f"a{seed}", seed=seed))
    hub.tag("x", "prod", {1: 90, 2: 10})
    drawn = [hub.resolve("x:prod", route=f"customer-{i}").version for i in range(1000)]
    assert 60 <= drawn.count(2) <= 140  # 100 are expected, and 9.5 is the standard deviation
    assert drawn == [hub.resolve("x:prod", route=f"customer-{i}").version for i in range(1000)]
    hub.tag("x", "prod", 1)
    assert {hub.resolve("x:prod").version for _ in range(20)} == {1}
    hub.tag("x", "prod", None)
    assert "no tag prod" in (refused(lambda: hub.resolve("x:prod")) or "")


def test_what_is_changed_or_compared_is_not_drawn(hub: Hub, made: Made) -> None:
    """A tag that is shared stands for no version that could be removed, withdrawn or shown."""
    for seed in (1, 2):
        hub.push("x", made(f"a{seed}", seed=seed))
    hub.tag("x", "prod", {1: 90, 2: 10})
    for call in (
        lambda: hub.remove("x:prod", force=True),
        lambda: hub.yank("x:prod", "bad"),
        lambda: hub.show("x:prod"),
        lambda: hub.diff("x:prod", "x:1"),
        lambda: hub.verify("x:prod"),
    ):
        assert refused(call) == "x:prod is shared by the versions 1, 2; say which."
    assert names(hub.versions("x")) == ["x:1", "x:2"]
    hub.tag("x", "prod", 2)
    assert "is to point to no version" in (refused(lambda: hub.tag("x", "prod", {})) or "")
    assert hub.store.index().tags("x") == {"prod": {2: 1.0}}
    assert names([hub.yank("x:prod", "bad")]) == ["x:2"]


def test_a_withdrawn_version_is_passed_over(hub: Hub, made: Made) -> None:
    for seed in (1, 2):
        hub.push("x", made(f"a{seed}", seed=seed))
    digest = hub.resolve("x:2").digest
    hub.yank("x:2", "trained on test rows")
    assert names([hub.resolve("x")]) == ["x:1"]
    with pytest.warns(match="x:2 was withdrawn: trained on test rows"):
        assert names([hub.resolve("x:2")]) == ["x:2"]
    assert names([hub.resolve(f"sha256:{digest}")]) == ["x:2"]
    hub.yank("x:2", None)
    assert names([hub.resolve("x")]) == ["x:2"]


def test_time_to_live_must_be_above_zero(hub: Hub, made: Made) -> None:
    assert "above zero" in (refused(lambda: hub.push("x", made("a"), keep_for=timedelta())) or "")


# -- the command --------------------------------------------------------------------------------------------------------


def test_the_first_page_of_the_readme(hub: Hub, graftax: Graftax, tiny_dir: Path, tmp_path: Path) -> None:
    """Trained and pushed, found, asked by name in another process, pushed again, measured, ranked and rolled back."""
    data = {
        name: write_csv(tmp_path / f"{name}.csv", toy_rows(count=16, seed=seed)) for seed, name in enumerate(["bank", "air"])
    }
    fast = ["--epochs", "1", "--batch-size", "8", "--max-length", "16"]
    said = graftax(
        "train", "-b", tiny_dir, "-o", tmp_path / "run", "-d", data["bank"], "-d", data["air"], *fast, "--push", "toys"
    )
    assert "toys/bank:1 on" in said.out
    found = graftax("hub", "search", "--fits", tiny_dir, "--json")
    assert [json.loads(line)["reference"] for line in found.out.splitlines()] == ["toys/air:1", "toys/bank:1"]
    told = graftax("predict", "-b", tiny_dir, "-a", "toys/bank", "-i", "-", stdin='{"text": "red apple"}\n')
    assert json.loads(told.out)["adapter"] == "bank"
    assert "toys/bank is toys/bank:1" in told.err
    again = ["-o", tmp_path / "again", "-d", data["bank"], *fast, "--lr", "1e-2", "--push", "toys"]
    assert "toys/bank:2 on" in graftax("train", "-b", tiny_dir, *again).out
    for version in (1, 2):
        assert graftax("eval", "-b", tiny_dir, "-a", f"toys/bank:{version}", "-d", data["bank"], "--record").code == 0
    board = json.loads(graftax("hub", "leaderboard", "classify", "--json").out)
    assert sorted(place["version"] for place in board["places"]) == [1, 2]
    assert graftax("hub", "tag", "toys/bank", "prod", "1").out == "toys/bank:prod -> 1 (100%)\n"
    pulled = graftax("hub", "pull", "toys/bank:prod", tmp_path / "there")
    assert pulled.code == 0
    assert tensors(tmp_path / "there").keys() == tensors(tmp_path / "run" / "bank").keys()
    shown = json.loads(graftax("hub", "show", "toys/bank", "--json").out)
    assert shown["reference"] == "toys/bank:2"
    assert shown["provenance"]["data"]["rows"] == 16
    assert graftax("hub", "verify").out == "everything is as its digests say\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["push", "../x", "there"], "no name for a hub"),
        (["push", "x", "nowhere"], "nowhere: no such adapter directory"),
        (["pull", "x"], "there is no hub at"),
        (["show", "x:1"], "there is no hub at"),
        (["tag", "x", "prod"], "give the version"),
        (["tag", "x", "prod", "1=0"], "a share above zero"),
        (["tag", "x", "latest", "1"], "latest is the newest version's own"),
        (["yank", "x"], "--reason, or --undo"),
        (["rm", "x"], "there is no hub at"),
        (["push", "x", "there", "--keep-for", "soon"], "as in 7d"),
        (["list", "--hub", "ftp://x/y"], "ftp://x/y"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments: list[str], line: str, hub: Hub, graftax: Graftax) -> None:
    said = graftax("hub", *arguments)
    assert said.code == 2
    assert line in said.err
    assert len(said.err.splitlines()) == 1


def test_a_name_that_cannot_be_pushed_is_said_before_training(
    hub: Hub, graftax: Graftax, tiny_dir: Path, tmp_path: Path
) -> None:
    data = write_csv(tmp_path / "my bank.csv", toy_rows(count=8))
    said = graftax("train", "-b", tiny_dir, "-o", tmp_path / "run", "-d", data, "--push", "toys")
    assert said.code == 2
    assert "'toys/my bank' is no name for a hub" in said.err
    assert not (tmp_path / "run").exists()


def test_what_is_recorded_is_of_the_version_that_answered(
    hub: Hub, graftax: Graftax, tiny: Backbone, tiny_dir: Path, tmp_path: Path
) -> None:
    """Of a shared tag each evaluation draws once."""
    data = write_csv(tmp_path / "x.csv", toy_rows(count=40))
    for seed in (1, 2):
        answering = random_adapter(tiny, (LoRA(r=2),), seed=seed)
        answering = replace(answering, labels=("fruit", "metal", "stone", "air", "fire")[: len(answering.labels)])
        hub.push("x", save_adapter(answering, tmp_path / f"a{seed}", tiny))
    known = []
    for version in (1, 2):
        said = graftax("eval", "-b", tiny_dir, "-a", f"x:{version}", "-d", data, "--record", "--json")
        known.append(json.loads(said.out)["matthews"])
    assert known[0] != known[1]
    hub.tag("x", "prod", {1: 1, 2: 1})
    for _ in range(6):
        assert graftax("eval", "-b", tiny_dir, "-a", "x:prod", "-d", data, "--record").code == 0
    scores = [hub.store.index().evaluations(version) for version in hub.versions("x")]
    assert [score.value for each in scores for score in each if score.metric == "matthews"] == known


def test_what_was_trained_is_pushed_later(
    hub: Hub, graftax: Graftax, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_csv(tmp_path / "bank.csv", toy_rows(count=8))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    monkeypatch.setenv("GRAFTAX_HUB", str(tmp_path / "full"))
    fast = ["--epochs", "1", "--batch-size", "8", "--max-length", "16"]
    said = graftax("train", "-b", tiny_dir, "-o", tmp_path / "run", "-d", data, *fast, "--push", "toys")
    assert said.code == 2
    later = f"graftax hub push toys {tmp_path / 'run'} --hub {tmp_path / 'full'}"
    assert said.err.rstrip().endswith(f"Everything is trained; once that is mended: {later}")
    monkeypatch.setenv("GRAFTAX_HUB", hub.store.url)
    assert graftax("hub", "push", "toys", tmp_path / "run").out.startswith("toys/bank:1")


def test_only_an_adapter_of_a_hub_is_recorded(hub: Hub, graftax: Graftax, made: Made, tiny_dir: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "x.csv", toy_rows(count=8))
    said = graftax("eval", "-b", tiny_dir, "-a", made("a"), "-d", data, "--record")
    assert said.code == 2
    assert "name it as it is called there" in said.err


def test_places_that_are_no_hub(tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's folder is not made one, and is left as it was."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    assert "a hub begins in an empty place" in (refused(lambda: Hub(tmp_path / "home").push("x", made("a"))) or "")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]
