"""Activations by Hugging Face's names: transformers' numbers and derivatives, in configs of every family that names one."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from configs import TEXT_FAMILIES
from conftest import some_inputs
from reference import saved, torch_model
from test_backbones import assert_states_are_torchs
from test_decoders import TINY, logits, rows
from transformers.activations import ACT2FN

from graftax import GraftaxError, load_backbone
from graftax.models.activations import ACTIVATIONS
from graftax.models.inputs import TextInputs

X = np.random.default_rng(0).uniform(-1, 1, (2, 2000)).astype(np.float32) * np.array([[30], [3]], np.float32)  # at no corner


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_transformers_numbers(name: str) -> None:
    x = torch.tensor(X, requires_grad=True)
    theirs = ACT2FN[name](x)
    (slope,) = torch.autograd.grad(theirs.sum(), x)
    ours, pull = jax.vjp(ACTIVATIONS[name], jnp.asarray(X))
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(pull(jnp.ones_like(ours))[0], slope.numpy(), atol=2e-5, rtol=2e-5)
    assert np.isfinite(pull(jnp.ones_like(ours))[0]).all()


def test_all_of_transformers_but_those_with_weights_and_a_routers() -> None:
    assert set(ACT2FN) - set(ACTIVATIONS) == {"prelu", "xielu", "sqrtsoftplus"}


KEYS = ("hidden_act", "activation", "activation_function", "hidden_activation")
UNNAMED = {"open_clip_text_model"}  # whose configs say `quick_gelu`, true or false


@pytest.mark.parametrize("model_type", sorted({*TEXT_FAMILIES} - UNNAMED))
def test_any_other_is_refused_by_name(model_type: str) -> None:
    key = next(key for key in KEYS if key in TEXT_FAMILIES[model_type].keys) if "t5" not in model_type else "dense_act_fn"
    with pytest.raises(GraftaxError, match=rf"{key}='xielu' \(one of gelu, gelu_python, .*, mish, .*, linear\)"):
        TEXT_FAMILIES[model_type].configure({key: "xielu"})


def test_the_name_reaches_the_layers(tmp_path: Path) -> None:
    """Whole models: an encoder, a gated decoder, and what T5 says of its gate."""
    encoder = torch_model("bert", hidden_act="mish")
    backbone = load_backbone(saved(encoder, tmp_path / "encoder"))
    assert_states_are_torchs(backbone, encoder, some_inputs(backbone))
    config = transformers.LlamaConfig(**{**TINY, "hidden_act": "relu2"})
    torch.manual_seed(0)
    decoder = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    backbone = load_backbone(saved(decoder, tmp_path / "decoder"))
    ids = rows(backbone).ids[:1]
    with torch.no_grad():
        theirs = decoder(torch.tensor(ids.astype(np.int64))).logits.numpy()
    ours, _ = logits(backbone, TextInputs(ids, np.ones_like(ids, bool), np.zeros_like(ids)))
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    t5 = TEXT_FAMILIES["t5"].configure({"feed_forward_proj": "gated-quick_gelu"})
    assert (t5.gated, t5.activation) == (True, "quick_gelu")
    with pytest.raises(GraftaxError, match=r"feed_forward_proj='gated-xielu': 'xielu' is none of gelu, .*, linear"):
        TEXT_FAMILIES["t5"].configure({"feed_forward_proj": "gated-xielu"})
