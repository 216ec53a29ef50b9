"""Endpoints that others bring to the server: guarded as its own are, and begun and ended with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from http_servers import served
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graftax import GraftaxError
from graftax.models.backbone import Backbone
from graftax.serve.http.complaints import as_json
from graftax.serve.http.further import Body, Poll, Unguarded
from graftax.serve.http.keys import Key
from graftax.serve.http.quotas import Quota
from graftax.serve.http.service import Service


class Shelf:
    """What others bring: things by their names, which can be looked at and taken away."""

    def __init__(self, service: Service, name: str, heard: list[str]):
        self._service, self._name, self._heard = service, name, heard
        self.things = {"cup": 3}

    @property
    def routes(self) -> Sequence[Route]:
        polls = Poll(f"/{self._name}/polled", self._polled, methods=["POST"])
        everybodys = Unguarded(f"/{self._name}/open/{{thing}}", self._answer, methods=["GET"])
        return [everybodys, polls, Route(f"/{self._name}/{{thing}}", self._answer, methods=["GET", "DELETE"])]

    @property
    def bodies(self) -> Mapping[str, Body]:
        return {}

    async def _polled(self, request: Request) -> Response:
        return as_json({"there": False}, 408)

    async def _answer(self, request: Request) -> Response:
        thing = request.path_params["thing"]
        if thing not in self.things:
            raise GraftaxError(f"there is no {thing} on the {self._name}.")
        return as_json({thing: self.things[thing] if request.method == "GET" else self.things.pop(thing)})

    def start(self) -> None:
        assert self._service.rounds.alive
        self._heard.append(f"{self._name} begins")

    def stop(self) -> None:
        assert self._service.rounds.alive
        self._heard.append(f"{self._name} ends")


def test_they_are_answered_as_the_servers_own_are(tiny: Backbone) -> None:
    """With a key in either header, and with an error in the same form; the last that has begun ends first."""
    heard: list[str] = []
    keys = (Key(hashlib.sha256(b"sesame").digest(), admin=False),)

    def brought(service: Service) -> list[Shelf]:
        return [Shelf(service, "shelf", heard), Shelf(service, "table", heard)]

    with served(tiny, keys=keys, further=brought) as server:
        assert heard == ["shelf begins", "table begins"]
        assert server.ask("GET", "/shelf/cup").json()["error"]["code"] == "invalid_api_key"
        assert server.ask("GET", "/shelf/cup", headers={"X-API-Key": "guessed"}).status_code == 401
        assert server.ask("GET", "/shelf/open/cup").json() == {"cup": 3}
        assert server.ask("GET", "/shelf/open/cup/other").status_code == 401
        assert server.ask("GET", "/shelf/cup", headers={"X-API-Key": "sesame"}).json() == {"cup": 3}
        bearer = {"Authorization": "Bearer sesame"}
        assert server.ask("DELETE", "/shelf/cup", headers=bearer).json() == {"cup": 3}
        refused = server.ask("GET", "/shelf/cup", headers=bearer)
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, "there is no cup on the shelf.")
        assert server.ask("GET", "/table/cup", headers=bearer).json() == {"cup": 3}
        assert server.ask("POST", "/table/cup", headers=bearer).status_code == 405
    assert heard[2:] == ["table ends", "shelf ends"]


def test_who_only_asks_again_uses_up_nothing(tiny: Backbone) -> None:
    """A poll is in no quota, and no failure, whatever its status is; a POST elsewhere is both."""
    keys = (Key(hashlib.sha256(b"sesame").digest(), admin=False, quota=Quota(rpm=1)),)
    of_key = {"Authorization": "Bearer sesame"}
    with served(tiny, keys=keys, further=lambda service: [Shelf(service, "shelf", [])]) as server:
        for _ in range(3):
            assert server.ask("POST", "/shelf/polled", headers=of_key).status_code == 408
        assert server.service.counts.recent.failed == 0
        assert server.ask("POST", "/shelf/cup", headers=of_key).status_code == 405
        assert server.ask("POST", "/shelf/cup", headers=of_key).status_code == 429
        assert server.service.counts.recent.failed == 2
        assert server.ask("POST", "/shelf/polled", headers=of_key).status_code == 408
