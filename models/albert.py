"""ALBERT (Lan et al., 2019, arXiv:1909.11942), hence IndicBERT: layers share weights, embeddings are factored.

A site of a shared layer stands once and acts at every application of the layer, as a module adapted by PEFT does.
"""

from __future__ import annotations

from functools import partial

from . import bert
from .config_keys import activation, epsilon, layers, nullable, size, token, unread_all
from .encoder import EncoderConfig
from .family import Family, TaskHead, embedding_parts, pooler_parts, transformer_parts
from .parts import Layers, Part, text_site

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


#: What AlbertConfig declares.
KEYS = {
    "vocab_size": size(30000, "vocab_size"),
    "embedding_size": size(128, "embedding_size"),
    "hidden_size": size(4096, "hidden_size"),
    "num_hidden_layers": layers(12, "num_layers"),
    "num_hidden_groups": layers(1, "groups"),
    "num_attention_heads": size(64, "num_heads"),
    "intermediate_size": size(16384, "intermediate_size"),
    "inner_group_num": layers(1, "inner"),
    "hidden_act": activation("gelu_new"),
    "max_position_embeddings": size(512, "max_positions"),
    "type_vocab_size": size(2, "type_vocab_size"),
    "layer_norm_eps": epsilon(1e-12),
    "pad_token_id": nullable(token(0, "pad_id")),
    **unread_all(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.1),
    **unread_all(initializer_range=0.02, bos_token_id=2, eos_token_id=3, tie_word_embeddings=True),
}


def parts(config: EncoderConfig) -> tuple[Part, ...]:
    project = Part(
        "linear",
        "embedding_projection",
        "encoder.embedding_hidden_mapping_in",
        (config.embedding_size, config.hidden_size),
    )
    return (
        *embedding_parts(config),
        project,
        *transformer_parts(config, LAYER),
        *pooler_parts(config, "pooler"),
        text_site(config.hidden_size, "layers"),
    )


def stacks(config: EncoderConfig) -> tuple[Layers, ...]:
    path, count = partial(_layer_path, config.inner), config.groups * config.inner
    return (Layers("layers", count, path, config.hidden_size, shared=config.num_layers),)


def _layer_path(per_group: int, index: int) -> str:
    group, inner = divmod(index, per_group)
    return f"encoder.albert_layer_groups.{group}.albert_layers.{inner}"


FAMILY = Family(
    model_types=("albert",),
    summary="ALBERT, IndicBERT: shared layers, factored embeddings",
    task_model="Albert",
    prefix="albert",
    keys=KEYS,
    older=bert.OLDER,
    stacks=stacks,
    parts=parts,
    past_key_values=False,
    head=TaskHead(features="pooled", hidden="none", modules=("classifier",), pooler="albert.pooler"),
)
