"""The CUDA path without a card: tiny models of every type run on `cuda`, with tensors that are only shapes.

No kernel runs, and nothing is said of scores. Checked are devices, dtypes and shapes of every operator; that no tensor
stays on the host; that rows go to the device in one copy that is not waited for, and only scores come back; that no
operator makes the host wait for the device; that the variable-length attention is called once a layer, with what
torch's own operator takes. `--compile` is followed as far as the code of the kernels, `--quantize fp8` up to its
products. A table for people, then one JSON line; exit code 1 if a check fails.

    make gpu-rehearsal                       # in an environment with a CUDA build of torch
    python benchmarks/gpu_rehearsal.py --models bert qwen3

`host` is the time in which one thread of this CPU issues a row's operators: Python, torch's dispatch, and the kernels
of the CPU on two sequences of eight tokens in bf16, in place of the launches. It is the best of many turns.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import numpy as np
import orjson
import torch
import transformers
from compiled_code import Code, written_code
from no_card import is_pinned, no_card
from operators import Watch, tensors_of
from rehearsed_models import Rehearsed, rehearsed
from torch import Tensor

import rerank_cli
from rerank_cli.choices import Quantize
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts, Prepared
from rerank_cli.engine.session import ModelSession, open_session
from rerank_cli.models.attention import packed as attention
from rerank_cli.models.packed_row import TokenRow

KERNEL_OPTIONS = ("scale", "window_size", "enable_gqa")
EAGER = ("fp16", "bf16")
WIDTHS = {"max_length": 96, "batch_tokens": 1024}


@dataclass
class Line:
    """What was found for one model one way. Counts are means of a row."""

    model: str
    way: str
    packed: bool = False
    compiled: bool = False
    rows: int = 0
    operators: float = 0.0
    attention: float = 0.0
    layers: int = 0
    waits: float = 0.0
    float8: int = 0
    launches: int | None = None
    host_ms: float | None = None
    faults: list[str] = field(default_factory=list)


def main() -> int:
    args = arguments()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in rehearsed(Path(scratch), args.models):
            host = host_time(model)
            for way in args.ways:
                line = rehearse(model, way)
                if line is not None:
                    line.host_ms = host if way in EAGER else None
                    lines.append(line)
                    print(shown(line), flush=True)
    report(lines)
    return 1 if any(line.faults for line in lines) else 0


def arguments() -> argparse.Namespace:
    ways = [*EAGER, "fp8", "compiled", "fp8 compiled"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help="names of tests/models/tiny.py and its like (default: all)")
    parser.add_argument("--ways", nargs="+", default=ways, choices=ways)
    args = parser.parse_args()
    if not torch.backends.cuda.is_built():
        parser.error(f"torch {torch.__version__} has no CUDA (expected a CUDA build). Fix: make gpu-rehearsal")
    counted = f"{'operators':>10}{'attention':>11}{'waits':>7}{'float8':>8}{'launches':>10}{'host':>10}"
    print(f"  {'model':<20}{'way':<14}{'rows':<8}{counted}")
    return args


def options_of(model: Rehearsed, way: str) -> ModelOptions:
    options: dict[str, Any] = {"device": "cuda", "dtype": way if way in EAGER else "bf16"}
    if not model.lists:
        options |= WIDTHS
    if "fp8" in way:
        options["quantize"] = Quantize.FP8
    if "compiled" in way:
        options["compile"] = True
    return ModelOptions(str(model.folder), family=model.options, **options)


def rehearse(model: Rehearsed, way: str) -> Line | None:
    """Open the model and score pairs; None if this way is not for the model, which says so itself."""
    if ("compiled" in way and not model.compiles) or ("fp8" in way and not model.quantizes):
        return None
    line = Line(model.name, way, layers=model.layers)
    with no_card(model.packs) as mode, written_code(mode) as code:
        try:
            with Watch(is_pinned=is_pinned):  # it answers what shapes cannot
                session = open_session(options_of(model, way))
            look_at(line, session, model)
            if "compiled" in way:
                run_compiled(line, session, code)
            else:
                run_watched(line, session, mode, model)
        except Exception as error:  # whatever the program or torch raises here, it would raise on a card
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = str(error).strip().splitlines() or [""]
            line.faults.append(f"{type(error).__name__}: {said[0][:200]} ({Path(where.filename).name}:{where.lineno})")
    return line


def look_at(line: Line, session: ModelSession, model: Rehearsed) -> None:
    scored_by = session._scorer.model
    line.packed, line.compiled = session.facts.packed, session.facts.compiled
    line.float8 = sum(type(part).__name__ == "Float8Linear" for part in scored_by.backbone.modules())
    left = [path for path, tensor in tensors_of(scored_by) if tensor.device.type != "cuda" and tensor.dim()]
    line.faults += [f"on the host: {path}" for path in left]
    if line.packed != model.packs:
        line.faults.append(f"packed is {line.packed} (expected {model.packs}, as on a CPU)")
    if "fp8" in line.way and not line.float8:
        line.faults.append("no layer has become float8")


def run_watched(line: Line, session: ModelSession, mode: Any, model: Rehearsed) -> None:
    prepared = session.prepare(pairs())
    watch = Watch(is_pinned=is_pinned, check=call_kernel)
    try:
        with mode, watch:
            session.score(prepared)
    finally:
        line.rows = session.work.rows
        note_faults(line, watch, model)
    line.operators = round(watch.kernels / line.rows, 1)
    line.attention = round(watch.calls["variable_length"] / line.rows, 1)
    if watch.fetched != line.rows:
        line.faults.append(f"{watch.fetched} copies to the host (expected {line.rows}, one a row)")
    expected = model.layers if model.kernel else 0
    if line.attention != expected:
        line.faults.append(f"variable-length attention {line.attention} times a row (expected {expected})")
    if line.float8 and not watch.calls["_scaled_mm"]:
        line.faults.append("no float8 product was called")


def note_faults(line: Line, watch: Watch, model: Rehearsed) -> None:
    for fault, count in watch.faults.items():
        if model.packs or ", transformers/" not in fault:
            line.faults.append(f"{count} times: {fault}")
        else:  # a padded model is stock code
            line.waits += count / max(1, line.rows)


def call_kernel(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, key_offsets: Tensor, *more: Any) -> None:
    """torch's own operator, as a card would be given it, after what its kernel demands and shapes alone do not."""
    for name, found in {"offsets": offsets, "offsets of keys": key_offsets}.items():
        if found.dtype != torch.int32 or found.dim() != 1 or not found.is_contiguous():
            raise ValueError(f"{name}: {found.dtype} {tuple(found.shape)} (expected contiguous int32 of one dimension)")
    if len(offsets) != len(key_offsets):
        raise ValueError(f"offsets of {len(offsets) - 1} sequences and of {len(key_offsets) - 1} for their keys")
    if len({states.dtype for states in (q, k, v)}) > 1 or q.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(f"attention in {q.dtype}, {k.dtype} and {v.dtype} (expected one half precision)")
    attention.flash_attention(q, k, v, offsets, key_offsets, *more)


def run_compiled(line: Line, session: ModelSession, code: Code) -> None:
    if not session.facts.compiled:
        line.faults.append(f"not compiled: {'; '.join(code.refusals)}")
        return
    with torch._dynamo.config.patch(error_on_recompile=True), Watch(is_pinned=is_pinned):
        session.score(session.prepare(pairs()))
    line.rows, line.operators, line.launches = session.work.rows, code.operators, code.launches
    line.attention = code.attention
    if code.graphs != 1:
        line.faults.append(f"{code.graphs} graphs (expected 1)")
    if code.attention != line.layers:
        line.faults.append(f"variable-length attention {code.attention} times a row (expected {line.layers})")


def pairs(queries: int = 3, passages: int = 20) -> PairTexts:
    random = np.random.default_rng(1)
    words = ["panda", "bear", "china", "eats", "bamboo", "sleeps"]
    asked = [f"what is panda {number % queries}" for number in range(queries * passages)]
    found = [" ".join(random.choice(words, random.integers(1, 70))) for _ in asked]
    return PairTexts(asked, found, [number % queries for number in range(len(asked))])


def host_time(model: Rehearsed, turns: int = 15) -> float:
    """Milliseconds of one thread for a row of two short sequences, through the operators of the CUDA path."""
    torch.set_num_threads(1)

    def nothing(query: torch.Tensor, *_: Any, **_options: Any) -> torch.Tensor:
        return torch.empty_like(query)

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in KERNEL_OPTIONS]
    nothing.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    with (
        patch("rerank_cli.models.inputs.has_kernel", lambda _: True),
        patch("rerank_cli.engine.session.replace_layers", lambda *_, **__: None),
        patch("torch.nn.attention.varlen.varlen_attn", nothing),
    ):
        attention.kernel_parameters.cache_clear()
        options = ModelOptions(str(model.folder), device="cpu", dtype="bf16", family=model.options)
        session = open_session(options)
        few = session.prepare(PairTexts(["panda"] * 2, ["a bear", "a bear of china"], [0, 0]))
        found = min(seconds_of(session, few) for _ in range(turns))
    attention.kernel_parameters.cache_clear()
    return round(1e3 * found, 2)


def seconds_of(session: ModelSession, prepared: Prepared) -> float:
    rows: list[TokenRow] = [planned.row for planned in prepared.rows]
    begun = time.process_time()
    for row in rows:
        session._scorer.model.score(row)
    return (time.process_time() - begun) / len(rows)


def shown(line: Line) -> str:
    kind = "compiled" if line.compiled else "packed" if line.packed else "padded"
    host = "" if line.host_ms is None else f"{line.host_ms:.2f} ms"
    launches = "" if line.launches is None else str(line.launches)
    counts = f"{line.operators:>10g}{line.attention:>11g}{line.waits:>7g}{line.float8 or '':>8}{launches:>10}{host:>10}"
    verdict = "" if not line.faults else "".join(f"\n      {fault}" for fault in line.faults)
    return f"  {line.model:<20}{line.way:<14}{kind:<8}{counts}{verdict}"


def report(lines: list[Line]) -> None:
    bad = sum(bool(line.faults) for line in lines)
    print(f"\n{len(lines)} ways, {bad} with faults; rows of at most {WIDTHS['batch_tokens']} tokens. A row has so many")
    print(
        "operators (that start a kernel; if compiled, all of the graph), calls of the variable-length attention, waits"
    )
    print("by stock code of padded models, float8 layers, launches by compiled code, and milliseconds of the host\n")
    found = {
        "benchmark": "gpu_rehearsal", "date": f"{datetime.now(UTC):%Y-%m-%d}", "device": "none, shapes only",
        "lines": [asdict(line) for line in lines], "failed": bad,
        "versions": {"rerank": rerank_cli.__version__, "torch": torch.__version__,
                     "transformers": transformers.__version__},
    }  # fmt: skip
    print(orjson.dumps(found).decode())


if __name__ == "__main__":
    sys.exit(main())
