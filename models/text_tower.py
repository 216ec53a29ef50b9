"""A tower of texts, whose vectors are compared with those that another tower makes of pictures (`clip.py`, `siglip.py`).

hidden = what a stack of layers makes of the tokens          `text_stack.py`
vector = hidden[last] W (+ b)                                perhaps without the projection
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..adapters.graft import Grafts
from .inputs import Inputs, Outputs
from .layers import Arrays, Linear
from .network import Unrolled
from .parts import Part, text_site
from .pre_norm import parts_of
from .text_stack import TextStack, TextStackConfig


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig(TextStackConfig):
    projection: int = 0  # numbers in a text's vector, which a projection makes; 0: there is no projection

    @property
    def vector_size(self) -> int:
        return self.projection or self.hidden_size


class TextTower(TextStack):
    """A stack of layers, and the projection of a text's last token."""

    def __init__(self, config: TextTowerConfig, arrays: Arrays):
        super().__init__(config, arrays)
        self.projection = Linear(arrays, "projection") if config.projection else None

    def __call__(
        self,
        inputs: Inputs,
        grafts: Grafts,
        *,
        pooled: bool = False,
        intermediates: bool = False,
        layers: Unrolled | None = None,
    ) -> Outputs:
        out = super().__call__(inputs, grafts, pooled=pooled, intermediates=intermediates, layers=layers)
        x = out.first[:, None]
        vector = x if self.projection is None else grafts.outside().linear("projection", x, self.projection)
        return out._replace(vector=vector[:, 0])


def text_parts(c: TextTowerConfig, layer: Mapping[str, str]) -> tuple[Part, ...]:
    """All but the projection; `layer` maps our names to paths within a layer."""
    d = c.hidden_size
    return (
        Part("input", "input", "embeddings.token_embedding", (d,)),
        Part("embedding", "word_embeddings", "embeddings.token_embedding", (c.vocab_size, d)),
        Part("embedding", "position_embeddings", "embeddings.position_embedding", (c.max_positions, d)),
        *parts_of(c, layer, {}),
        Part("norm", "final_norm", "final_layer_norm", (d,), above="layers"),
        text_site(d, "layers"),
    )
