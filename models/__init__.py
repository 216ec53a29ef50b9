"""Frozen backbones: loading them, and what they are."""

from .backbone import Backbone
from .family_registry import FAMILIES
from .load import load_backbone
from .pairs import pair

__all__ = ["FAMILIES", "Backbone", "load_backbone", "pair"]
