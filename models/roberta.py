"""RoBERTa (Liu et al., 2019, arXiv:1907.11692) and XLM-R: BERT's layers, positions counted from pad_id + 1 over real tokens.

Its classification head reads the first position as it leaves the last layer and has a hidden layer of its own.
"""

from __future__ import annotations

from dataclasses import replace

from . import bert
from .config_keys import size, token, unread_all
from .family import Family, TaskHead

#: What RobertaConfig declares; a padding id it must have, for positions are counted from there.
KEYS = {
    **bert.KEYS,
    "vocab_size": size(50265, "vocab_size"),
    "pad_token_id": token(1, "pad_id"),
    **unread_all(bos_token_id=0, eos_token_id=2),
}

ROBERTA = Family(
    model_types=("roberta",),
    summary="RoBERTa: positions counted from the padding id",
    task_model="Roberta",
    prefix="roberta",
    keys=KEYS,
    older=bert.OLDER,
    defaults={"positions_from_pad": True},
    stacks=bert.stacks,
    parts=bert.parts,
    head=TaskHead(features="first", hidden="tanh", modules=("classifier.dense", "classifier.out_proj")),
)

FAMILIES = (
    ROBERTA,
    replace(
        ROBERTA,
        model_types=("xlm-roberta",),
        summary="XLM-R: RoBERTa in many languages",
        task_model="XLMRoberta",
        keys={**KEYS, "vocab_size": size(30522, "vocab_size")},
    ),
)
