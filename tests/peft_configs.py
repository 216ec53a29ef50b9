"""PEFT's own configs by variant, with its names for the modules of a family of encoders."""

from __future__ import annotations

import functools
from typing import Any

import peft
from peft_pairs import TASKS


def peft_config(name: str, family: str, head: str) -> Any:
    """PEFT's own config of a variant, with its names for this family's modules."""
    query, value, out, wide = {
        "distilbert": ("q_lin", "v_lin", "ffn.lin2", "lin1"),
        "albert": ("query", "value", "ffn_output", "ffn"),
    }.get(family, ("query", "value", "output.dense", "intermediate.dense"))
    lora = functools.partial(peft.LoraConfig, task_type=TASKS[head][1], r=3, lora_alpha=7)
    match name:
        case "lora":
            known = family in ("bert", "roberta")  # where PEFT has targets of its own
            return lora(lora_dropout=0.1, target_modules=None if known else [query, value])
        case "rslora":
            return lora(use_rslora=True, target_modules=[query, value], rank_pattern={query: 5}, alpha_pattern={value: 2})
        case "regex":
            return lora(target_modules=rf".*({query}|{wide})")
        case "dense":
            return lora(target_modules=["dense", "out_lin", wide])
        case "all-linear":
            return lora(target_modules="all-linear")
        case "layers":
            return lora(target_modules=[query, wide], layers_to_transform=[0, 2], exclude_modules=[f"1.attention.self.{query}"])
        case "embedding":
            return lora(target_modules=["word_embeddings", value])
        case "dora":
            return lora(use_dora=True, target_modules=["word_embeddings", value, wide])
        case "loha":
            patterns = {"rank_pattern": {query: 5}, "alpha_pattern": {value: 2}}
            return peft.LoHaConfig(task_type=TASKS[head][1], r=3, alpha=7, target_modules=[query, value, wide], **patterns)
        case "lokr":
            return peft.LoKrConfig(task_type=TASKS[head][1], r=3, alpha=7, target_modules=[query, value, wide])
        case "lokr-both":
            cut = {"decompose_both": True, "decompose_factor": 8, "init_weights": "lycoris"}
            return peft.LoKrConfig(task_type=TASKS[head][1], r=2, alpha=5, target_modules=[query, out], **cut)
        case "vera":
            return peft.VeraConfig(task_type=TASKS[head][1], r=5, target_modules=[query, value, wide])
        case "randlora":
            bases = {"target_modules": [query, value, wide]}
            return peft.RandLoraConfig(task_type=TASKS[head][1], r=5, randlora_alpha=2, **bases)
        case "randlora-sparse":
            bases = {"target_modules": [out], "sparse": True}
            return peft.RandLoraConfig(task_type=TASKS[head][1], r=8, randlora_alpha=3, **bases)
        case "miss":
            return peft.MissConfig(task_type=TASKS[head][1], r=6, target_modules=[query, value, wide])
        case "miss-mini":
            return peft.MissConfig(task_type=TASKS[head][1], r=8, mini_r=4, init_weights="mini", target_modules=[query, wide])
        case "hira":
            return peft.HiraConfig(task_type=TASKS[head][1], r=3, target_modules=[query, value, wide])
        case "adalora":
            return peft.AdaLoraConfig(
                task_type=TASKS[head][1], init_r=5, target_r=2, lora_alpha=7, total_step=9, target_modules=[query, value, wide]
            )
        case "ia3":
            return peft.IA3Config(task_type=TASKS[head][1], target_modules=[query, value, out], feedforward_modules=[out])
        case "prompt":
            # PEFT does not find them in DistilBERT's config, and takes ALBERT's hidden size for its embedding's
            sizes = {"num_layers": 3, "num_attention_heads": 4, "token_dim": 16 if family == "albert" else 32}
            return peft.PromptTuningConfig(task_type=TASKS[head][1], num_virtual_tokens=4, **sizes)
        case "p_tuning" | "p_tuning-lstm":
            sizes = {"num_layers": 3, "num_attention_heads": 4, "token_dim": 16 if family == "albert" else 32}
            network = {"encoder_hidden_size": 6, "encoder_reparameterization_type": "MLP" if name == "p_tuning" else "LSTM"}
            return peft.PromptEncoderConfig(task_type=TASKS[head][1], num_virtual_tokens=4, **network, **sizes)
        case "ln_tuning":
            return peft.LNTuningConfig(
                task_type=TASKS[head][1],
                target_modules=["LayerNorm", "sa_layer_norm"],
                exclude_modules=["embeddings.LayerNorm"],
            )
        case "oft":
            return peft.OFTConfig(task_type=TASKS[head][1], target_modules=[query, out], oft_block_size=6)
        case "oft-terms":
            return peft.OFTConfig(
                task_type=TASKS[head][1], target_modules=[value], r=8, oft_block_size=0, num_cayley_neumann_terms=3
            )
        case "oft-cayley":
            return peft.OFTConfig(
                task_type=TASKS[head][1],
                target_modules=["dense", "out_lin", wide],
                oft_block_size=8,
                block_share=True,
                use_cayley_neumann=False,
            )
        case "hra":
            return peft.HRAConfig(task_type=TASKS[head][1], target_modules=[query, out], r=4)
        case "hra-gs":
            return peft.HRAConfig(task_type=TASKS[head][1], target_modules=[query, wide], r=3, apply_GS=True)
        case "road" | "road_2" | "road_4":
            variant = "road_1" if name == "road" else name
            return peft.RoadConfig(task_type=TASKS[head][1], target_modules=[query, wide], variant=variant, group_size=8)
        case "fourierft":
            return peft.FourierFTConfig(task_type=TASKS[head][1], target_modules=[query, wide], n_frequency=50, scaling=30.0)
        case "shira":
            return peft.ShiraConfig(task_type=TASKS[head][1], target_modules=[query, wide], r=4)
        case "boft":
            return peft.BOFTConfig(
                task_type=TASKS[head][1], target_modules=[query, wide], boft_block_size=4, boft_n_butterfly_factor=3
            )
        case "boft-1":
            return peft.BOFTConfig(task_type=TASKS[head][1], target_modules=[query, out], boft_block_size=0, boft_block_num=4)
        case _:
            return peft.PrefixTuningConfig(task_type=TASKS[head][1], num_virtual_tokens=4)
