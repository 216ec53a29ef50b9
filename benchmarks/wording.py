"""Numbers as a report shows them, and the answer of a benchmark in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..counted import counted
from .analysis import Analysis, Recommendation
from .blocks import Block, named, where
from .scores import Metric
from .statistics import ALPHA, Interval
from .suite import NEAREST_MEAN

NOTHING = "\N{EN DASH}"


def unit(metric: Metric) -> float:
    """Shares are shown in per cent, perplexities as they are."""
    return 1.0 if metric.name == "perplexity" else 100.0


def value(metric: Metric, interval: Interval | None) -> str:
    """`91.2 [90.1, 92.0]`; an interval that is not known is left away."""
    if interval is None:
        return NOTHING
    mean, low, high = (f"{unit(metric) * x:.{2 if metric.name == 'perplexity' else 1}f}" for x in vars(interval).values())
    return mean if math.isnan(interval.low) else f"{mean} [{low}, {high}]"


def gain(interval: Interval | None) -> str:
    """`+0.4 [-0.2, 0.9]`, in hundredths: points of shares, about per cent of perplexities."""
    if interval is None:
        return NOTHING
    return f"{points(interval.value)} [{_tenths(interval.low)}, {_tenths(interval.high)}]"


def points(share: float | None) -> str:
    return NOTHING if share is None else _tenths(share, "+")


def _tenths(share: float, sign: str = "") -> str:
    return f"{round(100 * share, 1) + 0.0:{sign}.1f}".replace("-", "\N{MINUS SIGN}")  # + 0.0: there is no minus zero


def per_cent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.0f}"


def seconds(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.{0 if number >= 100 else 1 if number >= 10 else 2}f}"


def milliseconds(number: float | None) -> str:
    return seconds(None if number is None else 1000 * number)


def times(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f}\N{MULTIPLICATION SIGN}"


def scaled(number: float | None, unit: str) -> str:
    """`1.2 MB`, `340 kJ`: three digits and a prefix."""
    if number is None:
        return NOTHING
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    step = min(int(math.log10(number) // 3), len(prefixes) - 1) if number >= 1 else 0
    return f"{number / 1000**step:.3g} {prefixes[step]}{unit}".rstrip()


def listed(names: list[str] | tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def answer(analysis: Analysis) -> list[str]:
    """Which method to take, over all blocks and on each, and what cannot be said."""
    blocks = analysis.compared
    lines = []
    if (found := analysis.recommend()) is not None:
        if len(blocks) > 1:
            lines.append(_over_all(analysis, found))
    elif not analysis.methods:
        lines.append("No method came through on every task, so none can be recommended over all of them.")
    elif len(blocks) > 1:
        lines.append(f"Over {compared_on(analysis)}, no method can be recommended: {_doubts(analysis, analysis.methods)}.")
    for block in blocks:
        if (best := analysis.recommend(block)) is not None:
            lines.append(_on(analysis, block, best))
        else:
            there = where(block.id, analysis.block_ids)
            lines.append(f"On {there}, no method can be recommended: {_doubts(analysis, block.methods, block)}.")
    return lines


def _doubts(analysis: Analysis, methods: Sequence[str], block: Block | None = None) -> str:
    return ", ".join(f"{method} ({analysis.doubts(method, block)})" for method in methods)


def _over_all(analysis: Analysis, found: Recommendation) -> str:
    mean = analysis.mean(found.best)
    rank = analysis.ranks.mean[found.best]
    how = f"mean rank {rank:.1f} of {len(analysis.methods)}"
    if mean is not None and analysis.one_metric is not None:
        names = {block.metric.name.replace("_", " ") for block in analysis.compared}
        how = f"mean {'value' if len(names) > 1 else names.pop()} {value(analysis.one_metric, mean)}, {how}"
    costs = (
        {m: analysis.cost(m, "parameters") for m in analysis.methods},
        {m: None if analysis.busy(m) else analysis.cost(m, "seconds") for m in analysis.methods},
    )
    return _verdict(f"Over {compared_on(analysis)}", how, found, len(analysis.methods), *costs)


def compared_on(analysis: Analysis) -> str:
    """`4 tasks`, or what else the blocks are."""
    blocks = analysis.compared
    tasks = len({block.id.task for block in blocks})
    return counted(tasks, "task") if tasks == len(blocks) else f"{len(blocks)} settings (task, size and backbone)"


def _on(analysis: Analysis, block: Block, found: Recommendation) -> str:
    how = f"{block.metric.name.replace('_', ' ')} {value(block.metric, block.value(found.best))}"
    entries = [entry for entry in block.entries if entry.name in block.methods]
    costs = (
        {e.name: e.mean("parameters") for e in entries},
        {e.name: None if e.busy else e.mean("seconds") for e in entries},
    )
    return _verdict(f"On {where(block.id, analysis.block_ids)}", how, found, len(block.methods), *costs)


def _verdict(
    there: str,
    how: str,
    found: Recommendation,
    methods: int,
    parameters: dict[str, float | None],
    duration: dict[str, float | None],
) -> str:
    said = f"{there}, {found.best} is best: {how}."
    if found.passed_over:
        better = ", ".join(f"{method} ({why})" for method, why in found.passed_over.items())
        said = f"{there}, {found.best} is best of those that can be recommended: {how}."
        said += f" No recommendation, but a better value: {better}."
    if len(found.candidates) == 1:
        return f"{said} {'It is the only method' if methods == 1 else 'No other can be recommended'}."
    if len(found.alike) == 1:
        others = len(found.candidates) - 1
        said += f" The other {f'{others} are' if others > 1 else 'one is'} told apart from it."
    else:
        said += f" Not told apart from it: {listed(found.alike[1:])}."
    if found.loss is None:
        near = "cheaper" if len(found.close) > 1 else "so near"
        return f"{said} Take {found.best}: within one standard error of it none is {near}."
    cheap = f"{count(parameters[found.choice])} parameters against {count(parameters[found.best])}"
    if duration[found.choice] is not None and duration[found.best] is not None:
        cheap += f", {seconds(duration[found.choice])} s of training against {seconds(duration[found.best])} s"
    lost = f"{found.best} gains {gain(found.loss.gain)} points over it, adjusted p {p_value(found.loss.adjusted)}"
    return f"{said} Take {found.choice}, the cheapest within one standard error of it ({cheap}); {lost}."


def caveats(analysis: Analysis) -> list[str]:
    """What weakens the answer: searches that were ended, methods below the baseline, single seeds, what is missing."""
    said = []
    block_ids = analysis.block_ids
    ended: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for block in analysis.blocks:
        yardstick = block.value(NEAREST_MEAN)
        for entry in (e for e in block.entries if e.library == "graftax" and e.runs):
            for doubt in entry.doubts:
                ended.setdefault(f"{entry.name}: {doubt}", []).append(where(block.id, block_ids))
            value = block.value(entry.name)
            if yardstick and value and block.metric.better * (value.value - yardstick.value) < 0:
                below.setdefault(entry.name, []).append(where(block.id, block_ids))
    for what, on in ended.items():
        said.append(f"The search ended before it was settled ({what}, on {listed(on)}): let it go on (doublings, widen).")
    if below:
        lost = "; ".join(f"{method} on {listed(on)}" for method, on in below.items())
        said.append(f"Below {NEAREST_MEAN}, which trains nothing: {lost}.")
    if busy := [e.name for e in {e.name: e for b in analysis.blocks for e in b.entries if e.busy}.values()]:
        said.append(f"Times of {listed(busy)} were taken while other processes used the cores, or may have been.")
    if single := [where(b.id, block_ids) for b in analysis.compared if b.resampled.values.shape[1] == 1]:
        said.append(f"One seed only on {listed(single)}: intervals and tests there are of the test examples alone.")
    if few := [where(b.id, block_ids) for b in analysis.compared if b.resampled.values.shape[1] in (2, 3)]:
        said.append(f"Two or three seeds on {listed(few)}: where seeds differ much, intervals are too narrow.")
    for block in analysis.compared:
        most = max(len(e.runs) for e in block.entries if e.name in block.methods)
        if fewer := [f"{e.name} ({len(e.runs)})" for e in block.entries if e.name in block.methods and len(e.runs) < most]:
            said.append(
                f"Fewer seeds than the {most} of others on {where(block.id, block_ids)}: {listed(fewer)}; pairs share seeds."
            )
    for method, reason in analysis.left_out.items():
        said.append(f"{method} is in no comparison over tasks: {reason}.")
    if silent := [where(b.id, block_ids) for b in analysis.blocks if not b.methods]:
        said.append(f"No method came through on {listed(silent)}; it is in no comparison.")
    for what, field in (("commits", "commit"), ("devices", "device")):
        if len(several := sorted({getattr(r, field) for r in analysis.records} - {""})) > 1:
            said.append(f"The results come from several {what}: {listed(several)}.")
    if failed := analysis.failed:
        methods = sorted({named(r) for r in failed})
        said.append(f"{counted(len(failed), 'run')} failed ({listed(methods)}), as listed under Errors.")
    return said


def told_apart() -> str:
    return (
        f"Two methods are told apart where p, adjusted for all pairs by Holm's procedure, is below {ALPHA:g}. "
        "Not told apart does not mean equal: the interval, which is of one pair and not adjusted, says how much may lie "
        "between them."
    )
