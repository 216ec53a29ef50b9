"""The hub: a store of adapters, with what only adapters have: what they fit, how they did, how two of them differ."""

from __future__ import annotations

from .hub import Hub

__all__ = ["Hub"]
