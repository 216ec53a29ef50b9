"""Prediction with many adapters resident: swaps compile nothing, every row gets its own adapter's answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cases import logits
from tiny import FRUIT, METAL, toy_rows

from graftax.adapters import METHODS, Adapter, LoRA, save_adapter
from graftax.adapters.adapter import Layout
from graftax.errors import GraftaxError
from graftax.models.backbone import Backbone
from graftax.models.inputs import TextInputs
from graftax.serve import Prediction, Predictor
from graftax.serve.evaluation import evaluate
from graftax.train import Recipe, train_many

#: name -> (method, task, label names): as different from each other as can be.
ZOO: dict[str, tuple[str | None, str, tuple[str, ...]]] = {
    "lora": ("lora", "classify", ("a", "b")),
    "rank": ("lora", "classify", ("p", "q", "r", "s", "t")),
    "ia3": ("ia3", "multilabel", ("x", "y", "z")),
    "bottleneck": ("bottleneck", "regress", ("value",)),
    "prefix": ("prefix", "classify", tuple(f"label {i}" for i in range(11))),
    "bitfit": ("bitfit", "tag", ("B-F", "I-F", "O")),
    "probe": (None, "classify", ("no", "yes")),
}
TEXTS = ["apple a day", "iron and zinc and gold, all old", "fresh", "the shop sells red plum today"]


def adapter_of(backbone: Backbone, name: str, seed: int = 0) -> Adapter:
    """An adapter with random leaves everywhere, so that none of it is without effect."""
    method, task, labels = ZOO[name]
    options: dict[str, Any] = {"r": 11, "alpha": 3.0, "targets": ".*dense"} if name == "rank" else {}
    options |= {"tokens": 5} if method == "prefix" else {}
    head = backbone.head(len(labels), tokens=task == "tag")
    methods = (head,) if method is None else (METHODS[method](**options), head)
    adapter = Adapter.create(methods, backbone.sites, task=task, labels=labels, fingerprint=backbone.fingerprint)
    random = np.random.default_rng([seed, *name.encode()])
    for states in adapter.states.values():
        for trainable, _ in states.values():
            for leaf, array in trainable.items():
                noise = random.standard_normal(np.shape(array)).astype(np.float32)
                trainable[leaf] = (np.asarray(array) + 0.3 * noise).astype(np.float32)
    return adapter


@pytest.fixture(scope="module")
def zoo(tiny: Backbone) -> dict[str, Adapter]:
    return {name: adapter_of(tiny, name) for name in ZOO}


@pytest.fixture(scope="module")
def predictor(tiny: Backbone, zoo: dict[str, Adapter]) -> Predictor:
    """One with all of them resident; tests leave it as it is."""
    made = Predictor(tiny)
    for name, adapter in zoo.items():
        made.load(name, adapter)
    return made


def assert_close(found: list[Prediction], expected: list[Prediction]) -> None:
    """Equal labels, scores and numbers to 1e-5."""
    for a, b in zip(found, expected, strict=True):
        assert a.adapter == b.adapter
        if isinstance(b.label, float):
            assert a.label == pytest.approx(b.label, rel=1e-4, abs=1e-5)
        else:
            assert a.label == b.label
        assert a.score is b.score is None or np.allclose(a.score, b.score, rtol=1e-4, atol=1e-5)


def test_swap_there_and_back(tiny: Backbone) -> None:
    """Invariant 15: A, B, A under one name gives A's bits again, and 200 swaps compile nothing."""
    predictor, a, b = Predictor(tiny), adapter_of(tiny, "lora", 1), adapter_of(tiny, "lora", 2)
    predictor.load("x", a)
    first = predictor.predict(TEXTS, "x")
    predictor.load("x", b)
    second = predictor.predict(TEXTS, "x")
    assert [p.score for p in second] != [p.score for p in first]
    compiled, put = predictor.compilations, predictor.bank._put._cache_size()
    for i in range(200):
        predictor.load("x", (a, b)[i % 2])
        assert predictor.predict(TEXTS, "x") == (first, second)[i % 2]
    assert predictor.compilations == compiled
    assert predictor.bank._put._cache_size() == put


def test_ranks_within_a_bucket_swap_without_compiling(tiny: Backbone) -> None:
    """Invariant 16: another rank, alpha and number of labels is data; what it answers is what it answers alone."""
    predictor = Predictor(tiny)
    adapters = {}
    for r, alpha, labels in ((2, 5.0, "ab"), (8, 1.0, "abc"), (5, 16.0, "abcdefg")):
        method = LoRA(r=r, alpha=alpha)
        adapters[r] = Adapter.create((method, tiny.head(len(labels))), tiny.sites, seed=r, labels=tuple(labels))
        for trainable, _ in adapters[r].states[method.key].values():
            trainable["b"] = np.random.default_rng(r).standard_normal(trainable["b"].shape).astype(np.float32)
        predictor.load("x", adapters[r])
        predictor.predict(TEXTS, "x")
        if r == 2:
            compiled = predictor.compilations
    assert predictor.compilations == compiled
    for r, adapter in adapters.items():
        alone = Predictor(tiny)
        alone.load(str(r), adapter)
        predictor.load(str(r), adapter)
        assert_close(predictor.predict(TEXTS, str(r)), alone.predict(TEXTS, str(r)))


def test_mixed_rows_equal_each_alone(tiny: Backbone, zoo: dict[str, Adapter], predictor: Predictor) -> None:
    """Invariant 17: rows of different methods, tasks and label sets in one call, in any order: each as with its own alone."""
    rows = [(text, name) for text in TEXTS for name in [*ZOO, None]]
    expected = []
    alone: dict[str | None, Predictor] = {None: Predictor(tiny)}
    for name, adapter in zoo.items():
        alone[name] = Predictor(tiny)
        alone[name].load(name, adapter)
    for text, name in rows:
        expected += alone[name].predict([text], [name])
    assert_close(predictor.predict([text for text, _ in rows], [name for _, name in rows]), expected)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    found = predictor.predict([rows[i][0] for i in order], [rows[i][1] for i in order])
    assert_close(found, [expected[i] for i in order])


def test_mixtures_share_a_program(predictor: Predictor) -> None:
    """Invariant 18, as a count: one adapter or seven in a batch of one shape is one program."""
    names = [name for name, (_, task, _) in ZOO.items() if task != "tag"]
    predictor.predict(["iron apple"] * 8, "lora")
    compiled = predictor.compilations
    predictor.predict(["iron apple"] * 8, [*names, None, "lora"][:8])
    predictor.predict(["iron apple"] * 7, [None] * 7)
    assert predictor.compilations == compiled


def test_kinds_of_answers(tiny: Backbone, zoo: dict[str, Adapter], predictor: Predictor) -> None:
    """A label, a set of labels, a number, a tag per word, as they follow from the logits; or nothing."""
    said = dict(zip(ZOO, predictor.predict(["apple iron fresh"] * len(ZOO), list(ZOO)), strict=True))
    inputs = predictor.processor.pad(predictor.processor(["apple iron fresh"], None, 16), 1, 5)
    found = {name: logits(tiny, adapter, inputs)[0] for name, adapter in zoo.items()}
    likely = {name: np.exp(z) / np.exp(z).sum(-1, keepdims=True) for name, z in found.items()}
    assert said["lora"].label == "ab"[found["lora"].argmax()]
    assert said["lora"].score == pytest.approx(likely["lora"].max(), abs=1e-5)
    assert said["ia3"].label == [name for name, z in zip("xyz", found["ia3"], strict=True) if z > 0]
    assert said["ia3"].score == pytest.approx([1 / (1 + np.exp(-z)) for z in found["ia3"] if z > 0], abs=1e-5)
    assert (said["bottleneck"].label, said["bottleneck"].score) == (pytest.approx(found["bottleneck"][0], abs=1e-5), None)
    assert said["bitfit"].label == [ZOO["bitfit"][2][i] for i in found["bitfit"][1:4].argmax(-1)]
    assert said["bitfit"].score == pytest.approx(likely["bitfit"][1:4].max(-1), abs=1e-5)
    assert predictor.predict(["x"], [None]) == [Prediction(None, None, None)]
    assert predictor.predict([]) == []
    assert predictor.labels("prefix")[10] == "label 10"


def test_tagging_takes_words_or_a_text(predictor: Predictor) -> None:
    """A list of words keeps its words; a text is split at spaces; a list for another task is refused."""
    split, listed = predictor.predict(["apple iron", ["apple", "iron"]], "bitfit")
    assert split == listed
    assert len(predictor.predict([["apple, red", "iron"]], "bitfit")[0].label) == 2
    with pytest.raises(GraftaxError, match="row 1 is a list of words, but adapter 'lora' takes a text"):
        predictor.predict([["apple", "iron"]], "lora")


@pytest.mark.parametrize("row", ["", "  \n", [], ("", ""), ("x", " ")])
def test_empty_rows_are_named(predictor: Predictor, row: Any) -> None:
    """An empty row is an error with its number."""
    with pytest.raises(GraftaxError, match="row 2 is empty"):
        predictor.predict(["apple", row], "bitfit" if row == [] else "lora")


def test_unknown_names_and_unloading(tiny: Backbone) -> None:
    """An unknown name is an error that lists what is loaded; an unloaded adapter is unknown; its slot is used again."""
    predictor = Predictor(tiny)
    with pytest.raises(GraftaxError, match="no adapter named 'x' is loaded; loaded are none"):
        predictor.predict(["a"], "x")
    predictor.load("a", adapter_of(tiny, "lora", 1))
    predictor.load("b", adapter_of(tiny, "lora", 2))
    before = predictor.predict(TEXTS, "b")
    with pytest.raises(GraftaxError, match="no adapter named 'x' is loaded; loaded are a, b"):
        predictor.predict(["a", "b"], ["a", "x"])
    predictor.unload("a")
    for call in (lambda: predictor.predict(["a"], "a"), lambda: predictor.unload("a"), lambda: predictor.labels("a")):
        with pytest.raises(GraftaxError, match="no adapter named 'a' is loaded; loaded are b"):
            call()
    assert predictor.predict(TEXTS, "b") == before
    for i in range(30):
        predictor.load(f"n{i}", adapter_of(tiny, "lora", i))
        predictor.unload(f"n{i}")
    assert predictor.bank.growths == 1
    with pytest.raises(GraftaxError, match="2 rows but 1 adapter"):
        predictor.predict(["a", "b"], ["b"])


def test_growth_keeps_answers(tiny: Backbone) -> None:
    """More adapters than slots, a larger rank, another method: each growth leaves the answers of those before."""
    predictor = Predictor(tiny)
    adapters = {f"a{i}": adapter_of(tiny, "lora", i) for i in range(20)}
    adapters |= {name: adapter_of(tiny, name) for name in ("rank", "ia3", "prefix")}
    first: dict[str, list[Prediction]] = {}
    for name, adapter in adapters.items():
        predictor.load(name, adapter)
        first[name] = predictor.predict(TEXTS[:1], name)
    assert 4 <= predictor.bank.growths <= 7
    for name, expected in first.items():
        assert_close(predictor.predict(TEXTS[:1], name), expected)
    assert predictor.predict(TEXTS[:1]) == [Prediction(None, None, None)]


def test_an_adapter_that_does_not_load_changes_nothing(tiny: Backbone) -> None:
    """After a refused load the bank is as before, under the same name too."""
    predictor = Predictor(tiny)
    predictor.load("a", adapter_of(tiny, "lora"))
    before = predictor.predict(TEXTS, "a")
    wrong = adapter_of(tiny, "lora", 5)
    object.__setattr__(wrong, "task", "translate")
    with pytest.raises(GraftaxError, match="a: task 'translate' is none of classify"):
        predictor.load("a", wrong)
    with pytest.raises(GraftaxError, match="3 label names for a head of 2 classes"):
        predictor.load("a", adapter_of(tiny, "lora", 5), labels=["x", "y", "z"])
    with pytest.raises(GraftaxError, match="no such adapter directory"):
        predictor.load("a", "nowhere")
    assert predictor.predict(TEXTS, "a") == before


def test_labels_of_peft_directories(tiny: Backbone, tmp_path: Path) -> None:
    """A directory as PEFT writes it has classes without names: LABEL_i, unless they are given."""
    directory = save_adapter(adapter_of(tiny, "lora"), tmp_path / "a", tiny)
    (directory / "graftax.json").unlink()
    predictor = Predictor(tiny)
    predictor.load("plain", directory)
    predictor.load("named", directory, labels=["no", "yes"])
    predictor.load("mine", adapter_of(tiny, "lora"))
    assert predictor.labels("plain") == ("LABEL_0", "LABEL_1")
    said = {name: predictor.predict(TEXTS, name) for name in ("plain", "named", "mine")}
    index = [predictor.labels("mine").index(p.label) for p in said["mine"]]
    assert [p.label for p in said["plain"]] == [f"LABEL_{i}" for i in index]
    assert [p.label for p in said["named"]] == [("no", "yes")[i] for i in index]


def test_adapters_without_a_head_answer_nothing(tiny: Backbone) -> None:
    """None, also in a batch with others; and nothing can be measured."""
    bare = Adapter.create((LoRA(),), tiny.sites)
    predictor = Predictor(tiny)
    predictor.load("bare", bare)
    predictor.load("a", adapter_of(tiny, "lora"))
    assert predictor.predict(["x", "y"], ["bare", "a"])[0] == Prediction("bare", None, None)
    with pytest.raises(GraftaxError, match="no head"):
        evaluate(predictor, "bare", toy_rows())


def logits_of(backbone: Backbone, adapter: Adapter, inputs: TextInputs) -> np.ndarray:
    """Of its own classes, by one forward pass."""
    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    found = jax.jit(backbone.forward)(backbone.params, state, inputs)
    return np.asarray(found.tokens if adapter.task == "tag" else found.pooled)[..., : len(adapter.labels)]


def tags_by_hand(backbone: Backbone, adapter: Adapter, words: list[str]) -> list[str]:
    """Of words that are a token each, 38 at a time; a piece begins with the last nine of the one before."""
    tags: list[str] = []
    for begin in range(0, len(words) - 9, 29):
        piece = backbone.processor([" ".join(words[begin : begin + 38])], None, 40)
        found = logits_of(backbone, adapter, backbone.processor.pad(piece, 1, 40))[0, 1 : len(piece[0]) - 1]
        tags += [adapter.labels[i] for i in found.argmax(-1)[len(tags) - begin :]]
    return tags


def test_pairs_and_long_rows(tiny: Backbone, zoo: dict[str, Adapter], predictor: Predictor) -> None:
    """A second text is of the second type; beyond the limit of 40 tokens texts are cut, and for a tagger come in pieces."""
    firsts, seconds = ["iron", "iron"], ["plum", "gold and old"]
    items = predictor.processor(firsts, seconds, 40)
    for said, item in zip(predictor.predict(list(zip(firsts, seconds, strict=True)), "lora"), items, strict=True):
        types = np.arange(len(item)) >= 3  # behind [CLS] iron [SEP]
        inputs = TextInputs(item.ids[None], np.ones((1, len(item)), bool), types[None].astype(np.int32))
        found = logits_of(tiny, zoo["lora"], inputs)[0]
        assert said.label == "ab"[found.argmax()]
        assert said.score == pytest.approx(np.exp(found.max()) / np.exp(found).sum(), abs=1e-5)
    words = [str(w) for w in np.random.default_rng(0).choice(FRUIT + METAL, 100)]
    long, cut = predictor.predict([" ".join(words), " ".join(words[:38])], "lora")
    assert (long, long.cut, cut.cut) == (cut, True, False)
    tags = predictor.predict([words], "bitfit")[0].label
    assert tags == tags_by_hand(tiny, zoo["bitfit"], words)
    assert {*tags} == {"I-F", "O"}
    pair, fits = predictor.predict([("x " * 30, "y " * 30), ("x " * 18, "y " * 19)], "lora")  # the longer one is cut
    assert (pair, pair.cut, fits.cut) == (fits, True, False)


def test_texts_of_every_length(tiny: Backbone, zoo: dict[str, Adapter], predictor: Predictor) -> None:
    """Up to the 40 positions that there are, less the adapter's five of its own; a longer one is cut to them."""
    words = [str(w) for w in np.random.default_rng(0).choice(FRUIT + METAL, 100)]
    labels = predictor.labels("prefix")
    for count, read in ((1, 1), (5, 5), (20, 20), (33, 33), (38, 33), (60, 33)):
        said = predictor.predict([" ".join(words[:count])], "prefix")[0]
        alone = predictor.processor.pad(predictor.processor([" ".join(words[:read])], None, 35), 1, read + 2)
        found = logits_of(tiny, zoo["prefix"], alone)[0]
        assert (said.label, said.cut) == (labels[found.argmax()], count > read)
        assert said.score == pytest.approx(np.exp(found.max()) / np.exp(found).sum(), abs=1e-5)


def test_many_rows_in_their_order(predictor: Predictor) -> None:
    """More rows than one call takes come back in order."""
    rows = [TEXTS[i % 4] for i in range(150)]
    found = predictor.predict(rows, "lora")
    assert_close(found, (predictor.predict(TEXTS, "lora") * 38)[:150])


def test_threads_may_share_a_predictor(tiny: Backbone) -> None:
    """Predicting, loading and unloading from several threads gives the answers of one."""
    predictor = Predictor(tiny)
    for i in range(4):
        predictor.load(str(i), adapter_of(tiny, "lora", i))
    expected = {str(i): predictor.predict(TEXTS, str(i)) for i in range(4)}
    wrong: list[Any] = []

    def ask(name: str) -> None:
        try:
            for _ in range(20):
                if predictor.predict(TEXTS, name) != expected[name]:
                    wrong.append(name)
        except Exception as error:
            wrong.append(error)

    def churn() -> None:
        try:
            for i in range(20):
                predictor.load("other", adapter_of(tiny, "lora", 10 + i))
                predictor.unload("other")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(str(i),)) for i in range(4)] + [threading.Thread(target=churn)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_evaluate_is_what_training_measured(tiny: Backbone, tmp_path: Path, task: str) -> None:
    """The metrics of a saved adapter on the validation rows are those that training kept."""
    val = toy_rows(task, 14, 9)
    recipe = Recipe(epochs=3, lr=1e-2, batch_size=8, max_length=16)
    settings: dict[str, Any] = {"recipe": recipe, "task": task, "progress": False, "method": LoRA(r=3, alpha=5.0)}
    result = train_many(tiny, {"a": toy_rows(task)}, tmp_path, val={"a": val}, **settings)["a"]
    predictor = Predictor(tiny)
    predictor.load("a", tmp_path / "a")
    found = evaluate(predictor, "a", val)
    assert {f"val_{key}": pytest.approx(value) for key, value in found.items()}.items() <= result.metrics.items()
    unknown: Any = {"text": ["x"], "label": ["new"]} if task == "tag" else {"text": "x", "label": "new"}
    with pytest.raises(GraftaxError, match=r"a knows none of its labels \(new\)"):
        evaluate(predictor, "a", [unknown])
