"""Backbones whose weights stay in their files until devices ask for parts of them.

What is read is what a backbone in memory holds, bit for bit; a process reads the parts of its own devices and no more; and what
has happened to a file meanwhile is said in a line, by all processes where only one has seen it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS, CONVOLUTIONAL
from gguf_files import write_gguf
from safetensors.numpy import load_file, save_file
from test_processes import begin, ended, port
from tiny import toy_rows, write_backbone

from graftax import load_backbone, train_many
from graftax.errors import GraftaxError
from graftax.models import checkpoint
from graftax.models.backbone import Backbone
from graftax.models.by_layer import ByLayer
from graftax.models.load import in_memory
from graftax.models.random import random_tensors
from graftax.models.unread import Unread
from graftax.notes import GraftaxNote


def written(config: dict[str, Any], directory: Path) -> Path:
    """A checkpoint of random weights, without a tokenizer."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(config, seed=1), directory / "model.safetensors")
    return directory


def both(path: Path, **how: Any) -> tuple[Backbone, Backbone]:
    """A backbone in memory, and the same unread."""
    return load_backbone(path, **how), load_backbone(path, unread=True, **how)


def unread_of(backbone: Backbone) -> Iterator[tuple[str, int | None, Unread]]:
    """Each weight that is still in its file, with its name and its layer."""
    for name, held in backbone.held().items():
        each = enumerate(held.each) if isinstance(held, ByLayer) else [(None, held)]
        yield from ((name, layer, one) for layer, one in each)


@pytest.mark.parametrize("config", ["bert", "albert", "llama", "cifar_resnet", "mobilenet_v2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_read_is_what_is_held_in_memory(config: str, dtype: str, tmp_path: Path) -> None:
    """The whole of each weight, and any part of it: of kernels `[in, out]`, of convolutions, of tables."""
    here, unread = both(written((CONFIGS | CONVOLUTIONAL)[config], tmp_path / "backbone"), dtype=dtype)
    assert (unread.fingerprint, unread.dtype, unread.unread, here.unread) == (here.fingerprint, here.dtype, True, False)
    arrays, random, seen = here.arrays(), np.random.default_rng(0), set()
    for name, layer, one in unread_of(unread):
        wanted = arrays[name] if layer is None else arrays[name][layer]
        whole = one.read()
        assert one.in_parts
        assert (whole.dtype, one.shape, one.ndim) == (wanted.dtype, wanted.shape, wanted.ndim)
        assert (whole == wanted).all()
        index = tuple(slice(*sorted(random.choice(size + 1, 2, replace=False).tolist())) for size in wanted.shape)
        assert one.part(index).shape == wanted[index].shape
        assert (one.part(index) == wanted[index]).all()
        assert (one.part((slice(None),) * wanted.ndim) == wanted).all()
        seen.add((name, layer))
    assert seen == {(weight.name, weight.layer) for weight in here.weights}


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_kernels_are_quantised_one_by_one(quantize: str, tmp_path: Path) -> None:
    """Whole, as their scales ask for; and for adapters' starts they are made floats."""
    here, unread = both(write_backbone(tmp_path / "backbone"), quantize=quantize)
    held = {name: jax.tree.map(np.asarray, array) for name, array in here.held().items()}
    quantised = 0
    for name, layer, one in unread_of(unread):
        wanted = held[name] if layer is None else jax.tree.map(lambda leaf, layer=layer: leaf[layer], held[name])
        for mine, its in zip(jax.tree.leaves(one.read()), jax.tree.leaves(wanted), strict=True):
            assert mine.dtype == its.dtype
            assert (np.asarray(mine) == its).all()
        quantised += not one.in_parts
    assert quantised == sum(weight.layer is not None and weight.leaf == "kernel" for weight in here.weights)
    check_sites(here, unread)


def test_a_gguf_file_is_read_weight_by_weight(tmp_path: Path) -> None:
    here, unread = both(write_gguf(tmp_path / "model.gguf"))
    arrays = here.arrays()
    for name, layer, one in unread_of(unread):
        assert not one.in_parts
        assert (one.read() == (arrays[name] if layer is None else arrays[name][layer])).all()


def check_sites(here: Backbone, unread: Backbone) -> None:
    """What methods are given at their sites is the same."""
    with pytest.warns(GraftaxNote, match="reads them from their files, one by one, as often as it asks"):
        found = [jax.tree.leaves(site.weights()) for site in unread.sites]
    for mine, site in zip(found, here.sites, strict=True):
        for one, wanted in zip(mine, jax.tree.leaves(site.weights()), strict=True):
            np.testing.assert_array_equal(one, wanted)


def test_sites_know_their_weights(tmp_path: Path) -> None:
    check_sites(*both(written(CONFIGS["llama"], tmp_path / "backbone")))


def test_what_needs_all_weights_reads_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, unread = both(write_backbone(tmp_path / "backbone"))
    assert in_memory(here) is here
    with pytest.warns(GraftaxNote, match="computes with whole weights: this host reads all of them"):
        whole = in_memory(unread)
    monkeypatch.setattr(Unread, "read", None)
    assert in_memory(unread) is whole
    assert (whole.fingerprint, whole.name, whole.unread) == (here.fingerprint, here.name, False)
    for name, array in whole.arrays().items():
        assert (array == here.arrays()[name]).all()


def test_it_is_no_array_by_itself(tmp_path: Path) -> None:
    """Neither to JAX nor to NumPy: nobody reads a file without saying so."""
    unread = load_backbone(write_backbone(tmp_path / "backbone"), unread=True)
    _, _, one = next(unread_of(unread))
    said = r"word_embeddings\.table is still in its file, for the backbone was loaded with unread=True"
    for made in (np.asarray, jnp.asarray, jax.jit(lambda x: x), jax.device_put, lambda array: jnp.stack([array])):
        with pytest.raises(GraftaxError, match=said):
            made(one)
    for call in (unread.arrays, lambda: train_many(unread, {"a": toy_rows(count=8)}, tmp_path / "out")):
        with pytest.raises(GraftaxError) as refused:
            call()
        assert str(refused.value).endswith("was loaded with unread=True, to be trained with fsdp=True: load it without.")
    assert not (tmp_path / "out").exists()


def test_damage_is_found_at_once(tmp_path: Path) -> None:
    """As of a backbone that is read into memory."""
    directory = write_backbone(tmp_path / "backbone")
    file = directory / "model.safetensors"
    tensors, content = load_file(file), file.read_bytes()
    key = "encoder.layer.1.output.dense.weight"
    for array, said in (
        (np.full_like(tensors[key], np.nan), f"the weights are damaged: {key} holds NaN or infinite numbers."),
        (tensors[key][:-1], f"the weights do not fit the config: {key} has shape (31, 48), config.json implies (32, 48)."),
    ):
        save_file(tensors | {key: array}, file)
        with pytest.raises(GraftaxError) as refused:
            load_backbone(directory, unread=True)
        assert str(refused.value) == said
    file.write_bytes(content[:-100])
    with pytest.raises(GraftaxError, match="corrupt or truncated safetensors file"):
        load_backbone(directory, unread=True)


def test_a_file_that_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a part is read, or while it is: cut off, written anew, gone."""
    directory = write_backbone(tmp_path / "backbone")
    file = directory / "model.safetensors"
    content, opened = file.read_bytes(), checkpoint._opened
    said = f"{file} was changed while the backbone was read from it; start again."

    def one() -> Unread:
        return next(unread_of(load_backbone(directory, unread=True)))[2]

    @contextmanager
    def touched(path: Path) -> Iterator[Any]:
        with opened(path) as there:
            yield there
        os.utime(path, ns=(0, 1))

    for change in (lambda: file.write_bytes(content[:-100]), lambda: os.utime(file, ns=(0, 0))):
        file.write_bytes(content)
        table = one()
        change()
        for read in (table.read, lambda table=table: table.part((slice(0, 1), slice(0, 1)))):
            with pytest.raises(GraftaxError) as refused:
                read()
            assert str(refused.value) == said
    file.write_bytes(content)
    table = one()
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_opened", touched)
        with pytest.raises(GraftaxError) as refused:
            table.read()
        assert str(refused.value) == said
    table = one()
    file.unlink()
    with pytest.raises(GraftaxError, match=r"model\.safetensors"):
        table.read()


SHARING = """
import hashlib, json, os, sys
from pathlib import Path
import jax
import numpy as np
from graftax import load_backbone, processes
from graftax.errors import GraftaxError
from graftax.models.checkpoint import Stored
from graftax.models.sharded import Split
from graftax.train.frozen_weights import shared_by_all
from graftax.train.spreading import Spread
processes.join(60.0)
me = processes.index()
path = Path(sys.argv[1 + me])
unread, here = load_backbone(path, unread=True), load_backbone(path)
read, count = Stored._read, [0]
def counted(self, function):
    found = read(self, function)
    count[0] += found.nbytes
    return found
Stored._read = counted
mine, _ = shared_by_all(unread, Spread(2, 2))
bytes_read = count[0]
its, _ = shared_by_all(here, Spread(2, 2))
assert count[0] == bytes_read
leaves = [jax.tree.leaves(tree) for tree in (mine, its)]
same = all(np.array_equal(a.addressable_data(0), b.addressable_data(0)) for a, b in zip(*leaves, strict=True))
split = [leaf for leaf in jax.tree.leaves(mine, is_leaf=lambda leaf: isinstance(leaf, Split)) if isinstance(leaf, Split)]
of_all, cut = sum(leaf.nbytes for leaf in leaves[0]), sum(leaf.part.nbytes for leaf in split)
if me == 1:
    os.truncate(path / "model.safetensors", 1000)
try:
    shared_by_all(unread, Spread(2, 2))
    said = None
except GraftaxError as error:
    said = str(error)
print(json.dumps([bytes_read, of_all, cut, same, said]), flush=True)
processes.end(7)
"""


def test_each_process_reads_its_own_parts_and_what_one_finds_ends_all(tmp_path: Path) -> None:
    """To the byte: half of what two devices share, all of what each has whole; and nothing twice."""
    paths = [write_backbone(tmp_path / name) for name in ("first", "second")]
    at, command = port(), [sys.executable, "-c", SHARING, *map(str, paths)]
    found = ended([begin(command, n, 2, at) for n in range(2)])
    assert [code for code, *_ in found] == [7, 7], found
    told = [json.loads(out.splitlines()[-1]) for _, out, _ in found]
    for bytes_read, of_all, cut, same, _ in told:
        assert bytes_read == of_all - cut // 2
        assert cut > 0.9 * of_all
        assert same
    said = f"{paths[1] / 'model.safetensors'} was changed while the backbone was read from it; start again."
    assert [one[-1] for one in told] == [f"process 1: {said}", said]
