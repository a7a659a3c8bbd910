"""A tiny random checkpoint of jina-reranker-v3 as it is published, with a small tokenizer of Qwen's make."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

EXPECTED = Path(__file__).parent / "models" / "parity" / "expected.json"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MARKS = ["<|score_token|>", "<|embed_token|>", "<|rerank_token|>"]
WORDS = (
    "system user assistant expert who can determine a ranking of the passages based on how relevant they are to the "
    'query <passage id="0">\n</passage>\n<query>\n</query>\n'
)
WINDOW = 12_000
CONFIG = {
    "model_type": "qwen3", "architectures": ["JinaForRanking"], "auto_map": {"AutoModel": "modeling.JinaForRanking"},
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 131_072, "rope_theta": 10_000.0,
    "tie_word_embeddings": True, "torch_dtype": "float32", "use_sliding_window": False, "rms_norm_eps": 1e-6,
    "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


def tokenizer():
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    cases = json.loads(EXPECTED.read_text())["cases"]
    made.train_from_iterator([" ".join(passage for _, passage in cases[0]["pairs"]), WORDS * 20], trainer)
    made.add_tokens([AddedToken(token, normalized=False, special=False) for token in ("<think>", "</think>")])
    made.add_special_tokens([AddedToken(token, normalized=False) for token in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=WINDOW
    )


def make_jina(folder):
    """Write the checkpoint; returns the folder."""
    made = tokenizer()
    made.save_pretrained(folder)
    config = CONFIG | {"vocab_size": len(made) + 20}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(8)
    stock = Qwen3Model(Qwen3Config.from_dict(config | {"initializer_range": 0.2}))
    weights = {f"model.{name}": value.clone() for name, value in stock.state_dict().items()}
    for name, value in weights.items():
        if value.dim() == 1:  # norms are all alike at first
            weights[name] = 1 + torch.randn(value.shape) * 0.1
    weights |= {"projector.0.weight": torch.randn(24, 48), "projector.2.weight": torch.randn(20, 24)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
