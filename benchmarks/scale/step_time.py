"""How long a compiled program takes on an H100: the roofline of its FLOPs and bytes, and a launch for each of its kernels.

    seconds = max( FLOPs / (peak * matmul_share),  bytes / (bandwidth * memory_share) ) + kernels * launch

FLOPs, bytes and kernels are compiled (`compiled_costs.py`), peak and bandwidth are the data sheet's, the shares and the launch
are assumed (`assumptions.py`): nothing was ever run on one. A tick of a pack is its gradient and its update. A slot costs the
same whether a learner is in it or not.

Why packs help is in the third term: a step of one small adapter launches as many kernels as a step of sixteen.
"""

from __future__ import annotations

from ..accelerators.described_devices import DEVICES
from .assumptions import Assumptions
from .compiled_costs import DEVICE, LANES, PROMPTS, CompiledCost, compiled_costs

_H100 = DEVICES[DEVICE]


def program_seconds(cost: CompiledCost, assumptions: Assumptions) -> float:
    by_flops = cost.flops / (_H100.peak("bf16") * assumptions.matmul_share)
    by_bytes = cost.moved / (_H100.bandwidth * assumptions.memory_share)
    return max(by_flops, by_bytes) + cost.kernels * assumptions.launch


def tick_seconds(backbone: str, slots: int, assumptions: Assumptions) -> float:
    """A step of all slots of a pack; `backbone` and `slots` as in compiled.json."""
    both = (compiled_costs()[f"{backbone}/{part}/{slots}"] for part in ("gradient", "update"))
    return sum(program_seconds(cost, assumptions) for cost in both)


def prompt_seconds(assumptions: Assumptions) -> float:
    """To read one prompt, of those that are read in one call."""
    return program_seconds(compiled_costs()["decoder/prefill"], assumptions) / PROMPTS


def token_seconds(texts: int, assumptions: Assumptions) -> float:
    """To write a token of each of so many texts: the program of as many lanes, or of the next larger number of them."""
    lanes = next(lanes for lanes in LANES if texts <= lanes)
    return program_seconds(compiled_costs()[f"decoder/decode/{lanes}"], assumptions)
