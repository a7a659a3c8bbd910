"""Flags applied to the scores of a run: fusion with the first stage, a minimum score, evaluation by judgements."""

from __future__ import annotations

from functools import partial
from typing import Any

from rerank_cli.choices import Fuse, Normalize
from rerank_cli.cli.flags import common, declare
from rerank_cli.cli.flags.declare import moved
from rerank_cli.errors import UsageError

flag = partial(declare.flag, panel=declare.RANKING)


def ranking(
    fuse: Fuse | None = flag(None, "Combine with the first stage: rrf by rank, weighted by score."),
    fuse_k: int | None = flag(None, "K of rrf, 1 / (K + rank) [default: 60].", "K", min=1),
    fuse_weight: float | None = flag(
        None, "Weight of the reranker, 0 to 1; the first stage has the rest [default: 0.5].", "W", min=0, max=1
    ),
    normalize: Normalize | None = moved(common.NORMALIZE, declare.RANKING),
    min_score: float | None = flag(None, "Leave out results whose written score is below X.", "X"),
    qrels: str | None = flag(None, "Relevance judgements: print measures before and after.", "FILE"),
    measures: str | None = moved(common.MEASURES, declare.RANKING),
) -> dict[str, Any]:
    """Fusion and evaluation, as fields of RunConfig; and `measures` as given, for judgements of the input."""
    from rerank_cli.evaluation.measures import DEFAULT
    from rerank_cli.evaluation.same_pass import QrelsOptions
    from rerank_cli.ranking import Fusion

    for name, value, other, given in (
        ("--fuse-k", fuse_k, "--fuse rrf", fuse is Fuse.RRF),
        ("--fuse-weight", fuse_weight, "--fuse weighted", fuse is Fuse.WEIGHTED),
        ("--normalize", normalize, "--fuse weighted", fuse is Fuse.WEIGHTED),
    ):
        if value is not None and not given:
            raise UsageError(f"{name} needs {other}")
    if fuse_weight != fuse_weight or min_score != min_score:
        raise UsageError("--fuse-weight and --min-score need a number (got nan)")
    weight = 0.5 if fuse_weight is None else fuse_weight
    fusion = Fusion(fuse, fuse_k or 60, weight, normalize or Normalize.MINMAX, min_score)
    judged = None if qrels is None else QrelsOptions(qrels, measures or DEFAULT)
    return {"fusion": fusion, "qrels": judged, "measures": measures}
