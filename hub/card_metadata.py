"""What graftax has to say in the front matter of a card: the keys by which the Hugging Face Hub shows and searches an adapter.

https://huggingface.co/docs/hub/model-cards lists the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..adapters.located import HUB_ID
from ..errors import printable
from ..store.manifest import Manifest
from ..store.version import Score
from .sections import words_of

#: ids from before every model had an owner
_OLD_IDS = {
    *(f"bert-{size}-{kind}" for size in ("base", "large") for kind in ("cased", "uncased")),
    *(f"bert-base-multilingual-{kind}" for kind in ("cased", "uncased")),
    *(f"distilbert-base-{kind}" for kind in ("cased", "uncased", "multilingual-cased")),
    *("roberta-base", "roberta-large", "distilroberta-base", "xlm-roberta-base", "xlm-roberta-large"),
    *(f"albert-{size}-v{version}" for size in ("base", "large", "xlarge", "xxlarge") for version in (1, 2)),
    *("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b"),
}
_ROWS = (".csv", ".tsv", ".jsonl", ".parquet", ".npz", ".txt")  # files, which are no ids of the Hub
_VALIDATION = "val_"  # what the names of metrics begin with that training took of its validation rows


def metadata(manifest: Manifest, evaluations: Sequence[Score], name: str, library: str) -> dict[str, Any]:
    """The keys of which there is something to say; arguments as of `card.write_card`."""
    words = words_of(manifest.task)
    base = manifest.backbone if manifest.backbone and _is_hub_id(manifest.backbone) else None
    data = manifest.data.name
    methods = [method for method in manifest.methods if method != "head"]
    tags = ["graftax", *methods, *([f"base_model:adapter:{base}"] if base else []), *manifest.keywords]
    values = {
        "library_name": library,
        "base_model": base,
        "base_model_relation": "adapter" if base else None,
        "pipeline_tag": words.pipeline if words else None,
        "license": manifest.license,
        "datasets": [data] if data and _is_hub_id(data) else None,
        "tags": [*dict.fromkeys(map(printable, tags))],
        "model-index": _model_index(manifest, evaluations, name),
    }
    return {key: value for key, value in values.items() if value}


def _model_index(manifest: Manifest, evaluations: Sequence[Score], name: str) -> list[dict[str, Any]]:
    """Results in the Hub's form: the evaluations with their rows, and the validation metrics of training as such."""
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    words = words_of(manifest.task)
    task = (words.pipeline if words else None) or manifest.task or "other"
    results = [
        EvalResult(
            task_type=task,
            dataset_type=_dataset_type(score.data_name),
            dataset_name=score.data_name or f"sha256:{score.data[:12]}",
            dataset_args={"sha256": score.data, "rows": score.rows},
            metric_type=score.metric,
            metric_value=score.value,
            metric_args=None if score.low is None else {"interval": [score.low, score.high], "confidence": 0.95},
        )
        for score in evaluations
    ]
    results += [
        EvalResult(
            task_type=task,
            dataset_type=_dataset_type(manifest.data.name),
            dataset_name=manifest.data.name or "training data",
            dataset_split="validation",
            metric_type=metric.removeprefix(_VALIDATION),
            metric_value=value,
        )
        for metric, value in manifest.metrics.items()
        if metric.startswith(_VALIDATION) and value is not None
    ]
    return eval_results_to_model_index(bare_name(name), results) if results else []


def bare_name(name: str) -> str:
    """A name without the word for where it is."""
    return name.rpartition("://")[2]


def _dataset_type(name: str | None) -> str:
    """A data set's id on the Hub; of other rows a word, which the form demands."""
    return name if name and _is_hub_id(name) else "rows"


def _is_hub_id(name: str) -> bool:
    """Whether a name can be an id on the Hub: no file of rows, and nothing that is on this machine."""
    can_be = name in _OLD_IDS or (bool(HUB_ID.fullmatch(name)) and not name.lower().endswith(_ROWS))
    return can_be and not Path(name).exists()
