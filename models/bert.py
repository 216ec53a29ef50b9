"""BERT (Devlin et al., 2018, arXiv:1810.04805), hence MiniLM, MuRIL and every other checkpoint of model_type "bert"."""

from __future__ import annotations

from .config_keys import activation, epsilon, layers, nullable, only, size, token, unread_all
from .encoder import EncoderConfig
from .family import Family, TaskHead, embedding_parts, pooler_parts, transformer_parts
from .parts import Layers, Part, text_site

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

#: What BertConfig declares.
KEYS = {
    "vocab_size": size(30522, "vocab_size"),
    "hidden_size": size(768, "hidden_size"),
    "num_hidden_layers": layers(12, "num_layers"),
    "num_attention_heads": size(12, "num_heads"),
    "intermediate_size": size(3072, "intermediate_size"),
    "hidden_act": activation("gelu"),
    "max_position_embeddings": size(512, "max_positions"),
    "type_vocab_size": size(2, "type_vocab_size"),
    "layer_norm_eps": epsilon(1e-12),
    "pad_token_id": nullable(token(0, "pad_id")),
    "is_decoder": only(False),
    "add_cross_attention": only(False),
    **unread_all(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, classifier_dropout=None, initializer_range=0.02),
    **unread_all(use_cache=True, bos_token_id=None, eos_token_id=None, tie_word_embeddings=True),
}
#: What transformers read of all encoders before version 5.
OLDER = {"position_embedding_type": nullable(only("absolute"))}


def parts(config: EncoderConfig) -> tuple[Part, ...]:
    return (
        *embedding_parts(config),
        *transformer_parts(config, LAYER),
        *pooler_parts(config, "pooler.dense"),
        text_site(config.hidden_size, "layers"),
    )


def stacks(config: EncoderConfig) -> tuple[Layers, ...]:
    return (Layers("layers", config.num_layers, "encoder.layer.{}".format, config.hidden_size),)


FAMILY = Family(
    model_types=("bert",),
    summary="BERT, MiniLM, MuRIL and other encoders of this type",
    task_model="Bert",
    prefix="bert",
    keys=KEYS,
    older=OLDER,
    stacks=stacks,
    parts=parts,
    head=TaskHead(features="pooled", hidden="none", modules=("classifier",), pooler="bert.pooler.dense"),
)
