"""`Reranker`: one model for texts in memory, used by any number of threads."""

from __future__ import annotations

import gc
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt

from rerank_cli.api.settings import ModelSettings, StrPath, named_as_keywords, spelled_out
from rerank_cli.cli.flags import model as flags
from rerank_cli.cli.flags.declare import from_keywords
from rerank_cli.display import kind
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import BadRecord, ModelError, UsageError
from rerank_cli.formats.shapes.fields import Names
from rerank_cli.formats.shapes.requests import request_from
from rerank_cli.ranking import sigmoid
from rerank_cli.records import Candidate, Json, Position, Ranking, Request, Shape

if TYPE_CHECKING:
    from rerank_cli.engine.contract import ModelFacts
    from rerank_cli.engine.results import PairScores
    from rerank_cli.engine.rows.prepare import PairTexts, Prepared
    from rerank_cli.engine.session import ModelSession
    from rerank_cli.run.stages import Scored, Slice

Document: TypeAlias = str | Mapping[str, Json]
"""A text, or an object with `text` and perhaps `title`, `id` and `score`, in the forms that docs/formats.md lists."""

Scores: TypeAlias = Literal["sigmoid", "raw"] | None
"""The kind of score: the sigmoid of the logit, or the logit; None is what the checkpoint states, sigmoid if nothing."""

log = logging.getLogger(__name__)

_NAMES = Names()


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document with its scores: `index` is its place in the list it came in, from 0.

    `logit` is the model's output, `score` what the command writes as `relevance_score`, with the same digits: the
    sigmoid of the logit, 0 to 1, or the logit. `truncated` says that not all of the text was read. With
    `long_documents`, `passage` are the characters (start, end) that scored best.
    """

    index: int
    score: float
    document: Document
    logit: float
    truncated: bool
    passage: tuple[int, int] | None = None


def _model_options(
    reading: Callable[[], ModelOptions] = flags.reading,
    place: Callable[[], dict[str, Any]] = flags.place,
    passages: Callable[[], dict[str, Any]] = flags.long_documents,
) -> ModelOptions:
    return flags.model_of(reading, place, passages)


class Reranker:
    """A cross-encoder that scores pairs of a query and a passage, with the same scores as the command.

    `model` is a Hub id, a folder or `mini`; the keywords are the flags of `rerank run` about the model, such as
    `device="cpu"`, `dtype="fp16"`, `max_length=1024`. The model is loaded at once: ModelError or UsageError if that
    fails. Threads may share a reranker; their calls are computed one after the other. It cannot be used in a process
    forked after it was opened. Pickling keeps its settings only: the copy loads the model again.
    """

    @spelled_out(ModelSettings)
    def __init__(self, model: StrPath = flags.DEFAULT_MODEL, **settings: Unpack[ModelSettings]) -> None:
        with named_as_keywords():
            self._open(from_keywords(_model_options, {"model": model, **settings}))

    def _open(self, options: ModelOptions) -> None:
        from rerank_cli.engine.limits import find

        checkpoint = find(options)  # before torch is imported, which takes seconds
        from rerank_cli.engine.session import open_session

        self._session: ModelSession | None = open_session(options, checkpoint)
        for remark in self._session.facts.remarks:
            log.info("%s: %s", options.name, remark)
        self._options, self._process = options, os.getpid()
        self._tokenizing, self._scoring = Lock(), Lock()

    def score(
        self,
        pairs: Iterable[Sequence[str]],
        *,
        scores: Scores = None,
        instruction: str | None = None,
    ) -> npt.NDArray[np.float32]:
        """Scores of n pairs (query, passage), in their order: float32 [n].

        With several `cutoff_layers`: [n, layers], the deepest last. `instruction` is for models whose prompt has one.
        Raises BadRecord for a pair that cannot be scored, and ModelError for a score that is not finite.
        """
        kind = self._kind(scores)
        with named_as_keywords():
            found = [scored.pairs.logits for scored in self._scored(_by_query(pairs, instruction))]
        logits = np.concatenate(found) if found else np.empty(0, np.float32)
        if not np.isfinite(logits).all():
            raise ModelError("the model gave a score that is not a finite number. Fix: dtype fp32")
        return logits if kind == "raw" else sigmoid(logits)

    def rank(
        self,
        query: str,
        documents: Iterable[Document],
        *,
        top_n: int | None = None,
        scores: Scores = None,
        instruction: str | None = None,
    ) -> list[RankedDocument]:
        """The documents, best first, ties in their order; with `top_n` only that many. Raises as `score` does."""
        asked = {"query": query, "documents": documents, "top_n": top_n, "instruction": instruction}
        return next(self._ranked([_request(asked, Position("request", 1))], self._kind(scores)), [])

    def rank_many(
        self,
        requests: Iterable[Mapping[str, Json] | tuple[str, Iterable[Document]]],
        *,
        top_n: int | None = None,
        scores: Scores = None,
    ) -> Iterator[list[RankedDocument]]:
        """The rankings of many requests, in their order, computed together in chunks as the command does.

        A request is a pair (query, documents), or an object with the fields of a rerank API: `query`, `documents`, and
        perhaps its own `top_n`, `instruction` and `max_tokens_per_doc`. They are read as needed, a chunk ahead (1,024
        pairs on a CPU with a small model). Raises as `score` does, naming the request by its number from 1.
        """
        default = {"top_n": top_n}
        asked = (default | dict(_as_object(request)) for request in requests)
        return self._ranked(_numbered(asked), self._kind(scores))

    @property
    def facts(self) -> ModelFacts:
        """The model as it was loaded: name, revision, family, device, dtype, lengths."""
        return self._opened().facts

    def close(self) -> None:
        """Free the model's memory. Waits for a call that is being computed; further calls raise UsageError."""
        with self._tokenizing, self._scoring:
            self._session = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._session is None:
            return f"<Reranker {self._options.name}, closed>"
        return f"<Reranker {self._options.name} on {self.facts.device} in {self.facts.dtype}>"

    def __reduce__(self) -> tuple[Callable[..., Reranker], tuple[ModelOptions]]:
        return _reopened, (self._options,)

    def _opened(self) -> ModelSession:
        if self._session is None:
            raise UsageError(f"{self._options.name}: this Reranker is closed")
        if self._process != os.getpid():
            raise UsageError(f"{self._options.name}: opened before a fork. Fix: open a Reranker in each process")
        return self._session

    def _kind(self, scores: Scores) -> str:
        kind = self._opened().facts.scores if scores is None else scores
        if kind not in ("sigmoid", "raw"):
            raise UsageError(f"scores={scores!r}: expected sigmoid or raw")
        return kind

    def _ranked(self, requests: Iterable[Request], kind: str) -> Iterator[list[RankedDocument]]:
        from rerank_cli.run.stages import rank_chunk

        with named_as_keywords():
            for scored in self._scored(requests):
                for outcome in rank_chunk(scored, None):
                    if not isinstance(outcome, Ranking):
                        raise ModelError(f"{outcome}. Fix: dtype fp32")
                    yield _documents(outcome, kind)

    def _scored(self, requests: Iterable[Request]) -> Iterator[Scored]:
        """The requests in the chunks of the command, with the scores of their pairs."""
        from rerank_cli.run.chunks import ChunkCutter, InputHash
        from rerank_cli.run.stages import join, slice_size, slices

        session = self._opened()
        size = session.sizes.chunk_pairs
        chunks = ChunkCutter(requests, size, lambda: 0, InputHash())
        return join(self._slices(slices(chunks, slice_size(session.facts, size))))

    def _slices(self, parts: Iterator[Slice]) -> Iterator[tuple[Slice, PairScores]]:
        """Each slice with its scores. A thread tokenizes the next one meanwhile; this thread reads the requests."""
        with ThreadPoolExecutor(1, "tokenizer") as thread:
            ahead: deque[tuple[Slice, Future[Prepared]]] = deque()
            for part in parts:
                ahead.append((part, thread.submit(self._prepare, part.texts)))
                if len(ahead) > 1:
                    yield self._score(*ahead.popleft())
            while ahead:
                yield self._score(*ahead.popleft())

    def _prepare(self, texts: PairTexts) -> Prepared:
        with self._tokenizing:
            return self._opened().prepare(texts)

    def _score(self, part: Slice, prepared: Future[Prepared]) -> tuple[Slice, PairScores]:
        from rerank_cli.engine.results import by_pair

        ready = prepared.result()
        with self._scoring:
            session = self._opened()
            with _current(session.facts.device):
                return part, by_pair(ready, session.score(ready))


def _reopened(options: ModelOptions) -> Reranker:
    made = Reranker.__new__(Reranker)
    made._open(options)
    return made


def _current(device: str) -> AbstractContextManager[Any]:
    """Make a CUDA device the current one of this thread, as it was for the thread that loaded the model."""
    import torch

    return torch.cuda.device(device) if device.startswith("cuda:") else nullcontext()


def _documents(ranking: Ranking, kind: str) -> list[RankedDocument]:
    logits = np.asarray(ranking.logits, dtype=np.float32)
    scores = logits if kind == "raw" else sigmoid(logits)
    return [
        RankedDocument(
            index,
            float(str(scores[index])),  # the shortest decimal that reads back as the same float32
            ranking.request.candidates[index].source,
            float(str(logits[index])),
            bool(ranking.truncated[index]) if ranking.truncated else False,
            ranking.passages[index] if ranking.passages else None,
        )
        for index in ranking.order
    ]


def _by_query(pairs: Iterable[Sequence[str]], instruction: str | None) -> Iterator[Request]:
    """Adjacent pairs of one query as a request, as rows of pairs are read from a file."""
    texts = (_pair(pair, number) for number, pair in enumerate(pairs))
    for query, group in groupby(texts, itemgetter(0)):
        candidates = tuple(Candidate(passage, passage) for _, passage in group)
        yield Request(query, candidates, Position("pairs", 1), instruction=instruction)


def _pair(pair: Sequence[str], number: int) -> tuple[str, str]:
    """The two texts of a pair. Raises BadRecord."""
    if isinstance(pair, str) or len(pair) != 2:
        got = kind(pair) if isinstance(pair, str) else f"{len(pair)} items"
        raise BadRecord("bad_pair", f"pair {number} is {got} (expected a query and a passage)")
    query, passage = (_text(text, f"pair {number}") for text in pair)
    if not query or query.isspace():
        raise BadRecord("empty_query", f"pair {number}: the query is empty")
    return query, passage


def _text(text: Json, where: str) -> str:
    if not isinstance(text, str):
        raise BadRecord("bad_text", f"{where}: expected two strings (got {kind(text)})")
    return _valid(str(text), where)


def _valid(text: str, where: str) -> str:
    """The text, which tokenizers take as UTF-8. Raises BadRecord for half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRecord("bad_utf8", f"{where}: not valid Unicode (half of a surrogate pair)") from None
    return text


def _as_object(request: Mapping[str, Json] | tuple[str, Iterable[Document]]) -> Mapping[str, Json]:
    if isinstance(request, Mapping):
        return request
    query, documents = request
    return {"query": query, "documents": documents}


def _numbered(asked: Iterable[dict[str, Json]]) -> Iterator[Request]:
    """Objects as requests. BadRecord names the number."""
    for number, record in enumerate(asked, 1):
        try:
            yield _request(record, Position("request", number))
        except BadRecord as error:
            raise BadRecord(error.code, f"request {number}: {error}") from None


def _request(record: dict[str, Json], position: Position) -> Request:
    """An object as a request, read as a record of a file. Raises BadRecord."""
    documents = record.get("documents")
    if documents is not None and not isinstance(documents, str | bytes | Mapping | list):
        documents = list(documents)
    if isinstance(documents, list):
        documents = [str(document) if isinstance(document, str) else document for document in documents]
        record = record | {"documents": documents}
    request = request_from(record, Shape.RERANK, _NAMES, position)
    _valid(request.query, "the query")
    for number, candidate in enumerate(request.candidates):
        _valid(candidate.text, f"document {number}")
    return request
