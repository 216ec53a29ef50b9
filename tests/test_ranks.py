"""A bound on ranks: what of an adapter counts as one, and where one that is greater is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import random_adapter
from conftest import Graftax
from http_servers import Served, served, speaker
from refusals import refused

from graftax import (
    BOFT,
    IA3,
    OFT,
    Adapter,
    ALoRA,
    BitFit,
    Bottleneck,
    DoRA,
    FourierFT,
    Full,
    Hub,
    LoHa,
    LoRA,
    MiSS,
    Prefix,
    RandLoRA,
    SHiRA,
    save_adapter,
)
from graftax.adapters.fitting import refuse_rank
from graftax.adapters.method import Method
from graftax.models.backbone import Backbone
from graftax.serve.http.limits import Limits
from graftax.store.store import Store

WIDTH = 32  # of the tiny backbone

#: Methods, and how many vectors of a site's width they hold somewhere.
RANKS: list[tuple[Method, int]] = [
    (LoRA(r=3, rank_pattern={"query": 11}), 11),
    (DoRA(r=9), 9),
    (ALoRA(r=3, invocation=(52, 29, 30, 31, 32)), 3),
    (LoHa(r=3), 3),
    (SHiRA(r=9), 9),
    (FourierFT(n_frequency=700), 10),
    (RandLoRA(r=20), 40),
    (MiSS(r=24), 24),
    (OFT(oft_block_size=32), 32),
    (BOFT(boft_block_size=16, boft_n_butterfly_factor=2), 32),
    (Bottleneck(width=17), 17),
    (Prefix(tokens=12), 12),
    (Full(), WIDTH),
    (BitFit(), 0),
    (IA3(), 0),
]


@pytest.mark.parametrize(("method", "rank"), RANKS, ids=lambda one: getattr(one, "name", None))
def test_what_a_rank_is(method: Method, rank: int, tiny: Backbone) -> None:
    """As many vectors as it holds at a site; a head's labels are none, nor is a text that is looked for."""
    adapter = random_adapter(tiny, (method,))
    refuse_rank(adapter, rank, "it")
    refuse_rank(adapter, None, "it")
    if rank:
        said = refused(lambda: refuse_rank(adapter, rank - 1, "it"))
        assert said is not None
        assert said.startswith(f"it: {method.name} at ")
        assert said.endswith(f"rank {rank} is greater than max_lora_rank {rank - 1}.")


# -- a server's ---------------------------------------------------------------------------------------------------------------


def complaint(answer: object, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["message"])


def test_a_greater_rank_is_refused_by_a_server(teller: Backbone, tmp_path: Path) -> None:
    """Where one is loaded, and where one on the hub is asked; what is there stays, and the bank what it was."""
    small, large = speaker(teller, 1), Adapter.create((LoRA(r=9),), teller.sites, task="lm", fingerprint=teller.fingerprint)
    save_adapter(small, tmp_path / "small", teller)
    save_adapter(large, tmp_path / "large", teller)
    hub = Hub(tmp_path / "hub")
    hub.push("tales/small", tmp_path / "small")
    hub.push("tales/large", tmp_path / "large")
    options = {"store": Store(tmp_path / "hub"), "roots": [tmp_path], "lanes": 1, "slots": 2}
    load, ask = "/v1/load_lora_adapter", "/v1/completions"
    with served(teller, limits=Limits(max_lora_rank=8), **options) as server:
        assert server.post(load, lora_name="a", lora_path=str(tmp_path / "small")).status_code == 200
        said = complaint(server.post(load, lora_name="a", lora_path=str(tmp_path / "large"), load_inplace=True), 400)
        assert said.startswith("a: lora at ")
        assert said.endswith(": rank 9 is greater than max_lora_rank 8.")
        body = {"prompt": "One day", "max_tokens": 4, "temperature": 0}
        first = text(server, "a", **body)
        said = complaint(server.post(ask, model="tales/large", **body), 422)
        assert said.startswith("tales/large:1: lora at ")
        assert (text(server, "a", **body), text(server, "tales/small", **body)) == (first, first)
        assert server.service.residents.bank.layout.buckets == (8,)
    with served(teller, **options) as server:
        assert server.post(ask, model="tales/large", **body).status_code == 200
        assert server.service.residents.bank.layout.buckets == (16,)


def text(server: Served, model: str, **body: object) -> str:
    answer = server.post("/v1/completions", model=model, **body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def test_a_greater_rank_is_refused_at_start(graftax: Graftax, teller: Backbone, teller_dir: Path, tmp_path: Path) -> None:
    save_adapter(speaker(teller, 1), tmp_path / "sea", teller)
    done = graftax("serve", "-b", teller_dir, "-a", f"sea={tmp_path / 'sea'}", "--port", "0", "--max-lora-rank", "1")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("graftax: sea: lora at ")
    assert done.err.endswith(": rank 2 is greater than max_lora_rank 1.\n")
