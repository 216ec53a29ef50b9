"""Kernels of attention in a compiled program, and how much they compute: cuDNN's on NVIDIA's GPUs, Splash on TPUs.

Of `queries` by `keys` scores, 2 queries keys size operations a product, they compute

    forward           q k^T, and the weights times v: two products
    cuDNN, back       the scores anew, and the gradients of the weights, of q, k and v: five
    Splash, back      in a kernel for q and one for k and v; scores and gradients of weights in both: three and four

They leave out blocks that a mask says nobody sees, which is not counted off: a causal mask halves the work at most.
"""

from __future__ import annotations

import math
import re
from itertools import product

from .hlo_text import Program, Step

_CUDNN = {
    f"__cudnn$fmha{bias}Softmax{dropout}{back}": products
    for bias, dropout, (back, products) in product(("", "ScaleBias"), ("", "Dropout"), (("", 2), ("Backward", 5)))
}
_SPLASH = {
    f"splash_{kind}_{phase}{segments}{residuals}": products
    for kind, (phase, products), segments, residuals in product(
        ("mha", "mqa"), (("fwd", 2), ("dq", 3), ("dkv", 4)), ("", "_segmented"), ("_residuals", "_no_residuals")
    )
}


def attention_flops(program: Program) -> int:
    """Operations of all kernels of attention, of masked scores too."""
    return sum(step.times * _flops(step) for step in program.steps if step.instruction.opcode == "custom-call")


def _flops(step: Step) -> int:
    target = step.instruction.target
    if target in _CUDNN:
        scores = re.search(r'"intermediate_tensor_shape":\s*\{[^}]*?"dimensions":\s*\[([^\]]*)\]', step.instruction.attributes)
        count = math.prod(int(n) for n in re.findall(r"\d+", scores.group(1))) if scores else 0
        return 2 * _CUDNN[target] * count * step.within.operands(step.instruction)[0].lengths[-1]
    if target in _SPLASH:
        # behind what says which blocks there are
        query, key = [s for s in step.within.operands(step.instruction) if s.dtype in ("bf16", "f16", "f32")][:2]
        return 2 * _SPLASH[target] * query.size * key.lengths[-2]
    return 0
