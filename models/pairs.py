"""A pair: a backbone made of two, a tower of pictures and one of texts, whose vectors are compared.

    i = the tower of pictures, of a picture         t = the tower of texts, of a text
    logit = scale * (u . w) / (|u| |w|) + bias      u, w: i and t, or their projections (`adapters/methods/joint.py`)

The towers' parts, stacks and sites are the pair's under a tower's name: `layers.query` of the tower of texts is
`text.layers.query`, and a tower's network, which knows nothing of all that, asks by its own names (`Grafts.within`). Paths of
modules are those of transformers' CLIPModel, SiglipModel and VisionTextDualEncoderModel, so LoRA's files for these are read.

Where both are towers of one checkpoint, as CLIP's are, they say vectors of one size, and scale and bias are the checkpoint's.
Any others can be joined too, such as MobileNetV2 and MiniLM; what each says of an item is then what `Predictor.embed` gives for
it, and an adapter must project both (`PairConfig.joined`).

What frozen layers make of an item is kept where a whole tower is frozen below what an adapter joins: features of both, or those
of pictures alone while the tower of texts is trained, as in LiT.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..adapters.graft import Grafts, SiteCalls
from ..adapters.methods.joint import COMPARISON, JOINT, unit
from ..adapters.sites import IMAGE, TEXT
from ..adapters.structure import Cut, Structure
from ..errors import GraftaxError
from ..typed import Name, held
from .backbone import Backbone, expect_backbone
from .backbone_config import Config
from .family import HEADLESS, Family
from .fingerprint import fingerprint_of
from .inputs import Compared, PairInputs, features_of
from .layers import Arrays
from .network import Network, Unrolled
from .pair_rows import PairRows
from .parts import Layers, Part
from .pooling import Pooling
from .stack import Stack
from .tokens import Tokenizer
from .towers import TOWERS, comparison

#: Of each tower: the module that has it in transformers' models, and that of its projection.
MODULES = {IMAGE: ("vision_model", "visual_projection"), TEXT: ("text_model", "text_projection")}


@dataclass(frozen=True)
class Tower:
    """One of the two: all that is known of its backbone but the weights."""

    name: str  # "image" or "text"
    family: Family
    config: Any
    called: str  # its backbone's name
    fingerprint: str  # likewise; empty where an adapter was folded into the weights
    directory: str | None
    hf_config: Mapping[str, Any] | None
    features: int  # numbers in what it says of an item

    @property
    def joint(self) -> str:
        """Name of the site at which it is joined to the other."""
        return self.within(JOINT)

    def stacks(self) -> tuple[Layers, ...]:
        return tuple(
            replace(stack, name=self.within(stack.name), path=partial(self._layer_path, stack))
            for stack in self.family.stacks(self.config)
        )

    def _layer_path(self, stack: Layers, layer: int) -> str:
        return self.path(stack.path(layer))

    def parts(self) -> tuple[Part, ...]:
        return tuple(self._part(part) for part in self.family.parts(self.config))

    def _part(self, part: Part) -> Part:
        return replace(
            part,
            name=self.within(part.name),
            path=part.path if part.stack or part.task else self.path(part.path),
            role=part.role or part.name,
            stack=self.within(part.stack),
            above=self.within(part.above),
            tower=self.name,
            stored=self.path(part.stored) if part.stored else "",
            tied=self.within(part.tied),
        )

    def weights(self) -> set[str]:
        """The names of its weights."""
        paths = self.family.layer_paths(self.config)
        return {weight.name for part in self.family.parts(self.config) for weight in part.weights(paths)}

    def within(self, name: str) -> str:
        """The pair's name of what has one in the tower."""
        return f"{self.name}.{name}" if name else ""

    def path(self, path: str) -> str:
        """Likewise of a module's path."""
        return f"{MODULES[self.name][0]}.{path}" if path else MODULES[self.name][0]


@dataclass(frozen=True)
class PairConfig(Config):
    """Both towers, and how what they say is compared."""

    image: Tower
    text: Tower
    pooling: Pooling  # of a tower of texts that says no vector itself
    comparison: tuple[float, float] | None  # scale and bias of the checkpoint of both; None: they are of two
    hidden_size: int  # numbers in what both say of an item

    @property
    def towers(self) -> tuple[Tower, Tower]:
        return self.image, self.text

    @property
    def scale(self) -> float:
        """By which the product of two unit vectors is multiplied; where nothing says it, as CLIP begins."""
        return 1 / 0.07 if self.comparison is None else self.comparison[0]

    @property
    def bias(self) -> float:
        """And what is added."""
        return 0.0 if self.comparison is None else self.comparison[1]

    @property
    def joined(self) -> bool:
        return self.comparison is not None

    @property
    def attention_heads(self) -> tuple[int, ...]:
        return tuple(heads for tower in self.towers for heads in tower.config.attention_heads)

    def anew(self) -> PairConfig:
        return replace(self, image=replace(self.image, fingerprint=""), text=replace(self.text, fingerprint=""))

    def stream(self, tower: str) -> int:
        found: int = {one.name: one.config.hidden_size for one in self.towers}[tower]
        return found


class Pair(Network):
    """Two networks; `image` and `text` are called as their parts' names begin."""

    keeps_frozen = True

    def __init__(self, config: PairConfig, arrays: Arrays):
        self.config = config
        self.image = _network(config.image, arrays)
        self.text = _network(config.text, arrays)

    @classmethod
    def has_frozen(cls, cut: Cut, structure: Structure) -> bool:
        """Nothing is kept while the tower of pictures, which is run first, is trained."""
        first = next(iter(structure.towers.values()), "")
        return cut.top or (first == IMAGE and structure.towers[cut.stack] == TEXT)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        return (*self.image.stacks, *self.text.stacks)

    def __call__(self, inputs: PairInputs, grafts: Grafts, *, pooled: bool = False, layers: Unrolled | None = None) -> Compared:
        """Vectors of a batch's pictures, texts, or both. `pooled`: of a pair nothing else is asked for."""
        image, text = self._kept(inputs.hidden)
        if inputs.image is not None:
            image = self._of_pictures(inputs.image, grafts, layers)
        if inputs.text is not None:
            text = self._of_texts(inputs.text, grafts, layers)
        calls, items = grafts.outside(), next(len(features) for features in (image, text) if features is not None)
        frozen = jnp.broadcast_to(jnp.array([math.log(self.config.scale), self.config.bias], jnp.float32), (items, 2))
        changed = calls.head(COMPARISON, frozen)
        comparison = frozen if changed is None else changed
        u, w = self._joint(self.config.image, image, calls), self._joint(self.config.text, text, calls)
        return Compared(u, w, jnp.exp(comparison[:, 0]), comparison[:, 1])

    def frozen(self, inputs: PairInputs, cut: Cut, *, pooled: bool) -> jax.Array:
        """Features of both towers, one behind the other, where the cut is above both; else those of pictures."""
        bare = Grafts({})
        image = self._of_pictures(inputs.image, bare, None)
        return jnp.concatenate([image, self._of_texts(inputs.text, bare, None)], axis=-1) if cut.top else image

    def _kept(self, hidden: jax.Array | None) -> tuple[jax.Array | None, jax.Array | None]:
        """Features of pictures and of texts, as far as `frozen` has made them."""
        if hidden is None:
            return None, None
        size = self.config.image.features
        return hidden[:, :size], hidden[:, size:] if hidden.shape[1] > size else None

    def _of_pictures(self, inputs: Any, grafts: Grafts, layers: Unrolled | None) -> jax.Array:
        own = grafts.within(IMAGE)
        return features_of(self.image(inputs, own, pooled=not own.whole, layers=layers))

    def _of_texts(self, inputs: Any, grafts: Grafts, layers: Unrolled | None) -> jax.Array:
        own, says = grafts.within(TEXT), bool(self.config.text.config.vector_size)
        out = self.text(inputs, own, pooled=says and not own.whole, layers=layers)
        return features_of(out) if says else self.config.pooling(out.hidden, inputs.mask)

    def _joint(self, tower: Tower, features: jax.Array | None, calls: SiteCalls) -> jax.Array | None:
        """What is said of items in the space of both, at length 1."""
        if features is None:
            return None
        projected = calls.head(tower.joint, features)
        if projected is None and not self.config.joined:
            raise GraftaxError(
                f"{self.config.image.called} and {self.config.text.called} are of two models: an adapter must join them."
            )
        return unit(features if projected is None else projected)


def _network(tower: Tower, arrays: Arrays) -> Any:
    """A tower's network, of the pair's arrays. Its stacks are called as the pair calls them, as what is held of them is."""
    network = tower.family.module(tower.config, {name: arrays[tower.within(name)] for name in tower.weights()})
    for stack in network.stacks:
        stack.name = tower.within(stack.name)
    return network


def _parts(config: PairConfig) -> tuple[Part, ...]:
    """Those of both towers, and where they are joined, which is above all layers of both."""
    top = [stack.name for stack in _stacks(config)][-1]
    joints = tuple(
        Part("head", tower.joint, MODULES[tower.name][1], (tower.features,), role=JOINT, above=top)
        for tower in (() if config.joined else config.towers)
    )
    return (*config.image.parts(), *config.text.parts(), *joints, Part("head", COMPARISON, "", (2,), above=top))


def _stacks(config: PairConfig) -> tuple[Layers, ...]:
    return (*config.image.stacks(), *config.text.stacks())


@dataclass(frozen=True)
class PairFamily(Family):
    """That of pairs of two families."""

    families: tuple[Family, Family] | None = None  # of pictures, and of texts

    def called(self, path: str) -> str:
        """As each tower's family has it."""
        for tower, family in zip(TOWERS, self.families or (), strict=False):
            before, module, within = path.partition(f"{MODULES[tower][0]}.")
            path = f"{before}{module}{family.called(within)}" if module else path
        return path


PAIR = PairFamily(
    model_types=("pair",),
    summary="two towers, of pictures and of texts, whose vectors are compared",
    keys={},
    parts=_parts,
    head=HEADLESS,
    stacks=_stacks,
    config=PairConfig,
    module=Pair,
    task="contrastive",
    processor=PairRows,
    past_key_values=False,
)


@held
def pair(image: Backbone, text: Backbone, *, name: Name | None = None) -> Backbone:
    """Two frozen backbones as one, to be trained contrastively (task "contrastive") and compared.

    Args:
        image: of pictures: the tower of pictures of a checkpoint of two, or any other backbone of pictures.
        text: of texts: the other tower of that checkpoint, or an encoder.
        name: what it is called; None: as both are.

    Raises:
        GraftaxError: other kinds of backbones; one tower that recomputes what the other keeps (`remat`).
    """
    for backbone, kind in ((image, "image"), (text, "text")):
        expect_backbone(backbone)
        reads = backbone.family.processor.kind
        if reads != kind:
            raise GraftaxError(f"a pair is a backbone of pictures and one of texts, and {backbone.name} reads {reads}s.")
    if text.generates or text.family.encodes:
        raise GraftaxError(f"{text.name} writes texts; the texts of a pair are read by an encoder, or by the tower of a pair.")
    for setting in ("remat", "adapter_dtype", "mesh"):
        ours, theirs = getattr(image, setting), getattr(text, setting)
        if ours != theirs:
            raise GraftaxError(f"{image.name} has {setting} {ours!r}, and {text.name} {theirs!r}: load both alike.")
    together = image.directory == text.directory and image.config.vector_size == text.config.vector_size != 0
    said = comparison(image) if together else None
    texts: Any = text.processor  # a tokenizer
    pooling: Pooling = texts.pooling
    towers = (
        _tower(IMAGE, image, image.config.vector_size or image.config.features),
        _tower(TEXT, text, text.config.vector_size or text.config.hidden_size * len(pooling.names)),
    )
    config = PairConfig(*towers, pooling, said, sum(tower.features for tower in towers))
    told = repr([image.fingerprint, text.fingerprint, said]).encode()
    held = {
        tower.within(key): value for tower, of in zip(towers, (image, text), strict=True) for key, value in of.held().items()
    }
    return Backbone.build(
        replace(PAIR, families=(image.family, text.family)),
        config,
        held,
        remat=image.remat,
        adapter_dtype=image.adapter_dtype,
        by_layer=False,  # what is held so already stays so
        mesh=image.mesh,
        fingerprint=hashlib.sha256(told).hexdigest(),
        name=name or f"{image.name} + {text.name}",
        quantize=image.quantize if image.quantize == text.quantize else None,
    )


def tokenizer_of(both: Backbone) -> Tokenizer:
    """That of a pair's texts."""
    rows = both.processor
    assert isinstance(rows, PairRows)
    return rows.texts


def tower_of(both: Backbone, name: str) -> Backbone:
    """One tower of a pair, "image" or "text", as a backbone by itself, of the same arrays."""
    tower = {one.name: one for one in both.config.towers}[name]
    every = both.held()
    alone = Backbone.build(
        tower.family,
        tower.config,
        {name: every[tower.within(name)] for name in tower.weights()},
        remat=both.remat,
        adapter_dtype=both.adapter_dtype,
        by_layer=False,
        mesh=both.mesh,
        fingerprint=tower.fingerprint,
        name=tower.called,
        directory=tower.directory,
        hf_config=tower.hf_config,
        quantize=both.quantize,
    )
    return alone if alone.fingerprint else replace(alone, fingerprint=fingerprint_of(alone.weights, alone.arrays()))


def _tower(name: str, backbone: Backbone, features: int) -> Tower:
    """What a pair knows of a backbone; a pooler, which answers for a text in another way than its vector does, has no part."""
    config = replace(backbone.config, pooler=False) if backbone.config.pooler else backbone.config
    known = backbone.fingerprint, backbone.directory, backbone.hf_config
    return Tower(name, backbone.family, config, backbone.name, *known, features)
