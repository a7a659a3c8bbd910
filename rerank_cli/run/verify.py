"""A second opinion on a sample of pairs: the scores of a plain fp32 model, and how far ours are from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from rerank_cli.engine.contract import Model
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.results import Logits
from rerank_cli.errors import ModelError
from rerank_cli.records import Request
from rerank_cli.run.stages import Scored, pair_texts

TOLERANCE = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.5, "int8": 1.0, "fp8": 2.0}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a sample of `pairs` showed: the largest difference of logits, and Kendall's τ-b of the two orders."""

    pairs: int
    worst: float
    kendall_tau: float
    tolerance: float

    @property
    def line(self) -> str:
        pairs = f"{self.pairs:,} pair{'' if self.pairs == 1 else 's'}"
        return f"{pairs} verified: worst |Δ| {self.worst:.2g}, Kendall τ {self.kendall_tau:.4f}"


class Sample:
    """`size` pairs drawn evenly from all that a run scores (Vitter's algorithm R), the same ones in every run."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._random = np.random.default_rng(0)
        self._pairs: list[tuple[str, str, int, str | None]] = []
        self._logits: list[npt.NDArray[np.float32]] = []

    def take(self, scored: Scored) -> None:
        """Draw from one chunk."""
        requests = [record for record in scored.chunk.records if isinstance(record, Request)]
        count = sum(len(request.candidates) for request in requests)
        finite = np.isfinite(scored.pairs.logits.reshape(count, -1)).all(axis=1) if count else np.zeros(0, dtype=bool)
        found = np.flatnonzero(finite)  # the record of any other is rejected
        numbers = np.arange(self._seen, self._seen + len(found))
        slots = np.where(numbers < self._size, numbers, self._random.integers(0, numbers + 1))
        self._seen += len(found)
        ends = list(accumulate(len(request.candidates) for request in requests))
        for slot, place in zip(slots.tolist(), found.tolist(), strict=True):
            if slot >= self._size:
                continue
            which = int(np.searchsorted(ends, place, side="right"))
            request = requests[which]
            candidate = place - (ends[which] - len(request.candidates))
            self._put(slot, _one(request, candidate), scored.pairs.logits[place])

    def _put(self, slot: int, pair: tuple[str, str, int, str | None], logit: npt.NDArray[np.float32]) -> None:
        if slot == len(self._pairs):
            self._pairs.append(pair)
            self._logits.append(logit)
        else:
            self._pairs[slot], self._logits[slot] = pair, logit

    def verify(self, model: Model, tolerance: float | None) -> Verdict:
        """Score the sample again, plainly. ModelError where the difference is beyond the tolerance.

        That goes by dtype, and by how the model is quantized: there Kendall's τ says more than a difference.
        """
        if not self._pairs:
            raise ModelError("--verify: this run has no score to verify. Fix: --restart scores everything again")
        facts = model.facts
        usual = TOLERANCE[facts.dtype if facts.quantize == "none" else facts.quantize]
        limit = usual if tolerance is None else tolerance
        queries, passages, caps, instructions = zip(*self._pairs, strict=True)
        plain = model.score_plainly(PairTexts(queries, passages, caps, instructions))
        ours: Logits = np.array(self._logits, dtype=np.float32)
        if not np.isfinite(plain).all():
            raise ModelError("--verify: the plain fp32 model gives scores that are no finite numbers, ours are")
        worst = float(np.abs(ours - plain).max())
        deepest = [logits if logits.ndim == 1 else logits[:, -1] for logits in (ours, plain)]
        verdict = Verdict(len(self._pairs), worst, kendall_tau(*deepest), limit)
        if not worst <= limit:
            exact = "--dtype fp32" if facts.quantize == "none" else "--quantize none"
            raise ModelError(f"--verify: {verdict.line}, which is beyond {limit:g}. Fix: {exact}, or report it")
        return verdict


def _one(request: Request, candidate: int) -> tuple[str, str, int, str | None]:
    alone = pair_texts([replace(request, candidates=request.candidates[candidate : candidate + 1])])
    return alone.queries[0], alone.passages[0], alone.caps[0], alone.instructions[0]


def kendall_tau(left: Sequence[float] | Logits, right: Sequence[float] | Logits) -> float:
    """τ-b: concordant less discordant pairs, over the root of those not tied in one and not tied in the other.

    Source: M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945). 1 where nothing is untied.
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
