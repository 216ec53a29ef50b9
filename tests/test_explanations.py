"""Explanations: as torch, by hand, has them; whether they add up; curves whose areas are known; with an adapter and without."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from conftest import GetBackbone, Graftax
from feature_maps import to_torch
from picture_adapters import adapter_on
from test_own_heads import write_classifier
from torch.nn import functional
from torch_pictures import CLASSIFIER, SWINS, torch_model
from torch_pictures import pictures as drawn
from torch_resnet import mobilenet, resnet
from torch_resnet import pictures as of_maps

from graftax import VPT, Adapter, GraftaxError, LoRA, Prefix, load_backbone, merge, save_adapter
from graftax.cli.explain_command import WayName
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs
from graftax.models.random import random_backbone
from graftax.serve.explaining.attribution import Attributed, Way
from graftax.serve.explaining.curves import curves_of
from graftax.serve.explaining.explain_page import pieces
from graftax.serve.explaining.explainer import explain
from graftax.serve.explaining.fragments import NO_FRAGMENT, OfPictures
from graftax.serve.explaining.grad_cam import GradCAM
from graftax.serve.explaining.integrated_gradients import IntegratedGradients
from graftax.serve.explaining.question import Question
from graftax.serve.explaining.rollout import Rollout, attention_of, rollout
from graftax.serve.explaining.ways import NAMES
from graftax.tasks.task_registry import TASKS, task_named

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = """</style><script>document.title='taken'</script><img src=x onerror="document.title='taken'">"""
LABELS = np.array([1, 2], np.int32)


def blank_of(x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)


def found(way: Way, backbone: Backbone, adapter: Adapter, x: np.ndarray, labels: np.ndarray = LABELS) -> Attributed:
    """What a way says of pictures."""
    question = Question.about(backbone, adapter, "it")
    program = jax.jit(partial(way.attribute, question))
    return program(backbone.params, question.state_of(adapter), ImageInputs(x), ImageInputs(blank_of(x)), labels)


def log_odds(logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """Of a label against all others, for each row."""
    each = zip(logits, labels, strict=True)
    return torch.stack([row[label] - torch.cat([row[:label], row[label + 1 :]]).logsumexp(0) for row, label in each])


# -- against torch -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Backbone]:
    """transformers' and ours, with the head of the checkpoint."""
    directory = tmp_path_factory.mktemp("vit")
    model = torch_model("vit", CLASSIFIER, num_labels=3)
    model.set_attn_implementation("eager")
    model.save_pretrained(directory)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(directory)
    return model, load_backbone(directory)


def test_integrated_gradients_equal_torch(vit: tuple[Any, Backbone]) -> None:
    """Of pixels: the mean of the derivative at the points of Gauss and Legendre, times the way from the blank picture."""
    model, backbone = vit
    x = drawn("vit")
    pixels, blank = to_torch(x), to_torch(np.array(blank_of(x)))
    total = torch.zeros_like(pixels)
    points, weights = np.polynomial.legendre.leggauss(6)
    for point, weight in zip(points, weights, strict=True):
        between = (blank + (point + 1) / 2 * (pixels - blank)).float().requires_grad_()
        log_odds(model(pixel_values=between).logits, LABELS).sum().backward()
        total += weight / 2 * between.grad
    wanted = ((pixels - blank) * total).sum(1).numpy()
    assert backbone.own_head is not None
    ours = found(IntegratedGradients(6), backbone, backbone.own_head, x)
    np.testing.assert_allclose(ours.values, wanted, atol=1e-4)
    with torch.no_grad():
        difference = log_odds(model(pixel_values=pixels).logits, LABELS) - log_odds(model(pixel_values=blank).logits, LABELS)
    np.testing.assert_allclose(ours.difference, difference, atol=1e-4)


def test_attention_and_rollout_equal_transformers(vit: tuple[Any, Backbone]) -> None:
    model, backbone = vit
    x = drawn("vit")
    with torch.no_grad():
        attentions = model(pixel_values=to_torch(x), output_attentions=True).attentions
    theirs = np.stack([layer.mean(1).numpy() for layer in attentions])
    assert backbone.own_head is not None
    state = Question.about(backbone, backbone.own_head, "it").state_of(backbone.own_head)
    ours = np.asarray(jax.jit(partial(attention_of, backbone))(backbone.params, state, ImageInputs(x)))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    wanted = []
    for row in range(len(x)):
        product = np.eye(17)
        for layer in theirs:
            product = (layer[row] / 2 + np.eye(17) / 2) @ product
        wanted.append(product[0, 1:].reshape(4, 4))
    np.testing.assert_allclose(rollout(jnp.asarray(theirs))[:, 0, 1:].reshape(2, 4, 4), wanted, atol=1e-6)
    resized = functional.interpolate(torch.tensor(np.array(wanted))[:, None], (16, 16), mode="bilinear")[:, 0]
    np.testing.assert_allclose(found(Rollout(), backbone, backbone.own_head, x).values, resized, atol=1e-5)


def cam_of(model: Any, module: torch.nn.Module, x: np.ndarray, positions: Any = lambda y: y) -> tuple[np.ndarray, Any]:
    """Grad-CAM by hand: of what a module gives, as a map [rows, channels, height, width]; and its size."""
    kept = {}

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept["map"] = output

    hook = module.register_forward_hook(keep)
    pixels = to_torch(x).requires_grad_()
    said = model(pixels)
    log_odds(getattr(said, "logits", said), LABELS).sum().backward()
    hook.remove()
    a, weights = positions(kept["map"].detach()), positions(kept["map"].grad).mean((2, 3), keepdim=True)
    found = functional.relu((weights * a).sum(1))
    return functional.interpolate(found[:, None], x.shape[1:3], mode="bilinear")[:, 0].numpy(), found.shape[1:]


def test_grad_cam_equals_torch_on_convolutions(tmp_path: Path) -> None:
    """Of what leaves the last block."""
    (tmp_path / "resnet").mkdir()
    model = resnet(tmp_path / "resnet")
    x, backbone = of_maps(), load_backbone(tmp_path / "resnet")
    assert backbone.own_head is not None
    wanted, size = cam_of(model, model.layer3[-1], x)
    assert tuple(size) == (5, 4)
    assert wanted.max() > 1e-3
    np.testing.assert_allclose(found(GradCAM(), backbone, backbone.own_head, x).values, wanted, atol=1e-4)


@pytest.mark.slow
def test_grad_cam_equals_torch_where_the_last_maps_have_one_position(tmp_path: Path) -> None:
    """The last map with more is taken; of a network of twelve stages, which no tree of JAX has in their order."""
    model = mobilenet(tmp_path / "mobilenet")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(to_torch(of_maps(16, 32, 32)))  # for statistics with which pictures are not answered all alike
    model.eval().save_pretrained(tmp_path / "mobilenet")
    backbone = load_backbone(tmp_path / "mobilenet")
    assert backbone.own_head is not None
    x = of_maps(2, 32, 32)
    wanted, size = cam_of(model, model.mobilenet_v2.layer[11], x)  # of the next a single position is left
    assert tuple(size) == (2, 2)
    assert np.ptp(wanted, axis=(1, 2)).max() > 1e-3
    np.testing.assert_allclose(found(GradCAM(), backbone, backbone.own_head, x).values, wanted, atol=1e-4)


def test_grad_cam_equals_torch_on_patches(vit: tuple[Any, Backbone]) -> None:
    """Of what enters the last layer's attention; the class token, which lies in front, is no place in the picture."""
    model, backbone = vit
    x = drawn("vit")
    norm = [module for name, module in model.named_modules() if name.endswith("layernorm_before")][-1]
    wanted, size = cam_of(model, norm, x, lambda tokens: tokens[:, 1:].mT.reshape(len(tokens), -1, 4, 4))
    assert tuple(size) == (4, 4)
    assert wanted.max() > 1e-4
    assert backbone.own_head is not None
    np.testing.assert_allclose(found(GradCAM(), backbone, backbone.own_head, x).values, wanted, atol=1e-4)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Backbone]:
    """transformers' BERT with a head, and ours of its checkpoint."""
    directory = tmp_path_factory.mktemp("bert")
    model = write_classifier(directory, "bert", "SequenceClassification", 3)
    return model, load_backbone(directory)


def test_integrated_gradients_of_a_text_equal_torch(classifier: tuple[Any, Backbone]) -> None:
    """Of the vectors that the table of words has, from those of [MASK]; special tokens stay, and are in no part."""
    model, backbone = classifier
    (row,) = explain(backbone, None, ["the old apple and zinc"], target="name 1", steps=5, draws=0).rows
    ids = torch.tensor([[2, *(backbone.processor.ids(["the old apple and zinc"], special=False)[0]), 3]])
    blank = torch.where((ids == 2) | (ids == 3), ids, 4)
    table = model.get_input_embeddings().weight
    x, b = table[ids].detach(), table[blank].detach()
    total = torch.zeros_like(x)
    points, weights = np.polynomial.legendre.leggauss(5)
    for point, weight in zip(points, weights, strict=True):
        between = (b + (point + 1) / 2 * (x - b)).float().requires_grad_()
        log_odds(model(inputs_embeds=between).logits, np.array([1])).sum().backward()
        total += weight / 2 * between.grad
    wanted = ((x - b) * total).sum(-1)[0].numpy()
    assert np.abs(wanted[1:-1]).min() > 1e-4
    np.testing.assert_allclose(row.seen.values, wanted, atol=1e-4)
    assert [row.texts[text][begin:end] for text, begin, end in row.spans] == ["the", "old", "apple", "and", "zinc"]
    assert row.fragments.tolist() == [NO_FRAGMENT, 0, 1, 2, 3, 4, NO_FRAGMENT]
    assert (row.seen.values[0], row.seen.values[-1]) == (0, 0)


# -- what holds of them ------------------------------------------------------------------------------------------------------


def test_attributions_add_up_the_better_the_more_steps(backbone_of: GetBackbone) -> None:
    backbone = backbone_of("vit")
    adapter, x = adapter_on(backbone, LoRA(r=2, alpha=20.0)), 3 * drawn("vit")

    def missed(steps: int) -> float:
        ours = found(IntegratedGradients(steps), backbone, adapter, x)
        assert ours.difference is not None
        assert np.abs(ours.difference).min() > 1e-2
        return float(np.abs(ours.difference - np.asarray(ours.values).sum((1, 2))).max())

    assert missed(24) < 1e-3
    assert missed(24) < missed(2) / 10


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(IntegratedGradients(3), marks=pytest.mark.slow),
        Rollout(),
        pytest.param(GradCAM(), marks=pytest.mark.slow),
    ],
    ids=NAMES,
)
def test_with_an_adapter_it_is_that_of_the_merged_model(way: Way, backbone_of: GetBackbone) -> None:
    """And without its methods that of the frozen backbone with its head, which is another."""
    backbone = backbone_of("vit")
    adapter, x = adapter_on(backbone, LoRA(r=2, alpha=20.0)), drawn("vit")
    whole, head = merge(backbone, adapter)
    ours = np.asarray(found(way, backbone, adapter, x).values)
    np.testing.assert_allclose(found(way, whole, head, x).values, ours, atol=1e-5)
    question = Question.about(backbone, adapter, "it")
    alone = question.head_alone(question.state_of(adapter))
    program = jax.jit(partial(way.attribute, question))
    base = program(backbone.params, alone, ImageInputs(x), ImageInputs(blank_of(x)), LABELS).values
    bare = replace(head, fingerprint=backbone.fingerprint)
    np.testing.assert_allclose(base, found(way, backbone, bare, x).values, atol=1e-6)
    assert np.abs(base - ours).max() > 1e-4


@pytest.mark.parametrize("method", [VPT(tokens=3), Prefix(tokens=3)], ids=["vpt", "prefix"])
def test_rollout_leaves_out_what_is_no_part_of_the_picture(method: Any, backbone_of: GetBackbone) -> None:
    """An adapter's prompts and prefixes: what is attended to among the picture's own tokens adds up to 1 without them."""
    backbone = backbone_of("vit")
    adapter, x = adapter_on(backbone, method), drawn("vit")
    question = Question.about(backbone, adapter, "it")
    state = question.state_of(adapter)

    def attention_under(state: Any) -> np.ndarray:
        return np.asarray(jax.jit(partial(attention_of, backbone))(backbone.params, state, ImageInputs(x)))

    attention, without = attention_under(state), attention_under(question.head_alone(state))
    assert attention.shape == (3, 2, 17, 17)
    np.testing.assert_allclose(attention.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(attention[0], without[0], atol=1e-5)  # where tokens are as they were; heads are averaged
    assert attention.min() > 0
    assert np.ptp(np.asarray(rollout(jnp.asarray(attention)))[:, 0, 1:], axis=-1).min() > 1e-5


def toy_pictures(backbone: Backbone, count: int = 3) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 256, backbone.processor.shape, np.uint8) for i in range(count)]


def test_a_row_is_explained_alike_wherever_it_stands(backbone_of: GetBackbone) -> None:
    backbone = backbone_of("vit")
    adapter, pictures = adapter_on(backbone, LoRA(r=2, alpha=20.0)), toy_pictures(backbone)
    asked = partial(explain, backbone, adapter, draws=2, target="b")
    together, turned = asked(pictures), asked(pictures[::-1])
    assert np.ptp(together.rows[0].seen.values - together.rows[1].seen.values) > 1e-5
    for row in range(3):
        one, other = together.rows[row], turned.rows[2 - row]
        np.testing.assert_allclose(one.seen.values, other.seen.values, atol=1e-7)
        assert one.without is not None
        assert other.without is not None
        np.testing.assert_allclose(one.without.values, other.without.values, atol=1e-7)
        assert one.curves is not None
        assert other.curves is not None
        assert one.curves.deletion == pytest.approx(other.curves.deletion, abs=1e-4)
    again = asked(pictures)
    assert [row.curves for row in again.rows] == [row.curves for row in together.rows]  # the draws have a seed


def test_a_head_alone_changes_nothing(backbone_of: GetBackbone) -> None:
    backbone = backbone_of("vit")
    made = explain(backbone, adapter_on(backbone, None), toy_pictures(backbone, 1), draws=0)
    assert (made.about.method, made.about.changes, made.rows[0].without, made.rows[0].change) == ("rollout", False, None, None)


# -- deletion and insertion --------------------------------------------------------------------------------------------------


class LooksAtOnePart:
    """A model that says how much is left of one part, whatever the rest is."""

    def __init__(self, parts: np.ndarray, part: int):
        self.where = jnp.asarray(parts == part, jnp.float32)[None, ..., None]
        self.backbone, self.key = SimpleNamespace(programs={}, params=None), ()

    def evidence(self, params: Any, state: Any, inputs: ImageInputs, labels: Any) -> jax.Array:
        return (self.where * inputs.pixels).sum((1, 2, 3)) / self.where.sum()

    def told(self, evidence: jax.Array) -> jax.Array:
        return evidence


def fragments_of(shape: tuple[int, int, int]) -> Any:
    """What pictures of a size are made of; of their processor nothing else is asked."""
    processor: Any = SimpleNamespace(shape=shape)
    return OfPictures(processor)


def test_curves_of_a_model_that_looks_at_one_part() -> None:
    """Of four cells the third is seen. Taken away first, or given back first, it decides at once; last, not before the end."""
    kind = fragments_of((2, 2, 1))
    parts = kind.fragments({}, 1)
    assert parts.tolist() == [[0, 1], [2, 3]]
    pixels, blank = np.ones((1, 2, 2, 1), np.float32), np.zeros((1, 2, 2, 1), np.float32)
    question: Any = LooksAtOnePart(parts, 2)

    def curves(attributed: list[float]) -> Any:
        asked = (question, kind, {}, ImageInputs(pixels), ImageInputs(blank), parts, 0, np.array(attributed))
        return curves_of(*asked, draws=40, seed=0)

    right, wrong = curves([0.1, 0.2, 0.9, -0.3]), curves([0.1, 0.2, -0.9, 0.3])
    assert right.shares == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert (right.deletion, right.insertion) == ((1, 0, 0, 0, 0), (0, 1, 1, 1, 1))
    assert (right.deletion_area, right.insertion_area) == (0.125, 0.875)
    assert (wrong.deletion, wrong.insertion) == ((1, 1, 1, 1, 0), (0, 0, 0, 0, 1))
    assert {*right.random_deletions} == {0.125, 0.375, 0.625, 0.875}
    assert all(one + other == 1 for one, other in zip(right.random_deletions, right.random_insertions, strict=True))
    assert (right.telling, wrong.telling) == (False, False)  # no order does better than the best of the random ones
    few = replace(right, random=tuple((deletion, insertion) for deletion, insertion in right.random if 1 < sum(deletion) < 4))
    assert few.telling
    assert not replace(wrong, random=few.random).telling


def test_marks_are_moved_as_they_are() -> None:
    """Those of a picture stay beside each other; those of a text need not."""
    kind = fragments_of((5, 6, 1))
    marks, random = np.zeros((5, 6)), np.random.default_rng(0)
    marks[1:3, 2] = 1.0, 2.0
    places = set()
    for _ in range(60):
        moved = kind.moved(marks.ravel(), random).reshape(5, 6)
        (one,), (two,) = (np.argwhere(moved == value) for value in (1.0, 2.0))
        assert (np.abs(one - two)[0] in (1, 4), one[1]) == (True, two[1])
        places.add(tuple(one))
    assert len(places) > 20


def test_what_is_taken_away() -> None:
    """Of a picture 14 x 14 cells, in place of which there is its mean colour; of fewer pixels each."""
    kind = fragments_of((28, 20, 3))
    parts = kind.fragments({}, 1)
    assert (parts.shape, len(np.unique(parts)), parts[0, 0], parts[-1, -1]) == ((28, 20), 196, 0, 195)
    assert (np.diff(parts, axis=1) >= 0).all()
    assert np.bincount(parts.ravel()).min() >= 2
    x = np.random.default_rng(0).standard_normal((2, 28, 20, 3), np.float32)
    blank = kind.blank(ImageInputs(x), parts)
    np.testing.assert_allclose(blank.pixels[:, 3, 4], x.mean((1, 2)), atol=1e-6)
    kept = kind.kept(ImageInputs(x), blank, jnp.asarray(parts != 5)[None])
    assert (np.asarray(kept.pixels) != x).any(-1).sum() == 2 * np.count_nonzero(parts == 5)


# -- texts -------------------------------------------------------------------------------------------------------------------


def head_of_texts(backbone: Backbone, task: str = "classify", **known: Any) -> Adapter:
    labels = {"regress": ("value",), "tag": ("O", "B")}.get(task, ("fruit", "metal"))
    head = backbone.head(len(labels), tokens=task == "tag")
    known = {"task": task, "labels": labels, "fingerprint": backbone.fingerprint} | known
    made = Adapter.create((LoRA(r=2, alpha=20.0), head), backbone.sites, **known)
    random = np.random.default_rng(0)
    for states in made.states.values():
        for trainable, _ in states.values():
            for name, leaf in trainable.items():
                trainable[name] = leaf + 0.1 * random.standard_normal(np.shape(leaf)).astype(np.float32)
    return made


def test_texts_and_pairs_of_them(tiny: Backbone) -> None:
    """Tokens are shown as they stand in the text; those of words with several have each their own part."""
    made = explain(tiny, head_of_texts(tiny), ["Heavy  plums, zinc!", ("a red pear", "old iron")], steps=4, draws=3)
    first, second = made.rows
    assert made.about.method == "integrated-gradients"
    for row in made.rows:
        assert row.seen.missed is not None
        assert abs(row.seen.missed) < 0.02
        assert row.without is not None
        assert 0 < row.seen.said < 1
        assert row.seen.said != row.without.said
    (shown,) = pieces(first, first.seen.values, signed=True)
    assert "".join(piece.text for piece in shown) == "Heavy  plums, zinc!"
    assert [piece.text for piece in shown if piece.value is not None] == ["Heavy", "plum", "s", ",", "zinc", "!"]
    assert max(abs(piece.strength) for piece in shown) > 0.9
    assert ["".join(piece.text for piece in text) for text in pieces(second, second.seen.values, signed=True)] == list(
        second.texts
    )
    assert [text for text, _, _ in second.spans] == [0, 0, 0, 1, 1]


@pytest.mark.slow
def test_other_tasks(tiny: Backbone) -> None:
    """Of several labels each has a probability of its own; a number is explained as it is."""
    (row,) = explain(tiny, head_of_texts(tiny, "multilabel"), ["old iron"], target="metal", steps=4, draws=0).rows
    assert row.seen.said == pytest.approx(1 / (1 + np.exp(-row.seen.evidence)))
    made = explain(tiny, head_of_texts(tiny, "regress"), ["old iron"], steps=4, draws=0)
    assert (made.rows[0].label, made.about.explained) == ("", "number")
    assert made.rows[0].seen.answer == f"{made.rows[0].seen.said:.6g}"


def test_evidence_is_the_log_odds_of_a_label() -> None:
    logits = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 9.0]], np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    of_labels = chances[[0, 1], LABELS]
    wanted = np.log(of_labels) - np.log1p(-of_labels)
    np.testing.assert_allclose(task_named("classify").evidence(jnp.asarray(logits), jnp.asarray(LABELS)), wanted, rtol=1e-4)
    np.testing.assert_allclose(task_named("multilabel").evidence(jnp.asarray(logits), jnp.asarray(LABELS)), [-2.0, 9.0])
    assert {name for name, task in TASKS.items() if task.explained} == {"classify", "image-classify", "multilabel", "regress"}


# -- what is refused ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_explained_is_said_in_a_line(tiny: Backbone, teller: Backbone, backbone_of: GetBackbone) -> None:
    vit, maps, swin = backbone_of("vit"), backbone_of("cifar_resnet"), random_backbone(SWINS["swin"])
    text, of_texts = ["old iron"], head_of_texts(tiny)
    picture = toy_pictures(vit, 1)
    of_pictures = adapter_on(vit, None)
    speaks = Adapter.create((LoRA(r=2),), teller.sites, task="lm", fingerprint=teller.fingerprint)
    refusals: list[tuple[str, Any]] = [
        ("it has no label 'gold'; its labels are fruit, metal", lambda: explain(tiny, of_texts, text, target="gold")),
        ("unknown way to explain 'lime'; there are integrated-g", lambda: explain(tiny, of_texts, text, method="lime")),
        ("rollout is for pictures; texts have integrated-gradients", lambda: explain(tiny, of_texts, text, method="rollout")),
        ("grad-cam is for pictures", lambda: explain(tiny, of_texts, text, method="grad-cam")),
        ("feature maps or windows of them; use grad-cam", lambda: explain(maps, adapter_on(maps, None), [], method="rollout")),
        ("feature maps or windows of them; use grad-cam", lambda: explain(swin, adapter_on(swin, None), [], method="rollout")),
        ("answers with a number, and has no label", lambda: explain(tiny, head_of_texts(tiny, "regress"), text, target="a")),
        ("task 'tag' are not explained: there is a label for every", lambda: explain(tiny, head_of_texts(tiny, "tag"), text)),
        ("task 'lm' are not explained", lambda: explain(teller, speaks, text)),
        ("brings no head of its own: name an adapter", lambda: explain(tiny, None, text)),
        ("there is no row", lambda: explain(vit, of_pictures, [])),
        ("row 1 is empty", lambda: explain(tiny, of_texts, [" "])),
        ("row 2", lambda: explain(vit, of_pictures, [*picture, b"GIF89a"])),
        ("1 row but 2 truths", lambda: explain(vit, of_pictures, picture, truths=["a", "b"])),
        ("made for another backbone", lambda: explain(vit, replace(of_pictures, fingerprint="0" * 64), picture)),
        ("draws must be a whole number, at least 0", lambda: explain(vit, of_pictures, picture, draws=-1)),
    ]
    for said, call in refusals:
        with pytest.raises(GraftaxError) as error:
            call()
        assert said in str(error.value)
        assert "\n" not in str(error.value)


# -- the page and the command ------------------------------------------------------------------------------------------------


def test_the_command_names_every_way() -> None:
    assert tuple(way.value for way in WayName) == NAMES


def test_the_command_explains_pictures(vit: tuple[Any, Backbone], tmp_path: Path, graftax: Graftax) -> None:
    from PIL import Image

    _, backbone = vit
    at = backbone.directory
    assert at is not None
    save_adapter(adapter_on(backbone, LoRA(r=2, alpha=20.0)), tmp_path / "pets", backbone)
    for name in ("one", "two"):
        Image.fromarray(toy_pictures(backbone, 1)[0]).save(tmp_path / f"{name}.png")
    given = ["explain", "-b", at, "-a", tmp_path / "pets", "--out", tmp_path / "seen", "--draws", 2]
    said = graftax(*given, "--input", tmp_path / "one.png", tmp_path / "two.png", "--target", "b")
    assert said.code == 0, said.err
    assert [line.partition(":")[0] for line in said.out.splitlines()] == ["one.png", "two.png"]
    assert "; without the adapter's changes 0." in said.out
    assert f"page: {tmp_path / 'seen' / 'explain.html'}" in said.err
    there = {path.name for path in (tmp_path / "seen").iterdir()}
    pngs = {f"{row}{what}.png" for row in (1, 2) for what in ("", ".without", ".change")}
    assert there == {"explain.html", "explain.json", *pngs}
    with Image.open(tmp_path / "seen" / "1.change.png") as image:
        assert image.size == (320, 320)
    record = json.loads((tmp_path / "seen" / "explain.json").read_text())
    assert (record["method"], [row["label"] for row in record["rows"]], record["rows"][0]["grid"]) == (
        "rollout",
        ["b"] * 2,
        [14, 14],
    )
    for wrong, why in [
        ([], "give --input, pictures or rows, or --data"),
        (["-i", tmp_path / "one.png", "-d", tmp_path], "give --input, pictures or rows, or --data"),
        (["-i", tmp_path / "one.png", "--out", tmp_path], "holds other things"),
        (["-i", tmp_path / "one.png", "--method", "lime"], "'lime' is not one of"),
        (["-i", "-"], "a row names other; what is explained is one adapter"),
    ]:
        refusal = graftax(*given, *wrong, stdin='{"image": "a.png", "adapter": "other"}\n')
        assert (refusal.code, why in refusal.err) == (2, True), refusal.err


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(
    browser: Browser, tiny: Backbone, backbone_of: GetBackbone, tmp_path: Path, scheme: Literal["light", "dark"]
) -> None:
    """Without JavaScript and a network, at three widths: nothing sticks out, and what data hold is text."""
    vit = backbone_of("vit")
    for name, made in {
        "texts": explain(tiny, head_of_texts(tiny), [f"{HOSTILE} plum", "pear " * 30], steps=2, draws=2, name=HOSTILE),
        "pictures": explain(vit, adapter_on(vit, LoRA(r=2, alpha=20.0)), toy_pictures(vit, 2), draws=2, truths=[HOSTILE, "b"]),
    }.items():
        file = made.write(tmp_path / name)
        for width in (400, 800, 1400):
            page = browser.new_page(
                viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=False, offline=True
            )
            said, asked = list[str](), list[str]()
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(file.as_uri())
            assert said == []
            assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
            assert page.title() != "taken"
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.locator("svg.plot:visible").count() == 2
            assert page.locator("img:visible").count() == (8 if name == "pictures" else 0)
            page.close()
