"""The built-in model, as other libraries read its folder: word embeddings in float8, everything else in fp16."""

from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rerank_cli import Reranker

ROOT = Path(__file__).parents[2]
MINI = ROOT / "rerank_cli" / "checkpoints" / "mini"
WORDS = "bert.embeddings.word_embeddings.weight"


def sample_pairs():
    lines = (ROOT / "sample_data" / "scifact.jsonl").read_bytes().splitlines()
    records = [orjson.loads(line) for line in lines[:2]]
    return [(record["query"], document["text"]) for record in records for document in record["documents"][:6]]


def test_it_is_stored_in_fp16_and_its_word_embeddings_in_float8():
    stored = load_file(MINI / "model.safetensors")
    assert stored.pop(WORDS).dtype == torch.float8_e4m3fn
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_its_scores_are_those_of_stock_transformers(dtype):
    pairs = sample_pairs()
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    model = AutoModelForSequenceClassification.from_pretrained(MINI, dtype=torch.float32).eval()
    inputs = tokenizer(pairs, padding=True, truncation="only_second", max_length=512, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits[:, 0].tolist()
    with Reranker("mini", device="cpu", dtype=dtype) as reranker:
        found = reranker.score(pairs, scores="raw")
    assert found == pytest.approx(expected, abs=2e-5 if dtype == "fp32" else 0.06)
