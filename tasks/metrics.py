"""Metrics, from scikit-learn; span F1 as seqeval counts it. scikit-learn is imported at the first call: it takes a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Metrics of which less is better, in whatever task they are taken; in all others more is.
LOWER_IS_BETTER = frozenset({"loss", "nll", "perplexity", "mse", "cer", "ece", "brier", "cut_rows", "unknown_labels", "unseen"})


def classification(gold: Sequence[str], said: Sequence[str]) -> dict[str, float]:
    """accuracy, macro F1 over the labels that occur, Matthews correlation (0 where there is but one)."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    return {
        "accuracy": float(accuracy_score(gold, said)),
        "macro_f1": float(f1_score(gold, said, average="macro", zero_division=0)),
        "matthews": float(matthews_corrcoef(gold, said)) if len({*gold, *said}) > 1 else 0.0,
    }


def multilabel(gold: Sequence[Sequence[str]], said: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, float]:
    """Exact-match accuracy, macro and micro F1, over `names` and whatever else is among the labels.

    As scikit-learn has them, whose own take milliseconds for a few rows; an interval takes them hundreds of times.
    """
    others = sorted({name for labels in gold for name in labels} - set(names))
    right, either = (dict.fromkeys((*names, *others), 0) for _ in range(2))  # F1 is twice the first over the second
    for wanted, given in zip(gold, said, strict=True):
        for name in {*wanted} & {*given}:
            right[name] += 1
        for name in (*{*wanted}, *{*given}):
            either[name] += 1
    each = [2 * right[name] / either[name] if either[name] else 0.0 for name in right]
    total = sum(either.values())
    return {
        "accuracy": sum({*wanted} == {*given} for wanted, given in zip(gold, said, strict=True)) / len(gold),
        "macro_f1": sum(each) / len(each),
        "micro_f1": 2 * sum(right.values()) / total if total else 0.0,
    }


def regression(gold: Sequence[float], said: Sequence[float]) -> dict[str, float]:
    """Pearson and Spearman correlation (0 where one side is constant) and mean squared error."""
    import numpy as np
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error

    varied = np.ptp(gold) > 0 and np.ptp(said) > 0
    return {
        "pearson": float(pearsonr(gold, said).statistic) if varied else 0.0,
        "spearman": float(spearmanr(gold, said).statistic) if varied else 0.0,
        "mse": float(mean_squared_error(gold, said)),
    }


def tagging(gold: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of whole spans (micro average) and accuracy of tags."""
    right = sum(len(spans(g) & spans(s)) for g, s in zip(gold, said, strict=True))
    wanted, given = sum(len(spans(g)) for g in gold), sum(len(spans(s)) for s in said)
    precision, recall = right / given if given else 0.0, right / wanted if wanted else 0.0
    pairs = [(a, b) for g, s in zip(gold, said, strict=True) for a, b in zip(g, s, strict=True)]
    return {
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "precision": precision,
        "recall": recall,
        "accuracy": sum(a == b for a, b in pairs) / len(pairs),
    }


def retrieval(logits: np.ndarray, pictures: Sequence[int], texts: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """How often the nearest of all texts is one of a picture's own, or among the nearest five or ten; and the other way round.

    The median rank is that of the first of a picture's own texts, 1 where that is the nearest.

    `logits [rows, rows]` of each row's picture and each row's text; `pictures`, `texts` and `labels`: which of them a row has,
    numbered from 0. Two that are the same count once among those that are looked for; what has one label belongs together.
    """
    import numpy as np

    pairs = np.zeros((max(pictures) + 1, max(texts) + 1), bool)
    pairs[np.asarray(pictures), np.asarray(texts)] = True
    for label in range(max(labels) + 1):
        of_one = np.flatnonzero(np.asarray(labels) == label)
        pairs[np.ix_(np.asarray(pictures)[of_one], np.asarray(texts)[of_one])] = True
    first = [np.unique(numbers, return_index=True)[1] for numbers in (pictures, texts)]
    each = logits[np.ix_(*first)]
    found: dict[str, float] = {}
    for name, near, right in (("image_to_text", each, pairs), ("text_to_image", each.T, pairs.T)):
        order = np.argsort(-near, axis=1, kind="stable")
        rank = 1 + np.take_along_axis(right, order, axis=1).argmax(1)
        found |= {name if k == 1 else f"{name}_at_{k}": float((rank <= k).mean()) for k in (1, 5, 10)}
        found[f"{name}_median_rank"] = float(np.median(rank))
    return found


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(type, first word, last word) of every span in B-/I-/E-/S- tags, by the rules of conlleval that seqeval follows:
    an I- after another type, or after O, begins a span of its own."""
    found, start, before_prefix, before_type = set(), 0, "O", ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, span_type = tag.partition("-")
        if not span_type:
            span_type = "_" if prefix != "O" else ""
        open_before = before_prefix != "O"
        ends = open_before and (before_prefix in "ES" or prefix in "BSO" or span_type != before_type)
        if ends:
            found.add((before_type, start, i - 1))
        begins = prefix != "O" and (prefix in "BS" or not open_before or ends)
        if begins:
            start = i
        before_prefix, before_type = prefix, span_type
    return found
