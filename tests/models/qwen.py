"""A small tokenizer of Qwen's make, and tiny Qwen3 models with random weights that read its ids."""

import json

import torch
import transformers as tf
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = " <Instruct>: <Query>: <Document>: document: query: instruction: yes no system user assistant\n" * 50
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tokenizer(folder, *texts, size=1500):
    """NFC, Qwen's way of splitting, byte-level BPE, no token before or after a text; its number of entries."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([*texts, WORDS], trainer)
    tf.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder)
    return made.get_vocab_size()


def write_model(folder, rows, **changes):
    """A tiny Qwen3ForCausalLM, whose weights are wide enough that scores differ by far more than tolerances."""
    config = tf.Qwen3Config(
        vocab_size=rows, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=96, max_position_embeddings=32768, initializer_range=0.2, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=2, pad_token_id=0, **changes,
    )  # fmt: skip
    torch.manual_seed(4)
    model = tf.Qwen3ForCausalLM(config).eval()
    for weight in model.requires_grad_(False).parameters():
        if weight.dim() == 1:  # norms are all alike at first
            torch.nn.init.normal_(weight, weight.mean().item(), 0.1)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.12)  # the row of the padding token is 0 at first
    model.save_pretrained(folder)
    return model


def written(folder, *texts, template=None, size=1500):
    """A folder with both, and this chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, write_tokenizer(folder, *texts, size=size))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def last_logits(folder, ids):
    """Logits of the stock model at the last token of each sequence, read one by one; float64 [n, entries]."""
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        return torch.stack([model(input_ids=torch.tensor([one])).logits[0, -1] for one in ids]).double().numpy()


def saved_by_sentence_transformers(folder, true_id, false_id=None, chat=None, **settings):
    """The files that sentence-transformers 5.4 and later save with a causal reranker, as zerank-2 has them."""
    module = "sentence_transformers.base.modules.transformer.Transformer"
    scores = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    modality = {"method": "forward", "method_output_name": "logits"}
    files = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": module},
            {"idx": 1, "name": "1", "path": "1_LogitScore", "type": scores},
        ],
        "1_LogitScore/config.json": {"true_token_id": true_id, "false_token_id": false_id},
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "5.4.0"}, "model_type": "CrossEncoder",
            "default_prompt_name": None, "activation_fn": "torch.nn.modules.linear.Identity", "prompts": {}, **settings,
        },
        "sentence_bert_config.json": {
            "transformer_task": "text-generation", "module_output_name": "causal_logits",
            "modality_config": {"text": modality, "message": {**modality, "format": "flat"}},
            "processing_kwargs": {"chat_template": chat or {"add_generation_prompt": True}},
        },
    }  # fmt: skip
    (folder / "1_LogitScore").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
