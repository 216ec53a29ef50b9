"""The processor of rows of numbers, in the columns a, b and c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graftax.data.batches import Shape
from graftax.data.columns import Field
from graftax.data.values import number_of
from graftax.models.backbone import Backbone
from graftax.models.processor import Processor


class TableInputs(NamedTuple):
    numbers: Any  # float32 [rows, columns]


class Numbers:
    """An item: the numbers of a row."""

    cut, target_length = False, 0

    def __init__(self, numbers: Sequence[Any]):
        self.numbers = np.array(numbers, np.float32)

    def __len__(self) -> int:
        return 1

    def tobytes(self) -> bytes:
        return self.numbers.tobytes()


class Tables(Processor):
    kind = "table"
    fields = tuple(Field(name, number_of) for name in ("a", "b", "c"))

    @classmethod
    def of(cls, backbone: Backbone) -> Tables:
        return cls()

    def items(self, fields: Mapping[str, Sequence[Any]], max_length: int) -> list[Numbers]:
        columns = (map(number_of, fields[field.name]) for field in self.fields)
        return [Numbers(row) for row in zip(*columns, strict=True)]

    def lay(self, items: Sequence[Numbers], places: Sequence[tuple[int, int]], shape: Shape) -> TableInputs:
        numbers = np.zeros((shape.rows, len(self.fields)), np.float32)
        for item, (batch_row, _) in zip(items, places, strict=True):
            numbers[batch_row] = item.numbers
        return TableInputs(numbers)
