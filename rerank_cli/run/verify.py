"""Verification of a sample of pairs: how far their scores are from those of the stock model in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from rerank_cli.display import counted
from rerank_cli.engine.contract import Model
from rerank_cli.engine.results import Logits, deepest
from rerank_cli.errors import ModelError
from rerank_cli.records import Request
from rerank_cli.run.stages import Scored, pair_texts

TOLERANCE = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.5, "int8": 1.0, "fp8": 2.0}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result for a sample of `pairs`: the largest absolute difference of logits, and Kendall's τ-b of the orders."""

    pairs: int
    worst: float
    kendall_tau: float
    tolerance: float

    @property
    def line(self) -> str:
        return f"{counted(self.pairs, 'pair')} verified: worst |Δ| {self.worst:.2g}, Kendall τ {self.kendall_tau:.4f}"


class Sample:
    """`size` pairs drawn uniformly from all scored pairs (Vitter's algorithm R), the same pairs in every run."""

    def __init__(self, size: int, *, lists: bool = False) -> None:
        """With `lists`, whole requests are scored to verify their pairs: for models whose scores depend on the list."""
        self._size = size
        self._lists = lists
        self._seen = 0
        self._random = np.random.default_rng(0)
        # By slot: the candidate's request, its place among the request's candidates, and its logit or [layers]
        self._drawn: dict[int, tuple[Request, int, Logits]] = {}

    def take(self, scored: Scored) -> None:
        """Draw from one chunk. Pairs whose score is not finite are not drawn: their record is rejected."""
        requests = [record for record in scored.chunk.records if isinstance(record, Request)]
        ends = list(accumulate(len(request.candidates) for request in requests))
        finite = np.isfinite(scored.pairs.logits)
        found = np.flatnonzero(finite if finite.ndim == 1 else finite.all(axis=1))
        numbers = np.arange(self._seen, self._seen + len(found))
        slots = np.where(numbers < self._size, numbers, self._random.integers(0, numbers + 1))
        self._seen += len(found)
        for slot, place in zip(slots.tolist(), found.tolist(), strict=True):
            if slot < self._size:
                which = int(np.searchsorted(ends, place, side="right"))
                every = requests[which].candidates
                number = len(every) + place - ends[which]
                scored_with, number = (every, number) if self._lists else ((every[number],), 0)
                request = replace(requests[which], candidates=scored_with, extra={}, given=None)
                self._drawn[slot] = request, number, scored.pairs.logits[place]

    def verify(self, model: Model, tolerance: float | None) -> Verdict:
        """Score the sample with the stock model in fp32. Raises ModelError if a difference exceeds the tolerance.

        The default tolerance depends on the dtype, or on the quantization, where Kendall's τ is the better measure.
        """
        if not self._drawn:
            raise ModelError("--verify: this run has no score to verify. Fix: --restart scores everything again")
        facts = model.facts
        precision = facts.dtype if facts.quantize == "none" else facts.quantize
        limit = TOLERANCE[precision] if tolerance is None else tolerance
        requests, numbers, logits = zip(*self._drawn.values(), strict=True)
        starts = accumulate((len(request.candidates) for request in requests), initial=0)
        places = [start + number for start, number in zip(starts, numbers, strict=False)]
        plain = model.score_plainly(pair_texts(requests))[places]
        ours: Logits = np.array(logits, dtype=np.float32)
        if not np.isfinite(plain).all():
            raise ModelError("--verify: the scores of the stock model in fp32 are not finite, those of this run are")
        worst = float(np.abs(ours - plain).max())
        verdict = Verdict(len(ours), worst, kendall_tau(deepest(ours), deepest(plain)), limit)
        if not worst <= limit:
            exact = "--dtype fp32" if facts.quantize == "none" else "--quantize none"
            what = f"--verify: {verdict.line}, beyond the tolerance of {limit:g}"
            raise ModelError(f"{what}. Fix: --restart {exact}, or report it")
        return verdict


def kendall_tau(left: Sequence[float] | Logits, right: Sequence[float] | Logits) -> float:
    """τ-b: concordant minus discordant pairs, over √(pairs not tied left · pairs not tied right); 1 if that is 0.

    Source: M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    agreement = untied_left = untied_right = 0
    for place in range(len(a) - 1):
        x, y = np.sign(a[place + 1 :] - a[place]), np.sign(b[place + 1 :] - b[place])
        agreement += int((x * y).sum())
        untied_left += int(np.count_nonzero(x))
        untied_right += int(np.count_nonzero(y))
    both = untied_left * untied_right
    return agreement / both**0.5 if both else 1.0
