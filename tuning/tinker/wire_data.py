"""What clients of Tinker's API send to be learnt from, read from protobuf or JSON; and what they are answered.

A datum is the tokens of a text and, by name, arrays that have a number for each of them. Arrays come as bytes or as lists of
numbers; what their lengths, shapes and kinds say is held against what is there before it is believed. What the loss makes of
the arrays is the loops' own affair (`loops/calls.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from ...errors import GraftaxError
from ...typed import Count, Name, checked, read
from ..loops.calls import Call, Datum, Outcome
from .promises import Packed
from .wire_messages import new_message

_KINDS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<i8"),
    3: np.dtype("<i4"),
}  # of numbers, by what stands in `Tensor.dtype`
_BFLOAT16 = 4  # there: the upper halves of float32s
_BY_NAME: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int64": np.dtype("<i8")}
_STOPPED = {"stop": 0, "length": 1}  # what ended a sampled text
NO_LOGPROB = -99999.0  # beside token 0: in a row of the likeliest tokens nothing stands there


class Numbered(NamedTuple):
    """A call that has come, which may be unsound, and its number among all calls of its model."""

    model: str
    number: int | None  # None: it comes when it comes
    call: Call | GraftaxError


# -- what is read ------------------------------------------------------------------------------------------------------------


def call_of_message(data: bytes) -> Numbered:
    """The call that a protobuf ForwardBackwardRequest makes; GraftaxError where the body is none."""
    from google.protobuf.message import DecodeError

    message = new_message("ForwardBackwardRequest")
    try:
        message.ParseFromString(data)
        model = message.model_id
    except (DecodeError, UnicodeDecodeError) as error:
        raise GraftaxError(f"the body is no ForwardBackwardRequest of protobuf ({error}).") from None
    try:
        return Numbered(model, message.seq_id, _call_of_message(message))
    except UnicodeDecodeError as error:
        return Numbered(model, message.seq_id, GraftaxError(f"a text in the message is no UTF-8 ({error})."))
    except GraftaxError as error:
        return Numbered(model, message.seq_id, error)


def _call_of_message(message: Any) -> Call:
    settings: dict[str, Any] = dict(message.loss_fn_config)
    for name, value in message.loss_fn_config_v2.items():
        settings[name] = value.text if value.HasField("text") else value.number
    data = [_datum_of_message(datum, f"datum {i}") for i, datum in enumerate(message.data)]
    return Call(message.model_id, data, message.loss_fn, settings, message.forward_only)


def _datum_of_message(datum: Any, where: str) -> Datum:
    parts = []
    for chunk in datum.model_input:
        if not chunk.HasField("encoded_text"):
            raise GraftaxError(f"{where}: model_input has a chunk that is no text; the backbone reads tokens alone.")
        parts.append(_from_bytes(chunk.encoded_text.tokens, _KINDS[3], f"{where}: tokens"))
    tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return Datum(tokens, {name: _array_of(one, f"{where}: {name}") for name, one in datum.loss_fn_inputs.items()})


def _array_of(tensor: Any, what: str) -> np.ndarray:
    """The array of a Tensor."""
    if tensor.HasField("sparse_csr"):
        raise GraftaxError(f"{what} is sparse, of shape {list(tensor.shape)}; one number for each token is taken.")
    if tensor.dtype == _BFLOAT16:
        halves = _from_bytes(tensor.dense, np.dtype("<u2"), what)
        return _shaped((halves.astype(np.uint32) << 16).view(np.float32), tensor.shape, what)
    if tensor.dtype not in _KINDS:
        raise GraftaxError(f"{what}: {tensor.dtype} is no dtype of Tinker's.")
    return _shaped(_from_bytes(tensor.dense, _KINDS[tensor.dtype], what), tensor.shape, what)


def _from_bytes(data: bytes, kind: np.dtype[Any], what: str) -> np.ndarray:
    if len(data) % kind.itemsize:
        raise GraftaxError(f"{what}: {len(data)} bytes are no whole number of {kind.name}.")
    return np.frombuffer(data, kind)


def _shaped(array: np.ndarray, shape: Sequence[int], what: str) -> np.ndarray:
    """An array in a shape that goes with it; where none is said, flat."""
    if not len(shape):
        return array
    if min(shape) < 0 or len(shape) > 8 or int(np.prod([int(size) for size in shape], dtype=object)) != len(array):
        raise GraftaxError(f"{what}: {len(array)} numbers, and its shape is {list(shape)}.")
    return array.reshape(tuple(shape))


@dataclass(frozen=True)
class WireChunk:
    """A piece of a prompt or text, in JSON."""

    tokens: Sequence[int]
    type: Literal["encoded_text"] = "encoded_text"


@dataclass(frozen=True)
class WireText:
    """Tokens of a text, in JSON."""

    chunks: Sequence[Any]

    def tokens(self, where: str) -> list[int]:
        """All of them; GraftaxError where something is no text."""
        chunks = [read(WireChunk, checked(one, dict[str, Any], where), where) for one in self.chunks]
        return [token for chunk in chunks for token in chunk.tokens]


@dataclass(frozen=True)
class WireTensor:
    """An array, in JSON."""

    data: Sequence[float]
    dtype: Literal["float32", "int64"]
    shape: Sequence[int] | None = None
    sparse_crow_indices: Sequence[int] | None = None
    sparse_col_indices: Sequence[int] | None = None

    def array(self, what: str) -> np.ndarray:
        if self.sparse_crow_indices is not None or self.sparse_col_indices is not None:
            raise GraftaxError(f"{what} is sparse, of shape {list(self.shape or ())}; one number for each token is taken.")
        try:
            return _shaped(np.asarray(self.data, _BY_NAME[self.dtype]), self.shape or (), what)
        except (OverflowError, ValueError):
            raise GraftaxError(f"{what}: a number in it is no {self.dtype}.") from None


@dataclass(frozen=True)
class WireDatum:
    """A datum, in JSON."""

    model_input: WireText
    loss_fn_inputs: Mapping[str, WireTensor]
    model_input_spans: Sequence[Any] | None = None  # where its tokens come from, which no loss here asks
    loss_fn_input_spans: Sequence[Any] | None = None

    def datum(self, where: str) -> Datum:
        arrays = {name: tensor.array(f"{where}: {name}") for name, tensor in self.loss_fn_inputs.items()}
        return Datum(np.asarray(self.model_input.tokens(f"{where}: model_input"), np.int64), arrays)


@dataclass(frozen=True)
class WireLoss:
    """Data with the loss to be taken of them, in JSON."""

    data: Sequence[Any]
    loss_fn: Name
    loss_fn_config: Mapping[str, Any] | None = None

    def call(self, model: str, forward_only: bool) -> Call:
        each = [read(WireDatum, checked(one, dict[str, Any], f"datum {i}"), f"datum {i}") for i, one in enumerate(self.data)]
        data = [datum.datum(f"datum {i}") for i, datum in enumerate(each)]
        return Call(model, data, self.loss_fn, dict(self.loss_fn_config or {}), forward_only)


@dataclass(frozen=True, kw_only=True)
class WireCall:
    """A call, in JSON; one of the last two is there."""

    model_id: Name
    seq_id: Count | None = None
    forward_backward_input: Any = None
    forward_input: Any = None
    type: str = ""

    def numbered(self, forward_only: bool) -> Numbered:
        try:
            loss = read(
                WireLoss, checked(self.forward_backward_input or self.forward_input, dict[str, Any], "the data"), "the data"
            )
            return Numbered(self.model_id, self.seq_id, loss.call(self.model_id, forward_only))
        except GraftaxError as error:
            return Numbered(self.model_id, self.seq_id, error)


# -- what is answered --------------------------------------------------------------------------------------------------------


def packed_outcome(outcome: Outcome) -> Packed:
    """What came of a call."""
    message = new_message("ForwardBackwardOutput")
    message.loss_fn_output_type = "ArrayRecord"
    record = message.loss_fn_outputs.add(num_datums=len(outcome.logprobs))
    field = record.fields["logprobs"]
    arrays = [np.ascontiguousarray(array, _KINDS[1]) for array in outcome.logprobs]
    field.dtype, field.data = 1, b"".join(array.tobytes() for array in arrays)
    field.offsets = np.cumsum([0, *(array.nbytes for array in arrays)], dtype="<i8").tobytes()
    for name, value in outcome.metrics.items():
        message.metrics[name] = value
    return Packed(message.SerializeToString(), _object_of_outcome)


def _object_of_outcome(data: bytes) -> dict[str, Any]:
    message = new_message("ForwardBackwardOutput")
    message.ParseFromString(data)
    outputs = []
    for record in message.loss_fn_outputs:
        field = record.fields["logprobs"]
        offsets = np.frombuffer(field.offsets, "<i8").tolist()
        for begin, end in pairwise(offsets):
            told = np.frombuffer(field.data[begin:end], _KINDS[1])
            outputs.append({"logprobs": {"data": told.tolist(), "dtype": "float32", "shape": [len(told)]}})
    kind = message.loss_fn_output_type
    return {"loss_fn_output_type": kind, "loss_fn_outputs": outputs, "metrics": dict(message.metrics)}


@dataclass(frozen=True)
class Sampled:
    """A text that was sampled."""

    tokens: Sequence[int]
    logprobs: Sequence[float]  # of each of them
    stopped: Literal["stop", "length"]
    likeliest: Sequence[Sequence[tuple[int, float]]] | None = None  # in place of each, if they were asked for


@dataclass(frozen=True)
class PromptTold:
    """How likely each token of a prompt was behind those before it."""

    logprobs: Sequence[float | None] | None = None  # None: not asked for; of the first token nothing can be said
    likeliest: Sequence[Sequence[tuple[int, float]]] | None = None  # in place of each


def packed_samples(samples: Sequence[Sampled], prompt: PromptTold) -> Packed:
    """Texts that were sampled behind a prompt."""
    message = new_message("SampleResponse")
    for sample in samples:
        sequence = message.sequences.add(stop_reason=_STOPPED[sample.stopped])
        sequence.tokens = np.asarray(sample.tokens, "<i4").tobytes()
        sequence.logprobs = np.asarray(sample.logprobs, "<f4").tobytes()
        if sample.likeliest is not None:
            _tell(sequence.topk_sampled_logprobs, sample.likeliest)
    if prompt.logprobs is not None:
        told = [np.nan if one is None else one for one in prompt.logprobs]
        message.prompt_logprobs = np.asarray(told, "<f4").tobytes()
    if prompt.likeliest is not None:
        _tell(message.topk_prompt_logprobs, prompt.likeliest)
    return Packed(message.SerializeToString(), _object_of_samples)


def _tell(message: Any, rows: Sequence[Sequence[tuple[int, float]]]) -> None:
    """Write rows of likeliest tokens into a TopkLogprobs; short ones are filled up."""
    most = max(map(len, rows), default=0)
    ids, logprobs = np.zeros((len(rows), most), "<i4"), np.full((len(rows), most), NO_LOGPROB, "<f4")
    for row, told in enumerate(rows):
        for place, (token, logprob) in enumerate(told):
            ids[row, place], logprobs[row, place] = token, logprob
    message.token_ids, message.logprobs, message.k, message.length = ids.tobytes(), logprobs.tobytes(), most, len(rows)


def _object_of_samples(data: bytes) -> dict[str, Any]:
    message = new_message("SampleResponse")
    message.ParseFromString(data)
    words = {number: word for word, number in _STOPPED.items()}
    sequences = [
        {
            "stop_reason": words[one.stop_reason],
            "tokens": np.frombuffer(one.tokens, "<i4").tolist(),
            "logprobs": np.frombuffer(one.logprobs, "<f4").tolist(),
        }
        for one in message.sequences
    ]
    told = [None if np.isnan(one) else float(one) for one in np.frombuffer(message.prompt_logprobs, "<f4")]
    return {"type": "sample", "sequences": sequences, "prompt_logprobs": told or None}
