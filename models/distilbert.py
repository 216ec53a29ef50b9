"""DistilBERT (Sanh et al., 2019, arXiv:1910.01108): BERT's layers under other names, no token types, no pooler."""

from __future__ import annotations

from . import bert
from .config_keys import activation, layers, nullable, size, token, unread_all
from .encoder import EncoderConfig
from .family import Family, TaskHead, embedding_parts, transformer_parts
from .parts import Layers, Part, text_site

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


#: What DistilBertConfig declares. A checkpoint holds its table of positions, sines or not.
KEYS = {
    "vocab_size": size(30522, "vocab_size"),
    "dim": size(768, "hidden_size"),
    "n_layers": layers(6, "num_layers"),
    "n_heads": size(12, "num_heads"),
    "hidden_dim": size(3072, "intermediate_size"),
    "activation": activation("gelu"),
    "max_position_embeddings": size(512, "max_positions"),
    "pad_token_id": nullable(token(0, "pad_id")),
    **unread_all(sinusoidal_pos_embds=False, dropout=0.1, attention_dropout=0.1, qa_dropout=0.1, seq_classif_dropout=0.2),
    **unread_all(initializer_range=0.02, bos_token_id=None, eos_token_id=None, tie_word_embeddings=True),
}


def parts(config: EncoderConfig) -> tuple[Part, ...]:
    return (*embedding_parts(config), *transformer_parts(config, LAYER), text_site(config.hidden_size, "layers"))


def stacks(config: EncoderConfig) -> tuple[Layers, ...]:
    return (Layers("layers", config.num_layers, "transformer.layer.{}".format, config.hidden_size),)


FAMILY = Family(
    model_types=("distilbert",),
    summary="DistilBERT: no token types, no pooler",
    task_model="DistilBert",
    prefix="distilbert",
    keys=KEYS,
    older=bert.OLDER,
    aliases={"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    defaults={"pooler": False},
    stacks=stacks,
    parts=parts,
    past_key_values=False,
    head=TaskHead(features="first", hidden="relu", modules=("pre_classifier", "classifier")),
)
