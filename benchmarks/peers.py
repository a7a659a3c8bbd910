"""One system that scores pairs, in a process of its own, for `compare.py`; imports what that system needs and no more.

python benchmarks/peers.py SYSTEM --model FOLDER                              answers questions, JSON lines both ways
python benchmarks/peers.py SYSTEM --model FOLDER --job IN.jsonl OUT.jsonl     a whole job, as its users write it

`SYSTEMS` is the table of them. The back ends of sentence-transformers first export the model to a temporary folder,
which is part of loading.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

Pairs = Sequence[tuple[str, str]]
Score = Callable[[Pairs], "list[float]"]
LENGTH = 512
LIBRARIES = ("torch", "transformers", "sentence_transformers", "onnxruntime", "openvino", "FlagEmbedding", "rerankers")


class Rerank:
    """The engine alone: tokenizing, planning and scoring of one call."""

    def __init__(self, args: argparse.Namespace, quantize: str = "none", dtype: str | None = None) -> None:
        from rerank_cli.choices import Quantize
        from rerank_cli.engine.options import ModelOptions
        from rerank_cli.engine.session import open_session

        options = ModelOptions(
            args.model, device=args.device, dtype=dtype or args.dtype, quantize=Quantize(quantize), max_length=LENGTH,
            threads=args.threads, batch_tokens=args.batch_tokens,
        )  # fmt: skip
        self._session = open_session(options)

    def __call__(self, pairs: Pairs) -> list[float]:
        found: list[float] = self._session.score(self._prepared(pairs)).tolist()
        return found

    def costs(self, pairs: Pairs) -> tuple[int, int]:
        """Operations worked out for these pairs, and those of the plain model."""
        costs = self._session.costs()
        assert costs is not None
        each = [costs.of(planned.row) for planned in self._prepared(pairs).rows]
        return sum(cost.done for cost in each), sum(cost.nominal for cost in each)

    def peak(self) -> float:
        import torch

        from rerank_cli.engine.profiling.peak import matmul_peak, precision_of

        facts = self._session.facts
        return matmul_peak(torch.device(facts.device), precision_of(facts))

    def _prepared(self, pairs: Pairs) -> Any:
        from rerank_cli.engine.rows.prepare import PairTexts

        queries, passages = zip(*pairs, strict=True)
        return self._session.prepare(PairTexts(queries, passages, [0] * len(pairs)))


def cross_encoder(args: argparse.Namespace) -> Score:
    import torch
    from sentence_transformers import CrossEncoder

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.dtype]
    made = CrossEncoder(
        args.model,
        max_length=LENGTH,
        device=args.device,
        activation_fn=torch.nn.Identity(),
        model_kwargs={"dtype": dtype},
    )
    return lambda pairs: made.predict(list(pairs), batch_size=args.batch_size, show_progress_bar=False).tolist()


def with_backend(args: argparse.Namespace, folder: Path, backend: str, **settings: Any) -> Any:
    """A CrossEncoder whose model `backend` runs, from the files that it exported to `folder`, or exports now."""
    import torch
    from sentence_transformers import CrossEncoder

    exported = (folder / backend).is_dir()
    made = CrossEncoder(
        str(folder) if exported else args.model,
        max_length=LENGTH,
        device="cpu",
        activation_fn=torch.nn.Identity(),
        backend=backend,
        model_kwargs={"export": not exported, **settings},
    )
    if not exported:
        made.save_pretrained(str(folder))
    return made


def predictions(made: Any, args: argparse.Namespace, folder: Any) -> Score:
    """Scores by `made`, whose exported files are in the temporary folder; they last as long as the function."""

    def score(pairs: Pairs, _: Any = folder) -> list[float]:
        found: list[float] = made.predict(list(pairs), batch_size=args.batch_size, show_progress_bar=False).tolist()
        return found

    return score


def onnx(args: argparse.Namespace, quantize: str | None = None) -> Score:
    """ONNX Runtime, which multiplies in fp32, or in int8 as sentence-transformers' documentation exports it."""
    import onnxruntime
    from sentence_transformers import export_dynamic_quantized_onnx_model

    folder = tempfile.TemporaryDirectory()
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = args.threads or 0
    on_cpu = {"provider": "CPUExecutionProvider", "session_options": session}
    made = with_backend(args, Path(folder.name), "onnx", **on_cpu)
    if quantize:
        export_dynamic_quantized_onnx_model(made, quantize, folder.name)
        (file,) = Path(folder.name, "onnx").glob("*quint8*.onnx" if quantize == "avx2" else "*qint8*.onnx")
        made = with_backend(args, Path(folder.name), "onnx", file_name=f"onnx/{file.name}", **on_cpu)
    return predictions(made, args, folder)


def openvino(args: argparse.Namespace, precision: str) -> Score:
    """OpenVINO. Without the hint it would take bf16 by itself where the processor has it."""
    folder = tempfile.TemporaryDirectory()
    config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    if args.threads:
        config["INFERENCE_NUM_THREADS"] = str(args.threads)
    return predictions(with_backend(args, Path(folder.name), "openvino", ov_config=config), args, folder)


def flag_embedding(args: argparse.Namespace) -> Score:
    from FlagEmbedding.inference.reranker.encoder_only.base import BaseReranker

    made = BaseReranker(args.model, use_fp16=args.dtype == "fp16", devices=[args.device], max_length=LENGTH)
    return lambda pairs: made.compute_score_single_gpu([list(pair) for pair in pairs], device=args.device)


def rerankers(args: argparse.Namespace) -> Score:
    from rerankers import Reranker

    made = Reranker(
        args.model, model_type="cross-encoder", device=args.device, dtype=args.dtype, batch_size=args.batch_size,
        verbose=0, tokenizer_kwargs={"model_max_length": LENGTH},
    )  # fmt: skip

    def score(pairs: Pairs) -> list[float]:
        scores: list[float] = []
        start = 0
        while start < len(pairs):  # a call a query, as the library wants it
            query = pairs[start][0]
            end = start
            while end < len(pairs) and pairs[end][0] == query:
                end += 1
            ranked = made.rank(query, [passage for _, passage in pairs[start:end]], doc_ids=list(range(end - start)))
            scores += [result.score for result in sorted(ranked.results, key=lambda result: result.document.doc_id)]
            start = end
        return scores

    return score


@dataclass(frozen=True)
class System:
    """How it is made; its precision, where that is not `--dtype`'s; whether it needs the environment of the peers.

    `ours` can also tell the costs of pairs and the machine's peak.
    """

    make: Callable[[argparse.Namespace], Score]
    precision: str | None = None
    elsewhere: bool = False
    ours: bool = False


SYSTEMS = {
    "rerank": System(Rerank, ours=True),
    "rerank-bf16": System(Rerank, "bf16", ours=True),
    "rerank-int8": System(partial(Rerank, quantize="int8"), "int8", ours=True),
    "rerank-int8-bf16": System(partial(Rerank, quantize="int8", dtype="bf16"), "int8", ours=True),
    "sentence-transformers": System(cross_encoder),
    "sentence-transformers-bf16": System(cross_encoder, "bf16"),
    "onnx": System(onnx, "fp32", elsewhere=True),
    "onnx-int8": System(partial(onnx, quantize="avx512_vnni"), "int8", elsewhere=True),
    "openvino": System(partial(openvino, precision="f32"), "fp32", elsewhere=True),
    "openvino-bf16": System(partial(openvino, precision="bf16"), "bf16", elsewhere=True),
    "FlagEmbedding": System(flag_embedding, elsewhere=True),
    "rerankers": System(rerankers),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--job", nargs=2, type=Path)
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    system = SYSTEMS[args.system]
    if system.precision == "bf16":
        args.dtype = "bf16"
    score = system.make(args)
    if args.job:
        job(score, *args.job)
    else:
        serve(score, answers)


def serve(score: Score, answers: Any) -> None:
    """Answer questions until there are none."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "pairs" in asked:
            pairs = [tuple(pair) for pair in json.loads(Path(asked["pairs"]).read_text())]
            begun = time.perf_counter()
            scores = score(pairs)
            answer: Any = {"seconds": time.perf_counter() - begun, "scores": [float(value) for value in scores]}
        elif "versions" in asked:
            answer = {name: version(name) for name in LIBRARIES if name in sys.modules}
        elif "costs" in asked:
            answer = score.costs([tuple(pair) for pair in json.loads(Path(asked["costs"]).read_text())])  # type: ignore[attr-defined]
        else:
            answer = score.peak()  # type: ignore[attr-defined]
        print(json.dumps(answer), file=answers, flush=True)


def job(score: Score, given: Path, written: Path) -> None:
    """All of a file at once, best first: the script that everybody has."""
    requests = [json.loads(line) for line in given.read_text().splitlines()]
    pairs = [(request["query"], document) for request in requests for document in request["documents"]]
    scores = iter(score(pairs))
    with written.open("w") as file:
        for request in requests:
            ranked = sorted(((next(scores), text) for text in request["documents"]), key=lambda pair: -pair[0])
            results = [{"relevance_score": found, "document": {"text": text}} for found, text in ranked]
            file.write(json.dumps({"id": request["id"], "results": results}) + "\n")


if __name__ == "__main__":
    main()
