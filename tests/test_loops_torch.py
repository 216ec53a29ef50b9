"""Loops against torch: the losses by its automatic differentiation, and whole steps by PEFT with torch's AdamW."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import peft
import pytest
import test_decoders
import torch
import transformers
from reference import saved

from graftax import LoRA, load_adapter, load_backbone, save_adapter
from graftax.tuning.loops.calls import Call, Datum, Step
from graftax.tuning.loops.loops import Loops
from graftax.tuning.loops.room import trainable_of
from graftax.tuning.loops.token_losses import LOSSES, LossInputs, loss_and_slope

Tensors = dict[str, torch.Tensor]


def clipped(ratio: torch.Tensor, of: Tensors) -> torch.Tensor:
    return torch.clamp(ratio, of["clip_low_threshold"], of["clip_high_threshold"])


#: As Tinker's documentation has them, of log-likelihoods and ratios.
FORMULAS: dict[str, Callable[[torch.Tensor, torch.Tensor, Tensors], torch.Tensor]] = {
    "cross_entropy": lambda likely, ratio, of: -likely * of["weights"],
    "importance_sampling": lambda likely, ratio, of: -ratio * of["advantages"],
    "ppo": lambda likely, ratio, of: -torch.min(ratio * of["advantages"], clipped(ratio, of) * of["advantages"]),
    "cispo": lambda likely, ratio, of: -clipped(ratio, of).detach() * likely * of["advantages"],
    "dro": lambda likely, ratio, of: 0.5 * of["beta"] * (likely - of["logprobs"]) ** 2 - likely * of["advantages"],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_and_its_derivative_are_torchs(loss: str) -> None:
    """Ratios from 0.1 to 10, advantages of both signs and 0, thresholds that differ by token."""
    random = np.random.default_rng(0)
    size = (4, 40)
    found = random.uniform(-5.0, -0.1, size).astype(np.float32)
    of = {
        "weights": random.normal(size=size),
        "logprobs": found - random.uniform(-2.3, 2.3, size),
        "advantages": random.normal(size=size) * (random.random(size) > 0.2),
        "clip_low_threshold": random.uniform(0.5, 0.95, size),
        "clip_high_threshold": random.uniform(1.05, 3.0, size),
        "beta": np.full(size, 0.3),
    }
    of = {name: array.astype(np.float32) for name, array in of.items()}
    said, slope = loss_and_slope(jnp.asarray(found), LossInputs(np.full(4, [*LOSSES].index(loss), np.int32), **of))
    likely = torch.tensor(found, requires_grad=True)
    tensors = {name: torch.tensor(array) for name, array in of.items()}
    wanted = FORMULAS[loss](likely, torch.exp(likely - tensors["logprobs"]), tensors)
    wanted.sum().backward()
    assert likely.grad is not None
    np.testing.assert_allclose(said, wanted.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, likely.grad, rtol=1e-5, atol=1e-6)


def test_what_a_loss_does_not_read_does_not_reach_it() -> None:
    """An infinite ratio is nothing to `cross_entropy`, and a bounded one is all that `ppo` sees of it."""
    found = jnp.full((2, 1), -1.0)
    blank = np.zeros((2, 1), np.float32)
    drawn = np.full((2, 1), -1e4, np.float32)
    which = np.array([[*LOSSES].index("cross_entropy"), [*LOSSES].index("ppo")], np.int32)
    said, slope = loss_and_slope(found, LossInputs(which, blank + 2.0, drawn, blank + 1.0, blank + 0.8, blank + 1.2, blank))
    np.testing.assert_allclose(said[:, 0], [2.0, -1.2], rtol=1e-6)
    np.testing.assert_allclose(slope[:, 0], [-2.0, 0.0])


@pytest.mark.parametrize("shape", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_steps_are_pefts_with_torchs_adamw(shape: str, tmp_path: Path) -> None:
    """Three steps of cross-entropy, with weights, decay and a clip: log-likelihoods and leaves [1e-4]."""
    base = saved(test_decoders.torch_model(shape), tmp_path / "base")
    backbone = load_backbone(base)
    loops = Loops(backbone)
    loops.create("a", [LoRA(r=3, alpha=5.0, targets=("q_proj", "up_proj") if shape == "llama" else ("c_attn", "c_fc"))], seed=2)
    save_adapter(loops.adapter("a"), tmp_path / "begun", backbone)
    torch_base = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model: Any = peft.PeftModel.from_pretrained(torch_base.eval(), tmp_path / "begun", is_trainable=True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.1)
    random = np.random.default_rng(0)
    step = Step("a", learning_rate=0.01, weight_decay=0.1, grad_clip_norm=1.0)
    for _ in range(3):
        texts = random.integers(0, backbone.config.vocab_size, (3, 13))
        weights = random.uniform(0.0, 1.0, (3, 12)).astype(np.float32)
        own = [Datum(text[:-1], {"target_tokens": text[1:], "weights": w}) for text, w in zip(texts, weights, strict=True)]
        (outcome,) = loops.forward_backward([Call("a", own)])
        logits = model(input_ids=torch.tensor(texts[:, :-1])).logits
        likely = torch.log_softmax(logits, -1).gather(-1, torch.tensor(texts[:, 1:, None]))[..., 0]
        np.testing.assert_allclose(np.stack(outcome.logprobs), likely.detach(), rtol=0, atol=1e-4)
        loss = -(likely * torch.tensor(weights)).sum()
        np.testing.assert_allclose(outcome.loss, float(loss.detach()), rtol=1e-4)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        np.testing.assert_allclose(loops.optim_step([step])[0].gradient_norm, float(norm), rtol=1e-4)
    model.save_pretrained(tmp_path / "peft")
    wanted = trainable_of(load_adapter(tmp_path / "peft", backbone))
    found = trainable_of(loops.adapter("a"))
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        np.testing.assert_allclose(found[name], leaf, rtol=0, atol=1e-4, err_msg=name)
