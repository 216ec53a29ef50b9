"""What an adapter says about rows, and how good it is: the main metric, calibration, the worst slice, what it forgot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ..adapters.adapter import Adapter
from ..data.prepared import Prepared
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..serve.evaluation import outputs_of, pooled_of
from ..serve.generator import Generator
from ..serve.sampling import Sampling
from ..tasks.generative import holds_chats
from ..tasks.reliability import reliability_of
from ..tasks.task_registry import task_named
from ..tasks.text_metrics import edit_distance, final_number, word_matches
from .baselines import nearest_means
from .results import Predictions
from .scores import metric_named
from .suite import TaskSpec

_SLICE = 10  # examples of the smallest slice that is looked at


@dataclass(frozen=True)
class Measured:
    """The fields of a `Record` that rows give."""

    predictions: Predictions
    fields: dict[str, Any]


def measure(backbone: Backbone, adapter: Adapter, prepared: Prepared, spec: TaskSpec) -> Measured:
    """An adapter's answers to rows of its own task."""
    found = outputs_of(backbone, adapter, prepared)
    outputs = [found[i] for i in range(len(prepared.items))]
    if task_named(spec.kind).output.headed:
        return judged(
            np.stack(outputs), np.array(prepared.labels, np.int32), prepared.lengths, spec.main_metric, adapter.labels
        )
    likelihood = np.stack([of.astype(np.float64).sum(0) for of in outputs])  # [texts, 3]: see `NextToken.compute`
    predictions = Predictions(-likelihood[:, 0], likelihood[:, 2])
    metrics = {"perplexity": float(metric_named("perplexity")(predictions)[0])}
    metrics |= {"nll": math.log(metrics["perplexity"]), "token_accuracy": likelihood[:, 1].sum() / likelihood[:, 2].sum()}
    if spec.main_metric != "perplexity":
        predictions = _written(backbone, adapter, prepared, spec)
        metrics[spec.main_metric] = float(metric_named(spec.main_metric)(predictions)[0])
    return Measured(predictions, {"metric": spec.main_metric, "value": metrics[spec.main_metric], "metrics": metrics})


def _written(backbone: Backbone, adapter: Adapter, prepared: Prepared, spec: TaskSpec) -> Predictions:
    """Of what is generated behind the prompts."""
    examples = prepared.examples
    if holds_chats(examples):
        raise GraftaxError(f"{examples.source}: {spec.main_metric} needs prompts and completions, and there are chats.")
    right: dict[str, list[str]] = {}  # a prompt's right answers: it may stand in several rows, and is answered once
    asked = [*zip(examples.fields["prompt"], examples.fields["completion"], strict=True)]
    for prompt, wanted in asked:
        right.setdefault(prompt, []).append(wanted)
    generator = backbone.programs.setdefault(Generator, Generator(backbone))
    generator.load("measured", adapter)
    sampling = Sampling(max_new_tokens=spec.max_new_tokens, num_beams=spec.num_beams)
    said = [one.text for one in generator.generate([*right], "measured", sampling)]
    if spec.main_metric == "bleu":  # an example is a prompt with all that is right
        return Predictions(*word_matches(said, [*right.values()]))
    score, answers = _SCORES[spec.main_metric], dict(zip(right, said, strict=True))
    scored = [score(answers[prompt], wanted) for prompt, wanted in asked]
    top, bottom = np.array(scored, np.float64).T
    return Predictions(top, bottom)


#: One example's part of a metric of generated text: what is summed above, and below, the line. BLEU has parts of its own.
_SCORES: dict[str, Callable[[str, str], tuple[float, float]]] = {
    "cer": lambda said, wanted: (edit_distance(said, wanted), len(wanted)),
    "exact_match": lambda said, wanted: (said.strip() == wanted.strip(), 1),
    "final_number": lambda said, wanted: (final_number(said) is not None and final_number(said) == final_number(wanted), 1),
}


def judged(
    logits: np.ndarray, gold: np.ndarray, lengths: Sequence[int], metric: str, names: Sequence[str], chances: bool = True
) -> Measured:
    """Of logits `[n, classes]` and the right classes `[n]`; `lengths` in tokens and `names` of the classes, for the slices.

    `chances`: the logits are of a likelihood, which is measured, too; else larger is only nearer.
    """
    said = logits.argmax(-1).astype(np.int32)
    right = (said == gold).astype(np.float64)
    predictions = Predictions(right, np.ones_like(right), gold, said)
    metrics = {name: float(metric_named(name)(predictions)[0]) for name in ("accuracy", "macro_f1", "matthews")}
    name, worst = worst_slice(right, gold, np.asarray(lengths), names)
    fields: dict[str, Any] = {"metric": metric, "value": metrics[metric], "worst_slice": worst, "worst_slice_name": name}
    if chances:
        logs = np.asarray(jax.nn.log_softmax(logits.astype(np.float64)), np.float64)
        shares, confidence = np.exp(logs), np.exp(logs.max(-1))
        predictions = replace(predictions, confidence=confidence.astype(np.float32))
        metrics["nll"] = float(-logs[np.arange(len(gold)), gold].mean())
        fields["ece"] = reliability_of(confidence, right).error
        fields["brier"] = float(((shares - np.eye(shares.shape[1])[gold]) ** 2).sum(-1).mean())
    return Measured(predictions, fields | {"metrics": metrics})


def worst_slice(
    right: np.ndarray, gold: np.ndarray, lengths: np.ndarray, names: Sequence[str]
) -> tuple[str | None, float | None]:
    """The slice, a label or a third of the texts by length, with the smallest share right; None where all are too small.

    Where all are of one length, as pictures are, labels are the only slices.
    """
    slices = {f"label {names[label]}": gold == label for label in np.unique(gold).tolist()}
    low, high = np.quantile(lengths, [1 / 3, 2 / 3])
    if lengths.min() < lengths.max():
        slices |= {
            "short texts": lengths <= low,
            "middling texts": (lengths > low) & (lengths <= high),
            "long texts": lengths > high,
        }
    shares = {name: float(right[of].mean()) for name, of in slices.items() if of.sum() >= _SLICE}
    worst = min(shares, key=lambda name: shares[name], default=None)
    return worst, None if worst is None else shares[worst]


def general_score(backbone: Backbone, adapter: Adapter | None, train: Prepared, test: Prepared) -> float:
    """How well the pooled features still tell the classes of a task that the adapter was not trained on.

    Accuracy of the nearest class mean (by cosine), of means over `train`.
    """
    known, asked = (pooled_of(backbone, adapter, prepared) for prepared in (train, test))
    found = nearest_means(known, np.array(train.labels), asked).argmax(-1)
    return float((found == np.array(test.labels)).mean())
