"""Words and their tags: as many tags as words, each on its own word, whatever the tokenizer makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from of_texts import of_texts

from graftax import Predictor, Recipe, load_adapter, train_many
from graftax.models.backbone import Backbone
from graftax.models.tokens import Tokenizer, Tokens
from graftax.serve import evaluate
from graftax.tasks.outputs import IGNORE
from graftax.tasks.task_registry import TASKS

TAG = TASKS["tag"]
NAMES = ("B-X", "B-Y", "O")

#: What BERT's normalizer drops (controls, zero-width, soft hyphen, U+FFFD, a lone accent), and what it splits or does not know.
ODD = [
    "\u200b",
    "\xad",
    "\ufffd",
    "\u0301",
    "\x00",
    "",
    " ",
    "e\u0301",
    "\u65e5\u672c\u8a9e",
    "\U0001f469\u200d\U0001f680",
    "a\u200bb",
]
PLAIN = ["gold", "iron", "apple", "pears", "shop", "unknownword"]


def tagged_by_hand(rows: Any) -> list[tuple[str, int]]:
    """Each word that has a label array's number on one of its tokens, with that number."""
    found = []
    for words, texts in zip(rows.examples.fields["text"], rows.items_of, strict=True):
        begin = 0
        for i in texts:
            for token in np.flatnonzero(rows.labels[i] != IGNORE):
                found.append((words[begin + rows.items[i].words[token]], int(rows.labels[i][token])))
            begin += rows.items[i].count
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(PLAIN) | st.sampled_from(ODD) | st.text(max_size=4), st.sampled_from(NAMES)), min_size=1)
)
@pytest.mark.parametrize("max_length", [5, 9, 40])
def test_every_word_has_its_own_tag(tiny: Backbone, max_length: int, tagged: list[tuple[str, str]]) -> None:
    """Words that are read are trained on once, with their own tags and in their order, at any limit; every word is answered."""
    tagged = [(word.encode("utf-8", "ignore").decode(), tag) for word, tag in tagged]
    words, tags = [word for word, _ in tagged], [tag for _, tag in tagged]
    rows = TAG.prepare(of_texts([words], [tags]), NAMES, Tokenizer.of(tiny), max_length)
    assert max(len(row) for row in rows.items) <= max_length
    assert sum(piece.count for piece in rows.items) == len(words)
    read = [len(Tokenizer.of(tiny).ids([word], special=False)[0]) > 0 for word in words]
    assert tagged_by_hand(rows) == [(word, NAMES.index(tag)) for (word, tag), seen in zip(tagged, read, strict=True) if seen]
    # a model that says at every first token what is right there
    answers = []
    for row, labels in zip(rows.items, rows.labels, strict=True):
        answers.append(TAG.answer(9.0 * np.eye(3, dtype=np.float32)[np.maximum(labels, 0)], NAMES, row))
    whole = TAG.whole(answers)
    assert whole.label == [tag if seen else "O" for tag, seen in zip(tags, read, strict=True)]
    assert [score is not None for score in whole.score] == read


def test_a_word_without_token_shifts_no_tag() -> None:
    """The third word's answer is the third one, and the metrics count the second, which is not read, as outside."""
    row = Tokens(np.zeros(2, np.int32), np.zeros(2, np.int32), np.array([0, 2]), count=3)
    answer = TAG.answer(np.float32([[9, 0, 0], [0, 9, 0]]), NAMES, row)
    assert answer.label == ["B-X", "O", "B-Y"]
    assert answer.score[1] is None
    assert TAG.score(of_texts([["a", "\xad", "b"]], [["B-X", "B-X", "B-Y"]]), [answer], NAMES) == {
        "f1": pytest.approx(4 / 5),
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "accuracy": pytest.approx(2 / 3),
    }


def test_a_tagger_learns_and_answers_words_beyond_its_limit(tiny: Backbone, tmp_path: Path) -> None:
    """Words that follow odd ones and lie beyond the limit are learnt, answered and measured as the first ones are."""
    tag_of = {"gold": "B-METAL", "iron": "B-METAL", "apple": "B-FRUIT", "pear": "B-FRUIT", "shop": "O", "\u200b": "O"}
    random = np.random.default_rng(0)
    texts = [["shop", "\u200b", *random.choice(list(tag_of), 30).tolist()] for _ in range(24)]
    data = [{"text": words, "label": [tag_of[word] for word in words]} for words in texts]
    recipe = Recipe(epochs=6, lr=1e-2, max_length=16, batch_size=8)
    train_many(tiny, {"a": data[:16]}, tmp_path, task="tag", recipe=recipe, val={"a": data[16:]}, progress=False)
    predictor = Predictor(tiny)
    predictor.load("a", load_adapter(tmp_path / "a", tiny))
    (said,) = predictor.predict([texts[20]], "a")
    assert len(said.label) == len(said.score) == len(texts[20])
    assert [answer == tag for answer, tag in zip(said.label, data[20]["label"], strict=True)].count(False) <= 1
    assert evaluate(predictor, "a", data[16:])["f1"] > 0.98
