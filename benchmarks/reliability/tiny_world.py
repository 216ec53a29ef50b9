"""What the reliability scripts ask about: two tiny backbones with random weights, adapters of each on disk and on a hub, and
what each adapter answers to each text, known before any server is begun.

An encoder classifies, a decoder goes on with a text. What is right is what `Predictor` and `Generator` say: probabilities
within 1e-5 (how many rows are computed together decides the rounding of sums), texts to the letter.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # of the tests' tiny backbones and adapters

TEXTS = [
    "a red apple",
    "old gold",
    "zinc and iron, today",
    "plum",
    "the shop sells a new pear",
    "fresh",
    "lead, 1 2 3",
    "cheap",
]
NEW_TOKENS = 6
TOLERANCE = 1e-5


@dataclass
class Side:
    """A backbone, and what is known of its adapters."""

    kind: str  # of requests: "classify" or "completions"
    backbone: Path
    folder: Path  # of the adapters' directories,
    digests: list[str]  # and the digest of each where it is loaded from there
    hub: Path
    versions: dict[str, list[str]] = field(default_factory=dict)  # of each name on the hub the digests, from version 1 on
    answers: dict[str | None, list[Any]] = field(default_factory=dict)  # by digest, to each text; None: the base's

    def is_right(self, digest: str | None, text: int, answer: dict[str, Any]) -> bool:
        """Whether an answer to a text, as JSON has it, is that of an adapter."""
        expected = self.answers[digest][text]
        if self.kind == "completions":
            return bool(answer["text"] == expected)
        return len(answer["probs"]) == len(expected) and all(
            abs(one - other) <= TOLERANCE for one, other in zip(answer["probs"], expected, strict=True)
        )


def made(folder: Path, kind: str, adapters: int, names: int) -> Side:
    """A side with so many adapters on disk, of which three each are versions of the names on a hub (shop/h0, shop/h1, ...)."""
    from cases import fresh, randomised
    from http_servers import speaker
    from tiny import write_backbone, write_decoder

    from graftax import Generator, Hub, LoRA, Predictor, Sampling, load_backbone, save_adapter
    from graftax.serve.handles import digest_of

    encoder = kind == "classify"
    place = (write_backbone if encoder else write_decoder)(folder / "backbone")
    backbone = load_backbone(place)
    predictor = Predictor(backbone) if encoder else None
    generator = None if encoder else Generator(backbone)
    side = Side(kind, place, folder / "adapters", [], folder / "hub")
    answers: list[list[Any]] = []
    for seed in range(adapters):
        adapter = (
            randomised(fresh(backbone, (LoRA(r=1 + seed % 4, alpha=3.0),), seed=seed), seed)
            if encoder
            else speaker(backbone, seed)
        )
        save_adapter(adapter, side.folder / str(seed), backbone)
        side.digests.append(digest_of(adapter))
        if predictor is not None:
            predictor.load("one", adapter)
            labels = predictor.labels("one")
            said = [one.probabilities or {} for one in predictor.predict(TEXTS, "one")]
            answers.append([[own[label] for label in labels] for own in said])
        elif generator is not None:
            generator.load("one", adapter)
            how = Sampling(max_new_tokens=NEW_TOKENS)
            answers.append([one.text for one in generator.generate(TEXTS, "one", how)])
    if generator is not None:
        side.answers[None] = [one.text for one in generator.generate(TEXTS, None, Sampling(max_new_tokens=NEW_TOKENS))]
    side.answers |= dict(zip(side.digests, answers, strict=True))
    hub, order = Hub(side.hub), list(range(adapters))
    random.Random(0).shuffle(order)
    for name in range(names):
        for seed in (order[(3 * name + i) % adapters] for i in range(3)):
            version = hub.push(f"shop/h{name}", side.folder / str(seed), tags=["prod"])
            side.versions.setdefault(f"shop/h{name}", []).append(version.digest)
            side.answers[version.digest] = answers[seed]
    return side
