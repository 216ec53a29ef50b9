"""/score by a head that reads both texts and by vectors; and texts that are read by mixes of adapters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cases import fresh, randomised
from http_servers import Served, loaded, served

from graftax import Adapter, Average, LoRA, Predictor
from graftax.models.backbone import Backbone

QUERY, DOCUMENTS = "a red apple", ["old gold and new zinc", "pear", "pear"]


@pytest.fixture(scope="module")
def adapters(tiny: Backbone) -> dict[str, Adapter]:
    """One whose head gives a number, two that classify, and one without a head."""
    lora = (LoRA(r=2, alpha=3.0),)
    made = {name: randomised(fresh(tiny, lora, seed=seed), seed) for seed, name in enumerate(["fruit", "metal"], 1)}
    head = tiny.head(1, False)
    rank = Adapter.create((*lora, head), tiny.sites_for(head), task="regress", labels=("score",), fingerprint=tiny.fingerprint)
    bare = Adapter.create(lora, tiny.sites, task="classify", fingerprint=tiny.fingerprint)
    return made | {"rank": randomised(rank, 4), "bare": randomised(bare, 5)}


@pytest.fixture(scope="module")
def expected(tiny: Backbone, adapters: dict[str, Adapter]) -> Predictor:
    return loaded(Predictor(tiny), adapters)


@pytest.fixture(scope="module")
def server(tiny: Backbone, adapters: dict[str, Adapter]) -> Iterator[Served]:
    with served(tiny, adapters, slots=4) as there:
        yield there


def scores(server: Served, path: str = "/score", **body: Any) -> list[float]:
    answer = server.post(path, **body)
    content = answer.json()
    assert answer.status_code == 200, content
    assert content["id"].startswith("score-")
    assert (content["object"], content["model"]) == ("list", body["model"])
    assert [(one["index"], one["object"]) for one in content["data"]] == [(i, "score") for i in range(len(content["data"]))]
    return [one["score"] for one in content["data"]]


def test_a_head_reads_both_texts(server: Served, expected: Predictor) -> None:
    """One with each, either way round, and pairs."""
    given = [(QUERY, document) for document in DOCUMENTS]
    numbers = [answer.label for answer in expected.predict(given, "rank")]
    assert len({*numbers}) == 2
    assert scores(server, model="rank", text_1=QUERY, text_2=DOCUMENTS) == pytest.approx(numbers, abs=1e-6)
    assert scores(server, "/v1/score", model="rank", text_1=[QUERY] * 3, text_2=DOCUMENTS) == pytest.approx(numbers, abs=1e-6)
    turned = [answer.label for answer in expected.predict([(b, a) for a, b in given], "rank")]
    assert scores(server, model="rank", text_1=DOCUMENTS, text_2=[QUERY]) == pytest.approx(turned, abs=1e-6)
    assert turned != pytest.approx(numbers, abs=1e-3)


@pytest.mark.parametrize("model", ["backbone", "bare"])
def test_without_a_head_it_is_the_cosine(model: str, server: Served, expected: Predictor) -> None:
    first, *others = expected.embed([QUERY, *DOCUMENTS], None if model == "backbone" else model)
    cosines = [float(first @ one / np.linalg.norm(first) / np.linalg.norm(one)) for one in others]
    assert scores(server, model=model, text_1=QUERY, text_2=DOCUMENTS) == pytest.approx(cosines, abs=1e-5)
    assert scores(server, model=model, text_1=QUERY, text_2=QUERY) == pytest.approx([1.0], abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "fruit", "text_1": "a", "text_2": "b"}, 422, "fruit is of task 'classify', whose head gives no number"),
        ({"model": "rank", "text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, 400, "2 texts and 3: there must be as many"),
        ({"model": "rank", "text_1": "a"}, 400, "text_2 is missing."),
        ({"model": "rank", "text_1": "a", "text_2": ["b", " "]}, 400, "text_2[1] is empty."),
        ({"model": "rank", "text_1": "a", "text_2": [3]}, 400, "text_2 must be a text or a list of texts"),
    ],
)
def test_what_cannot_be_scored(body: Any, status: int, said: str, server: Served) -> None:
    answer = server.post("/score", **body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_mixes_read_texts(server: Served, expected: Predictor, adapters: dict[str, Adapter]) -> None:
    """The first adapter that has a head answers; vectors and scores are the average's."""
    average = Average("bare", "metal", "fruit", weights=(0.5, 0.3, 0.2))
    model = "0.5*bare+0.3*metal+0.2*fruit"
    data = server.post("/classify", model=model, input=DOCUMENTS).json()
    answers = expected.predict(DOCUMENTS, average)
    assert [one["label"] for one in data["data"]] == [answer.label for answer in answers]
    chances = [[answer.probabilities[label] for label in expected.labels("metal")] for answer in answers]
    assert [one["probs"] for one in data["data"]] == [pytest.approx(one, abs=1e-6) for one in chances]
    assert data["adapter"] == model
    assert data["adapter_digest"].count("sha256:") == 3
    vectors = [one["embedding"] for one in server.post("/v1/embeddings", model=model, input=DOCUMENTS).json()["data"]]
    np.testing.assert_allclose(vectors, expected.embed(DOCUMENTS, average), atol=1e-5)
    ranked = expected.predict([(QUERY, "pear")], Average("bare", "rank", weights=(0.5, -1.0)))[0].label
    assert scores(server, model="0.5*bare+-1*rank", text_1=QUERY, text_2="pear") == pytest.approx([ranked], abs=1e-6)
