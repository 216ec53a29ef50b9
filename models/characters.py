"""Tokenizers of characters, two by side, of models that read one alphabet and write another.

`vocab.json` has both vocabularies, which lie side by side in the one table of embeddings: a character's id is its list's offset
and its index there. The last entry of each stands for what is not in it, and a target ends with the token that ends texts.

    {"source": ["<s>", "</s>", "a", ..., "<unk>"], "target": [...], "source_offset": 0, "target_offset": 51}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GraftaxError
from ..json_files import read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


def read_pair(directory: Path, eos_id: int | None) -> tuple[Backend, Backend] | None:
    """The tokenizers of the source and of the target; None where the directory has no such vocabularies."""
    file = directory / "vocab.json"
    if not file.is_file():
        return None
    said = read_object(file)
    if not {"source", "target"} <= said.keys() or isinstance(said["source"], int):
        return None
    sides = [said[side] for side in ("source", "target")]
    offsets = [said.get(f"{side}_offset", 0) for side in ("source", "target")]
    for side, offset in zip(sides, offsets, strict=True):
        if not isinstance(side, list) or not side or not all(isinstance(token, str) and token for token in side):
            raise GraftaxError(f"{file}: a vocabulary is no list of characters.")
        if not isinstance(offset, int) or offset < 0:
            raise GraftaxError(f"{file}: an offset is no index.")
    source, target = (_backend(side, offset) for side, offset in zip(sides, offsets, strict=True))
    if eos_id is not None and (end := target.id_to_token(eos_id)) is not None:
        from tokenizers.processors import TemplateProcessing

        target.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, eos_id)])
    return source, target


def _backend(vocabulary: list[str], offset: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({token: offset + i for i, token in enumerate(vocabulary)}, unk_token=vocabulary[-1]))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([token for token in vocabulary[:-1] if len(token) > 1])
    return backend
