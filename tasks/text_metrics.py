"""Metrics of generated text against the text that was wanted, over all rows of a set.

    exact_match   share of rows that are equal, white space at the ends apart
    cer           character error rate: edits of single characters that make the wanted texts / their characters
    bleu, chrf    of the whole set, from 0 to 100, with sacreBLEU's settings (Post, arXiv:1804.08771; Popovic, 2015)
    rouge1, 2, L  mean over the rows of F1 of words, of pairs of words, and of the longest common subsequence (Lin, 2004)
    accuracy      share of rows with the same final number, as GSM8K is scored (Cobbe et al., arXiv:2110.14168)

The packages are imported where they are used: together they take seconds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np


def text_scores(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """Every metric of text, by name."""
    return {
        "exact_match": exact_match(said, wanted),
        "cer": character_error_rate(said, wanted),
        "bleu": bleu(said, wanted),
        "chrf": chrf(said, wanted),
        **rouge(said, wanted),
    }


def exact_match(said: Sequence[str], wanted: Sequence[str]) -> float:
    return sum(s.strip() == w.strip() for s, w in zip(said, wanted, strict=True)) / len(wanted)


def character_error_rate(said: Sequence[str], wanted: Sequence[str]) -> float:
    """Edit distances of all rows over the characters wanted in all; above 1 where much too much is said."""
    return sum(edit_distance(s, w) for s, w in zip(said, wanted, strict=True)) / max(1, sum(map(len, wanted)))


def edit_distance(one: str, other: str) -> int:
    """Characters to insert, delete or replace (Levenshtein)."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(one, other)


def bleu(said: Sequence[str], wanted: Sequence[str]) -> float:
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(list(said), [list(wanted)]).score)


def word_matches(said: Sequence[str], wanted: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """What BLEU is made of, per text, where each may have several right answers.

    Returns float64 `[n, 5]` twice: clipped matches of 1 to 4 words and the words said; how many runs of 1 to 4 words there are
    and the words of the right answer that is nearest in length. BLEU is computed of their sums over texts.
    """
    from sacrebleu import BLEU

    scorer = BLEU(effective_order=True)  # silences its warning about single sentences; the counts are the same
    scores = [scorer.sentence_score(one.strip(), list(right)) for one, right in zip(said, wanted, strict=True)]
    above = [[*score.counts, score.sys_len] for score in scores]
    below = [[*score.totals, score.ref_len] for score in scores]
    return np.array(above, np.float64).reshape(-1, 5), np.array(below, np.float64).reshape(-1, 5)


def chrf(said: Sequence[str], wanted: Sequence[str]) -> float:
    from sacrebleu import corpus_chrf

    return float(corpus_chrf(list(said), [list(wanted)]).score)


def rouge(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """By Google's `rouge_score`, without stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, tokenizer=_Words())
    each = [scorer.score(w, s) for s, w in zip(said, wanted, strict=True)]
    return {name: float(np.mean([scores[name].fmeasure for scores in each])) for name in names}


class _Words:
    """Lower-case words of any script; the package's own are of a to z alone, and texts of others would have none."""

    def tokenize(self, text: str) -> list[str]:
        return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower()).split()


def final_number_accuracy(said: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    pairs = [(final_number(s), final_number(w)) for s, w in zip(said, wanted, strict=True)]
    return {"accuracy": sum(s is not None and s == w for s, w in pairs) / len(pairs)}


def final_number(text: str) -> Decimal | None:
    """The number behind "####", else the last one in the text; None where there is none."""
    marked = text.rpartition("####")[2].replace(",", "").replace("$", "")
    found = re.findall(r"(?:(?<!\w)-)?(?:\d+(?:\.\d+)?|\.\d+)", marked)
    return Decimal(found[0 if "####" in text else -1]) if found else None


#: By what a set of answers may be scored.
SCORES: dict[str, Callable[[Sequence[str], Sequence[str]], dict[str, float]]] = {
    "text": text_scores,
    "gsm8k": final_number_accuracy,
}
