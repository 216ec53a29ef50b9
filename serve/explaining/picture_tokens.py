"""Backbones that read a picture as tokens, one for each patch: what explanations need to know of them."""

from __future__ import annotations

from ...models.backbone import Backbone


def has_tokens(backbone: Backbone) -> bool:
    """Whether what passes its layers are tokens of a picture, each in sight of all, and not feature maps."""
    kinds = {site.kind for site in backbone.sites}
    return backbone.family.processor.kind == "image" and {"input", "attention"} <= kinds


def grid_of(backbone: Backbone, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the patches of a picture; they are the last of its tokens, row by row."""
    down, across = backbone.config.patch_size
    return height // down, width // across
