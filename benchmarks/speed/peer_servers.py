"""The servers that people write around PEFT and sentence-transformers, for served.py to ask beside `graftax serve`.

    python benchmarks/speed/peer_servers.py peft-classify|peft-complete|sentences BACKBONE [--mixed] NAME=DIR ...

Starlette on uvicorn, as graftax; the paths and the JSON are its own, as far as `graftax loadtest` looks. A thread answers what
waits in batches of up to 32: a batch is of the adapter for which was waited longest, which `set_adapter` makes the active one;
with `--mixed` it is of any adapters, by PEFT's `adapter_names`, which LoRA alone has. A batch of texts is written until its
longest is done. It says where it is as `graftax serve` does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MOST = 32  # requests of a batch
BASE = "base"


@dataclass(eq=False)
class Ask:
    """A request that waits."""

    adapter: str
    body: dict[str, Any]
    answer: asyncio.Future[dict[str, Any]]
    loop: asyncio.AbstractEventLoop


class Batches:
    """Requests, answered in batches by a thread of its own."""

    def __init__(self, compute: Callable[[Sequence[Ask]], list[dict[str, Any]]], mixed: bool):
        self._compute, self._mixed = compute, mixed
        self._waiting: list[Ask] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    async def answered(self, adapter: str, body: dict[str, Any]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        ask = Ask(adapter, body, loop.create_future(), loop)
        with self._changed:
            self._waiting.append(ask)
            self._changed.notify()
        return await ask.answer

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                first = self._waiting[0].adapter
                batch = [ask for ask in self._waiting if self._mixed or ask.adapter == first][:MOST]
                self._waiting = [ask for ask in self._waiting if ask not in batch]
            for ask, answer in zip(batch, self._compute(batch), strict=True):
                ask.loop.call_soon_threadsafe(ask.answer.set_result, answer)


class OfPeft:
    """A model of transformers' under PEFT's adapters."""

    def __init__(self, model: Any, tokenizer: Any, adapters: dict[str, str], mixed: bool):
        from peft import PeftModel

        (first, directory), *others = adapters.items()
        self.model = PeftModel.from_pretrained(model, directory, adapter_name=first)
        for name, directory in others:
            self.model.load_adapter(directory, adapter_name=name)
        self.model.eval()
        self.tokenizer, self._mixed = tokenizer, mixed

    def under(self, batch: Sequence[Ask]) -> tuple[AbstractContextManager[Any], dict[str, Any]]:
        """What makes the adapters of a batch act: around the call, and in it."""
        if self._mixed:
            return nullcontext(), {"adapter_names": ["__base__" if ask.adapter == BASE else ask.adapter for ask in batch]}
        if batch[0].adapter == BASE:
            return self.model.disable_adapter(), {}
        self.model.set_adapter(batch[0].adapter)
        return nullcontext(), {}

    @torch.inference_mode()
    def classified(self, batch: Sequence[Ask]) -> list[dict[str, Any]]:
        texts = [ask.body["input"] for ask in batch]
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        around, options = self.under(batch)
        with around:
            chances = torch.softmax(self.model(**inputs, **options).logits, -1).tolist()
        counts = inputs["attention_mask"].sum(1).tolist()
        return [
            {"data": [{"probs": own}], "usage": {"prompt_tokens": count}} for own, count in zip(chances, counts, strict=True)
        ]

    @torch.inference_mode()
    def completed(self, batch: Sequence[Ask]) -> list[dict[str, Any]]:
        inputs = self.tokenizer([ask.body["prompt"] for ask in batch], padding=True, return_tensors="pt")
        around, options = self.under(batch)
        wanted = [ask.body["max_tokens"] for ask in batch]
        with around:
            ids = self.model.generate(**inputs, max_new_tokens=max(wanted), do_sample=False, **options)
        answers, read = [], inputs["attention_mask"].sum(1).tolist()
        for own, most, count in zip(ids[:, inputs["input_ids"].shape[1] :].tolist(), wanted, read, strict=True):
            kept = [one for one in own[:most] if one != self.tokenizer.pad_token_id]
            text = self.tokenizer.decode(kept, skip_special_tokens=True)
            usage = {"prompt_tokens": count, "completion_tokens": len(kept)}
            answers.append({"choices": [{"index": 0, "text": text}], "usage": usage})
        return answers


class OfSentences:
    """sentence-transformers."""

    def __init__(self, folder: str):
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": torch.float32})

    def embedded(self, batch: Sequence[Ask]) -> list[dict[str, Any]]:
        vectors = self._model.encode([ask.body["input"] for ask in batch], batch_size=MOST)
        return [{"data": [{"embedding": vector.tolist()}], "usage": {}} for vector in vectors]


def app_of(batches: Batches, names: Sequence[str]) -> Starlette:
    cards = [{"id": BASE, "parent": None}, *({"id": name, "parent": BASE} for name in names)]

    async def models(request: Request) -> Response:
        return JSONResponse({"data": cards})

    async def answer(request: Request) -> Response:
        body = await request.json()
        made = await batches.answered(body["model"], body)
        if not body.get("stream"):
            return JSONResponse(made)
        events = [f"data: {json.dumps(made)}\n\n", "data: [DONE]\n\n"]
        return StreamingResponse(iter(events), media_type="text/event-stream")

    paths = ["/v1/classify", "/v1/completions", "/v1/embeddings"]
    return Starlette(routes=[Route("/v1/models", models), *(Route(path, answer, methods=["POST"]) for path in paths)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["peft-classify", "peft-complete", "sentences"])
    parser.add_argument("backbone")
    parser.add_argument("adapters", nargs="*")
    parser.add_argument("--mixed", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    adapters = dict(one.split("=", 1) for one in chosen.adapters)
    if chosen.what == "sentences":
        compute: Any = OfSentences(chosen.backbone).embedded
    elif chosen.what == "peft-classify":
        from torch_loop import base_model

        compute = OfPeft(*base_model(16), adapters, chosen.mixed).classified
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(chosen.backbone, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(chosen.backbone, padding_side="left")
        compute = OfPeft(model, tokenizer, adapters, chosen.mixed).completed
    app = app_of(Batches(compute, chosen.mixed or not adapters), list(adapters))
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen(2048)
        print(f"peer: {chosen.what} at http://127.0.0.1:{there.getsockname()[1]}/v1", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[there])


if __name__ == "__main__":
    main()
