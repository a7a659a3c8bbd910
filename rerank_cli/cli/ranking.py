"""Flags of what becomes of the scores of a run: mixed with the first stage's, cut off below, measured by judgements."""

from __future__ import annotations

from typing import Annotated, Any

from rerank_cli.choices import Fuse, Normalize
from rerank_cli.cli import options as opt
from rerank_cli.errors import UsageError

Measures = Annotated[
    str | None,
    opt.flag("--measures", metavar="M[,M]", help="Any that ir_measures knows [default: nDCG@10,RR@10,AP,R@100,P@10]."),
]
NormalizeFlag = Annotated[
    Normalize | None,
    opt.flag("--normalize", help="Scores of a query before a weighted mix, per query [default: minmax]."),
]


def ranking(
    fuse: Annotated[
        Fuse | None,
        opt.flag("--fuse", help="Mix with the first stage: rrf by ranks, weighted by its `score`. Orders the output."),
    ] = None,
    fuse_k: Annotated[
        int | None, opt.flag("--fuse-k", metavar="K", min=1, help="Of rrf: 1 / (K + rank) [default: 60].")
    ] = None,
    fuse_weight: Annotated[
        float | None,
        opt.flag("--fuse-weight", metavar="W", min=0, max=1, help="The reranker's in a weighted mix [default: 0.5]."),
    ] = None,
    normalize: NormalizeFlag = None,
    min_score: Annotated[
        float | None,
        opt.flag("--min-score", metavar="X", help="Leave out results whose relevance score is below X, as written."),
    ] = None,
    qrels: Annotated[
        str | None,
        opt.flag("--qrels", metavar="FILE", help="Judgements: say how good the order was before, and is after."),
    ] = None,
    measures: Measures = None,
) -> dict[str, Any]:
    """Fusion and judges, as fields of RunConfig."""
    from rerank_cli.evaluation.measures import DEFAULT
    from rerank_cli.evaluation.same_pass import Judges
    from rerank_cli.ranking import Fusion

    _belongs("--fuse-k", fuse_k, fuse is Fuse.RRF, "--fuse rrf")
    _belongs("--fuse-weight", fuse_weight, fuse is Fuse.WEIGHTED, "--fuse weighted")
    _belongs("--normalize", normalize, fuse is Fuse.WEIGHTED, "--fuse weighted")
    _belongs("--measures", measures, qrels is not None, "--qrels FILE")
    if fuse_weight != fuse_weight or min_score != min_score:
        raise UsageError("--fuse-weight and --min-score want a number (got nan)")
    fusion = Fusion(
        fuse,
        60 if fuse_k is None else fuse_k,
        0.5 if fuse_weight is None else fuse_weight,
        normalize or Normalize.MINMAX,
        min_score,
    )
    return {"fusion": fusion, "judges": None if qrels is None else Judges(qrels, measures or DEFAULT)}


def _belongs(flag: str, value: object, there: bool, other: str) -> None:
    if value is not None and not there:
        raise UsageError(f"{flag} needs {other}")
