"""Draw groups from the teacher's cache and write them as `rerank train` reads them: JSON lines with teacher scores.

A group is a query with eight passages, its own first: windows of one to three sentences, or whole documents. The
teacher's score of a window is its cosine over 0.04; of a document it is that of its best window, plus `--lexical` times
its BM25 share.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from teacher import TEMPERATURE
from texts import Lexical
from world import CLAIM, KEYWORDS, QUESTION, RARE, SENTENCE, TITLE, Query, World

SIZE = 8
_OWN = 2  # other windows of the document that a query belongs to
# How often a query of each kind is drawn, by collection (SciFact or not) and by what is ranked.
_SHARES = {
    ("windows", False): {QUESTION: 0.35, KEYWORDS: 0.4, SENTENCE: 0.08, RARE: 0.17},
    ("windows", True): {TITLE: 0.4, SENTENCE: 0.1, RARE: 0.35, CLAIM: 0.15},
    ("documents", False): {QUESTION: 0.6, KEYWORDS: 0.4},
    ("documents", True): {TITLE: 0.4, SENTENCE: 0.1, RARE: 0.1, CLAIM: 0.4},
}


class Drawer:
    """Draws groups; the same seed and cache give the same ones."""

    def __init__(self, cache: Path, seed: int, lexical: float) -> None:
        with (cache / "world.pkl").open("rb") as handle:
            self.world: World = pickle.load(handle)
        world = self.world
        self.queries = np.load(cache / "queries.npy").astype(np.float32)
        self.windows = np.load(cache / "windows.npy").astype(np.float32)
        self.mined = np.load(cache / "mined.npy")
        self.rng = random.Random(seed)
        self.lexical = lexical
        bodies = [self.body(place) for place in range(len(world.documents))]
        self.terms = {True: Lexical(bodies), False: Lexical([document.text for document in world.documents])}
        self.places = {
            scifact: [place for place, document in enumerate(world.documents) if document.scifact == scifact]
            for scifact in (False, True)
        }
        self.pools: dict[tuple[bool, str], list[int]] = {}
        for number, query in enumerate(world.queries):
            key = world.documents[query.document].scifact, query.kind
            self.pools.setdefault(key, []).append(number)

    def body(self, document: int) -> str:
        """A document without its title."""
        return " ".join(self.world.windows[place] for place in self.world.documents[document].windows)

    def draw(self, what: str, scifact: bool) -> dict:
        """A group of `windows` or `documents` as a record."""
        shares = _SHARES[what, scifact]
        kind = self.rng.choices(list(shares), list(shares.values()))[0]
        number = self.rng.choice(self.pools[scifact, kind])
        query = self.world.queries[number]
        passages = self.of_windows(number, query) if what == "windows" else self.of_documents(number, query)
        texts, scores = zip(*passages, strict=True)
        return {
            "query": query.text,
            "pos": texts[:1],
            "neg": texts[1:],
            "pos_scores": scores[:1],
            "neg_scores": scores[1:],
        }

    def of_windows(self, number: int, query: Query) -> Iterator[tuple[str, float]]:
        own = self.world.documents[query.document].windows
        cosines = self.windows[own.start : own.stop] @ self.queries[number]
        first = query.window if query.window is not None else own[int(cosines.argmax())]
        others = [place for place in own if place != first]
        chosen = [first, *self.rng.sample(others, min(_OWN, len(others)))]
        stranger = self.rng.choice(self.places[self.world.documents[query.document].scifact])
        if stranger not in query.relevant:
            chosen.append(self.rng.choice(self.world.documents[stranger].windows))
        mined = [int(place) for place in self.mined[number] if place not in chosen]
        while len(chosen) < SIZE:
            chosen.append(mined.pop(int(len(mined) * self.rng.random() ** 1.5)))
        for place in chosen:
            yield self.world.windows[place], round(float(self.windows[place] @ self.queries[number]) / TEMPERATURE, 3)

    def of_documents(self, number: int, query: Query) -> Iterator[tuple[str, float]]:
        world, rng = self.world, self.rng
        near = [*query.found, *(world.owner[place] for place in self.mined[number])]
        near = [place for place in dict.fromkeys(near) if place not in query.relevant]
        same = self.places[world.documents[query.document].scifact]
        chosen = [query.document]
        while len(chosen) < SIZE:
            last = len(chosen) == SIZE - 1 or not near
            pick = rng.choice(same) if last else near.pop(int(len(near) * rng.random() ** 1.5))
            if pick not in chosen and pick not in query.relevant:
                chosen.append(pick)
        untitled = query.kind == TITLE
        lexical = self.terms[untitled]
        shares = (lexical.queries([query.text]) @ lexical.matrix[chosen].T).toarray()[0]
        for place, share in zip(chosen, shares, strict=True):
            document = world.documents[place]
            own = document.windows
            best = float((self.windows[own.start : own.stop] @ self.queries[number]).max())
            text = self.body(place) if untitled else document.text
            yield text, round(best / TEMPERATURE + self.lexical * float(share), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder that teacher.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--windows", type=int, default=54_000, help="groups of windows")
    parser.add_argument("--documents", type=int, default=4_200, help="groups of whole documents")
    parser.add_argument("--scifact-windows", type=float, default=0.2, help="share of SciFact in the first")
    parser.add_argument("--scifact-documents", type=float, default=0.6, help="share of SciFact in the second")
    parser.add_argument("--lexical", type=float, default=7.0, help="weight of BM25 in scores of documents")
    parser.add_argument("--seed", type=int, default=13)
    args = parser.parse_args()
    drawer = Drawer(args.cache, args.seed, args.lexical)
    with args.out.open("w", encoding="utf-8") as out:
        for what, count, share in (
            ("windows", args.windows, args.scifact_windows),
            ("documents", args.documents, args.scifact_documents),
        ):
            for _ in range(count):
                record = drawer.draw(what, drawer.rng.random() < share)
                out.write(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
