"""ALBERT (Lan et al., 2019, arXiv:1909.11942), hence IndicBERT: layers share weights, embeddings are factored.

A site of a shared layer stands once and acts at every application of the layer, as a module adapted by PEFT does.
"""

from __future__ import annotations

from .encoder import EncoderConfig
from .family import Family, HeadLayout, embedding_parts, pooler_parts, transformer_parts
from .parts import Part

LAYER = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "attention": "attention",
    "attention_out": "attention.dense",
    "attention_branch": "attention.dense",  # there is no module between the projection and the residual sum
    "attention_norm": "attention.LayerNorm",
    "ffn_in": "ffn",
    "ffn_out": "ffn_output",
    "ffn_branch": "ffn_output",
    "ffn_norm": "full_layer_layer_norm",
}


def parts(config: EncoderConfig) -> tuple[Part, ...]:
    project = Part(
        "linear",
        "embedding_projection",
        "encoder.embedding_hidden_mapping_in",
        (config.embedding_size, config.hidden_size),
    )
    return (*embedding_parts(config), project, *transformer_parts(config, LAYER), *pooler_parts(config, "pooler"))


def layer_path(config: EncoderConfig, index: int) -> str:
    group, inner = divmod(index, config.inner)
    return f"encoder.albert_layer_groups.{group}.albert_layers.{inner}"


FAMILY = Family(
    model_types=("albert",),
    summary="ALBERT, IndicBERT: shared layers, factored embeddings",
    task_model="Albert",
    prefix="albert",
    fields={
        "vocab_size": "vocab_size",
        "embedding_size": "embedding_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "num_hidden_groups": "groups",
        "inner_group_num": "inner",
        "num_attention_heads": "num_heads",
        "intermediate_size": "intermediate_size",
        "hidden_act": "activation",
        "max_position_embeddings": "max_positions",
        "type_vocab_size": "type_vocab_size",
        "layer_norm_eps": "norm_eps",
    },
    defaults={"type_vocab_size": 2, "groups": 1, "activation": "gelu_new", "embedding_size": 128},
    layer_path=layer_path,
    parts=parts,
    past_key_values=False,
    head=HeadLayout(features="pooled", hidden="none", modules=("classifier",), pooler="albert.pooler"),
)
