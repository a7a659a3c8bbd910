"""How far a cascade's answers are those of its large model alone: measured on some requests, all of whose candidates
the large model scores.

Requests are drawn evenly from the whole run, unless told how many only as far as that costs little. Which are drawn
depends on the input alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.results import Logits

_TOP = 10
_SIZE = 16
_SHARE = 0.02  # of the large model's work, at most, once a few requests have been looked into
_FEW = 4


@dataclass(frozen=True, slots=True)
class CascadeUse:
    """What a cascade did. `requests` had more than `keep` candidates, of which the small model left out `left_out`.

    On `sampled` of them, beside the large model alone: the part of its best `k` that was kept, on average, and the part
    of requests of which the best candidate, and all of the best `k`, were kept. These then stand where the large model
    alone would put them, so that the first is the overlap of both answers at `k` as well. None where none was sampled.
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
        said = f"{self.left_out:,} of {self.pairs:,} pairs left out by {self.model}"
        if not self.sampled:
            return said
        requests = f"{self.sampled} request{'' if self.sampled == 1 else 's'}"
        found = f"of the large model's top {self.k} {self.kept_of_top_k:.1%} kept, best the same {self.same_best:.1%}"
        return f"{said} ({found}, on {requests})"


class Agreement:
    """Which requests are looked into, `size` at the end, and what they showed. None stands for a few to some.

    `draw` may be called on another thread than `note`.
    """

    def __init__(self, size: int | None, keep: int) -> None:
        self._size = _SIZE if size is None else size
        self._thrifty = size is None
        self._keep = keep
        self._random = np.random.default_rng(0)
        self._drawn = 0
        self._notes: dict[int, tuple[float, bool]] = {}
        self.requests = 0
        self.pairs = 0
        self.extra = 0

    def draw(self, candidates: int) -> int | None:
        """Is the next request, of so many candidates, one of them? Its slot, which an earlier one may have had."""
        self.requests += 1
        self.pairs += candidates
        slot = self.requests - 1
        if slot >= self._size:  # Vitter's algorithm R
            slot = int(self._random.integers(0, self.requests))
        left_out = candidates - self._keep
        dear = self.extra + left_out > _SHARE * self._keep * self.requests
        if slot >= self._size or (self._thrifty and dear and self._drawn >= _FEW):
            return None
        self._drawn += 1
        self.extra += left_out
        return slot

    def note(self, slot: int, logits: Logits, kept: npt.NDArray[np.bool_]) -> None:
        """All of a request's scores by the large model, [n], and which candidates the small one kept."""
        if np.isfinite(logits).all():
            best = np.argsort(-logits, kind="stable")[: self.k]
            self._notes[slot] = float(kept[best].mean()), bool(kept[best[0]])

    @property
    def k(self) -> int:
        return min(_TOP, self._keep)

    def use(self, model: str, revision: str, seconds: float) -> CascadeUse:
        """The figures, once the run is over."""
        shares, firsts = zip(*self._notes.values(), strict=True) if self._notes else ((), ())
        return CascadeUse(
            model=model,
            revision=revision,
            keep=self._keep,
            requests=self.requests,
            pairs=self.pairs,
            left_out=self.pairs - self._keep * self.requests,
            extra_pairs=self.extra,
            seconds=round(seconds, 3),
            sampled=len(shares),
            k=self.k,
            kept_of_top_k=_mean(shares),
            same_best=_mean(firsts),
            same_top_k=_mean([share == 1.0 for share in shares]),
        )


def _mean(values: tuple[float, ...] | list[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
