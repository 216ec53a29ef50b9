"""AdapterFusion in the files of AdapterHub's `adapters`: several directories beside each other, as its setups are saved.

    adapter_setup.json                      {adapter_setup: a Fuse of single adapters, head_setup: the head's directory}
    ONE/, ANOTHER/                          the adapters that are fused, as `files.py` has them
    ONE,ANOTHER/adapter_fusion_config.json  {config: the fusion's settings, name, adapter_names, ...}
    ONE,ANOTHER/model_adapter_fusion.safetensors
    HEAD/                                   head_config.json and model_head.safetensors, where there is a head

What is read is such a folder, or the fusion's directory among those of its adapters, with the head's files in it if there are
any. Where the adapters read the norm of the sum, queries are made of it, too (`query_normed`), unless `query_before_ln` is set.
A fusion without values is read with V at the identity. Refused: one without queries or keys, with the residual among the values
(`residual_before`) or a `temperature`, and one of parallel adapters, to which that library adds the residual stream twice.

Here a fusion keeps no names, places and widths of what it fuses: written, its adapters are `NAME_0`, `NAME_1`, ..., all of the
widest one's width and at all of the fusion's sites, with zeros where there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ....errors import GraftaxError
from ...adapter import Adapter
from ...directory import HUB_FUSION, HUB_SETUP, is_fusion, parse_tensors, read_json
from ...method import Leaves, Method, States
from ...methods.bottleneck import Bottleneck
from ...methods.compacter import Compacter
from ...methods.fusion import OF, Fuse, Fusion
from ...sites import Site
from ..peft.shared_keys import refuse_leftovers
from .dialect import Context
from .reading import VERSION, check_backbone, dumped, envelope, method_files, of_task_model, packed, read_head, with_head

if TYPE_CHECKING:
    from ....models.backbone import Backbone

WEIGHTS, PICKLE = "model_adapter_fusion.safetensors", "pytorch_model_adapter_fusion.bin"
#: Settings that say how a fusion began or is trained; values may be projected before the mean or after it.
_NEUTRAL = ("regularization", "value_initialized", "value_before_softmax", "dropout_prob")


@dataclass(frozen=True)
class FusionDialect:
    """A fusion under that library's keys; its adapters are in files of their own."""

    method: Fusion
    name: str
    held: Mapping[Site, Leaves]
    values: bool = True  # whether there is V

    def key(self, site: Site, part: str) -> str:
        return f"{site.path}.adapter_fusion_layer.{self.name}.{part}"

    def export(self, states: Mapping[Site, Leaves]) -> dict[str, np.ndarray]:
        tensors = {}
        for site, leaves in states.items():
            for part in ("query", "key", *(["value"] if self.values else [])):
                tensors[self.key(site, f"{part}.weight")] = np.asarray(np.asarray(leaves[part]).T, order="C")
            for part in ("query", "key"):
                tensors[self.key(site, f"{part}.bias")] = np.asarray(leaves[f"{part}_bias"])
        return tensors

    def restore(self, like: Mapping[Site, Leaves], tensors: Mapping[str, np.ndarray]) -> dict[Site, Leaves]:
        states = {}
        for site in like:
            own = {part: tensors[self.key(site, f"{part}.weight")].T for part in ("query", "key")}
            own |= {f"{part}_bias": tensors[self.key(site, f"{part}.bias")] for part in ("query", "key")}
            value = tensors[self.key(site, "value.weight")].T if self.values else np.eye(*site.shape, dtype=np.float32)
            states[site] = {**own, "value": value, **self.held[site]}
        return states


# -- reading ----------------------------------------------------------------------------------------------------------


class FusionFiles(NamedTuple):
    """What a fusion's directory holds, and where the rest of it is."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    members: tuple[Path, ...]  # of the adapters that are fused
    head: Path


def open_fusion(directory: Path) -> FusionFiles:
    """The files of the fusion that a setup names, or of a fusion's own directory."""
    directory, head = _located(directory)
    where, config = f"{directory / HUB_FUSION}", read_json(directory / HUB_FUSION)
    settings, name = config.get("config"), config.get("name")
    names = config.get("adapter_names") or name
    names = names.split(",") if isinstance(names, str) else names
    if not isinstance(settings, dict) or not isinstance(name, str) or not isinstance(names, list) or not _are_names(names):
        raise GraftaxError(f"{where}: expected the settings of a fusion under config, its name and adapter_names.")
    if not (directory / WEIGHTS).is_file():
        pickle = f"; {PICKLE} is a pickle, which graftax never reads" if (directory / PICKLE).exists() else ""
        raise GraftaxError(f"{directory}: no {WEIGHTS} there{pickle}.")
    members = tuple(directory.parent / member for member in names)
    if fused := next((member for member in members if is_fusion(member)), None):
        raise GraftaxError(f"{where}: one of the adapters that it fuses, {fused.name}, is a fusion itself.")
    tensors = parse_tensors((directory / WEIGHTS).read_bytes(), directory / WEIGHTS)
    return FusionFiles(directory, config, tensors, members, head)


def read_fusion(directory: Path, backbone: Backbone, load: Callable[[Path, Backbone], Adapter]) -> Adapter:
    """The fusion of a directory that holds a setup, or of its own; `load` reads the adapters that it fuses."""
    files = open_fusion(directory)
    where = f"{files.directory / HUB_FUSION}"
    check_backbone(files.config, backbone, where)
    trained = tuple(load(member, backbone) for member in files.members)
    found = read_head(files.head, backbone)
    sites = backbone.sites_for(found.head if found else None)
    method, held = Fuse(trained=trained).joined(sites)
    dialect = _read_settings(dict(files.config["config"]), method, files.config["name"], held, where)
    tensors = of_task_model(files.tensors, backbone)
    return with_head((dialect.method,), {dialect.method.key: dialect}, tensors, found, sites, files.directory)


def _located(directory: Path) -> tuple[Path, Path]:
    """The directories of the fusion and of its head."""
    if not (directory / HUB_SETUP).is_file():
        return directory, directory
    content = read_json(directory / HUB_SETUP)
    setup, head = content.get("adapter_setup"), content.get("head_setup")
    children = setup.get("children") if isinstance(setup, dict) and setup.get("type") == "Fuse" else None
    names = [_single(child) for child in children] if isinstance(children, list) else []
    if not names or not _are_names(names) or not (head is None or _are_names([head])):
        raise GraftaxError(
            f"{directory / HUB_SETUP}: not a Fuse of single adapters under one head. Of compositions graftax reads no files; "
            "it makes them of loaded adapters (docs/cli.md)."
        )
    fusion = directory / ",".join(names)
    return fusion, directory / head if head else fusion


def _single(child: Any) -> Any:
    """The adapter's name in a child of a setup that is one adapter."""
    held = child.get("children") if isinstance(child, dict) and child.get("type") == "single" else None
    return held[0] if held else None


def _are_names(names: list[Any]) -> bool:
    """Whether these are names of directories beside each other."""
    return all(isinstance(n, str) and Path(n).name == n and n not in ("", "..") for n in names)


def _read_settings(
    settings: dict[str, Any], method: Fusion, name: str, held: Mapping[Site, Leaves], where: str
) -> FusionDialect:
    if any(np.any(leaves.get(f"{OF}parallel", 0)) for leaves in held.values()):
        raise GraftaxError(f"{where}: not supported: a fusion of parallel adapters.")
    asked = {key: settings.pop(key, True) for key in ("query", "key")}
    if missing := [f"{key}={value!r}" for key, value in asked.items() if not value]:
        raise GraftaxError(f"{where}: not supported: {', '.join(missing)}.")
    values, before = bool(settings.pop("value", True)), settings.pop("query_before_ln", False)
    refuse_leftovers(settings, where, _NEUTRAL)
    return FusionDialect(replace(method, query_normed=_reads_norm(method) and not before), name, held, values)


def _reads_norm(method: Fusion) -> bool:
    """Whether the adapters that it fuses read the norm of the sum."""
    config = method.config()
    return isinstance(config, Bottleneck | Compacter) and config.normed


# -- writing ----------------------------------------------------------------------------------------------------------


def fusion_files(method: Fusion, states: States, name: str, head: bool, backbone: Backbone) -> dict[str, bytes]:
    """The files of a setup but for the head's, which come into the directory `name`."""
    context = Context(backbone.sites, backbone.family.prefix, name, "`adapters`")
    if context.spread(list(states))[1]:
        raise context.refuse("a fusion acts in every layer there")
    if method.query_normed and not _reads_norm(method):
        raise context.refuse("queries are made of the norm of the sum there only where the adapters read it")
    names = [f"{name}_{n}" for n in range(method.adapters)]
    files: dict[str, bytes] = {}
    for n, member in enumerate(names):
        one, own = _member(method, {site: _of(fixed, n) for site, (_, fixed) in states.items()}, context)
        written = method_files([(one, {site: (here, {}) for site, here in own.items()})], member, backbone)
        files |= {f"{member}/{file}": content for file, content in written.items()}
    fusion = ",".join(names)
    dialect = FusionDialect(method, fusion, {})
    settings: dict[str, Any] = {"query": True, "key": True, "value": True, "query_before_ln": not method.query_normed}
    settings |= {"regularization": True, "residual_before": False, "temperature": False, "value_before_softmax": True}
    settings |= {"value_initialized": True, "dropout_prob": None}
    config = envelope(fusion, backbone) | {"config": settings, "adapter_names": names}
    files[f"{fusion}/{HUB_FUSION}"] = dumped(config)
    files[f"{fusion}/{WEIGHTS}"] = packed(dialect.export({site: own for site, (own, _) in states.items()}))
    children = [{"type": "single", "children": [member]} for member in names]
    setup = {"adapter_setup": {"type": "Fuse", "children": children}, "head_setup": name if head else None}
    return files | {HUB_SETUP: dumped(setup | {"version": VERSION})}


def _of(fixed: Leaves, n: int) -> Leaves:
    """The leaves of the n-th adapter at a site."""
    return {leaf.removeprefix(OF): array[n] for leaf, array in fixed.items()}


def _member(fusion: Fusion, leaves: Mapping[Site, Leaves], context: Context) -> tuple[Method, dict[Site, Leaves]]:
    """One of the adapters by itself: its config and trained leaves."""
    config, targets = fusion.config(), tuple(site.path for site in leaves)
    if isinstance(config, Compacter):
        own = {site: {leaf: here[leaf] for leaf in config.blank(site)} for site, here in leaves.items()}
        return replace(config, width=fusion.width * config.n, targets=targets), own
    assert isinstance(config, Bottleneck)
    if any(here["parallel"] for here in leaves.values()):
        raise context.refuse("that library adds the residual stream once more where it fuses parallel adapters")
    scales = {site: np.asarray(here["scale"] * here["learned"] * here["channel"], np.float32) for site, here in leaves.items()}
    even = all(np.all(scale == scale[0]) for scale in scales.values())
    first = next(iter(scales.values()))[0]
    if even and all(scale[0] == first for scale in scales.values()):
        scaling: float | str = float(first)
    else:
        scaling = "learned" if even else "channel"
    method = replace(config, width=fusion.width, scaling=scaling, targets=targets)
    own = {site: {leaf: here[leaf] for leaf in ("down", "down_bias", "up", "up_bias")} for site, here in leaves.items()}
    if isinstance(scaling, str):
        own = {site: {**here, scaling: scales[site][:1] if even else scales[site]} for site, here in own.items()}
    return method, own
