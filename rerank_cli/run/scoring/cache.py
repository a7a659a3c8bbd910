"""Scores that an earlier run worked out, put around a scoring: it is given the pairs that are new, and no others.

A pair is known by the hash of its texts and of every setting that changes a score, and keeps the score of the first
time. Entries are written behind the run, chunk by chunk, when their scores are there; a score that is no finite number
is none.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import compress, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from rerank_cli.engine.plan import Index
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.results import PairScores
from rerank_cli.run.recovery.fingerprint import Fingerprint, score_settings
from rerank_cli.run.scoring.cache_file import CacheFile
from rerank_cli.run.scoring.local import ScoredSlice, Scoring
from rerank_cli.run.stages import Slice
from rerank_cli.run.statistics import RunStatistics
from rerank_cli.run.threads import Behind

_RULES = 1  # of how a pair becomes a score; a change that moves scores counts it up
_CHECK = struct.Struct("<I")
_OF_QUERY, _OF_PAIR = 5, 11

Values = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a cache was good for: pairs found in it and not, distinct ones of a chunk, and the entries it has now."""

    hits: int
    misses: int
    file: str
    entries: int

    @property
    def line(self) -> str:
        share = self.hits / max(1, self.hits + self.misses)
        return f"{self.hits:,} scores from the cache ({share:.1%})"


@dataclass(frozen=True, slots=True)
class Known:
    """What a cache knows of a slice: n pairs, d of them distinct.

    `places` [n] names each pair among the distinct ones, `values` are those of the `found` [d], at their places, and
    `keys` those of the others, whose texts are `rest`. `mark` tells which these are.
    """

    places: Index
    found: npt.NDArray[np.bool_]
    values: Values
    keys: Sequence[bytes]
    rest: PairTexts
    mark: str


class ScoreCache:
    """One model's scores in a cache file; other models' may lie in the same one."""

    def __init__(self, file: CacheFile, mark: Fingerprint, layers: int = 1, *, passages: bool = False) -> None:
        """`layers` scores a pair; with `passages`, where the best one stands too."""
        settings = orjson.dumps([_RULES, layers, passages, score_settings(mark)], option=orjson.OPT_SORT_KEYS)
        self._settings = hashlib.blake2b(settings, digest_size=16).digest()
        self._file = file
        self._layers = layers
        self._passages = passages
        logits: Any = ("logits", "<f4", (layers,)) if layers > 1 else ("logits", "<f4")
        spans: Any = [("passage", "<u4", (2,))] if passages else []
        self._entry = np.dtype([logits, ("tokens", "<u4"), ("truncated", "?"), *spans])
        self.hits = self.misses = 0

    def look_up(self, texts: PairTexts) -> Known:
        """What is known of these pairs."""
        distinct, places = texts.distinct()
        keys = list(self._keys(distinct))
        entries = self._checked(self._file.find(keys))
        found = np.fromiter((key in entries for key in keys), dtype=np.bool_, count=len(keys))
        values = np.zeros(len(keys), dtype=self._entry)
        values[found] = np.frombuffer(b"".join([entries[key] for key in keys if key in entries]), dtype=self._entry)
        self.hits += len(entries)
        self.misses += len(keys) - len(entries)
        unknown = [key for key in keys if key not in entries]
        rest = distinct.take(np.flatnonzero(~found)) if entries else distinct
        mark = hashlib.blake2b(b"".join(unknown), digest_size=8).hexdigest() if entries else ""
        return Known(places, found, values, unknown, rest, mark)

    def put(self, known: Known, scores: PairScores) -> None:
        """Keep the scores of the pairs that were not known."""
        finite = np.logical_and.reduce(np.isfinite(scores.logits.reshape(len(known.keys), self._layers)), axis=1)
        values = np.zeros(len(known.keys), dtype=self._entry)
        values["logits"], values["tokens"], values["truncated"] = scores.logits, scores.tokens, scores.truncated
        if self._passages and scores.passages is not None:
            values["passage"] = scores.passages
        size, data = self._entry.itemsize, values.tobytes()
        bodies = [data[at : at + size] for at in range(0, len(data), size)]
        entries = [(key, body + _check(key, body)) for key, body in zip(known.keys, bodies, strict=True)]
        self._file.add(list(compress(entries, finite)))

    def merged(self, known: Known, scores: PairScores) -> PairScores:
        """The scores of all pairs of the slice."""
        count = len(known.found)
        if not known.found.any():
            return scores if len(known.places) == count else scores.take(known.places)
        new = ~known.found
        logits, tokens = known.values["logits"], known.values["tokens"].astype(np.int64)
        truncated = known.values["truncated"]
        logits[new], tokens[new], truncated[new] = scores.logits, scores.tokens, scores.truncated
        passages = None
        if self._passages:
            passages = known.values["passage"].astype(np.int64)
            passages[new] = 0 if scores.passages is None else scores.passages
        whole = PairScores(np.ascontiguousarray(logits), tokens, truncated, passages, scores.duplicates)
        return whole.take(known.places)

    def _keys(self, texts: PairTexts) -> Iterator[bytes]:
        """16 bytes a pair, of which the first few are the query's: its pairs lie side by side in the file."""
        queries: dict[tuple[str, str | None], Any] = {}
        instructions = iter(texts.instructions) if texts.instructions else repeat(None)
        pairs = zip(texts.queries, texts.passages, texts.caps, instructions, strict=False)
        for query, passage, cap, instruction in pairs:
            begun = queries.get((query, instruction))
            if begun is None:
                begun = queries[query, instruction] = self._begun(query, instruction)
            lead, digest = begun[0], begun[1].copy()
            digest.update(struct.pack("<Q", cap))
            digest.update(_bytes(passage))
            yield lead + digest.digest()

    def _begun(self, query: str, instruction: str | None) -> tuple[bytes, Any]:
        """The lead of a query's keys, and the hash that goes on with a passage; lengths keep texts apart."""
        digest = hashlib.blake2b(self._settings, digest_size=_OF_PAIR)
        for text in (_bytes(query), b"" if instruction is None else b"\1" + _bytes(instruction)):
            digest.update(struct.pack("<Q", len(text)) + text)
        return hashlib.blake2b(digest.digest(), digest_size=_OF_QUERY).digest(), digest

    def _checked(self, entries: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """The entries without their checksums; none where one is not what was put there."""
        size = self._entry.itemsize
        for key, value in entries.items():
            if len(value) != size + _CHECK.size or value[size:] != _check(key, value[:size]):
                self._file.give_up()
                return {}
        return {key: value[:size] for key, value in entries.items()}


def cached(scoring: Scoring, cache: ScoreCache, stats: RunStatistics) -> Scoring:
    """The same scoring, given no pair that the cache knows."""

    def score(slices: Iterable[Slice]) -> Generator[ScoredSlice]:
        waiting: deque[tuple[Slice, Known]] = deque()

        def unknown() -> Iterator[Slice]:
            for part in slices:
                with stats.timing("look up"):
                    known = cache.look_up(part.texts)
                waiting.append((part, known))
                yield replace(part, texts=known.rest, left=part.left + known.mark)

        def keep(new: tuple[Known, PairScores]) -> None:
            with stats.timing("keep scores"):
                cache.put(*new)

        with closing(Behind(keep)) as writer, closing(scoring(unknown())) as scored:
            for _, fresh in scored:
                part, known = waiting.popleft()
                writer.put((known, fresh))
                yield part, cache.merged(known, fresh)

    return score


def _check(key: bytes, body: bytes) -> bytes:
    return _CHECK.pack(zlib.crc32(body, zlib.crc32(key)))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
