"""Ready unions: several methods in one adapter, as `train_many(method=...)` takes them.

Any tuple of different methods is a union: each acts at its own sites, and where two act at one site, the first in the order of
their keys (`Method.key`) acts first.
"""

from __future__ import annotations

from collections.abc import Callable

from ..method import Method
from .bottleneck import Bottleneck
from .gated import GatedBottleneck, GatedLoRA, GatedPrefix
from .invertible import Invertible
from .prefix import Prefix


def mam(tokens: int = 30, width: int = 192) -> tuple[Method, ...]:
    """MAM adapter: prefix tuning in the attention, a scaled parallel bottleneck beside the feed-forward.

    He et al., 2022, arXiv:2110.04366. `width` is half the hidden size there: 192 for MiniLM's 384.
    """
    return (Prefix(tokens=tokens), Bottleneck(width=width, place="parallel"))


def mad_x(width: int = 48, reduction: int = 2) -> tuple[Method, ...]:
    """MAD-X: an invertible adapter on the embeddings, a Pfeiffer bottleneck in every layer.

    Pfeiffer et al., 2020, arXiv:2005.00052. `width` is a sixteenth of the hidden size in AdapterHub's `adapters`.
    """
    return (Invertible(reduction=reduction), Bottleneck(width=width, place="pfeiffer"))


def unipelt(tokens: int = 10, width: int = 48, r: int = 8) -> tuple[Method, ...]:
    """UniPELT: prefix tuning, a Pfeiffer bottleneck and LoRA, each behind a gate of its own at every site.

    Mao et al., 2021, arXiv:2110.07577, as AdapterHub's `adapters` has it, where `width` is a sixteenth of the hidden size.
    """
    bottleneck = GatedBottleneck(width=width, place="pfeiffer", normed=True)
    return (GatedPrefix(tokens=tokens, shifted=False), bottleneck, GatedLoRA(r=r, alpha=r))


UNIONS: dict[str, Callable[[], tuple[Method, ...]]] = {"mam": mam, "mad_x": mad_x, "unipelt": unipelt}
