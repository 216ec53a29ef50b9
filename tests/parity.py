"""How near a backbone is to torch's model with the same weights.

Hidden states of every layer, and what heads read, may lie 1e-4 apart, for torch adds up in another order. How far apart they do
lie `graftax backbones` shows, from `models/parity.json`, which all tests that compare write, in one process:

    python -m pytest --record-parity tests/test_*backbones.py tests/test_*decoders.py tests/test_picture_transformers.py \\
        tests/test_timm_vit.py tests/test_towers.py tests/test_open_clip.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graftax.models.backbone import Backbone

RECORDED = Path(__file__).parents[1] / "models" / "parity.json"

#: By the family's model type: the largest difference that was seen.
_farthest: dict[str, float] = {}


def assert_parity(backbone: Backbone, ours: Any, theirs: Any, *, relative: float = 0.0, where: str = "") -> None:
    """Values of a backbone and of torch's model within 1e-4, and that share of each value more that is said to be allowed.

    Recorded is the largest difference; of a value above one it is a share of that value.
    """
    wanted = np.asarray(theirs.detach() if isinstance(theirs, torch.Tensor) else theirs)
    np.testing.assert_allclose(ours, wanted, atol=1e-4, rtol=relative, err_msg=where)
    apart = np.abs(np.asarray(ours) - wanted) / np.maximum(1.0, np.abs(wanted))
    (model_type,) = backbone.family.model_types
    _farthest[model_type] = max(_farthest.get(model_type, 0.0), float(apart.max()))


def record() -> None:
    """Write what was seen in this process; of families that were not compared what is known of them stays."""
    known = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    rounded = {model_type: float(f"{apart:.0e}") for model_type, apart in _farthest.items()}
    RECORDED.write_text(json.dumps({**known, **rounded}, indent=1, sort_keys=True) + "\n")
