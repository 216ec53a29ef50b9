"""The methods in the words of AdapterHub's `adapters`: its settings, keys and shapes (`hub.py` has the files around them).

| there                         | here                                                                                |
|-------------------------------|-------------------------------------------------------------------------------------|
| double_seq_bn, seq_bn, par_bn | Bottleneck houlsby; pfeiffer `normed`; parallel                                     |
| AdapterPlus                   | Bottleneck post                                                                     |
| compacter, compacter++        | Compacter houlsby; pfeiffer `normed`                                                |
| prefix_tuning, flat or not    | Prefix, not `shifted`; a network that makes the prefix is run once, and left behind |
| prompt_tuning                 | PromptTuning `post`                                                                 |
| lora                          | LoRA of one rank and scale, anywhere but behind the attention                       |
| ia3                           | IA3 on outputs: keys, values, and those of the feed-forward's *first* matrix        |
| use_gating=True               | GatedLoRA of scale 1, GatedBottleneck, GatedPrefix with one gate for keys and values |
| union, as mam and UniPELT     | those methods in one adapter                                                        |

Compacter's rule A is one for all sites there, and each site's own here: read, it is copied; written, it is one where all are
equal, else every matrix has its own. Where texts are padded, gates are other numbers there (`gated.py`). Left out: norms inside
the bottleneck, invertible adapters, that library's DoRA and VeRA (other formulas) and ReFT (it changes a text's first tokens
alone).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..errors import GraftaxError
from . import peft
from .bottleneck import ACTIVATIONS, Bottleneck
from .compacter import Compacter
from .gated import GATE, GATED, Gated, GatedLoRA, gated, plain
from .ia3 import IA3
from .lora import LoRA
from .method import Leaves, Method, Targets
from .prefix import Prefix
from .prompt import PromptTuning
from .sites import Site

Tensors = Mapping[str, np.ndarray]
#: Activations here -> there; there silu has a second name.
_ACTIVATIONS = {name: name for name in ACTIVATIONS} | {"leaky_relu": "leakyrelu", "silu": "swish"}
_READ_ACTIVATIONS = {there: here for here, there in _ACTIVATIONS.items()} | {"silu": "silu"}
#: Settings that say how an adapter began or is trained, or that count only with others that are refused, or in decoders.
_NEUTRAL = frozenset(
    (
        *("architecture", "init_weights", "init_weights_seed", "dropout", "stochastic_depth", "dtype"),
        *("cross_adapter", "adapter_residual_before_ln", "inv_adapter_reduction_factor"),
        *("phm_dim", "phm_c_init", "phm_init_range", "hypercomplex_nonlinearity", "learn_phm"),
        *("encoder_prefix", "cross_prefix", "bottleneck_size", "shared_gating"),
        *("prompt_init", "prompt_init_text", "random_uniform_scale"),
    )
)


@dataclass(frozen=True)
class Place:
    """Where an adapter is: the sites there are, and what its keys are made of."""

    sites: Sequence[Site]
    prefix: str  # the encoder's module: "bert"
    name: str  # the adapter's
    where: str  # for errors: what is read, or written

    def refuse(self, problem: str) -> GraftaxError:
        return GraftaxError(f"{self.where}: {problem}.")

    def chosen(self, roles: Iterable[str], left_out: Any, kind: str) -> list[Site]:
        """The sites of some roles in all layers but those left out."""
        wanted, layers = set(roles), set(left_out or ())
        found = [s for s in self.sites if s.kind == kind and s.role in wanted and s.layer not in layers]
        if not found:
            raise self.refuse("acts nowhere")
        return found

    def targets(self, method: Method, chosen: Sequence[Site]) -> Targets:
        """`targets` that mean these sites: None where they are the method's default."""
        if {s.path for s in method.select(self.sites)} == {s.path for s in chosen}:
            return None
        return tuple(peft.targets_of(None, chosen, self.sites))

    def spread(self, chosen: Sequence[Site]) -> tuple[set[str], list[int]]:
        """The roles and left-out layers that mean these sites."""
        layers = {s.layer for s in self.sites if s.layer is not None}
        roles = {layer: {s.role for s in chosen if s.layer == layer} for layer in layers}
        (found, *others) = {frozenset(at) for at in roles.values() if at} or {frozenset()}
        if others or any(s.layer is None for s in chosen):
            raise self.refuse("the method must act at the same places in every layer that it acts in")
        return set(found), sorted(layer for layer in layers if layer is not None and not roles[layer])


@dataclass(frozen=True)
class Words(ABC):
    """One method in that library's words: the settings, and the leaves at its sites as tensors under its keys."""

    there: ClassVar[str]  # the method's name in that library

    method: Any
    place: Place

    @abstractmethod
    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        """The settings; an error where the library has none for it."""

    @abstractmethod
    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]: ...

    def simplified(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A file's tensors, brought to the form that `export` has."""
        return tensors


class AtSites(Words):
    """Words for a method whose tensors are each site's own, under the site's module."""

    part: ClassVar[str]  # what stands between the module and the adapter's name

    def stem(self, site: Site) -> str:
        return f"{site.path}.{self.part}.{self.place.name}"

    @abstractmethod
    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def leaves(self, site: Site, tensors: Tensors) -> Leaves: ...

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        return {
            f"{self.stem(site)}.{suffix}": np.asarray(tensor, order="C")
            for site, leaves in states.items()
            for suffix, tensor in self.tensors(site, leaves).items()
        }

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        return {
            site: self.leaves(site, {suffix: tensors[f"{self.stem(site)}.{suffix}"] for suffix in self.tensors(site, leaves)})
            for site, leaves in like.items()
        }


# -- bottlenecks ------------------------------------------------------------------------------------------------------

_SIDES = {"mh_adapter": "attention", "output_adapter": "ffn"}


class BottleneckWords(AtSites):
    there = "bottleneck"
    part = "adapters"

    def stem(self, site: Site) -> str:
        # a module of the branch, also where it acts behind the branch's norm
        return super().stem(replace(site, path=site.path.removesuffix(".LayerNorm")))

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        method, (roles, left_out) = self.method, self.place.spread(chosen)
        width, (dim,) = method.width, chosen[0].shape
        sides = {role.partition("_")[0] for role in roles}
        post = getattr(method, "place", None) == "post"
        scale = getattr(method, "scale", 1.0)
        return {
            **{key: side in sides for key, side in _SIDES.items()},
            "reduction_factor": dim // width if dim % width == 0 else dim / (width + 0.5),  # width: floor(d / factor)
            "non_linearity": _ACTIVATIONS[method.activation],
            "is_parallel": method.place == "parallel",
            "scaling": scale if isinstance(scale, str) else float(scale),
            "original_ln_before": method.normed or post,
            "original_ln_after": not post,
            "residual_before_ln": not post,
            "leave_out": left_out,
        }

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        network = {
            "adapter_down.0.weight": np.asarray(leaves["down"]).T,
            "adapter_down.0.bias": leaves["down_bias"],
            "adapter_up.weight": np.asarray(leaves["up"]).T,
            "adapter_up.bias": leaves["up_bias"],
        }
        return network | ({"scaling": leaves[self.method.scale]} if isinstance(self.method.scale, str) else {})

    def leaves(self, site: Site, tensors: Tensors) -> Leaves:
        network = {
            "down": tensors["adapter_down.0.weight"].T,
            "down_bias": tensors["adapter_down.0.bias"],
            "up": tensors["adapter_up.weight"].T,
            "up_bias": tensors["adapter_up.bias"],
        }
        return network | ({self.method.scale: tensors["scaling"]} if "scaling" in tensors else {})


@dataclass(frozen=True)
class CompacterWords(BottleneckWords):
    there: ClassVar[str] = "compacter"

    one_rule: bool = True  # the same at all sites, and held once

    #: leaf -> suffix; the leaves' shapes are those there but for axes of one and rows laid end to end
    names: ClassVar[dict[str, str]] = {
        "down_u": "adapter_down.0.W_left",
        "down_v": "adapter_down.0.W_right",
        "down_bias": "adapter_down.0.b",
        "up_u": "adapter_up.W_left",
        "up_v": "adapter_up.W_right",
        "up_bias": "adapter_up.b",
    }
    rules: ClassVar[tuple[str, str]] = ("adapter_down.0.phm_rule", "adapter_up.phm_rule")

    @property
    def shared(self) -> str:
        return f"{self.place.prefix}.shared_parameters.{self.place.name}.phm_rule"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        phm = {"phm_layer": True, "phm_dim": self.method.n, "shared_phm_rule": self.one_rule}
        return super().config(chosen) | phm

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        def shaped(leaf: str) -> np.ndarray:
            array = np.asarray(leaves[leaf])
            return array.reshape(-1) if "bias" in leaf else array[:, :, None] if leaf.endswith("u") else array[:, None, :]

        own = {} if self.one_rule else {rule: np.asarray(leaves["rule"]) for rule in self.rules}
        return {suffix: shaped(leaf) for leaf, suffix in self.names.items()} | own

    def leaves(self, site: Site, tensors: Tensors) -> Leaves:
        like = self.method.blank(site)
        found = {leaf: tensors[suffix].reshape(like[leaf].shape) for leaf, suffix in self.names.items()}
        if self.one_rule:
            return found
        down, up = (tensors[rule] for rule in self.rules)
        if not np.array_equal(down, up):
            raise self.place.refuse("a Compacter's two matrices have rules (phm_rule) of their own; graftax has one for both")
        return found | {"rule": down}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        one = {self.shared: np.asarray(next(iter(states.values()))["rule"])} if self.one_rule else {}
        return super().export(states) | one

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        states = super().restore(like, tensors)
        return {s: {**leaves, "rule": tensors[self.shared]} for s, leaves in states.items()} if self.one_rule else states


def _read_bottleneck(config: dict[str, Any], place: Place) -> Words:
    sides = [side for key, side in _SIDES.items() if config.pop(key, False)]
    before, after = config.pop("original_ln_before", False), config.pop("original_ln_after", True)
    residual, parallel = config.pop("residual_before_ln", True), config.pop("is_parallel", False)
    scaling, left_out = config.pop("scaling", 1.0), config.pop("leave_out", None)
    activation = str(config.pop("non_linearity", None)).lower()
    if activation not in _READ_ACTIVATIONS:
        raise place.refuse(f"non_linearity={activation!r} is none of {', '.join(_READ_ACTIVATIONS)}")
    post = (parallel, before, after, residual) == (False, True, False, False)
    if not post and not (after is True and (parallel or residual is True or (residual is False and not before))):
        said = f"original_ln_before={before}, original_ln_after={after}, residual_before_ln={residual}, is_parallel={parallel}"
        raise place.refuse(f"not supported: {said}")
    roles = [f"{side}_{'norm' if post else 'branch'}" for side in sides]
    chosen = place.chosen(roles, left_out, "norm" if post else "branch")
    settings: dict[str, Any] = {
        "width": _width(config.pop("reduction_factor", None), chosen, place),
        "activation": _READ_ACTIVATIONS[activation],
        "place": "post" if post else "parallel" if parallel else "houlsby" if len(sides) == 2 else "pfeiffer",
    }
    if before and not parallel and not post:
        settings["normed"] = True
    if config.pop("phm_layer", False):
        return _read_compacter(config, settings, scaling, chosen, place)
    for inner in ("phm_bias", "factorized_phm_W", "shared_phm_rule", "shared_W_phm", "factorized_phm_rule", "phm_rank"):
        config.pop(inner, None)
    method = Bottleneck(**settings, scaling=scaling)
    if method.scale == Bottleneck(place=method.place).scale:
        method = replace(method, scaling=None)
    return BottleneckWords(replace(method, targets=place.targets(method, chosen)), place)


def _read_compacter(
    config: dict[str, Any], settings: dict[str, Any], scaling: Any, chosen: Sequence[Site], place: Place
) -> Words:
    shared = config.pop("shared_phm_rule", True)
    needed = {"phm_bias": True, "factorized_phm_W": True, "phm_rank": 1, "shared_W_phm": False, "factorized_phm_rule": False}
    given = {key: config.pop(key, value) for key, value in needed.items()}
    wrong = [f"{key}={value!r}" for key, value in given.items() if value != needed[key]]
    wrong += [f"scaling={scaling!r}"] if scaling != 1.0 else []
    wrong += [] if settings["place"] in ("houlsby", "pfeiffer") else [f"phm_layer=True, as {settings['place']}"]
    if wrong:
        raise place.refuse(f"not supported of a Compacter, and it would change the result: {', '.join(wrong)}")
    method = Compacter(**settings, n=config.pop("phm_dim", 4))
    return CompacterWords(replace(method, targets=place.targets(method, chosen)), place, bool(shared))


def _width(factor: Any, chosen: Sequence[Site], place: Place) -> int:
    """d divided by the reduction factor, which may be given by layer."""
    by_layer = factor if isinstance(factor, Mapping) else {"default": factor}
    widths = {max(1, int(s.shape[0] // by_layer[str(s.layer) if str(s.layer) in by_layer else "default"])) for s in chosen}
    if len(widths) > 1:
        raise place.refuse(f"reduction_factor={factor!r} gives several widths; graftax has one in an adapter")
    return widths.pop()


# -- virtual tokens ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrefixWords(Words):
    there: ClassVar[str] = "prefix_tuning"

    activation: str | None = None  # of the network that makes the prefix, where there is one

    @property
    def stem(self) -> str:
        return f"{self.place.prefix}.prefix_tuning.prefix_tunings.{self.place.name}.self_prefix."

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        if self.method.shifted:
            raise self.place.refuse("no positions are shifted there by a prefix; train it with shifted=false")
        return {"architecture": "prefix_tuning", "flat": True, "prefix_length": self.method.tokens, "leave_out": []}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        (tensor,) = self.method.export(states).values()  # PEFT's: [tokens, layers * 2 * hidden]
        return {f"{self.stem}control_trans": tensor.reshape(-1)}

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        ((key, expected),) = self.method.export(like).items()
        return self.method.restore(like, {key: tensors[f"{self.stem}control_trans"].reshape(expected.shape)})

    def simplified(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Without each layer's copy of the prefix, and with what its network makes in place of the network."""
        pool = f".prefix_tuning.pool.prefix_tunings.{self.place.name}.self_prefix."

        def copied(key: str) -> bool:
            there = tensors.get(self.stem + key.partition(pool)[2]) if pool in key else None
            return there is not None and np.array_equal(there, tensors[key])

        tensors = {key: tensor for key, tensor in tensors.items() if not copied(key)}
        network = [f"{self.stem}{key}" for key in ("wte.weight", *(f"control_trans.{i}.{n}" for i in (0, 2) for n in _LINEAR))]
        if self.activation is not None and all(key in tensors for key in network):
            rows, w1, b1, w2, b2 = (tensors.pop(key) for key in network)
            wide = ACTIVATIONS[self.activation](rows @ w1.T + b1)
            tensors[f"{self.stem}control_trans"] = (np.asarray(wide) @ w2.T + b2).reshape(-1)
        return tensors


_LINEAR = ("weight", "bias")


def _read_prefix(config: dict[str, Any], place: Place) -> Words:
    if left_out := config.pop("leave_out", None):
        raise place.refuse(f"leave_out={left_out!r}: graftax has prefixes in every layer")
    flat, activation = config.pop("flat", False), str(config.pop("non_linearity", "tanh")).lower()
    method = Prefix(tokens=config.pop("prefix_length", 30), shifted=False)
    if not flat and activation not in _READ_ACTIVATIONS:
        raise place.refuse(f"non_linearity={activation!r} is none of {', '.join(_READ_ACTIVATIONS)}")
    return PrefixWords(method, place, None if flat else _READ_ACTIVATIONS[activation])


class PromptWords(Words):
    there = "prompt_tuning"

    @property
    def key(self) -> str:
        return f"{self.place.prefix}.prompt_tuning.prompt_tunings.{self.place.name}.prompt_embedding.weight"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        if not self.method.post:
            raise self.place.refuse("a prompt comes behind the embeddings' norm there; train it with post=true")
        return {"architecture": "prompt_tuning", "prompt_length": self.method.tokens, "combine": "prefix"}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        (tensor,) = self.method.export(states).values()
        return {self.key: tensor}

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        ((key, _),) = self.method.export(like).items()
        return self.method.restore(like, {key: tensors[self.key]})


def _read_prompt(config: dict[str, Any], place: Place) -> Words:
    if (combine := config.pop("combine", "prefix")) != "prefix":
        raise place.refuse(f"not supported: combine={combine!r}")
    return PromptWords(PromptTuning(tokens=config.pop("prompt_length", 10), post=True), place)


# -- LoRA and IA3 -----------------------------------------------------------------------------------------------------

_MATRICES = {"q": "query", "k": "key", "v": "value"}
_FEED_FORWARD = {"intermediate_lora": "ffn_in", "output_lora": "ffn_out"}


class LoRAWords(AtSites):
    there = "lora"
    part = "loras"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        ranks = {(self.method.size(s), self.method.scale(s)) for s in chosen}
        if len(ranks) > 1:
            raise self.place.refuse("a LoRA has one rank and one alpha there")
        ((r, scale),) = ranks
        how = {"composition_mode": "add", "r": r, "alpha": scale * r, "dropout": self.method.dropout, "init_weights": "lora"}
        return self.at(chosen) | how

    def at(self, chosen: Sequence[Site]) -> dict[str, Any]:
        roles, left_out = self.place.spread(chosen)
        if others := roles - {*_MATRICES.values(), *_FEED_FORWARD.values()}:
            raise self.place.refuse(f"there is no LoRA or IA3 there at {', '.join(sorted(others))}")
        attention = [letter for letter, role in _MATRICES.items() if role in roles]
        return {
            "architecture": "lora",
            "selfattn_lora": bool(attention),
            "attn_matrices": attention,
            **{key: role in roles for key, role in _FEED_FORWARD.items()},
            "leave_out": left_out,
        }

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {"lora_A": np.asarray(leaves["a"]), "lora_B": np.asarray(leaves["b"]).T}

    def leaves(self, site: Site, tensors: Tensors) -> Leaves:
        return {"a": tensors["lora_A"], "b": tensors["lora_B"].T}


class IA3Words(LoRAWords):
    there = "ia3"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        if any(self.method.scales_input(s) for s in chosen):
            raise self.place.refuse(
                "IA3 scales what matrices put out there; this one scales what enters the feed-forward's second"
            )
        return self.at(chosen) | {"composition_mode": "scale", "r": 1, "alpha": 1, "init_weights": "ia3"}

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {"lora_B": np.asarray(leaves["l_out"])[:, None]}

    def leaves(self, site: Site, tensors: Tensors) -> Leaves:
        return {"l_out": tensors["lora_B"].reshape(-1)}


def _read_lora(config: dict[str, Any], place: Place) -> Words:
    matrices = config.pop("attn_matrices", ["q", "v"])
    attention = [_MATRICES.get(m, m) for m in matrices] if config.pop("selfattn_lora", True) else []
    roles = [*attention, *(role for key, role in _FEED_FORWARD.items() if config.pop(key, False))]
    if unknown := [m for m in matrices if m not in _MATRICES]:
        raise place.refuse(f"not supported: attn_matrices={unknown!r}")
    chosen = place.chosen(roles, config.pop("leave_out", None), "linear")
    r, alpha, mode = config.pop("r", 8), config.pop("alpha", 8), config.pop("composition_mode", "add")
    vera = [f"{key}={config.pop(key)!r}" for key in ("vera_d", "vera_b") if config.get(key) is not None]  # zero is on, too
    if vera or mode not in ("add", "scale") or (mode == "scale" and (r, alpha) != (1, 1)):
        said = ", ".join([*vera, f"composition_mode={mode!r}, r={r}, alpha={alpha}"])
        raise place.refuse(f"not supported: {said}")
    rate = config.pop("dropout", 0.0)
    if mode == "scale":
        ia3 = IA3(feedforward=())
        return IA3Words(replace(ia3, targets=place.targets(ia3, chosen)), place)
    lora = LoRA(r=r, alpha=alpha, dropout=rate)
    return LoRAWords(replace(lora, targets=place.targets(lora, chosen)), place)


# -- gates ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GatedWords(Words):
    """A method behind gates: the words of the method without them, and the gates as modules beside it."""

    there: ClassVar[str] = "use_gating=True"

    inner: Any  # Words

    def key(self, site: Site) -> str:
        """Of a gate's module."""
        if isinstance(self.inner, AtSites):
            return f"{self.inner.stem(site)}.gate"
        return f"{site.path}.prefix_tuning.prefix_gates.{self.place.name}"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        if isinstance(self.method, GatedLoRA) and any(self.method.scale(site) != 1.0 for site in chosen):
            raise self.place.refuse("a gated LoRA has the scale 1 there; train it with alpha = r")
        return self.inner.config(chosen) | {"use_gating": True}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        gates = {}
        for site, leaves in states.items():
            if "gate" in leaves:
                gates[f"{self.key(site)}.weight"] = np.asarray(leaves["gate"])[None]
                gates[f"{self.key(site)}.bias"] = np.asarray(leaves["gate_bias"])
        return self.inner.export(_without_gates(states)) | gates

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        states = self.inner.restore(_without_gates(like), tensors)
        for site in like:
            if "gate" in like[site]:
                gate = {"gate": tensors[f"{self.key(site)}.weight"][0], "gate_bias": tensors[f"{self.key(site)}.bias"]}
                states[site] = {**states[site], **gate}
        return states

    def simplified(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.inner.simplified(tensors)


def _without_gates(states: Mapping[Site, Leaves]) -> dict[Site, Leaves]:
    return {site: {name: leaf for name, leaf in leaves.items() if name not in GATE} for site, leaves in states.items()}


def _read_gates(words: Words, config: dict[str, Any]) -> Words:
    place, method = words.place, words.method
    if type(method) not in GATED:
        raise place.refuse(f"not supported: use_gating=True with {method.name}")
    if isinstance(method, LoRA):
        method = replace(method, alpha=float(method.r))  # alpha says nothing there
    if isinstance(method, Prefix) and not config.pop("shared_gating", True):
        raise place.refuse("not supported: shared_gating=False; graftax has one gate for keys and values")
    return GatedWords(gated(method), place, words)


# -- all of them ------------------------------------------------------------------------------------------------------

_READERS: dict[Any, Callable[[dict[str, Any], Place], Words]] = {
    None: _read_bottleneck,
    "prefix_tuning": _read_prefix,
    "prompt_tuning": _read_prompt,
    "lora": _read_lora,
}
WORDS: dict[type[Method], type[Words]] = {
    Bottleneck: BottleneckWords,
    Compacter: CompacterWords,
    Prefix: PrefixWords,
    PromptTuning: PromptWords,
    LoRA: LoRAWords,
    IA3: IA3Words,
    **dict.fromkeys(GATED.values(), GatedWords),
}


def read_methods(config: dict[str, Any], place: Place, faulty_scale: bool = False) -> list[Words]:
    """The methods that a config means, in words; `faulty_scale`: a LoRA was trained at scale 1, whatever its alpha."""
    kind = config.get("architecture")
    if kind == "union":
        return [words for part in config["configs"] for words in read_methods(dict(part), place, faulty_scale)]
    if kind not in _READERS:
        known = ", ".join(str(name or "bottleneck") for name in (*_READERS, "union"))
        raise place.refuse(f"architecture {kind!r} is not supported; supported are {known}")
    if kind == "lora" and faulty_scale:
        config["alpha"] = config.get("r", 8)
    has_gates = config.pop("use_gating", False)
    words = _READERS[kind](config, place)
    if has_gates:
        words = _read_gates(words, config)
    peft.refuse_leftovers(config, place.where, _NEUTRAL)
    return [words]


def words_of(method: Method, states: Mapping[Site, tuple[Leaves, Leaves]], place: Place) -> Words:
    """A method in words; an error where the library has no such method."""
    words = WORDS.get(type(method))
    if words is None:
        known = ", ".join(cls.name for cls in WORDS)
        raise place.refuse(f"{method.name} cannot be written for it; {known} can")
    if isinstance(method, Gated):
        without = plain(method)
        return GatedWords(method, place, words_of(without, {}, place))
    if words is CompacterWords:
        rules = [own["rule"] for own, _ in states.values()]
        return CompacterWords(method, place, all(np.array_equal(rule, rules[0]) for rule in rules))
    return words(method, place)
