"""What fits on a device that is not there; here that is a CPU with a data sheet and a memory of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from conftest import CONFIGS, PATCHES, Graftax
from described_cpu import CPU

import graftax.benchmarks.accelerators.training_plan as module
from graftax import LoRA
from graftax.benchmarks.accelerators import described_devices
from graftax.benchmarks.accelerators.asked_program import AskedProgram, TooLarge
from graftax.benchmarks.accelerators.program_facts import Facts
from graftax.benchmarks.accelerators.training_plan import TrainingPlan, WantedTraining, smaller_plans, training_plan
from graftax.models.random import random_backbone

PATHS = {"PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path))}


def wanted(family: str, slots: int = 2, **changes: Any) -> WantedTraining:
    given: dict[str, Any] = {"rows": 2, "length": 16, "dtype": "float32", **changes}
    return WantedTraining((CONFIGS | PATCHES)[family], (LoRA(r=8),), slots, **given)


@pytest.mark.parametrize("family", ["llama", "bert", "vit"])
def test_a_plan_counts_what_training_holds(family: str) -> None:
    plan = training_plan(wanted(family), CPU)
    backbone = random_backbone((CONFIGS | PATCHES)[family])
    assert plan.weights == 4 * backbone.parameters
    adapted = sum(8 * sum(site.shape) for site in LoRA(r=8).select(backbone.sites))
    head = 0 if family == "llama" else 8 * 32 + 8
    assert plan.gradients == 2 * 4 * (adapted + head)
    scalars = 2 * 2048  # of two learners: settings, rates, scales
    assert 3 * plan.gradients < plan.pack < 3 * plan.gradients + scalars  # leaves and two moments
    assert plan.temporaries
    assert plan.fits


ON_FOUR = """
import jax, json, sys
jax.config.update("jax_num_cpu_devices", 4)
from conftest import CONFIGS
from described_cpu import CPU
from graftax import LoRA
from graftax.benchmarks.accelerators.training_plan import WantedTraining, training_plan

def said(**several):
    wanted = WantedTraining(CONFIGS["llama"], (LoRA(r=8),), 8, 2, 16, "float32", "layers", **several)
    plan, step = training_plan(wanted, CPU), wanted.step(CPU)
    program = step.gradient_on(CPU, several["devices"], several["fsdp"]) if "devices" in several else step.gradient
    facts = program.facts(CPU)
    return plan.weights, plan.pack, plan.gradients, facts.arguments, dict(facts.collectives)

print(json.dumps([said(), said(devices=4, fsdp=False), said(devices=4, fsdp=True), said(tensor_parallel_size=4)]))
"""


def test_several_devices_have_each_their_part() -> None:
    """Of the slots; with --fsdp of the weights, and then they gather these and exchange nothing else.

    By tensor parallelism of the weights and not of the slots, and then what they have made is summed.
    """
    done = subprocess.run([sys.executable, "-c", ON_FOUR], capture_output=True, text=True, env=os.environ | PATHS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (weights, pack, gradients, all_of_it, _), whole, shared, together = json.loads(done.stdout)
    assert whole[:3] == [weights, pack // 4, gradients // 4]
    assert shared[1:3] == whole[1:3]
    assert weights / 4 < shared[0] < weights / 3.5  # norms are whole on each
    assert whole[3] - shared[3] == pytest.approx(weights - shared[0], rel=0.02)
    assert whole[4] == {}
    assert {*shared[4]} == {"all-gather"}
    assert together[1:3] == [pack, gradients]
    assert weights / 4 < together[0] < weights / 2  # the words are an odd number
    assert all_of_it - together[3] == pytest.approx(weights - together[0], rel=0.02)
    assert "all-reduce" in together[4]


def small(bytes_left: float, plan: TrainingPlan) -> Any:
    """A device on which so much is left beside a plan's weights and temporaries."""
    memory = (plan.weights + (plan.temporaries or 0) + bytes_left) / 0.9
    return dataclasses.replace(CPU, memory=memory)


def test_what_does_not_fit_is_followed_by_what_does() -> None:
    """First with layers computed again, then with as many adapters as there is room for."""
    whole = training_plan(wanted("llama", slots=8), CPU)
    each = (whole.pack + whole.gradients) / 8
    again = training_plan(wanted("llama", slots=8, remat="layers"), CPU)
    tight = training_plan(wanted("llama", slots=8), small(3.5 * each, again))
    assert not tight.fits
    tried = list(smaller_plans(tight))
    assert [(plan.wanted.remat, plan.wanted.slots) for plan in tried][:2] == [("layers", 8), ("layers", 3)]
    assert tried[1].fits
    assert not list(
        smaller_plans(training_plan(wanted("llama", slots=1, remat="layers"), dataclasses.replace(CPU, memory=10.0)))
    )


def test_weights_are_shared_before_adapters_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[WantedTraining] = []

    def none_fits(wanted: WantedTraining, device: Any) -> TrainingPlan:
        tried.append(wanted)
        return TrainingPlan(wanted, device, 0, 0, 0, None, None)

    monkeypatch.setattr(module, "training_plan", none_fits)
    assert [*smaller_plans(none_fits(wanted("llama", slots=12, devices=4), CPU))]
    assert [(one.remat, one.fsdp, one.slots) for one in tried] == [
        ("none", False, 12),
        ("layers", False, 12),
        ("layers", True, 12),
        ("layers", True, 4),
    ]


def test_a_compiler_that_gives_up_is_no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the TPU's does: half of the adapters are tried then."""
    read = AskedProgram.facts

    def gives_up(self: AskedProgram, device: Any) -> Facts:
        if self.args[2].step.shape[0] > 2:
            raise TooLarge("does not fit")
        return read(self, device)

    monkeypatch.setattr(AskedProgram, "facts", gives_up)
    found = training_plan(wanted("llama", slots=8), CPU)
    assert not found.fits
    assert next(plan.wanted.slots for plan in smaller_plans(found) if plan.fits) == 2


def test_the_command_says_it(graftax: Graftax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["llama"]))
    device = dataclasses.replace(CPU, memory=1e9)
    monkeypatch.setattr(described_devices, "described", lambda name: device)
    asked = ("plan", "-b", tmp_path, "--device", "cpu", "--dtype", "float32", "--rank", "4", "--seq", "16", "--slots", "3")
    said = graftax(*asked)
    assert (said.code, said.err) == (0, "")
    assert "3 adapters at once, 4 rows of 16 tokens each" in said.out
    assert "fits, with a tenth left over" in said.out
    device = dataclasses.replace(CPU, memory=1e3)
    said = graftax(*asked)
    assert said.code == 1
    assert "Nothing that was tried does" in said.out
    for wrong, told in ((("--seq", "100"), "more than the 48"), (("--remat", "all"), "none, products, layers")):
        said = graftax(*asked[:5], *asked[5:9], *wrong)
        assert said.code != 0
        assert told in said.err


def test_pictures_are_counted_as_such(graftax: Graftax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PATCHES["vit"]))
    monkeypatch.setattr(described_devices, "described", lambda name: CPU)
    said = graftax("plan", "-b", tmp_path, "--device", "cpu", "--dtype", "float32", "--rank", "4", "--rows", "3")
    assert "3 pictures each" in said.out
    assert "pictures/s (computed)" in said.out
    assert "tokens" not in said.out


def test_what_there_is_no_plan_for_is_refused(graftax: Graftax, tmp_path: Path) -> None:
    said = graftax("plan", "-b", tmp_path, "--device", "h200")
    assert said.code != 0
    assert len(said.err.splitlines()) == 1


def test_what_a_compiler_says_of_a_program_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of the TPU's; other errors are left as they are."""
    said = ["RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.31G of 15.75G hbm."]

    def gives_up(self: AskedProgram, device: Any) -> Any:
        raise jax.errors.JaxRuntimeError(said[0])

    monkeypatch.setattr(AskedProgram, "compiled", gives_up)
    with pytest.raises(TooLarge, match=r"needs 20\.31G of 15\.75G"):
        AskedProgram(None, ()).facts(CPU)
    said[0] = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        AskedProgram(None, ()).facts(CPU)
