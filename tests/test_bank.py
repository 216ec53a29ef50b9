"""A bank and what stands around it: loading is whole or not at all, and calls from several threads see one moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from cases import random_adapter
from tiny import write_backbone

from graftax import Adapter, GraftaxError, LoRA, Predictor, Prefix
from graftax.models.backbone import Backbone
from graftax.models.load import load_backbone
from graftax.serve.bank import Bank


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(write_backbone(tmp_path_factory.mktemp("bank") / "backbone"))


def lora(backbone: Backbone, seed: int, r: int = 2) -> Adapter:
    return random_adapter(backbone, (LoRA(r=r, alpha=3.0),), seed=seed)


def held(bank: Bank) -> dict[str, Any]:
    """All that a bank knows, by value."""
    return {
        "slots": {name: bank.slot(name) for name in bank.adapters},
        "adapters": {name: id(adapter) for name, adapter in bank.adapters.items()},
        "layout": bank.layout,
        "growths": bank.growths,
        "state": jax.tree.map(np.asarray, bank.state),
    }


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    states = one.pop("state"), two.pop("state")
    assert one == two
    jax.tree.map(np.testing.assert_array_equal, *states)


FURTHER: dict[str, Callable[[Backbone], tuple[str, Adapter]]] = {
    "another": lambda backbone: ("new", lora(backbone, 9)),
    "the same name": lambda backbone: ("0", lora(backbone, 9)),
    "growth by rank": lambda backbone: ("new", lora(backbone, 9, r=20)),
}


@pytest.mark.parametrize("further", FURTHER)
@pytest.mark.parametrize("resident", [2, 3])  # of four slots; with three the next one doubles them
@pytest.mark.parametrize("given_away", [False, True])
def test_a_write_that_fails_leaves_the_bank_as_it_was(
    further: str, resident: int, given_away: bool, backbone: Backbone
) -> None:
    """Also where the leaves had been donated to the program that failed."""
    bank = Bank(backbone, capacity=4)
    for n in range(resident):
        bank.add(str(n), lora(backbone, n))
    before, put = held(bank), bank._put

    def failing(state: Any, *rest: Any) -> Any:
        bank._put = put
        if given_away:
            jax.tree.map(lambda leaf: leaf.delete(), state)
        raise MemoryError("out of memory")

    bank._put = failing
    name, adapter = FURTHER[further](backbone)
    with pytest.raises(MemoryError):
        bank.add(name, adapter)
    assert_same(held(bank), before)
    bank.add(name, adapter)
    assert bank.adapters[name] is adapter
    assert len({bank.slot(other) for other in bank.adapters} | {0}) == len(bank) + 1
    fresh = Bank(backbone, capacity=bank._capacity)
    for other, one in bank.adapters.items():
        fresh.add(other, one)
    for other in bank.adapters:  # every slot holds its adapter, whatever happened on the way
        jax.tree.map(np.testing.assert_array_equal, slot_of(bank, other), slot_of(fresh, other))


def slot_of(bank: Bank, name: str) -> dict[str, Any]:
    """What the bank holds of one adapter, by site."""
    slot, stacked = bank.slot(name), bank.backbone.structure.stacked
    return {
        site: jax.tree.map(lambda leaf, site=site: np.asarray(leaf[:, slot] if stacked(site) else leaf[slot]), leaves)
        for site, leaves in bank.state.items()
    }


def test_a_free_slot_is_used_again(backbone: Backbone) -> None:
    bank = Bank(backbone, capacity=4)
    for n in range(3):
        bank.add(str(n), lora(backbone, n))
    grown = bank.growths
    bank.remove("1")
    bank.add("new", lora(backbone, 5))
    assert (bank.growths, sorted(bank.slot(name) for name in bank.adapters)) == (grown, [1, 2, 3])
    with pytest.raises(GraftaxError, match="no adapter named '1' is loaded; loaded are 0, 2, new"):
        bank.remove("1")


def test_one_of_the_same_name_has_its_slot(backbone: Backbone) -> None:
    bank = Bank(backbone, capacity=4)
    for name, seed in (("a", 1), ("b", 2), ("a", 3)):
        bank.add(name, lora(backbone, seed))
    assert (bank.slot("a"), bank.slot("b"), len(bank)) == (1, 2, 2)


def test_a_full_bank_grows_before_it_is_written(backbone: Backbone) -> None:
    """Of two slots one is nobody's: the second adapter needs a third."""
    small, roomy = Bank(backbone, capacity=2), Bank(backbone, capacity=8)
    for name, seed in (("a", 1), ("b", 2)):
        small.add(name, lora(backbone, seed))
        roomy.add(name, lora(backbone, seed))
    jax.tree.map(np.testing.assert_array_equal, slot_of(small, "b"), slot_of(roomy, "b"))


def test_a_row_without_an_adapter_is_the_backbones_beside_any(backbone: Backbone) -> None:
    predictor = Predictor(backbone)
    before = predictor.embed(["plum"])
    predictor.load("x", random_adapter(backbone, (Prefix(tokens=3),)))
    np.testing.assert_allclose(predictor.embed(["plum"]), before, atol=1e-6)
    assert np.abs(predictor.embed(["plum"], "x") - before).max() > 1e-3


@pytest.mark.parametrize("name", [None, "", 3, ("a",)])
def test_a_name_is_a_text(name: Any, backbone: Backbone) -> None:
    """None stands for no adapter: under that name one could never be asked for."""
    with pytest.raises(GraftaxError, match="name must be a text, not empty, got"):
        Predictor(backbone).load(name, lora(backbone, 1))


def test_labels_and_task_beside_loading_and_unloading(backbone: Backbone) -> None:
    """From several threads: what a name means at one moment, or that it is not loaded."""
    predictor, adapter = Predictor(backbone), lora(backbone, 1)
    predictor.load("a", adapter)
    failures: list[BaseException] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                assert predictor.labels("a") == adapter.labels
                assert predictor.task("a").name == "classify"
            except GraftaxError:
                continue  # not loaded at this moment
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        predictor.unload("a")
        predictor.load("a", adapter)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
