"""Cut a small cross-encoder out of the bi-encoder: fewer layers, feed-forward neurons and word pieces.

Writes a checkpoint in fp32 that `rerank train -m` reads: a `BertForSequenceClassification` with one label, whose head
is new, and a tokenizer of the word pieces that are kept.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
from checkpoint import words_rounded, write
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel, BertConfig, BertForSequenceClassification
from world import build

# Of all embeddings: their sum is normalized, so that only its direction counts. It moves the word embeddings, of about
# 0.06, out of the range where float8 has few values.
_SCALE = 8.0
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _plain(piece: str) -> bool:
    bare = piece.removeprefix("##")
    return len(bare) == 1 and (ord(bare) < 0x250 or 0x2010 <= ord(bare) <= 0x2122)


def choose_pieces(vocab: dict[str, int], counts: list[Counter[int]], size: int) -> list[str]:
    """`size` pieces in the base order: specials, single characters, then the likeliest.

    Likelihood mixes the base vocabulary's order (read as Zipf's law) with each collection's own counts.
    """
    by_id = {number: piece for piece, number in vocab.items()}
    kept = {vocab[s] for s in SPECIALS} | {n for n, p in by_id.items() if _plain(p)}
    wordy = [n for n in sorted(by_id) if not by_id[n].startswith("[unused") and n not in kept]
    latin = [n for n in wordy if all(ord(c) < 0x250 for c in by_id[n])]
    harmonic = sum(1 / (rank + 100) for rank in range(len(latin)))
    share = 0.4 / max(1, len(counts))
    totals = [max(1, sum(c.values())) for c in counts]
    score = {
        n: 0.6 / (rank + 100) / harmonic + sum(share * c[n] / t for c, t in zip(counts, totals, strict=True))
        for rank, n in enumerate(latin)
    }
    best = sorted(latin, key=lambda n: -score[n])[: size - len(kept)]
    return [by_id[n] for n in sorted(kept | set(best))]


def cut_tokenizer(base: Path, pieces: list[str]) -> Tokenizer:
    """The base tokenizer over `pieces` only, without truncation or padding."""
    spec = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {piece: number for number, piece in enumerate(pieces)}
    spec["truncation"] = spec["padding"] = None
    spec["model"]["vocab"] = ids
    for token in spec["added_tokens"]:
        token["id"] = ids[token["content"]]
    for token, entry in spec["post_processor"]["special_tokens"].items():
        entry["ids"] = [ids[token]]
    return Tokenizer.from_str(json.dumps(spec, ensure_ascii=False))


@torch.no_grad()
def neuron_importance(base: torch.nn.Module, tokenizer: Tokenizer, texts: list[str]) -> list[Tensor]:
    """For each layer, each feed-forward neuron's mean squared output contribution over `texts`."""
    total = [torch.zeros(layer.intermediate.dense.out_features) for layer in base.encoder.layer]
    hooks = [
        layer.intermediate.register_forward_hook(
            lambda _m, _i, out, k=k: total[k].add_(out.float().square().sum((0, 1)))
        )
        for k, layer in enumerate(base.encoder.layer)
    ]
    for text in texts:
        base(input_ids=torch.tensor([tokenizer.encode(text).ids[:256]]))
    for hook in hooks:
        hook.remove()
    outward = [layer.output.dense.weight.float().square().sum(0) for layer in base.encoder.layer]
    return [mine * out for mine, out in zip(total, outward, strict=True)]


def cut(
    base: Path, layers: list[int], neurons: int, size: int, texts: list[list[str]]
) -> tuple[BertForSequenceClassification, Tokenizer]:
    """Student and tokenizer; `texts` (one list a collection) set piece counts and neuron importance."""
    full = Tokenizer.from_file(str(base / "tokenizer.json"))
    full.no_padding()
    full.no_truncation()
    counts = [Counter(n for e in full.encode_batch(part) for n in e.ids) for part in texts]
    vocab = full.get_vocab()
    pieces = choose_pieces(vocab, counts, size)
    teacher = AutoModel.from_pretrained(base, dtype=torch.float32).eval()
    old = teacher.config
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(pieces),
            hidden_size=old.hidden_size,
            num_hidden_layers=len(layers),
            num_attention_heads=old.num_attention_heads,
            intermediate_size=neurons,
            max_position_embeddings=old.max_position_embeddings,
            layer_norm_eps=old.layer_norm_eps,
            hidden_dropout_prob=0.0,  # the teacher's scores are smooth enough
            attention_probs_dropout_prob=0.0,
            num_labels=1,
            pad_token_id=pieces.index("[PAD]"),
        )
    )
    sample = [part[i] for part in texts for i in range(0, len(part), max(1, len(part) // 100))]
    worth = neuron_importance(teacher, full, sample)
    with torch.no_grad():
        source, target = teacher.embeddings, model.bert.embeddings
        words = _SCALE * source.word_embeddings.weight[[vocab[p] for p in pieces]]
        target.word_embeddings.weight.copy_(words_rounded(words))
        target.position_embeddings.weight.copy_(_SCALE * source.position_embeddings.weight)
        target.token_type_embeddings.weight.copy_(_SCALE * source.token_type_embeddings.weight[:1].expand(2, -1))
        target.LayerNorm.load_state_dict(source.LayerNorm.state_dict())
        for layer, number in zip(model.bert.encoder.layer, layers, strict=True):
            state = teacher.encoder.layer[number].state_dict()
            keep = worth[number].topk(neurons).indices.sort().values
            for name in ("intermediate.dense.weight", "intermediate.dense.bias"):
                state[name] = state[name][keep]
            state["output.dense.weight"] = state["output.dense.weight"][:, keep]
            layer.load_state_dict(state)
    return model, cut_tokenizer(base, pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--squad", type=Path, required=True, help="train-v1.1.json")
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact folder in BEIR's layout")
    parser.add_argument("--base", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", default="0,2,5", help="layers of the base that are kept")
    parser.add_argument("--neurons", type=int, default=1536, help="feed-forward neurons of a layer")
    parser.add_argument("--pieces", type=int, default=20_400, help="word pieces")
    parser.add_argument("--seed", type=int, default=13, help="of the new head")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    world = build(args.squad, args.scifact, 1 << 30, args.seed)
    texts = [[d.text for d in world.documents if d.scifact == scifact] for scifact in (False, True)]
    layers = [int(number) for number in args.layers.split(",")]
    model, tokenizer = cut(args.base, layers, args.neurons, args.pieces, texts)
    size = write(args.out, model.state_dict(), model.config.to_dict(), tokenizer, torch.float32)
    print(f"{args.out}: {size} bytes")


if __name__ == "__main__":
    main()
