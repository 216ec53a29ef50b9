"""Metrics of generated text, by hand-computed values."""

from __future__ import annotations

from decimal import Decimal

import pytest

from graftax.tasks.text_metrics import (
    bleu,
    character_error_rate,
    chrf,
    edit_distance,
    exact_match,
    final_number,
    final_number_accuracy,
    rouge,
    text_scores,
)


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("ab", "ba", 2),
        ("गीत", "गति", 2),
        ("é漢😀", "e漢", 2),
        ("ab" * 100, "ba" * 100, 2),
    ],
)
def test_edits(one: str, other: str, edits: int) -> None:
    assert edit_distance(one, other) == edits


def test_exact_match_and_character_errors_are_over_the_set() -> None:
    said, wanted = [" yes", "kitten", ""], ["yes\n", "sitting", "no"]
    assert exact_match(said, wanted) == pytest.approx(1 / 3)
    assert character_error_rate(["yes", *said[1:]], ["yes", *wanted[1:]]) == pytest.approx((0 + 3 + 2) / (3 + 7 + 2))


def test_bleu_and_chrf() -> None:
    assert bleu(["a b c d e"], ["a b c d f"]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # all of what is said is right: precision 1, and of the characters and pairs that are wanted 2 / 3 and 1 / 2
    assert chrf(["ab"], ["abc"]) == pytest.approx(100 * 5 * (7 / 12) / (4 + 7 / 12))


def test_rouge() -> None:
    found = rouge(["The cat sat.", "x"], ["the cat has sat", "x"])
    words, pairs, longest = 2 * 3 / (3 + 4), 2 * 1 / (2 + 3), 2 * 3 / (3 + 4)
    assert found == pytest.approx({"rouge1": (words + 1) / 2, "rouge2": pairs / 2, "rougeL": (longest + 1) / 2})


def test_every_script_has_words() -> None:
    same = "नमस्ते दुनिया"
    assert rouge([same], [same]) == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}


def test_all_of_them() -> None:
    perfect = text_scores(["an answer of six whole words"], ["an answer of six whole words"])
    assert perfect == pytest.approx(
        {"exact_match": 1, "cer": 0, "bleu": 100, "chrf": 100, "rouge1": 1, "rouge2": 1, "rougeL": 1}, rel=1e-6
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 and 2 are 4\n#### 1,234.", "1234"),
        ("#### -3 (not 5)", "-3"),
        ("it costs $3, then $7.50.", "7.5"),
        ("a range of 3-4", "4"),
        ("-$.5", "-0.5"),
        ("none", None),
        ("7 ####", None),
    ],
)
def test_final_numbers(text: str, number: str | None) -> None:
    assert final_number(text) == (None if number is None else Decimal(number))


def test_accuracy_of_final_numbers() -> None:
    assert final_number_accuracy(["so 4.0", "none", "5"], ["#### 4", "#### none", "#### 6"]) == {"accuracy": 1 / 3}
