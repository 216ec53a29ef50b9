"""A network of two layers over a row of numbers: h = tanh(W2 tanh(W1 x + b1) + b2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from graftax.adapters.graft import Grafts
from graftax.adapters.methods.head import POOLED
from graftax.models.backbone_config import Config
from graftax.models.config_keys import size
from graftax.models.family import Family, TaskHead
from graftax.models.inputs import Outputs
from graftax.models.layers import Arrays, Linear
from graftax.models.network import Network
from graftax.models.parts import Part

from .toy_processor import TableInputs, Tables


@dataclass(frozen=True)
class TableConfig(Config):
    inputs: int
    hidden_size: int


class TableNetwork(Network):
    def __init__(self, config: TableConfig, arrays: Arrays):
        self.first, self.second = Linear(arrays, "first"), Linear(arrays, "second")

    def __call__(self, inputs: TableInputs, grafts: Grafts, *, pooled: bool = False, layers: Any = None) -> Outputs:
        calls = grafts.outside()
        h = jnp.tanh(calls.linear("first", inputs.numbers, self.first))
        h = jnp.tanh(calls.linear("second", h, self.second))
        return Outputs(h, h, h)


def parts(config: TableConfig) -> tuple[Part, ...]:
    return (
        Part("linear", "first", "first", (config.inputs, config.hidden_size)),
        Part("linear", "second", "second", (config.hidden_size, config.hidden_size)),
    )


FAMILY = Family(
    model_types=("toy_table",),
    summary="two layers over a row of numbers",
    keys={"inputs": size(3, "inputs"), "hidden_size": size(16, "hidden_size")},
    parts=parts,
    head=TaskHead(features="pooled", hidden="none", modules=("output",), sites=(POOLED,)),
    config=TableConfig,
    module=TableNetwork,
    task="toy-amount",
    processor=Tables,
)
