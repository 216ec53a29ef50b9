"""Cards: what graftax writes into a README, what people write there, and that neither is lost to the other."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from refusals import refused

from graftax.hub.card import Card, library_of, read_card, write_card
from graftax.hub.front_matter import split_front_matter
from graftax.hub.kept import digest_of, renewed
from graftax.store.manifest import DataFacts, Manifest
from graftax.store.version import Score, Version

VERSION = Version("bank/intent", 1, "0" * 64, 2, None, None, None, (), None, (), 0, 0, "", (), "", None, None, None)
MANIFEST = Manifest(
    files={},
    backbone="sentence-transformers/all-MiniLM-L6-v2",
    fingerprint="ab" * 32,
    methods=("lora", "head"),
    task="classify",
    labels=("card lost", "refund"),
    parameters=1234,
    recipe={"lr": 0.005},
    data=DataFacts("cd" * 32, 308, "bank.csv"),
    metrics={"val_accuracy": 0.93, "loss": 0.1, "val_loss": None},
    parents=("sha256:" + "e" * 64,),
    graftax="0.1.0",
)
SCORES = [
    Score(VERSION, "classify", "f" * 64, "test.csv", 100, "accuracy", 0.91, 0.85, 0.95),
    Score(VERSION, "classify", "f" * 64, "test.csv", 100, "macro_f1", 0.9, None, None),
]


def written(existing: str | None = None, scores: list[Score] = SCORES, **changes: Any) -> str:
    return write_card(replace(MANIFEST, **changes), scores, existing, "bank/intent", library="peft")


def front(text: str) -> dict[str, Any]:
    return dict(split_front_matter(text, "README.md")[0].values)


def test_the_hub_reads_what_a_new_card_says() -> None:
    card = ModelCard(written(license="mit"))
    said = card.data.to_dict()
    assert (said["library_name"], said["pipeline_tag"], said["license"]) == ("peft", "text-classification", "mit")
    assert (said["base_model"], said["base_model_relation"]) == ("sentence-transformers/all-MiniLM-L6-v2", "adapter")
    assert said["tags"] == ["graftax", "lora", "base_model:adapter:sentence-transformers/all-MiniLM-L6-v2"]
    results = [(r.dataset_name, r.dataset_split, r.metric_type, r.metric_value) for r in card.data.eval_results]
    evaluated = [("test.csv", None, "accuracy", 0.91), ("test.csv", None, "macro_f1", 0.9)]
    assert results == [*evaluated, ("bank.csv", "validation", "accuracy", 0.93)]
    assert card.data.eval_results[0].metric_args == {"interval": [0.85, 0.95], "confidence": 0.95}
    for part in ("`card lost`, `refund`", "0.85 to 0.95", '"lr": 0.005', "ab" * 32, "cd" * 32, "sha256:eee"):
        assert part in card.text


@pytest.mark.parametrize(
    "backbone", ["/home/me/MiniLM", "./MiniLM", "tests/golden", "MiniLM", "a/b/c", "no id of the Hub", None]
)
def test_a_base_model_is_said_where_it_can_be_the_hubs(backbone: str | None) -> None:
    assert not {"base_model", "base_model_relation"} & front(written(backbone=backbone)).keys()


@pytest.mark.parametrize(
    ("task", "pipeline", "asked"),
    [
        ("image-classify", "image-classification", 'predictor.predict(["picture.png"], "intent")'),
        ("tag", "token-classification", 'predictor.predict(["a text"], "intent")'),
        ("dpo", "text-generation", 'generator.generate(["Once upon a time"], "intent")'),
        ("seq2seq", "text-generation", 'generator.generate(["Once upon a time"], "intent")'),
        ("one of a package that is not here", None, 'predictor.predict(["a text"], "intent")'),
    ],
)
def test_the_task_says_how_it_is_asked(task: str, pipeline: str | None, asked: str) -> None:
    text = written(task=task)
    assert front(text).get("pipeline_tag") == pipeline
    assert asked in text


def test_the_library_is_that_whose_files_they_are() -> None:
    assert library_of({"peft_type": "LORA"}) == "peft"
    assert library_of({"peft_type": "GRAFTAX", "methods": []}) == "graftax"
    assert library_of({"config": {"architecture": "lora"}}) == "adapter-transformers"


def test_on_the_hugging_face_hub_it_is_called_as_it_is_found_there() -> None:
    """A card that comes from another hub says so from then on; its title, too, is a person's by then."""
    again = write_card(MANIFEST, SCORES, written(), "hf://user/adapter", library="peft")
    assert '.load("adapter", "hf://user/adapter")' in again
    assert "--adapter hf://user/adapter" in again
    assert "`PeftModel.from_pretrained(model, 'user/adapter')`" in again
    assert front(again)["model-index"][0]["name"] == "user/adapter"
    assert write_card(MANIFEST, SCORES, None, "hf://user/adapter").split("---\n")[2].strip().startswith("# user/adapter\n")


def test_what_people_wrote_stays_and_what_graftax_wrote_is_renewed() -> None:
    first = written()
    edited = first.replace("# bank/intent", "# The bank's intents\n\nRead **before** use, see [here](x.md).")
    edited = edited.replace("## Labels\n", "## Labels, explained\n")
    edited = edited.replace("library_name: peft", "library_name: peft\nversion: 1.10  # ours\nlanguage: no\nlicense: other")
    edited = edited.replace("tags: [graftax, lora, ", "tags: [banking, lora, ") + "\nThe end.\n"
    again = written(edited, [], parameters=99, license="mit", methods=("dora",), labels=("a", "b", "c"))
    assert "# The bank's intents\n\nRead **before** use, see [here](x.md).\n" in again
    assert again.endswith("\nThe end.\n")
    assert "version: 1.10  # ours\nlanguage: no\nlicense: other\n" in again
    assert "## Labels, explained\n\n`card lost`, `refund`\n" in again  # was changed: theirs
    assert "99 parameters" in again
    assert "1,234" not in again
    assert "test.csv" not in again  # is no result of this version
    assert front(again)["tags"] == ["banking", "base_model:adapter:sentence-transformers/all-MiniLM-L6-v2", "dora"]
    assert read_card(again) == Card("Read **before** use, see here.", ("banking",), "other")
    assert written(again, [], parameters=99, license="mit", methods=("dora",), labels=("a", "b", "c")) == again


def test_what_people_took_away_stays_away() -> None:
    first = written(license="mit")
    edited = re.sub(r"<!-- graftax:use -->.*<!-- /graftax:use -->\n", "", first, flags=re.DOTALL)
    edited = edited.replace("license: mit\n", "").replace("tags: [graftax, ", "tags: [")
    again = written(edited, license="mit", parameters=5)
    assert "## Use" not in again
    assert "license" not in front(again)
    assert "graftax" not in front(again)["tags"]
    assert written(again, license="mit", parameters=5) == again


def test_a_card_of_somebody_elses_is_completed() -> None:
    theirs = "---\nlicense: apache-2.0\nlibrary_name: other\n---\n# Mine\n\nWhat it is for.\n"
    text = written(theirs, description="What it is for.")
    assert front(text)["library_name"] == "other"
    assert front(text)["pipeline_tag"] == "text-classification"
    assert text.index("# Mine\n\nWhat it is for.\n") < text.index("<!-- graftax:about -->")
    assert text.count("What it is for.") == 1  # their own words are the description
    assert read_card(text).license == "apache-2.0"


def test_a_description_is_written_once_and_renewed() -> None:
    first = written(description="Intents of a bank.")
    assert read_card(first).description == "Intents of a bank."
    second = written(first, description="Intents of two banks.")
    assert "Intents of a bank." not in second
    assert read_card(second).description == "Intents of two banks."


def test_lines_may_end_as_on_windows() -> None:
    again = written(written().replace("\n", "\r\n"), parameters=7)
    assert again.replace("\r\n", "\n") == written(parameters=7)
    assert again.count("\n") == again.count("\r\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        (
            "# Title\n\nTitle\n=====\n\n<!-- what -->\n\n![badge](x)\n\n- a list\n\nThe  first\nparagraph.\n\nThe second.",
            "The first paragraph.",
        ),
        ("```\ncode\n\nmore code\n```\n\n| a |\n|---|\n\nSaid.", "Said."),
        ("This is [More Information Needed]\n\nKnown.", "Known."),
        ("a" * 400, "a" * 297 + "..."),
    ],
)
def test_a_description_is_the_first_paragraph(text: str, said: str) -> None:
    assert read_card(text).description.replace("  ", " ") == said


def test_what_a_template_says_is_no_description() -> None:
    """The Hub's template, which PEFT fills too; and who describes the adapter in the front matter is taken at that word."""
    template = str(ModelCard.from_template(ModelCardData(library_name="peft", base_model="a/b")))
    assert read_card(template).description == ""
    assert read_card(f"{template}\n\nFor a bank.").description == "For a bank."
    for key in ("description", "summary"):
        assert read_card(f"---\n{key}: Of intents\n---\nA paragraph.").description == "Of intents"
    assert read_card("---\ndescription: [a]\n---\nA paragraph.").description == "A paragraph."


HOSTILE = [
    "a\n---\nlicense: mit",
    "<!-- /graftax:labels -->\n# Mine",
    "<script>alert(1)</script>",
    "`` ` ``` ```` x",
    "| a | b |",
    "*[x](javascript:alert(1))*",
    "&lt; {{ x }} $(rm) \x1b[31m \u202e\u2028",
    "!!python/object:os.system",
    "\\|`",
    "- [ ] {a: *b}",
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_do_no_harm(text: str) -> None:
    """Wherever they stand: the card has the parts that it was to have, each label is one piece of code, and it is renewed."""
    markdown = MarkdownIt("commonmark").enable("table")
    changes: dict[str, Any] = {
        "labels": ("before", text, "behind"),
        "recipe": {text: text},
        "keywords": (text,) if text else (),
        "license": text or None,
        "backbone": text or None,
        "data": DataFacts("cd" * 32, 3, text),
        "metrics": {text: 0.5},
    }
    scores = [replace(SCORES[0], data_name=text or None, metric=text or "m")]
    card = written(None, scores, **changes)
    assert written(card, scores, **changes) == card
    tokens = markdown.parse(split_front_matter(card, "README.md")[1])
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == ["bank/intent", "Use", "Labels", "Training", "Metrics", "Provenance"]
    blocks = [token.content.strip() for token in tokens if token.type == "html_block"]
    names = ["about", "use", "labels", "training", "metrics", "provenance"]
    assert blocks == [f"<!-- {sign}graftax:{name} -->" for name in names for sign in ("", "/")]
    (labels,) = (t for t in tokens if t.type == "inline" and t.content.startswith("`before`"))
    codes = [child.content for child in labels.children if child.type == "code_inline"]
    assert (len(codes), codes[0], codes[2]) == (3, "before", "behind")
    assert {child.type for child in labels.children} == {"code_inline", "text"}
    cells = [len([t for t in row if t == "td_open"]) for row in _rows([token.type for token in tokens])]
    assert cells == [0, 3, 0, 2]  # of a head, and of a row
    ModelCard(card)


def _rows(types: list[str]) -> list[list[str]]:
    starts = [i for i, kind in enumerate(types) if kind == "tr_open"]
    return [types[i : types.index("tr_close", i)] for i in starts]


LINES = st.sampled_from(
    [
        "<!-- graftax:use -->",
        "<!-- /graftax:use -->",
        "<!-- /graftax:labels -->",
        "<!-- graftax:description -->",
        "---",
        "# Mine",
        "words of mine",
        "```",
        "",
    ]
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 3), st.lists(LINES, max_size=3)), max_size=4),
    description=st.sampled_from(["", "Mine.", "<!-- /graftax:description -->"]),
)
def test_edits_are_kept(cuts: list[tuple[int, int, list[str]]], description: str) -> None:
    """Whatever lines somebody takes out of the body and puts into it: written again, what they put there is there, once."""
    lines = written(description=description).split("\n")
    end = lines.index("---", 1) + 1
    for at, removed, added in cuts:
        at = min(end + at, len(lines))
        lines[at : at + removed] = added
    edited = "\n".join(lines)
    again = written(edited, parameters=5, description=description)
    for line in {line for _, _, added in cuts for line in added if line.strip()}:
        assert again.split("\n").count(line) >= edited.split("\n").count(line) - _ours(line)
    assert written(again, parameters=5, description=description) == again


def _ours(line: str) -> int:
    """How many of these lines may be graftax's own: one that ends a block, and comments."""
    return 8 if line == "```" or line.startswith("<!--") else 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = ["license", "tags", "datasets", "model-index", "base_model", "mine", "1", "written_by_graftax"]


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_keys_that_somebody_set_are_kept(theirs: dict[str, Any]) -> None:
    card = f"---\n{yaml.safe_dump(theirs, sort_keys=False) if theirs else ''}---\n# Mine\n"
    again = front(written(card))
    for key, value in theirs.items():
        if key in ("tags", "datasets"):
            now = again.get(key) if isinstance(again.get(key), list) else [again.get(key)]
            assert all(entry in now for entry in (value if isinstance(value, list) else [value]) if entry is not None)
        elif key != "written_by_graftax":
            assert again[key] == value
    assert again["pipeline_tag"] == "text-classification"


@pytest.mark.parametrize(
    ("matter", "line"),
    [
        ("a: &x [1]\nb: *x", "references"),
        ("a: [1", "no YAML"),
        ("- a\n- b", "no list of keys and values"),
        ("a: 1\na: 2", "the key 'a' twice"),
        ("a: !!bool maybe", "no YAML"),
        ("a: !!python/object/apply:os.system [ls]", "no YAML"),
        ("a: 2024-13-45", "no YAML"),
        ("[a, b]: 1", "no YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, "no YAML"),
        ("a: " + "x" * (1 << 18), "characters"),
    ],
)
def test_front_matter_that_cannot_be_read_is_one_line(matter: str, line: str) -> None:
    said = refused(lambda: written(f"---\n{matter}\n---\n# Mine\n"))
    assert said is not None
    assert said.startswith("README.md: its front matter")
    assert line in said


def test_front_matter_in_one_line_of_braces() -> None:
    again = front(written("---\n{license: mit, mine: [1, 2]}\n---\n"))
    assert (again["license"], again["mine"]) == ("mit", [1, 2])


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="-\n:[]{}&*!#'\" ab", max_size=60).map(lambda text: f"---\n{text}\n---\n"))
def test_any_text_is_read_or_refused(text: str) -> None:
    if refused(lambda: read_card(text)) is None:
        once = written(text)
        assert written(once) == once


def test_what_is_kept_and_what_is_renewed() -> None:
    """The table in `kept.py`."""
    wrote = {name: digest_of(1) for name in "abce"}
    stands, remembered = renewed({"a": 1, "b": 5, "d": 5, "e": 1}, {"a": 2, "b": 2, "c": 2, "d": 2, "f": 3}, wrote)
    assert stands == {"a": 2, "b": 5, "d": 5, "f": 3}
    assert remembered == {"a": digest_of(2), "b": digest_of(1), "c": digest_of(1), "f": digest_of(3)}
