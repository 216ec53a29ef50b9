"""What the configs of all families say, and what those of families that read text say besides.

A family's own config is a frozen dataclass that begins from one of these: what its network's forward pass needs to know, filled
from a Hugging Face config (`Family.configure`).
"""

from __future__ import annotations

from typing import Self

from ..errors import GraftaxError

MOST_MAPS = 4  # feature maps that are given of a picture


class Config:
    """What is asked of every family's config."""

    hidden_size: int  # channels of what leaves the network
    tied = False  # whether a table of words is used a second time, as the projection to the vocabulary or by another tower
    pooler = False  # whether a pretrained layer stands between the network and a head

    @property
    def features(self) -> int:
        """Numbers in what heads read of an item."""
        return self.hidden_size

    @property
    def vector_size(self) -> int:
        """Numbers in what a tower says of an item, to be compared with what another says; 0 where it is no tower."""
        return 0

    @property
    def maps(self) -> tuple[int, ...]:
        """Channels of the feature maps that it can give of a picture, the last ones on its way; empty where there are none."""
        return ()

    @property
    def joined(self) -> bool:
        """Whether what it says of an item can be compared without an adapter; only of a pair of towers it may not be so."""
        return True

    def anew(self) -> Self:
        """The same for other weights."""
        return self

    @property
    def attention_heads(self) -> tuple[int, ...]:
        """How many attention heads layers have, of each kind of layers; empty where there are none."""
        return ()

    def stream(self, tower: str) -> int:
        """Channels of what enters the layers of a tower; "" where there is but one."""
        return self.hidden_size

    @property
    def projecting_table(self) -> str:
        """The part whose table of words projects to the vocabulary; empty where the projection has weights of its own."""
        return ""

    def check(self) -> None:
        """Raises GraftaxError for sizes that cannot be, each of which alone could."""


class TextConfig(Config):
    """What is asked of the config of a family that reads text."""

    vocab_size: int
    max_positions: int  # that the backbone can tell apart
    pad_id: int
    type_vocab_size = 0  # 0: no token types
    start_id = 0  # what the decoder of an encoder-decoder reads before the first token of the target
    eos_ids: tuple[int, ...] = ()  # which end a text that is written

    @property
    def max_tokens(self) -> int:
        """Of a text."""
        return self.max_positions

    def check(self) -> None:
        if self.max_tokens < 1:
            raise GraftaxError(f"config.json: {self.max_positions} positions leave none for a token.")
        for name, token in (("pad_token_id", self.pad_id), ("decoder_start_token_id", self.start_id)):
            if token >= self.vocab_size:
                raise GraftaxError(f"config.json: {name} is {token}, in a vocabulary of {self.vocab_size}.")


def refuse_uneven_attention_heads(hidden_size: int, heads: int, head_dim: int = 0) -> None:
    """An error where the channels do not divide among the attention heads, and no size of one is given."""
    if hidden_size % heads and not head_dim:
        raise GraftaxError(f"config.json: hidden size {hidden_size} is not a multiple of {heads} heads.")
