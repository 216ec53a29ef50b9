"""Bottleneck adapters and Compacters in the words of AdapterHub's `adapters`.

Compacter's rule A is one for all sites there, and each site's own here: read, it is copied; written, it is one where all are
equal, else every matrix has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np

from ....typed import Within, checked
from ...method import Leaves
from ...methods.bottleneck import Bottleneck
from ...methods.compacter import Compacter
from ...sites import Site
from .dialect import THEIR_ACTIVATIONS, Context, Dialect, ModuleDialect, Tensors, our_activation

_SIDES = {"mh_adapter": "attention", "output_adapter": "ffn"}


class BottleneckDialect(ModuleDialect):
    there = "bottleneck"
    part = "adapters"

    def stem(self, site: Site) -> str:
        # a module of the branch, also where it acts behind the branch's norm
        return super().stem(replace(site, path=site.path.removesuffix(".LayerNorm")))

    def config(self, chosen: Sequence[Site]) -> dict[str, Any]:
        method, (roles, left_out) = self.method, self.context.spread(chosen)
        width, (dim,) = method.width, chosen[0].shape
        sides = {role.partition("_")[0] for role in roles}
        post = method.place == "post"
        scale = method.scale if isinstance(method, Bottleneck) else 1.0
        return {
            **{key: side in sides for key, side in _SIDES.items()},
            "reduction_factor": dim // width if dim % width == 0 else dim / (width + 0.5),  # width: floor(d / factor)
            "non_linearity": THEIR_ACTIVATIONS[method.activation],
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
class CompacterDialect(BottleneckDialect):
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
        return f"{self.context.prefix}.shared_parameters.{self.context.name}.phm_rule"

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
            raise self.context.refuse("a Compacter's two matrices have rules (phm_rule) of their own; graftax has one for both")
        return found | {"rule": down}

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        one = {self.shared: np.asarray(next(iter(states.values()))["rule"])} if self.one_rule else {}
        return super().export(states) | one

    def restore(self, like: Mapping[Site, Leaves], tensors: Tensors) -> dict[Site, Leaves]:
        states = super().restore(like, tensors)
        return {s: {**leaves, "rule": tensors[self.shared]} for s, leaves in states.items()} if self.one_rule else states


def read_bottleneck(config: dict[str, Any], context: Context) -> Dialect:
    sides = [side for key, side in _SIDES.items() if config.pop(key, False)]
    before, after = config.pop("original_ln_before", False), config.pop("original_ln_after", True)
    residual, parallel = config.pop("residual_before_ln", True), config.pop("is_parallel", False)
    scaling, left_out = config.pop("scaling", 1.0), config.pop("leave_out", None)
    activation = our_activation(str(config.pop("non_linearity", None)), context)
    post = (parallel, before, after, residual) == (False, True, False, False)
    if not post and not (after is True and (parallel or residual is True or (residual is False and not before))):
        said = f"original_ln_before={before}, original_ln_after={after}, residual_before_ln={residual}, is_parallel={parallel}"
        raise context.refuse(f"not supported: {said}")
    roles = [f"{side}_{'norm' if post else 'branch'}" for side in sides]
    chosen = context.chosen(roles, left_out, "norm" if post else "branch")
    settings: dict[str, Any] = {
        "width": _width(config.pop("reduction_factor", None), chosen, context),
        "activation": activation,
        "place": "post" if post else "parallel" if parallel else "houlsby" if len(sides) == 2 else "pfeiffer",
    }
    if before and not parallel and not post:
        settings["normed"] = True
    if config.pop("phm_layer", False):
        return _read_compacter(config, settings, scaling, chosen, context)
    for inner in ("phm_bias", "factorized_phm_W", "shared_phm_rule", "shared_W_phm", "factorized_phm_rule", "phm_rank"):
        config.pop(inner, None)
    method = Bottleneck(**settings, scaling=scaling)
    if method.scale == Bottleneck(place=method.place).scale:
        method = replace(method, scaling=None)
    return BottleneckDialect(replace(method, targets=context.targets(method, chosen)), context)


def _read_compacter(
    config: dict[str, Any], settings: dict[str, Any], scaling: Any, chosen: Sequence[Site], context: Context
) -> Dialect:
    shared = config.pop("shared_phm_rule", True)
    needed = {"phm_bias": True, "factorized_phm_W": True, "phm_rank": 1, "shared_W_phm": False, "factorized_phm_rule": False}
    given = {key: config.pop(key, value) for key, value in needed.items()}
    wrong = [f"{key}={value!r}" for key, value in given.items() if value != needed[key]]
    wrong += [f"scaling={scaling!r}"] if scaling != 1.0 else []
    wrong += [] if settings["place"] in ("houlsby", "pfeiffer") else [f"phm_layer=True, as {settings['place']}"]
    if wrong:
        raise context.refuse(f"not supported of a Compacter, and it would change the result: {', '.join(wrong)}")
    method = Compacter(**settings, n=config.pop("phm_dim", 4))
    return CompacterDialect(replace(method, targets=context.targets(method, chosen)), context, bool(shared))


def _width(factor: Any, chosen: Sequence[Site], context: Context) -> int:
    """d divided by the reduction factor, which may be given by layer."""
    given = factor if isinstance(factor, Mapping) else {"default": factor}
    by_layer = checked(given, Mapping[str, Annotated[float, Within(1e-3)]], f"{context.where}: reduction_factor")
    widths = {max(1, int(s.shape[0] // by_layer[str(s.layer) if str(s.layer) in by_layer else "default"])) for s in chosen}
    if len(widths) > 1:
        raise context.refuse(f"reduction_factor={factor!r} gives several widths; graftax has one in an adapter")
    return widths.pop()
