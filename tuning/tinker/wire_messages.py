"""The messages of Tinker's protobuf wire: which fields there are, and their numbers.

Every line below is a field: its number, its name, what it holds. `*` stands for many, `{}` for many by a text as their key. A
message of fields that may be there or not is all that the wire knows: whether two fields exclude each other, and which numbers
have names, is said where they are read (`wire_data.py`). An array lies in a field of bytes as NumPy has it in memory, with the
lowest byte first.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from ...errors import GraftaxError

_SCHEMA = """
Tensor                  1 dense bytes           2 sparse_csr SparseCsr      3 dtype int32       4 shape int64*
SparseCsr               1 values bytes          2 crow_indices bytes        3 col_indices bytes
Chunk                   1 encoded_text Tokens   2 image Unread              3 dmel Unread
Tokens                  1 tokens bytes
Unread
Datum                   1 model_input Chunk*    2 loss_fn_inputs Tensor{}
LossConfigValue         1 number double         2 text string
ForwardBackwardRequest  1 model_id string       2 seq_id int32              3 data Datum*       4 loss_fn string
                        5 loss_fn_config double{}                           6 forward_only bool
                        7 loss_fn_config_v2 LossConfigValue{}
BatchedTensor           1 data bytes            2 offsets bytes             3 dtype int32       4 trailing_shape int64*
ArrayRecord             1 type_tag string       2 fields BatchedTensor{}    3 num_datums int64
ForwardBackwardOutput   1 loss_fn_output_type string                        2 loss_fn_outputs ArrayRecord*
                        3 metrics double{}
TopkLogprobs            1 token_ids bytes       2 logprobs bytes            3 k uint32          4 length uint32
SampledSequence         1 stop_reason int32     2 tokens bytes              3 logprobs bytes
                        4 topk_sampled_logprobs TopkLogprobs
SampleResponse          1 sequences SampledSequence*                        2 prompt_logprobs bytes
                        3 topk_prompt_logprobs TopkLogprobs                 4 prompt_cache_hit_tokens int32
"""
_PLAIN = ("bool", "bytes", "double", "int32", "int64", "string", "uint32")  # of fields that hold no message
_PACKAGE = "graftax_tinker"  # the wire has no names, so it may be any; `tinker` itself, in the same process, has its own


def refuse_without_protobuf() -> None:
    """An error where what the wire needs is not installed."""
    for library in ("google.protobuf", "zstandard"):
        try:
            import_module(library)
        except ModuleNotFoundError:
            raise GraftaxError(f"Tinker's API needs {library}: pip install 'graftax[training]'.") from None


def new_message(name: str) -> Any:
    """An empty message."""
    return _classes()[name]()


@cache
def _classes() -> dict[str, Any]:
    """The messages' classes by name, made of the schema in a pool of their own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _declared().items():
        _declare(file.message_type.add(name=name), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _declared()}


def _declared() -> dict[str, list[tuple[int, str, str]]]:
    """Of every message its fields: number, name and kind."""
    messages: dict[str, list[tuple[int, str, str]]] = {}
    for line in _SCHEMA.strip().splitlines():
        words = line.split()
        if not line.startswith(" "):
            fields = messages[words.pop(0)] = []
        fields += [(int(number), name, kind) for number, name, kind in zip(*[iter(words)] * 3, strict=True)]
    return messages


def _declare(message: Any, fields: list[tuple[int, str, str]]) -> None:
    """Write a message's fields into its descriptor."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    for number, name, kind in fields:
        plain = kind.removesuffix("*").removesuffix("{}")
        field = message.field.add(name=name, number=number)
        field.label = FieldDescriptorProto.LABEL_OPTIONAL if plain == kind else FieldDescriptorProto.LABEL_REPEATED
        holds = plain
        if kind.endswith("{}"):  # on the wire a map is a repeated message of a key and a value
            entry = message.nested_type.add(name="".join(word.title() for word in name.split("_")) + "Entry")
            entry.options.map_entry = True
            _declare(entry, [(1, "key", "string"), (2, "value", plain)])
            holds = f"{message.name}.{entry.name}"
        if holds in _PLAIN:
            field.type = FieldDescriptorProto.Type.Value(f"TYPE_{holds.upper()}")
        else:
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{holds}"
