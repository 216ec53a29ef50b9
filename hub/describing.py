"""An adapter's directory as a version of a store: its files, and what they say of it. Needs no backbone.

graftax's own directories say everything in `graftax.json`. Those of PEFT and AdapterHub name their backbone and method, and no
fingerprint: whether they fit is only known when they are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from .. import __version__
from ..adapters.directory import (
    CONFIG,
    HUB_FUSION,
    HUB_SETUP,
    HUB_WEIGHTS,
    WEIGHTS,
    from_hub,
    is_fusion,
    parse_tensors,
    read_directory,
)
from ..adapters.facts import EXTRA, Facts
from ..adapters.formats.adapterhub.fusions import WEIGHTS as FUSION_WEIGHTS
from ..adapters.formats.adapterhub.fusions import open_fusion
from ..adapters.formats.peft.dialect_table import dialect_for
from ..adapters.located import HUB_ID
from ..adapters.task_words import task_in_peft
from ..data.text_files import decoded
from ..errors import GraftaxError
from ..json_files import read_bytes, read_object
from ..notes import note
from ..store.manifest import DataFacts, Manifest
from .card import FILE as CARD
from .card import library_of, read_card, write_card

OF_ADAPTERS = (
    *(CONFIG, WEIGHTS, EXTRA),
    *(HUB_WEIGHTS, HUB_SETUP, HUB_FUSION, FUSION_WEIGHTS, "head_config.json", "model_head.safetensors"),  # AdapterHub's
)
BESIDE = (CARD, "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
_MOST_BYTES = 1 << 34


def is_part(path: str) -> bool:
    """Whether a file of an adapter's directory belongs to the adapter, by its name."""
    return PurePosixPath(path).name in (*OF_ADAPTERS, *BESIDE)


def files_of(directory: Path) -> dict[str, bytes]:
    """The files of an adapter's directory that belong to it, by their paths; a note says which were left out.

    Raises GraftaxError where there is no sound adapter.
    """
    if is_fusion(directory):
        outside = [member for member in open_fusion(directory).members if not member.is_relative_to(directory)]
        if outside:
            raise GraftaxError(f"{directory}: fuses {outside[0]}, which is outside of it; the directory of its setup has all.")
    else:
        read_directory(directory)
    found, left = {}, []
    nested = is_fusion(directory)
    for file in sorted(directory.rglob("*")):
        path = file.relative_to(directory).as_posix()
        if file.is_file() and is_part(path) and (nested or file.parent == directory):
            found[path] = read_bytes(file, _MOST_BYTES)
        elif not file.is_dir():
            left.append(path)
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        note(f"{directory}: no part of the adapter, and left out: {', '.join(left[:5])}{more}.")
    return found


def manifest_of(directory: Path) -> Manifest:
    """What an adapter's directory says of itself; the files are not in it yet."""
    if is_fusion(directory):
        config = read_object(open_fusion(directory).members[0] / CONFIG)
        backbone, model_type = _called(config.get("model_name")), config.get("model_type")
        return Manifest({}, backbone=backbone, model_type=model_type, methods=("fusion",))
    config, facts, data = read_directory(directory)
    if facts is not None and (facts.methods or config.get("peft_type") == "GRAFTAX"):
        return _of_graftax(config, facts)
    if from_hub(config):
        tensors = parse_tensors(data, directory / HUB_WEIGHTS)
        return _of_adapterhub(config, _size(tensors))
    return _of_peft(config, facts, _size(parse_tensors(data, directory / WEIGHTS)))


def library_in(directory: Path) -> str:
    """Whose files those of an adapter's directory are, in the Hugging Face Hub's word for it."""
    folder = open_fusion(directory).members[0] if is_fusion(directory) else directory
    return library_of(read_object(folder / CONFIG))


def with_card(
    manifest: Manifest, contents: Mapping[str, bytes], directory: Path, name: str, source: str | Path | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    """What is known of an adapter's directory and its files, with what its card says, and the card as it is under a name.

    `source`: where it comes from, in a note, if not from that directory.
    """
    note_where_unknown(manifest, directory if source is None else source)
    there = decoded(contents[CARD], str(directory / CARD)) if CARD in contents else None
    if there is not None:
        said = read_card(there, str(directory / CARD))
        manifest = replace(manifest, description=said.description, keywords=said.keywords, license=said.license)
    return manifest, {**contents, CARD: write_card(manifest, (), there, name, library=library_in(directory)).encode()}


def note_where_unknown(manifest: Manifest, source: str | Path) -> None:
    """A note where nobody knows which weights an adapter is for."""
    if manifest.fingerprint is None:
        what = f"{'+'.join(manifest.methods)} for {manifest.backbone or 'a backbone that it does not name'}"
        note(f"{source}: {what}, without a fingerprint: whether it fits is not known. Given a backbone, it is loaded first.")


def _of_graftax(config: Mapping[str, Any], facts: Facts) -> Manifest:
    methods = facts.methods if facts.methods is not None else config.get("methods", ())
    return Manifest(
        {},
        backbone=_called(facts.backbone.name),
        model_type=facts.backbone.model_type,
        fingerprint=facts.backbone.fingerprint,
        methods=tuple(str(method.get("method")) for method in methods),
        task=facts.task,
        labels=facts.labels,
        parameters=facts.parameters,
        recipe=facts.recipe,
        data=facts.data or DataFacts(),
        metrics=facts.metrics,
        parents=facts.parents,
        graftax=__version__,
    )


def _of_peft(config: Mapping[str, Any], facts: Facts | None, parameters: int) -> Manifest:
    """PEFT's directory; one that graftax wrote and somebody changed has facts, which hold still."""
    facts = facts or Facts()
    try:
        method = dialect_for(config).of.name
    except GraftaxError as error:  # it may be kept all the same, for who can read it
        note(f"{error} The hub keeps it, and graftax cannot load it.")
        method = str(config.get("peft_type")).lower()
    named = config.get("base_model_name_or_path")
    return Manifest(
        {},
        backbone=_called(facts.backbone.name or named),
        model_type=facts.backbone.model_type,
        fingerprint=facts.backbone.fingerprint,
        methods=(method,),
        task=facts.task or task_in_peft(config.get("task_type")),
        labels=facts.labels,
        parameters=facts.parameters or parameters,
        recipe=facts.recipe,
        data=facts.data or DataFacts(),
        metrics=facts.metrics,
        parents=facts.parents,
        graftax=__version__ if facts.sha256 else None,
    )


def _of_adapterhub(config: Mapping[str, Any], parameters: int) -> Manifest:
    architecture = config["config"].get("architecture") or ("bottleneck" if "reduction_factor" in config["config"] else None)
    return Manifest(
        {},
        backbone=_called(config.get("model_name")),
        model_type=config.get("model_type"),
        methods=(str(architecture or "adapter"),),
        parameters=parameters,
    )


def _called(backbone: object) -> str | None:
    """A backbone's name for others: a Hub id, else of a path on somebody's machine the last part."""
    if not isinstance(backbone, str) or not backbone:
        return None
    return backbone if HUB_ID.fullmatch(backbone) else Path(backbone).name


def _size(tensors: Mapping[str, Any]) -> int:
    return sum(tensor.size for tensor in tensors.values())
