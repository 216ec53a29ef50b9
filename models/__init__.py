"""Frozen backbones: loading them, and what they are."""

from .backbone import Backbone
from .load import load_backbone
from .registry import FAMILIES

__all__ = ["FAMILIES", "Backbone", "load_backbone"]
