"""What may be wrong with what a store holds, and not with the way to it."""

from __future__ import annotations

from ..errors import GraftaxError


class Damaged(GraftaxError):
    """Something in a store is missing, or is not what its digest or its signature says."""


class Untrusted(GraftaxError):
    """A version is signed by nobody whom this store's user trusts."""


class NewerSchema(GraftaxError):
    """Something was written by a later graftax: there is nothing wrong with it."""
