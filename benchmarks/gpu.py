"""On a GPU: the shape of bge-reranker-v2-m3 with random weights in bf16, by tokens and pairs a second.

rerank as it is, compiled, with float8 linears, and with both, against CrossEncoder with the best of its settings, in
one process, rounds interleaved. Nothing is fetched: checkpoint, tokenizer and text are made up. Profiles are written
beside the results. A table for people, then one JSON line.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --smoke          # tiny, on a CPU: whether it runs at all
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
import orjson
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

import rerank_cli
from rerank_cli.choices import Quantize
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import ModelSession, open_session
from rerank_cli.errors import RerankError
from rerank_cli.run.verify import kendall_tau

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
VARIANTS = {
    "eager": {},
    "compiled": {"compile": True},
    "fp8": {"quantize": Quantize.FP8},
    "fp8 compiled": {"quantize": Quantize.FP8, "compile": True},
}
Pairs = list[tuple[str, str]]
T = TypeVar("T")


@dataclass
class Ours:
    """A variant of rerank's engine, and what a round of it took, in seconds."""

    session: ModelSession
    whole: list[float]
    scoring: list[float]
    scores: np.ndarray | None = None


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_checkpoint(Path(scratch), args)
        pairs = make_pairs(args)
        variants = open_variants(folder, args)
        theirs, settings = best_cross_encoder(folder, pairs, args)
        their_seconds: list[float] = []
        for number in range(args.rounds + 1):
            for variant in variants.values():
                run_round(variant, pairs, args.device, counts=number > 0)
            seconds, their_scores = timed(lambda: theirs(pairs), args.device)
            their_seconds += [seconds] if number else []
        rows = {size: row_size(folder, pairs, size, args) for size in args.row_sizes}
        profiles = {name: profile(variant, pairs, name, args) for name, variant in variants.items()}
    report(args, pairs, variants, (settings, their_seconds, their_scores), rows, profiles)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=160, help="median tokens of a pair; they vary by half and double")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64, 128, 256], help="of CrossEncoder, tried")
    parser.add_argument("--row-sizes", type=int, nargs="*", default=[8192, 16384, 32768, 65536, 131072])
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="where profiles go")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    args.device, args.shape, args.vocabulary = "cuda", LARGE, 250_002
    if args.smoke:
        args.device, args.shape, args.vocabulary = "cpu", TINY, 1_000
        args.pairs, args.rounds, args.batch_sizes, args.row_sizes = 64, 1, [16], [512]
        args.results = Path(tempfile.mkdtemp())
    return args


def make_checkpoint(folder: Path, args: argparse.Namespace) -> Path:
    """Random weights, wide enough that scores differ by more than bf16 rounds; a word is a token."""
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        **args.shape, vocab_size=args.vocabulary, max_position_embeddings=8194, type_vocab_size=1, num_labels=1,
        initializer_range=0.04, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2, dtype="bfloat16",
    )  # fmt: skip
    with torch.device(args.device):
        model = XLMRobertaForSequenceClassification(config).to(torch.bfloat16)
        torch.nn.init.normal_(model.classifier.out_proj.weight, std=0.5)
    model.save_pretrained(folder)
    del model
    specials = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    words = specials | {f"w{number}": number for number in range(4, args.vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **names, model_max_length=8192).save_pretrained(folder)
    return folder


def make_pairs(args: argparse.Namespace) -> Pairs:
    """Queries of 8 to 24 words with 64 passages each, whose lengths are lognormal."""
    random = np.random.default_rng(0)

    def text(words: int) -> str:
        return " ".join(f"w{number}" for number in random.integers(4, args.vocabulary, words))

    queries = [text(int(random.integers(8, 25))) for _ in range(-(-args.pairs // 64))]
    lengths = np.clip(random.lognormal(np.log(args.tokens - 20), 0.5, args.pairs), 8, 480).astype(int)
    return [(queries[place // 64], text(int(length))) for place, length in enumerate(lengths)]


def open_variants(folder: Path, args: argparse.Namespace) -> dict[str, Ours]:
    found = {}
    for name in args.variants:
        begun = time.perf_counter()
        try:
            session = open_session(ModelOptions(str(folder), device=args.device, dtype="bf16", **VARIANTS[name]))
        except RerankError as error:
            print(f"{name}: left out, {error}")
            continue
        if VARIANTS[name].get("compile") and not session.facts.compiled:
            print(f"{name}: left out, it would not be compiled")
            continue
        print(f"{name}: ready in {time.perf_counter() - begun:.0f} s, rows of {session.facts.batch_tokens} tokens")
        found[name] = Ours(session, [], [])
    return found


def run_round(variant: Ours, pairs: Pairs, device: str, *, counts: bool) -> None:
    queries, passages = zip(*pairs, strict=True)
    preparing, prepared = timed(lambda: variant.session.prepare(PairTexts(queries, passages, [0] * len(pairs))), device)
    scoring, variant.scores = timed(lambda: variant.session.score(prepared), device)
    if counts:
        variant.whole.append(preparing + scoring)
        variant.scoring.append(scoring)


def best_cross_encoder(
    folder: Path, pairs: Pairs, args: argparse.Namespace
) -> tuple[Callable[[Pairs], np.ndarray], str]:
    """CrossEncoder with the attention and batch size that score a quarter of the pairs fastest."""
    from sentence_transformers import CrossEncoder

    attentions = ["sdpa", *(["flash_attention_2"] if find_spec("flash_attn") else [])]
    some, found = pairs[:: 4 if len(pairs) > 256 else 1], {}
    for attention in attentions:
        encoder = CrossEncoder(
            str(folder),
            max_length=512,
            device=args.device,
            activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": torch.bfloat16, "attn_implementation": attention},
        )
        for size in args.batch_sizes:

            def score(texts: Pairs, encoder: CrossEncoder = encoder, size: int = size) -> np.ndarray:
                found: np.ndarray = encoder.predict(list(texts), batch_size=size, show_progress_bar=False)
                return found

            timed(lambda: score(some), args.device)
            seconds, _ = timed(lambda: score(some), args.device)
            print(f"CrossEncoder, {attention}, batches of {size}: {len(some) / seconds:,.0f} pairs/s")
            found[f"{attention}, batches of {size}"] = (seconds, score)
    best = min(found, key=lambda name: found[name][0])
    return found[best][1], best


def row_size(folder: Path, pairs: Pairs, tokens: int, args: argparse.Namespace) -> float:
    """Tokens a second of the eager engine in rows of this many."""
    variant = Ours(
        open_session(ModelOptions(str(folder), device=args.device, dtype="bf16", batch_tokens=tokens)), [], []
    )
    for number in range(3):
        run_round(variant, pairs, args.device, counts=number > 0)
    return count_tokens(variant, pairs) / min(variant.scoring)


def count_tokens(variant: Ours, pairs: Pairs) -> int:
    queries, passages = zip(*pairs, strict=True)
    return int(variant.session.prepare(PairTexts(queries, passages, [0] * len(pairs))).tokens.sum())


def profile(variant: Ours, pairs: Pairs, name: str, args: argparse.Namespace) -> dict[str, float | str]:
    """A table of kernels over a sixteenth of the pairs at most, and the share of the time that they fill."""
    some = pairs[: max(64, len(pairs) // 16)] if args.device == "cpu" else pairs[:2048]
    queries, passages = zip(*some, strict=True)
    prepared = variant.session.prepare(PairTexts(queries, passages, [0] * len(some)))
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if args.device == "cuda" else []
    with torch.profiler.profile(activities=kinds) as found:
        seconds, _ = timed(lambda: variant.session.score(prepared), args.device)
    events = found.key_averages()
    order = "self_device_time_total" if args.device == "cuda" else "self_cpu_time_total"
    busy = sum(getattr(event, order, 0) for event in events if "cuda" in str(event.device_type).lower()) / 1e6
    path = args.results / f"{datetime.now(UTC):%Y-%m-%d}-gpu-profile-{name.replace(' ', '-')}.txt"
    path.write_text(events.table(sort_by=order, row_limit=40, max_name_column_width=90))
    return {"profile": path.name, "device_busy": round(busy / seconds, 3)}


def timed(work: Callable[[], T], device: str) -> tuple[float, T]:
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    begun = time.perf_counter()
    found = work()
    wait()
    return time.perf_counter() - begun, found


def matrix_peak(device: str) -> float:
    """TFLOP/s of a large bf16 product on this device, the best of ten."""
    side = 8192 if device == "cuda" else 512
    left, right = torch.randn(2, side, side, dtype=torch.bfloat16, device=device).unbind()
    seconds = [timed(lambda: left @ right, device)[0] for _ in range(10)]
    return 2e-12 * side**3 / min(seconds)


def report(
    args: argparse.Namespace,
    pairs: Pairs,
    variants: dict[str, Ours],
    theirs: tuple[str, list[float], np.ndarray],
    rows: dict[int, float],
    profiles: dict[str, dict[str, float | str]],
) -> None:
    settings, their_seconds, their_scores = theirs
    their_rate = len(pairs) / statistics.median(their_seconds)
    tokens = count_tokens(next(iter(variants.values())), pairs)
    shape, peak = args.shape, matrix_peak(args.device)
    width, inner, depth = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    operations = depth * (8 * width**2 + 4 * width * inner + 4 * width * tokens / len(pairs))
    exact = np.asarray(variants["eager"].scores) if "eager" in variants else their_scores
    where = torch.cuda.get_device_name() if args.device == "cuda" else "a CPU"
    print(f"\n{len(pairs)} pairs, {tokens / len(pairs):.0f} tokens each, on {where}, matrix peak {peak:,.0f} TFLOP/s")
    print(f"medians of {args.rounds} interleaved rounds\n")
    print(f"  {'':<16}{'tokens/s':>12}{'of peak':>9}{'pairs/s':>10}{'ratio':>7}{'worst |Δ|':>11}{'τ':>8}")
    print(f"  {'CrossEncoder':<16}{their_rate * tokens / len(pairs):>12,.0f}{'':>9}{their_rate:>10,.0f}  ({settings})")
    figures = {}
    for name, variant in variants.items():
        rate, speed = len(pairs) / statistics.median(variant.whole), tokens / statistics.median(variant.scoring)
        worst, order = float(np.abs(variant.scores - their_scores).max()), kendall_tau(variant.scores, exact)
        share = speed * operations * 1e-12 / peak
        speeds = f"{speed:>12,.0f}{share:>9.1%}{rate:>10,.0f}{rate / their_rate:>7.2f}"
        print(f"  {name:<16}{speeds}{worst:>11.2g}{order:>8.4f}")
        figures[name] = {
            "tokens_per_second": round(speed), "pairs_per_second": round(rate, 1), "share_of_peak": round(share, 4),
            "ratio": round(rate / their_rate, 3), "worst_delta": worst, "kendall_tau_to_eager": order,
            "seconds": [round(value, 4) for value in variant.whole],
            "seconds_scoring": [round(value, 4) for value in variant.scoring],
            "batch_tokens": variant.session.facts.batch_tokens, **profiles[name],
        }  # fmt: skip
    print("\n  eager, by tokens in a row: " + ", ".join(f"{size}: {speed:,.0f}" for size, speed in rows.items()) + "\n")
    line = {
        "benchmark": "gpu", "device": where, "dtype": "bf16", "shape": shape, "pairs": len(pairs), "tokens": tokens,
        "rounds": args.rounds, "matrix_peak_tflops": round(peak, 1), "variants": figures,
        "cross_encoder": {
            "settings": settings, "pairs_per_second": round(their_rate, 1),
            "seconds": [round(value, 4) for value in their_seconds],
        },
        "tokens_per_second_by_row": {str(size): round(speed) for size, speed in rows.items()},
        "versions": {"rerank": rerank_cli.__version__, "torch": torch.__version__},
    }  # fmt: skip
    print(orjson.dumps(line).decode())


if __name__ == "__main__":
    main()
