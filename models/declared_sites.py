"""The sites of a backbone, read off its family's declaration of parts (`parts.py`): every place where a method may act.

A part of a stack is a site in each of its layers; one of two layers of BERT has

    layers.query    linear    [32, 32]    bert.encoder.layer.0.attention.self.query
    layers.query    linear    [32, 32]    bert.encoder.layer.1.attention.self.query

Above all of them lie the sites of heads, one for each kind of features that the backbone gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..adapters.methods.head import MAP, OBJECTS, OF_MAPS, VECTOR
from ..adapters.sites import KINDS, Site
from .family import Family
from .parts import Layers, Part

Frozen = Callable[[Part, int | None], Any]  # the frozen weights at a part's site, of a stack those of one layer


def declared_sites(family: Family, config: Any, frozen: Frozen) -> tuple[Site, ...]:
    """Every site, those of heads included, in the order of the parts."""
    stacks = {layers.name: layers for layers in family.stacks(config)}
    parts = (part for part in family.parts(config) if part.site in KINDS)
    of_parts = [site for part in parts for site in _of_part(part, family, config, stacks, frozen)]
    return (*of_parts, *_of_heads(family, config, top=[*stacks][-1] if stacks else ""))


def _of_part(part: Part, family: Family, config: Any, stacks: dict[str, Layers], frozen: Frozen) -> Iterator[Site]:
    """Those of a part, layer by layer where it is a stack's."""
    around = stacks.get(part.stack or part.above)
    for layer, stored in enumerate(part.paths(family.layer_paths(config))):
        stored = stored if part.task else family.task_path(stored)
        path = family.called(stored)
        yield Site(
            name=part.name,
            kind=part.site,
            path=path,
            also=() if path == stored else (stored,),
            shape=part.shape,
            role=part.role or part.name,
            stack=part.stack,
            layer=layer if part.stack else None,
            above=part.above,
            tower=part.tower,
            shared=bool(part.stack and stacks[part.stack].shared),
            biased=part.bias,
            axes=part.kernel_axes,
            within=family.called(part.path) if part.path or part.stack else part.name,
            hidden=around.hidden if around else config.stream(part.tower),
            geometry=part.geometry,
            statistics=part.kind == "batch_norm",
            tied=part.kind == "linear" and bool(part.tied),
            module=part.module,
            weights=partial(frozen, part, layer if part.stack else None),
        )


def _of_heads(family: Family, config: Any, top: str) -> Iterator[Site]:
    """Those of heads, which lie above the stack `top`."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(family.head.sites, (config.features,))
    shapes |= {VECTOR: (config.vector_size,)} if config.vector_size else {}
    if config.maps:
        shapes |= dict.fromkeys((MAP, OBJECTS), config.maps[-1:]) | dict.fromkeys(OF_MAPS, config.maps)
    for name, shape in shapes.items():
        yield Site(name, "head", "", shape, name, above=top, within=name)
