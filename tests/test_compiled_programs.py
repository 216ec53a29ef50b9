"""What is read off compiled programs: of short texts of HLO by hand, and of programs that are compiled for the CPU here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from described_cpu import CPU

from graftax.benchmarks.accelerators.__main__ import main
from graftax.benchmarks.accelerators.accelerator_table import amount, page
from graftax.benchmarks.accelerators.asked_program import AskedProgram
from graftax.benchmarks.accelerators.attention_kernels import attention_flops
from graftax.benchmarks.accelerators.buffers import Attention, bytes_moved, copies, scores_in_memory
from graftax.benchmarks.accelerators.catalogue_of_programs import CATALOGUE, Named, program_named
from graftax.benchmarks.accelerators.described_devices import DEVICES, described
from graftax.benchmarks.accelerators.hlo_text import Alias, Program, Shape, read_program
from graftax.benchmarks.accelerators.matrix_products import Product, products
from graftax.benchmarks.accelerators.program_facts import Facts
from graftax.benchmarks.accelerators.roofline import Roofline
from graftax.errors import GraftaxError

#: A loop of five turns as a GPU's compiler writes it: in each a fusion takes one of five matrices out of an array and
#: multiplies by it, cuBLAS multiplies in float32, and one row of what is collected is written.
LOOP = """\
HloModule jit_f, is_scheduled=true, input_output_alias={ {0}: (1, {}, may-alias), {1, 2}: (3, {}, must-alias) }, other={}

FileNames
1 "f.py"

%fused (p.0: bf16[64,32], p.1: bf16[5,32,16], p.2: s32[]) -> bf16[64,16] {
  %p.0 = bf16[64,32]{1,0} parameter(0)
  %p.1 = bf16[5,32,16]{2,1,0} parameter(1)
  %p.2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %taken = bf16[1,32,16]{2,1,0} dynamic-slice(%p.1, %p.2, %zero, /*index=3*/%zero), dynamic_slice_sizes={1,32,16}
  %w = bf16[32,16]{1,0} bitcast(%taken)
  ROOT %dot.1 = bf16[64,16]{1,0} dot(%p.0, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (all: (s32[], bf16[64,32], bf16[5,32,16], f32[5,64,8])) -> (s32[], bf16[64,32], bf16[5,32,16], f32[5,64,8]) {
  %all = (s32[], bf16[64,32]{1,0}, bf16[5,32,16]{2,1,0}, /*index=3*/f32[5,64,8]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%all), index=0
  %x = bf16[64,32]{1,0} get-tuple-element(%all), index=1
  %ws = bf16[5,32,16]{2,1,0} get-tuple-element(%all), index=2
  %kept = f32[5,64,8]{2,1,0} get-tuple-element(%all), index=3
  %y = bf16[64,16]{1,0} fusion(%x, %ws, %i), kind=kCustom, calls=%fused, metadata={op_name="jit(f)/a,b)"}
  %y32 = f32[64,16]{1,0} convert(%y)
  %b = f32[16,8]{1,0} constant({ {1, 2}, {3, 4} })
  %gemm = (f32[64,8]{1,0}, s8[4194304]{0}) custom-call(%y32, %b), custom_call_target="__cublas$gemm", backend_config=GEMM
  %z = f32[64,8]{1,0} get-tuple-element(%gemm), index=0
  %row = f32[1,64,8]{2,1,0} bitcast(%z)
  %zero.1 = s32[] constant(0)
  %more = f32[5,64,8]{2,1,0} dynamic-update-slice(%kept, %row, %i, %zero.1, %zero.1)
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  ROOT %again = (s32[], bf16[64,32]{1,0}, bf16[5,32,16]{2,1,0}, f32[5,64,8]{2,1,0}) tuple(%next, %x, %ws, %more)
}

%goes_on (all.1: (s32[], bf16[64,32], bf16[5,32,16], f32[5,64,8])) -> pred[] {
  %all.1 = (s32[], bf16[64,32]{1,0}, bf16[5,32,16]{2,1,0}, f32[5,64,8]{2,1,0}) parameter(0)
  %five = s32[] constant(5)
  %i.1 = s32[] get-tuple-element(%all.1), index=0
  ROOT %less = pred[] compare(%i.1, %five), direction=LT
}

ENTRY %main (a: (s32[], bf16[64,32], bf16[5,32,16], f32[5,64,8])) -> f32[5,64,8] {
  %a = (s32[], bf16[64,32]{1,0}, bf16[5,32,16]{2,1,0}, f32[5,64,8]{2,1,0}) parameter(0)
  %turned = (s32[], bf16[64,32]{1,0}, bf16[5,32,16]{2,1,0}, f32[5,64,8]{2,1,0}) while(%a), condition=%goes_on, body=%bodyTRIPS
  ROOT %found = f32[5,64,8]{2,1,0} get-tuple-element(%turned), index=3
}
"""
LOOP = LOOP.replace(
    "GEMM",
    """{"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"""
    """"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]}}}""",
)
KNOWN = ', backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0","step":"1"}}'

#: What a TPU's compiler makes of products, each with the lengths that it has in truth.
CONVOLUTIONS = {
    "f32[8,16,1024,512]{2,3,1,0:T(8,128)} convolution(%a, %b), window={size=8x16 stride=7x15 lhs_dilate=8x16}, "
    "dim_labels=0b1f_0o1i->01bf": ("bf16[8,1024,16,64]", "bf16[8,512,16,64]", (128, 1024, 512, 64)),
    "bf16[4,1024,32,64]{1,3,2,0:T(8,128)(2,1)} convolution(%a, %b), window={size=1x32 pad=0_0x31_31 rhs_reversal=0x1}, "
    "dim_labels=0bf1_1oi0->0b1f": ("bf16[4,1024,2048,1]", "bf16[32,64,2048,1]", (1, 4096, 2048, 2048)),
    "f32[64,16,1]{1,0,2} convolution(%a, %b), window={size=4}, dim_labels=0fb_0io->bf0": (
        "bf16[4,32,64]",
        "bf16[4,32,16]",
        (1, 64, 16, 128),
    ),
    "f32[2,14,14,768]{3,2,1,0} convolution(%a, %b), window={size=16x16 stride=16x16}, dim_labels=b01f_01io->b01f": (
        "bf16[2,224,224,3]",
        "bf16[16,16,3,768]",
        (1, 392, 768, 768),
    ),
}

FUSED_ATTENTION = """\
HloModule jit_g
ENTRY %main (q: bf16[8,1024,16,64]) -> bf16[8,16,1024,64] {
  %q = bf16[8,1024,16,64]{3,2,1,0} parameter(0)
  %there = (bf16[8,16,1024,64]{3,1,2,0}, u8[0]{0}) custom-call(%q), custom_call_target="__cudnn$fmhaSoftmax", CONFIG
  %back = (bf16[8,16,1024,64]{3,1,2,0}) custom-call(%q), custom_call_target="__cudnn$fmhaSoftmaxBackward", CONFIG
  ROOT %out = bf16[8,16,1024,64]{3,1,2,0} get-tuple-element(%there), index=0
}
""".replace(
    "CONFIG",
    'backend_config={"cudnn_fmha_backend_config": {"algorithm": {"algo_id": "0"}, "intermediate_tensor_shape": '
    '{"element_type": "BF16", "dimensions": ["8", "16", "1024", "1024"], "tuple_shapes": []}}}',
)

#: Splash's kernels, and what one of them says of itself, with line breaks.
SPLASH = """\
HloModule jit_s
ENTRY %main (q: bf16[2,6,512,64], k: bf16[2,2,640,64]) -> bf16[2,6,512,64] {
  %q = bf16[2,6,512,64]{3,2,1,0} parameter(0)
  %k = bf16[2,2,640,64]{3,2,1,0} parameter(1)
  %m = s8[1,4,4]{2,1,0} constant({...})
  %splash_mha_fwd_segmented_residuals.2 = (bf16[2,6,512,64]{3,2,1,0}) custom-callASKED, kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 128}"
}, metadata={op_name="a"}
  %splash_mha_dkv_segmented_no_residuals.7 = (bf16[2,2,640,64]{3,2,1,0}) custom-callASKED
  %splash_mha_dq_segmented_no_residuals = (bf16[2,6,512,64]{3,2,1,0}) custom-callASKED
  ROOT %out = bf16[2,6,512,64]{3,2,1,0} get-tuple-element(%splash_mha_dq_segmented_no_residuals), index=0
}
""".replace("ASKED", '(%m, %q, %k, %k), custom_call_target="tpu_custom_call"')

#: Scores that a fusion computes, and of which it says the largest alone.
WITHIN = """\
HloModule jit_k
%largest (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] maximum(%a, %b)
}

%fused (q: f32[4,96,8], k: f32[4,96,8]) -> f32[4,96] {
  %q = f32[4,96,8]{2,1,0} parameter(0)
  %k = f32[4,96,8]{2,1,0} parameter(1)
  %z = f32[] constant(0)
  %s = f32[4,96,96]{2,1,0} dot(%q, %k), DIMS
  ROOT %m = f32[4,96]{1,0} reduce(%s, %z), dimensions={2}, to_apply=%largest
}

ENTRY %main (q: f32[4,96,8], k: f32[4,96,8]) -> f32[4,96] {
  %q = f32[4,96,8]{2,1,0} parameter(0)
  %k = f32[4,96,8]{2,1,0} parameter(1)
  ROOT %out = f32[4,96]{1,0} fusion(%q, %k), kind=kLoop, calls=%fused
}
""".replace("DIMS", "lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={2}")

NEAR = """\
HloModule jit_h
%turn (p: f32[512,1024]) -> f32[1024,512] {
  %p = f32[512,1024]{1,0} parameter(0)
  ROOT %t = f32[1024,512]{1,0} transpose(%p), dimensions={1,0}
}

ENTRY %main (x: f32[512,1024]) -> f32[512,1024] {
  %x = f32[512,1024]{1,0:T(8,128)} parameter(0)
  %brought = f32[512,1024]{1,0:T(8,128)S(1)} copy(%x)
  %turned = f32[512,1024]{0,1:T(8,128)} copy(%x)
  %other_way = f32[1024,512]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%turn
  %begun = (f32[512,1024]{1,0:S(1)}, f32[512,1024]{1,0}, u32[]) copy-start(%x)
  %ended = f32[512,1024]{1,0:S(1)} copy-done(%begun)
  %cut = (f32[512,1024]{1,0}, f32[4,1024]{1,0:S(1)}, s32[]) slice-start(%x), slice={[0:4], [0:1024]}
  %cut.1 = f32[4,1024]{1,0:S(1)} slice-done(%cut)
  %small = f32[8,8]{1,0} constant({...})
  %other = f32[8,8]{0,1} copy(%small)
  ROOT %y = f32[512,1024]{1,0:T(8,128)} add(%brought, %turned)
}
"""


def of_product(product: Product) -> tuple[int, int, int, int]:
    return product.batch, product.m, product.n, product.k


@pytest.mark.parametrize("trips", [KNOWN, ""], ids=["said", "by its condition"])
def test_a_program_is_taken_apart(trips: str) -> None:
    """Products in fusions and in libraries, how often loops run them, what is read and written, what lies in whose place."""
    program = read_program(LOOP.replace("TRIPS", trips))
    assert program.entry.name == "main"
    assert program.aliases == (Alias((0,), 1), Alias((1, 2), 3))
    first, second = products(program)
    assert (first.dtypes, of_product(first), first.times) == ("bf16 -> bf16", (1, 64, 16, 32), 5)
    assert (second.dtypes, of_product(second), second.times) == ("f32 -> f32", (1, 64, 8, 16), 5)
    assert first.flops == 5 * 2 * 64 * 16 * 32
    read = 64 * 32 * 2 + 32 * 16 * 2 + 4  # the slice that is taken, and not all five
    fusion = read + 64 * 16 * 2
    convert, gemm, row, count = 64 * 16 * (2 + 4), (64 * 16 + 16 * 8 + 64 * 8) * 4 + 4194304, 2 * 64 * 8 * 4, 3 * 4
    compare = 4 + 4 + 1
    assert bytes_moved(program) == 5 * (fusion + convert + gemm + row + count + compare)


def test_a_loop_of_unknown_length_counts_once() -> None:
    program = read_program(LOOP.replace("TRIPS", "").replace("direction=LT", "direction=NE"))
    assert [product.times for product in products(program)] == [1, 1]


@pytest.mark.parametrize("text", CONVOLUTIONS, ids=["heads", "outputs by head", "sum over heads", "patches"])
def test_products_that_are_written_as_convolutions(text: str) -> None:
    left, right, lengths = CONVOLUTIONS[text]
    lines = [f"  %a = {left} parameter(0)", f"  %b = {right} parameter(1)", f"  ROOT %c = {text}"]
    program = read_program("\n".join(["HloModule m", f"ENTRY %main (a: {left}, b: {right}) -> f32[] {{", *lines, "}"]))
    (product,) = products(program)
    assert of_product(product) == lengths


def test_attention_of_a_library_is_two_products_there_and_five_back() -> None:
    program = read_program(FUSED_ATTENTION)
    assert attention_flops(program) == (2 + 5) * 2 * 8 * 16 * 1024 * 1024 * 64
    assert scores_in_memory(program, Attention(8, 1024, 1024, 16, 16)) == []


def test_attention_of_a_tpu_is_two_products_there_and_seven_back() -> None:
    program = read_program(SPLASH)
    assert [step.instruction.target for step in program.steps if step.instruction.opcode == "custom-call"] == [
        "splash_mha_fwd_segmented_residuals",
        "splash_mha_dkv_segmented_no_residuals",
        "splash_mha_dq_segmented_no_residuals",
    ]
    assert attention_flops(program) == (2 + 4 + 3) * 2 * (2 * 6 * 512 * 64) * 640


def test_what_a_fusion_computes_for_itself_is_not_in_memory() -> None:
    program = read_program(WITHIN)
    assert [product.flops for product in products(program)] == [2 * 4 * 96 * 96 * 8]
    assert scores_in_memory(program, Attention(1, 96, 96, 4, 4)) == []
    assert bytes_moved(program) == 2 * 4 * 96 * 8 * 4 + 4 * 96 * 4


def test_what_is_brought_near_the_cores_is_no_copy() -> None:
    program = read_program(NEAR)
    assert copies(program, 1 << 20) == [Shape("f32", (1024, 512)), Shape("f32", (512, 1024))]
    assert len(copies(program, 1)) == 3
    size = 512 * 1024 * 4
    of_copies, of_slice, of_sum = size + 2 * size + 2 * size + 2 * 8 * 8 * 4 + size, 4 * 1024 * 4, 2 * size
    assert bytes_moved(program) == of_copies + of_slice + of_sum


@pytest.mark.parametrize(
    ("lengths", "held"),
    [
        ((4, 32, 1024, 512), True),
        ((3, 4, 32, 1024, 512), True),  # of three adapters
        ((4, 8, 4096, 512), True),  # four heads share a key
        ((128, 512, 1024), True),
        ((8, 4, 1, 1024, 512), False),  # a mask of 32 batch rows
        ((4, 512, 1024), False),  # of four heads: as many tokens as it is wide
        ((128, 1024, 1024), False),
        ((128, 2048, 512), False),  # no two heads share one
        ((131072, 512), False),
    ],
)
def test_scores_are_known_by_their_shape(lengths: tuple[int, ...], held: bool) -> None:
    attention = Attention(rows=4, queries=1024, keys=512, heads=32, groups=8)
    assert attention.has_scores(Shape("bf16", lengths)) == held
    assert not attention.has_scores(Shape("pred", lengths))


def test_products_larger_than_a_rank() -> None:
    """x A, of which two lengths are greater than the rank, is one; a product within an adapter is none."""
    x_times_a = Product(("f32", "f32"), "f32", 1, m=4096, n=16, k=2048)
    assert x_times_a.exceeds(16)
    assert not Product(("f32", "f32"), "f32", 8, m=16, n=16, k=2048).exceeds(16)
    assert Product(("bf16", "f32"), "f32", 1, 1, 1, 1).dtypes == "bf16 x f32 -> f32"


# -- programs compiled here -------------------------------------------------------------------------------------------------


def compiled(function: Callable[..., Any], *shapes: tuple[int, ...], **options: Any) -> Program:
    args = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return read_program(jax.jit(function, **options).lower(*args).compile().as_text())


def plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.nn.softmax(q @ k.swapaxes(1, 2), axis=-1) @ v


def by_blocks(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The same, sixteen queries at a time."""

    def block(some: jax.Array) -> jax.Array:
        return plain(some, k, v)

    blocks = jax.lax.map(block, q.reshape(len(q), -1, 16, q.shape[-1]).swapaxes(0, 1))
    return blocks.swapaxes(0, 1).reshape(q.shape)


def test_scores_are_found_in_attention_that_holds_them_and_in_no_other() -> None:
    size, attention = (4, 96, 8), Attention(rows=1, queries=96, keys=96, heads=4, groups=4)
    held = scores_in_memory(compiled(plain, size, size, size), attention)
    assert held
    assert held[0] == Shape("f32", (4, 96, 96))
    assert scores_in_memory(compiled(by_blocks, size, size, size), attention) == []


def test_operations_of_a_known_product_are_counted_in_loops_too() -> None:
    one = 2 * 24 * 40 * 56
    assert sum(p.flops for p in products(compiled(jnp.matmul, (24, 40), (40, 56)))) == one
    assert sum(p.flops for p in products(compiled(jnp.matmul, (3, 24, 40), (3, 40, 56)))) == 3 * one

    def seven_times(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, None, length=7)[0]

    assert sum(p.flops for p in products(compiled(seven_times, (24, 40), (40, 40)))) == 7 * 2 * 24 * 40 * 40
    gradient = compiled(jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w))), (40, 56), (24, 40))
    assert sum(p.flops for p in products(gradient)) == 2 * one


def facts(function: Callable[..., Any], *args: Any, **options: Any) -> Facts:
    return AskedProgram(jax.jit(function, **options), args).facts(CPU)


def test_what_is_donated_is_written_over_or_not() -> None:
    room, row = np.zeros((512, 64), np.float32), np.ones((1, 64), np.float32)
    there = facts(lambda a, b: a.at[3].set(b[0]), room, row, donate_argnums=0)
    assert (there.donated, there.in_place) == (room.nbytes, True)
    assert facts(lambda a, b: a.at[3].set(b[0]), room, row).donated == 0
    with pytest.warns(UserWarning, match="donated buffers were not usable"):
        elsewhere = facts(lambda a, b: a[:7] + b, room, row, donate_argnums=0)  # nothing that it makes is as large
    assert (elsewhere.donated, elsewhere.in_place) == (room.nbytes, False)


def test_facts_of_a_program() -> None:
    x, w = np.zeros((24, 40), np.float32), np.zeros((40, 56), np.float32)
    found = facts(jnp.matmul, x, w)
    assert (found.arguments, found.outputs) == (x.nbytes + w.nbytes, 24 * 56 * 4)
    assert found.flops == {"f32": 2 * 24 * 40 * 56}
    assert found.by_dtypes == {"f32 -> f32": 1}
    assert [p.n for p in found.float32_products(8)] == [56]
    assert found.float32_products(40) == []
    assert (found.scores, found.copied, found.collectives, found.loops_of_unknown_length) == ((), (), {}, 0)
    assert found.moved == x.nbytes + w.nbytes + 24 * 56 * 4
    assert found.fits(CPU)
    assert not found.fits(replace(CPU, memory=found.arguments + found.outputs - 1.0))
    assert found.roofline(CPU).by_flops == pytest.approx(2 * 24 * 40 * 56 / 1e8)


# -- devices, and the page ---------------------------------------------------------------------------------------------------


def test_the_roofline_is_the_larger_of_both_bounds() -> None:
    """By hand: 3e8 operations of float32 at 1e8/s and 4e8 of bfloat16 at 4e8/s; 5e6 bytes at 1e6/s."""
    bound = Roofline.of(CPU, {"f32": 3e8, "bf16": 4e8}, 5e6)
    assert (bound.by_flops, bound.by_bytes, bound.seconds, bound.bound) == (4.0, 5.0, 5.0, "bytes")
    assert Roofline.of(CPU, {"f64": 6e8}, 5e6) == Roofline(6.0, 5.0)
    assert Roofline(6.0, 5.0).bound == "FLOPs"


@pytest.mark.parametrize("name", DEVICES)
def test_data_sheets(name: str) -> None:
    """bfloat16 is nowhere slower than float32, and 8 bits are twice as fast as it."""
    device = described(name)
    assert device.peak("bf16") >= device.peak("f32")
    assert device.peak("s8") == pytest.approx(2 * device.peak("bf16"), rel=0.005)
    assert device.platform in ("cuda", "tpu")
    assert math.isclose(device.peak("f64"), device.peak("f32"))


def test_what_is_not_there_is_one_line() -> None:
    with pytest.raises(GraftaxError, match="device 'h200' is not described; there are h100, a100, v5e, v6e"):
        described("h200")
    with pytest.raises(GraftaxError, match="program 'decoder' is not in the catalogue; there are decoder-step/1"):
        program_named("decoder")


def test_the_page_says_what_was_found_and_what_does_not_fit() -> None:
    x, w = np.zeros((24, 40), np.float32), np.zeros((40, 56), np.float32)
    asked = AskedProgram(jax.jit(jnp.matmul), (x, w))
    small, large = Named("small", "a product", lambda: asked, rank=16), Named("large", "a larger one", lambda: asked)
    read = small.read(CPU)
    text = page({"cpu": [(small, read), (large, "does not fit")]}, {"cpu": CPU}, "today", 16)
    cells = next(line for line in text.splitlines() if line.startswith("| `small`")).strip("| ").split(" | ")
    assert cells[0] == "`small`"
    assert cells[2:10] == ["12.8 kB", "1 f32 -> f32", "1", "none", "none", "none", "none", "none"]
    assert cells[12] == "18.2 ms by bytes"  # 18,176 bytes at 1e6/s
    assert "| `large` | does not fit |" in text
    assert "## this CPU" in text
    assert "(computed)" in text


@pytest.mark.parametrize(
    ("count", "said"),
    [(12, "12 B"), (1234, "1.23 kB"), (3_594_000_000, "3.59 GB"), (0, "0 B"), (1_428_000_000_000, "1,430 GB")],
)
def test_amounts(count: int, said: str) -> None:
    assert amount(count) == said


def test_the_command_writes_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = AskedProgram(jax.jit(jnp.matmul), (np.zeros((24, 40), np.float32), np.zeros((40, 56), np.float32)))
    monkeypatch.setitem(DEVICES, "cpu", CPU)
    monkeypatch.setitem(CATALOGUE, "small", Named("small", "a product", lambda: asked))
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # that of the other tests
    command = ["--device", "cpu", "--program", "small"]
    assert main([*command, "--out", str(tmp_path / "page.md")]) == 0
    written = (tmp_path / "page.md").read_text("utf-8")
    assert "| `small` | 0 B | 12.8 kB | 1 f32 -> f32 |" in written
    assert f"jax {jax.__version__}" in written
    assert capsys.readouterr().out == ""
    assert main(command) == 0
    assert capsys.readouterr().out == written


@pytest.mark.parametrize(("option", "said"), [("--device", "device 'x' is not described"), ("--program", "program 'x' is not")])
def test_the_command_refuses_what_is_not_there(option: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([option, "x"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")
