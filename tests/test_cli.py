"""The command line: what its help says works, and whatever is wrong is one line and exit code 2."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import Graftax, Said
from tiny import command_line, toy_rows, weights_of, write_backbone, write_csv, write_jsonl
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from graftax import Generator, Predictor, Sampling, load_backbone
from graftax.__main__ import main
from graftax.adapters import METHODS
from graftax.adapters.methods.unions import UNIONS
from graftax.data.columns import Columns
from graftax.models.family_registry import FAMILIES
from graftax.serve.evaluation import evaluate, evaluate_generation, evaluate_language

FAST = ["--epochs", "2", "--batch-size", "8", "--max-length", "16", "--lr", "5e-3"]


class Folder(NamedTuple):
    backbone: Path
    data: Path  # bank.csv, air.csv, tags.jsonl, ...
    run: Path  # adapters bank and air


@pytest.fixture(scope="module")
def folder(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Data files and two trained adapters; tests leave them as they are."""
    path = tmp_path_factory.mktemp("cli")
    for name in ("bank", "air"):
        write_csv(path / "data" / f"{name}.csv", toy_rows(count=20, seed=ord(name[0])))
        write_csv(path / "val" / f"{name}.csv", toy_rows(count=9, seed=ord(name[1])))
    write_jsonl(path / "data" / "tags.jsonl", toy_rows("tag", 16))
    write_jsonl(path / "data" / "many.jsonl", toy_rows("multilabel", 16))
    write_csv(path / "data" / "numbers.csv", toy_rows("regress", 16))
    files = [str(path / "data" / f"{name}.csv") for name in ("bank", "air")]
    command = command_line("train", "-b", tiny_dir, "--data", *files, "--out", path / "run", *FAST)
    subprocess.run(command, check=True, capture_output=True)
    return Folder(tiny_dir, path / "data", path / "run")


def predictor_of(backbone: Path, adapter: Path) -> Predictor:
    """With an adapter called "x": what commands answer is what it answers."""
    made = Predictor(load_backbone(backbone))
    made.load("x", adapter)
    return made


def one_line(said: Said, code: int = 2) -> str:
    """The one line of an error."""
    assert said.code == code, said
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("graftax: ")
    assert "Traceback" not in line
    return line


# -- what works -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["", "train", "eval", "predict", "merge", "combine", "export", "inspect", "methods", "backbones", "demo", "bench"],
)
def test_help(graftax: Graftax, command: str) -> None:
    """Every command explains itself; nothing in brackets is swallowed as markup."""
    said = graftax(*command.split(), "--help")
    assert (said.code, said.err) == (0, "")
    assert "Usage" in said.out
    if command == "train":
        assert "[adapters.NAME]" in re.sub(r"[\s│]+", " ", said.out)


def test_lists(graftax: Graftax) -> None:
    """`methods` and `backbones` name all there are."""
    assert {line.split()[0] for line in graftax("methods").out.splitlines()} == {*METHODS, *UNIONS, "probe"} - {"head"}
    told = dict(line.split()[:2] for line in graftax("backbones").out.partition("\n\n")[0].splitlines())
    assert {*told} == {*FAMILIES}
    assert max(map(float, told.values())) < 1e-4  # how far from torch's models


def test_train_with_everything(graftax: Graftax, folder: Folder, tmp_path: Path) -> None:
    """Several files after --data, validation from a directory, a line per adapter; the same bits as from two commands."""
    files = [folder.data / "bank.csv", folder.data / "air.csv"]
    val = folder.data.parent / "val"
    said = graftax(
        "train", "-b", folder.backbone, "--out", tmp_path / "run", *FAST, "--val", val, "--pack-size", 1, "--data", *files
    )
    assert said.code == 0, said.err
    assert re.fullmatch(rf"{tmp_path}/run/bank  loss .* val_accuracy .*\n{tmp_path}/run/air  loss .*\n", said.out)
    one = graftax(
        "train", "-b", folder.backbone, "--out", tmp_path / "one", *FAST, "--data", files[1], "--val", val / "air.csv"
    )
    assert one.code == 0, one.err
    assert weights_of(tmp_path / "one" / "air") == weights_of(tmp_path / "run" / "air")


def test_config_file(graftax: Graftax, folder: Folder, tmp_path: Path) -> None:
    """TOML gives any option, tables change one adapter, and the command line wins over the file."""
    config = tmp_path / "run.toml"
    config.write_text(
        "epochs = 1\nbatch-size = 8\nmax_length = 16\nlr = 0.5\nrank = 3\n"
        'option = ["dropout=0.25"]\n[adapters.air]\nepochs = 2\nmethod = "ia3"\noption = []\n'
    )
    files = [folder.data / "bank.csv", folder.data / "air.csv"]
    said = graftax("train", "-b", folder.backbone, "-o", tmp_path / "run", "--config", config, "--lr", "1e-3", "-d", *files)
    assert said.code == 0, said.err
    configs = [json.loads((tmp_path / "run" / n / "adapter_config.json").read_text()) for n in ("bank", "air")]
    recipes = [json.loads((tmp_path / "run" / n / "graftax.json").read_text())["recipe"] for n in ("bank", "air")]
    assert [c["peft_type"] for c in configs] == ["LORA", "IA3"]
    assert (configs[0]["r"], configs[0]["lora_dropout"]) == (3, 0.25)
    assert [(r["epochs"], r["lr"], r["batch_size"]) for r in recipes] == [(1, 1e-3, 8), (2, 1e-3, 8)]


@pytest.mark.parametrize(
    ("method", "options", "named"),
    [
        ("lora+prefix", ("tokens=2", "dropout=0.25"), ["lora", "prefix"]),
        pytest.param("mam", ("tokens=2",), ["prefix", "bottleneck"], marks=pytest.mark.slow),
    ],
)
def test_unions(graftax: Graftax, folder: Folder, tmp_path: Path, method: str, options: Any, named: list[str]) -> None:
    """Several methods form one adapter; an option goes to those that have it."""
    chosen = [word for option in options for word in ("--option", option)]
    rank = ("--rank", 3) if "lora" in named else ()
    train = ("train", "-b", folder.backbone, "-o", tmp_path, *FAST, *rank, "--method", method, *chosen)
    said = graftax(*train, "-d", folder.data / "bank.csv")
    assert said.code == 0, said.err
    written = json.loads((tmp_path / "bank" / "adapter_config.json").read_text())["methods"]
    assert [fields["method"] for fields in written] == [*named, "head"]
    assert next(fields for fields in written if fields["method"] == "prefix")["tokens"] == 2
    assert all((fields["r"], fields["dropout"]) == (3, 0.25) for fields in written if fields["method"] == "lora")
    assert json.loads((tmp_path / "bank" / "graftax.json").read_text())["recipe"]["method"] == "+".join(named)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "my card is gone"}\n')
    answer = json.loads(graftax("predict", "-b", folder.backbone, "-a", f"x={tmp_path}/bank", "-i", rows).out)
    (own,) = predictor_of(folder.backbone, tmp_path / "bank").predict(["my card is gone"], "x")
    assert (answer["label"], answer["score"]) == (own.label, pytest.approx(own.score))


@pytest.mark.parametrize(
    ("task", "file", "metric"),
    [
        ("tag", "tags.jsonl", "f1"),
        pytest.param("multilabel", "many.jsonl", "micro_f1", marks=pytest.mark.slow),
        pytest.param("regress", "numbers.csv", "mse", marks=pytest.mark.slow),
    ],
)
def test_other_tasks(graftax: Graftax, folder: Folder, tmp_path: Path, task: str, file: str, metric: str) -> None:
    """Train, measure and ask an adapter of every task."""
    train = ["train", "-b", folder.backbone, "-o", tmp_path, "--task", task, *FAST, "--method", "bitfit", "--val", "0.25"]
    graftax(*train, "-d", folder.data / file)
    adapter = tmp_path / file.partition(".")[0]
    predictor = predictor_of(folder.backbone, adapter)
    said = graftax("eval", "-b", folder.backbone, "-a", adapter, "-d", folder.data / file, "--json")
    assert json.loads(said.out.splitlines()[-1])[metric] == evaluate(predictor, "x", folder.data / file)[metric]
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "iron shop"}, {"text": "apple", "adapter": None}])
    answers = [
        json.loads(line)
        for line in graftax("predict", "-b", folder.backbone, "-a", f"x={adapter}", "-i", rows).out.splitlines()
    ]
    assert [a["adapter"] for a in answers] == ["x", None]
    assert answers[0]["label"] == predictor.predict(["iron shop"], "x")[0].label


def test_eval(graftax: Graftax, folder: Folder, tmp_path: Path) -> None:
    """Metrics and a table of confusions, or with --json an object in the last line; unknown labels are counted, and said."""
    command = ["eval", "-b", folder.backbone, "-a", folder.run / "bank", "-d", folder.data / "bank.csv"]
    numbers = json.loads(graftax(*command, "--json").out.splitlines()[-1])
    own = evaluate(predictor_of(folder.backbone, folder.run / "bank"), "x", folder.data / "bank.csv")
    assert numbers.items() >= own.items() > {"accuracy": own["accuracy"]}.items()
    lines = graftax(*command).out.splitlines()
    assert f"accuracy     {numbers['accuracy']:.4f}" in lines
    assert "rows: labels, columns: answers" in lines
    assert sum(pair["count"] for pair in numbers["confusion"]) == 20
    rows = write_csv(tmp_path / "more.csv", [*toy_rows(count=3), {"text": "a shop", "label": "brick"}])
    said = graftax(*command[:-1], rows, "--json")
    assert said.code == 0
    assert said.err == "graftax: labels that the adapter does not know, counted as wrong: 'brick' (1)\n"
    assert json.loads(said.out)["unknown_labels"] == 1.0
    said = graftax(*command, "--chat-template", "plain")
    of_none = "graftax: bank: a chat template is for language models, and this adapter is of task 'classify'.\n"
    assert (said.code, said.out, said.err) == (2, "", of_none)


@pytest.mark.slow
def test_preferences_and_generated_answers(graftax: Graftax, teller_dir: Path, tmp_path: Path) -> None:
    """Trained by dpo; measured by its pairs, and by what it and the backbone alone generate."""
    pairs = [{"question": f"{i}: ", "good": "ab", "bad": "xyz", "completion": "ab"} for i in range(6)]
    data = write_jsonl(tmp_path / "taste.jsonl", pairs)
    columns = ["--prompt-column", "question", "--chosen-column", "good", "--rejected-column", "bad"]
    run = ["train", "-b", teller_dir, "--data", data, "--out", tmp_path / "run", "--task", "dpo", "--beta", "0.3", *columns]
    graftax(*run, *FAST)
    measure = ["eval", "-b", teller_dir, "--data", data, *columns, "--json"]
    adapter = ["--adapter", tmp_path / "run" / "taste"]
    trained, backbone = tmp_path / "run" / "taste", load_backbone(teller_dir)
    named = Columns(prompt="question", chosen="good", rejected="bad")
    likely = evaluate_language(backbone, trained, data, columns=named)
    assert json.loads(graftax(*measure, *adapter).out) == likely
    assert likely.keys() == {"reward_accuracy", "margin"}
    generate = [*measure, "--generate", "--max-new-tokens", "4"]
    generator = Generator(backbone)
    generator.load("x", trained)
    written = evaluate_generation(generator, "x", data, sampling=Sampling(max_new_tokens=4), columns=named)
    assert json.loads(graftax(*generate, *adapter).out) == written
    assert written.keys() == {"exact_match", "cer", "bleu", "chrf", "rouge1", "rouge2", "rougeL"}
    assert graftax(*generate, "--score", "gsm8k").out == '{"accuracy": 0.0}\n'
    assert graftax(*measure).err.endswith("A language model alone: --generate.\n")


def test_generate_answers_chats(graftax: Graftax, teller_dir: Path, tmp_path: Path) -> None:
    """A chat is what the tokenizer's template makes of it, up to the assistant's last message; texts may stand beside chats."""
    asked = [{"role": "user", "content": "apple"}]
    answered = [*asked, {"role": "assistant", "content": "pear"}]
    prompt = "<user>apple</s><assistant>"  # the tokenizer begins it with its own <s>, which the template does not
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"messages": asked}, {"messages": answered}, {"prompt": prompt}])
    said = graftax("generate", "-b", teller_dir, "-i", rows, "--max-new-tokens", 4, "--json")
    assert said.code == 0, said.err
    one, other, third = map(json.loads, said.out.splitlines())
    assert one == other
    own, plain = Generator(load_backbone(teller_dir)).generate([asked, prompt], sampling=Sampling(max_new_tokens=4))
    assert [(said["text"], said["tokens"]) for said in (one, third)] == [(o.text, len(o.tokens)) for o in (own, plain)]
    for row, message in (
        ({"messages": []}, "row 1: an empty list is no list of messages (column 'messages')"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "prompt 1 is empty"),
        ({"text": "x"}, 'row 1 has neither "prompt" nor "messages"'),
    ):
        assert message in one_line(graftax("generate", "-b", teller_dir, "-i", write_jsonl(rows, [row])))


def test_predict_from_a_file_and_from_stdin(graftax: Graftax, folder: Folder, tmp_path: Path) -> None:
    """One JSON object per row, in order, each from the adapter it names; `-` reads the same rows from standard input."""
    rows = [
        {"text": "iron shop", "adapter": "bank"},
        {"text": "café ☕ plum", "adapter": None},
        {"text": "iron", "text_pair": "plum", "adapter": "air"},
    ]
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    command = ["predict", "-b", folder.backbone, *(f"--adapter={n}={folder.run / n}" for n in ("bank", "air")), "--input"]
    said = graftax(*command, file)
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert (said.code, said.err) == (0, "")
    assert [a["adapter"] for a in answers] == ["bank", None, "air"]
    (own,) = predictor_of(folder.backbone, folder.run / "bank").predict(["iron shop"], "x")
    assert (answers[0]["label"], answers[0]["score"]) == (own.label, pytest.approx(own.score, abs=1e-5))
    assert answers[1] == {"adapter": None, "label": None, "score": None}
    assert graftax(*command, "-", stdin=file.read_text()).out == said.out
    several = [{"text": "iron", "adapter": {"bank": 0.5, "air": 0.5}}, {"text": "iron", "adapter": ["bank", {"air": 2}]}]
    found = graftax(*command, "-", stdin="\n".join(map(json.dumps, several))).out.splitlines()
    assert [json.loads(a)["adapter"] for a in found] == ["Average(bank: 0.5, air: 0.5)", "Stack(bank, Average(air: 2))"]
    assert graftax(*command, "-", stdin="").out == ""


@pytest.mark.slow
def test_fuse(graftax: Graftax, folder: Folder, tmp_path: Path) -> None:
    """AdapterFusion over two adapters trained before; its directory needs neither of theirs."""
    train = ["train", "-b", folder.backbone, *FAST]
    data = [folder.data / "bank.csv", folder.data / "air.csv"]
    graftax(*train, "-o", tmp_path / "a", "-d", *data, "--method", "bottleneck", "--option", "width=4")
    fuse = [f"--fuse={tmp_path / 'a' / name}" for name in ("bank", "air")]
    graftax(*train, "-o", tmp_path / "b", "-d", data[0], *fuse)
    shutil.rmtree(tmp_path / "a")
    measured = json.loads(graftax("eval", "-b", folder.backbone, "-a", tmp_path / "b" / "bank", "-d", data[0], "--json").out)
    own = evaluate(predictor_of(folder.backbone, tmp_path / "b" / "bank"), "x", data[0])
    assert measured["accuracy"] == own["accuracy"]
    refused = graftax(*train, "-o", tmp_path / "c", "-d", data[0], f"--fuse={folder.run / 'bank'}")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "two or more adapters" in refused.err
    assert "made of trained adapters" in graftax(*train, "-o", tmp_path / "c", "-d", data[0], "--method", "fusion").err


def test_inspect(graftax: Graftax, folder: Folder) -> None:
    """Method, labels, backbone, recipe and every tensor's shape, without a backbone."""
    said = graftax("inspect", folder.run / "bank")
    assert said.code == 0
    for part in ("LORA", '["fruit", "metal"]', "fingerprint", "batch_size", "lora_A.weight", "8x32"):
        assert part in said.out


def test_export_to_adapterhub_and_back(graftax: Graftax, folder: Folder, tmp_path: Path) -> None:
    """The same tensors and settings, and the same answers from the files on the way."""
    there, back, rows = tmp_path / "there", tmp_path / "back", '{"text": "the shop sells iron"}\n'
    export = ["export", "-b", folder.backbone]
    said = graftax(*export, "-a", folder.run / "bank", "--format", "adapters", "-o", there, "--name", "bank")
    assert said.out.startswith(f"{there}: lora+head, ")
    assert "AdapterHub" in graftax("inspect", there).out
    assert graftax(*export, "-a", there, "--format", "graftax", "-o", back).code == 0
    assert weights_of(back) == weights_of(folder.run / "bank")
    answers = [
        json.loads(graftax("predict", "-b", folder.backbone, "-a", f"x={path}", "-i", "-", stdin=rows).out)
        for path in (folder.run / "bank", there, back)
    ]
    (own,) = predictor_of(folder.backbone, folder.run / "bank").predict(["the shop sells iron"], "x")
    assert [answer["label"] for answer in answers] == [own.label] * 3
    assert [answer["score"] for answer in answers] == pytest.approx([own.score] * 3, abs=1e-6)
    assert "exists already" in one_line(graftax(*export, "-a", there, "--format", "graftax", "-o", back))


@pytest.mark.parametrize("task", ["classify", pytest.param("tag", marks=pytest.mark.slow)])
def test_merge_is_what_transformers_loads(graftax: Graftax, folder: Folder, tmp_path: Path, task: str) -> None:
    """transformers gives the adapter's logits [1e-4] from the merged directory alone, tokenizer and label names included."""
    file = folder.data / ("tags.jsonl" if task == "tag" else "bank.csv")
    train = ["train", "-b", folder.backbone, "-o", tmp_path, "--task", task, *FAST, "--lr", "2e-2", "--rank", 3, "--alpha", 5]
    graftax(*train, "-d", file)
    adapter, out = tmp_path / file.stem, tmp_path / "merged"
    said = graftax("merge", "-b", folder.backbone, "-a", adapter, "-o", out)
    assert said.code == 0
    assert float(said.out.split()[-1]) < 1e-4
    model = (AutoModelForTokenClassification if task == "tag" else AutoModelForSequenceClassification).from_pretrained(out)
    names = json.loads((adapter / "graftax.json").read_text())["labels"]
    assert [model.config.id2label[i] for i in range(len(names))] == names
    words = ["iron", "shop", "sells", "plum"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    with torch.no_grad():
        logits = model.eval()(**tokenizer(" ".join(words), return_tensors="pt")).logits[0].numpy()
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    rows = json.dumps({"text": " ".join(words)})
    answer = json.loads(graftax("predict", "-b", folder.backbone, "-a", f"x={adapter}", "-i", "-", stdin=rows).out)
    chances = chances[1:-1] if task == "tag" else chances
    assert answer["score"] == pytest.approx(chances.max(-1).tolist(), abs=1e-4)
    assert answer["label"] == (np.array(names)[chances.argmax(-1)].tolist())


def test_broken_pipe_and_module(folder: Folder) -> None:
    """`python -m graftax` is the command; a reader that goes away is no traceback."""
    process = subprocess.Popen(command_line("methods"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (1, b"")


# -- what does not ----------------------------------------------------------------------------------------------------

#: Arguments -> part of the one line. {b}ackbone, {d}ata, {r}un, {t}mp.
BAD_USE = {
    "train -b {b} -d {d}/bank.csv -o {t}/o --rank 0": "r must be a whole number, at least 1",
    "train -b {b} -d {d}/bank.csv -o {t}/o --method lara": "unknown method 'lara': did you mean lora? There are lora",
    "train -b {b} -d {d}/bank.csv -o {t}/o --method ia3 --rank 4": "rank is for LoRA and its kin; settings of ia3",
    "train -b {b} -d {d} -o {t}/o": "a directory; a file is wanted here",
    "train -b {b} -d {d}/bank.csv -o {t}/o --method lora+head": "every adapter has a head",
    "train -b {b} -d {d}/bank.csv -o {t}/o --max-length 16 --method lora+lora": "may hold a method once: lora, lora",
    "train -b {b} -d {d}/bank.csv -o {t}/o --max-length 16 --method prefix+prompt --option tokens=2": "virtual tokens: prefix",
    "train -b {b} -d {d}/bank.csv -o {t}/o --method lora+prefix --option width=3": "a field of lora+prefix: r, alpha, ",
    "train -b {b} -d {d}/bank.csv -o {t}/o --task translate": "unknown task 'translate'; there are classify",
    "train -b {b} -d {d}/bank.csv -o {t}/o --frobnicate 3": "). Try graftax train --help.",
    "train -b {b} -d {d}/bank.csv -o {t}/o --epochs many": "--epochs must be a whole number, got 'many'",
    "train -b {b} -d {d}/bank.csv -o {t}/o --epochs 0": "epochs must be",
    "train -b {b} -d {d}/bank.csv -o {t}/o --lr nan": "lr must be a number, above 0",
    "train -b {b} -d {d}/bank.csv -o {t}/o --schedule steep": "linear, cosine, constant",
    "train -b {b} -d {d}/bank.csv -o {t}/o --patience 2": "patience needs validation rows",
    "train -b {b} -d {d}/bank.csv -o {t}/o --max-length 16 --target nothing.*": "matches no site. Sites there are: ",
    "train -b {b} -d {d}/bank.csv -o {t}/o --option width=3": "expected name=value with a field of lora: r, alpha",
    "train -b {b} -d {d}/none.csv -o {t}/o": "none.csv: no such file",
    "train -b {b} -d {d}/bank.csv -o {t}/o --val {d}/none.csv": "none.csv: no such file",
    "train -b {b} -d {d}/bank.csv -o {t}/o --val 1.5": "between 0 and 1",
    "train -b {b} -d {d}/bank.csv -o {t}/o --text-column body": "no column 'body'; it has text, label",
    "train -b {b} -d {d}/bank.csv -o {t}/o --task regress": "is not a number",
    "train -b {b} -d {d}/bank.csv -o {t}/o --config {t}/none.toml": "none.toml: no such file",
    "train -b {b} -d {d}/bank.csv -o {t}/o --config {t}/bad.toml": "not valid TOML",
    "train -b {b} -d {d}/bank.csv -o {t}/o --config {t}/unknown.toml": "no such setting: epoch; there are backbone",
    "train -b {b} -d {d}/bank.csv -o {t}/o --config {t}/type.toml": "--epochs must be a whole number, got 'many'",
    "train -b {b} -d {d}/bank.csv -o {t}/o --config {t}/table.toml": "settings for bunk, but the adapters are bank",
    "train -b {b} -d {d}/bank.csv -o {t}/o --config {t}/field.toml": "no such setting: frob",
    "train -b {b} -d {d}/bank.csv -o {t}/o --config {t}/value.toml": "lr must be a number",
    "train -b {b} -d {d}/bank.csv -o {t}/file": "file is not a directory",
    "train -b {b} -d {d}/bank.csv {d}/air.csv -o {t}/o --val {d}/bank.csv": "with several data files",
    "train -b {b} -d {d}/bank.csv {d}/bank.csv -o {t}/o": "two data files have the same name",
    "train -b {b} -d {d}/bank.csv --max-length 16 -o {r}": "already holds bank; choose another directory or pass --overwrite",
    "train -b {t} -d {d}/bank.csv -o {t}/o": "no backbone there, it has no config.json",
    "train -b ./nowhere -d {d}/bank.csv -o {t}/o": "./nowhere: no such directory",
    "train -b {b} -o {t}/o": "Missing option '--data'",
    "train -b {b} -d {d}/bank.csv -o {t}/o --dtype float16": "use float32 or bfloat16",
    "train -b {b} -d {d}/bank.csv -o {t}/o --max-length 99": "max length 99 is more than the 40 tokens",
    "train -b nowhere -d {d}/bank.csv -o {t}/o --save-every nan": "seconds between checkpoints, must be a number, at least 0",
    "train -b nowhere -d {d}/bank.csv -o {t}/o --weight-decay nan": "weight_decay must be a number, at least 0",
    "train -b {b} -d {d}/bank.csv -o {t}/o --pack-size 0": "pack size must be a whole number, at least 1",
    "eval -b {b} -a {r}/bank -d {t}/labels.csv": "bank knows none of its labels (herb, brick), but fruit, metal",
    "eval -b {b} -a {r}/none -d {d}/bank.csv": "no such adapter directory",
    "eval -b {b} -a {t} -d {d}/bank.csv": "no adapter there, it has no adapter_config.json",
    "eval -b {b} -a {t}/corrupt -d {d}/bank.csv": "damaged, its checksum",
    "eval -b {b} -a {t}/truncated -d {d}/bank.csv": "corrupt or truncated",
    "eval -b {t}/other -a {r}/bank -d {d}/bank.csv": "made for another backbone",
    "eval -b {t}/wide -a {r}/bank -d {d}/bank.csv --any-backbone": "has shape",
    "eval -b {b} -a {r}/bank -d {d}/bank.csv --labels x,y,z": "3 label names for a head of 2 classes.",
    "predict -b {b} -a {r}/bank -a {r}/air -i {t}/unnamed.jsonl": 'row 1 names no "adapter"; loaded are bank, air, and null',
    "predict -b {b} -a {r}/bank -i {t}/rows.jsonl": "no adapter named 'y' is loaded; loaded are bank",
    "predict -b {b} -a {r}/bank -a bank={r}/air -i {t}/rows.jsonl": "two adapters are called 'bank'",
    "predict -b {b} -a x= -i {t}/rows.jsonl": "expected NAME=DIR or DIR",
    "predict -b {b} -a {r}/bank -i {t}/rows.jsonl --top-k 0": "--top-k must be greater than or equal to 1",
    "embed -b {b} -a {r}/bank -i {t}/rows.jsonl": "no adapter named 'y' is loaded; loaded are bank",
    "train -b {b} -d {d}/bank.csv -o {t}/o --fuse x={r}/none": "none: no such adapter directory",
    "predict -b {b} -a x={r}/bank -i {t}/none.jsonl": "no such file",
    "predict -b {b} -a x={r}/bank -i {t}/rows.jsonl": "no adapter named 'y' is loaded; loaded are x",
    "predict -b {b} -a x={r}/bank -i {t}/nothing.jsonl": 'row 1 has no "text"',
    "predict -b {b} -a x={r}/bank -i {t}/pair.jsonl": "must be a text",
    "predict -b {b} -a x={r}/bank -i {t}/mix.jsonl": "is no adapter: a name, an object of names and weights",
    "predict -b {b} -a x={r}/bank -i {t}/blank.jsonl": "row 1 is empty",
    "predict -b {b} -a x={r}/bank -i {t}/half.jsonl": "half of a surrogate pair",
    "combine -b {b} -a {r}/bank -a {r}/air -o {t}/c --how mean": "combination 'mean' is none of linear, cat",
    "combine -b {b} -a {r}/bank -a {r}/air -w 1 -o {t}/c": "2 adapters but 1 weight",
    "combine -b {b} -a {r}/bank -o {t}/c --head 2": "--head 2: it is the number of none of 1 adapter.",
    "combine -b {b} -a {r}/bank -o {r}/air": "exists already; choose another name or pass --overwrite",
    "train -b {b} -d {d}/bank.csv -o {t}/o --optimizer adamv": "optimizer 'adamv': optax has none of that name",
    "train -b {b} -d {d}/bank.csv -o {t}/o --layer-decay 0": "layer_decay must be a number, above 0",
    "merge -b {b} -a {r}/bank -o {r}": "exists already; choose another name or pass --overwrite",
    "merge -b {b} -a {r}/bank -o {t}/file --overwrite": "is not a directory",
    "merge -b {b} -a {r}/bank -o {t}/m --labels x": "1 label name for a head of 2 classes.",
    "inspect {t}": "no adapter there",
    "inspect {r}": "it has no adapter_config.json; there is one in ",
    "export -b {b} -a {r}/bank -o {t}/o": "Choose from: adapters, graftax. Try graftax export --help.",
    "inspect": "Missing argument",
    "frobnicate": "No such command 'frobnicate'. Try graftax --help.",
    "trian": "Did you mean 'train'? Try graftax --help.",
}


@pytest.fixture
def bad_things(folder: Folder, tmp_path: Path) -> dict[str, Path]:
    files = {
        "bad.toml": "epochs = = 3",
        "unknown.toml": "epoch = 3",
        "type.toml": 'epochs = "many"',
        "table.toml": "[adapters.bunk]\nlr = 1e-2",
        "field.toml": "[adapters.bank]\nfrob = 1",
        "value.toml": '[adapters.bank]\nlr = "fast"',
        "file": "x",
        "labels.csv": "text,label\nplum,herb\nstone,brick\n",
        "rows.jsonl": '{"text": "x", "adapter": "y"}',
        "unnamed.jsonl": '{"text": "x"}',
        "nothing.jsonl": '{"body": "x"}',
        "pair.jsonl": '{"text": "x", "text_pair": 5}',
        "mix.jsonl": '{"text": "x", "adapter": {"x": "half"}}',
        "blank.jsonl": '{"text": " "}',
        "half.jsonl": '{"text": "\\ud800"}',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for name, keep_extra in (("corrupt", True), ("truncated", False)):
        shutil.copytree(folder.run / "bank", tmp_path / name)
        (tmp_path / name / "adapter_model.safetensors").write_bytes(weights_of(folder.run / "bank")[:-100])
        if not keep_extra:
            (tmp_path / name / "graftax.json").unlink()
    write_backbone(tmp_path / "other", seed=8)
    write_backbone(tmp_path / "wide", hidden_size=48)
    return {"b": folder.backbone, "d": folder.data, "r": folder.run, "t": tmp_path}


def test_combine(graftax: Graftax, folder: Folder, tmp_path: Path) -> None:
    """Two adapters become one LoRA with the head that was asked for; and it answers."""
    bank, air, out = folder.run / "bank", folder.run / "air", tmp_path / "both"
    said = graftax("combine", "-b", folder.backbone, "-a", bank, "-a", air, "-w", "1.5", "-w", "-0.5", "--head", "2", "-o", out)
    assert said.code == 0, said
    assert said.out == f"{out}: a LoRA of rank 16\n"
    rows = json.dumps({"text": "a shop sells gold"}) + "\n"
    said = graftax("predict", "-b", folder.backbone, "-a", f"both={out}", "-i", "-", stdin=rows)
    answer = json.loads(said.out)
    (own,) = predictor_of(folder.backbone, out).predict(["a shop sells gold"], "x")
    assert (answer["label"], answer["score"]) == (own.label, pytest.approx(own.score))


@pytest.mark.parametrize("use", BAD_USE)
def test_bad_use_is_one_line(graftax: Graftax, bad_things: dict[str, Path], use: str) -> None:
    """Exit code 2 and one line that says what is wrong; no output directory appears."""
    line = one_line(graftax(*(argument.format(**bad_things) for argument in use.split())))
    assert BAD_USE[use] in line
    assert not (bad_things["t"] / "o").exists()
    assert not (bad_things["t"] / "m").exists()


def test_debug_gives_the_traceback(graftax: Graftax, folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--debug, anywhere, lets the exception through."""
    monkeypatch.setattr(sys, "argv", ["graftax", "inspect", str(tmp_path), "--debug"])
    with pytest.raises(Exception, match="no adapter there"):
        main()


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (OSError(13, "Permission denied", "x"), 2, "graftax: [Errno 13] Permission denied: 'x'"),
        (RuntimeError("odd"), 1, "graftax: unexpected RuntimeError: odd (run again with --debug for the traceback)"),
    ],
)
def test_any_other_exception(
    graftax: Graftax, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, code: int, expected: str
) -> None:
    """The operating system's refusals and our own bugs: one line each."""

    def fail(directory: Path) -> str:
        raise error

    monkeypatch.setattr("graftax.adapters.inspect.describe", fail)
    assert one_line(graftax("inspect", tmp_path), code) == expected


def test_no_arguments_show_the_help(graftax: Graftax) -> None:
    """The command alone teaches."""
    said = graftax()
    assert (said.code, said.err) == (2, "") or (said.code, said.out) == (2, "")
    assert "graftax demo" in said.out + said.err


def test_stdin_that_is_no_text(folder: Folder) -> None:
    """Bytes that are not UTF-8 on standard input."""
    command = command_line("predict", "-b", folder.backbone, "-a", f"x={folder.run / 'bank'}", "-i", "-")
    done = subprocess.run(command, input=b'{"text": "\xe9"}\n', capture_output=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
