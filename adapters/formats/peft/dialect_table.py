"""The dialects there are, by method. A method that is not here, a third party's say, has the default one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....errors import GraftaxError
from ...method import Method
from ...methods.lora import OnResidual
from .dialect import Dialect
from .drawn import RandLoRADialect, VeRADialect
from .heads import HeadDialect
from .in_place import AdaBNDialect, IA3Dialect, LayerNormDialect, TrainableTokensDialect
from .loras import AdaLoRADialect, ALoRADialect, DoRADialect, LoRADialect, LoRAFADialect
from .prompts import PrefixDialect, PromptDialect, PTuningDialect
from .rotations import BOFTDialect, HRADialect, OFTDialect, RoAdDialect
from .updates import FourierFTDialect, HiRADialect, LoHaDialect, LoKrDialect, MiSSDialect, SHiRADialect

_ALL: tuple[type[Dialect], ...] = (
    *(LoRADialect, LoRAFADialect, DoRADialect, VeRADialect, RandLoRADialect),
    *(LoHaDialect, LoKrDialect, MiSSDialect, HiRADialect, AdaLoRADialect, ALoRADialect),
    *(OFTDialect, BOFTDialect, HRADialect, FourierFTDialect, RoAdDialect),
    *(IA3Dialect, LayerNormDialect, AdaBNDialect, SHiRADialect, TrainableTokensDialect),
    *(PrefixDialect, PromptDialect, PTuningDialect),
    HeadDialect,
)
_DIALECTS: dict[type[Method], type[Dialect]] = {dialect.of: dialect for dialect in _ALL}
_DIALECTS[OnResidual] = LoRADialect  # what PEFT's LoRA is while it has to begin anew on the weights it is read for


def dialect_class(method: type[Method]) -> type[Dialect]:
    """The dialect of a class of methods: of this very class, because a subclass may hold and do something else."""
    return _DIALECTS.get(method, Dialect)


def dialect_of(method: Method) -> Dialect:
    """A method as files have it."""
    return dialect_class(type(method))(method)


def dialect_for(config: Mapping[str, Any]) -> type[Dialect]:
    """The dialect that a PEFT config is in; an error that names what can be read where there is none."""
    readers = [dialect for dialect in _ALL if dialect.reads(config)]
    if not readers:
        known = ", ".join(dict.fromkeys(dialect.peft_type for dialect in _ALL if dialect.peft_type))
        raise GraftaxError(f"peft_type {config.get('peft_type')!r} is not supported; supported are {known}.")
    return max(readers, key=lambda dialect: len(dialect.__mro__))  # the most special: a DoRA's config is a LoRA's too
