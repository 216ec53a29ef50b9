"""The methods in the words of AdapterHub's `adapters`: its settings, keys and shapes (`files.py` has the files around them).

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

Where texts are padded, gates are other numbers there (`gated.py`). Left out: norms inside the bottleneck, invertible adapters,
that library's DoRA and VeRA (other formulas) and ReFT (it changes a text's first tokens alone).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ...method import Leaves, Method
from ...methods.bottleneck import Bottleneck
from ...methods.compacter import Compacter
from ...methods.gated import GATE, GATED, Gated, GatedLoRA, gated, plain
from ...methods.ia3 import IA3
from ...methods.lora import LoRA
from ...methods.prefix import Prefix
from ...methods.prompt import PromptTuning
from ...sites import Site
from ..peft.shared_keys import refuse_leftovers
from .bottlenecks import BottleneckDialect, CompacterDialect, read_bottleneck
from .dialect import Context, Dialect, ModuleDialect, Tensors
from .loras import IA3Dialect, LoRADialect, read_lora
from .prompts import PrefixDialect, PromptDialect, read_prefix, read_prompt

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
class GatedDialect(Dialect):
    """A method behind gates: the dialect of the method without them, and the gates as modules beside it."""

    there: ClassVar[str] = "use_gating=True"

    inner: Any  # Dialect

    def key(self, site: Site) -> str:
        """Of a gate's module."""
        if isinstance(self.inner, ModuleDialect):
            return f"{self.inner.stem(site)}.gate"
        return f"{site.path}.prefix_tuning.prefix_gates.{self.context.name}"

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        if isinstance(self.method, GatedLoRA) and any(self.method.scale(site) != 1.0 for site in chosen):
            raise self.context.refuse("a gated LoRA has the scale 1 there; train it with alpha = r")
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


def _read_gates(dialect: Dialect, config: dict[str, Any]) -> Dialect:
    context, method = dialect.context, dialect.method
    if type(method) not in GATED:
        raise context.refuse(f"not supported: use_gating=True with {method.name}")
    if isinstance(method, LoRA):
        method = replace(method, alpha=float(method.r))  # alpha says nothing there
    if isinstance(method, Prefix) and not config.pop("shared_gating", True):
        raise context.refuse("not supported: shared_gating=False; graftax has one gate for keys and values")
    return GatedDialect(gated(method), context, dialect)


# -- all of them ------------------------------------------------------------------------------------------------------

_READERS: dict[Any, Callable[[dict[str, Any], Context], Dialect]] = {
    None: read_bottleneck,
    "prefix_tuning": read_prefix,
    "prompt_tuning": read_prompt,
    "lora": read_lora,
}
DIALECTS: dict[type[Method], type[Dialect]] = {
    Bottleneck: BottleneckDialect,
    Compacter: CompacterDialect,
    Prefix: PrefixDialect,
    PromptTuning: PromptDialect,
    LoRA: LoRADialect,
    IA3: IA3Dialect,
    **dict.fromkeys(GATED.values(), GatedDialect),
}


def read_methods(config: dict[str, Any], context: Context, faulty_scale: bool = False) -> list[Dialect]:
    """The methods that a config means; `faulty_scale`: a LoRA was trained at scale 1, whatever its alpha."""
    kind = config.get("architecture")
    if kind == "union":
        return [dialect for part in config["configs"] for dialect in read_methods(dict(part), context, faulty_scale)]
    if kind not in _READERS:
        known = ", ".join(str(name or "bottleneck") for name in (*_READERS, "union"))
        raise context.refuse(f"architecture {kind!r} is not supported; supported are {known}")
    if kind == "lora" and faulty_scale:
        config["alpha"] = config.get("r", 8)
    has_gates = config.pop("use_gating", False)
    dialect = _READERS[kind](config, context)
    if has_gates:
        dialect = _read_gates(dialect, config)
    refuse_leftovers(config, context.where, _NEUTRAL)
    return [dialect]


def dialect_of(method: Method, states: Mapping[Site, tuple[Leaves, Leaves]], context: Context) -> Dialect:
    """A method in that library's dialect; an error where the library has no such method."""
    dialect = DIALECTS.get(type(method))
    if dialect is None:
        known = ", ".join(cls.name for cls in DIALECTS)
        raise context.refuse(f"{method.name} cannot be written for it; {known} can")
    if isinstance(method, Gated):
        without = plain(method)
        return GatedDialect(method, context, dialect_of(without, {}, context))
    if dialect is CompacterDialect:
        rules = [own["rule"] for own, _ in states.values()]
        return CompacterDialect(method, context, all(np.array_equal(rule, rules[0]) for rule in rules))
    return dialect(method, context)
