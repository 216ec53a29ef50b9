"""Traces: a span for each request, told to a collector of OpenTelemetry (OTLP over HTTP; the extra `traces`).

    graftax serve -b LLAMA --otlp-traces-endpoint http://localhost:4318/v1/traces

Attributes have vLLM's names, which are those of OpenTelemetry's conventions for generative AI where it has them. What an
endpoint knows of its request it notes (`service.note`); without an endpoint that is told nothing of this is imported. A request
that brings a `traceparent` is part of that trace.
"""

from __future__ import annotations

import time
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...errors import GraftaxError

_ATTRIBUTES = {
    "model": "gen_ai.request.model",
    "n": "gen_ai.request.n",
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "prompt_tokens": "gen_ai.usage.prompt_tokens",
    "completion_tokens": "gen_ai.usage.completion_tokens",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "adapter": "graftax.adapter",
    "adapter_digest": "graftax.adapter_digest",
}


def tracer_to(endpoint: str) -> Any:
    """A tracer whose spans are told to an endpoint, in a thread of its own; GraftaxError where the extra is missing."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise GraftaxError("--otlp-traces-endpoint needs opentelemetry: pip install 'graftax[traces]'.") from None
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "graftax"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return provider.get_tracer("graftax")


class Traced:
    """An app whose requests that ask for something (POST) are spans."""

    def __init__(self, app: ASGIApp, tracer: Any):
        self._app, self._tracer = app, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        facts: dict[str, Any] = {}
        came = extract(dict(Headers(scope=scope)))
        with self._tracer.start_as_current_span("llm_request", context=came, kind=SpanKind.SERVER) as span:
            heard = _Heard(send, span)
            try:
                await self._app({**scope, "state": {**scope.get("state", {}), "facts": facts}}, receive, heard)
            finally:
                span.set_attribute("gen_ai.latency.e2e", time.monotonic() - heard.begun)
                span.set_attributes({_ATTRIBUTES[name]: fact for name, fact in facts.items() if fact is not None})


class _Heard:
    """What is sent, of which a span is told what matters."""

    def __init__(self, send: Send, span: Any):
        self._send, self._span, self._first = send, span, True
        self.begun = time.monotonic()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._span.set_attribute("http.response.status_code", message["status"])
            self._span.set_attribute("gen_ai.request.id", Headers(raw=message["headers"]).get("x-request-id", ""))
        elif self._first and message.get("body"):
            self._first = False
            self._span.set_attribute("gen_ai.latency.time_to_first_token", time.monotonic() - self.begun)
        await self._send(message)
