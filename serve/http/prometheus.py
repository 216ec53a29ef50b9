"""/metrics: numbers for Prometheus, under vLLM's names where it has them: what watches vLLM, or routes to it, can here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from ..continuation import Continuation
from ..turns import ADMIN
from .quotas import spend
from .recent import Recent

if TYPE_CHECKING:
    from .service import Service

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"  # the format of Prometheus' texts
_BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, float("inf"))  # seconds


class Counts:
    """What was done since the beginning. For the thread of the event loop."""

    def __init__(self) -> None:
        self.responses: Counter[int] = Counter()  # by status
        self.recent = Recent()
        self.prompt_tokens = self.written_tokens = 0
        self.finished: Counter[str] = Counter()  # texts, by what ended them
        self.seconds = 0.0  # that all texts took together
        self.latencies: Counter[float] = Counter()  # texts, by the first bound that they took no longer than

    def read(self, tokens: int) -> None:
        """Tokens of prompts and texts that are to be read."""
        self.prompt_tokens += tokens
        spend(tokens)

    def ended(self, end: Continuation, seconds: float) -> None:
        """A text was written."""
        self.written_tokens += len(end.tokens)
        spend(len(end.tokens))
        self.finished["length" if end.finished == "length" else "stop"] += 1
        self.seconds += seconds
        self.latencies[next(bound for bound in _BOUNDS if seconds <= bound)] += 1


async def metrics(service: Service, request: Request) -> Response:
    """All of them, as Prometheus reads them; adapters of one tenant are named to him and to admins."""
    said = "".join(_families(service, lambda name: ADMIN.get() or service.shows(name)))
    return Response(said, media_type=EXPOSITION)


def _families(service: Service, shows: Callable[[str], bool]) -> Iterable[str]:
    base, counts, tiers = {"model_name": service.name}, service.counts, service.residents.tiers()
    running, waiting = service.engine.running, service.engine.waiting
    yield _gauge("vllm:num_requests_running", "Texts that are being written.", base, len(running))
    yield _gauge("vllm:num_requests_waiting", "Texts that wait for a lane.", base, len(waiting))
    which = {
        "max_lora": str(service.slots),
        "running_lora_adapters": _named(running, shows),
        "waiting_lora_adapters": _named(waiting, shows),
    }
    yield _gauge("vllm:lora_requests_info", "Adapters used and waited for; the value is the time.", which, time.time())
    yield _counter("vllm:prompt_tokens_total", "Tokens that were read.", [(base, counts.prompt_tokens)])
    yield _counter("vllm:generation_tokens_total", "Tokens that were written.", [(base, counts.written_tokens)])
    finished = [({**base, "finished_reason": reason}, count) for reason, count in sorted(counts.finished.items())]
    yield _counter("vllm:request_success_total", "Texts that were written to their end.", finished)
    yield _latencies(base, counts)
    yield _gauge("graftax:reading_requests_waiting", "Requests to be answered.", base, len(service.engine.readings.waiting))
    yield _gauge("graftax:adapters_on_device", "Adapters that have a slot.", base, len(tiers.device))
    yield _gauge("graftax:adapters_in_memory", "Adapters in the host's memory that have none.", base, len(tiers.host))
    yield _counter("graftax:adapter_hits_total", "Adapters that had a slot when they were needed.", [(base, tiers.hits)])
    yield _counter("graftax:adapter_reads_total", "Adapters that were read into memory.", [(base, tiers.reads)])
    yield _counter("graftax:adapter_writes_total", "Slots that were written.", [(base, tiers.writes)])
    yield _counter("graftax:adapter_evictions_total", "Adapters that gave up a slot for another.", [(base, tiers.evictions)])
    responses = [({"status": str(status)}, count) for status, count in sorted(counts.responses.items())]
    yield _counter("graftax:responses_total", "Answers, by status.", responses)


def with_label(label: str, said: Mapping[str, str]) -> str:
    """What several processes say, as one: each sample has a label of whose it is, and a family's samples stand together.

    Args:
        label: its name.
        said: by its value what `metrics` answers.
    """
    families: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for whose, text in said.items():
        family = ""
        for line in text.splitlines(keepends=True):
            if line.startswith("# HELP "):
                family = line
                families.setdefault(family, [])
            elif line.startswith("# TYPE "):
                kinds[family] = line
            else:
                families[family].append(line.replace("{", f'{{{label}="{_escaped(whose)}",', 1))
    return "".join(family + kinds[family] + "".join(samples) for family, samples in families.items())


def _named(requests: Iterable[object], shows: Callable[[str], bool]) -> str:
    """The adapters of requests, with commas between; of those that are to be named."""
    handles = {handle for request in requests for handle in getattr(request, "handles", ())}
    return ",".join(sorted({str(handle) for handle in handles if shows(handle.name)}))


def _latencies(base: Mapping[str, str], counts: Counts) -> str:
    name, below, lines = "vllm:e2e_request_latency_seconds", 0, []
    for bound in _BOUNDS:
        below += counts.latencies[bound]
        lines.append(_line(f"{name}_bucket", {**base, "le": "+Inf" if bound == _BOUNDS[-1] else f"{bound:g}"}, below))
    lines += [_line(f"{name}_sum", base, counts.seconds), _line(f"{name}_count", base, below)]
    return _head(name, "histogram", "Seconds that texts took.") + "".join(lines)


def _gauge(name: str, help: str, labels: Mapping[str, str], value: float) -> str:
    return _head(name, "gauge", help) + _line(name, labels, value)


def _counter(name: str, help: str, values: Iterable[tuple[Mapping[str, str], float]]) -> str:
    return _head(name, "counter", help) + "".join(_line(name, labels, value) for labels, value in values)


def _head(name: str, kind: str, help: str) -> str:
    return f"# HELP {name} {help}\n# TYPE {name} {kind}\n"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{said}}} {value!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
