"""Text of both collections: sentences, words, queries as typed into a search box, and BM25 over words."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
from scipy import sparse

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
    """A question as one would type it into a search box: its words without stop words."""
    kept = [w for w in re.findall(r"[\w'-]+", question) if w.lower() not in STOP]
    return " ".join(kept) if kept else question


class Lexical:
    """BM25 weights of terms in texts, one row of `matrix` a text."""

    def __init__(self, texts: list[str], k1: float = 1.2, b: float = 0.75) -> None:
        rows = [Counter(words(text)) for text in texts]
        df: Counter[str] = Counter()
        for row in rows:
            df.update(row.keys())
        self.ids = {term: number for number, term in enumerate(df)}
        total = len(texts)
        self.idf = {term: float(np.log(1 + (total - n + 0.5) / (n + 0.5))) for term, n in df.items()}
        self.unseen = float(np.log(1 + (total + 0.5) / 0.5))
        lengths = np.array([max(1, sum(row.values())) for row in rows])
        data, cols, ptr = [], [], [0]
        for row, length in zip(rows, lengths, strict=True):
            norm = k1 * (1 - b + b * length / lengths.mean())
            for term, tf in row.items():
                cols.append(self.ids[term])
                data.append(self.idf[term] * tf * (k1 + 1) / (tf + norm))
            ptr.append(len(cols))
        self.matrix = _rows(data, cols, ptr, len(self.ids))

    def queries(self, texts: list[str]) -> sparse.csr_matrix:
        """One row a query, 1 / (sum of its terms' idf) at each of its terms.

        The product with a row of `matrix` is the text's BM25 as a share of that sum, about 0 to 2.
        """
        data, cols, ptr = [], [], [0]
        for text in texts:
            terms = sorted(set(words(text)))
            share = 1.0 / max(1e-6, sum(self.idf.get(term, self.unseen) for term in terms))
            for term in terms:
                if term in self.ids:
                    cols.append(self.ids[term])
                    data.append(share)
            ptr.append(len(cols))
        return _rows(data, cols, ptr, len(self.ids))


def _rows(data: list[float], cols: list[int], ptr: list[int], width: int) -> sparse.csr_matrix:
    arrays = np.array(data, np.float32), np.array(cols, np.int32), np.array(ptr, np.int64)
    return sparse.csr_matrix(arrays, shape=(len(ptr) - 1, width))
