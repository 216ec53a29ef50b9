"""DistilBERT (Sanh et al., 2019, arXiv:1910.01108): BERT's layers under other names, no token types, no pooler."""

from __future__ import annotations

from .encoder import EncoderConfig
from .family import Family, HeadLayout, embedding_parts, transformer_parts
from .parts import Part

LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention": "attention",
    "attention_out": "attention.out_lin",
    "attention_branch": "attention.out_lin",  # there is no module between the projection and the residual sum
    "attention_norm": "sa_layer_norm",
    "ffn_in": "ffn.lin1",
    "ffn_out": "ffn.lin2",
    "ffn_branch": "ffn",
    "ffn_norm": "output_layer_norm",
}


def parts(config: EncoderConfig) -> tuple[Part, ...]:
    return (*embedding_parts(config), *transformer_parts(config, LAYER))


def layer_path(config: EncoderConfig, index: int) -> str:
    return f"transformer.layer.{index}"


FAMILY = Family(
    model_types=("distilbert",),
    summary="DistilBERT: no token types, no pooler",
    task_model="DistilBert",
    prefix="distilbert",
    fields={
        "vocab_size": "vocab_size",
        "dim": "hidden_size",
        "n_layers": "num_layers",
        "n_heads": "num_heads",
        "hidden_dim": "intermediate_size",
        "activation": "activation",
        "max_position_embeddings": "max_positions",
    },
    defaults={"pooler": False},
    layer_path=layer_path,
    parts=parts,
    past_key_values=False,
    head=HeadLayout(features="first", hidden="relu", modules=("pre_classifier", "classifier")),
)
