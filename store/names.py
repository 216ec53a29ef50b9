"""What a version of something in a store is called.

bank/intent              the newest version that has not been withdrawn
bank/intent:3            the third
bank/intent:prod         what a tag points to, which may share its traffic between versions
bank/intent@sha256:9f2c  the one of that digest, whatever is said of it now (at least 8 digits)
sha256:9f2c81d04e...     the same, under whatever name
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import GraftaxError
from ..typed import shown

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"  # begins and ends such that it is a folder's name everywhere
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")
_NUMBER = re.compile(r"[+-]?[0-9]+")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
LARGEST_VERSION = 10**9 - 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{8,64}")
_LONGEST = 128  # characters of a name or a tag
_RESERVED = "sha256"  # with a version behind it, it would read as a digest
LATEST = "latest"  # the tag that every name has, without anybody setting it


@dataclass(frozen=True)
class Reference:
    """What a text refers to: `name`, and of it at most one of `version`, `tag` and `digest`; or a digest alone."""

    name: str | None
    version: int | None = None
    tag: str | None = None
    digest: str | None = None  # hexadecimal, perhaps only its beginning

    def __str__(self) -> str:
        if self.name is None:
            return f"sha256:{self.digest}"
        if self.digest is not None:
            return f"{self.name}@sha256:{self.digest}"
        which = self.version if self.version is not None else self.tag
        return self.name if which is None else f"{self.name}:{which}"


def parse_reference(text: str) -> Reference:
    """What a text refers to; GraftaxError where it cannot be a name in a store."""
    if _DIGEST.fullmatch(text):
        return Reference(None, digest=text.removeprefix("sha256:"))
    name, at, digest = text.partition("@")
    if at:
        if not _DIGEST.fullmatch(digest):
            raise GraftaxError(f"{shown(text)}: behind @ stands a digest, sha256: and 8 to 64 hexadecimal digits.")
        return Reference(check_name(name), digest=digest.removeprefix("sha256:"))
    name, colon, which = text.partition(":")
    check_name(name)
    if not colon or which == LATEST:
        return Reference(name)
    if (version := parse_version(which)) is not None:
        return Reference(name, version=version)
    refuse_number(text)
    return Reference(name, tag=check_tag(which))


def refuse_number(text: str) -> None:
    """An error where a number that can be no version's stands behind a name."""
    name, _, which = text.partition(":")
    if _NAME.fullmatch(name) and _NUMBER.fullmatch(which) and parse_version(which) is None:
        raise GraftaxError(f"{shown(text)}: versions are numbers from 1 to {LARGEST_VERSION:,}, as in {name}:1.")


def parse_version(text: str) -> int | None:
    """A version's number, from 1 to 999,999,999; None where a text is none."""
    return int(text) if _VERSION.fullmatch(text) else None


def is_reference(text: str) -> bool:
    """Whether a text has the form of a name in a store."""
    try:
        parse_reference(text)
    except GraftaxError:
        return False
    return True


def check_name(name: str) -> str:
    """A name, if it may be one."""
    if not isinstance(name, str) or len(name) > _LONGEST or not _NAME.fullmatch(name) or name == _RESERVED:
        raise GraftaxError(
            f"{shown(name)} is no name for a hub: letters, digits, '.', '-' and '_', in parts between slashes "
            f"(bank/intent), at most {_LONGEST} in all; no part begins with '.' or '-' or ends with '.'; {_RESERVED} is none."
        )
    return name


def check_tag(tag: str) -> str:
    """A tag that somebody may set."""
    if not isinstance(tag, str) or len(tag) > _LONGEST or not _TAG.fullmatch(tag) or tag == LATEST:
        raise GraftaxError(
            f"{shown(tag)} is no tag: a letter, then letters, digits, '.', '-' and '_'; {LATEST} is the newest version's own."
        )
    return tag
