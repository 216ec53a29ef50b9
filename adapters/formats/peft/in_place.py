"""Methods that train what is there already, in PEFT's words: IA3's scales, norms, and the rows of a few tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ....errors import GraftaxError
from ...method import Leaves, Method
from ...methods.adabn import AdaBN
from ...methods.ia3 import IA3
from ...methods.ln_tuning import LayerNormTuning
from ...methods.trainable_tokens import TrainableTokens
from ...sites import Site
from .dialect import Dialect
from .shared_keys import read_targets, targets_of


class IA3Dialect(Dialect):
    """One vector at a site: [1, in] where it scales the input, [out, 1] where the output; at convolutions [1, n, 1, 1]."""

    of = IA3
    peft_type = "IA3"
    conv1d = True

    method: IA3

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        ((name, vector),) = leaves.items()
        if site.geometry is not None:
            return {"ia3_l": np.asarray(vector).reshape(1, -1, 1, 1)}
        return {"ia3_l": np.asarray(vector)[None, :] if name == "l_in" else np.asarray(vector)[:, None]}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        (name,) = self.method.trainable(site)
        return {name: tensors["ia3_l"].reshape(-1)}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        scaling_input = [site for site in chosen if self.method.scales_input(site)]
        return {
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "feedforward_modules": targets_of(self.method.feedforward, scaling_input, sites) if scaling_input else [],
            "fan_in_fan_out": False,
            "init_ia3_weights": True,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        config.pop("init_ia3_weights", None)  # how the weights began, not what they do
        feedforward = config.pop("feedforward_modules", None) or ()
        targets = read_targets(config, sites)
        return IA3(targets=targets, feedforward=feedforward if isinstance(feedforward, str) else tuple(feedforward))


class LayerNormDialect(Dialect):
    """PEFT's file holds a norm's new weights, and a leaf the change of them."""

    of = LayerNormTuning
    peft_type = "LN_TUNING"

    method: LayerNormTuning
    keys: ClassVar[dict[str, str]] = {"scale": "weight", "bias": "bias"}

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        merged = self.method.merge(site.weights(), leaves)._asdict()
        return {f"ln_tuning_layers.{self.keys[name]}": np.asarray(merged[name]) for name in leaves}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        frozen, saved = site.weights()._asdict(), {key.rpartition(".")[2]: tensor for key, tensor in tensors.items()}
        return {name: saved[key] - frozen[name] for name, key in self.keys.items() if key in saved}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {"target_modules": targets_of(self.method.targets, chosen, sites)}

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        return LayerNormTuning(targets=read_targets(config, sites))


class AdaBNDialect(Dialect):
    """Files hold a batch norm's new statistics, and a leaf the change of one."""

    of = AdaBN

    method: AdaBN

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        merged = self.method.merge(site.weights(), leaves)
        return {f"running_{name}": np.asarray(getattr(merged, name)) for name in leaves}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        if np.any(tensors["running_var"] < 0.0):
            raise GraftaxError(f"{site.path}.running_var is below zero, which no variance is.")
        frozen = site.weights()
        return {name: tensors[f"running_{name}"] - getattr(frozen, name) for name in self.method.buffers(site)}


ROWS = "trainable_tokens_delta"  # PEFT's name for what are no differences


class TrainableTokensDialect(Dialect):
    of = TrainableTokens
    peft_type = "TRAINABLE_TOKENS"
    task_type = "CAUSAL_LM"  # it keeps no head beside, and of an encoder-decoder's towers the same rows

    method: TrainableTokens

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        return {ROWS: np.asarray(leaves["rows"])}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        return {"rows": tensors[ROWS]}

    def to_config(self, chosen: Sequence[Site], sites: Sequence[Site]) -> dict[str, Any]:
        return {
            "token_indices": list(self.method.ids),
            "target_modules": targets_of(self.method.targets, chosen, sites),
            "init_weights": True,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], sites: Sequence[Site]) -> Method:
        config.pop("init_weights", None)  # how the rows began: the file has them
        return TrainableTokens(ids=config.pop("token_indices", None) or (), targets=read_targets(config, sites))
