"""What was read off programs for described devices, as a page of Markdown: a table for each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .catalogue_of_programs import Named
from .described_devices import Device
from .program_facts import Facts

_HEAD = (
    "program",
    "temporaries",
    "arguments",
    "products",
    "in float32",
    "scores in memory",
    "copied",
    "donated",
    "custom calls",
    "collectives",
    "TFLOP",
    "GB moved",
    "at least (computed)",
)
_LEGEND = """\
Every program was compiled ahead of time for a device that was not there, and read; none was run, and no figure is a measured
time.

- **temporaries**, **arguments**: bytes, by the compiler's own account (compiled). Where they are more
  than a device has, XLA computes some things again to need less, which the other figures have, too.
- **products**: matrix products in the program, by the dtypes of what goes in and comes out; one in a loop counts once
  (compiled).
- **in float32**: those of them with a float32 operand that are larger than the adapters' rank {rank}; of what
  classifies, those of its head (compiled).
- **scores in memory**: the largest array `[.., queries, keys]` that stands in memory, if any does (compiled).
- **copied**: the largest array of a megabyte or more that is copied in memory, as it is or turned (compiled).
- **donated**: what is given away, and whether the outputs are written in its place (compiled).
- **custom calls**: of libraries' and hand-written kernels, and some of a TPU's compiler to itself (compiled).
- **TFLOP**, **GB moved**: counted in the program's text, products alone, loops as often as they turn. A loop that ends when
  its texts do counts as one turn: so it is for one token that decoding stands here (counted).
- **at least**: the larger of TFLOP / peak and GB / bandwidth, with the device's data sheet. It is a bound and not a forecast
  (computed).
"""


def page(found: Mapping[str, Sequence[tuple[Named, Facts | str]]], devices: Mapping[str, Device], made: str, rank: int) -> str:
    """The whole page: by the name of a device, its programs in their order, each with its facts or why there are none.

    `made`: when, of which commit and by which versions.
    """
    parts = ["# Programs for accelerators, compiled without one", made, _LEGEND.format(rank=rank)]
    parts += [_of_device(devices[name], programs) for name, programs in found.items()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _of_device(device: Device, programs: Sequence[tuple[Named, Facts | str]]) -> str:
    peaks = ", ".join(f"{dtype} {peak / 1e12:,.0f}" for dtype, peak in device.peaks.items())
    sheet = f"{peaks} TFLOP/s, {device.bandwidth / 1e9:,.0f} GB/s, {device.memory / 1e9:.0f} GB ({device.source})."
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD))]
    for named, facts in programs:
        if isinstance(facts, str):
            lines.append(_line([f"`{named.name}`", facts, *[""] * (len(_HEAD) - 2)]))
            continue
        lines.append(_line(row(device, named, facts)))
    titles = "\n".join(f"- `{named.name}`: {named.title}" for named, _ in programs)
    return f"## {device.title}\n\n{sheet}\n\n" + "\n".join(lines) + f"\n\n{titles}"


def row(device: Device, named: Named, facts: Facts) -> list[str]:
    """The cells of one program."""
    bound = facts.roofline(device)
    scores, copied = facts.scores, facts.copied
    return [
        f"`{named.name}`",
        amount(facts.temporaries) + ("" if facts.fits(device) else ", does not fit"),
        amount(facts.arguments),
        ", ".join(f"{count} {dtypes}" for dtypes, count in facts.by_dtypes.most_common()) or "none",
        str(len(facts.float32_products(named.rank))),
        f"{scores[0]}, {amount(scores[0].nbytes)}" if scores else "none",
        f"{copied[0]}, {amount(copied[0].nbytes)}" if copied else "none",
        ("none" if not facts.donated else f"{amount(facts.donated)}, {'in place' if facts.in_place else 'copied'}"),
        ", ".join(f"{count} `{name}`" for name, count in sorted(facts.custom_calls.items())) or "none",
        ", ".join(f"{count} {kind}" for kind, count in facts.collectives.items()) or "none",
        figure(sum(facts.flops.values()) / 1e12),
        figure(facts.moved / 1e9),
        f"{figure(bound.seconds * 1e3)} ms by {bound.bound}",
    ]


def amount(count: int) -> str:
    """Bytes in the unit that suits them."""
    unit, size = next(((u, s) for u, s in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= s), ("B", 1))
    return f"{figure(count / size)} {unit}"


def figure(number: float) -> str:
    """Three digits of a number, and no power of ten."""
    said = float(f"{number:.3g}")
    return f"{said:,.0f}" if said >= 1000 else f"{number:.3g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
