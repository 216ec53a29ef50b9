"""How a backbone's sites lie to one another: in stacks of layers, one behind another, and below, between or above them.

A tree of an adapter's state has the names of sites for keys, and a name alone says nothing of where the site is. So whoever
reads such a tree is given the backbone's `Structure` beside it (`Backbone.structure`).

Stacks may be of unlike widths, and each has a number of layers of its own. Their order is that in which they are run: what is
changed in one is felt in all that follow. An encoder-decoder's stacks lie in two towers, where "below" and "above" mean within
the tower.

An example: a backbone of two stacks, "narrow" of three layers and "wide" of two, with a site "between" that lies above the
first, and a head above both. Of an adapter on the last layer of each, what the first two layers of "narrow" make is the same as
without it, so that is its cut, and nothing before it is differentiated:

    structure.cut({"narrow": 1, "wide": 1}, ["narrow.mix", "wide.mix"])    Cut("narrow", 2, top=False)
    structure.cut({"narrow": 0, "wide": 0}, ["between"])                   Cut("narrow", 3, top=False)
    structure.cut({"narrow": 0, "wide": 0}, ["head"])                      Cut("wide", 2, top=True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .sites import Site


class Cut(NamedTuple):
    """Where what an adapter can change begins: what enters this layer is the same with the adapter and without it."""

    stack: str
    layer: int  # its index; the number of the stack's layers where the adapter changes only what lies above them
    top: bool  # whether it changes only what lies above the last stack, and within no tower


@dataclass(frozen=True)
class Structure:
    """The names of a backbone's sites, and its stacks."""

    named: Mapping[str, Site]  # by name; sites of a stack's layers share one, which has that of the first layer
    stacks: Mapping[str, int]  # how many layers with weights of their own each stack has, in the order in which they are run
    towers: Mapping[str, str]  # the tower that each stack lies in; "" where there are none

    @classmethod
    def of(cls, sites: Sequence[Site]) -> Structure:
        """The structure of a backbone whose sites these are, all of them, those of lower stacks first."""
        named: dict[str, Site] = {}
        stacks: dict[str, int] = {}
        towers: dict[str, str] = {}
        for site in sites:
            named.setdefault(site.name, site)
            if site.layer is not None:
                stacks[site.stack] = max(stacks.get(site.stack, 0), site.layer + 1)
                towers[site.stack] = site.tower
        return cls(named, stacks, towers)

    def stacked(self, name: str) -> bool:
        """Whether the leaves at sites of that name have a leading axis of layers."""
        return bool(self.named[name].stack)

    def layers_behind(self, stack: str) -> int:
        """How many layers the stacks that follow this one have, in its tower."""
        order = [*self.stacks]
        later = order[order.index(stack) + 1 :]
        return sum(self.stacks[other] for other in later if self.towers[other] == self.towers[stack])

    def layers_over(self, site: Site) -> float:
        """How many layers lie above a site, in its tower; infinitely many above what lies below all stacks."""
        if site.layer is not None:
            return self.stacks[site.stack] - 1 - site.layer + self.layers_behind(site.stack)
        return self.layers_behind(site.above) if site.above else math.inf

    @property
    def layers(self) -> int:
        """Layers one behind another: those of all stacks, of an encoder-decoder those of its larger tower."""
        every = {*self.towers.values()}
        return max((sum(n for stack, n in self.stacks.items() if self.towers[stack] == tower) for tower in every), default=0)

    def cut(self, depths: Mapping[str, int], names: Sequence[str]) -> Cut:
        """The cut of an adapter that acts at sites of these names.

        `depths`: in how many of the last layers of each stack it acts there, where such sites are in a stack.
        """
        order = [*self.stacks]
        if not order:
            return Cut("", 0, top=False)
        begins = [(len(order) - 1, self.stacks[order[-1]])]  # by number of the stack and layer; of no sites: above all
        for name in names:
            site = self.named[name]
            if site.stack:
                begins.append((order.index(site.stack), self.stacks[site.stack] - depths[site.stack]))
            else:
                begins.append((order.index(site.above), self.stacks[site.above]) if site.above else (self._lowest(site), 0))
        stack, layer = min(begins)
        within = any(self.named[name].tower for name in names)
        return Cut(order[stack], layer, top=(stack, layer) == begins[0] and not within)

    def _lowest(self, site: Site) -> int:
        """The number of the first stack above a site that lies below all stacks, or below those of its tower."""
        towers = [*self.towers.values()]
        return towers.index(site.tower) if site.tower in towers else 0


#: Of no sites at all: for a forward pass without adapters.
NO_SITES = Structure({}, {}, {})
