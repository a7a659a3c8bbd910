"""Cut a small cross-encoder out of the bi-encoder: fewer layers, feed-forward neurons and word pieces.

`cut` returns a `BertForSequenceClassification` with one label and a `tokenizers.Tokenizer` whose ids fit it.
`fast_logits` is the same network with its encoder computed in bfloat16; gradients reach the float32 weights.
Its last layer asks for the first token only, since nothing else is read.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, BertConfig, BertForSequenceClassification

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
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=1,
            pad_token_id=pieces.index("[PAD]"),
        )
    )
    sample = [part[i] for part in texts for i in range(0, len(part), max(1, len(part) // 100))]
    worth = neuron_importance(teacher, full, sample)
    with torch.no_grad():
        source, target = teacher.embeddings, model.bert.embeddings
        target.word_embeddings.weight.copy_(source.word_embeddings.weight[[vocab[p] for p in pieces]])
        target.position_embeddings.weight.copy_(source.position_embeddings.weight)
        target.token_type_embeddings.weight.copy_(source.token_type_embeddings.weight[:1].expand(2, -1))
        target.LayerNorm.load_state_dict(source.LayerNorm.state_dict())
        for layer, number in zip(model.bert.encoder.layer, layers, strict=True):
            state = teacher.encoder.layer[number].state_dict()
            keep = worth[number].topk(neurons).indices.sort().values
            for name in ("intermediate.dense.weight", "intermediate.dense.bias"):
                state[name] = state[name][keep]
            state["output.dense.weight"] = state["output.dense.weight"][:, keep]
            layer.load_state_dict(state)
    return model, cut_tokenizer(base, pieces)


def fast_logits(model: BertForSequenceClassification, ids: Tensor, types: Tensor, lengths: Tensor) -> Tensor:
    """Logits of padded `ids` (rows × width, right-padded, `lengths` real tokens each), float32, one a row."""
    config, bert = model.config, model.bert
    heads, width = config.num_attention_heads, ids.shape[1]
    rows, hidden, eps = ids.shape[0], config.hidden_size, config.layer_norm_eps
    mask = torch.arange(width) < lengths[:, None]
    bias = torch.zeros(rows, 1, 1, width, dtype=torch.bfloat16).masked_fill_(~mask[:, None, None], -1e4)
    scale = (hidden // heads) ** -0.5
    e = bert.embeddings

    def norm(x: Tensor, layer: torch.nn.LayerNorm) -> Tensor:
        return functional.layer_norm(x, (hidden,), layer.weight.bfloat16(), layer.bias.bfloat16(), eps)

    def dense(x: Tensor, layer: torch.nn.Linear) -> Tensor:
        return functional.linear(x, layer.weight.bfloat16(), layer.bias.bfloat16())

    x = functional.embedding(ids, e.word_embeddings.weight) + e.position_embeddings.weight[:width]
    first, second = e.token_type_embeddings.weight
    x = x + torch.lerp(first, second, types[..., None].float())
    x = functional.layer_norm(x, (hidden,), e.LayerNorm.weight, e.LayerNorm.bias, eps).bfloat16()
    for layer in bert.encoder.layer:
        own = layer.attention.self
        asking = x[:, :1] if layer is bert.encoder.layer[-1] else x
        q, k, v = (
            dense(rows_in, part).view(rows, -1, heads, hidden // heads).transpose(1, 2)
            for rows_in, part in ((asking, own.query), (x, own.key), (x, own.value))
        )
        weights = torch.softmax(torch.matmul(q * scale, k.transpose(-1, -2)) + bias, -1)
        mixed = torch.matmul(weights, v).transpose(1, 2).reshape(rows, -1, hidden)
        x = norm(asking + dense(mixed, layer.attention.output.dense), layer.attention.output.LayerNorm)
        inner = functional.gelu(dense(x, layer.intermediate.dense))
        x = norm(x + dense(inner, layer.output.dense), layer.output.LayerNorm)
    top = x[:, 0].float()
    pooled = torch.tanh(functional.linear(top, bert.pooler.dense.weight, bert.pooler.dense.bias))
    return functional.linear(pooled, model.classifier.weight, model.classifier.bias)[:, 0]
