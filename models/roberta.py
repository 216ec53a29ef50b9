"""RoBERTa (Liu et al., 2019, arXiv:1907.11692) and XLM-R: BERT's layers, positions counted from pad_id + 1 over real tokens.

Its classification head reads the first position as it leaves the last layer and has a hidden layer of its own.
"""

from __future__ import annotations

from . import bert
from .family import Family, HeadLayout

FAMILY = Family(
    model_types=("roberta", "xlm-roberta"),
    summary="RoBERTa and XLM-R: positions counted from the padding id",
    task_model="Roberta",
    prefix="roberta",
    fields=bert.FIELDS,
    defaults={"type_vocab_size": 2, "positions_from_pad": True},
    layer_path=bert.layer_path,
    parts=bert.parts,
    head=HeadLayout(features="first", hidden="tanh", modules=("classifier.dense", "classifier.out_proj")),
)
