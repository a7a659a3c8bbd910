"""The teacher: the bi-encoder's cosine plus a BM25 share, both computed once before training.

`embed` gives unit mean-pooled embeddings in bfloat16 arithmetic; `python teacher.py --squad … --scifact …
--base … --cache …` writes `world.pkl` (the sampled `World`), `passages.npy` and `queries.npy` (embeddings)
and `mined.npy` (per query, the documents that the mix ranks highest, its own left out).
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from data import Lexical, World, build
from tokenizers import Tokenizer
from transformers import AutoModel

TEMPERATURE = 0.04
LEXICAL_WEIGHT = 6.0
MINED = 32


def embed(texts: list[str], base: Path, max_tokens: int = 256, tokens_a_batch: int = 8192) -> np.ndarray:
    """Unit embeddings of `texts`, in order, as float16."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    model = AutoModel.from_pretrained(base, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    out = np.zeros((len(ids), model.config.hidden_size), np.float16)
    start, at, said = time.time(), 0, time.time()
    with torch.inference_mode():
        while at < len(order):
            end = at + 1
            while end < len(order) and len(ids[order[end]]) * (end + 1 - at) <= tokens_a_batch:
                end += 1
            batch = order[at:end]
            width = len(ids[batch[-1]])
            rows = torch.zeros(len(batch), width, dtype=torch.long)
            mask = torch.zeros(len(batch), width, dtype=torch.long)
            for row, item in enumerate(batch):
                rows[row, : len(ids[item])] = torch.tensor(ids[item])
                mask[row, : len(ids[item])] = 1
            hidden = model(input_ids=rows, attention_mask=mask).last_hidden_state.float()
            pooled = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            out[batch] = torch.nn.functional.normalize(pooled, dim=-1).half().numpy()
            at = end
            if time.time() - said > 20:
                said = time.time()
                print(f"  {at}/{len(order)} texts, width {width}, {said - start:.0f} s", flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--squad", type=Path, required=True, help="train-v1.1.json")
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact folder in BEIR's layout")
    parser.add_argument("--base", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.cache.mkdir(parents=True, exist_ok=True)
    world = build(args.squad, args.scifact)
    with (args.cache / "world.pkl").open("wb") as handle:
        pickle.dump(world, handle)
    print(f"{len(world.doc_first)} documents, {len(world.passages)} passages, {len(world.queries)} queries")
    queries = embed(world.queries, args.base, 96)
    np.save(args.cache / "queries.npy", queries)
    passages = embed([world.passage_text(i) for i in range(len(world.passages))], args.base)
    np.save(args.cache / "passages.npy", passages)
    np.save(args.cache / "mined.npy", mine(world, queries, passages))


def mine(world: World, queries: np.ndarray, passages: np.ndarray) -> np.ndarray:
    """For every query the `MINED` documents of its own collection that the mix ranks highest, best first."""
    out = np.zeros((len(world.queries), MINED), np.int32)
    flags = np.array(world.doc_scifact)
    q_doc = np.array(world.q_doc)
    for scifact in (False, True):
        docs = np.flatnonzero(flags == scifact)
        place = np.full(len(flags), -1)
        place[docs] = np.arange(len(docs))
        lexical = Lexical([world.passage_text(d) for d in docs])
        chosen = np.flatnonzero(flags[q_doc] == scifact)
        vectors = torch.from_numpy(passages[docs]).bfloat16()
        for at in range(0, len(chosen), 512):
            part = chosen[at : at + 512]
            cosine = (torch.from_numpy(queries[part]).bfloat16() @ vectors.T).float().numpy()
            share = lexical.queries([world.queries[q] for q in part]) @ lexical.matrix.T
            score = cosine / TEMPERATURE + LEXICAL_WEIGHT * share.toarray()
            score[np.arange(len(part)), place[q_doc[part]]] = -1e9
            for row, query in enumerate(part):
                for other in world.q_others.get(int(query), ()):
                    score[row, place[other]] = -1e9
            top = np.argpartition(-score, MINED, axis=1)[:, :MINED]
            ranked = np.take_along_axis(top, np.argsort(-np.take_along_axis(score, top, 1), 1), 1)
            out[part] = docs[ranked]
    return out


if __name__ == "__main__":
    main()
