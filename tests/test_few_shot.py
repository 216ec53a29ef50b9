"""A few pictures beside the names of classes: Tip-Adapter and CLIP-Adapter as in their papers, and what is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import logits, randomised
from conftest import Graftax
from contract import assert_same_states
from refusals import refused
from runs import interrupt, stop_after
from tiny import FRUIT
from torch_towers import NAMES, pictures, similarities
from tower_pairs import rows

from graftax import (
    Adapter,
    Joint,
    LoRA,
    Predictor,
    Recipe,
    clip_adapter,
    load_adapter,
    save_adapter,
    tip_adapter,
    train_many,
    zero_shot,
)
from graftax.adapters.fitting import head_of
from graftax.adapters.methods.tip_adapter import TipAdapter
from graftax.models.backbone import Backbone
from graftax.models.inputs import ImageInputs
from graftax.models.pairs import tower_of
from graftax.train import Interrupted

SHOTS = [0, 0, 1, 2, 2, 2]  # labels of pictures: classes have unlike numbers of them


def leaves_of(adapter: Adapter) -> dict[str, np.ndarray]:
    """All that an adapter's head holds."""
    head = head_of(adapter)
    assert head is not None
    ((trainable, fixed),) = adapter.states[head.key].values()
    return trainable | fixed


def labelled(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Noisy pictures of four fruits, with labels."""
    return [{"image": row["image"], "label": row["text"].split()[-1]} for row in rows(count, seed=seed)]


def right(image: Backbone, adapters: dict[str, Any], asked: list[dict[str, Any]]) -> dict[str, float]:
    """How often each adapter is right."""
    predictor = Predictor(image)
    for name, adapter in adapters.items():
        predictor.load(name, adapter)
    answers = predictor.predict([row["image"] for row in asked] * len(adapters), [n for n in adapters for _ in asked])
    hits = np.array([answer.label == row["label"] for answer, row in zip(answers, asked * len(adapters), strict=True)])
    return dict(zip(adapters, hits.reshape(len(adapters), -1).mean(1).tolist(), strict=True))


@pytest.fixture(scope="module")
def few(clip_in_torch: Any) -> dict[str, Any]:
    """Classes by their names, pictures to be kept and pictures that are asked about, and what torch says of them."""
    model, image, text = clip_in_torch
    kept = np.random.default_rng(1).integers(0, 3, (len(SHOTS), 16, 16, 3), np.uint8)
    asked = pictures(4, seed=2)

    @torch.no_grad()
    def vectors(x: np.ndarray) -> Any:
        return model.visual_projection(model.vision_model(pixel_values=torch.tensor(x.transpose(0, 3, 1, 2))).pooler_output)

    return {
        "named": zero_shot(image, text, NAMES, prompts=["the {}."]),
        "data": [{"image": picture, "label": NAMES[label]} for picture, label in zip(kept, SHOTS, strict=True)],
        "asked": asked,
        "by_names": torch.tensor(similarities("clip", model, text, [f"the {name}." for name in NAMES], asked)),
        "kept_vectors": vectors(kept.astype(np.float32)),
        "vectors": vectors(asked),
    }


def test_tip_adapter_is_that_of_the_paper(clip_in_torch: Any, few: dict[str, Any]) -> None:
    """A matrix of keys beside one of labels, one-hot; here each class has a row of keys."""
    image = clip_in_torch[1]
    made = tip_adapter(image, few["named"], few["data"], alpha=1.7, beta=3.0)
    keys = torch.nn.functional.normalize(few["kept_vectors"], dim=-1)
    f = torch.nn.functional.normalize(few["vectors"], dim=-1)
    cached = torch.exp(-3.0 * (1.0 - f @ keys.T)) @ torch.eye(3)[SHOTS]
    wanted = few["by_names"] + 1.7 * cached
    assert np.ptp(cached.numpy()) > 0.1
    np.testing.assert_allclose(logits(image, made, ImageInputs(few["asked"])), wanted.numpy(), atol=1e-4)


def test_clip_adapter_is_that_of_the_paper(clip_in_torch: Any, few: dict[str, Any]) -> None:
    """Which changes a vector before it has length 1; fresh it answers as names do."""
    image = clip_in_torch[1]
    fresh = clip_adapter(image, few["named"], reduction=3, ratio=0.6, seed=4)
    np.testing.assert_allclose(logits(image, fresh, ImageInputs(few["asked"])), few["by_names"].numpy(), atol=1e-4)
    made = randomised(fresh)
    down, up = (torch.tensor(leaves_of(made)[name]) for name in ("down", "up"))
    assert down.shape == (20 // 3, 20)
    v = few["vectors"]
    f = torch.nn.functional.normalize(0.4 * v + 0.6 * torch.relu(v @ down.T) @ up.T, dim=-1)
    wanted = f @ torch.tensor(leaves_of(made)["kernel"]).T
    assert (wanted - few["by_names"]).abs().max() > 0.1
    np.testing.assert_allclose(logits(image, made, ImageInputs(few["asked"])), wanted.numpy(), atol=1e-4)


def test_they_share_a_batch_and_their_files_answer_to_the_bit(clip_in_torch: Any, few: dict[str, Any], tmp_path: Path) -> None:
    """With a LoRA that has another head; classes and shots are unlike."""
    image, named = clip_in_torch[1], few["named"]
    lora = Adapter.create((LoRA(r=2), image.head(5)), image.sites, task="image-classify", labels=tuple("abcde"), seed=3)
    made = {
        "tip": tip_adapter(image, named, few["data"]),
        "fewer": tip_adapter(image, named, few["data"][:4], alpha=2.0, beta=2.0),
        "clip": randomised(clip_adapter(image, named, ratio=0.5)),
        "lora": randomised(lora),
    }
    together, again = Predictor(image), Predictor(image)
    for name, adapter in made.items():
        together.load(name, adapter)
        again.load(name, save_adapter(adapter, tmp_path / name, image))
    x = [np.random.default_rng(7).integers(0, 3, (16, 16, 3), np.uint8)] * len(made)
    mixed = together.predict(x, list(made))
    assert again.predict(x, list(made)) == mixed
    assert len({answer.score for answer in mixed}) == len(made)
    for name, answer in zip(made, mixed, strict=True):
        alone = Predictor(image)
        alone.load(name, made[name])
        (found,) = alone.predict(x[:1], name)
        assert found.probabilities is not None
        assert answer.probabilities is not None
        assert found.probabilities.keys() == answer.probabilities.keys()
        for label, chance in found.probabilities.items():
            assert answer.probabilities[label] == pytest.approx(chance, abs=1e-5)


def test_it_is_trained_on(clip: Backbone, tmp_path: Path) -> None:
    """Tip-Adapter-F and CLIP-Adapter: what is not theirs to train stays, and more is known than before."""
    image = tower_of(clip, "image")
    named = zero_shot(image, clip, FRUIT[:4], prompts=["a red {}"])
    shots, fresh = labelled(10), labelled(24, seed=5)
    tip = tip_adapter(image, named, shots)
    starts: dict[str, Any] = {"tip": tip, "clip": clip_adapter(image, named, reduction=1, ratio=0.8)}
    recipe = Recipe(epochs=20, lr=1e-2, batch_size=8)
    settings: dict[str, Any] = {"task": "image-classify", "recipe": recipe, "progress": False}
    run = train_many(
        image, dict.fromkeys(starts, shots), tmp_path, each={n: {"method": m} for n, m in starts.items()}, **settings
    )
    trained = {f"trained {name}": result.directory for name, result in run.items()}
    found = right(image, {"named": named, "tip": tip} | trained, fresh)
    assert found["named"] < 0.4
    assert min(found["tip"], found["trained clip"]) > found["named"] + 0.2
    assert found["trained tip"] > found["tip"] + 0.2
    for name, moved in (("tip", {"keys"}), ("clip", {"down", "up"})):
        old, new = leaves_of(starts[name]), leaves_of(load_adapter(run[name].directory, image))
        assert {leaf for leaf in old if not np.array_equal(old[leaf], new[leaf])} == moved


def test_what_is_trained_on_decides_the_run(clip: Backbone, tmp_path: Path) -> None:
    """One epoch and then another are not two, but go on: and of another adapter another run is begun."""
    image = tower_of(clip, "image")
    named = zero_shot(image, clip, FRUIT[:4], prompts=["a red {}"])
    settings: dict[str, Any] = {"task": "image-classify", "recipe": Recipe(epochs=1, lr=1e-2), "progress": False}
    first = train_many(image, {"a": labelled(8)}, tmp_path / "first", method=(LoRA(r=2), named), **settings)["a"]
    then = train_many(image, {"a": labelled(8)}, tmp_path / "then", method=load_adapter(first.directory, image), **settings)[
        "a"
    ]
    anew = train_many(image, {"a": labelled(8)}, tmp_path / "anew", method=(LoRA(r=2), named), **settings)["a"]
    one, two, three = (load_adapter(result.directory, image) for result in (first, then, anew))
    assert_same_states(one, three, 0.0)
    assert two.parents == (one.source,)
    assert one.recipe["method"] == two.recipe["method"] == "lora"
    assert two.labels == one.labels == tuple(FRUIT[:4])
    assert not np.array_equal(leaves_of(two)["kernel"], leaves_of(one)["kernel"])
    longer = settings | {"recipe": Recipe(epochs=4, lr=1e-2)}
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2, interrupt)
        with pytest.raises(Interrupted):
            train_many(image, {"a": labelled(8)}, tmp_path / "stopped", method=one, **longer)
    line = refused(lambda: train_many(image, {"a": labelled(8)}, tmp_path / "stopped", method=two, **longer))
    assert line is not None
    assert "with other settings or data" in line
    for call, why in (
        (lambda: train_many(image, {"a": labelled(8)}, tmp_path / "b", method=(one, two), **settings), "several were given"),
        (lambda: train_many(image, {"a": rows(4)}, tmp_path / "b", method=one, **settings | {"task": "regress"}), "regress"),
        (
            lambda: train_many(image, {"a": [{**labelled(1)[0], "label": "fig"}]}, tmp_path / "b", method=one, **settings),
            "'fig'",
        ),
        (
            lambda: train_many(image, {"a": labelled(8)}, tmp_path / "b", method=(LoRA(r=3), one), **settings),
            "hold a method once",
        ),
        (lambda: train_many(clip, {"a": rows(8)}, tmp_path / "b", method=one, task="contrastive"), "another backbone"),
    ):
        line = refused(call)
        assert line is not None, why
        assert why in line


def test_two_towers_that_an_adapter_joined(unlike: Backbone) -> None:
    """What is compared lies in their joint space, by hand."""
    joined = Adapter.create((Joint(dim=12),), unlike.sites, task="contrastive", seed=2)
    image, shots = tower_of(unlike, "image"), labelled(6)
    named = zero_shot(image, unlike, FRUIT[:4], adapter=joined)
    made = tip_adapter(image, named, shots, alpha=3.0, beta=2.0)
    predictor, both = Predictor(image), Predictor(unlike)
    both.load("joined", joined)
    predictor.load("tip", made)
    predictor.load("named", named)
    predictor.load("clip", clip_adapter(image, named))
    x = [row["image"] for row in labelled(5, seed=8)]
    u = both.embed([{"image": one} for one in x], "joined")
    k = both.embed([{"image": row["image"]} for row in shots], "joined")
    held = leaves_of(named)
    onehot = np.array([[row["label"] == name for name in FRUIT[:4]] for row in shots], np.float32)
    z = u @ held["kernel"].T + held["bias"] + 3.0 * np.exp(2.0 * (u @ k.T - 1.0)) @ onehot
    chances = np.exp(z - z.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    found = [[answer.probabilities[name] for name in FRUIT[:4]] for answer in predictor.predict(x, "tip")]
    np.testing.assert_allclose(found, chances, atol=1e-4)
    answers = [[answer.probabilities for answer in predictor.predict(x, name)] for name in ("clip", "named")]
    for ours, theirs in zip(*answers, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_commands(clip: Backbone, tmp_path: Path, graftax: Graftax) -> None:
    """Names, a few pictures beside them, and training on."""
    from PIL import Image

    for i, row in enumerate(labelled(8)):
        (tmp_path / "pets" / row["label"]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(row["image"]).save(tmp_path / "pets" / row["label"] / f"{i}.png")
    base, pets, at = str(clip.name), str(tmp_path / "pets"), {name: str(tmp_path / name) for name in ("named", "kept", "out")}
    assert graftax("zero-shot", "-b", base, "--tower", "both", "--name", *FRUIT[:4], "-o", at["named"]).code == 0
    tower = ["-b", base, "--tower", "image"]
    assert graftax("few-shot", *tower, "-a", at["named"], "--data", pets, "--beta", "2", "-o", at["kept"]).code == 0
    train = ["train", *tower, "--task", "image-classify", "--data", pets, "--epochs", "1", "-o", at["out"]]
    assert graftax(*train, "--adapter", at["kept"], "--method", "lora", "--rank", "2").code == 0
    found = load_adapter(tmp_path / "out" / "pets", tower_of(clip, "image"))
    lora, tip = found.methods
    assert isinstance(lora, LoRA)
    assert isinstance(tip, TipAdapter)
    assert (lora.r, tip.beta) == (2, 2.0)
    few = ["few-shot", *tower, "-a", at["named"], "-o", str(tmp_path / "bad")]
    for more, why in (
        ([], "give --data"),
        (["--data", pets, "--ratio", "0.5"], "--ratio is no option of tip_adapter"),
        (["--data", pets, "--method", "clip_adapter"], "is trained on pictures later"),
        (["--method", "tipp"], "use tip_adapter or clip_adapter"),
    ):
        said = graftax(*few, *more)
        assert said.code == 2
        assert why in said.err


def test_only_classes_by_names(clip: Backbone, tmp_path: Path) -> None:
    image = tower_of(clip, "image")
    probe = Adapter.create((image.head(4),), image.sites, task="image-classify", labels=tuple(FRUIT[:4]))
    named = zero_shot(image, clip, FRUIT[:4])
    for call, why in (
        (lambda: clip_adapter(image, probe), "is a head at head.pooled"),
        (lambda: clip_adapter(image, clip_adapter(image, named)), "is a clip_adapter"),
        (lambda: tip_adapter(image, named, [{**labelled(1)[0], "label": "fig"}]), "'fig'"),
        (lambda: tip_adapter(image, named, labelled(4), beta=0.0), "beta"),
    ):
        line = refused(call)
        assert line is not None, why
        assert why in line
