# %% [markdown]
# # Which method for my data?
#
# LoRA, bottlenecks, IA3, a plain linear probe: which is best depends on the data, and a comparison
# at one learning rate says more about the rate than about the methods. `graftax bench` searches a
# rate and a length for each method on validation rows, trains the best setting anew with several
# seeds, measures on test rows that nobody has looked at, and says what can be told apart.
#
# On your own data that is one command:
#
#     graftax bench --data mine.csv --out mine
#
# It takes from minutes to hours, since every method is trained until twice the length brings
# nothing. This page does the same from Python, cut down to a minute or two: 120 messages that
# tenants wrote to a landlord, LoRA in one layer and in three, two seeds. So read it for how it is
# done more than for who wins.

# %% [markdown]
# ## What is compared
#
# A suite says which methods meet on which tasks. Here it is put together in Python; a TOML file
# says the same, and `graftax bench --suite FILE` runs it. `lrs` are the rates to begin with: the
# search goes on beyond them as far as `widen` says, and doubles the length of a training
# `doublings` times at most.
#
# Two baselines stand beside the methods, asked for or not: the `probe`, a classifier over frozen
# features, and `nearest-mean`, which trains nothing and takes the class whose mean is nearest.

# %%
import sys
import textwrap
from pathlib import Path

from graftax.benchmarks.report import write_report
from graftax.benchmarks.runner import run_suite
from graftax.benchmarks.suite import MethodSpec, Suite, TaskSpec
from graftax.demo import DOMAINS, find_minilm

backbone = sys.argv[1] if len(sys.argv) > 1 else find_minilm()
suite = Suite(
    name="landlord",
    backbones=(str(backbone),),
    tasks={
        "landlord": TaskSpec(
            train=str(DOMAINS / "landlord.csv"),
            test=str(DOMAINS / "test" / "landlord.csv"),
            val=0.3,
        )
    },
    methods={
        "lora-1-layer": MethodSpec("lora", target=r".*layer\.5\..*(query|value)"),
        "lora-3-layers": MethodSpec("lora", target=r".*layer\.[345]\..*(query|value)"),
    },
    lrs=(2e-3, 4e-3, 8e-3),
    steps=80,
    doublings=2,
    widen=2,
    seeds=2,
    batch_size=16,
    max_length=48,
)

# %% [markdown]
# ## Run it
#
# Every training becomes an adapter in the folder and a line in `results.jsonl`. Interrupt this and
# run it again: it goes on.

# %%
records = run_suite(suite, Path("benchmark"), say=lambda line: None)
for record in records:
    if record.stage == "search":
        setting = f"{record.method:14} rate {record.lr:<8.3g} {record.epochs:3} epochs"
        print(f"{setting}: {record.value:.1%} of the validation rows")

# %% [markdown]
# The searches ended when the rates on both sides of the best one were worse and a longer training
# brought nothing. Then each method was trained on all rows with its best setting, once for each
# seed, and measured on the test rows:

# %%
for record in records:
    if record.stage == "final":
        print(f"{record.method:14} seed {record.seed}: {record.value:.1%} of the test rows")

# %% [markdown]
# ## The answer
#
# `write_report` writes one page, `report.html`, with tables, intervals, costs and plots, and
# returns what it comes to:

# %%
print(textwrap.fill(write_report(Path("benchmark")), 110))

# %% [markdown]
# Here the method that trains nothing wins: 120 messages in seven classes are few for a new head,
# while their means are good guides in a space that was made for comparing sentences. That is worth
# knowing before anything is deployed. The intervals are wide, as they must be with forty test
# messages. Where methods cannot be told apart, the cheapest of them is the advice; a method below
# `nearest-mean` has done harm, and is said to. [The benchmark](../benchmark.md) is the whole
# protocol, and [the three jobs](../jobs/which_method.md) say how to ask for more.
