"""A server of pictures: /v1/classify answers image parts as `Predictor` answers files, and fetches nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cases import randomised
from conftest import PICTURES
from http_servers import Served, served
from PIL import Image

from graftax import Adapter, BitFit, DetectionHead, Predictor
from graftax.models.backbone import Backbone
from graftax.models.random import random_backbone
from graftax.serve.http.limits import Limits


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone(PICTURES["cifar_resnet"] | {"image_size": 8}, seed=7)


@pytest.fixture(scope="module")
def pets(backbone: Backbone) -> Adapter:
    names = ("cat", "dog", "heron")
    settings: dict[str, Any] = {"task": "image-classify", "labels": names, "fingerprint": backbone.fingerprint}
    return randomised(Adapter.create((BitFit(), backbone.head(3)), backbone.sites, **settings), 3)


@pytest.fixture(scope="module")
def server(backbone: Backbone, pets: Adapter) -> Iterator[Served]:
    with served(backbone, {"pets": pets}, limits=Limits(max_texts=4)) as there:
        yield there


def png(seed: int, size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def part(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url(data), "detail": "low"}}


def test_pictures_are_answered_as_a_predictor_answers_them(server: Served, backbone: Backbone, pets: Adapter) -> None:
    """Under `input`, one or several, in either of OpenAI's forms, and in messages."""
    predictor = Predictor(backbone)
    predictor.load("pets", pets)
    files = [png(i) for i in range(3)]
    expected = predictor.predict(files, "pets")
    newer = {"type": "input_image", "image_url": url(files[2], "image/x-what")}
    messages = [{"role": "user", "content": [part(files[0]), part(files[1])]}, {"role": "user", "content": [newer]}]
    for asked in ({"input": [part(files[0]), part(files[1]), newer]}, {"messages": messages}):
        answer = server.post("/v1/classify", model="pets", **asked)
        assert answer.status_code == 200
        data = answer.json()["data"]
        assert [one["label"] for one in data] == [one.label for one in expected]
        for one, row in zip(data, expected, strict=True):
            chances = row.probabilities or {}
            assert one["probs"] == pytest.approx([chances[label] for label in ("cat", "dog", "heron")], abs=1e-6)
        assert answer.json()["usage"] == {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0}
    alone = server.post("/classify", model="pets", input=part(files[1])).json()
    assert [one["label"] for one in alone["data"]] == [expected[1].label]


def test_a_segmented_picture_beside_a_classified_one(backbone: Backbone, pets: Adapter) -> None:
    """The classes in it, the share of each, and the mask as a PNG whose pixels are their numbers."""
    settings: dict[str, Any] = {
        "task": "image-segment",
        "labels": ("good", "hole", "stain"),
        "fingerprint": backbone.fingerprint,
    }
    head = backbone.head_of_maps(3, several=True)
    parts = randomised(Adapter.create((BitFit(), head), backbone.sites, **settings), 5)
    for (leaves, _), width in zip(parts.states[head.key].values(), (sum(backbone.config.maps),), strict=True):
        leaves["kernel"][...] = np.random.default_rng(0).standard_normal((3, width))  # so that no class is everywhere
        leaves["kernel"] -= leaves["kernel"].mean(1, keepdims=True)
        leaves["bias"][...] = 0.0
    predictor = Predictor(backbone)
    predictor.load("parts", parts)
    (expected,) = predictor.predict([png(1)], "parts")
    assert len(expected.score) > 1
    with served(backbone, {"pets": pets, "parts": parts}) as there:
        (found,) = there.post("/v1/classify", model="parts", input=part(png(1))).json()["data"]
        assert there.post("/v1/classify", model="pets", input=part(png(1))).json()["data"][0]["label"] in pets.labels
    assert found["label"] == [*expected.score]
    assert found["probs"] == pytest.approx([expected.score[name] for name in found["labels"]], abs=1e-6)
    mask = Image.open(io.BytesIO(base64.b64decode(found["mask"].partition("base64,")[2])))
    np.testing.assert_array_equal(np.asarray(mask), expected.label.pixels())


def test_objects_above_a_threshold(backbone: Backbone, pets: Adapter) -> None:
    """As a predictor finds them; another adapter takes no threshold."""
    settings: dict[str, Any] = {"task": "image-detect", "labels": ("hole", "stain"), "fingerprint": backbone.fingerprint}
    head = DetectionHead(labels=2, queries=5, layers=1, width=16, attention_heads=2)
    holes = randomised(Adapter.create((head,), backbone.sites, **settings), 5)
    predictor = Predictor(backbone)
    predictor.load("holes", holes)
    (expected,) = predictor.predict([png(1)], "holes", threshold=0.0)
    least = sorted(expected.score)[2]
    with served(backbone, {"pets": pets, "holes": holes}) as there:
        (found,) = there.post("/v1/classify", model="holes", input=part(png(1)), threshold=least).json()["data"]
        usual = there.post("/v1/classify", model="holes", input=part(png(1))).json()["data"][0]
        refused = there.post("/v1/classify", model="pets", input=part(png(1)), threshold=0.5)
    assert len(found["objects"]) == 3
    for one, wanted in zip(found["objects"], expected.label, strict=False):
        assert one == wanted | {
            "score": pytest.approx(wanted["score"], abs=1e-5),
            "box": pytest.approx(wanted["box"], abs=0.02),
        }
    assert (found["label"], found["labels"]) == ([one["label"] for one in expected.label[:3]], ["hole", "stain"])
    assert [one["score"] for one in usual["objects"]] == [score for score in usual["probs"] if score >= 0.5]
    assert len(usual["probs"]) == sum(score >= 0.5 for score in expected.score)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "threshold")


def test_what_is_refused(server: Served) -> None:
    """In a line that says where; an outside URL and a path are nobody's to read."""
    outside = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}}
    path = {"type": "image_url", "image_url": {"url": "file:///etc/hostname"}}
    said: list[tuple[int, str, dict[str, Any]]] = [
        (400, "input[0]: only data: URLs are taken; nothing is fetched from elsewhere.", {"input": outside}),
        (400, "input[1]: only data: URLs are taken", {"input": [part(png(0)), path]}),
        (400, "input[0] must be an image part, of type image_url or input_image.", {"input": "/etc/hostname"}),
        (400, "input[0] must be an image part", {"input": [{"type": "text", "text": "a cat?"}]}),
        (400, "input[0]: its image_url has no url.", {"input": {"type": "image_url", "image_url": {}}}),
        (400, "input[0]: its URL must be data:image/...;base64,", {"input": {"type": "input_image", "image_url": "data:,a"}}),
        (400, "input[0]: its URL is not base64.", {"input": {"type": "input_image", "image_url": "data:a;base64,?"}}),
        (400, "input has no picture.", {"input": []}),
        (400, "input has 5 pictures, more than 4 (--max-texts).", {"input": [part(png(0))] * 5}),
        (400, "input is missing", {}),
        (400, "messages: the pictures are under input already", {"input": part(png(0)), "messages": []}),
        (400, "messages[0] must be of the user", {"messages": [{"role": "system", "content": []}]}),
        (400, "messages[0].content[0] must be an image part", {"messages": [{"role": "user", "content": ["a"]}]}),
        (422, "row 2: no picture, or one that is damaged", {"input": [part(png(0)), part(b"no picture")]}),
        (422, "row 1: a picture of 9 x 9 pixels", {"input": part(png(0, size=9))}),
        (422, "row 1: an SVG, which has lines and no pixels", {"input": part(b"<svg/>")}),
    ]
    for status, line, asked in said:
        answer = server.post("/v1/classify", model="pets", **asked)
        assert answer.status_code == status, answer.text
        assert line in answer.json()["error"]["message"]


def test_what_reads_texts_refuses_in_a_line(server: Served) -> None:
    asked: dict[str, dict[str, Any]] = {
        "/v1/tag": {"input": "a"},
        "/v1/embeddings": {"input": "a"},
        "/v1/score": {"text_1": "a", "text_2": "b"},
        "/v1/completions": {"prompt": "a"},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    }
    for where, body in asked.items():
        answer = server.post(where, model="pets", **body)
        assert answer.status_code in (400, 404, 422), where
        assert answer.json()["error"]["message"]
    said = server.post("/v1/embeddings", model="pets", input="a").json()["error"]["message"]
    assert said.endswith("reads pictures and no texts; /v1/classify answers them.")


def test_the_rest_of_it_works(server: Served) -> None:
    """What people and clients look at beside the answers."""
    assert {card["id"] for card in server.ask("GET", "/v1/models").json()["data"]} == {server.service.name, "pets"}
    assert server.ask("GET", "/v1/models/pets").json()["max_model_len"] is None
    for where in ("/health", "/ready", "/catalogue", "/traffic", "/metrics", "/openapi.json"):
        assert server.ask("GET", where).status_code == 200, where


def test_a_backbone_of_texts_takes_no_image_parts(tiny: Backbone) -> None:
    with served(tiny) as texts:
        refused: dict[str, dict[str, Any]] = {
            "input must be a text": {"input": part(png(0))},
            "pictures are asked about so": {"messages": []},
        }
        for line, asked in refused.items():
            answer = texts.post("/v1/classify", model=texts.service.name, **asked)
            assert answer.status_code == 400
            assert line in answer.json()["error"]["message"]
