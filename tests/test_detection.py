"""Objects in pictures: the head and its loss against transformers' DETR, COCO's metric, heads trained, saved and asked."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from conftest import Graftax
from noted import noted
from PIL import Image
from refusals import refused
from safetensors.numpy import load_file
from scipy.optimize import linear_sum_assignment
from transformers import DetrConfig
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss, generalized_box_iou
from transformers.models.detr.modeling_detr import DetrDecoder
from vit_of_colours import a_vit_of_colours

from graftax import Predictor, Recipe, load_adapter, load_backbone, train_many
from graftax.adapters.methods.detection_head import ASKED, BOX, LOGITS, DetectionHead, positions
from graftax.adapters.methods.head import OBJECTS, OBJECTS_OF_MAPS
from graftax.adapters.methods.lora import LoRA
from graftax.data.box_values import NOTHING, Boxes, Found, LaidBoxes, counterparts
from graftax.models.backbone import Backbone
from graftax.models.preparation import Preparation
from graftax.serve.evaluation import measure
from graftax.serve.intervals import intervals
from graftax.serve.report.reporter import looked_at
from graftax.tasks.detection_metrics import average_precision
from graftax.tasks.set_loss import cheapest, costs, giou
from graftax.tasks.task_registry import task_named
from graftax.train.step import hyper

RECIPE = Recipe(epochs=60, lr=4e-3, batch_size=8)
SMALL: dict[str, Any] = {"queries": 6, "layers": 1, "width": 32, "attention_heads": 4}
COLOURS = ("red", "green")


def rows(count: int, seed: int = 0, side: int = 16, colours: tuple[str, ...] = COLOURS) -> list[dict[str, Any]]:
    """Grey noise with some squares, each of a colour."""
    random, found = np.random.default_rng(seed), []
    for index in range(count):
        picture, boxes, names = random.integers(90, 130, (side, side, 3)).astype(np.uint8), [], []
        for channel, name in enumerate(colours):
            if index % (channel + 3) == 2:
                continue
            width, height = random.integers(4, 8, 2).tolist()
            left, top = random.integers(0, side - width + 1), random.integers(0, side - height + 1)
            picture[top : top + height, left : left + width] = 30
            picture[top : top + height, left : left + width, channel] = 240
            boxes.append([int(left), int(top), width, height])
            names.append(name)
        found.append({"image": picture, "objects": {"bbox": boxes, "category": names}})
    return found


@pytest.fixture(scope="module")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_vit_of_colours(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def backbone(backbone_dir: Path) -> Backbone:
    return load_backbone(backbone_dir)


@pytest.fixture(scope="module")
def trained(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads in a pack, of two classes and of one, in rows of two forms; and a LoRA with a larger head over several maps."""
    out = tmp_path_factory.mktemp("trained")
    one = [{**row, "objects": each_alone(row["objects"])} for row in rows(8, 1, colours=("blue",))]
    data = {"a": rows(8), "b": one, "c": rows(8, 2)}
    large = DetectionHead(site=OBJECTS_OF_MAPS, **SMALL | {"queries": 9})
    each = {"b": {"epochs": 15}, "c": {"method": (LoRA(r=4), large)}}
    how: dict[str, Any] = {"task": "image-detect", "progress": False, "recipe": RECIPE, "pack_size": 2, "val": {"b": one}}
    train_many(backbone, data, out, method=DetectionHead(**SMALL), each=each, **how)
    return out


def each_alone(objects: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"bbox": box, "category": name} for box, name in zip(objects["bbox"], objects["category"], strict=True)]


# -- formulas -----------------------------------------------------------------------------------------------------------


def test_the_decoder_is_detrs() -> None:
    """Its layers and its last norm, of the same questions to the same positions; several maps stand behind one another."""
    head = DetectionHead(site=OBJECTS_OF_MAPS, labels=3, queries=5, layers=2, width=16, attention_heads=2)
    site = type("Site", (), {"shape": (7, 6), "name": OBJECTS_OF_MAPS})()
    random = np.random.default_rng(0)
    blank, _ = head.identity(site, 3)
    state = {name: 0.3 * random.standard_normal(leaf.shape).astype(np.float32) for name, leaf in blank.items()} | head.fixed(
        site
    )
    maps = tuple(random.standard_normal((2, high, wide, d), np.float32) for high, wide, d in ((4, 3, 7), (2, 2, 6)))
    found = np.asarray(jax.jit(lambda *maps: head.apply(state, maps, None, None, None))(*maps))
    assert found.shape == (2, 5, 6 + 3)
    np.testing.assert_array_equal(found[..., ASKED], 1.0)

    config = DetrConfig(
        d_model=16, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=64, use_pretrained_backbone=False
    )
    decoder = DetrDecoder(config).eval()
    for index, layer in enumerate(decoder.layers):
        for name, module in (("own", layer.self_attn), ("seen", layer.encoder_attn)):
            for which, product in enumerate((module.q_proj, module.k_proj, module.v_proj, module.o_proj)):
                _copy(product, state[name][index, which].T, state[f"{name}_bias"][index, which])
        _copy(layer.mlp.fc1, state["up"][index].T, state["up_bias"][index])
        _copy(layer.mlp.fc2, state["down"][index].T, state["down_bias"][index])
        norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
        for which, norm in enumerate(norms):
            _copy(norm, state["norm_scale"][index, which], state["norm_bias"][index, which])
    _copy(decoder.layernorm, state["last_scale"], state["last_bias"])
    projected = [
        torch.tensor(x.reshape(2, -1, x.shape[-1]) @ kernel + bias)
        for x, kernel, bias in zip(maps, np.split(state["map"], [7]), state["map_bias"], strict=True)
    ]
    norm = torch.nn.functional.layer_norm
    seen = norm(torch.cat(projected, 1), (16,), torch.tensor(state["map_norm_scale"]), torch.tensor(state["map_norm_bias"]))
    places = np.concatenate([positions(4, 3, 16), positions(2, 2, 16)])
    queries = torch.tensor(state["queries"])[None].expand(2, -1, -1)
    with torch.no_grad():
        z = decoder(
            inputs_embeds=torch.zeros(2, 5, 16),
            encoder_hidden_states=seen,
            spatial_position_embeddings=torch.tensor(places)[None],
            object_queries_position_embeddings=queries,
        ).last_hidden_state.numpy()
    nothing = z @ state["nothing"].T + state["nothing_bias"]
    np.testing.assert_allclose(
        found[..., LOGITS:], np.concatenate([nothing, z @ state["kernel"].T + state["bias"]], -1), atol=1e-4
    )
    for kernel, bias in zip(state["box_hidden"], state["box_hidden_bias"], strict=True):
        z = np.maximum(z @ kernel + bias, 0.0)
    np.testing.assert_allclose(found[..., BOX], z @ state["box"] + state["box_bias"] + state["begin"], atol=1e-4)


def _copy(module: Any, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        module.weight.copy_(torch.tensor(np.ascontiguousarray(weight)))
        module.bias.copy_(torch.tensor(bias))


def test_positions_are_those_of_detr() -> None:
    """But for their order and the longest of the waves: sines and cosines of each length, of the height, then of the width."""
    found = np.asarray(positions(3, 5, 8)).reshape(3, 5, 8)
    for row, column in ((0, 0), (2, 1), (1, 4)):
        for begin, place in ((0, (row + 0.5) / 3), (4, (column + 0.5) / 5)):
            angles = 2 * np.pi * place / 20 ** np.array([0.0, 0.5])
            np.testing.assert_allclose(found[row, column, begin : begin + 4], [*np.sin(angles), *np.cos(angles)], atol=1e-6)


def test_questions_begin_spread_over_the_picture() -> None:
    """A fresh head looks for each of its boxes around where the box is: a map is seen most at the middles of these."""
    head = DetectionHead(queries=16, layers=1, width=64, attention_heads=4)
    leaves = head.init(jax.random.key(0), type("Site", (), {"shape": (8,), "name": OBJECTS})())
    boxes = np.asarray(jax.nn.sigmoid(leaves["begin"]))
    wanted = [[0.125, 0.125, 0.25, 0.25], [0.375, 0.125, 0.25, 0.25], [0.875, 0.875, 0.25, 0.25]]
    np.testing.assert_allclose(boxes[[0, 1, 15]], wanted, rtol=1e-5)
    query, key = (np.asarray(x @ leaves["seen"][0, which]) for which, x in enumerate((leaves["queries"], positions(4, 4, 64))))
    assert (query @ key.T).argmax(1).tolist() == [*range(16)]


def drawn(seed: int, counts: list[int], queries: int = 7, classes: int = 3, room: int = 8) -> tuple[np.ndarray, LaidBoxes]:
    """What a head may say of some pictures with so many boxes each, and these."""
    random = np.random.default_rng(seed)
    said = random.standard_normal((len(counts), queries, LOGITS + 1 + room), np.float32)
    numbers = np.full((len(counts), max(counts) + 2), NOTHING, np.int32)
    boxes = random.random((*numbers.shape, 4), np.float32)
    for item, count in enumerate(counts):
        numbers[item, :count] = random.integers(0, classes, count)
        boxes[item, :count] = np.concatenate([0.3 + 0.4 * random.random((count, 2)), 0.1 + 0.4 * random.random((count, 2))], 1)
    said[..., LOGITS + 1 + classes :] = 50.0  # room for more classes than there are
    return said, LaidBoxes(numbers, boxes)


def torchs(said: np.ndarray, laid: LaidBoxes, classes: int) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """The same for transformers, where the last of the logits is that of no object."""
    logits = np.concatenate([said[..., LOGITS + 1 : LOGITS + 1 + classes], said[..., LOGITS : LOGITS + 1]], axis=-1)
    outputs = {"logits": torch.tensor(logits), "pred_boxes": torch.tensor(said[..., BOX]).sigmoid()}
    each = zip(laid.numbers, laid.boxes, strict=True)
    kept = [(numbers[numbers != NOTHING], boxes[numbers != NOTHING]) for numbers, boxes in each]
    return outputs, [{"class_labels": torch.tensor(n.astype(np.int64)), "boxes": torch.tensor(b)} for n, b in kept]


@pytest.mark.parametrize("seed", range(3))
def test_matching_and_loss_are_transformers(seed: int) -> None:
    """Unlike numbers of boxes, none at all, as many as questions; classes beyond the adapter's own; an item that is filling."""
    said, laid = drawn(seed, [3, 0, 7, 1, 4])
    outputs, targets = torchs(said[:4], LaidBoxes(laid.numbers[:4], laid.boxes[:4]), 3)
    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    criterion = ImageLoss(matcher, num_classes=3, eos_coef=0.1, losses=["labels", "boxes"])
    theirs = criterion(outputs, targets)
    wanted = theirs["loss_ce"] + 5 * theirs["loss_bbox"] + 2 * theirs["loss_giou"]
    loss, weight = jax.jit(task_named("image-detect").loss), np.array([1, 1, 1, 1, 0], np.float32)
    assert float(loss(said, laid, hyper(RECIPE, 10, 3), weight)) == pytest.approx(float(wanted), abs=1e-5)
    other = laid._replace(boxes=np.where((laid.numbers == NOTHING)[..., None], np.float32(np.nan), laid.boxes))
    value, grads = jax.jit(jax.value_and_grad(task_named("image-detect").loss))(said, other, hyper(RECIPE, 10, 3), weight)
    assert float(value) == pytest.approx(float(wanted), abs=1e-5)
    assert np.isfinite(np.asarray(grads)).all()
    assert not np.asarray(grads)[4].any()
    assert not np.asarray(grads)[..., LOGITS + 4 :].any()

    there, both = laid.numbers[:4] != NOTHING, np.asarray(jax.nn.sigmoid(said[:4, :, BOX]))
    of_classes = said[:4, :, LOGITS : LOGITS + 4]
    boxes = np.where(there[..., None], laid.boxes[:4], np.float32(0.5))[:, :7]
    match = jax.jit(lambda there, *given: cheapest(costs(*given), there))
    found = match(there[:, :7], of_classes, both, laid.numbers[:4, :7], boxes)
    for item, (query, box) in enumerate(matcher(outputs, targets)):
        assert dict(zip(box.tolist(), query.tolist(), strict=True)) == dict(
            enumerate(np.asarray(found)[item, : len(box)].tolist())
        )


def test_nothing_but_filling_is_no_loss() -> None:
    said, laid = drawn(0, [2, 1])
    found = jax.jit(jax.value_and_grad(task_named("image-detect").loss))(
        said, laid, hyper(RECIPE, 10, 3), np.zeros(2, np.float32)
    )
    assert float(found[0]) == 0.0
    assert not np.asarray(found[1]).any()


def test_what_is_no_number_ends() -> None:
    """The search for the cheapest ends where costs are no numbers, and the loss says that they are none."""
    said, laid = drawn(0, [3, 2])
    said[0, 2] = np.nan
    assert np.isnan(jax.jit(task_named("image-detect").loss)(said, laid, hyper(RECIPE, 10, 3), np.ones(2, np.float32)))


@pytest.mark.parametrize(("boxes", "queries"), [(1, 1), (3, 5), (5, 5), (4, 12), (11, 30)])
def test_the_cheapest_is_scipys(boxes: int, queries: int) -> None:
    random = np.random.default_rng(boxes)
    cost = random.normal(0, 3, (4, boxes, queries)).astype(np.float32) + 4.0  # dearer than what stands in for no box
    there = np.arange(boxes) < np.array([boxes, max(0, boxes - 1), boxes // 2, 0])[:, None]
    found = np.asarray(jax.jit(cheapest)(cost, there))
    for item in range(4):
        count = there[item].sum()
        own = found[item, :count]
        assert len({*own.tolist()}) == count
        row, column = linear_sum_assignment(cost[item, :count])
        assert cost[item, np.arange(count), own].sum() == pytest.approx(cost[item, row, column].sum(), abs=1e-4)


def test_giou_is_transformers() -> None:
    random = np.random.default_rng(0)
    a, b = (np.concatenate([random.random((6, 2)), 0.05 + random.random((6, 2))], -1).astype(np.float32) for _ in range(2))
    corners = [torch.tensor(np.concatenate([x[:, :2] - x[:, 2:] / 2, x[:, :2] + x[:, 2:] / 2], -1)) for x in (a, b)]
    np.testing.assert_allclose(np.asarray(jax.jit(giou)(a[:, None], b[None])), generalized_box_iou(*corners).numpy(), atol=1e-5)
    assert float(jax.jit(giou)(a[0], a[0])) == pytest.approx(1.0, abs=1e-5)


def sure(*boxes: tuple[float, str, tuple[float, float, float, float]]) -> Found:
    sides = ("xmin", "ymin", "xmax", "ymax")
    return Found({"score": score, "label": label, "box": dict(zip(sides, box, strict=True))} for score, label, box in boxes)


def test_metrics_by_hand() -> None:
    """One right, one with the half of it, one of the other class: precision by the order of the scores, at each overlap."""
    labels = [Boxes(((0, 0, 10, 10),), ("a",), (False,)), Boxes(((0, 0, 10, 10), (20, 0, 30, 10)), ("a", "b"), (False, False))]
    right, half = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 7.0)  # IoU 0.7: enough at 0.5, 0.55, 0.6, 0.65 and 0.7
    metrics = average_precision(labels, [sure((0.9, "a", right)), sure((0.8, "a", half))], ("a", "b", "c"))
    one_of_two = 51 / 101  # recall reaches a half, of a hundred and one steps
    of_a = (5 * 1.0 + 5 * one_of_two) / 10
    assert metrics == pytest.approx({"map": of_a / 2, "map_50": 0.5, "map_75": one_of_two / 2, "ap_a": of_a, "ap_b": 0.0})
    crowd = [labels[0], Boxes(((0, 0, 10, 10),), ("a",), (True,))]
    with_crowd = average_precision(crowd, [sure((0.8, "a", right)), sure((0.9, "a", half))], ("a",))
    assert with_crowd["map"] == pytest.approx(1.0)  # what is found in a crowd is not wrong
    assert average_precision(labels, [sure(), sure()], ("a", "b"))["map"] == 0.0


def test_an_answer_is_in_pixels_of_its_picture() -> None:
    """The surest first; resized and cut there and back; a question that there is not answers nothing."""
    item = type("Item", (), {"frame": Preparation((8, 10), resize=9, crop=True).frame((11, 18))})  # 9 x 14, cut to 8 x 10
    said = np.zeros((3, LOGITS + 1 + 2), np.float32)
    said[:2, ASKED] = 1.0
    said[0, BOX], said[0, LOGITS:] = 0.0, np.log([1.0, 1.0, 2.0])
    said[1, BOX], said[1, LOGITS:] = (8.0, -8.0, 8.0, 8.0), np.log([1.0, 8.0, 1.0])
    answer = task_named("image-detect").answer(said, ("a", "b"), item)
    assert [one["label"] for one in answer.label] == ["a", "b"]
    assert answer.score == pytest.approx([0.8, 0.5])
    wide, high = 18 / 14, 11 / 9
    wanted = {"xmin": 4.5 * wide, "ymin": 2.0 * high, "xmax": 9.5 * wide, "ymax": 6.0 * high}  # 2 cut away left, none above
    assert answer.label[1]["box"] == pytest.approx(wanted, abs=0.01)
    edge = {"xmin": 7.0 * wide, "ymin": 0.0, "xmax": 18.0, "ymax": 4.0 * high}  # cut at the picture's
    assert answer.label[0]["box"] == pytest.approx(edge, abs=0.02)
    assert len(answer.label.above(0.6)) == 1


# -- trained --------------------------------------------------------------------------------------------------------------


def test_it_learns(backbone: Backbone, trained: Path) -> None:
    """Heads of either kind know a handful of pictures by heart, and are in their files; without one nothing is found."""
    predictor = Predictor(backbone)
    for name, site, own in (("a", OBJECTS, rows(8)), ("c", OBJECTS_OF_MAPS, rows(8, 2))):
        predictor.load(name, trained / name)
        adapter = load_adapter(trained / name, backbone)
        tensors = load_file(trained / name / "adapter_model.safetensors")
        assert {f"base_model.model.detection_head_{leaf}" for leaf in ("queries", "kernel", "box", "seen")} <= {*tensors}
        assert next(method for method in adapter.methods if isinstance(method, DetectionHead)).site == site
        metrics = measure(predictor, name, own).metrics
        assert [*metrics] == ["map", "map_50", "map_75", "ap_green", "ap_red"]
        assert metrics["map"] > 0.9
    predictor.load("b", trained / "b")
    one = measure(predictor, "b", [{**row, "objects": each_alone(row["objects"])} for row in rows(8, 1, colours=("blue",))])
    assert one.metrics["map_50"] == pytest.approx(load_adapter(trained / "b", backbone).metrics["val_map_50"], abs=0.02)
    blank = load_adapter(trained / "a", backbone)
    for leaves, _ in blank.states[blank.methods[0].key].values():
        leaves["queries"] = np.zeros_like(leaves["queries"])
    predictor.load("blank", blank)
    assert measure(predictor, "blank", rows(8)).metrics["map"] < 0.3


def test_one_batch_of_all_kinds(backbone: Backbone, trained: Path, tmp_path: Path) -> None:
    """Heads of one class and two, of six and nine questions, over one map and several, beside one that classifies."""
    labelled = [{"image": row["image"], "label": "ab"[i % 2]} for i, row in enumerate(rows(8, 3))]
    how: dict[str, Any] = {"task": "image-classify", "method": LoRA(r=2), "recipe": Recipe(epochs=1), "progress": False}
    train_many(backbone, {"kind": labelled}, tmp_path, **how)
    predictor = Predictor(backbone)
    small = load_adapter(trained / "a", backbone)
    wide = DetectionHead(**SMALL | {"queries": 11})
    for name, place in (("a", trained / "a"), ("b", trained / "b"), ("c", trained / "c"), ("kind", tmp_path / "kind")):
        predictor.load(name, place)
    alone = {name: predictor.predict([rows(1)[0]["image"]], name, threshold=0.0)[0] for name in ("a", "b", "c", "kind")}
    predictor.load("wide", fresh(backbone, wide, small))
    names = ["a", "kind", "c", "b", "wide"]
    together = predictor.predict([rows(1)[0]["image"]] * 5, names, threshold=0.0)
    assert [len(one.label) for one in together if isinstance(one.label, Found)] == [6, 9, 6, 11]
    for name, answer in zip(names[:4], together, strict=False):
        if name == "kind":
            assert answer.label == alone["kind"].label
            continue
        assert [one["label"] for one in answer.label] == [one["label"] for one in alone[name].label]
        np.testing.assert_allclose(answer.score, alone[name].score, atol=1e-5)
        boxes = [[[*one["box"].values()] for one in each] for each in (answer.label, alone[name].label)]
        np.testing.assert_allclose(*boxes, atol=0.011)


def fresh(backbone: Backbone, head: DetectionHead, like: Any) -> Any:
    from dataclasses import replace

    from graftax.adapters import Adapter

    made = Adapter.create([replace(head, labels=2)], backbone.sites_for(head), seed=3)
    return replace(made, task="image-detect", labels=like.labels, fingerprint=like.fingerprint)


def test_packed_is_alone(backbone: Backbone, tmp_path: Path) -> None:
    """A job in a pack, beside one with other classes and more boxes, and by itself."""
    data = {"a": rows(8), "b": rows(8, 1, colours=("blue", "green", "red"))}
    how: dict[str, Any] = {"task": "image-detect", "progress": False, "recipe": RECIPE.replace(epochs=2)}
    how["method"] = DetectionHead(**SMALL)
    train_many(backbone, data, tmp_path / "both", pack_size=2, **how)
    train_many(backbone, {"a": data["a"]}, tmp_path / "one", pack_size=1, **how)
    packed, alone = (load_file(tmp_path / run / "a" / "adapter_model.safetensors") for run in ("both", "one"))
    for name, tensor in alone.items():  # Adam moves every number by up to the learning rate, however small its gradient
        two = (packed[name], tensor)
        if name.endswith(("own_bias", "seen_bias")):  # a bias of keys changes nothing, so its gradient is rounding
            two = tuple(np.delete(one, 1, axis=1) for one in two)
        np.testing.assert_allclose(*two, rtol=0, atol=0.01 * RECIPE.lr)


def test_what_an_evaluation_says(backbone: Backbone, trained: Path) -> None:
    """The rows that are most wrong first, with what is there and what was found, both drawn; no intervals of metrics."""
    predictor = Predictor(backbone)
    predictor.load("a", trained / "a")
    measured = measure(predictor, "a", [*rows(8)[:3], *rows(6, 9)])
    assert intervals(measured, "image-detect")["map"].low is None
    assert measured.confusion is None
    wrong = looked_at("a", measured).most_wrong
    assert [one.mistake for one in wrong] == sorted((one.mistake for one in wrong), reverse=True)
    assert wrong[0].row > 3  # the first three are known by heart
    first = wrong[0]
    label, answer = measured.answered.labels[first.row - 1], measured.answered.answers[first.row - 1]
    both = len(label) + len(sure_of := answer.label.above(0.5))
    assert first.mistake == pytest.approx(1 - 2 * counterparts(label, sure_of, 0.5) / both)
    assert first.label == ", ".join(label.names)
    assert first.answer == ", ".join(f"{one['label']} {one['score']:.2f}" for one in sure_of)
    assert first.picture is not None
    with Image.open(io.BytesIO(base64.b64decode(first.picture.partition("base64,")[2]))) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    truth, found = pixels[:, :160], pixels[:, 164:]  # 16 pixels, ten times as large
    (left, top, _, _), number = label.corners[0], ("green", "red").index(label.names[0])
    colour = [(255, 0, 0), (0, 255, 0)][number]  # of the first class and the second
    assert tuple(truth[int(10 * top), int(10 * left) + 5]) == colour
    assert (truth.shape, (truth != found).any()) == ((160, 160, 3), True)


# -- data -----------------------------------------------------------------------------------------------------------------


def coco(folder: Path, count: int, **changes: Any) -> Path:
    """A folder of pictures with COCO's annotations beside it; ids of categories that do not follow one another."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], list[dict[str, Any]]()
    for i, row in enumerate(rows(count)):
        Image.fromarray(row["image"]).save(folder / "images" / f"{i}.png")
        images.append({"id": 10 * i, "file_name": f"{i}.png", "width": 16, "height": 16})
        for one in each_alone(row["objects"]):
            own = {"image_id": 10 * i, "category_id": {"red": 7, "green": 3}[one["category"]], "bbox": one["bbox"]}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **own})
    said = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}]}
    (folder / "annotations.json").write_text(json.dumps(said | changes))
    return folder


def test_the_command(graftax: Graftax, backbone_dir: Path, tmp_path: Path) -> None:
    for part, count in (("train", 8), ("test", 3)):
        coco(tmp_path / "parts" / part, count)
    data, base = tmp_path / "parts", ("-b", backbone_dir)
    small = [word for name, value in SMALL.items() for word in ("--option", f"{name}={value}")]
    settings = ("--task", "image-detect", "--augment", "crop+flip+colour", "--epochs", 1, "--method", "detection_head", *small)
    said = graftax("train", *base, "--data", f"{data}:train", "-o", tmp_path / "out", *settings)
    assert said.code == 0, said.err
    named = ("-a", f"parts={tmp_path / 'out' / 'parts'}")
    report = ("--report", tmp_path / "report", "--against", data / "train")
    said = graftax("eval", *base, *named, "--data", data / "test", "--json", *report)
    assert {"map", "map_50", "map_75", "ap_red", "ap_green"} <= {*json.loads(said.out)}
    assert (tmp_path / "report" / "report.html").read_text().count("data:image/png") >= 1
    said = graftax("predict", *base, *named, "-i", data / "test" / "images", "--threshold", 0)
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [len(line["objects"]) for line in lines] == [6] * 3
    one = lines[0]["objects"][0]
    assert ({*one}, {*one["box"]}) == ({"score", "label", "box"}, {"xmin", "ymin", "xmax", "ymax"})
    assert graftax("predict", *base, "-a", "x=/nowhere", "-i", data / "test" / "images", "--threshold", 2).code == 2


# -- refused --------------------------------------------------------------------------------------------------------------


def changed(objects: Any, row: int = 1) -> list[dict[str, Any]]:
    found = rows(4)
    found[row] = {**found[row], "objects": objects}
    return found


@pytest.mark.parametrize(
    ("data", "settings", "line"),
    [
        (changed({"bbox": [[1, 1, 3, 3]] * 7, "category": ["red"] * 7}), {}, "row 2 has 7 boxes, and its head has 6 queries"),
        (
            changed({"bbox": [[12, 1, 8, 3]], "category": ["red"]}),
            {},
            "row 2: the box [12, 1, 8, 3] reaches out of the picture",
        ),
        ([{"image": row["image"]} for row in rows(4)], {}, "no column 'objects'; it has image."),
        ([{**row, "objects": {"bbox": [], "category": []}} for row in rows(4)], {}, "a (list): no row has a box."),
        (rows(4), {"recipe": Recipe(augment="mixup")}, "augment 'mixup' makes one picture of two, and boxes are of one."),
        (rows(4), {"recipe": Recipe(augment="randaugment")}, "turns and shears pictures, and boxes stay upright."),
        (rows(4), {"method": DetectionHead(site=OBJECTS), "task": "image-segment"}, "no column 'mask'"),
    ],
)
def test_what_is_refused(data: Any, settings: dict[str, Any], line: str, backbone: Backbone, tmp_path: Path) -> None:
    how: dict[str, Any] = {"task": "image-detect", "method": DetectionHead(**SMALL), "progress": False} | settings
    said = refused(lambda: train_many(backbone, {"a": data}, tmp_path, **how))
    assert said is not None
    assert line in said


def test_what_else_is_said(backbone: Backbone, trained: Path, tmp_path: Path) -> None:
    """Of a class that an adapter does not know; of boxes beyond what is seen; of a crowd; of settings of a head."""
    predictor = Predictor(backbone)
    predictor.load("b", trained / "b")
    line = refused(lambda: measure(predictor, "b", rows(2)))
    assert line == "list: row 1: a box of 'red', which is none of blue."
    crowd = changed({"bbox": [[1, 1, 3, 3], [2, 2, 5, 5]], "category": ["red"] * 2, "iscrowd": [1, 0]})
    how: dict[str, Any] = {"task": "image-detect", "method": DetectionHead(**SMALL), "progress": False}
    said = noted(lambda: train_many(backbone, {"a": crowd}, tmp_path, recipe=Recipe(epochs=1), **how))
    assert any("1 box around a crowd, which are not learnt from." in one for one in said)
    assert "width 20 must be a multiple of 4 and of twice its attention heads (8)" in str(
        refused(lambda: DetectionHead(width=20))
    )
    assert "'head.map' is none of head.objects, head.objects_of_maps" in str(refused(lambda: DetectionHead(site="head.map")))
    assert "threshold" in str(refused(lambda: predictor.predict([rows(1)[0]["image"]], "b", threshold=2.0)))


def test_without_pycocotools(monkeypatch: pytest.MonkeyPatch, backbone: Backbone, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    how: dict[str, Any] = {"task": "image-detect", "method": None, "progress": False}
    line = refused(lambda: train_many(backbone, {"a": rows(4)}, tmp_path, **how))
    assert line == "object detection is measured by pycocotools: pip install 'graftax[detect]'."
