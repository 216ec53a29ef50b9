"""What an adapter says of texts, where they are cut and how chats are written, goes with it where it is merged or exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from noted import noted
from tiny import CHAT, FILLER, FRUIT, METAL, write_backbone
from transformers import AutoTokenizer

from graftax import Adapter, Generator, LoRA, Predictor, Recipe, export_adapter, load_adapter, load_backbone, train_many
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer
from graftax.serve.export import export_merged

TASKS = {"classify": ("fruit", "metal"), "multilabel": ("fruit", "metal"), "regress": ("value",), "tag": ("B-F", "B-M", "O")}
WORDS = [str(word) for word in np.random.default_rng(0).choice([*FRUIT, *METAL, *FILLER], 60)]
TEXTS = [" ".join(WORDS[begin : begin + count]) for begin, count in ((0, 3), (5, 14), (0, 20), (20, 36), (0, 60))]


def an_adapter(backbone: Backbone, task: str, **recipe: Any) -> Adapter:
    """With a head whose answers depend on the words."""
    head = backbone.head(len(TASKS[task]), tokens=task == "tag")
    known = {"labels": TASKS[task], "task": task, "fingerprint": backbone.fingerprint, "recipe": recipe}
    made = Adapter.create((LoRA(), head), backbone.sites, **known)
    for key in made.states:
        for leaves, _ in made.states[key].values():
            for name, leaf in leaves.items():
                leaves[name] = np.random.default_rng(3).standard_normal(leaf.shape).astype(np.float32)
    return made


def answers_of(predictor: Predictor, name: str | None) -> Any:
    found = predictor.predict(TEXTS, name)
    return [(one.label, one.cut) for one in found], [one.score for one in found]


@pytest.mark.parametrize("length", [8, 16, 40, None])
@pytest.mark.parametrize("task", TASKS)
def test_a_merged_backbone_answers_as_the_adapter(tiny: Backbone, tmp_path: Path, task: str, length: int | None) -> None:
    """Texts of any length: cut where the adapter cuts them, of tags in the pieces that it reads."""
    adapter = an_adapter(tiny, task, **({} if length is None else {"max_length": length}))
    export_merged(tiny, adapter, tmp_path / "merged")
    before, after = Predictor(tiny), Predictor(load_backbone(tmp_path / "merged"))
    before.load("a", adapter)
    labels, scores = answers_of(before, "a")
    found, theirs = answers_of(after, None)
    if task == "regress":
        np.testing.assert_allclose([label for label, _ in found], [label for label, _ in labels], rtol=1e-4)
        return
    assert found == labels
    for mine, their in zip(scores, theirs, strict=True):
        np.testing.assert_allclose(their, mine, atol=1e-4)


@pytest.mark.parametrize("length", [8, 40])
def test_transformers_cuts_where_the_adapter_does(tiny: Backbone, tmp_path: Path, length: int) -> None:
    """By its own word for it, whatever the base's tokenizer says, and with all else that it says."""
    base = write_backbone(tmp_path / "base")
    (base / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 20, "cls_token": "[CLS]", "name": "é"}))
    export_merged(tiny, an_adapter(tiny, "classify", max_length=length), tmp_path / "plain")
    export_merged(load_backbone(base), an_adapter(tiny, "classify", max_length=length), tmp_path / "merged")
    said = json.loads((tmp_path / "merged" / "tokenizer_config.json").read_text("utf-8"))
    assert said == {"model_max_length": length, "cls_token": "[CLS]", "name": "é"}
    ours = [row.ids.tolist() for row in Tokenizer.of(tiny)(TEXTS, None, length)]
    for directory in ("plain", "merged"):
        assert AutoTokenizer.from_pretrained(tmp_path / directory)(TEXTS, truncation=True)["input_ids"] == ours


@pytest.mark.parametrize(("said", "length"), [(12, 12), (512, 40), (10**30, 40), (1e30, 40), ("many", 40), (0, 40), (True, 40)])
def test_a_checkpoint_says_how_much_its_head_reads(tiny: Backbone, tmp_path: Path, said: Any, length: int) -> None:
    """At most what the backbone has room for; a number given to the predictor goes before."""
    export_merged(tiny, an_adapter(tiny, "classify"), tmp_path / "a")
    (tmp_path / "a" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": said}))
    backbone = load_backbone(tmp_path / "a")
    assert noted(lambda: Predictor(backbone).predict(TEXTS[-1:])) == [
        f"{tmp_path / 'a'}: 1 of 1 rows cut at {length} tokens (max_length)."
    ]
    assert noted(lambda: Predictor(backbone, max_length=9).predict(TEXTS[-1:])) == [
        f"{tmp_path / 'a'}: 1 of 1 rows cut at 9 tokens (max_length)."
    ]


def test_a_merged_language_model_writes_chats_as_the_adapter(teller: Backbone, tmp_path: Path) -> None:
    """The template that was given in training becomes the directory's."""
    template = CHAT.replace("<", "[").replace(">", "]")
    chats = [{"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}]}]
    recipe = Recipe(epochs=1, max_length=90, chat_template=template)
    train_many(teller, {"a": chats * 2}, tmp_path, task="sft", recipe=recipe, progress=False)
    adapter = load_adapter(tmp_path / "a", teller)
    assert noted(lambda: export_merged(teller, adapter, tmp_path / "merged")) == [
        "the merged model's chat template is the one that the adapter brought, a program of whoever made the adapter."
    ]
    before, after = Generator(teller, chat_template="adapter"), Generator(load_backbone(tmp_path / "merged"))
    before.load("a", adapter)
    asked = [chats[0]["messages"][:1]]
    assert (
        after.tokenizer.chat(asked[0], "x", answer=True).tolist()
        == Tokenizer.of(teller, template).chat(asked[0], "x", answer=True).tolist()
    )
    assert before.generate(asked, "a", max_new_tokens=5)[0].text == after.generate(asked, max_new_tokens=5)[0].text
    assert "model_max_length" not in (tmp_path / "merged" / "tokenizer_config.json").read_text()


def test_an_export_says_what_the_other_library_has_no_place_for(tiny: Backbone, tmp_path: Path) -> None:
    """AdapterHub's files say nothing of lengths; where none would be cut, nothing need be said."""
    line = f"{tmp_path / 'a'}: no file there says that it reads 16 tokens of a text; cut them there (max_length)."
    for name, recipe, said in (("a", {"max_length": 16}, [line]), ("b", {"max_length": 40}, []), ("c", {}, [])):
        adapter = an_adapter(tiny, "classify", **recipe)
        assert noted(lambda name=name, adapter=adapter: export_adapter(adapter, tmp_path / name, tiny)) == said
