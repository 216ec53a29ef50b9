"""BERT (Devlin et al., 2018, arXiv:1810.04805), hence MiniLM, MuRIL and every other checkpoint of model_type "bert"."""

from __future__ import annotations

from .encoder import EncoderConfig
from .family import Family, HeadLayout, embedding_parts, pooler_parts, transformer_parts
from .parts import Part

#: Our part names -> Hugging Face module paths within a layer; RoBERTa's are the same.
LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention": "attention.self",
    "attention_out": "attention.output.dense",
    "attention_branch": "attention.output",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_branch": "output",
    "ffn_norm": "output.LayerNorm",
}

#: Hugging Face config keys -> fields of EncoderConfig.
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "activation",
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "type_vocab_size",
    "layer_norm_eps": "norm_eps",
}


def parts(config: EncoderConfig) -> tuple[Part, ...]:
    return (*embedding_parts(config), *transformer_parts(config, LAYER), *pooler_parts(config, "pooler.dense"))


def layer_path(config: EncoderConfig, index: int) -> str:
    return f"encoder.layer.{index}"


FAMILY = Family(
    model_types=("bert",),
    summary="BERT, MiniLM, MuRIL and other encoders of this type",
    task_model="Bert",
    prefix="bert",
    fields=FIELDS,
    defaults={"type_vocab_size": 2},
    layer_path=layer_path,
    parts=parts,
    head=HeadLayout(features="pooled", hidden="none", modules=("classifier",), pooler="bert.pooler.dense"),
)
