"""Requests to a server whose adapters are swapped meanwhile, each answer held against what is right.

An answer must come from an adapter that its name meant at some moment while it was asked, say so in its header and its body
alike, and be that adapter's to the text that was asked. What is not so is kept in words.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from moments import GONE, Moments, now
from tiny_world import NEW_TOKENS, TEXTS, Side

from graftax import GraftaxError, Hub
from graftax.serve.loadtest.light_client import LightClient, NoAnswer

NAMES = 6  # under which adapters are loaded by hand
_TAG_SECONDS = (
    15.0  # for which a server may take a tag for what it was: a second, and what it takes to ask the hub on a busy machine
)
_MOST_TOLD = 50  # faults in words


class Traffic:
    """A side's server under requests and swaps. What a fault is, beyond answers that are not right, `excused` decides."""

    def __init__(self, side: Side, url: str, seed: int, excused: Callable[[str, float], bool] = lambda error, began: False):
        """`excused(error, began)`: whether a request begun then may end in this: a status, or "no answer"."""
        self.side, self._excused = side, excused
        self._client = LightClient(url)
        self._random = random.Random(seed)
        self._base = side.backbone.name
        self.moments = Moments()
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        for name, digests in side.versions.items():
            self.moments.over(self.moments.begin(f"{name}:prod", digests[-1]))
            for number, digest in enumerate(digests, 1):
                self.moments.begin(f"{name}:{number}", digest)

    # -- what changes -----------------------------------------------------------------------------------------------------

    async def load(self, name: str) -> None:
        """Load any of the adapters under a name."""
        seed = self._random.randrange(len(self.side.digests))
        content = {"lora_name": name, "lora_path": str(self.side.folder / str(seed)), "load_inplace": True}
        await self._change(name, self.side.digests[seed], "/v1/load_lora_adapter", content)

    async def unload(self, name: str) -> None:
        """Take a name away, unless a killed server has done so."""
        if GONE in self.moments.between(name, now(), now()):
            return
        await self._change(name, GONE, "/v1/unload_lora_adapter", {"lora_name": name})

    def forget(self, name: str) -> None:
        """The server is about to end, and does not know the name from then on."""
        self.moments.over(self.moments.begin(name, GONE))

    async def move_tag(self, hub: Hub) -> None:
        """Let the tag of a name on the hub mean another version."""
        name = self._random.choice(list(self.side.versions))
        number = self._random.randrange(len(self.side.versions[name])) + 1
        meaning = self.moments.begin(f"{name}:prod", self.side.versions[name][number - 1])
        try:
            await asyncio.to_thread(hub.tag, name, "prod", number)
        except GraftaxError:
            self.moments.over(meaning)
            raise
        self.moments.settled(f"{name}:prod", meaning, later=_TAG_SECONDS)
        self.counts["tags moved"] += 1

    async def swap(self, hub: Hub) -> None:
        """One change of any kind."""
        name = f"n{self._random.randrange(NAMES)}"
        drawn = self._random.random()
        if drawn < 0.2:
            await self.move_tag(hub)
        elif drawn < 0.4:
            await self.unload(name)
            await self.load(name)
        else:
            await self.load(name)

    async def _change(self, name: str, digest: str, path: str, content: dict[str, Any]) -> None:
        """Have the server let a name mean something else."""
        meaning = self.moments.begin(name, digest)
        if await self._changed(path, content):
            self.moments.settled(name, meaning)
        else:
            self.moments.over(meaning)

    async def _changed(self, path: str, content: dict[str, Any]) -> bool:
        began = now()
        try:
            status, body = await self._client.ask("POST", path, content)
        except NoAnswer:
            status, body = 0, b""
        if status == 200:
            self.counts["loads" if "unload" not in path else "unloads"] += 1
            return True
        if not self._excused(str(status) if status else "no answer", began):
            self.fault(f"{path} {content}: {status} {body[:200]!r}")
        return False

    # -- what is asked ----------------------------------------------------------------------------------------------------

    async def ask(self, give_up: bool = False, model: str | None = None) -> None:
        """Ask anything of an adapter, or of any, and look at the answer; with `give_up` go away before it is there."""
        model = model or self._model()
        texts = [self._random.randrange(len(TEXTS)) for _ in range(self._random.choice((1, 1, 2, 3)))]
        began = now()
        try:
            async with self._client.asked("POST", *self._request(model, [TEXTS[text] for text in texts], give_up)) as answer:
                if give_up:
                    self.counts["given up"] += 1
                    return
                body, said = await answer.whole(), answer.headers.get("x-adapter-digest")
        except NoAnswer as error:
            self._not_answered("no answer", str(error), model, began)
            return
        if answer.status != 200:
            self._not_answered(str(answer.status), body[:300].decode(errors="replace"), model, began)
            return
        self.counts["answered"] += 1
        self.look(model, texts, json.loads(body), said, began)

    def _model(self) -> str:
        """A name that was loaded by hand, a tag, a version; or the base, which has no head to classify with."""
        drawn = self._random.random()
        if drawn < 0.05 and self.side.kind == "completions":
            return self._base
        if drawn < 0.5:
            return f"n{self._random.randrange(NAMES)}"
        name = self._random.choice(list(self.side.versions))
        if drawn < 0.75:
            return f"{name}:prod"
        return f"{name}:{self._random.randrange(len(self.side.versions[name])) + 1}"

    def _request(self, model: str, texts: list[str], give_up: bool) -> tuple[str, dict[str, Any]]:
        if self.side.kind == "classify":
            return "/v1/classify", {"model": model, "input": texts}
        options = {"max_tokens": NEW_TOKENS * (8 if give_up else 1), "temperature": 0, "stream": give_up}
        return "/v1/completions", {"model": model, "prompt": texts, **options}

    def _not_answered(self, error: str, words: str, model: str, began: float) -> None:
        self.counts[error] += 1
        gone = error == "404" and GONE in self.moments.between(model, began, now())
        if not gone and not self._excused(error, began):
            self.fault(f"{model}: {error}: {words}")

    def look(self, model: str, texts: list[int], content: dict[str, Any], said: str | None, began: float) -> None:
        """Hold an answer, and the digest in its header, against what is right."""
        digest = content["adapter_digest"]
        if said != digest:
            self.fault(f"{model}: the header says {said}, the body {digest}")
        digest = None if digest is None else digest.removeprefix("sha256:")
        if model == self._base:
            if digest is not None:
                self.fault(f"the base was asked, and {digest} answered")
        elif digest not in self.moments.between(model, began, now()):
            self.fault(f"{model}: {digest} answered, which it did not mean")
        answers = content["data"] if self.side.kind == "classify" else content["choices"]
        if digest not in self.side.answers or len(answers) != len(texts):
            self.fault(f"{model}: {len(answers)} answers of {digest}")
            return
        for text, answer in zip(texts, sorted(answers, key=lambda one: one["index"]), strict=True):
            if not self.side.is_right(digest, text, answer):
                self.fault(f"{model}: {digest} does not say {answer} to {TEXTS[text]!r}")

    def fault(self, words: str) -> None:
        self.counts["faults"] += 1
        print(words, flush=True)
        if len(self.faults) < _MOST_TOLD:
            self.faults.append(words)
