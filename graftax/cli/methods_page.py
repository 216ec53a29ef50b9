"""The table of methods in docs/methods.md, from what the methods say of themselves."""

from __future__ import annotations

from ..adapters.formats.adapterhub.dialects import DIALECTS
from ..adapters.formats.peft.dialects import dialect_class
from ..adapters.methods.registry import METHODS

_HEADER = """# Methods

Written by `graftax methods --markdown`; a test compares. Every method here trains alone and in packs, with the others in one
run and in one adapter; is saved, loaded and hot-swapped; and answers its rows of a mixed batch beside rows of the other
methods. `pytest tests/test_contract_*.py -k NAME -m ""` runs all of that for one of them, on every family of backbones.

- *Acts on*: kinds of site, as in `adapters/sites.py`; elsewhere it refuses in a line. On convolutions in groups `adalora`,
  `hira`, `boft` and `hra` do not act.
- *At a site*: trainable parameters, with the site's in and out (d where they are one), r the rank or the like; at a convolution
  in is all that the kernel lies over, kh kw in, of one group (for LoRA and its kin of all groups, and out is by group);
  `test_trainable_count_is_the_formula`.
- *Fresh*: a fresh adapter gives the base's logits bitwise, to the tolerance named, or starts elsewhere;
  `test_fresh_is_nothing_and_random_is_something`.
- *Merge*: it can be folded into the weights (LoRA and its kin not where a convolution has groups), and combined with others
  where it changes kernels alone (`graftax combine`);
  `test_merged_equals_unmerged`.
- *Sizes share a program*: adapters of other sizes swap without compiling, in buckets of powers of two;
  `test_sizes_share_a_program`.
- *PEFT*: files are PEFT's, both ways, under this name; `tests/test_peft*.py`. The others' are graftax's own.
- *AdapterHub*: files of its library `adapters`, both ways, under this name (`docs/files.md`); `make test-adapterhub`.
- *Within*: how far two programs for one result may lie apart in float32, merged, in a mixed batch or with other texts in a row;
  `test_merged_equals_unmerged`, `test_mixed_rows`, `test_texts_may_share_a_row`.

| method | what it does | acts on | at a site | fresh | merge | sizes share a program | PEFT | AdapterHub | within |
|---|---|---|---|---|---|---|---|---|---|
"""


def markdown() -> str:
    """The whole page."""
    rows = []
    there = {cls: dialect.there for cls, dialect in DIALECTS.items()}
    for name, cls in METHODS.items():
        within = cls.fresh_within
        fresh = "elsewhere" if within is None else f"{within:.0e}" if within else "bitwise"
        marks = ["yes" if flag else "" for flag in (cls.mergeable, cls.padded)]
        title = f"`{name}`" if name != "head" else "`probe`"
        peft, adapterhub = dialect_class(cls).peft_type or "", there.get(cls, "")
        cells = [title, cls.summary, ", ".join(cls.acts_on), cls.count, fresh, *marks, peft, adapterhub]
        cells.append(f"{cls.tolerance:.0e}")
        rows.append("| " + " | ".join(cells) + " |")
    return _HEADER + "\n".join(rows) + "\n"
