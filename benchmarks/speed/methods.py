"""One training step of every method that PEFT has too, against PEFT's; and of DoRA against our own LoRA.

    python benchmarks/speed/methods.py [NAME ...]

As `training_step.py`: MiniLM, 32 x 64, pooled position read, no dropout, float32; on query and value wherever the method acts
on linear layers, at settings that both sides have (PEFT's defaults where there is one).
"""

from __future__ import annotations

import sys
from typing import Any

from harness import Worker, duel, report, row
from step import ours, peft

#: name -> our settings, PEFT's config class and its settings
PAIRS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "lora": ({}, "LoraConfig", {"r": 8, "lora_alpha": 16}),
    "dora": ({}, "LoraConfig", {"r": 8, "lora_alpha": 16, "use_dora": True}),
    "ia3": ({}, "IA3Config", {"target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]}),
    "prefix": ({"tokens": 16}, "PrefixTuningConfig", {"num_virtual_tokens": 16}),
    "prompt": ({"tokens": 16}, "PromptTuningConfig", {"num_virtual_tokens": 16}),
    "vera": ({}, "VeraConfig", {}),
    "loha": ({}, "LoHaConfig", {}),
    "lokr": ({}, "LoKrConfig", {}),
    "miss": ({}, "MissConfig", {}),
    "hira": ({}, "HiraConfig", {}),
    "randlora": ({}, "RandLoraConfig", {}),
    "adalora": ({}, "AdaLoraConfig", {"init_r": 12, "total_step": 1000}),
    "oft": ({}, "OFTConfig", {}),
    "boft": ({}, "BOFTConfig", {}),
    "hra": ({}, "HRAConfig", {}),
    "road": ({}, "RoadConfig", {}),
    "fourierft": ({}, "FourierFTConfig", {}),
    "shira": ({}, "ShiraConfig", {}),
    "ln_tuning": ({}, "LNTuningConfig", {"target_modules": ["LayerNorm"]}),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PAIRS:
        settings, config, theirs = PAIRS[name]
        where = {} if name in ("prefix", "prompt") else {"target_modules": ["query", "value"]}
        a = Worker(ours, shape="minilm", tokens=False, method=name, settings=settings)
        b = Worker(peft, shape="minilm", tokens=False, config=config, settings={**where, **theirs})
        report(row(f"{name} step, minilm 32 x 64", duel(a, b, repeats=5, warmup=2), "pooled position read; heap kept on both"))
        if name == "dora":
            a = Worker(ours, shape="minilm", tokens=False, method="dora")
            b = Worker(ours, shape="minilm", tokens=False)
            report(row("dora step against graftax's lora step", duel(a, b, repeats=5, warmup=2), "both columns graftax"))
