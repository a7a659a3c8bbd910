"""Agreement of a cascade with its large model alone, measured on sampled requests.

The large model scores all candidates of a sampled request. The sample is uniform over the run and depends on the input
alone. Without a given size it only grows while the extra work stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.results import Logits

_TOP = 10
_SIZE = 16
_SHARE = 0.02  # upper bound of the extra work, as a share of the large model's work, once _FEW requests are sampled
_FEW = 4


@dataclass(frozen=True, slots=True)
class CascadeUse:
    """Figures of a cascade, for the summary. `requests` had more than `keep` candidates, `pairs` in all.

    The small model left out `left_out` of these pairs. On `sampled` requests the cascade is compared to the large model
    alone: `kept_of_top_k` is the mean share of the large model's best `k` candidates that were kept; `same_best` and
    `same_top_k` are the shares of requests of which the best candidate, and all of the best `k`, were kept. Kept
    candidates are ranked by the large model, so `kept_of_top_k` is also the overlap of both answers at `k`. These three
    are None if no request was sampled.
    """

    model: str
    revision: str
    keep: int
    requests: int
    pairs: int
    left_out: int
    extra_pairs: int
    seconds: float
    sampled: int
    k: int
    kept_of_top_k: float | None
    same_best: float | None
    same_top_k: float | None

    @property
    def line(self) -> str:
        text = f"{self.left_out:,} of {self.pairs:,} pairs left out by {self.model}"
        if not self.sampled:
            return text
        requests = f"{self.sampled} request{'' if self.sampled == 1 else 's'}"
        top, best = f"{self.kept_of_top_k:.1%} of the large model's top {self.k}", f"{self.same_best:.1%} of its top 1"
        return f"{text} ({top} and {best} kept, measured on {requests})"


class Agreement:
    """Samples `size` requests (None: 4 to 16) and collects figures. `draw` and `note` may run on different threads."""

    def __init__(self, size: int | None, keep: int) -> None:
        self.keep = keep
        self._size = _SIZE if size is None else size
        self._limited = size is None
        self._k = min(_TOP, keep)
        self._random = np.random.default_rng(0)
        self._drawn = 0
        self._notes: dict[int, tuple[float, bool]] = {}
        self.requests = 0
        self.pairs = 0
        self.extra = 0

    def draw(self, candidates: int) -> int | None:
        """The next request's slot in the sample, where it replaces an earlier one; None if it is not sampled."""
        self.requests += 1
        self.pairs += candidates
        slot = self.requests - 1
        if slot >= self._size:  # Vitter's algorithm R
            slot = int(self._random.integers(0, self.requests))
        left_out = candidates - self.keep
        costly = self.extra + left_out > _SHARE * self.keep * self.requests
        if slot >= self._size or (self._limited and costly and self._drawn >= _FEW):
            return None
        self._drawn += 1
        self.extra += left_out
        return slot

    def note(self, slot: int, logits: Logits, kept: npt.NDArray[np.bool_]) -> None:
        """Record a request: the large model's scores of all candidates, [n], and which of them were kept, [n]."""
        if np.isfinite(logits).all():
            best = np.argsort(-logits, kind="stable")[: self._k]
            self._notes[slot] = float(kept[best].mean()), bool(kept[best[0]])

    def use(self, model: str, revision: str, seconds: float) -> CascadeUse:
        """The figures, at the end of the run."""
        shares, firsts = zip(*self._notes.values(), strict=True) if self._notes else ((), ())
        return CascadeUse(
            model=model,
            revision=revision,
            keep=self.keep,
            requests=self.requests,
            pairs=self.pairs,
            left_out=self.pairs - self.keep * self.requests,
            extra_pairs=self.extra,
            seconds=round(seconds, 3),
            sampled=len(shares),
            k=self._k,
            kept_of_top_k=_mean(shares),
            same_best=_mean(firsts),
            same_top_k=_mean([share == 1.0 for share in shares]),
        )


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
