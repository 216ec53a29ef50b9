"""The table of methods in docs/methods.md, from what the methods say of themselves."""

from __future__ import annotations

from ..adapters.formats.adapterhub.dialect_table import DIALECTS
from ..adapters.formats.peft.dialect_table import dialect_class
from ..adapters.methods.method_registry import METHODS

_HEADER = """# Methods

A method is what an adapter is made of: which numbers are trained, and where in the backbone they act. `--method NAME` of
`graftax train` chooses one, and so does `method=` of `train_many`; without either it is LoRA. How to begin:

- **Not sure?** Take `lora`. It acts on every backbone, changes any size of model at a small cost, can be merged into the
  weights, and other libraries read its files.
- **Is an adapter worth it at all?** Train `probe` first, which is a classifier over what the frozen backbone says and costs
  next to nothing. Whatever else you train has to beat it.
- **The smallest files:** `bitfit`, `ia3` and `ln_tuning` train a few numbers for each channel of a layer.
- **More room than LoRA has:** a larger rank, `dora`, `bottleneck`; and `full`, which trains every weight and shows what is lost
  by training less.
- **Prompts and prefixes** (`prompt`, `p_tuning`, `prefix`) put trained vectors in front of a text, or in front of what every
  layer attends to. They change no layer, and take positions from the text.

Which one is best depends on your data. `graftax bench --data mine.csv --out mine` answers that with intervals and costs
([which method for my data?](jobs/which_method.md)).

Any of them can train in one run with others, and several may form one adapter (`--method lora+prefix`). Every adapter is saved,
loaded and swapped in the same way, and rows of one call may have adapters of different methods. What the columns say:

- *Acts on*: the kinds of places; a backbone that has none of them refuses the method.
- *At a site*: how many numbers are trained wherever the method acts, where in and out are the widths there (d where they are
  one), and r is the rank or the like. At a convolution, in is all that its kernel lies over, kh kw in, of one group; for LoRA
  and its kin it is that of all groups, and out is by group. For instance, LoRA of rank 8 on a layer from 384 to 384 trains
  8 (384 + 384) = 6,144 numbers.
- *Fresh*: how near an adapter is to the backbone before its first step: the same to the bit, within a tolerance, or elsewhere.
- *Merge*: whether it can be folded into the weights, so that it costs nothing when it answers (LoRA and its kin cannot where a
  convolution has groups). What changes kernels alone can also be combined with others (`graftax combine`).
- *Sizes share a program*: whether adapters of other sizes swap without compiling anything. Sizes are rounded up to powers of
  two.
- *PEFT*: its name in PEFT's files, which are read and written. Methods without one have files of graftax's own.
- *AdapterHub*: its name in the files of the library `adapters`, which are read and written too ([files](files.md)).
- *Within*: how far two answers of one adapter may lie apart in float32: merged and unmerged, in a mixed batch and alone.

| method | what it does | acts on | at a site | fresh | merge | sizes share a program | PEFT | AdapterHub | within |
|---|---|---|---|---|---|---|---|---|---|
"""

_FOOTER = """ This page is written by `graftax methods --markdown`, and a test compares. What it says is tested for every
method on every family of backbones, by `pytest tests/test_contract_*.py -k NAME -m ""` for one of them: *at a site* by
`test_trainable_count_is_the_formula`, *fresh* by `test_fresh_is_nothing_and_random_is_something`, *merge* by
`test_merged_equals_unmerged`, *sizes share a program* by `test_sizes_share_a_program`, *within* by
`test_merged_equals_unmerged`, `test_mixed_rows` and `test_texts_may_share_a_row`; files by `tests/test_peft*.py` and `make
test-adapterhub`.
"""


def markdown() -> str:
    """The whole page."""
    lines = []
    there = {cls: dialect.there for cls, dialect in DIALECTS.items()}
    for name, cls in METHODS.items():
        within = cls.fresh_within
        fresh = "elsewhere" if within is None else f"{within:.0e}" if within else "bitwise"
        marks = ["yes" if flag else "" for flag in (cls.mergeable, cls.padded)]
        title = f"`{name}`" if name != "head" else "`probe`"
        peft, adapterhub = dialect_class(cls).peft_type or "", there.get(cls, "")
        columns = [title, cls.summary, ", ".join(cls.acts_on), cls.count, fresh, *marks, peft, adapterhub]
        columns.append(f"{cls.tolerance:.0e}")
        lines.append("| " + " | ".join(columns) + " |")
    return _HEADER + "\n".join(lines) + "\n" + _FOOTER
