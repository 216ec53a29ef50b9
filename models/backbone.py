"""A frozen backbone: parameters, sites, and one pure forward.

    logits = backbone.forward(backbone.params, state, inputs)          state: an adapter's tree, see adapters/graft.py

A `Backbone` never changes and holds no adapter. Its functions are meant to be traced: parameters and state are arguments of
them, so that another adapter is another argument, and a compiled program holds neither.

What it knows follows from its family's declaration of parts (`family.py`, `parts.py`): the weights and their names in
checkpoints, and the sites at which methods act. What it computes is its module's affair (`network.py`), of which it keeps the
definition and the parameters apart (`graphdef`, `params`); `nnx.merge` puts them together within each function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh, NamedSharding

from ..adapters.adapter import Adapter
from ..adapters.graft import Grafts, Mix, State
from ..adapters.methods.detection_head import DetectionHead
from ..adapters.methods.head import (
    FIRST,
    MAP,
    MAPS,
    OBJECTS,
    OBJECTS_OF_MAPS,
    OF_MAPS,
    OF_POSITIONS,
    POOLED,
    TOKENS,
    VECTOR,
    Head,
    of_either,
)
from ..adapters.methods.joint import unit
from ..adapters.sites import LM_HEAD, WEIGHTS, Site, weights_of
from ..adapters.structure import Cut, Structure
from ..errors import GraftaxError
from ..notes import note
from ..shapes import AnyArray, Bool, Float, Int, shaped
from ..shown import Shown
from ..typed import shown
from .by_layer import ByLayer, apart, held_by_layer, put_by_layer, share_memory, stacked
from .declared_sites import declared_sites
from .family import Family
from .fingerprint import fingerprint_of
from .inputs import Compared, Inputs
from .network import Unrolled
from .parts import LEAVES, Part, Weight
from .processor import Processor
from .quantised import dense
from .sharded import whole_outside_layers
from .tensor_parallel import everywhere, refuse_uncut, shared, traced_over_devices
from .unread import Unread, any_unread

_UNROLLED = 12  # layers of a stack at most
Slots = Int[AnyArray, " rows"] | Mix | None  # which slot of a bank each batch row uses; None: the state is one adapter's


class Logits(NamedTuple):
    """What the heads in a state say; None where none of its adapters has such a head."""

    #: of each item: by a head that reads what the task model pools, or the first position; of a pair `Compared.together`
    pooled: Float[Array, "texts ..."] | None
    #: of each position
    tokens: Float[Array, "rows tokens classes"] | None
    #: of each position of a picture's last feature map, and of the largest of several
    map: Float[Array, "rows high wide classes"] | None = None
    maps: Float[Array, "rows higher wider classes"] | None = None
    #: of each question for objects, to the last feature map and to several
    objects: Float[Array, "rows queries said"] | None = None
    objects_of_maps: Float[Array, "rows more_queries more_said"] | None = None

    def of(self, site: str) -> jax.Array | None:
        """Those of a head at this site."""
        by_site = {TOKENS: self.tokens, MAP: self.map, MAPS: self.maps}
        by_site |= {OBJECTS: self.objects, OBJECTS_OF_MAPS: self.objects_of_maps}
        return by_site.get(site, self.pooled)


@dataclass(frozen=True, eq=False, repr=False)
class Backbone(Shown):
    """A loaded, frozen backbone. Make one with `load_backbone`."""

    family: Family  # its architecture
    config: Any  # an instance of `family.config`
    graphdef: nnx.GraphDef  # its module without the parameters
    params: Any  # nnx.State of the frozen parameters: an argument of every compiled function, never changed; or `Unread`
    fingerprint: str  # sha256 of every weight as float32, whatever dtype it was stored or loaded in
    name: str  # where it was loaded from, as the user said it
    directory: str | None = None  # on disk, or the GGUF file, for the tokenizer; None for a random one
    hf_config: Mapping[str, Any] | None = None  # config.json as it was read, or as a GGUF file's metadata stand for it
    quantize: str | None = None  # what the layers' kernels are held as (`quantised.py`); None: floats
    own_head: Adapter | None = None  # the head that its checkpoint brings, as an adapter of a head alone (`own_head.py`)
    remat: str = "none"  # what training computes again (`stack.py`)
    adapter_dtype: str | None = None  # of adapters' products; None: the weights', on a CPU float32 (`adapters/products.py`)
    mesh: Mesh | None = None  # the devices that share its weights (`tensor_parallel.py`); None: there is but one
    programs: dict[Any, Any] = field(default_factory=dict, init=False)  # jitted functions over it; a changed copy has none

    @classmethod
    def build(
        cls,
        family: Family,
        config: Any,
        arrays: Mapping[str, Any],
        *,
        remat: str = "none",
        by_layer: bool | None = None,
        mesh: Mesh | None = None,
        **known: Any,
    ) -> Backbone:
        """A backbone of these arrays, by weight name (`layers.query.kernel`), those of a stack with a leading axis of layers.

        Args:
            arrays: or what stands for weights that are still in their files (`unread.py`).
            remat: what training computes again (`stack.py`).
            by_layer: whether the weights of stacks are held by layer (`by_layer.py`); None: as it is best on this device.
            mesh: devices that share the weights (`tensor_parallel.py`), which are by layer then.

        Raises GraftaxError where devices cannot share these weights.
        """
        if mesh is not None:
            cut = shared(mesh, family.parts(config), arrays)
            refuse_uncut(mesh, config.attention_heads, cut, known["name"])
            return cls.around(family, config, cut, remat=remat, mesh=mesh, **known)
        if any_unread(arrays):  # there is nothing to put anywhere
            return cls.around(family, config, arrays, remat=remat, **known)
        layer_paths, split = family.layer_paths(config), not share_memory() if by_layer is None else by_layer
        parts = [part for part in family.parts(config) if part.stack and split]
        apart_there = {weight.name for part in parts for weight in part.weights(layer_paths)}
        put = {
            # not `jnp.asarray`, which compiles a program per shape; on a CPU nothing is copied
            name: put_by_layer(array) if name in apart_there else jax.device_put(array, may_alias=True)
            for name, array in arrays.items()
        }
        return cls.around(family, config, put, remat=remat, **known)

    @classmethod
    def around(cls, family: Family, config: Any, held: Mapping[str, Any], *, remat: str = "none", **known: Any) -> Backbone:
        """A backbone of arrays that are where they are to be, or of shapes in their place, with which programs are compiled."""
        module = family.module(config, held)
        for stack in module.stacks:
            stack.remat = remat
        graphdef, params = nnx.split(module)
        return cls(family, config, graphdef, params, remat=remat, **known)

    def with_weights(self, arrays: Mapping[str, np.ndarray], name: str) -> Backbone:
        """The same backbone with other weights, without the head that its checkpoint brings.

        `arrays` are float32, under the names that `Backbone.arrays` gives. Raises GraftaxError where they are not finite.
        """
        known: dict[str, Any] = {"name": name, "directory": self.directory, "hf_config": self.hf_config}
        known |= {"adapter_dtype": self.adapter_dtype, "mesh": self.mesh}
        fingerprint = fingerprint_of(self.weights, arrays)
        return Backbone.build(self.family, self.config.anew(), arrays, remat=self.remat, fingerprint=fingerprint, **known)

    @property
    def everywhere(self) -> NamedSharding | None:
        """Where an array is that each of the devices has which share the weights; None: where all arrays are."""
        return None if self.mesh is None else everywhere(self.mesh)

    @property
    def generates(self) -> bool:
        """Whether it is a language model."""
        return self.family.generates and self.config.speaks

    def facts(self) -> dict[str, Any]:
        held = str(self.dtype) if self.quantize is None else f"{self.quantize} and {self.dtype}"
        size = {"layers": self._layers, "hidden": self.config.hidden_size, "parameters": self.parameters}
        return {"name": self.name, "family": self.family.model_types[0], **size, "weights": held}

    @property
    def parameters(self) -> int:
        """Number of frozen weights."""
        return sum(math.prod(weight.shape) for weight in self.weights)

    @property
    def dtype(self) -> np.dtype:
        """Of the parameters that are held as floats."""
        return next(leaf.dtype for leaf in jax.tree.leaves(self.params) if jnp.issubdtype(leaf.dtype, jnp.floating))

    @property
    def _layers(self) -> int:
        """How many layers it runs: those of all stacks, counted as often as they are applied."""
        return sum(layers.shared or layers.count for layers in self.family.stacks(self.config))

    @cached_property
    def processor(self) -> Processor:
        """What stands between rows and this backbone (`processor.py`); for one thread at a time."""
        return self.new_processor()

    def new_processor(self) -> Processor:
        """Another processor, for whoever may be called from several threads."""
        return self.family.processor.of(self)

    @cached_property
    def layers(self) -> Unrolled:
        """By stack, the parameters of each layer by itself: the same memory as in `params` (`by_layer.py`)."""
        return {stack.name: apart(nnx.state(stack.layers)) for stack in nnx.merge(self.graphdef, self.params).stacks}

    @property
    def unrolled(self) -> Unrolled | None:
        """`layers` where training compiles them one after another, None where it runs them in a loop.

        Unrolled, a step of a stack of 12 layers took 0.96 of the loop's time and twice its time to compile, which grows with
        the layers. Stacks of few layers have little to compile and much to win: a loop writes down what the way back needs, and
        that are whole feature maps. A step of MobileNetV2, whose stacks have four layers at most, took 0.64 of the loop's time.
        """
        longest = max((layers.shared or layers.count for layers in self.family.stacks(self.config)), default=0)
        few = longest <= _UNROLLED or held_by_layer(self.params)  # held so, there is no loop
        return self.layers if self.remat == "none" and few else None

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        paths = self.family.layer_paths(self.config)
        return tuple(weight for part in self.family.parts(self.config) for weight in part.weights(paths))

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every site at which a method may act, those of heads included, in the order of the parts."""
        return declared_sites(self.family, self.config, self._frozen)

    @cached_property
    def structure(self) -> Structure:
        """How its sites lie to one another, in stacks and around them."""
        return Structure.of(self.sites)

    def _frozen(self, part: Part, layer: int | None) -> Any:
        """The frozen weights at a part's site, float32 on the host, in a layer of its stack; None where it has none."""
        if part.site not in WEIGHTS:
            return None
        name = part.tied or part.name
        if part.site == "linear" and f"{name}.table" in self._host:  # the words' table, which projects to the vocabulary
            return weights_of(part.site, {"kernel": self.float32(f"{name}.table", None).T})
        leaves = [leaf.name for leaf in LEAVES[part.kind] if f"{name}.{leaf.name}" in self._host]
        there = {leaf: self.float32(f"{name}.{leaf}", layer) for leaf in leaves}
        return weights_of(part.site, there, part.geometry)

    def float32(self, name: str, layer: int | None) -> np.ndarray:
        """A weight on the host, of a stack that of one layer; read from its file each time, where it is still there."""
        found = self._host[name]
        if layer is not None:
            found = found.each[layer] if isinstance(found, ByLayer) else found[layer]
        if isinstance(found, Unread):
            found = found.read() if found.quantise is None else dense(found.read())
        return np.asarray(found, np.float32)

    @cached_property
    def _host(self) -> dict[str, Any]:
        """Every parameter by weight name, on the host or in its file."""
        if not self.unread:
            return self.arrays()
        note(f"{self.name}: what asks for frozen weights reads them from their files, one by one, as often as it asks.")
        return self.held()

    @property
    def unread(self) -> bool:
        """Whether its weights are still in their files (`unread.py`)."""
        return any_unread(self.params)

    def expect_in_memory(self) -> None:
        """Raises GraftaxError where weights are still in their files, and are wanted elsewhere."""
        if self.unread:
            raise GraftaxError(f"{self.name} was loaded with unread=True, to be trained with fsdp=True: load it without.")

    def sites_for(self, head: Head | None = None) -> tuple[Site, ...]:
        """The sites that there are beside a head, as in Hugging Face's task model: all of them where there is no head.

        Beside a head there is no projection to the vocabulary, and a pooler only where the head reads it.
        """
        if head is None:
            return self.sites
        reads_pooler = head.site == POOLED and self.family.head.features == "pooled"
        absent = (LM_HEAD,) if reads_pooler else (LM_HEAD, "pooler")
        return tuple(site for site in self.sites if site.name not in absent)

    def head(self, labels: int, tokens: bool = False, dropout: float = 0.0) -> Head:
        """The head that Hugging Face's task model of this family has, for pooled features or for every token.

        Raises GraftaxError for a family on which adapters have none.
        """
        wanted = TOKENS if tokens else POOLED
        if wanted not in self.family.head.sites:
            raise GraftaxError(f"adapters have no head on a backbone of type {self.family.model_types[0]}.")
        if tokens:
            return Head(site=TOKENS, labels=labels, modules=(self.family.head.tokens,), dropout=dropout)
        its = self.family.head
        hidden, modules = its.hidden, its.modules
        if its.pooler and not self.config.pooler:  # no pretrained pooler: it is trained as part of the head
            hidden, modules = "tanh", (its.pooler, *modules)
        return Head(labels=labels, hidden=hidden, modules=modules, dropout=dropout, biased=its.bias)

    def head_of_maps(self, labels: int, several: bool = False) -> Head:
        """A head for every position of a picture: over the last of its feature maps, or over several (`Config.maps`).

        Raises GraftaxError for a backbone that gives none.
        """
        if not self.config.maps:
            raise GraftaxError(f"{self.name} gives no feature maps of a picture that a head could read.")
        return Head(site=MAPS if several else MAP, labels=labels, modules=("decode_head.classifier",))

    def detection_head(self, labels: int, several: bool = False) -> DetectionHead:
        """A head for objects in a picture, likewise."""
        if not self.config.maps:
            raise GraftaxError(f"{self.name} gives no feature maps of a picture that a head could read.")
        return DetectionHead(site=OBJECTS_OF_MAPS if several else OBJECTS, labels=labels)

    @traced_over_devices
    @shaped
    def encode(
        self, params: Any, state: State, inputs: Inputs, slots: Slots = None, key: jax.Array | None = None, **options: Any
    ) -> Any:
        """The module's `Outputs`, of a pair `Compared`, under an adapter; options as of `Encoder.__call__`."""
        return self._network(params)(inputs, self._grafts(state, slots, key), **options)

    def _network(self, params: Any) -> Any:
        """The module with these parameters; of those that devices share all that lies outside of the layers is gathered."""
        return nnx.merge(self.graphdef, whole_outside_layers(params))

    def _grafts(self, state: State, slots: Slots = None, key: jax.Array | None = None) -> Grafts:
        return Grafts(state, self.structure, slots, key, exact=self.adapter_dtype == "float32")

    @traced_over_devices
    def frozen(self, params: Any, inputs: Inputs, cut: Cut, *, pooled: bool) -> jax.Array:
        """What the layers below a cut make of inputs: what enters the first layer above it (`Network.frozen`)."""
        return self._network(params).frozen(inputs, cut, pooled=pooled)

    def has_frozen_layers(self, cut: Cut) -> bool:
        """Whether layers lie below a cut, and what they make of an item can be kept."""
        return self.family.module.has_frozen(cut, self.structure)

    @traced_over_devices
    @shaped
    def forward(
        self,
        params: Any,
        state: State,
        inputs: Inputs,
        slots: Slots = None,
        key: jax.Array | None = None,
        layers: Unrolled | None = None,
    ) -> Logits:
        """Logits of the heads in `state`. Pure; meant to be traced.

        Where neither a head nor a method reads the other positions, the last layer computes the pooled one alone.

        Args:
            params: `Backbone.params`.
            state: one adapter's tree, or with `slots` a bank's.
            inputs: a batch, as the processor lays it.
            slots: the slot of each batch row, int32 `[rows]`, or a `Mix`.
            key: a PRNG key for dropout, in training.
            layers: `Backbone.layers`, in training (`Encoder.__call__` says why).
        """
        grafts, several = self._grafts(state, slots, key), any(name in state for name in OF_MAPS)
        maps = len(self.config.maps) if several else int(MAP in state or OBJECTS in state)
        alone = not any(name in state for name in OF_POSITIONS) and not grafts.whole
        asked = {"maps": maps} if maps else {}
        out = self._network(params)(inputs, grafts, pooled=alone, layers=layers, **asked)
        if isinstance(out, Compared):
            return Logits(out.together, None)
        features = out.pooled if self.family.head.features == "pooled" and out.pooled is not None else out.first
        calls = grafts.outside()
        pooled = of_either(calls.head(POOLED, features), calls.head(FIRST, out.first))
        if out.vector is not None:
            pooled = of_either(pooled, calls.head(VECTOR, unit(out.vector)))
        of_map = calls.head(MAP, out.maps[-1]) if out.maps else None
        of_maps = (
            calls.head_of_maps(name, maps)
            for name, maps in ((MAPS, out.maps), (OBJECTS, out.maps[-1:]), (OBJECTS_OF_MAPS, out.maps))
        )
        return Logits(pooled, calls.head(TOKENS, out.hidden), of_map, *of_maps)

    @shaped
    def next_token(
        self, params: Any, state: State, hidden: Float[Array, "rows tokens dim"], slots: Slots = None
    ) -> Float[Array, "rows tokens vocabulary"]:
        """A language model's logits of the token behind each, from the hidden states that `encode` gives."""
        return nnx.merge(self.graphdef, params).logits(hidden, self._grafts(state, slots).outside())

    @traced_over_devices
    @shaped
    def likelihood(
        self,
        params: Any,
        state: State,
        inputs: Inputs,
        targets: Int[AnyArray, "rows tokens"],
        slots: Slots = None,
        key: jax.Array | None = None,
        layers: Unrolled | None = None,
    ) -> tuple[Float[Array, "rows tokens"], Float[Array, "rows tokens"]]:
        """The log-likelihood of each token's target, the token behind it, and whether that was the likeliest.

        Both are float32; arguments as of `forward`.
        """
        module, grafts = self._network(params), self._grafts(state, slots, key)
        return module.likelihood(module(inputs, grafts, layers=layers).hidden, targets, grafts.outside())

    @traced_over_devices
    @shaped
    def prefill(
        self, params: Any, layers: Any, state: State, inputs: Inputs, slots: Slots = None, *, columns: int
    ) -> tuple[Float[Array, "rows vocabulary"], Any]:
        """`Decoder.prefill`: logits behind each batch row's last token, and a cache with room for `columns` tokens."""
        return nnx.merge(self.graphdef, params).prefill(inputs, self._grafts(state, slots), layers, columns)

    @traced_over_devices
    @shaped
    def step(
        self, params: Any, layers: Any, state: State, ids: Int[AnyArray, " rows"], cache: Any, slots: Slots = None
    ) -> tuple[Float[Array, "rows vocabulary"], Any]:
        """`Decoder.step`: logits behind one more token of each batch row, and the cache with it."""
        return nnx.merge(self.graphdef, params).step(ids, cache, self._grafts(state, slots), layers)

    @traced_over_devices
    @shaped
    def extend(
        self,
        params: Any,
        layers: Any,
        state: State,
        ids: Int[AnyArray, "rows new"],
        real: Bool[AnyArray, "rows new"],
        cache: Any,
        slots: Slots = None,
    ) -> tuple[Float[Array, "rows vocabulary"], Any]:
        """`Decoder.extend`: logits behind further tokens of each batch row, and the cache with them."""
        return nnx.merge(self.graphdef, params).extend(ids, real, cache, self._grafts(state, slots), layers)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every parameter by weight name, on the host, those of a stack with a leading axis of layers."""
        self.expect_in_memory()
        return {name: np.asarray(dense(stacked(held))) for name, held in self.held().items()}

    def held(self) -> dict[str, Any]:
        """Every parameter by weight name, as it is on the device: those of a stack together, or by layer, or quantised."""
        every = {weight.name: weight for weight in self.weights}
        modules = {weight.part: self._module_at(self.params, weight.part) for weight in every.values()}
        return {name: getattr(modules[w.part], w.leaf).get_value() for name, w in every.items()}

    def frozen_at(self, params: Any, name: str) -> Any:
        """The frozen weights at the sites of a name, a stack's with a leading axis of layers; None where there are none."""
        return stacked(self._module_at(params, name)).weights() if self.structure.named[name].kind in WEIGHTS else None

    def eps_at(self, name: str) -> float:
        """What the batch norms of a name add to their variances."""
        return float(self._module_at(self.params, name).eps)

    def _module_at(self, params: Any, name: str) -> Any:
        """The module of a part. A network's attributes are called as its parts are."""
        return reduce(getattr, name.split("."), nnx.merge(self.graphdef, params))


def expect_backbone(value: Any) -> None:
    """A GraftaxError where something else than a backbone was given, such as the path of one."""
    if not isinstance(value, Backbone):
        raise GraftaxError(f"expected a backbone, as load_backbone gives one, got {shown(value)}.")
