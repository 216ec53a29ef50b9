"""An encoder's server: classes, tags and vectors of adapters by name, as `Predictor` makes them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import fresh, randomised
from http_servers import Served, loaded, served, until

from graftax import Adapter, Average, GraftaxError, Hub, LoRA, Predictor, save_adapter
from graftax.models.backbone import Backbone
from graftax.serve.handles import Handle, digest_of
from graftax.serve.on_hub import HubAway
from graftax.store.store import Store

TEXTS = ["a red apple", "old gold and new zinc, fresh today", "pear"]


@pytest.fixture(scope="module")
def adapters(tiny: Backbone) -> dict[str, Adapter]:
    lora = (LoRA(r=2, alpha=3.0),)
    return {
        "fruit": randomised(fresh(tiny, lora, seed=1), 1),
        "metal": randomised(fresh(tiny, lora, seed=2), 2),
        "words": randomised(fresh(tiny, lora, tokens=True, seed=3), 3),
    }


@pytest.fixture(scope="module")
def expected(tiny: Backbone, adapters: dict[str, Adapter]) -> Predictor:
    return loaded(Predictor(tiny), adapters)


@pytest.fixture(scope="module")
def folder(tiny: Backbone, adapters: dict[str, Adapter], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served")
    hub = Hub(made / "hub")
    for name, adapter in adapters.items():
        hub.push(f"shop/{name}", save_adapter(adapter, made / name, tiny), tags=["prod"])
    return made


@pytest.fixture(scope="module")
def server(tiny: Backbone, adapters: dict[str, Adapter], folder: Path) -> Iterator[Served]:
    """With room for one adapter at a time."""
    with served(tiny, {"metal": adapters["metal"]}, store=Store(folder / "hub"), slots=1, roots=[folder]) as there:
        yield there


def classes(predictor: Predictor, name: str) -> list[tuple[str, Any]]:
    labels, answers = predictor.labels(name), predictor.predict(TEXTS, name)
    chances = [answer.probabilities or {} for answer in answers]
    return [
        (answer.label, pytest.approx([own[label] for label in labels], abs=1e-6))
        for answer, own in zip(answers, chances, strict=True)
    ]


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
@pytest.mark.parametrize(("model", "name"), [("metal", "metal"), ("shop/fruit", "fruit"), ("shop/fruit:prod", "fruit")])
def test_classes_are_the_predictors(
    path: str, model: str, name: str, server: Served, expected: Predictor, adapters: dict[str, Adapter]
) -> None:
    """Of a name that was registered, and of names on the hub; the digest says which adapter it was."""
    answer = server.post(path, model=model, input=TEXTS)
    content, labels = answer.json(), list(expected.labels(name))
    assert [(one["label"], one["probs"]) for one in content["data"]] == classes(expected, name)
    assert all((one["num_classes"], one["labels"], one["cut"]) == (len(labels), labels, False) for one in content["data"])
    handle = server.service.residents.resolve(model)
    assert content["adapter_digest"] == answer.headers["x-adapter-digest"] == f"sha256:{handle.digest}"
    assert (content["adapter"], content["model"]) == (str(handle), model)
    if name == "metal":
        assert handle.digest == digest_of(adapters["metal"])


def test_tags_are_the_predictors(server: Served, expected: Predictor) -> None:
    """Of texts, and of lists of words."""
    rows = [TEXTS[1], ["red", "apple"]]
    data = server.post("/v1/tag", model="shop/words", input=rows).json()["data"]
    answers = expected.predict(rows, "words")
    assert [one["labels"] for one in data] == [list(answer.label) for answer in answers]
    assert [one["scores"] for one in data] == [pytest.approx(list(answer.score), abs=1e-6) for answer in answers]


MIXES = [
    ("0.7*words+0.3*others", {"words": 0.7, "others": 0.3}),  # two that tag: the first one's labels
    ("0.4*others+0.6*words", {"others": 0.4, "words": 0.6}),
    ("1.5*words+-0.5*metal", {"words": 1.5, "metal": -0.5}),  # one whose head is passed over
    ("0.5*bare+0.5*words", {"bare": 0.5, "words": 0.5}),  # one that has none
    ("0.5*words", {"words": 0.5}),
]


@pytest.mark.parametrize(("model", "mix"), MIXES)
def test_tags_of_a_mix(model: str, mix: dict[str, float], mixing: Served, mixed: Predictor) -> None:
    rows = [TEXTS[1], ["red", "apple"], TEXTS[2]]
    answer = mixing.post("/v1/tag", model=model, input=rows)
    content, answers = answer.json(), mixed.predict(rows, Average(*mix, weights=mix.values()))
    assert [one["labels"] for one in content["data"]] == [list(one.label) for one in answers]
    assert [one["scores"] for one in content["data"]] == [pytest.approx(list(one.score), abs=1e-6) for one in answers]
    handles = {name: mixing.service.residents.resolve(name) for name in mix}
    digest = "+".join(f"{weight:g}*sha256:{handles[name].digest}" for name, weight in mix.items())
    assert content["adapter_digest"] == answer.headers["x-adapter-digest"] == digest
    alone = mixed.predict(rows, next(name for name in mix if name != "bare"))
    assert [list(one.score) for one in alone] != [one["scores"] for one in content["data"]]


@pytest.mark.parametrize(
    ("path", "model", "said"),
    [
        ("/v1/tag", "0.5*metal+0.5*words", "0.5*metal+0.5*words is of task 'classify', which /classify answers."),
        ("/classify", "0.5*words+0.5*metal", "0.5*words+0.5*metal is of task 'tag', which /v1/tag answers."),
        ("/v1/tag", "0.5*bare+0.5*bare", "0.5*bare+0.5*bare has no head that could answer"),
    ],
)
def test_mixes_that_answer_something_else(path: str, model: str, said: str, mixing: Served) -> None:
    answer = mixing.post(path, model=model, input=TEXTS)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (422, True), answer.text


@pytest.fixture(scope="module")
def of_mixes(tiny: Backbone, adapters: dict[str, Adapter]) -> dict[str, Adapter]:
    """Those above, one that tags with other and more labels, one without a head."""
    lora = (LoRA(r=2, alpha=3.0),)
    head = tiny.head(5, tokens=True)
    more: Any = {"labels": tuple("BILOU"), "fingerprint": tiny.fingerprint}
    others = randomised(Adapter.create((LoRA(r=4, alpha=3.0), head), tiny.sites_for(head), 4, task="tag", **more), 4)
    bare = randomised(Adapter.create(lora, tiny.sites, seed=5, fingerprint=tiny.fingerprint), 5)
    return {**adapters, "others": others, "bare": bare}


@pytest.fixture(scope="module")
def mixed(tiny: Backbone, of_mixes: dict[str, Adapter]) -> Predictor:
    return loaded(Predictor(tiny), of_mixes)


@pytest.fixture(scope="module")
def mixing(tiny: Backbone, of_mixes: dict[str, Adapter]) -> Iterator[Served]:
    with served(tiny, of_mixes, slots=3) as there:
        yield there


@pytest.mark.parametrize("model", ["backbone", "shop/fruit"])
def test_vectors_are_the_predictors(model: str, server: Served, expected: Predictor) -> None:
    """As OpenAI's client asks for them, which is in base64; and as numbers."""
    vectors = expected.embed(TEXTS, None if model == "backbone" else "fruit")
    answer = server.openai().embeddings.create(model=model, input=TEXTS)
    np.testing.assert_allclose([one.embedding for one in answer.data], vectors, atol=1e-5)
    tokens = sum(len(ids) for ids in server.service.tokenizer.ids(TEXTS))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
    (one,) = server.post("/v1/embeddings", model=model, input=TEXTS[0], encoding_format="float").json()["data"]
    np.testing.assert_allclose(one["embedding"], vectors[0], atol=1e-5)


def test_many_at_once_with_one_slot(server: Served, expected: Predictor) -> None:
    models = ["metal", "shop/fruit"] * 6
    with ThreadPoolExecutor(len(models)) as threads:
        asked = [threads.submit(server.post, "/classify", model=model, input=TEXTS) for model in models]
    for model, future in zip(models, asked, strict=True):
        data = future.result().json()["data"]
        assert [(one["label"], one["probs"]) for one in data] == classes(expected, model.removeprefix("shop/"))


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/classify", {"model": "shop/words", "input": "a"}, 422, "shop/words is of task 'tag', which /v1/tag answers."),
        ("/v1/tag", {"model": "metal", "input": "a"}, 422, "metal is of task 'classify', which /classify answers."),
        ("/classify", {"model": "backbone", "input": "a"}, 422, "backbone has no head that could answer"),
        ("/classify", {"model": "metal", "input": [["a"]]}, 400, "input must be a text or a list of texts"),
        ("/classify", {"model": "metal", "input": []}, 400, "input must be"),
        ("/classify", {"model": "metal", "input": [1, 2]}, 400, "token ids are not taken"),
        ("/classify", {"model": "metal", "input": ["a", " "]}, 400, "input[1] is empty."),
        ("/v1/embeddings", {"model": "metal", "input": "a", "dimensions": 3}, 400, "dimensions: a vector has 32 numbers"),
        ("/v1/embeddings", {"model": "metal", "input": "a", "encoding_format": "hex"}, 400, "encoding_format must be"),
        ("/v1/completions", {"model": "metal", "prompt": "a"}, 422, "backbone is no language model"),
    ],
)
def test_what_cannot_be_answered(path: str, body: Any, status: int, said: str, server: Served) -> None:
    answer = server.post(path, **body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_a_hub_that_is_away(server: Served) -> None:
    """What is in memory is served, others are told; `/ready` says so, and all is well when it is back."""

    def silent(*of: Any, **settings: Any) -> Any:
        raise GraftaxError("the hub says nothing.")

    before = server.post("/classify", model="shop/fruit", input=TEXTS).json()["data"]
    assert server.service.store is not None
    assert server.service.hub is not None
    with pytest.MonkeyPatch.context() as patch:
        for method in ("get", "get_stamped", "get_all", "size", "after", "is_empty"):
            patch.setattr(server.service.store.objects, method, silent)
        assert server.post("/classify", model="shop/fruit", input=TEXTS).json()["data"] == before
        away = server.post("/classify", model="shop/new", input="a")
        assert (away.status_code, away.json()["error"]["code"]) == (503, "hub_away")
        until(lambda: server.post("/classify", model="shop/new", input="a") and server.service.hub.away)
        ready = server.ask("GET", "/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["degraded"] == ["the hub does not answer: the hub says nothing."]
        assert {card["id"] for card in server.ask("GET", "/v1/models").json()["data"]} == {"backbone", "metal"}
    until(lambda: server.post("/classify", model="shop/new", input="a").status_code == 404)
    assert server.ask("GET", "/ready").json()["status"] == "ready"


def test_a_hub_that_is_back_when_it_is_looked_for(server: Served) -> None:
    """What could not be read is read once more; a name that was not known because of it is none that there is not."""
    residents = server.service.residents
    before = server.post("/classify", model="shop/fruit", input=TEXTS).json()["data"]
    adapter, turns = residents.adapter, iter(range(9))

    def lost_once(handle: Handle) -> Adapter:
        if not next(turns):
            raise GraftaxError("a blob is missing.")
        return adapter(handle)

    def away(*of: Any) -> Handle:
        raise HubAway("shop/fruit is not known here, and the hub is away.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residents, "adapter_here", lambda handle: None)
        patch.setattr(residents, "adapter", lost_once)
        assert server.post("/classify", model="shop/fruit", input=TEXTS).json()["data"] == before
        patch.setattr(residents, "resolve", away)
        answer = server.post("/classify", model="shop/fruit", input=TEXTS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "hub_away")


def test_a_version_that_does_not_fit(server: Served, folder: Path, adapters: dict[str, Adapter]) -> None:
    """It is found and cannot be used, which is said; nobody else is concerned."""
    other = randomised(fresh(server.service.backbone, (LoRA(r=2, alpha=3.0),), seed=5), 5)
    directory = save_adapter(other, folder / "damaged", server.service.backbone)
    Hub(folder / "hub").push("shop/damaged", directory)
    for file in (folder / "hub" / "blobs").rglob("*"):
        if file.is_file() and file.read_bytes() == (directory / "adapter_model.safetensors").read_bytes():
            file.write_bytes(b"no tensors")
    answer = server.post("/classify", model="shop/damaged", input="a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "adapter_unusable")
    assert server.post("/classify", model="metal", input="a").status_code == 200
