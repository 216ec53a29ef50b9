"""Adapters as they come from elsewhere: in directories, and in OCI layouts that a test may write as it likes."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

from cases import random_adapter

from graftax import LoRA, save_adapter
from graftax.hub.model_pack import ARTEFACT_TYPE, CONFIG_TYPE
from graftax.hub.oci import IMAGE_MANIFEST
from graftax.models.backbone import Backbone


def graftax_directory(backbone: Backbone, folder: Path) -> Path:
    """graftax's directory of a LoRA, with a card and a license."""
    save_adapter(random_adapter(backbone, (LoRA(r=3, alpha=5.0),)), folder, backbone)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Bank\n\nIntents of a bank's customers.\n")
    (folder / "LICENSE").write_text("MIT")
    return folder


def as_peft_saves(of_graftax: Path) -> Path:
    """The same as PEFT would have saved it, beside it."""
    folder = of_graftax.parent / "peft"
    shutil.copytree(of_graftax, folder, ignore=shutil.ignore_patterns("graftax.json", "README.md", "LICENSE"))
    return folder


def contents(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def without_card(files: dict[str, bytes]) -> dict[str, bytes]:
    """The hub writes one, and renews one that is there."""
    return {path: content for path, content in files.items() if path != "README.md"}


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


class Layout:
    """A layout whose artefact a test may write as it likes."""

    def __init__(self, path: Path):
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add(self, content: bytes, media_type: str, title: str | None = None) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(content)
        descriptor: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
        return descriptor | ({} if title is None else {"annotations": {"org.cncf.model.filepath": title}})

    def index(self, manifest: dict[str, Any]) -> str:
        entry = self.add(json.dumps(manifest).encode(), IMAGE_MANIFEST)
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return f"oci:{self.path}"

    def artefact(self, layers: Any, **changes: Any) -> str:
        config = self.add(b"{}", CONFIG_TYPE)
        plain = {"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "artifactType": ARTEFACT_TYPE}
        return self.index(plain | {"config": config, "layers": layers} | changes)

    def files(self, folder: Path) -> list[dict[str, Any]]:
        kind = "application/vnd.cncf.model.weight.v1.raw"
        return [self.add(path.read_bytes(), kind, path.name) for path in sorted(folder.iterdir())]


def tarred(files: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                archive.addfile(member)
    return made.getvalue()
