"""Options of a source and of a sink. Plain data: nothing here opens a file."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_cli.choices import Bm25Language, InputFormat, OutputFormat, RunValues, ScoreKind
from rerank_cli.records import Shape


@dataclass(frozen=True, slots=True)
class Bm25:
    """A first stage: for each query the `depth` best documents by BM25 with these parameters.

    Its run is a file that is kept, or with `temporary` removed when the process ends.
    """

    k1: float = 0.9
    b: float = 0.4
    language: Bm25Language = Bm25Language.ENGLISH
    depth: int = 100
    temporary: bool = True

    @property
    def mark(self) -> str:
        """Its value in a fingerprint."""
        return f"bm25 k1={self.k1:g} b={self.b:g} {self.language.value} {self.depth}"


@dataclass(frozen=True, slots=True)
class ById:
    """Where the texts of a run are, which names queries and documents by id.

    `queries` is a file, `corpus` a file or a folder of files. The first `depth` candidates of a query are used. The
    index of the corpus is kept beside it, or in `index_folder`. With `answer_unlisted`, queries that the run does not
    name are answered too, after the others, without candidates; of these only the ones that the file `judged` judges.
    With `first_stage` the run is made first, of the queries that `judged` judges, or all. `qrels` are the judgements
    that belong to the texts.
    """

    queries: str
    corpus: str
    depth: int | None = None
    values: RunValues = RunValues.AUTO
    index_folder: str | None = None
    answer_unlisted: bool = False
    judged: str | None = None
    first_stage: Bm25 | None = None
    qrels: str | None = None


@dataclass(frozen=True, slots=True)
class InputOptions:
    """Which files to read, and how. Several files are read in order and have one shape.

    A field is a key or a dotted path of keys; None means the known names in order. `text_field` may be several with
    commas between; `text_template` puts fields into a text. `query` is the query of records without one. With `sort`,
    rows of pairs may be in any order. With `by_id`, `paths` are runs, and the fields are those of the run, query and
    corpus files. With `require_candidates`, a query without candidates is a bad record.
    """

    paths: tuple[str, ...]
    shape: Shape | None = None
    query_field: str | None = None
    documents_field: str | None = None
    text_field: str | None = None
    id_field: str | None = None
    doc_id_field: str | None = None
    sort: bool = False
    by_id: ById | None = None
    text_template: str | None = None
    title_field: str | None = None
    score_field: str | None = None
    query: str | None = None
    require_candidates: bool = False
    format: InputFormat = InputFormat.AUTO


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How a ranking becomes output rows.

    `layers` are the cutoff layers whose scores are written too, `truncated` marks every result that lost tokens,
    `passages` names the best part of a long document, `fused` writes the score that the order follows, `query` the
    query's text.
    """

    model: str
    scores: ScoreKind = ScoreKind.SIGMOID
    documents: bool = True
    layers: tuple[int, ...] = ()
    truncated: bool = False
    passages: bool = False
    fused: bool = False
    query: bool = False


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where to write, and what. With `keep_errors` a rejection is written in place of its answer."""

    path: str
    format: OutputFormat
    answers: AnswerOptions
    overwrite: bool = False
    keep_errors: bool = False
