"""The rest of a manifest: what the index has of it in no column, packed, so that the manifest can be put together again.

    manifest = columns of the index + the rest

So who pulls a version need not read the event of its push first. What is put together counts only where its sha256 is the
version's digest; a manifest of another form than graftax writes has another, and is read from its event.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from .manifest import File, as_text

#: what most rests have in common, which is packed to almost nothing: of another text nobody could unpack what is packed
_USUAL = (
    b'"chat_template":null,"unfreeze":null,"truncate":false,"preconditioned":false,"lora_plus":1.0,"layer_decay":1.0,"beta":0.1,'
    b'"adapter_model.safetensors":"adapter_config.json":"val_loss":0."val_accuracy":0."val_macro_f1":0."val_f1":0.'
    b'"data":{"name":".csv","rows":1000,"sha256":"0123456789abcdef"},"files":{"README.md":3000,"adapter.safetensors":300000,'
    b'"graftax.json":900},"graftax":"0.1.0","keywords":[],"license":null,"metrics":{"accuracy":0.9,"f1":0.9,"loss":0.1},"recipe":{'
    b'"batch_size":32,"clip":1.0,"epochs":5,"learning_rate":0.001,"lr":0.001,"max_length":128,"method":"lora","optimizer":"adamw",'
    b'"patience":null,"schedule":"linear","seed":0,"warmup":0.06,"weight_decay":0.0},"schema":1}'
)
_RAW = -zlib.MAX_WBITS  # without a header
_MOST = 1 << 24  # bytes of a rest


def pack_rest(text: str, columns: Sequence[str]) -> bytes:
    """The rest of the manifest that a text is, without what is in columns of these names, and its files' sha256."""
    content: dict[str, Any] = json.loads(text)
    rest: dict[str, Any] = {key: value for key, value in content.items() if key not in columns}
    rest["files"] = {path: file["size"] for path, file in content["files"].items()}
    packer = zlib.compressobj(wbits=_RAW, zdict=_USUAL)
    return packer.compress(json.dumps(rest, separators=(",", ":"), ensure_ascii=False).encode()) + packer.flush()


def whole_text(packed: bytes, columns: Mapping[str, Any], digests: Sequence[str]) -> str:
    """The manifest of which this is the rest, those are the columns, and those the sha256 of its files.

    Raises ValueError where it was no rest that is packed here.
    """
    try:
        rest: dict[str, Any] = json.loads(zlib.decompressobj(_RAW, _USUAL).decompress(packed, _MOST))
        files = {path: vars(File(digest, size)) for (path, size), digest in zip(rest["files"].items(), digests, strict=True)}
        return as_text({**rest, **columns, "files": files})
    except (zlib.error, LookupError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
