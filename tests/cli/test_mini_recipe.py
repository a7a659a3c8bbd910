"""The programs of training/mini, from two small collections to weights in fp16, with `rerank train` in between."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shell import TINY, json_lines, rerank, write_lines
from transformers import AutoModelForSequenceClassification

RECIPE = Path(__file__).parents[2] / "training" / "mini"
HELD, SEEN = 20, 6  # articles

pytestmark = pytest.mark.slow


def program(name, *args, code=0):
    """Run one of the programs to its end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, RECIPE / f"{name}.py", *map(str, args)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


def sentence(rng):
    known = ["panda", "bear", "bamboo", "china", "river", "war", "paris", "city", "giant", "school", "music", "water"]
    return "The " + " ".join(rng.choice(known) for _ in range(7)) + "."


@pytest.fixture(scope="module")
def squad(tmp_path_factory):
    rng, data = random.Random(1), []
    for article in range(SEEN + HELD):
        paragraphs = []
        for number in range(4):
            parts = [f"Article {article} has the text {number}.", *(sentence(rng) for _ in range(6))]
            context = " ".join(parts)
            asked = [{"question": f"Which {part[4:-1]}?", "answers": [{"answer_start": context.index(part)}]}
                     for part in parts[:4]]  # fmt: skip
            paragraphs.append({"context": context, "qas": asked})
        data.append({"title": str(article), "paragraphs": paragraphs})
    path = tmp_path_factory.mktemp("squad") / "train.json"
    path.write_text(json.dumps({"data": data}))
    return path


@pytest.fixture(scope="module")
def scifact(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("scifact"), random.Random(2)
    abstracts = [
        {"_id": str(i), "title": f"On {i} and {sentence(rng)}", "text": " ".join(sentence(rng) for _ in range(5))}
        for i in range(40)
    ]
    write_lines(folder / "corpus.jsonl", abstracts)
    write_lines(
        folder / "queries.jsonl", [{"_id": str(i), "text": f"claim {abstracts[i]['title']}"} for i in range(17)]
    )
    (folder / "qrels").mkdir()
    judged = "".join(f"{i}\t{i}\t1\n" for i in range(17))
    (folder / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    rows = [f"{i} Q0 {(i + j * 7) % 40} {j + 1} {10 - j} x\n" for i in range(17) for j in range(10)]
    (folder / "run.bm25.train.top100.trec").write_text("".join(rows))
    return folder


@pytest.fixture(scope="module")
def cache(squad, scifact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    program("teacher", "--squad", squad, "--scifact", scifact, "--base", TINY, "--cache", folder, "--threads", 1)
    return folder


def test_the_recipe_from_the_collections_to_fp16(squad, scifact, cache, tmp_path):
    sources = ["--squad", squad, "--scifact", scifact]
    counts = ["--windows", 30, "--documents", 20]
    program("groups", "--cache", cache, "--out", tmp_path / "groups.jsonl", *counts)
    program("held_out", *sources, "--out", tmp_path / "held", "--queries", 20)
    shape = ["--layers", "0,2", "--neurons", 64, "--pieces", 400]
    program("cut", *sources, "--base", TINY, "--out", tmp_path / "student", *shape)
    held = ["--eval-run", tmp_path / "held" / "run.trec", "--eval-beir", tmp_path / "held", "--eval-every", "4"]
    flags = ["--loss", "distil", "--ce-weight", "0.7", "--freeze", "*word_embeddings*", "--batch-groups", "10"]
    ended = rerank(
        "train", tmp_path / "groups.jsonl", "-m", tmp_path / "student", "-o", tmp_path / "out", *flags, *held
    )
    assert ended.code == 0, ended.err
    assert "20 judged queries" in ended.err
    folders = "out", "mini"
    program("export", "--from", tmp_path / "out", "--to", tmp_path / "mini")
    config = json.loads((tmp_path / "mini" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"], config["vocab_size"]) == (2, 64, 400)
    stored = load_file(tmp_path / "mini" / "model.safetensors")
    words = stored.pop("bert.embeddings.word_embeddings.weight")
    assert words.dtype == torch.float8_e4m3fn
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    by_transformers = AutoModelForSequenceClassification.from_pretrained(tmp_path / "mini", dtype=torch.float32)
    assert torch.equal(by_transformers.bert.embeddings.word_embeddings.weight, words.float())
    asked = json.dumps({"query": "panda", "documents": ["The panda.", "A river."]}).encode() + b"\n"
    answers = [
        rerank("run", "-m", tmp_path / name, "--scores", "raw", "-q", stdin=asked).records[0] for name in folders
    ]
    whole, half = ({r["index"]: r["relevance_score"] for r in answer["results"]} for answer in answers)
    assert half == pytest.approx(whole, abs=0.02)


def test_groups_have_eight_different_passages_of_texts_that_are_not_held_out(cache, tmp_path):
    program("groups", "--cache", cache, "--out", tmp_path / "groups.jsonl", "--windows", 60, "--documents", 40)
    program("groups", "--cache", cache, "--out", tmp_path / "again.jsonl", "--windows", 60, "--documents", 40)
    assert (tmp_path / "groups.jsonl").read_bytes() == (tmp_path / "again.jsonl").read_bytes()
    found = json_lines((tmp_path / "groups.jsonl").read_bytes())
    assert len(found) == 100
    held = [f"Article {article} has" for article in range(SEEN, SEEN + HELD)]
    for record in found:
        passages = record["pos"] + record["neg"]
        assert len(record["pos"]) == len(record["pos_scores"]) == 1
        assert len(record["neg"]) == len(record["neg_scores"]) == 7
        assert len(set(passages)) == 8
        assert not [text for text in passages if any(name in text for name in held)]


def test_the_mean_of_checkpoints(tmp_path):
    program("export", "--from", TINY, "--to", tmp_path / "one")
    state = {name: tensor * 3 for name, tensor in load_file(Path(TINY) / "model.safetensors").items()}
    for file in Path(TINY).iterdir():
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    save_file(state, tmp_path / "other" / "model.safetensors")
    both = ["--from", TINY, "--from", tmp_path / "other"]
    program("export", *both, "--weights", "0.75,0.25", "--shift", "2", "--to", tmp_path / "mean")
    one, mean = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "mean"))
    assert {tensor.dtype for tensor in mean.values()} == {torch.float16}  # these words were never rounded
    for name, tensor in one.items():
        wanted = 1.5 * tensor.float() + (2 if name == "classifier.bias" else 0)
        assert torch.allclose(mean[name].float(), wanted, atol=2e-3, rtol=2e-3), name
    assert "add up to 1" in program("export", *both, "--weights", "1,1", "--to", tmp_path / "no", code=2)
