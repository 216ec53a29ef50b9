"""A head's tensors: the weights of the modules in Hugging Face's task model, so that PEFT's `modules_to_save` finds them.

A backbone's own head (`models/own_head.py`) and a merged model (`serve/export.py`) have the same tensors without PEFT's prefix.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...method import Leaves
from ...methods.head import Head
from ...sites import Site
from .dialect import Dialect


class HeadDialect(Dialect):
    of = Head

    method: Head

    def tensors(self, site: Site, leaves: Leaves) -> dict[str, np.ndarray]:
        first, last = self.method.modules[0], self.method.modules[-1]
        named = {f"{last}.weight": leaves["kernel"]}
        if self.method.biased:
            named[f"{last}.bias"] = leaves["bias"]
        if self.method.hidden != "none":
            named[f"{first}.weight"] = leaves["hidden"].T
            named[f"{first}.bias"] = leaves["hidden_bias"]
        return {name: np.asarray(tensor) for name, tensor in named.items()}

    def leaves(self, site: Site, tensors: Mapping[str, np.ndarray]) -> Leaves:
        first, last = self.method.modules[0], self.method.modules[-1]
        leaves = {"kernel": tensors[f"{last}.weight"]}
        if self.method.biased:
            leaves["bias"] = tensors[f"{last}.bias"]
        if self.method.hidden != "none":
            leaves |= {"hidden": tensors[f"{first}.weight"].T, "hidden_bias": tensors[f"{first}.bias"]}
        return leaves
