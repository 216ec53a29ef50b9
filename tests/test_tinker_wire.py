"""What goes over Tinker's wire: our own messages beside those of the public client, and what is refused of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused
from tinker import types
from tinker.proto import request_conv, response_conv
from tinker.proto import tinker_public_pb2 as public

from graftax import DoRA, GraftaxError, LoRA
from graftax.adapters.method import Method
from graftax.models.backbone import Backbone
from graftax.tuning.loops.calls import Call, Outcome
from graftax.tuning.tinker.asked_methods import NAMED, LoraConfig, methods_of
from graftax.tuning.tinker.wire_data import (
    NO_LOGPROB,
    PromptTold,
    Sampled,
    WireCall,
    call_of_message,
    packed_outcome,
    packed_samples,
)
from graftax.tuning.training_cost import Cost


def sent(data: list[types.Datum], loss: Any = "ppo", config: Any = None) -> public.ForwardBackwardRequest:
    """What the client makes of data."""
    given: Any = types.ForwardBackwardInput(data=data, loss_fn=loss, loss_fn_config=config)
    return request_conv.forward_backward_request_to_proto(types.ForwardBackwardRequest(given, "mine", 7))


def datum(*chunks: list[int], **inputs: Any) -> types.Datum:
    text = types.ModelInput(chunks=[types.EncodedTextChunk(tokens=tokens) for tokens in chunks])
    return types.Datum(model_input=text, loss_fn_inputs=inputs)


def test_what_the_client_sends_is_read() -> None:
    """Chunks make one text, arrays keep their numbers, and settings are the newer ones where there are two."""
    data = [datum([3, 4], [5], target_tokens=[4, 5, 6], weights=[0.0, 0.5, -1.5]), datum([9], target_tokens=[1])]
    message = sent(data, config={"clip_low_threshold": 0.5})
    message.loss_fn_config_v2["clip_low_threshold"].number = 0.75
    model, number, call = call_of_message(message.SerializeToString())
    assert isinstance(call, Call)
    assert (model, number, call.loop, call.loss, call.forward_only) == ("mine", 7, "mine", "ppo", False)
    assert call.settings == {"clip_low_threshold": 0.75}
    assert [one.tokens.tolist() for one in call.data] == [[3, 4, 5], [9]]
    assert {name: array.tolist() for name, array in call.data[0].inputs.items()} == {
        "target_tokens": [4, 5, 6],
        "weights": [0.0, 0.5, -1.5],
    }
    message.forward_only = True
    call = call_of_message(message.SerializeToString()).call
    assert isinstance(call, Call)
    assert call.forward_only


def test_bfloat16_is_the_upper_half_of_a_float32() -> None:
    message = sent([datum([3], weights=[1.0])])
    tensor = message.data[0].loss_fn_inputs["weights"]
    tensor.dtype, tensor.dense = public.DTYPE_BFLOAT16, np.array([0x3FC0], "<u2").tobytes()
    call = call_of_message(message.SerializeToString()).call
    assert isinstance(call, Call)
    assert call.data[0].inputs["weights"].tolist() == [1.5]


def test_json_says_what_protobuf_says() -> None:
    """As older clients send it."""
    text = {"chunks": [{"type": "encoded_text", "tokens": [3, 4]}]}
    weights = {"data": [0.5, 1], "dtype": "float32", "shape": [2]}
    loss = {"data": [{"model_input": text, "loss_fn_inputs": {"weights": weights}}], "loss_fn": "ppo"}
    model, number, call = WireCall(model_id="mine", seq_id=7, forward_backward_input=loss).numbered(False)
    assert isinstance(call, Call)
    assert (model, number, call.loss, call.data[0].tokens.tolist()) == ("mine", 7, "ppo", [3, 4])
    assert call.data[0].inputs["weights"].tolist() == [0.5, 1.0]
    forward = WireCall(model_id="mine", forward_input=loss).numbered(True).call
    assert isinstance(forward, Call)
    assert forward.forward_only


def spoilt(change: Any) -> bytes:
    message = sent([datum([3, 4], weights=[1.0, 1.0])])
    change(message.data[0])
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.loss_fn_inputs["weights"].shape.__setitem__(0, 3), r"datum 0: weights: 2 numbers, .* is \[3\]"),
        (lambda one: one.loss_fn_inputs["weights"].shape.__setitem__(0, -2), r"its shape is \[-2\]"),
        (lambda one: one.loss_fn_inputs["weights"].shape.extend([1 << 62] * 4), "its shape is"),
        (lambda one: setattr(one.loss_fn_inputs["weights"], "dense", b"abc"), "3 bytes are no whole number of float32"),
        (lambda one: setattr(one.loss_fn_inputs["weights"], "dtype", 0), "0 is no dtype"),
        (lambda one: one.loss_fn_inputs["weights"].sparse_csr.SetInParent(), "weights is sparse"),
        (lambda one: setattr(one.model_input[0].encoded_text, "tokens", b"12345"), "tokens: 5 bytes"),
        (lambda one: one.model_input[0].image.SetInParent(), "a chunk that is no text"),
    ],
)
def test_what_is_unsound_is_said_and_numbered(change: Any, said: str) -> None:
    """The call has its number all the same, for others wait behind it."""
    model, number, call = call_of_message(spoilt(change))
    assert (model, number) == ("mine", 7)
    assert isinstance(call, GraftaxError)
    with pytest.raises(GraftaxError, match=said):
        raise call


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(GraftaxError, match="the body is no ForwardBackwardRequest of protobuf"):
        call_of_message(b"\x0a\xff no message")


def test_whatever_bytes_come_are_read_or_refused() -> None:
    """Of a sound message, with some bytes changed, put in or left out: never another error."""
    random, sound = np.random.default_rng(0), sent([datum([3, 4], weights=[1.0, 1.0])], config={"a": 1.0}).SerializeToString()
    read = 0
    for _ in range(2000):
        data = bytearray(sound)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(data)))
            data[place : place + int(random.integers(0, 3))] = random.bytes(int(random.integers(0, 3)))
        calls: list[Any] = []
        refused(lambda: calls.append(call_of_message(bytes(data)).call))  # noqa: B023 (it is called at once)
        read += bool(calls) and isinstance(calls[0], Call)
    assert 50 < read < 1500


def test_the_client_reads_what_came_of_a_call() -> None:
    made = packed_outcome(
        Outcome((np.array([-1.0, -2.5], np.float32), np.array([-3.0], np.float32)), 6.5, cost=Cost(tokens=3, seconds=0.25))
    )
    read: Any = response_conv.deserialize_forward_backward_output(made.data)
    assert [one["logprobs"].tolist() for one in read.loss_fn_outputs] == [[-1.0, -2.5], [-3.0]]
    assert read.metrics == {"loss:sum": 6.5, "tokens:sum": 3.0, "device_seconds:sum": 0.25}
    plain = made.unpacked(made.data)
    assert [one["logprobs"]["data"] for one in plain["loss_fn_outputs"]] == [[-1.0, -2.5], [-3.0]]
    assert plain["metrics"] == read.metrics


def test_the_client_reads_samples() -> None:
    """Rows of likeliest tokens that are shorter than others are filled up as the client leaves out."""
    first = Sampled([5, 2], [-0.5, -1.5], "stop", [[(5, -0.5), (7, -2.0)], [(2, -1.5)]])
    made = packed_samples([first, Sampled([8], [-4.0], "length")], PromptTold([None, -2.0], [[], [(3, -1.0)]]))
    read: Any = response_conv.deserialize_sample_response(made.data)
    assert [(one.stop_reason, one.tokens, one.logprobs) for one in read.sequences] == [
        ("stop", [5, 2], [-0.5, -1.5]),
        ("length", [8], [-4.0]),
    ]
    assert read.sequences[0].topk_logprobs == [[(5, -0.5), (7, -2.0)], [(2, -1.5)]]
    assert (read.prompt_logprobs, read.topk_prompt_logprobs) == ([None, -2.0], [None, [(3, -1.0)]])
    assert read.topk_prompt_logprobs_np.logprobs[0, 0] == np.float32(NO_LOGPROB)
    plain = made.unpacked(made.data)
    assert (plain["sequences"][1], plain["prompt_logprobs"]) == (
        {"stop_reason": "length", "tokens": [8], "logprobs": [-4.0]},
        [None, -2.0],
    )


# -- which methods are asked for ----------------------------------------------------------------------------------------------


def chosen(teller: Backbone, config: LoraConfig = LoraConfig(), named: str | None = None) -> tuple[Method, ...]:
    return methods_of(config, {} if named is None else {NAMED: named}, teller.sites)


def acted_on(method: Method, teller: Backbone) -> set[str]:
    return {site.role for site in method.select(teller.sites)}


def test_lora_is_tinkers(teller: Backbone) -> None:
    """Alpha is 32 whatever the rank; each part has modules of its own."""
    attention, feed_forward = {"query", "key", "value", "attention_out"}, {"ffn_gate", "ffn_in", "ffn_out"}
    (whole,) = chosen(teller, LoraConfig(rank=4))
    assert type(whole) is LoRA
    assert (whole.r, whole.alpha) == (4, 32.0)
    assert acted_on(whole, teller) == attention | feed_forward | {"lm_head"}
    (part,) = chosen(teller, LoraConfig(rank=4, train_attn=False, train_unembed=False))
    assert acted_on(part, teller) == feed_forward
    (part,) = chosen(teller, LoraConfig(rank=4, train_mlp=False, train_unembed=False))
    assert acted_on(part, teller) == attention


def test_any_other_method_by_its_name(teller: Backbone) -> None:
    """One that has a rank takes the config's, unless its settings say another."""
    (dora,) = chosen(teller, LoraConfig(rank=4, train_unembed=False, train_mlp=False), "dora")
    assert isinstance(dora, DoRA)
    assert (dora.r, dora.alpha) == (4, 32.0)
    assert acted_on(dora, teller) == {"query", "key", "value", "attention_out"}
    (ia3,) = chosen(teller, named="ia3")
    assert ia3.targets is None
    lora, _ = chosen(teller, LoraConfig(rank=4), '{"method": "lora+ia3", "r": 2, "targets": ["q_proj"]}')
    assert isinstance(lora, LoRA)
    assert (lora.r, acted_on(lora, teller)) == (2, {"query"})


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nonsense", "user_metadata: graftax_method: .*nonsense"),
        ("probe", "a model has a method"),
        ('{"method": "lora", "rank": 2}', "no such setting: rank; there are"),
        ('{"method": "lora", "r": 0}', "r must be a whole number"),
        ('{"r": 2}', "expected a method's name"),
        ("{", "not valid JSON"),
    ],
)
def test_what_is_no_method(named: str, said: str, teller: Backbone) -> None:
    with pytest.raises(GraftaxError, match=said):
        chosen(teller, named=named)


def test_a_model_that_would_change_nothing(teller: Backbone) -> None:
    with pytest.raises(GraftaxError, match="at least one of train_attn"):
        chosen(teller, LoraConfig(train_attn=False, train_mlp=False, train_unembed=False))
