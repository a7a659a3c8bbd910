"""Texts, queries and negatives for training `mini`, from SQuAD train and SciFact train only.

`build` turns the two collections into one `World`: sentences, passages (spans of sentences of one document,
whole documents first) and queries of several kinds. `mine` adds, for every query, the documents that a
mix of BM25 and teacher cosine ranks highest. Nothing here reads SQuAD dev or the SciFact test split.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import sparse

QUESTION, KEYWORDS, SENTENCE, TITLE, CLAIM, RARE = range(6)
KIND_NAMES = ("question", "keywords", "sentence", "title", "claim", "rare")
HELD_ARTICLES = 20
HELD_CLAIM_MODULUS = 8

_SPLIT = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z0-9\"'(\[])")
_WORD = re.compile(r"[a-z0-9]+")
_STOP_TEXT = """
a an and are as at be been by can could did do does for from had has have he her his how i if in into is it
its many may more most much not of on or s she should so some such than that the their them then there these
they this those to was we were what when where which while who whom whose why will with would you
"""
STOP = frozenset(_STOP_TEXT.split())


def words(text: str) -> list[str]:
    """Lower-cased words with a plural `s` dropped: the terms of every lexical score here."""
    found = _WORD.findall(text.lower())
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in found]


def sentences(text: str) -> list[str]:
    """Split into sentences; pieces under four words join the one before."""
    out: list[str] = []
    for piece in _SPLIT.split(text.strip()):
        piece = piece.strip()
        if not piece:
            continue
        if out and (len(piece.split()) < 4 or len(out[-1].split()) < 4):
            out[-1] = f"{out[-1]} {piece}"
        else:
            out.append(piece)
    return out


def keywords(question: str) -> str:
    """A question as one would type it into a search box."""
    kept = [w for w in re.findall(r"[\w'-]+", question) if w.lower() not in STOP]
    return " ".join(kept) if kept else question


@dataclass
class World:
    """Everything to sample from. Passage i < number of documents is document i as a whole."""

    sents: list[str] = field(default_factory=list)
    doc_first: list[int] = field(default_factory=list)
    doc_last: list[int] = field(default_factory=list)
    doc_article: list[int] = field(default_factory=list)
    doc_held: list[bool] = field(default_factory=list)
    doc_scifact: list[bool] = field(default_factory=list)
    doc_ids: list[str] = field(default_factory=list)
    passages: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    doc_windows: list[list[int]] = field(default_factory=list)
    doc_untitled: list[int] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    q_doc: list[int] = field(default_factory=list)
    q_sent: list[int] = field(default_factory=list)
    q_kind: list[int] = field(default_factory=list)
    q_held: list[bool] = field(default_factory=list)
    q_others: dict[int, list[int]] = field(default_factory=dict)
    q_run: dict[int, list[int]] = field(default_factory=dict)
    claim_of: dict[int, str] = field(default_factory=dict)

    def passage_text(self, passage: int) -> str:
        _, first, last = self.passages[passage]
        return " ".join(self.sents[first:last])

    def add_doc(self, sents: list[str], article: int, held: bool, scifact: bool, doc_id: str) -> int:
        self.doc_first.append(len(self.sents))
        self.sents.extend(sents)
        self.doc_last.append(len(self.sents))
        self.doc_article.append(article)
        self.doc_held.append(held)
        self.doc_scifact.append(scifact)
        self.doc_ids.append(doc_id)
        return len(self.doc_first) - 1

    def add_query(self, text: str, doc: int, sent: int, kind: int, held: bool = False) -> int:
        self.queries.append(text)
        self.q_doc.append(doc)
        self.q_sent.append(sent)
        self.q_kind.append(kind)
        self.q_held.append(held)
        return len(self.queries) - 1


def _add_squad(world: World, path: Path, rng: random.Random) -> None:
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    for number, article in enumerate(articles):
        held = number >= len(articles) - HELD_ARTICLES
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            doc = world.add_doc(sentences(context), number, held, False, f"{number}")
            first, ends, at = world.doc_first[doc], [], 0
            for sent in world.sents[first:]:
                at = context.find(sent[-20:], at) + len(sent[-20:])
                ends.append(at)
            for qa in paragraph["qas"]:
                start = qa["answers"][0]["answer_start"]
                sent = first + next((i for i, end in enumerate(ends) if end > start), len(ends) - 1)
                question = qa["question"].strip()
                world.add_query(question, doc, sent, QUESTION, held)
                if not held and rng.random() < 0.3:
                    world.add_query(keywords(question), doc, sent, KEYWORDS)


def _add_scifact(world: World, folder: Path) -> None:
    by_id: dict[str, int] = {}
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            title = row["title"].strip()
            by_id[row["_id"]] = doc = world.add_doc(
                [title, *sentences(row["text"])], -1 - len(by_id), False, True, row["_id"]
            )
            world.add_query(title.rstrip("."), doc, world.doc_first[doc], TITLE)
    claims = {}
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            claims[row["_id"]] = row["text"]
    positives: dict[str, list[int]] = {}
    for line in (folder / "qrels" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query_id, doc_id, grade = line.split("\t")
        if int(grade) > 0:
            positives.setdefault(query_id, []).append(by_id[doc_id])
    run: dict[str, list[int]] = {}
    for line in (folder / "run.bm25.train.top100.trec").read_text(encoding="utf-8").splitlines():
        query_id, _, doc_id, *_ = line.split()
        run.setdefault(query_id, []).append(by_id[doc_id])
    for number, (query_id, docs) in enumerate(sorted(positives.items(), key=lambda kv: int(kv[0]))):
        held = number % HELD_CLAIM_MODULUS == 0
        for doc in docs[:1] if held else docs:
            query = world.add_query(claims[query_id], doc, -1, CLAIM, held)
            world.q_others[query] = docs
            world.q_run[query] = run.get(query_id, [])
            world.claim_of[query] = query_id


def build(squad: Path, scifact: Path, seed: int = 13) -> World:
    """Read both collections; whole documents, a random partition into windows, and queries of each kind."""
    rng = random.Random(seed)
    world = World()
    _add_squad(world, squad, rng)
    _add_scifact(world, scifact)
    docs = range(len(world.doc_first))
    spans = [(doc, world.doc_first[doc], world.doc_last[doc]) for doc in docs]
    for doc in docs:
        first, last = world.doc_first[doc], world.doc_last[doc]
        mine: list[int] = []
        at = first + int(world.doc_scifact[doc])
        if world.doc_scifact[doc] and last > at:
            world.doc_untitled.append(len(spans))
            spans.append((doc, at, last))
        else:
            world.doc_untitled.append(doc)
        while at < last:
            end = min(last, at + rng.choice((1, 1, 2, 2, 3)))
            mine.append(len(spans))
            spans.append((doc, at, end))
            at = end
        world.doc_windows.append(mine or [doc])
    world.passages = np.array(spans, np.int64)
    common = Counter(w for sent in world.sents for w in set(words(sent)))
    for doc in docs:
        if world.doc_held[doc]:
            continue
        first, last = world.doc_first[doc], world.doc_last[doc]
        for _ in range(2 if world.doc_scifact[doc] else 1):
            sent = rng.randrange(first, last)
            text = world.sents[sent]
            if 5 <= len(text.split()) <= 60:
                world.add_query(text, doc, sent, SENTENCE)
        sent = rng.randrange(first, last)
        found = set(re.findall(r"\w[\w-]+", world.sents[sent]))
        rarest = sorted(sorted(found), key=lambda w: common[w.lower().rstrip("s")])
        rarest = [w for w in rarest if w.lower() not in STOP][:8]
        if len(rarest) >= 3:
            count = rng.choice((2, 3, 3, 4)) if len(rarest) > 3 else 2
            world.add_query(" ".join(rng.sample(rarest, count)), doc, sent, RARE)
    return world


class Lexical:
    """BM25 weights of terms in texts; `score` is a text's BM25 over the query's idf sum, in about 0..2."""

    def __init__(self, texts: list[str], k1: float = 1.2, b: float = 0.75) -> None:
        self.k1, self.b = k1, b
        self.ids: dict[str, int] = {}
        rows = [Counter(words(text)) for text in texts]
        df: Counter[str] = Counter()
        for row in rows:
            df.update(row.keys())
        self.ids = {term: number for number, term in enumerate(df)}
        total = len(texts)
        self.idf = {term: float(np.log(1 + (total - n + 0.5) / (n + 0.5))) for term, n in df.items()}
        self.unseen = float(np.log(1 + (total + 0.5) / 0.5))
        lengths = np.array([max(1, sum(row.values())) for row in rows])
        self.mean = float(lengths.mean())
        data, cols, ptr = [], [], [0]
        for row, length in zip(rows, lengths, strict=True):
            norm = k1 * (1 - b + b * length / self.mean)
            for term, tf in row.items():
                cols.append(self.ids[term])
                data.append(self.idf[term] * tf * (k1 + 1) / (tf + norm))
            ptr.append(len(cols))
        self.matrix = sparse.csr_matrix(
            (np.array(data, np.float32), np.array(cols, np.int32), np.array(ptr, np.int64)),
            shape=(total, len(self.ids)),
        )

    def idf_of(self, term: str) -> float:
        return self.idf.get(term, self.unseen)

    def queries(self, texts: list[str]) -> sparse.csr_matrix:
        """One row a query: 1/(idf sum) at each of its terms."""
        data, cols, ptr = [], [], [0]
        for text in texts:
            terms = set(words(text))
            share = 1.0 / max(1e-6, sum(self.idf_of(t) for t in terms))
            for term in terms:
                if term in self.ids:
                    cols.append(self.ids[term])
                    data.append(share)
            ptr.append(len(cols))
        return sparse.csr_matrix(
            (np.array(data, np.float32), np.array(cols, np.int32), np.array(ptr, np.int64)),
            shape=(len(texts), len(self.ids)),
        )
