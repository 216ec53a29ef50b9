"""Writing a backbone with an adapter folded in as a plain Hugging Face directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from .. import disk
from ..adapters.adapter import Adapter, Layout
from ..adapters.files import adapter_for
from ..adapters.fitting import head_of, length_for, names_for
from ..adapters.formats.peft.heads import HeadDialect
from ..adapters.merging import merge
from ..adapters.methods.head import FIRST, OVER_MAPS, VECTOR
from ..adapters.methods.joint_head import JointHead
from ..adapters.task_words import words_for
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..models.chat import CHAT_TEMPLATE, is_named, template_of
from ..models.checkpoint import INPUT_FILES
from ..models.gguf_tokenizer import GgufTokenizer
from ..models.load import unstack_weights
from ..models.pairs import PairConfig
from ..notes import note
from ..typed import Location, held


@held
def export_merged(
    backbone: Backbone,
    adapter: Adapter | Location,
    out: Location,
    *,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
    any_backbone: bool = False,
) -> float:
    """Write config.json, model.safetensors and the files about texts; returns the largest difference to the unmerged logits.

    Texts are cut where the adapter cuts them, which transformers keeps as the tokenizer's `model_max_length`.

    Arguments as of `Predictor.load` and `save_adapter`. Raises GraftaxError for what `merge` refuses, and for a head that
    transformers' task model has not.
    """
    from safetensors.numpy import save_file

    adapter = adapter_for(backbone, adapter, any_backbone=any_backbone)
    head, names = head_of(adapter), names_for(adapter, labels, "the adapter")
    if head is not None and head.site == FIRST:
        raise GraftaxError("its head reads the first position without the pooler, which transformers' task model cannot.")
    if head is not None and head.site == VECTOR:
        raise GraftaxError("its head reads a tower's vector, which transformers' task model does not.")
    if head is not None and head.site in OVER_MAPS:
        raise GraftaxError("its head reads feature maps, and transformers has no task model of this family that does.")
    if isinstance(head, JointHead):
        raise GraftaxError("its head reads a joint space with texts, which transformers' task model does not.")
    if isinstance(backbone.config, PairConfig):
        raise GraftaxError(f"{backbone.name} is a pair of towers, and what is written is one model.")
    whole, rest = merge(backbone, adapter, any_backbone=any_backbone)
    tensors = unstack_weights(whole, whole.arrays())
    config = dict(backbone.hf_config or {})
    for name in ("dtype", "torch_dtype", "problem_type"):
        config.pop(name, None)
    if head is None and backbone.generates:
        purpose = "ConditionalGeneration" if backbone.family.encodes else "CausalLM"
        config["architectures"] = [f"{backbone.family.task_model}For{purpose}"]
    elif head is None:
        config["architectures"] = [f"{backbone.family.task_model}Model"]
        tensors = {name.removeprefix(f"{backbone.family.prefix}."): tensor for name, tensor in tensors.items()}
    else:
        words = words_for(adapter.task)
        config["architectures"] = [f"{backbone.family.task_model}For{words.model}"]
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
        if words.problem is not None:
            config["problem_type"] = words.problem
        for site, (leaves, _) in adapter.states[head.key].items():
            tensors |= {name: np.ascontiguousarray(tensor) for name, tensor in HeadDialect(head).tensors(site, leaves).items()}
    drift = _drift(backbone, adapter, whole, rest)
    with disk.new_directory(Path(out), overwrite, ("config.json",)) as draft:
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        (draft / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        if backbone.directory is not None:
            _write_input_files(Path(backbone.directory), draft)
            _keep_how_texts_are_read(adapter, backbone, draft)
    return drift


def _write_input_files(source: Path, target: Path) -> None:
    """The files of a tokenizer, with chat templates, `generation_config.json`; or what is said of pictures."""
    if source.is_file():
        GgufTokenizer(source).save(target)
    for file in (file for pattern in INPUT_FILES for file in source.glob(pattern) if file.is_file()):
        (target / file.relative_to(source)).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target / file.relative_to(source))


def _keep_how_texts_are_read(adapter: Adapter, backbone: Backbone, directory: Path) -> None:
    """What a head answers depends on where texts are cut, what a chat is answered on its template: both as of the adapter."""
    if head_of(adapter) is not None:
        backbone.processor.keep_length(directory, length_for(adapter, backbone, backbone.processor.max_length))
    if (template := adapter.recipe.get("chat_template")) is not None:
        (directory / CHAT_TEMPLATE).write_text(text := template_of(template), "utf-8")
        if not is_named(text):
            note("the merged model's chat template is the one that the adapter brought, a program of whoever made the adapter.")


def _drift(backbone: Backbone, adapter: Adapter, whole: Backbone, rest: Adapter) -> float:
    """Largest difference of the outputs on 8 random items, of texts with 32 tokens."""
    inputs = backbone.processor.random_inputs(8)
    if backbone.family.encodes:
        inputs = inputs._replace(target=inputs)

    def outputs(backbone: Backbone, adapter: Adapter) -> np.ndarray:
        state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
        if backbone.family.encodes:
            return np.asarray(jax.jit(backbone.encode)(backbone.params, state, inputs).hidden)
        found = jax.jit(backbone.forward)(backbone.params, state, inputs)
        logits = found.pooled if found.pooled is not None else found.tokens
        return np.asarray(logits if logits is not None else jax.jit(backbone.encode)(backbone.params, state, inputs).hidden)

    return float(np.abs(outputs(backbone, adapter) - outputs(whole, rest)).max())
