"""Encoder-decoders against transformers' torch models: layer by layer, sources padded on either side, step by step."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
import transformers
from cases import randomised
from conftest import SHARED, needs_assets
from of_texts import read_examples
from parity import assert_parity
from runs import interrupt, stop_after
from safetensors.numpy import load_file, save_file
from tiny import weights_of
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from graftax import (
    IA3,
    ALoRA,
    DoRA,
    Generator,
    GraftaxError,
    LoRA,
    Recipe,
    Sampling,
    load_adapter,
    load_backbone,
    merge,
    save_adapter,
    train_many,
)
from graftax.adapters.adapter import Adapter, Layout
from graftax.data.columns import Columns
from graftax.models.backbone import Backbone
from graftax.models.family_registry import family_of
from graftax.models.inputs import TextInputs
from graftax.models.tokens import Tokenizer as TokenizerOf
from graftax.serve.evaluation import evaluate_language
from graftax.serve.export import export_merged
from graftax.tasks.task_registry import task_named
from graftax.train import Interrupted

TRANSLITERATION = SHARED / "backbones" / "aren-transliteration"
TINY: dict[str, Any] = {"vocab_size": 97, "d_model": 32, "encoder_layers": 3, "decoder_layers": 2}
TINY |= {"encoder_attention_heads": 4, "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 64}
TINY |= {"max_position_embeddings": 40, "eos_token_id": 2, "pad_token_id": 1, "forced_eos_token_id": None}

SHAPES: dict[str, dict[str, Any]] = {
    "bart": {"model_type": "bart", **TINY, "decoder_start_token_id": 2},
    "bart-untied": {"model_type": "bart", **TINY, "tie_word_embeddings": False, "scale_embedding": True},
    "pegasus": {"model_type": "pegasus", **TINY, "decoder_start_token_id": 0, "scale_embedding": True},
    "pegasus-untied": {"model_type": "pegasus", **TINY, "tie_word_embeddings": False, "activation_function": "relu"},
}

T5 = {"vocab_size": 97, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 9, "pad_token_id": 0, "eos_token_id": 1}
T5 |= {"decoder_start_token_id": 0}
SHAPES |= {
    "t5": {"model_type": "t5", **T5},
    "t5-1.1": {"model_type": "t5", **T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mt5": {"model_type": "mt5", **T5, "tie_word_embeddings": False},
}
#: What texts begin and end with, which is no matter of the forward pass.
FORCED = {"bart-forced": {**SHAPES["bart"], "forced_bos_token_id": 7, "forced_eos_token_id": 2}}
OWN_HEAD = ("t5-1.1", "mt5")  # as checkpoints have it, whatever configs say


def torch_model(shape: str, seed: int = 0) -> Any:
    """transformers' model of a shape; no weight is left at zero or one."""
    raw = dict((SHAPES | FORCED)[shape])
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    torch.manual_seed(seed)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation="eager")
    if shape in OWN_HEAD:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.add_(torch.randn_like(model.final_logits_bias))
    return model.eval()


def pair(shape: str, directory: Path) -> tuple[Backbone, Any]:
    model = torch_model(shape)
    model.save_pretrained(directory)
    return load_backbone(directory), model


def rows(backbone: Backbone) -> TextInputs:
    """Three random sources, padded on the right, and again on the left, with a target each."""
    random = np.random.default_rng(0)
    tokens, lengths = 11, (11, 8, 3)
    index = np.arange(tokens)
    mask = np.concatenate([index < np.array(lengths)[:, None], index >= tokens - np.array(lengths)[:, None]])
    ids = np.where(mask, random.integers(3, backbone.config.vocab_size, mask.shape), backbone.config.pad_id).astype(np.int32)
    target = random.integers(3, backbone.config.vocab_size, (6, 7)).astype(np.int32)
    target[:, 0] = backbone.config.start_id
    read = TextInputs(target, np.ones(target.shape, bool), np.zeros_like(target))
    return TextInputs(ids, mask, np.zeros_like(ids), target=read)


def run(backbone: Backbone, inputs: TextInputs) -> Any:
    """Logits of every token of the target, and the states of both towers."""

    def forward(params: Any, inputs: TextInputs) -> Any:
        out = backbone.encode(params, {}, inputs, intermediates=True)
        assert out.encoder is not None
        return backbone.next_token(params, {}, out.hidden), out.encoder.layers, out.layers

    return jax.tree.map(np.asarray, jax.jit(forward)(backbone.params, inputs))


def of_torch(model: Any, inputs: TextInputs) -> Any:
    ids, mask, target = (torch.tensor(np.asarray(x, np.int64)) for x in (inputs.ids, inputs.mask, inputs.target.ids))
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=target, output_hidden_states=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_transformers(shape: str, tmp_path: Path) -> None:
    backbone, model = pair(shape, tmp_path)
    inputs = rows(backbone)
    ours, encoder, decoder = run(backbone, inputs)
    theirs = of_torch(model, inputs)
    close = partial(assert_parity, backbone, relative=1e-4)
    for mine, one in zip(encoder, theirs.encoder_hidden_states, strict=True):
        close(mine[inputs.mask], one[inputs.mask])
    for mine, one in zip(decoder, theirs.decoder_hidden_states, strict=True):
        close(mine, one)
    close(ours, theirs.logits)
    assert np.abs(ours).max() > 0.5


@pytest.mark.parametrize("shape", ["bart", *(pytest.param(s, marks=pytest.mark.slow) for s in ("pegasus", "t5-1.1"))])
def test_cache_step_by_step(shape: str, tmp_path: Path) -> None:
    """Tokens fed one by one behind a prefill give the logits of the whole target."""
    backbone, _ = pair(shape, tmp_path)
    inputs = rows(backbone)
    whole, *_ = run(backbone, inputs)
    prefill = jax.jit(partial(backbone.prefill, columns=inputs.target.ids.shape[1] + 2))
    step = jax.jit(backbone.step)
    found, cache = prefill(backbone.params, backbone.layers, {}, inputs._replace(target=None))
    np.testing.assert_allclose(found, whole[:, 0], atol=1e-4, rtol=1e-4)
    for column in range(1, inputs.target.ids.shape[1]):
        found, cache = step(backbone.params, backbone.layers, {}, jnp.asarray(inputs.target.ids[:, column]), cache)
        np.testing.assert_allclose(found, whole[:, column], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", ["bart", "pegasus", "t5"])
def test_older_checkpoints(shape: str, tmp_path: Path) -> None:
    """With the shared table at every place, without what transformers makes itself; copies that differ are refused."""
    backbone, model = pair(shape, tmp_path / "new")
    inputs = rows(backbone)
    directory = tmp_path / "old"
    model.save_pretrained(directory)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    made = [key for key in tensors if shape == "pegasus" and key.endswith("embed_positions.weight")]
    tensors = {key: t for key, t in tensors.items() if key not in [*made, "final_logits_bias"]}
    prefix = "" if shape == "t5" else "model."
    copies = {f"{prefix}{tower}.embed_tokens.weight": tensors[f"{prefix}shared.weight"] for tower in ("encoder", "decoder")}
    save_file({**tensors, **copies}, file)
    theirs = of_torch(transformers.AutoModelForSeq2SeqLM.from_pretrained(directory).eval(), inputs).logits
    np.testing.assert_allclose(run(load_backbone(directory), inputs)[0], theirs.numpy(), atol=1e-4, rtol=1e-4)
    key = f"{prefix}decoder.embed_tokens.weight"
    save_file({**tensors, **copies, key: copies[key] + 1.0}, file)
    with pytest.raises(GraftaxError, match=r"decoder\.embed_tokens\.weight is not shared\.weight"):
        load_backbone(directory)


@pytest.mark.parametrize(
    ("shape", "change", "message"),
    [
        ("bart", {"normalize_before": True}, "normalize_before=True"),
        ("pegasus", {"static_position_embeddings": False}, "static_position_embeddings=False"),
        ("bart", {"activation_function": "swoosh"}, "activation_function='swoosh'"),
        ("bart", {"decoder_attention_heads": 5}, "not a multiple of 5 heads"),
        ("t5", {"feed_forward_proj": "gated-swoosh"}, "feed_forward_proj='gated-swoosh'"),
    ],
)
def test_configs_that_are_refused(shape: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(GraftaxError, match=message):
        family_of(SHAPES[shape]["model_type"]).configure({**SHAPES[shape], **change})


@needs_assets
def test_transliteration_equals_transformers() -> None:
    backbone = load_backbone(TRANSLITERATION)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(TRANSLITERATION).eval()
    inputs = rows(backbone)
    np.testing.assert_allclose(run(backbone, inputs)[0], of_torch(model, inputs).logits.numpy(), atol=1e-3, rtol=1e-5)


# -- generation ----------------------------------------------------------------------------------------------------------

ALPHABET = "abcdefghijklmnopqrstuvwxyz "


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Generator, Any]]:
    """A generator over a tiny model whose tokenizer knows letters, and transformers' model, by shape."""
    made: dict[str, tuple[Generator, Any]] = {}

    def get(shape: str) -> tuple[Generator, Any]:
        if shape not in made:
            directory = tmp_path_factory.mktemp("writer")
            _, model = pair(shape, directory)
            vocabulary = {letter: 5 + i for i, letter in enumerate(ALPHABET)} | {"<unk>": 3}
            tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
            tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
            tokenizer.decoder = decoders.Fuse()
            tokenizer.save(str(directory / "tokenizer.json"))
            (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
            made[shape] = Generator(load_backbone(directory)), model
        return made[shape]

    return get


def theirs(generator: Generator, model: Any, prompts: list[str], count: int, **options: Any) -> list[list[int]]:
    """What transformers' `generate` writes."""
    ids = generator.tokenizer.ids(prompts)
    width = max(map(len, ids))
    laid = torch.tensor([[*map(int, own), *[model.config.pad_token_id] * (width - len(own))] for own in ids])
    mask = torch.tensor([[1] * len(own) + [0] * (width - len(own)) for own in ids])
    with torch.no_grad():
        out = model.generate(input_ids=laid, attention_mask=mask, max_new_tokens=count, do_sample=False, **options)
    eos = model.config.eos_token_id
    new = [row[1:].tolist() for row in out]
    return [row[: row.index(eos) + 1] if eos in row else row for row in new]


PROMPTS = ["the early bird", "a", "one two three"]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ("bart", {}),
        pytest.param("t5", {"repetition_penalty": 1.5}, marks=pytest.mark.slow),
        ("bart", {"num_beams": 3}),
        pytest.param(
            "pegasus",
            {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "repetition_penalty": 1.3},
            marks=pytest.mark.slow,
        ),
        pytest.param("t5", {"num_beams": 2, "length_penalty": 0.0}, marks=pytest.mark.slow),
        pytest.param("bart-forced", {"num_beams": 2}, marks=pytest.mark.slow),
    ],
)
def test_writes_as_transformers(shape: str, options: dict[str, Any], writers: Any) -> None:
    generator, model = writers(shape)
    found = generator.generate(PROMPTS, sampling=Sampling(max_new_tokens=12, **options))
    assert [list(one.tokens) for one in found] == theirs(generator, model, PROMPTS, 12, **options)


@pytest.mark.slow
def test_rows_have_adapters_of_their_own(writers: Any) -> None:
    """In one batch each prompt gets what it gets alone, by beams too."""
    generator, _ = writers("pegasus")
    for seed, name in enumerate("ab"):
        method = LoRA(r=2 + seed, alpha=7.0, targets=("q_proj", "v_proj", "fc1"))
        adapter = Adapter.create((method,), generator.backbone.sites, task="seq2seq")
        generator.load(name, randomised(adapter, seed))
    named = ["a", None, "b", "a"]
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[1], PROMPTS[2]]
    for how in (Sampling(max_new_tokens=8), Sampling(max_new_tokens=8, num_beams=2)):
        found = generator.generate(prompts, named, how)
        for name, prompt, one in zip(named, prompts, found, strict=True):
            assert generator.generate([prompt], name, how)[0] == one
        assert found[1].tokens != found[2].tokens


# -- adapter files -------------------------------------------------------------------------------------------------------


def adapted(backbone: Backbone, adapter: Adapter, inputs: TextInputs) -> np.ndarray:
    """Logits of every token of the target."""

    def forward(params: Any, state: Any, inputs: TextInputs) -> Any:
        return backbone.next_token(params, state, backbone.encode(params, state, inputs).hidden)

    state = Layout.of([adapter], backbone.sites).stack(adapter, backbone.sites).state
    return np.asarray(jax.jit(forward)(backbone.params, state, inputs))


#: PEFT's LoRA at its own default places, and elsewhere in both towers.
VARIANTS: dict[str, tuple[str, Any, Any]] = {
    "t5": ("t5", LoRA(r=3, alpha=7.0), peft.LoraConfig(r=3, lora_alpha=7)),
    "t5-wide": (
        "t5-1.1",
        DoRA(r=2, alpha=5.0, targets=("k", "wi_0", "wo", "lm_head")),
        peft.LoraConfig(r=2, lora_alpha=5, use_dora=True, target_modules=["k", "wi_0", "wo", "lm_head"]),
    ),
    "t5-distances": (
        "t5",
        LoRA(r=2, alpha=5.0, targets=("relative_attention_bias", "embed_tokens")),
        peft.LoraConfig(r=2, lora_alpha=5, target_modules=["relative_attention_bias", "embed_tokens"]),
    ),
    "bart": ("bart", LoRA(r=3, alpha=7.0), peft.LoraConfig(r=3, lora_alpha=7)),
    "bart-cross": (
        "bart",
        LoRA(r=2, alpha=5.0, targets=("encoder_attn.k_proj", "encoder_attn.out_proj", "fc2")),
        peft.LoraConfig(r=2, lora_alpha=5, target_modules=["encoder_attn.k_proj", "encoder_attn.out_proj", "fc2"]),
    ),
    "bart-ia3": (  # PEFT's default on BART is the queries instead of the keys, which the paper scales
        "bart",
        IA3(),
        peft.IA3Config(target_modules=["k_proj", "v_proj", "fc2"], feedforward_modules=["fc2"]),
    ),
}


@pytest.mark.parametrize(
    "variant", [pytest.param(k, marks=() if k in ("t5", "t5-wide") else pytest.mark.slow) for k in VARIANTS]
)
def test_files_go_both_ways(variant: str, tmp_path: Path) -> None:
    """Invariant 11: PEFT reads our file and we read its, with the same logits and the same tensors."""
    shape, method, config = VARIANTS[variant]
    backbone, model = pair(shape, tmp_path / "backbone")
    inputs = rows(backbone)
    adapter = randomised(Adapter.create((method,), backbone.sites, task="seq2seq"), 1)
    path = save_adapter(adapter, tmp_path / "ours", backbone)
    ours = adapted(backbone, adapter, inputs)
    assert np.abs(ours - run(backbone, inputs)[0]).max() > 1e-2
    read = peft.PeftModel.from_pretrained(copy.deepcopy(model), path).eval()
    assert read.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    np.testing.assert_allclose(ours, of_torch(read, inputs).logits.numpy(), atol=1e-4, rtol=1e-4)

    made = peft.get_peft_model(copy.deepcopy(model), dataclasses.replace(config, task_type="SEQ_2_SEQ_LM")).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if any(word in name for word in ("lora", "ia3")):
                parameter.add_(0.2 * torch.randn_like(parameter))
    made.save_pretrained(tmp_path / "theirs")
    loaded = load_adapter(tmp_path / "theirs", backbone)
    assert loaded.task == "seq2seq"
    np.testing.assert_allclose(adapted(backbone, loaded, inputs), of_torch(made, inputs).logits.numpy(), atol=1e-4, rtol=1e-4)
    assert {s.path for s in loaded.states[method.key]} == {s.path for s in adapter.states[method.key]}


def test_a_shared_table_is_not_merged(tmp_path: Path) -> None:
    backbone, _ = pair("bart", tmp_path)
    embedding = Adapter.create((LoRA(targets=("encoder.embed_tokens",)),), backbone.sites, task="seq2seq")
    with pytest.raises(GraftaxError, match=r"encoder\.embed_tokens cannot be merged"):
        merge(backbone, embedding)
    inputs = rows(backbone)
    adapter = randomised(Adapter.create((LoRA(r=2),), backbone.sites, task="seq2seq"), 1)
    whole, _ = merge(backbone, adapter)
    np.testing.assert_allclose(run(whole, inputs)[0], adapted(backbone, adapter, inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "shape", ["pegasus", pytest.param("bart", marks=pytest.mark.slow), pytest.param("mt5", marks=pytest.mark.slow)]
)
def test_merged_into_a_model_that_transformers_loads(shape: str, tmp_path: Path) -> None:
    backbone, _ = pair(shape, tmp_path / "base")
    adapter = Adapter.create((LoRA(r=2),), backbone.sites, task="seq2seq", fingerprint=backbone.fingerprint)
    adapter, inputs = randomised(adapter, 1), rows(backbone)
    assert export_merged(backbone, adapter, tmp_path / "merged") < 1e-3  # T5's states, unscaled, are in the tens
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    (architecture,) = model.config.architectures
    assert architecture.endswith("ForConditionalGeneration")
    np.testing.assert_allclose(adapted(backbone, adapter, inputs), of_torch(model, inputs).logits.numpy(), atol=1e-3, rtol=1e-3)


# -- training ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_learns_to_copy(writers: Any, tmp_path: Path) -> None:
    """The loss before is transformers'; two adapters in one pack learn; what they are measured to say they say."""
    generator, model = writers("bart")
    backbone = generator.backbone
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("abcd"), int(random.integers(2, 6)))) for _ in range(32)]
    data = [{"prompt": text, "completion": text} for text in texts]
    fresh = Adapter.create((LoRA(),), backbone.sites, task="seq2seq")
    measured = evaluate_language(backbone, fresh, data)
    losses, counts = [], []
    for text in texts:
        (source,), end = generator.tokenizer.ids([text]), [model.config.eos_token_id]
        with torch.no_grad():
            out = model(input_ids=torch.tensor(source[None].astype(np.int64)), labels=torch.tensor([[*map(int, source), *end]]))
        losses.append(float(out.loss) * (len(source) + 1))
        counts.append(len(source) + 1)
    np.testing.assert_allclose(measured["perplexity"], np.exp(sum(losses) / sum(counts)), rtol=1e-4)
    recipe = Recipe(epochs=6, lr=2e-2, batch_size=8, max_length=12)
    everywhere = LoRA(r=8, targets=("q_proj", "v_proj", "fc1", "fc2"))
    settings = {"task": "seq2seq", "method": everywhere, "recipe": recipe, "val": 0.25, "pack_size": 2, "progress": False}
    results = train_many(backbone, {"a": data, "b": data[:20]}, tmp_path / "run", **settings)
    for result in results.values():
        found = [line["val_perplexity"] for line in result.history]
        assert min(found) < 0.5 * measured["perplexity"]
    again = evaluate_language(backbone, load_adapter(results["a"].directory, backbone), data)
    assert again["token_accuracy"] > measured["token_accuracy"] + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("ticks", [1, 7])  # of six for each adapter
def test_resumes_to_the_same_bits(writers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticks: int) -> None:
    """Invariant 20: a queue longer than its pack, interrupted within an epoch and behind the first ends, and called again."""
    backbone = writers("bart")[0].backbone
    data = {
        name: [{"prompt": word * n, "completion": word} for n in range(1, 6)] for name, word in zip("xyz", "abc", strict=True)
    }
    recipe = Recipe(epochs=2, lr=1e-2, batch_size=2, max_length=12)
    settings: dict[str, Any] = {"task": "seq2seq", "method": LoRA(r=2, dropout=0.2), "recipe": recipe, "pack_size": 2}
    train_many(backbone, data, tmp_path / "whole", progress=False, **settings)
    with monkeypatch.context() as patch:
        stop_after(patch, ticks, interrupt)
        with pytest.raises(Interrupted):
            train_many(backbone, data, tmp_path / "again", progress=False, **settings)
    train_many(backbone, data, tmp_path / "again", progress=False, **settings)
    for name in data:
        assert weights_of(tmp_path / "again" / name) == weights_of(tmp_path / "whole" / name)


def test_rows_that_are_too_long(writers: Any) -> None:
    backbone = writers("bart")[0].backbone
    examples = read_examples([{"prompt": "ab", "completion": "abcdef"}], Columns(), "seq2seq")
    task, tokenizer = task_named("seq2seq"), TokenizerOf.of(backbone)
    with pytest.raises(GraftaxError, match="the target of row 1 has 7 tokens, more than the 4 of max_length"):
        task.prepare(examples, (), tokenizer, 4)
    rows = task.prepare(examples, (), tokenizer, 4, truncate=True)
    assert rows.items[0].target is not None
    assert rows.items[0].target.tolist() == [backbone.config.start_id, *rows.labels[0][:-1]]
    assert len(rows.labels[0]) == 4


@needs_assets
def test_two_alphabets() -> None:
    """What the transliteration model reads and writes: characters, a target's end, none of a source."""
    tokenizer = TokenizerOf.of(load_backbone(TRANSLITERATION))
    (source,), (target,) = tokenizer.ids(["\u0622\u062a\U0001f600"]), tokenizer.ids(["az"], written=True)
    assert source.tolist() == [31, 10, 50]
    assert target.tolist() == [54, 74, 53]
    assert tokenizer.text(target.tolist()) == "az"


@needs_assets
def test_transliteration_writes_as_transformers() -> None:
    generator = Generator(load_backbone(TRANSLITERATION))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(TRANSLITERATION).eval()
    names = ["\u0622\u062a\u0632\u0645\u0648\u0646", "\u0622\u062a\u0634\u064a\u0633\u0648\u0646"]
    found = generator.generate(names, sampling=Sampling(max_new_tokens=20))
    assert [one.text for one in found] == ["atzmon", "achison"]  # what CTranslate2 says
    assert [list(one.tokens) for one in found] == theirs(generator, model, names, 20)


# -- what does not go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "method", "message"),
    [
        ("classify", LoRA(), "an encoder-decoder; it can do seq2seq"),
        ("sft", LoRA(), "an encoder-decoder; it can do seq2seq"),
        ("seq2seq", ALoRA(invocation=(7,)), "this one reads two"),
        ("seq2seq", LoRA(start="eva"), "made of the rows' moments"),
    ],
)
def test_what_is_refused(task: str, method: Any, message: str, writers: Any, tmp_path: Path) -> None:
    data = [{"prompt": "abc", "completion": "cba", "text": "abc", "label": str(i % 2)} for i in range(4)]
    with pytest.raises(GraftaxError, match=message):
        train_many(
            writers("bart")[0].backbone,
            {"a": data},
            tmp_path,
            task=task,
            method=method,
            recipe=Recipe(max_length=8),
            progress=False,
        )
