"""A training loop as one writes it without a server: torch, PEFT, and an adapter's files to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from tinker import types

Tensors = Mapping[str, torch.Tensor]

#: The loss of a text, of how likely each of its targets is and what else is known of these.
LOSSES: dict[str, Callable[[torch.Tensor, Tensors], torch.Tensor]] = {
    "cross_entropy": lambda likely, of: -(of["weights"] * likely).sum(),
    "importance_sampling": lambda likely, of: -(of["advantages"] * torch.exp(likely - of["logprobs"])).sum(),
}


class PeftLoop:
    """An adapter in training, on data in Tinker's form."""

    def __init__(self, base: Path, adapter: Path):
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self._model = peft.PeftModel.from_pretrained(model, adapter, is_trainable=True)
        trained = [leaf for leaf in self._model.parameters() if leaf.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0)

    def _likely(self, tokens: Sequence[int], targets: Sequence[int]) -> torch.Tensor:
        logprobs = torch.log_softmax(self._model(torch.tensor([[*tokens]])).logits[0], -1)
        return logprobs[range(len(targets)), [*targets]]

    def logprobs(self, text: Sequence[int]) -> np.ndarray:
        """How likely each token of a text but the first is."""
        with torch.no_grad():
            return self._likely(text[:-1], text[1:]).numpy()

    def learn(self, data: Sequence[types.Datum], loss: str, learning_rate: float) -> float:
        """The loss of data, and a step along its gradient."""
        total = torch.zeros(())
        for datum in data:
            of = {name: torch.tensor(values.to_numpy()) for name, values in datum.loss_fn_inputs.items()}
            total = total + LOSSES[loss](self._likely(datum.model_input.to_ints(), of["target_tokens"].tolist()), of)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.zero_grad()
        total.backward()
        self._optimizer.step()
        return total.item()
