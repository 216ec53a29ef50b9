# %% [markdown]
# # Hot swapping at inference
#
# A server that knows a thousand customers cannot hold a thousand models. With adapters it holds
# one, and adapters come and go while it answers: a swap is a few milliseconds and compiles nothing.
# Every row of a batch may use another adapter, with other labels, even of another method.
#
# This page takes less than a minute on two cores.

# %% [markdown]
# ## Three adapters to swap
#
# Two LoRA adapters and one whose method is IA3, which scales activations instead of adding to
# weights.

# %%
import sys
import time

import graftax
from graftax.demo import DOMAINS, find_minilm

backbone = graftax.load_backbone(sys.argv[1] if len(sys.argv) > 1 else find_minilm())
trained = graftax.train_many(
    backbone,
    {name: DOMAINS / f"{name}.csv" for name in ("bank", "airline", "clinic")},
    out="swapped",
    method=graftax.LoRA(r=8, alpha=16, targets=r".*layer\.[345]\..*(query|value)"),
    recipe=graftax.Recipe(epochs=8, lr=8e-3, batch_size=16, max_length=48),
    each={"clinic": {"method": graftax.IA3(), "lr": 3e-2}},
    overwrite=True,
    progress=False,
)
for name, result in trained.items():
    size = sum(file.stat().st_size for file in result.directory.iterdir())
    print(f"{name:8} {size:>8,} bytes")

# %% [markdown]
# ## One batch, another adapter in every row
#
# `load` brings an adapter to the device, `predict` takes rows and the name of an adapter for each,
# or None for the bare backbone, which has nothing to answer with here. The batch is one call of one
# compiled program, whatever mixture its rows name.

# %%
predictor = graftax.Predictor(backbone)
for name, result in trained.items():
    predictor.load(name, result.directory)

rows = [
    "my card is gone",
    "my suitcase did not arrive",
    "can i move my appointment to friday",
    "no adapter reads this",
]
asked = ["bank", "airline", "clinic", None]
for text, answer in zip(rows, predictor.predict(rows, asked), strict=True):
    print(f"{text:36} {answer.adapter or '-':8} {answer.label}")

# %% [markdown]
# The programs that this needed are counted. Other rows, and other mixtures of the same number of
# rows, need none.

# %%
compiled = predictor.compilations
predictor.predict(rows, ["airline", "bank", None, "clinic"])
print("programs compiled:", compiled, "and by another mixture:", predictor.compilations - compiled)
assert predictor.compilations == compiled

# %% [markdown]
# ## Swapping
#
# Loading under a name that is taken replaces that adapter, and `unload` makes room. Here the bank's
# adapter is read from disk again twenty times, with a batch answered after each.

# %%
seconds = []
for _ in range(20):
    began = time.perf_counter()
    predictor.load("bank", trained["bank"].directory)
    seconds.append(time.perf_counter() - began)
    predictor.predict(rows, asked)
print(f"a swap from disk: {sorted(seconds)[10] * 1e3:.1f} ms")
print("programs compiled by 20 swaps:", predictor.compilations - compiled)
assert predictor.compilations == compiled

predictor.unload("clinic")
try:
    predictor.predict(rows, asked)
except graftax.GraftaxError as error:
    print(error)

# %% [markdown]
# ## Several adapters in one row
#
# A row may also use several: `Average` weighs what they make of it, `Stack` applies one behind the
# other. The head is that of the first of an average, so the answer is one of the bank's labels.

# %%
both = graftax.Average("bank", "airline", weights=(0.7, 0.3))
(answer,) = predictor.predict(["you took the money for my flight twice"], [both], top_k=2)
print(answer.adapter, {label: round(share, 2) for label, share in answer.probabilities.items()})

# %% [markdown]
# Adapters of PEFT's, and repositories on the Hub, load in the same way: `predictor.load("bank",
# "user/bank")`. Language models have a `Generator`, which takes prompts in place of rows. On the
# command line the same is `graftax predict`; see [the command line](../cli.md#predict) and
# [serving](../reference/serving.md).
