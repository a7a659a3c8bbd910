"""Packed rows against padded batches of the same model: the types whose published code is not run.

gte-multilingual-reranker-base, jina-reranker-v2 and llama-nemotron-rerank-1b-v2 in their own widths, with fewer layers
and random weights under their published tensor names. Both sides are this program in one process, rounds interleaved:
with its packed rows, and with the stock attention on batches padded to their longest pair, sorted by length. Seconds
are those of the processor, tokenizing left out. Scores must agree. A table, then one JSON line.

    python benchmarks/packed_rows.py --tokenizer DIR --scifact DIR
    python benchmarks/packed_rows.py --tokenizer DIR --squad dev-v1.1.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import orjson
import torch
from data import scifact_pairs, squad_pairs
from safetensors.torch import save_file

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import ModelSession, open_session

_VOCABULARY = 250_048
_ENCODER = {
    "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": _VOCABULARY,
    "hidden_act": "gelu", "layer_norm_eps": 1e-5, "pad_token_id": 1, "type_vocab_size": 1, "id2label": {"0": "LABEL_0"},
}  # fmt: skip
MODELS: dict[str, dict[str, object]] = {
    "gte-multilingual": _ENCODER | {
        "model_type": "new", "architectures": ["NewForSequenceClassification"], "max_position_embeddings": 8192,
        "position_embedding_type": "rope", "rope_theta": 20000.0, "rope_scaling": {"type": "ntk", "factor": 8.0},
        "layer_norm_type": "layer_norm", "logn_attention_scale": False, "pack_qkv": True,
    },
    "jina-v2": _ENCODER | {
        "architectures": ["XLMRobertaForSequenceClassification"], "max_position_embeddings": 1026,
        "auto_map": {"AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig"}, "use_flash_attn": True,
        "position_embedding_type": "absolute", "lora_adaptations": None, "emb_pooler": None,
    },
    "nemotron": {
        "model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalForSequenceClassification"],
        "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
        "pooling": "avg", "temperature": 1.0, "id2label": {"0": "LABEL_0"}, "vocab_size": _VOCABULARY,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


def tensors(name: str, layers: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the published tensors."""
    config = MODELS[name]
    width, inner = config["hidden_size"], config["intermediate_size"]
    assert isinstance(width, int)
    assert isinstance(inner, int)
    linear: dict[str, tuple[int, int]]
    if name == "nemotron":
        shared = width // 4
        found: dict[str, tuple[int, ...]] = {"model.norm.weight": (width,), "score.weight": (1, width)}
        found["model.embed_tokens.weight"] = (_VOCABULARY, width)
        linear = {
            "self_attn.q_proj": (width, width), "self_attn.k_proj": (shared, width),
            "self_attn.v_proj": (shared, width), "self_attn.o_proj": (width, width),
            "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner),
        }  # fmt: skip
        layer, norms, heads, biases = "model.layers.", ("input_layernorm", "post_attention_layernorm"), {}, False
    elif name == "jina-v2":
        found = {
            "roberta.emb_ln.weight": (width,), "roberta.emb_ln.bias": (width,),
            "roberta.embeddings.position_embeddings.weight": (1026, width),
        }  # fmt: skip
        linear = {
            "mixer.Wqkv": (3 * width, width), "mixer.out_proj": (width, width), "mlp.fc1": (inner, width),
            "mlp.fc2": (width, inner),
        }  # fmt: skip
        layer, norms, biases = "roberta.encoder.layers.", ("norm1", "norm2"), True
        heads = {"classifier.dense": (width, width), "classifier.out_proj": (1, width)}
    else:
        found = {"new.embeddings.LayerNorm.weight": (width,), "new.embeddings.LayerNorm.bias": (width,)}
        linear = {
            "attention.qkv_proj": (3 * width, width), "attention.o_proj": (width, width),
            "mlp.up_gate_proj": (2 * inner, width), "mlp.down_proj": (width, inner),
        }  # fmt: skip
        layer, norms, biases = "new.encoder.layer.", ("attn_ln", "mlp_ln"), True
        heads = {"new.pooler.dense": (width, width), "classifier": (1, width)}
    if name != "nemotron":
        base = layer.split(".")[0]
        found[f"{base}.embeddings.word_embeddings.weight"] = (_VOCABULARY, width)
        found[f"{base}.embeddings.token_type_embeddings.weight"] = (1, width)
    named = heads | {f"{layer}{number}.{part}": shape for number in range(layers) for part, shape in linear.items()}
    for part, shape in named.items():
        found[f"{part}.weight"] = shape
        if biases and "up_gate" not in part:
            found[f"{part}.bias"] = shape[:1]
    for number in range(layers):
        for norm in norms:
            found[f"{layer}{number}.{norm}.weight"] = (width,)
            if biases:
                found[f"{layer}{number}.{norm}.bias"] = (width,)
    return found


def written(folder: Path, name: str, layers: int, tokenizer: Path) -> Path:
    """A checkpoint as it is published, with random weights and the tokenizer of XLM-R."""
    folder.mkdir()
    torch.manual_seed(0)
    weights = {
        part: torch.randn(shape) * 0.03 + (part.endswith("weight") and len(shape) == 1)
        for part, shape in tensors(name, layers).items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = MODELS[name] | {"num_hidden_layers": layers, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the XLM-R tokenizer")
    parser.add_argument("--scifact", type=Path, help="long passages: folder in BEIR's layout with a BM25 run")
    parser.add_argument("--squad", type=Path, help="passages of mixed lengths instead: dev-v1.1.json")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="fp32")
    args = parser.parse_args()
    if (args.scifact is None) == (args.squad is None):
        parser.error("one of --scifact and --squad")
    read = scifact_pairs if args.scifact else squad_pairs
    pairs = read(args.scifact or args.squad, args.queries, args.depth)
    found = {}
    for name in args.models.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            folder = written(Path(scratch) / name, name, args.layers, args.tokenizer)
            found[name] = compared(str(folder), args.dtype, pairs, args.rounds)
        print(f"{name:<18}" + "  ".join(f"{key} {value}" for key, value in found[name].items()), flush=True)
    facts = {"benchmark": "packed_rows", "text": "scifact" if args.scifact else "squad", "dtype": args.dtype}
    facts |= {"pairs": len(pairs), "layers": args.layers, "rounds": args.rounds, "torch": torch.__version__}
    print(orjson.dumps(facts | {"models": found}).decode())


def compared(model: str, dtype: str, pairs: list[tuple[str, str]], rounds: int) -> dict[str, float]:
    """Pairs a CPU second of both, their ratio, and the largest difference of two scores."""
    options = ModelOptions(model, device="cpu", dtype=dtype, max_length=512, threads=1)
    sessions: dict[str, ModelSession] = {"packed": open_session(options)}
    with patch("rerank_cli.engine.session.PACKED", None):  # no attention for packed rows: padded batches
        sessions["padded"] = open_session(options)
    assert [session.facts.packed for session in sessions.values()] == [True, False]
    queries, passages = zip(*pairs, strict=True)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    scores = {}
    for number in range(rounds + 1):
        for name, session in sessions.items():
            prepared = session.prepare(PairTexts(queries, passages, [0] * len(pairs)))
            begun = time.process_time()
            scores[name] = session.score(prepared)
            if number:
                seconds[name].append(time.process_time() - begun)
    speed = {name: round(len(pairs) / statistics.median(each), 3) for name, each in seconds.items()}
    ratios = [padded / packed for packed, padded in zip(seconds["packed"], seconds["padded"], strict=True)]
    worst = float(np.abs(scores["packed"] - scores["padded"]).max())
    return speed | {"ratio": round(statistics.median(ratios), 3), "worst_delta": float(f"{worst:.1e}")}


if __name__ == "__main__":
    main()
