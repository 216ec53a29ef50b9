"""What the epochs of a job came to, as the table that OpenAI's API has of it: a CSV file, with a line for each.

    step,train_loss,valid_loss,full_valid_loss,valid_mean_token_accuracy,full_valid_mean_token_accuracy
    4,1.93,2.11,2.11,0.41,0.41

What was not measured is empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

#: graftax's name of a number -> OpenAI's names; those of what is validated at the end of an epoch, on all rows
NAMES = {
    "loss": ("train_loss",),
    "val_loss": ("valid_loss", "full_valid_loss"),
    "val_token_accuracy": ("valid_mean_token_accuracy", "full_valid_mean_token_accuracy"),
}


def named(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers under OpenAI's names, where it has some for them."""
    return {other: numbers[name] for name, names in NAMES.items() if name in numbers for other in names}


def step_metrics(history: Sequence[Mapping[str, Any]]) -> bytes:
    """The content of the file. `history`: by epoch `step` and numbers."""
    columns = ["step", *(other for names in NAMES.values() for other in names)]
    text = io.StringIO()
    written = csv.DictWriter(text, columns, lineterminator="\n")
    written.writeheader()
    written.writerows({"step": line["step"], **named(line)} for line in history)
    return text.getvalue().encode()
