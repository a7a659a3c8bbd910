"""Embed all windows and queries once with the bi-encoder, and find for each query the windows that it ranks highest.

Writes `world.pkl` (the sampled `World`), `windows.npy` and `queries.npy` (unit embeddings, fp16) and `mined.npy` (per
query, places of windows of its own collection, best first, none of a document that is relevant to it) into `--cache`.
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path

import numpy as np
import torch
from texts import Lexical
from tokenizers import Tokenizer
from transformers import AutoModel
from world import World, build

TEMPERATURE = 0.04  # of cosines, which then are logits
MINED = 24
_MINING_SHARE = 4.0  # weight of BM25 in what is mined; not in what is taught


def embed(texts: list[str], base: Path, max_tokens: int = 256, tokens_a_batch: int = 8192) -> np.ndarray:
    """Unit embeddings of `texts`, in order, as fp16, computed in bf16."""
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


def mine(world: World, queries: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """For each query the windows of its collection that cosine and BM25 rank highest, [queries, MINED] int32."""
    out = np.zeros((len(world.queries), MINED), np.int32)
    owner = np.array(world.owner)
    of_scifact = np.array([world.documents[place].scifact for place in owner])
    asks_scifact = np.array([world.documents[query.document].scifact for query in world.queries])
    for scifact in (False, True):
        places = np.flatnonzero(of_scifact == scifact)
        owners = owner[places]
        lexical = Lexical([world.windows[place] for place in places])
        vectors = torch.from_numpy(windows[places]).bfloat16()
        chosen = np.flatnonzero(asks_scifact == scifact)
        for at in range(0, len(chosen), 256):
            part = chosen[at : at + 256]
            cosine = (torch.from_numpy(queries[part]).bfloat16() @ vectors.T).float().numpy()
            share = lexical.queries([world.queries[query].text for query in part]) @ lexical.matrix.T
            score = cosine / TEMPERATURE + _MINING_SHARE * share.toarray()
            for row, query in enumerate(part):
                for document in world.queries[query].relevant:
                    first, last = np.searchsorted(owners, [document, document + 1])
                    score[row, first:last] = -np.inf
            top = np.argpartition(-score, MINED, axis=1)[:, :MINED]
            ranked = np.take_along_axis(top, np.argsort(-np.take_along_axis(score, top, 1), 1), 1)
            out[part] = places[ranked]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--squad", type=Path, required=True, help="train-v1.1.json")
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact folder in BEIR's layout")
    parser.add_argument("--base", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--paragraphs", type=int, default=40, help="at most so many of each SQuAD article")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.cache.mkdir(parents=True, exist_ok=True)
    world = build(args.squad, args.scifact, args.paragraphs, args.seed)
    with (args.cache / "world.pkl").open("wb") as handle:
        pickle.dump(world, handle)
    print(f"{len(world.documents)} documents, {len(world.windows)} windows, {len(world.queries)} queries", flush=True)
    queries = embed([query.text for query in world.queries], args.base, 96)
    np.save(args.cache / "queries.npy", queries)
    windows = embed(world.windows, args.base)
    np.save(args.cache / "windows.npy", windows)
    np.save(args.cache / "mined.npy", mine(world, queries, windows))


if __name__ == "__main__":
    main()
