"""A span for each request, under vLLM's names; nothing of it is imported without an endpoint that is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Graftax
from http_servers import Served, served, speaker, until

from graftax.models.backbone import Backbone
from graftax.serve.http.traces import Traced

trace = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def told() -> Any:
    return in_memory.InMemorySpanExporter()


@pytest.fixture(scope="module")
def server(teller: Backbone, told: Any) -> Iterator[Served]:
    provider = trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(told))
    with served(teller, lanes=2, within=lambda app: Traced(app, provider.get_tracer("test"))) as there:
        there.service.residents.register("sea", speaker(teller, 1))
        yield there


def span_of(told: Any, call: Any) -> tuple[Any, Any]:
    """What a call answers, and the span that it made."""
    told.clear()
    answer = call()
    until(told.get_finished_spans)  # it ends behind the last byte
    (span,) = told.get_finished_spans()
    return answer, span


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_is_a_span(stream: bool, server: Served, told: Any) -> None:
    body = {"model": "sea", "prompt": "One day", "max_tokens": 5, "temperature": 0.5, "n": 2, "seed": 1, "stream": stream}
    headers = {"traceparent": CALLER}
    answer, span = span_of(told, lambda: server.ask("POST", "/v1/completions", json=body, headers=headers))
    assert (span.name, span.kind.name) == ("llm_request", "SERVER")
    assert f"{span.context.trace_id:032x}" == CALLER.split("-")[1]
    assert f"{span.parent.span_id:016x}" == CALLER.split("-")[2]
    said = dict(span.attributes)
    first, whole = said.pop("gen_ai.latency.time_to_first_token"), said.pop("gen_ai.latency.e2e")
    assert 0 < first <= whole
    assert said == {
        "http.response.status_code": 200,
        "gen_ai.request.id": answer.headers["x-request-id"],
        "gen_ai.request.model": "sea",
        "gen_ai.request.n": 2,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.usage.prompt_tokens": 8,
        "gen_ai.usage.completion_tokens": 10,
        "gen_ai.response.finish_reasons": ("length", "length"),
        "graftax.adapter": "sea",
        "graftax.adapter_digest": answer.headers["x-adapter-digest"],
    }


def test_what_is_read_and_refused(server: Served, told: Any) -> None:
    answer, span = span_of(told, lambda: server.post("/v1/embeddings", model="backbone", input="One day"))
    assert span.attributes["gen_ai.usage.prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert "graftax.adapter" not in span.attributes
    _, span = span_of(told, lambda: server.post("/v1/completions", model="nobody", prompt="One day"))
    assert span.attributes["http.response.status_code"] == 404
    told.clear()
    server.ask("GET", "/health")
    assert told.get_finished_spans() == ()


def test_nothing_is_imported_that_is_not_asked_for() -> None:
    code = "import sys, graftax.serve.http.traces, graftax.serve.http.app; print([m for m in sys.modules if 'telemetry' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_the_library(graftax: Graftax, teller_dir: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    done = graftax("serve", "-b", teller_dir, "--otlp-traces-endpoint", "http://127.0.0.1:1/v1/traces")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "needs opentelemetry: pip install 'graftax[traces]'" in done.err
