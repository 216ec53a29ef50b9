"""Adapter methods, a file each, and what several of them share."""

from . import builtin as builtin
