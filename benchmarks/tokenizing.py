"""What tokenizing costs: against pair by pair, and against the tokenizer alone.

    python benchmarks/tokenizing.py --tokenizer FOLDER --scifact DIR

Two questions. Q queries over the same D documents (a chunk a query, as a job cuts them): how much cheaper are distinct
texts and recent ids than encoding every pair, as cross-encoder libraries do? And SciFact's candidates in one pass,
where nothing repeats but queries: which share of the speed of `encode_batch` alone, on the same distinct texts, has all
of `prepare` (tokenize, fit, deduplicate, plan, pack)? Rounds are interleaved, figures are medians. One JSON line last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from data import read_corpus, scifact_pairs
from tokenizers import Tokenizer

from rerank_cli.engine.rows.prepare import PairTexts, PairTokenizer, prepare
from rerank_cli.models.prompts.pairs import Limits, PairRule
from rerank_cli.models.prompts.tokens import load_tokenizer

LENGTH = 512
ROW = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="a folder with tokenizer.json")
    parser.add_argument("--scifact", required=True, type=Path)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps({"benchmark": "tokenizing", **shared(arguments), **alone(arguments)}))


def reader(folder: str) -> PairTokenizer:
    """As a session makes it; a new one has met no text yet."""
    tokenizer = load_tokenizer(Path(folder))
    rule = PairRule(tokenizer.pair_template())
    return PairTokenizer(tokenizer, rule, Limits(LENGTH, LENGTH * 3 // 4, LENGTH - rule.template.specials))


def plain(folder: str) -> Tokenizer:
    made = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    made.no_padding()
    return made


def interleaved(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in seconds.items()}


def shared(arguments: argparse.Namespace) -> dict[str, float]:
    corpus = list(read_corpus(arguments.scifact).values())[: arguments.documents]
    documents = [f"{document['title']} {document['text']}" for document in corpus]
    queries = [f"query number {number} asks for something" for number in range(arguments.queries)]

    def ours() -> None:
        fresh = reader(arguments.tokenizer)
        for query in queries:
            prepare(PairTexts([query] * len(documents), documents, [0] * len(documents)), fresh, ROW)

    def pair_by_pair() -> None:
        tokenizer = plain(arguments.tokenizer)
        tokenizer.enable_truncation(LENGTH, strategy="only_second")
        for query in queries:
            tokenizer.encode_batch_fast([(query, document) for document in documents])

    found = interleaved({"ours": ours, "pair_by_pair": pair_by_pair}, arguments.rounds)
    ratio = found["pair_by_pair"] / found["ours"]
    print(f"{len(queries)} queries over the same {len(documents)} documents")
    print(f"pair by pair {found['pair_by_pair']:8.2f} s\nours         {found['ours']:8.2f} s, ratio {ratio:.1f}\n")
    return {"pair_by_pair_s": found["pair_by_pair"], "ours_s": found["ours"], "ratio": ratio}


def alone(arguments: argparse.Namespace) -> dict[str, float]:
    pairs = scifact_pairs(arguments.scifact, 40, 100)
    queries, passages = zip(*pairs, strict=True)
    texts = list(dict.fromkeys([*queries, *passages]))

    def ours() -> None:
        prepare(PairTexts(queries, passages, [0] * len(pairs)), reader(arguments.tokenizer), ROW)

    def encode_batch() -> None:
        plain(arguments.tokenizer).encode_batch(texts, add_special_tokens=False)

    found = interleaved({"ours": ours, "encode_batch": encode_batch}, arguments.rounds)
    share = found["encode_batch"] / found["ours"]
    print(f"{len(pairs):,} pairs, {len(texts):,} distinct texts")
    print(f"encode_batch {found['encode_batch']:8.2f} s\nall of prepare {found['ours']:6.2f} s, share {share:.2f}\n")
    return {"encode_batch_s": found["encode_batch"], "prepare_s": found["ours"], "share": share}


if __name__ == "__main__":
    main()
