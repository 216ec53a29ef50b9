"""Advantages: how much better a completion is than the others of its group.

    A_i = (r_i - mean(r)) / (deviation + 1e-4)

r are the rewards of one prompt's completions. So no value has to be learnt: the group says what was to be expected (GRPO, Shao
et al., 2024, arXiv:2402.03300, 4.1.2). The deviation is that of the group, of all rewards of the step (arXiv:2508.08221), or
there is none: to divide by it makes prompts count more that are nearly always, or nearly never, answered well (Dr. GRPO,
arXiv:2503.20783). It has n - 1 below its sum, as in TRL.

A group whose rewards are all equal has advantages of zero, and teaches nothing.
"""

from __future__ import annotations

import numpy as np

_LEAST = 1e-4  # beside the deviation


def advantages(rewards: np.ndarray, scale: str) -> np.ndarray:
    """Of rewards float64 `[prompts, generations]`; `scale`: one of `grpo_settings.SCALES`."""
    apart = rewards - rewards.mean(1, keepdims=True)
    apart[alike(rewards)] = 0.0  # exactly: the mean of equal numbers may differ from them in the last bit
    if scale == "none":
        return apart
    deviation = rewards.std(1, ddof=1, keepdims=True) if scale == "group" else rewards.std(ddof=1)
    return np.asarray(apart / (deviation + _LEAST))


def alike(rewards: np.ndarray) -> np.ndarray:
    """Which groups have rewards that are all equal, bool `[prompts]`."""
    return (rewards == rewards[:, :1]).all(1)
