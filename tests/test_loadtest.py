"""`graftax loadtest`: what it draws, what it measures of a server, and that a wrong adapter's answer does not pass."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from cases import fresh, randomised
from conftest import Graftax
from http_servers import served, speaker

from graftax import LoRA
from graftax.models.backbone import Backbone
from graftax.serve.loadtest.arrivals import Planned, planned, until
from graftax.serve.loadtest.load_report import page
from graftax.serve.loadtest.workload import Workload

SHORT = ("--seconds", 0.4, "--seeds", 2, "--callers", 3, "--words", "1-4", "--tokens", "2-6")


# -- what is drawn ------------------------------------------------------------------------------------------------------------


def drawn(seconds: float, rate: float, models: int = 4, seed: int = 0, **settings: Any) -> list[Planned]:
    names = [str(index) for index in range(models)]
    return until(planned(Workload(**settings), names, ["classify", "embeddings"], rate, seed), seconds)


def test_adapters_are_asked_by_a_power_law() -> None:
    """In proportion to 1, 1/2, 1/3, 1/4 for alpha 1."""
    asked = [one.model for one in drawn(400, 10)]
    shares = np.array([asked.count(str(index)) for index in range(4)]) / len(asked)
    assert shares == pytest.approx(np.array([12, 6, 4, 3]) / 25, abs=0.03)
    alike = [one.model for one in drawn(400, 10, alpha=0.0)]
    assert alike.count("3") / len(alike) == pytest.approx(1 / 4, abs=0.03)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_times_between_requests_have_the_mean_and_the_variation_that_were_asked(cv: float) -> None:
    gaps = np.diff([one.at for one in drawn(1000, 5, cv=cv)])
    assert gaps.mean() == pytest.approx(1 / 5, rel=0.15)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.15)


def test_lengths_are_within_their_bounds_and_all_of_them_come() -> None:
    requests = drawn(100, 10, words=(2, 5), tokens=(7, 9))
    assert {len(one.text.split()) for one in requests} == {2, 3, 4, 5}
    assert {one.tokens for one in requests} == {7, 8, 9}
    assert {one.kind for one in requests} == {"classify", "embeddings"}
    assert len({one.text for one in requests}) == len(requests)


def test_a_seed_draws_the_same_requests() -> None:
    assert drawn(20, 10) == drawn(20, 10) != drawn(20, 10, seed=1)


# -- a server of ours ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writing(teller: Backbone) -> Iterator[str]:
    with served(teller, slots=2) as there:
        for seed in range(3):
            there.service.residents.register(f"a{seed}", speaker(teller, seed))
        yield there.url


@pytest.fixture(scope="module")
def reading(tiny: Backbone) -> Iterator[str]:
    with served(tiny) as there:
        there.service.residents.register("fruit", randomised(fresh(tiny, (LoRA(r=2, alpha=3.0),), seed=1), 1))
        yield there.url


def test_a_server_is_measured(writing: str, graftax: Graftax) -> None:
    """Texts in pieces."""
    done = graftax("loadtest", f"{writing}/v1", "--rate", "max", *SHORT, "--json")
    shown = graftax("loadtest", writing, "--rate", "max", "-a", "a2", *SHORT)
    said = json.loads(done.out)
    assert (done.code, said["adapters"], said["errors"], said["wrong"], said["checked"]) == (0, 3, {}, 0, True)
    assert [run["seed"] for run in said["runs"]] == [0, 1]
    assert all(run["answered"] == run["asked"] >= 3 for run in said["runs"])
    for which in ("first_token_ms", "latency_ms"):
        assert 0 < said[which]["median"] <= said[which]["p90"] <= said[which]["p99"]
    assert shown.code == 0
    assert "completions; 1 adapter, alpha 1\n3 callers" in shown.out
    assert "no errors; 0 from the wrong adapter" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


def test_a_share_of_what_an_encoder_can(reading: str, graftax: Graftax) -> None:
    """The base has no head here: capacity is the first adapter's."""
    few = ("--seconds", 0.6, "--seeds", 1, "--callers", 2, "--words", "2")
    done = graftax("loadtest", reading, "-k", "classify", "-k", "embeddings", "--rate", "0.5x", *few, "--json")
    refused = graftax("loadtest", reading, *few)
    said = json.loads(done.out)
    assert (done.code, said["errors"], said["wrong"], said["first_token_ms"]) == (0, {}, 0, None)
    assert said["capacity"] > 0
    assert said["rate"] == pytest.approx(said["capacity"] / 2)
    assert said["runs"][0]["asked"] == pytest.approx(said["rate"] * 0.6, abs=6 * (1 + said["rate"]) ** 0.5)
    assert "0.50 of the base's" in page(reading, said)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert refused.err.startswith("graftax: completions of fruit: 422: ")


# -- servers that are not as they should be -----------------------------------------------------------------------------------

Reply = Callable[[str, dict[str, Any]], tuple[int, Any]]
CARDS = {
    "base": {"id": "base", "parent": None},
    "a": {"id": "a", "parent": "base", "adapter": "a:1", "adapter_digest": "sha256:aa"},
    "b": {"id": "b", "parent": "base", "adapter": "b:1", "adapter_digest": "sha256:bb"},
}


def classified(digest: str | None, version: str = "a:1") -> dict[str, Any]:
    return {"data": [{"label": "x"}], "usage": {"prompt_tokens": 3}, "adapter": version, "adapter_digest": digest}


@contextmanager
def answering(reply: Reply) -> Iterator[str]:
    """A server of whose answers a function gives the status and the content, bytes or JSON; of None it hangs up."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, content = reply(self.path, json.loads(asked or "{}"))
            if content is None:
                self.close_connection = True
                return
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            if isinstance(content, dict) and content.get("adapter_digest"):
                self.send_header("x-adapter-digest", content["adapter_digest"])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def with_cards(answer: Callable[[dict[str, Any]], tuple[int, Any]], cards: dict[str, Any] = CARDS) -> Reply:
    def reply(path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": list(cards.values())}
        if path.startswith("/v1/models/"):
            return (200, cards[name]) if (name := path.rpartition("/")[2]) in cards else (404, {})
        return answer(asked)

    return reply


def report_of(graftax: Graftax, url: str, *options: Any) -> tuple[int, dict[str, Any]]:
    done = graftax("loadtest", url, "-k", "classify", "--rate", "max", *SHORT, *options, "--json")
    return done.code, json.loads(done.out)


@pytest.mark.parametrize(
    ("digest", "version"), [("sha256:bb", "a:1"), ("sha256:aa", "a:2"), (None, "a:1")], ids=["digest", "version", "base"]
)
def test_another_adapters_answer_is_wrong(digest: str | None, version: str, graftax: Graftax) -> None:
    with answering(with_cards(lambda asked: (200, classified(digest, version)))) as url:
        code, said = report_of(graftax, url, "-a", "a")
    assert code == 1
    assert said["wrong"] == sum(run["answered"] for run in said["runs"]) > 0


def test_an_answer_of_what_its_name_means_by_now_is_right(graftax: Graftax) -> None:
    """The name was given to another adapter while the test ran."""
    cards = dict(CARDS)

    def reply(asked: dict[str, Any]) -> tuple[int, Any]:
        cards["a"] = {**CARDS["a"], "adapter": "a:2", "adapter_digest": "sha256:a2"}
        return 200, classified("sha256:a2", "a:2")

    with answering(with_cards(reply, cards)) as url:
        code, said = report_of(graftax, url, "-a", "a")
    assert (code, said["wrong"], said["errors"]) == (0, 0, {})


def test_a_server_that_tells_no_digests(graftax: Graftax) -> None:
    """It is measured, and the report says that nothing was checked."""
    cards = {name: {"id": card["id"], "parent": card["parent"]} for name, card in CARDS.items()}
    with answering(with_cards(lambda asked: (200, {"data": [{"label": "x"}]}), cards)) as url:
        code, said = report_of(graftax, url)
    assert (code, said["checked"], said["wrong"], said["adapters"]) == (0, False, 0, 2)
    assert "the server does not say which adapter answered" in page(url, said)


def test_a_server_of_a_base_alone_that_says_nothing(graftax: Graftax) -> None:
    """It has no adapter that could be the wrong one."""
    with answering(with_cards(lambda asked: (200, {"data": [{"label": "x"}]}), {"base": CARDS["base"]})) as url:
        code, said = report_of(graftax, url)
    assert (code, said["checked"], said["wrong"]) == (0, False, 0)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ((429, {"error": {"message": "later"}}), "429"),
        ((200, b"[1]"), "malformed"),
        ((200, {"data": [], **{key: CARDS["a"][key] for key in ("adapter", "adapter_digest")}}), "malformed"),
        ((200, None), "no answer"),
    ],
)
def test_errors_are_counted(what: tuple[int, Any], error: str, graftax: Graftax) -> None:
    """Every second answer fails; the others count."""
    turn = iter(range(10**9))
    with answering(with_cards(lambda asked: what if next(turn) % 2 else (200, classified("sha256:aa")))) as url:
        code, said = report_of(graftax, url, "-a", "a")
    asked = sum(run["asked"] for run in said["runs"])
    assert (code, said["wrong"], list(said["errors"])) == (0, 0, [error])
    assert said["errors"][error] + sum(run["answered"] for run in said["runs"]) == asked


def test_an_answer_that_does_not_come(graftax: Graftax) -> None:
    waiting, turn = threading.Event(), iter(range(10**9))

    def reply(asked: dict[str, Any]) -> tuple[int, Any]:
        if next(turn):
            waiting.wait(120)
        return 200, classified("sha256:aa")

    with answering(with_cards(reply)) as url:
        code, said = report_of(graftax, url, "-a", "a", "--timeout", 0.2)
        waiting.set()
    assert (code, list(said["errors"])) == (0, ["timeout"])


EVENTS = [{"adapter": "a:1", "adapter_digest": "sha256:aa", "usage": None}] * 3
EVENTS += [{"adapter": "a:1", "adapter_digest": "sha256:aa", "usage": {"prompt_tokens": 5, "completion_tokens": 7}}]


def as_events(events: list[Any]) -> bytes:
    return "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in events).encode()


@pytest.mark.parametrize(
    ("events", "wrong", "errors"),
    [
        ([*EVENTS, "[DONE]"], False, None),
        ([*EVENTS, {**EVENTS[0], "adapter_digest": "sha256:bb"}, "[DONE]"], True, None),
        (EVENTS, False, "malformed"),
        ([EVENTS[0], {"error": {"message": "no more"}}, "[DONE]"], False, "in a stream"),
    ],
    ids=["whole", "another in its midst", "no end", "an error"],
)
def test_a_text_in_pieces(events: list[Any], wrong: bool, errors: str | None, graftax: Graftax) -> None:
    turn = iter(range(10**9))
    with answering(with_cards(lambda asked: (200, as_events(events if next(turn) else [*EVENTS, "[DONE]"])))) as url:
        done = graftax("loadtest", url, "-a", "a", "--rate", "max", *SHORT, "--json")
    said = json.loads(done.out)
    answered = sum(run["answered"] for run in said["runs"])
    assert done.code == int(wrong)
    assert said["wrong"] == (answered if wrong else 0)
    assert list(said["errors"]) == ([errors] if errors else [])
    if errors is None:
        assert said["tokens_read_per_second"] > 0
        assert said["tokens_written_per_second"] == pytest.approx(7 / 5 * said["tokens_read_per_second"])


# -- what cannot be measured --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["http://127.0.0.1:1"], "127.0.0.1:1 does not answer ("),
        (["127.0.0.1:8000"], "127.0.0.1:8000: no URL of a server, such as http://127.0.0.1:8000."),
        (["http://127.0.0.1:99999"], "http://127.0.0.1:99999: no URL ("),
        (["http://h", "--rate", "0x"], "--rate 0x: requests in a second, such as 2.5; a share of"),
        (["http://h", "--rate", "nan"], "--rate nan: requests in a second"),
        (["http://h", "--words", "9-3"], "words: 9-3 is no range; the smaller number comes first."),
        (["http://h", "--tokens", "few"], "--tokens few: a number, or two such as 8-64."),
        (["http://h", "--alpha", "-1"], "alpha must be a number, at least 0"),
        (["http://h", "--api-key", "a\nb"], "a URL or key with letters that no header can hold."),
    ],
)
def test_what_cannot_be_measured_is_one_line(options: list[str], words: str, graftax: Graftax) -> None:
    done = graftax("loadtest", *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"graftax: {words}")


def test_a_name_that_the_server_does_not_know(graftax: Graftax) -> None:
    with answering(with_cards(lambda asked: (500, {}))) as url:
        done = graftax("loadtest", url, "-a", "nobody")
        other = graftax("loadtest", url, "-k", "classify")
    assert (done.code, done.err) == (2, "graftax: /v1/models/nobody: the server answers 404: {}\n")
    assert (other.code, other.err) == (2, "graftax: classify of a: 500: {}\n")
