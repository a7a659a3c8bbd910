"""The score cache around a scoring: pairs that an earlier run scored are not scored again.

The key of a pair is the hash of its texts and of all settings that change a score; its first score is kept. Entries are
written on a thread, slice by slice. A score that is not finite is not stored. The scores of a listwise model depend on
the whole list: the key of a pair then has all passages of its list in order, and its place among them, and a list is
scored again unless all its scores are found.
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

from rerank_cli.engine.results import PairScores
from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.recovery.fingerprint import Fingerprint, score_settings
from rerank_cli.run.scoring.cache_file import CacheFile
from rerank_cli.run.scoring.local import ScoredSlice, Scoring
from rerank_cli.run.stages import Slice
from rerank_cli.run.threads import Behind

_RULES = 1  # version of how a pair becomes a score; increase it with every change that moves scores
_CHECK = struct.Struct("<I")
_QUERY_BYTES, _PAIR_BYTES = 5, 11


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Figures of a cache: distinct pairs of each slice found and not found, and entries in the file at the end."""

    hits: int
    misses: int
    file: str
    entries: int

    @property
    def line(self) -> str:
        return f"{self.hits:,} scores from the cache ({self.hits / max(1, self.hits + self.misses):.1%})"


@dataclass(frozen=True, slots=True)
class Known:
    """A slice looked up in the cache: n pairs, d of them distinct.

    `places` [n] is each pair's index among the distinct ones, `found` bool [d], `values` [d] the entries, zeros if not
    found. `keys` and `rest` are the keys and texts of pairs not found, `mark` a hash of these keys ("" if no pair was
    found).
    """

    places: Index
    found: npt.NDArray[np.bool_]
    values: npt.NDArray[Any]
    keys: Sequence[bytes]
    rest: PairTexts
    mark: str


class ScoreCache:
    """The scores of one model in a cache file, which may hold those of other models too."""

    def __init__(
        self, file: CacheFile, mark: Fingerprint, layers: int = 1, *, passages: bool = False, lists: bool = False
    ) -> None:
        """An entry has `layers` scores; with `passages` also the span of the best passage. `lists`: see above."""
        settings = orjson.dumps([_RULES, layers, passages, score_settings(mark)], option=orjson.OPT_SORT_KEYS)
        self._settings = hashlib.blake2b(settings, digest_size=16).digest()
        self._file = file
        self._layers = layers
        self._passages = passages
        self._lists = lists
        logits: Any = ("logits", "<f4", (layers,)) if layers > 1 else ("logits", "<f4")
        spans: Any = [("passage", "<u4", (2,))] if passages else []
        self._entry = np.dtype([logits, ("tokens", "<u4"), ("truncated", "?"), *spans])
        self.hits = self.misses = 0

    def look_up(self, texts: PairTexts) -> Known:
        distinct, places = texts.distinct_lists() if self._lists else texts.distinct()
        keys = list(self._keys(distinct))
        entries = self._verified(self._file.find(keys))
        if self._lists:
            parts = [keys[members] for members in distinct.lists_of()]
            entries = {key: entries[key] for part in parts if all(key in entries for key in part) for key in part}
        found = np.fromiter((key in entries for key in keys), dtype=np.bool_, count=len(keys))
        values = np.zeros(len(keys), dtype=self._entry)
        values[found] = np.frombuffer(b"".join([entries[key] for key in keys if key in entries]), dtype=self._entry)
        self.hits += len(entries)
        self.misses += len(keys) - len(entries)
        if not entries:
            return Known(places, found, values, keys, distinct, "")
        unknown = [key for key in keys if key not in entries]
        mark = hashlib.blake2b(b"".join(unknown), digest_size=8).hexdigest()
        return Known(places, found, values, unknown, distinct.take(np.flatnonzero(~found)), mark)

    def put(self, known: Known, scores: PairScores) -> None:
        """Store the scores of the pairs that were not found."""
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
        """Scores of all n pairs of the slice, from those found and the `scores` of those not found."""
        if not known.found.any():
            return scores if len(known.places) == len(known.found) else scores.take(known.places)
        new = ~known.found
        logits, truncated = known.values["logits"], known.values["truncated"]
        tokens, passages = known.values["tokens"].astype(np.int64), None
        logits[new], tokens[new], truncated[new] = scores.logits, scores.tokens, scores.truncated
        if self._passages:
            passages = known.values["passage"].astype(np.int64)
            passages[new] = 0 if scores.passages is None else scores.passages
        whole = PairScores(np.ascontiguousarray(logits), tokens, truncated, passages, scores.duplicates)
        return whole.take(known.places)

    def _keys(self, texts: PairTexts) -> Iterator[bytes]:
        """16 bytes a pair. The first 5 are the query's, so that its pairs are neighbours in the file."""
        queries: dict[tuple[str, str | None], tuple[bytes, Any]] = {}
        passages = map(_bytes, texts.passages) if not self._lists else _in_lists(texts)
        pairs = zip(texts.queries, passages, texts.caps, texts.instructions or repeat(None), strict=False)
        for query, passage, cap, instruction in pairs:
            begun = queries.get((query, instruction))
            if begun is None:
                digest = hashlib.blake2b(self._settings, digest_size=_PAIR_BYTES)
                for text in (_bytes(query), b"" if instruction is None else b"\1" + _bytes(instruction)):
                    digest.update(struct.pack("<Q", len(text)) + text)  # the length separates the texts
                lead = hashlib.blake2b(digest.digest(), digest_size=_QUERY_BYTES).digest()
                begun = queries[query, instruction] = lead, digest
            digest = begun[1].copy()
            digest.update(struct.pack("<Q", cap))
            digest.update(passage)
            yield begun[0] + digest.digest()

    def _verified(self, entries: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """The entries without their checksums; if one is wrong, no entries, and the file is not used any more."""
        size = self._entry.itemsize
        for key, value in entries.items():
            if len(value) != size + _CHECK.size or value[size:] != _check(key, value[:size]):
                self._file.give_up()
                return {}
        return {key: value[:size] for key, value in entries.items()}


def cached(scoring: Scoring, cache: ScoreCache, stats: RunStatistics) -> Scoring:
    """`scoring` with a cache before it: it receives only pairs that the cache does not hold."""

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


def _in_lists(texts: PairTexts) -> Iterator[bytes]:
    """What stands for each passage in its list: its place, and a hash of all passages of the list, in order."""
    for members in texts.lists_of():
        digest = hashlib.blake2b(digest_size=16)
        for passage, cap in zip(texts.passages[members], texts.caps[members], strict=True):
            data = _bytes(passage)
            digest.update(struct.pack("<QQ", len(data), cap) + data)
        yield from (struct.pack("<Q", place) + digest.digest() for place in range(members.stop - members.start))


def _check(key: bytes, body: bytes) -> bytes:
    return _CHECK.pack(zlib.crc32(body, zlib.crc32(key)))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
