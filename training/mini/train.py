"""Train `mini`: a student cut from the bi-encoder learns the hybrid teacher's order and the labels.

Needs the folder that `teacher.py` wrote. The schedule follows the clock: progress is elapsed time over
`--minutes`, so a run always ends on time. Every `--every` minutes the averaged weights are evaluated on
held-out training articles and claims and written to `--out`.
"""

from __future__ import annotations

import argparse
import pickle
import queue
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import export
import numpy as np
import torch
from data import CLAIM, KEYWORDS, QUESTION, SENTENCE, TITLE, Lexical, World
from student import cut, fast_logits
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

TEMPERATURE = 0.04
LEXICAL_WEIGHT = 7.0
MIDDLE = 13.0
MICRO_TOKENS = 3072


@dataclass
class Group:
    """One query with its candidates: ids of each pair, teacher logits, and whether item 0 is a label."""

    pairs: list[np.ndarray]
    query_length: int
    teacher: np.ndarray
    labelled: bool


class Sampler:
    """Draws groups from the cache; `long_share` is the chance of whole documents instead of windows."""

    def __init__(self, cache: Path, tokenizer: Tokenizer, seed: int, scifact_share: float) -> None:
        with (cache / "world.pkl").open("rb") as handle:
            self.world: World = pickle.load(handle)
        world = self.world
        self.queries = np.load(cache / "queries.npy").astype(np.float32)
        self.passages = np.load(cache / "passages.npy").astype(np.float32)
        self.mined = np.load(cache / "mined.npy")
        self.rng = random.Random(seed)
        self.scifact_share = scifact_share
        lexical = Lexical([world.passage_text(i) for i in range(len(world.passages))])
        self.terms = lexical.matrix
        self.query_terms = lexical.queries(world.queries)
        self.special = {s: tokenizer.token_to_id(s) for s in ("[CLS]", "[SEP]")}
        self.sent_ids = self._encode(tokenizer, world.sents)
        self.query_ids = self._encode(tokenizer, world.queries)
        self.held = np.array(world.doc_held)
        self.by_article: dict[int, list[int]] = {}
        for doc, article in enumerate(world.doc_article):
            self.by_article.setdefault(article, []).append(doc)
        self.docs = [
            [d for d in range(len(self.held)) if not self.held[d] and world.doc_scifact[d] == flag]
            for flag in (False, True)
        ]
        self.pools: list[dict[int, list[int]]] = [{}, {}]
        for query, kind in enumerate(world.q_kind):
            if not world.q_held[query]:
                self.pools[world.doc_scifact[world.q_doc[query]]].setdefault(kind, []).append(query)
        self.weights = ({0: 0.5, 1: 0.25, 2: 0.15, 5: 0.1}, {2: 0.3, 3: 0.3, 4: 0.28, 5: 0.12})

    @staticmethod
    def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
        return [
            np.array(e.ids, np.int32)
            for at in range(0, len(texts), 10000)
            for e in tokenizer.encode_batch(texts[at : at + 10000], add_special_tokens=False)
        ]

    def pair(self, query: int, passage: int, cap: int) -> np.ndarray:
        q = self.query_ids[query][:96]
        _, first, last = self.world.passages[passage]
        body = np.concatenate(self.sent_ids[first:last])[: cap - 3 - len(q)]
        sep = [self.special["[SEP]"]]
        return np.concatenate([[self.special["[CLS]"]], q, sep, body, sep]).astype(np.int64)

    def score(self, query: int, items: list[int]) -> np.ndarray:
        """Teacher logits: mean of whole and best-window cosine over the temperature, plus the BM25 share."""
        vector = self.queries[query]
        whole = self.passages[items] @ vector
        best = whole.copy()
        documents = len(self.world.doc_windows)
        for place, item in enumerate(items):
            if item < documents:
                best[place] = max(best[place], (self.passages[self.world.doc_windows[item]] @ vector).max())
        share = (self.query_terms[query] @ self.terms[items].T).toarray()[0]
        return (whole + best) / 2 / TEMPERATURE + LEXICAL_WEIGHT * share

    def _window(self, doc: int, query: int) -> int:
        windows = self.world.doc_windows[doc]
        if self.rng.random() < 0.5:
            return self.rng.choice(windows)
        return windows[int((self.passages[windows] @ self.queries[query]).argmax())]

    def _positive(self, query: int, long: bool) -> tuple[int, bool]:
        world, doc, sent = self.world, self.world.q_doc[query], self.world.q_sent[query]
        kind = world.q_kind[query]
        if long:
            if kind == TITLE:
                return world.doc_untitled[doc], True
            return doc, kind in (QUESTION, KEYWORDS, CLAIM)
        windows = world.doc_windows[doc]
        if kind in (CLAIM, TITLE):
            return windows[int((self.passages[windows] @ self.queries[query]).argmax())], False
        inside = [w for w in windows if world.passages[w][1] <= sent < world.passages[w][2]]
        outside = [w for w in windows if w not in inside]
        if not inside or (kind == SENTENCE and outside and self.rng.random() < 0.5):
            return self.rng.choice(outside or windows), False
        return inside[0], kind in (QUESTION, KEYWORDS)

    def group(self, long_share: float, cap: int) -> Group:
        """One query with eight windows or seven whole documents, the source's own first."""
        rng, world = self.rng, self.world
        scifact = rng.random() < self.scifact_share
        weights = self.weights[scifact]
        kind = rng.choices(list(weights), list(weights.values()))[0]
        query = rng.choice(self.pools[scifact][kind])
        long = rng.random() < long_share
        size = 7 if long else 8
        doc = world.q_doc[query]
        first, labelled = self._positive(query, long)
        chosen = [first]
        banned = {doc, *world.q_others.get(query, ())}
        if not long:
            own = [w for w in world.doc_windows[doc] if w != first]
            chosen += rng.sample(own, min(2, len(own)))
        near = [d for d in self.by_article[world.doc_article[doc]] if d not in banned]
        docs = rng.sample(near, min(len(near), 2 if long else 1))
        docs.append(rng.choice(self.docs[scifact]))
        mined = [int(d) for d in self.mined[query] if not self.held[d] and d not in banned]
        mined += [d for d in world.q_run.get(query, [])[:30] if d not in banned]
        while len(chosen) + len(docs) < size:
            pick = mined or self.docs[scifact]
            docs.append(pick[int(len(pick) * rng.random() ** 1.5)])
        for other in dict.fromkeys(docs):
            if other not in banned:
                untitled = long and kind == TITLE
                chosen.append(world.doc_untitled[other] if untitled else other if long else self._window(other, query))
        pairs = [self.pair(query, item, cap) for item in chosen]
        return Group(pairs, 2 + len(self.query_ids[query][:96]), self.score(query, chosen), labelled)

    def step(self, tokens: int, long_share: float, cap: int) -> list[Group]:
        out, total = [], 0
        while total < tokens:
            out.append(self.group(long_share, cap))
            total += sum(len(p) for p in out[-1].pairs)
        return out


def batch(rows: list[np.ndarray], query_lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids, token types and lengths."""
    width = max(len(r) for r in rows)
    ids = np.zeros((len(rows), width), np.int64)
    types = np.zeros((len(rows), width), np.int64)
    for place, (row, split) in enumerate(zip(rows, query_lengths, strict=True)):
        ids[place, : len(row)] = row
        types[place, split : len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(types), torch.tensor([len(r) for r in rows])


def score_rows(model: torch.nn.Module, rows: list[np.ndarray], query_lengths: list[int]) -> Tensor:
    """Logits of all rows in order, computed in micro-batches of similar length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts, at = [], 0
    while at < len(order):
        end = at + 1
        while end < len(order) and len(rows[order[end]]) * (end + 1 - at) <= MICRO_TOKENS:
            end += 1
        some = order[at:end]
        parts.append(fast_logits(model, *batch([rows[i] for i in some], [query_lengths[i] for i in some])))
        at = end
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back]


def loss_of(model: torch.nn.Module, groups: list[Group], label_weight: float) -> Tensor:
    """KL to the teacher within each group, cross-entropy on labels, and a light pointwise anchor."""
    rows = [p for g in groups for p in g.pairs]
    logits = score_rows(model, rows, [g.query_length for g in groups for _ in g.pairs])
    losses, at = [], 0
    for group in groups:
        part = logits[at : at + len(group.pairs)]
        at += len(group.pairs)
        teacher = torch.from_numpy(group.teacher).float()
        log_p = functional.log_softmax(part, 0)
        loss = functional.kl_div(log_p, functional.log_softmax(teacher, 0), reduction="sum", log_target=True)
        anchor = torch.sigmoid(teacher - MIDDLE)
        if group.labelled:
            loss = loss - label_weight * log_p[0]
            anchor[0] = anchor[0].clamp(min=0.9)
        losses.append(loss + 0.1 * functional.binary_cross_entropy_with_logits(part, anchor))
    return torch.stack(losses).mean()


@torch.inference_mode()
def held_out(model: torch.nn.Module, sampler: Sampler, questions: int = 150, claims: int = 40) -> dict[str, float]:
    """MRR@10 on held SQuAD articles (20 best of BM25) and nDCG@10 on held claims (30 best of BM25)."""
    world, out = sampler.world, {}
    asked = [q for q, k in enumerate(world.q_kind) if world.q_held[q] and k == QUESTION]
    asked = asked[:: max(1, len(asked) // questions)]
    docs = np.flatnonzero(sampler.held)
    lexical = (sampler.query_terms[asked] @ sampler.terms[docs].T).toarray()
    lists = {"squad": [(q, docs[np.argsort(-lexical[n])[:20]]) for n, q in enumerate(asked)]}
    judged = [q for q, k in enumerate(world.q_kind) if world.q_held[q] and k == CLAIM][:claims]
    lists["claims"] = [(q, np.array(world.q_run[q][:30])) for q in judged]
    for name, runs in lists.items():
        rows = [sampler.pair(q, int(d), 512) for q, found in runs for d in found]
        splits = [2 + len(sampler.query_ids[q][:96]) for q, found in runs for _ in found]
        logits, at = score_rows(model, rows, splits).numpy(), 0
        for kind in ("bm25", "model"):
            at, total = 0, 0.0
            for q, found in runs:
                good = np.isin(found, world.q_others.get(q, [world.q_doc[q]]))
                order = np.arange(len(found)) if kind == "bm25" else np.argsort(-logits[at : at + len(found)])
                at += len(found)
                hits = good[order][:10]
                gain = 1 / np.log2(np.arange(10) + 2)
                if name == "squad":
                    total += 1 / (1 + hits.argmax()) if hits.any() else 0
                else:
                    ideal = gain[: len(world.q_others[q])].sum()
                    total += (hits * gain[: len(hits)]).sum() / ideal
            out[f"{name}_{kind}"] = round(float(total) / len(runs), 4)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="go on from this folder instead of cutting the base")
    parser.add_argument("--long-share", type=float, help="fixed share of whole documents, cap 512")
    parser.add_argument("--minutes", type=float, default=85)
    parser.add_argument("--every", type=float, default=10)
    parser.add_argument("--layers", default="0,1,3,5")
    parser.add_argument("--neurons", type=int, default=1024)
    parser.add_argument("--pieces", type=int, default=9800)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--word-lr", type=float, default=0.1, help="share of --lr for word embeddings")
    parser.add_argument("--tokens", type=int, default=6000, help="least tokens a step")
    parser.add_argument("--scifact-share", type=float, default=0.2)
    parser.add_argument("--label-weight", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    began = time.time()
    with (args.cache / "world.pkl").open("rb") as handle:
        world: World = pickle.load(handle)
    seen = [d for d, held in enumerate(world.doc_held) if not held]
    texts = [[world.passage_text(d) for d in seen if world.doc_scifact[d] == flag] for flag in (False, True)]
    layers = [int(n) for n in args.layers.split(",")]
    if args.start:
        model = AutoModelForSequenceClassification.from_pretrained(args.start, dtype=torch.float32)
        tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
    else:
        model, tokenizer = cut(args.base, layers, args.neurons, args.pieces, texts)
    sampler = Sampler(args.cache, tokenizer, args.seed, args.scifact_share)
    model.train()
    word = model.bert.embeddings.word_embeddings.weight
    decayed = [p for p in model.parameters() if p is not word and p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.01, "share": 1.0},
            {"params": plain, "weight_decay": 0.0, "share": 1.0},
            {"params": [word], "weight_decay": 0.0, "share": args.word_lr},
        ],
        lr=args.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    weights = list(model.parameters())
    mean = [w.detach().clone() for w in weights]
    print(f"ready after {time.time() - began:.0f} s", flush=True)

    budget, start = args.minutes * 60, time.time()
    ready: queue.Queue[list[Group]] = queue.Queue(4)
    over = threading.Event()

    def fill() -> None:
        while not over.is_set():
            done = (time.time() - start) / budget
            long_share = args.long_share or (0.25 if done < 0.55 else 0.45 if done < 0.8 else 0.8)
            late = args.long_share or done >= 0.8
            groups = sampler.step(args.tokens, long_share, 512 if late else 320)
            while not over.is_set():
                try:
                    ready.put(groups, timeout=1)
                    break
                except queue.Full:
                    continue

    def report(step: int, pairs: int) -> None:
        now = [w.detach().clone() for w in weights]
        with torch.no_grad():
            torch._foreach_copy_(weights, mean)
        figures = held_out(model, sampler)
        size = export.save(model.state_dict(), model.config.to_dict(), tokenizer, args.out)
        with torch.no_grad():
            torch._foreach_copy_(weights, now)
        spent = (time.time() - start) / 60
        print(f"{spent:.1f} min, step {step}, {pairs} pairs, {size} bytes: {figures}", flush=True)

    threading.Thread(target=fill, daemon=True).start()
    step = pairs = tokens = 0
    last_report, last_print, running = start, start, 0.0
    while (done := (time.time() - start) / budget) < 1:
        groups = ready.get()
        rate = args.lr * min(done / 0.03 + 1e-3, 1.0, (1 - done) / 0.9 + 1e-3)
        for entry in optimizer.param_groups:
            entry["lr"] = rate * entry["share"]
        loss = loss_of(model, groups, args.label_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
        optimizer.step()
        step += 1
        pairs += sum(len(g.pairs) for g in groups)
        tokens += sum(len(p) for g in groups for p in g.pairs)
        with torch.no_grad():
            torch._foreach_lerp_(mean, weights, 1 - min(0.995, step / (step + 20)))
        running += 0.02 * (loss.item() - running) if step > 1 else loss.item()
        if time.time() - last_print > 30:
            last_print = time.time()
            spent = last_print - start
            print(
                f"{spent / 60:.1f} min, step {step}, loss {running:.4f}, {pairs} pairs, "
                f"{tokens / spent:.0f} tokens/s, {ready.qsize()} ready",
                flush=True,
            )
        if time.time() - last_report > args.every * 60:
            report(step, pairs)
            last_report = time.time()
    over.set()
    report(step, pairs)


if __name__ == "__main__":
    main()
