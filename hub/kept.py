"""What a program writes where people write too: its own is renewed, theirs is kept.

What the program wrote last is remembered by a digest of each item. An item that still is what was written is the program's, and
is renewed or taken away. One that is something else was changed by somebody, one that is not remembered was put there by
somebody, and one that is remembered and gone was taken away by somebody: these stay so.

    remembered   there      the program would write
    a: #1        a: #1      a: 2                      a becomes 2
    b: #1        b: 5       b: 2                      b stays 5
    c: #1                   c: 2                      c stays away
                 d: 5       d: 2                      d stays 5
    e: #1        e: #1                                e goes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)
_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def renewed(there: Mapping[K, Any], own: Mapping[K, Any], wrote: Mapping[K, str]) -> tuple[dict[K, Any], dict[K, str]]:
    """What stands there from now on, in the order in which it stood, and what is to be remembered of it."""
    stands: dict[K, Any] = {}
    remembered = {name: digest for name, digest in wrote.items() if name not in there}
    for name, value in there.items():
        if not is_own(name, value, wrote):
            stands[name] = value
            remembered |= {name: wrote[name]} if name in wrote else {}
        elif name in own:
            stands[name] = own[name]
            remembered[name] = digest_of(own[name])
    for name, value in own.items():
        if name not in there and name not in wrote:
            stands[name] = value
            remembered[name] = digest_of(value)
    return stands, remembered


def is_own(name: K, value: Any, wrote: Mapping[K, str]) -> bool:
    """Whether something is what the program wrote."""
    return wrote.get(name) == digest_of(value)


def digest_of(value: Any) -> str:
    """Enough of a digest to see that something was changed; of letters alone, for YAML takes 12e45678 for a number."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8].translate(_LETTERS)
