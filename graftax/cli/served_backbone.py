"""What `graftax serve` serves, as the command line says it: enough to make a service of in this process or in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..paths import anywhere
from ..serve.http.limits import Limits
from .arguments import Named

if TYPE_CHECKING:
    from ..serve.http.rounds import Around
    from ..serve.http.service import Service


@dataclass(frozen=True)
class ServedBackbone:
    """A backbone, its adapters and how they are served; the fields are `make_service`'s where nothing else is said."""

    backbone: str
    loading: Mapping[str, Any]  # as of `load_backbone`
    adapters: tuple[Named, ...]
    any_backbone: bool  # whether adapters may have been made for another
    hub: str | None  # its URL
    lanes: int
    slots: int
    limits: Limits
    roots: tuple[Path, ...]
    chat_template: str | None
    warm_up: bool

    def anywhere(self) -> ServedBackbone:
        """The same with whole paths, for a process that stands in another folder. (Each machine must have what they name.)"""
        adapters = tuple(Named(name, anywhere(location)) for name, location in self.adapters)
        loading = {name: anywhere(value) for name, value in self.loading.items()}
        return replace(self, backbone=anywhere(self.backbone), loading=loading, adapters=adapters, hub=anywhere(self.hub))

    def service(self, around: Around | None = None) -> Service:
        """What the endpoints share, with the backbone loaded and the adapters' names known.

        `around`: as of `make_service`; None: nobody shares the device.
        """
        from ..hub.told import Told
        from ..models.load import load_backbone
        from ..serve.http.rounds import at_once
        from ..serve.http.serving import make_service
        from ..store.store import Store

        store = Store(self.hub) if self.hub else None
        service = make_service(
            load_backbone(self.backbone, **self.loading),
            store=store,
            telling=Told(store),
            lanes=self.lanes,
            slots=self.slots,
            limits=self.limits,
            roots=self.roots,
            chat_template=self.chat_template,
            warm_up=say if self.warm_up else None,
            around=at_once if around is None else around,
        )
        register = service.residents.register
        handles = [register(name, location, any_backbone=self.any_backbone) for name, location in self.adapters]
        service.residents.reserve(handles)
        return service


def say(text: str) -> None:
    print(f"graftax: {text}", flush=True)
