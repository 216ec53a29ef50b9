"""Which of graftax's methods a model of Tinker's is: LoRA as Tinker has it, or any other that its metadata name.

    create_lora_training_client("LLAMA", rank=8, train_unembed=False)              LoRA of rank 8 in attention and feed-forward
    ...(..., user_metadata={"graftax_method": "dora"})                             DoRA there
    ...(..., user_metadata={"graftax_method": '{"method": "ia3"}'})                any method, with settings of its own

    y = x W + (alpha / r) (x A^T) B, alpha = 32

Tinker's wire has a rank and no alpha: its makers scale by alpha / r with alpha = 32 whatever the rank is (Schulman et al., LoRA
Without Regret, 2025), so that the best learning rate hardly depends on the rank, and so it is done here. LoRA's kin takes rank,
alpha and parts of the model likewise where it is named; what settings are given goes before. Other methods have their own
defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...adapters.method import Method
from ...adapters.methods.lora import LoRA
from ...adapters.methods.named import make_method
from ...adapters.sites import LM_HEAD, Site
from ...errors import GraftaxError
from ...json_files import parse_json
from ...typed import Seed, Size, checked

ALPHA = 32.0
NAMED = "graftax_method"  # the key in a model's metadata
_ATTENTION = ("query", "key", "value", "qkv", "attention_out")  # roles of sites
_FEED_FORWARD = ("ffn_gate", "ffn_in", "ffn_out")


@dataclass(frozen=True)
class LoraConfig:
    """Of a model, as it comes over the wire."""

    rank: Size = 32
    seed: Seed | None = None
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True

    @property
    def roles(self) -> tuple[str, ...]:
        """Of the sites that are to be changed."""
        chosen = (_ATTENTION if self.train_attn else ()) + (_FEED_FORWARD if self.train_mlp else ())
        return chosen + ((LM_HEAD,) if self.train_unembed else ())


def methods_of(config: LoraConfig, metadata: Mapping[str, Any], sites: Sequence[Site]) -> tuple[Method, ...]:
    """The methods of a model; GraftaxError where its metadata name none, or it would change nothing."""
    targets = _targets(config, sites)
    if (named := metadata.get(NAMED)) is None:
        return (LoRA(r=config.rank, alpha=ALPHA, targets=targets),)
    try:
        words, settings = _words(checked(named, str, NAMED))
        made = make_method(words)
        if made is None:
            raise GraftaxError(f"a model has a method, and {words!r} is a head alone.")
        parts = made if isinstance(made, tuple) else (made,)
        return tuple(_with(part, config.rank, targets, settings, parts) for part in parts)
    except GraftaxError as error:
        raise GraftaxError(f"user_metadata: {NAMED}: {error}") from None


def _targets(config: LoraConfig, sites: Sequence[Site]) -> tuple[str, ...]:
    """What the modules are called that the config names, each once: their paths within a layer."""
    named = dict.fromkeys(site.within or site.path for site in sites if site.kind == "linear" and site.role in config.roles)
    if not named:
        raise GraftaxError("lora_config: at least one of train_attn, train_mlp and train_unembed must be true.")
    return tuple(named)


def _words(named: str) -> tuple[str, Mapping[str, Any]]:
    """A method's name and its settings, of which a bare name has none."""
    if "{" not in named:
        return named, {}
    content = parse_json(named, "it")
    if not isinstance(content, dict) or not isinstance(content.get("method"), str):
        raise GraftaxError('expected a method\'s name, or {"method": NAME, and its settings}.')
    return content["method"], {name: value for name, value in content.items() if name != "method"}


def _with(part: Method, rank: int, targets: tuple[str, ...], settings: Mapping[str, Any], parts: Sequence[Method]) -> Method:
    """A method with the settings that it has; of LoRA and its kin with Tinker's rank, parts and alpha where none are given."""
    known = {field.name for one in parts for field in dataclasses.fields(one)}
    if unknown := settings.keys() - known:
        raise GraftaxError(f"no such setting: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}.")
    usual: dict[str, Any] = {"r": rank, "alpha": ALPHA, "targets": targets} if isinstance(part, LoRA) else {}
    own = {field.name for field in dataclasses.fields(part)}
    return dataclasses.replace(part, **{name: value for name, value in (usual | dict(settings)).items() if name in own})
