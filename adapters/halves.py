"""What an adapter of a pair of towers is at one of them: the same methods, with what they hold there, for that tower alone.

A site of the pair is called as in its tower, behind the tower's name: what is held at `image.layers.query` is held at
`layers.query` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .adapter import Adapter, SiteStates
from .method import Method
from .sites import Site


def half_of(adapter: Adapter, tower: str, sites: Sequence[Site]) -> tuple[tuple[Method, ...], SiteStates]:
    """The methods that act within a tower, whose sites alone these are, and what they hold at each."""
    own = {(f"{tower}.{site.name}", site.layer): site for site in sites}
    methods, states = list[Method](), SiteStates()
    for method in adapter.methods:
        held = {
            own[site.name, site.layer]: leaves for site, leaves in adapter.states[method.key].items() if site.tower == tower
        }
        if held:
            if method.targets is not None:  # these may name paths that the tower alone has not
                method = replace(method, targets=tuple(site.path for site in held))
            method, held = method.half(held)
            methods.append(method)
            states[method.key] = held
    return tuple(methods), states
